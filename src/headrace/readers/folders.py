"""Images and texts in files of their own: folders, or archives of them, whose paths say what each file is.

What is no example is left out: files of another ending, hidden ones (`.DS_Store`, `._a.jpg`), what lies in no folder of
a class or fits no pattern. How many those are is logged. Files are read one at a time, as they are asked for.
"""

from __future__ import annotations

import contextlib
import logging
import re
import textwrap
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from posixpath import splitext
from typing import Any

import numpy as np
import pyarrow as pa

from headrace.errors import ConfigError, DataError
from headrace.getting import archives
from headrace.readers.batches import BYTES, Array, Restartable
from headrace.readers.cells import Bad
from headrace.readers.columns import type_kept
from headrace.readers.splits import A_FIFTH, SEED, Shares, deal, keras_order
from headrace.spec import Feature

log = logging.getLogger(__name__)

IMAGES = (".jpg", ".jpeg", ".png", ".gif", ".bmp")
TEXTS = (".txt", "")
SPLITS = {
    "train": "train",
    "training": "train",
    "test": "test",
    "testing": "test",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
}
"""Name of a folder → the split that lies in it."""

ROWS = 1024
"""Examples in a batch, unless fewer make 16 MB."""

Places = Path | Sequence[Path]


@dataclass
class _Example:
    """What is known of an example before its files are read."""

    split: str | None
    values: Mapping[str, Any]
    files: dict[str, tuple[int, str]] = field(default_factory=dict)
    """Feature → the place and the path within it."""


def files_by_class(
    places: Places,
    features: Mapping[str, Feature],
    *,
    pattern: str | None = None,
    shares: Shares = A_FIFTH,
    seed: int | None = SEED,
    bad: Bad = "refuse",
) -> dict[str, Restartable]:
    r"""Images or texts whose class is the name of their folder: `<class>/<file>`, or `<split>/<class>/<file>`.

    Args:
        places: A folder or an archive (zip, tar, tar.gz, …), or several.
        features: One input for the files' bytes (`string`, an image or a text), one target for the class (`int64` with
            the names as `classes`; capitals don't count), and perhaps a note, which gets the path.
        pattern: Where folders don't say it: a regular expression to be found in the path, with a group `class` and
            perhaps `split`: `r"train/(?P<class>cat|dog)\.\d+\.jpg$"`.
        shares: If there is no folder of the split `test` (or group): the shares by which the examples that are in no
            split, or in `train`, are dealt out.
        seed: Of the order in each split, which is drawn; None: sorted by path.
        bad: What becomes of empty files, and of texts that are not UTF-8: told, or null in the batch. An image that
            isn't one is not looked for here.

    Returns:
        Split → batches, any number of times.

    Raises:
        ConfigError: The features don't fit files by class.
        DataError: There are no such files, or no such folders.
    """
    content, target = _content(features), _class(features)
    notes = [name for name, feature in features.items() if feature.role == "note"]
    numbers = {name.casefold(): number for number, name in enumerate(features[target].classes)}
    endings = TEXTS if features[content].kind == "text" else IMAGES
    regex = re.compile(pattern) if pattern else None
    known: dict[str, _Example] = {}
    others: Counter[str] = Counter()
    for place, path in _paths(places, endings):
        *parents, _ = path.split("/")
        if regex:
            match = regex.search(path)
            groups = match.groupdict() if match else {}
            name, split = groups.get("class") or "", groups.get("split") or ""
        else:
            name = next((parent for parent in reversed(parents) if parent.casefold() in numbers), "")
            split = next((parent for parent in parents if parent.casefold() in SPLITS), "")
        if name.casefold() not in numbers:
            others["/".join(parents) or "the folder itself"] += 1
            continue
        values = {target: numbers[name.casefold()], **dict.fromkeys(notes, path)}
        known[f"{path}\n{place}"] = _Example(SPLITS.get(split.casefold()), values, {content: (place, path)})
    if not known:
        ended = ", ".join(filter(None, endings))
        raise DataError(
            f"No file of {_named(places)} lies in a folder of a class.",
            expected=f"{pattern or '<class>/<file> or <split>/<class>/<file>'}; files that end in {ended}; "
            f"the classes {', '.join(features[target].classes)}",
            received=textwrap.shorten(", ".join(sorted(others)), 150, placeholder=" …") or "no such file",
        )
    if others:
        told = ", ".join(f"{folder} ({count})" for folder, count in sorted(others.items()))
        log.info("%s: left out, in no class: %s", _named(places), textwrap.shorten(told, 150, placeholder=" …"))
    lacking = set(numbers.values()) - {example.values[target] for example in known.values()}
    for number in sorted(lacking):
        log.warning("%s: no file of class `%s`", _named(places), features[target].classes[number])
    return _in_splits(places, features, known, shares, seed, bad)


def files_by_name(
    places: Places,
    features: Mapping[str, Feature],
    patterns: Mapping[str, str],
    *,
    values: Callable[[str], Mapping[str, Any] | None] = lambda name: {},
    split: Callable[[str], str | None] = lambda name: None,
    shares: Shares = A_FIFTH,
    seed: int | None = SEED,
    bad: Bad = "refuse",
) -> dict[str, Restartable]:
    """Files that belong together because they are called alike (an image and its mask), and what else their name tells.

    Args:
        places: A folder or an archive (zip, tar, tar.gz, …), or several.
        features: What to read. Notes that `values` does not give get the name.
        patterns: Feature → path of its files, in which a `*` stands for the name that they share:
            `{"photo": "images/*.jpg", "mask": "annotations/trimaps/*.png"}`. Examples are the files of the first one;
            what another one lacks is missing.
        values: Name → values of the other features; None leaves the example out.
        split: Name → its split; None: it is dealt out by `shares`, as is everything if no example is in split `test`.
        shares: As in `files_by_class`.
        seed: As in `files_by_class`.
        bad: As in `files_by_class`.

    Returns:
        Split → batches, any number of times.

    Raises:
        DataError: There are no such files, or two for the same name.
    """
    regexes = {feature: re.compile(re.escape(text).replace(r"\*", "(.+)")) for feature, text in patterns.items()}
    found: dict[str, dict[str, tuple[int, str]]] = {feature: {} for feature in patterns}
    for place, path in _paths(places, None):
        for feature, regex in regexes.items():
            match = regex.fullmatch(path)
            if match and match[1] in found[feature]:
                raise DataError(f"{_named(places)} holds two files {path}.")
            if match:
                found[feature][match[1]] = (place, path)
    first, *others = patterns
    if not found[first]:
        raise DataError(f"{_named(places)} holds no file `{patterns[first]}`.")
    for other in others:
        for one, two in ((first, other), (other, first)):
            alone = sorted(found[one].keys() - found[two].keys())
            if alone:
                log.warning("%d of %s have no %s: %s …", len(alone), patterns[one], patterns[two], alone[0])
    known: dict[str, _Example] = {}
    for name in found[first]:
        told = values(name)
        if told is not None:
            notes = {note: name for note, feature in features.items() if feature.role == "note"}
            files = {feature: found[feature][name] for feature in patterns if name in found[feature]}
            known[name] = _Example(split(name), {**notes, **told}, files)
    if not known:
        raise DataError(f"Nothing is known of any file `{patterns[first]}` of {_named(places)}.")
    return _in_splits(places, features, known, shares, seed, bad)


# ----------------------------------------------------------------------------------------- what lies there


def _paths(places: Places, endings: Sequence[str] | None) -> Iterator[tuple[int, str]]:
    """The files that may be examples: number of the place, path within it."""
    for number, place in enumerate(_list(places)):
        for path in _names(place):
            hidden = any(part.startswith(".") for part in path.split("/"))
            if not hidden and (endings is None or splitext(path)[1].lower() in endings):
                yield number, path


def _names(place: Path) -> Sequence[str]:
    if place.is_dir():
        return _listed(place)
    try:
        stat = place.stat()
    except OSError as error:
        raise DataError(f"{place} can't be read.", received=error.strerror) from error
    return _listed_once(place, stat.st_mtime_ns, stat.st_size)


def _listed(place: Path) -> Sequence[str]:
    with archives.contents(place) as files:
        return list(files)


@lru_cache(maxsize=8)
def _listed_once(place: Path, _time: int, _size: int) -> Sequence[str]:
    """A packed tar has to be unpacked to be listed."""
    return _listed(place)


def _list(places: Places) -> list[Path]:
    return [places] if isinstance(places, Path) else list(places)


def _named(places: Places) -> str:
    return " and ".join(place.name for place in _list(places))


def _content(features: Mapping[str, Feature]) -> str:
    inputs = {name: feature for name, feature in features.items() if feature.role == "input" and not feature.shape}
    found = [name for name, f in inputs.items() if f.dtype == "string" and f.kind in ("image", "text")]
    if len(found) != 1:
        raise ConfigError(
            "Files by class need one input that holds a file.",
            expected='Feature(dtype="string", content="image"), or "text"',
            received=f"{len(found)} of {len(features)} features are such: {', '.join(features)}",
        )
    return found[0]


def _class(features: Mapping[str, Feature]) -> str:
    found = [name for name, feature in features.items() if feature.role == "target" and feature.size == 1]
    if len(found) != 1 or not features[found[0]].classes or features[found[0]].dtype == "string":
        raise ConfigError(
            "Files by class need one target that is a class.",
            expected='Feature(dtype="int64", role="target", classes=("cat", "dog"))',
            received=f"the targets {', '.join(n for n, f in features.items() if f.role == 'target') or '(none)'}",
        )
    return found[0]


# -------------------------------------------------------------------------------------------- what is read


def _in_splits(
    places: Places,
    features: Mapping[str, Feature],
    known: Mapping[str, _Example],
    shares: Shares,
    seed: int | None,
    bad: Bad,
) -> dict[str, Restartable]:
    examples = [known[key] for key in sorted(known)]
    splits = [example.split or "train" for example in examples]
    if "test" not in splits:
        free = np.flatnonzero(np.array(splits) == "train")
        for split, dealt in deal(len(free), shares, SEED if seed is None else seed, _named(places)).items():
            for place in free[dealt]:
                splits[place] = split
    return {
        split: Restartable(
            partial(_read, places, features, [examples[k] for k in _ordered(splits, split, seed)], bad),
        )
        for split in sorted(set(splits), key=["train", "validation", "test"].index)
    }


def _ordered(splits: Sequence[str], split: str, seed: int | None) -> Array:
    """The positions of a split's examples, in the order in which they are read."""
    positions = np.flatnonzero(np.array(splits) == split)
    return positions if seed is None else positions[keras_order(len(positions), seed)]


def _read(
    places: Places, features: Mapping[str, Feature], examples: Sequence[_Example], bad: Bad
) -> Iterator[pa.RecordBatch]:
    with contextlib.ExitStack() as stack:
        contents = [stack.enter_context(archives.contents(place)) for place in _list(places)]
        rows: list[Mapping[str, Any]] = []
        held = 0
        for example in examples:
            row = dict(example.values)
            for name, (place, path) in example.files.items():
                content = contents[place][path].read()
                held += len(content)
                trouble = _trouble(content, features[name])
                if trouble and bad == "refuse":
                    raise DataError(
                        f"{path} of {_named(places)} can't be used: it {trouble}.",
                        remedy="repair or remove it; or give the source a `quarantine`, which leaves such files out",
                    )
                row[name] = None if trouble else content
            rows.append(row)
            if len(rows) == ROWS or held >= BYTES:
                yield _batch(rows, features)
                rows, held = [], 0
        if rows:
            yield _batch(rows, features)


def _trouble(content: bytes, feature: Feature) -> str | None:
    """Why the bytes of a file can't be the value of a feature, as far as that can be seen without decoding an image."""
    if not content:
        return "is empty"
    try:
        if feature.kind == "text":
            content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        return f"is no UTF-8 on line {line}"
    return None


def _batch(rows: Sequence[Mapping[str, Any]], features: Mapping[str, Feature]) -> pa.RecordBatch:
    columns = {}
    for name, feature in features.items():
        values = [int(value) if isinstance(value := row.get(name), bool) else value for row in rows]
        kind = pa.large_binary() if feature.dtype == "string" else type_kept(feature)
        if feature.ragged:
            kind = pa.large_list(kind)
        elif feature.shape:
            kind = pa.list_(kind, feature.size)
            # A class, or another single value, is given without a list around it.
            values = [[value] if value is not None and feature.size == 1 else value for value in values]
        columns[name] = pa.array(values, kind)
    return pa.RecordBatch.from_pydict(columns)
