"""Batches held against the declared features: what can't be trained on stops the run, or is left out and noted."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headrace.artifacts import write_atomically
from headrace.errors import DataError, nearest
from headrace.spec import Feature
from headrace.validation.anomalies import Anomaly, Severity

Array = np.ndarray[Any, Any]

NOTED = 10_000
"""Examples of a split that are noted one by one; the others are counted."""
SHOWN = 3
"""Places of each problem that a message names."""
LINES = 8
"""Problems that a message tells."""
LONGEST = 60
"""Characters of a value that are noted."""

REMEDY = "make `read` and the source's `features` agree"


def checked(
    batches: Iterable[pa.RecordBatch],
    features: Mapping[str, Feature],
    where: str,
    quarantine: Quarantine | None = None,
) -> Iterator[pa.RecordBatch]:
    """The same batches, each held against the declared features; columns in the declared order, empty batches left out.

    Bytes (uint8) where larger numbers are declared become these.

    A batch without a fault costs a few percent of reading it (encoded images 0.1 ms each, for their headers).

    Args:
        batches: Batches as `read` gives them.
        features: The declared features.
        where: What is checked, for the message: "split `train`".
        quarantine: Takes the examples that can't be used, up to its share of the split; the batches come without them.
            Default: none may be left out.

    Raises:
        DataError: A feature is missing, too many, or of another type or shape, from whichever batch on. Or more
            examples than the quarantine's share can't be used: a value is missing or infinite, a class is unknown, a
            sequence breaks off within a step, an image is none or is cut short. The message names what is wrong with
            its rows (counted from 0 in the split).
    """
    quarantine = quarantine or Quarantine()
    for batch in batches:
        _same_features(batch.schema.names, features, where)
        for name, feature in features.items():
            _same_type(batch.column(name).type, name, feature, where, quarantine.examples)
        columns = [_widened(batch.column(name), feature) for name, feature in features.items()]
        batch = quarantine.admit(pa.RecordBatch.from_arrays(columns, list(features)), features, where)
        if batch.num_rows:
            yield batch
    quarantine.close(where)


# ----------------------------------------------------------------------------------------------- structure


def _same_features(names: Sequence[str], features: Mapping[str, Feature], where: str) -> None:
    missing = [name for name in features if name not in names]
    extra = [name for name in names if name not in features]
    twice = sorted({name for name in names if names.count(name) > 1})
    if missing or extra or twice:
        lines = [f"feature `{name}` is missing: {nearest(name, names)}" for name in missing]
        lines += [f"feature `{name}` is not declared: {nearest(name, features)}" for name in extra]
        lines += [f"feature `{name}` is there twice" for name in twice]
        raise DataError(
            f"In {where}, {'; '.join(lines)}",
            expected=", ".join(features),
            received=", ".join(names) or "no feature at all",
            remedy=REMEDY,
        )


def _same_type(received: pa.DataType, name: str, feature: Feature, where: str, begin: int) -> None:
    types = pa.types
    value: pa.DataType = received
    fits = not feature.shape
    if types.is_fixed_size_list(received):
        value = received.value_type
        fits = bool(feature.shape) and not feature.ragged and received.list_size == feature.size
    elif types.is_list(received) or types.is_large_list(received):
        value = received.value_type
        fits = feature.ragged
    if not fits or value not in _ARROW_TYPES[feature.dtype]:
        raise DataError(
            f"In {where}, feature `{name}` is not what was declared{f', from row {begin:,} on' if begin else ''}.",
            expected=f"{_arrow_type(feature)} (shape {feature.shape})",
            received=received,
            remedy=REMEDY,
        )


def _widened(column: pa.Array, feature: Feature) -> pa.Array:
    """Bytes as the larger numbers that are declared: labels and grey levels are often kept as small as they are."""
    value = column.type if pa.types.is_primitive(column.type) else getattr(column.type, "value_type", None)
    small = value == pa.uint8() and feature.dtype != "uint8"
    return column.cast(_arrow_type(feature)) if small else column


_ARROW_TYPES = {
    "float32": (pa.float32(), pa.uint8()),
    "int64": (pa.int64(), pa.uint8()),
    "uint8": (pa.uint8(),),
    "string": (pa.large_binary(), pa.binary(), pa.large_string(), pa.string()),
}


def _arrow_type(feature: Feature) -> pa.DataType:
    value = _ARROW_TYPES[feature.dtype][0]
    if feature.ragged:
        return pa.large_list(value)
    return pa.list_(value, feature.size) if feature.shape else value


# -------------------------------------------------------------------------------------------------- values


@dataclass(frozen=True)
class Fault:
    """What is wrong with one feature of one example."""

    row: int
    """In its batch, or in its split once it is noted; counted from 0."""
    feature: str
    column: str
    """Name of the position: a column's, or `image[3,0]`; "" if the feature is a single value."""
    reason: str
    value: str
    """In a few characters; "" where there is none."""
    more: int = 0
    """Further values of the same example with the same fault."""


class Places:
    """Where the values of a column belong: to which row, and to which place of its example."""

    def __init__(self, column: pa.Array, feature: Feature) -> None:
        self._column = column
        self._feature = feature

    @cached_property
    def lengths(self) -> Array:
        """Values of each row; none where a list is null."""
        if not self._feature.shape:
            return np.ones(len(self._column), np.int64)
        return pc.fill_null(pc.list_value_length(self._column), 0).to_numpy(zero_copy_only=False).astype(np.int64)

    @cached_property
    def rows(self) -> Array:
        """The row of each value."""
        return np.repeat(np.arange(len(self._column)), self.lengths)

    @cached_property
    def _starts(self) -> Array:
        return np.cumsum(self.lengths) - self.lengths

    def name(self, name: str, at: int) -> str:
        """The name of the position of a value; "" if the feature is a single one."""
        if not self._feature.shape:
            return ""
        return position_name(name, self._feature, at - int(self._starts[self.rows[at]]))


def faults(column: pa.Array, name: str, feature: Feature) -> Iterator[Fault]:
    """What is wrong with the values of a feature in a batch, one for each example and reason.

    Args:
        column: Values of the declared type.
        name: Name of the feature.
        feature: What is declared.
    """
    places = Places(column, feature)
    if feature.shape and column.null_count and not feature.optional:
        missing = np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False))
        yield from (Fault(int(row), name, "", MISSING, "") for row in missing)
    if feature.ragged and feature.size > 1:
        for row in np.flatnonzero(places.lengths % feature.size):
            yield Fault(int(row), name, "", f"holds no multiple of {feature.size} values", f"{places.lengths[row]}")
    values = _values(column, feature)
    for wrong, reason in _wrong(values, feature):
        all_at = np.flatnonzero(wrong)
        rows, first, counts = np.unique(places.rows[all_at], return_index=True, return_counts=True)
        for row, at, count in zip(rows, all_at[first], counts, strict=True):
            value = shortened(values[int(at)].as_py())
            yield Fault(int(row), name, places.name(name, int(at)), reason, value, int(count) - 1)


def _values(column: pa.Array, feature: Feature) -> pa.Array:
    """All values one after the other, without the lists that are null."""
    return column.flatten() if feature.shape else column


MISSING = "is missing"
NO_CLASS = "is none of the {} classes"


def _wrong(values: pa.Array, feature: Feature) -> Iterator[tuple[Array, str]]:
    """Which of the values can't be used (a mask), for each reason that occurs."""
    if values.null_count and not feature.optional:
        yield values.is_null().to_numpy(zero_copy_only=False), MISSING
    if feature.dtype == "string":
        yield from _wrong_strings(values, feature)
        return
    if values.null_count:
        values = pc.fill_null(values, 0)
    numbers = values.to_numpy(zero_copy_only=False)
    if feature.dtype == "float32":
        if not np.isfinite(numbers).all():
            unknown, infinite = np.isnan(numbers), np.isinf(numbers)
            if unknown.any() and not feature.optional:
                yield unknown, MISSING
            if infinite.any():
                yield infinite, "is infinite"
        if feature.classes:
            # Class numbers of which some may be missing: floats, since NaN is one.
            known = (numbers >= 0) & (numbers < len(feature.classes)) & (numbers == np.floor(numbers))
            if not (known | ~np.isfinite(numbers)).all():
                yield ~known & np.isfinite(numbers), NO_CLASS.format(len(feature.classes))
    elif feature.classes and len(numbers) and (numbers.min() < 0 or numbers.max() >= len(feature.classes)):
        yield (numbers < 0) | (numbers >= len(feature.classes)), NO_CLASS.format(len(feature.classes))


def _wrong_strings(values: pa.Array, feature: Feature) -> Iterator[tuple[Array, str]]:
    picture = feature.kind in ("image", "mask")
    if (picture or feature.kind == "category") and not feature.ragged:
        # An empty text is a text; an empty category or image is none.
        empty = pc.fill_null(pc.equal(pc.binary_length(values), 0), False)
        if not feature.optional and pc.any(empty).as_py():
            yield empty.to_numpy(zero_copy_only=False), MISSING
    if feature.classes and not picture:
        known = pc.is_in(values, pa.array(["", *feature.classes]).cast(values.type))
        if not pc.all(pc.or_(known, values.is_null())).as_py():
            unknown = pc.and_not(pc.invert(known), values.is_null()).to_numpy(zero_copy_only=False)
            yield unknown, NO_CLASS.format(len(feature.classes))


def position_name(name: str, feature: Feature, place: int) -> str:
    """The name of one value of an example, given its place among them, as in `described.position_names`."""
    dimensions = [place + 1 if length is None else length for length in feature.shape]
    index = [int(i) for i in np.unravel_index(place, dimensions)]
    labels = [str(i) for i in index]
    if feature.columns:
        labels[-1] = feature.columns[index[-1]].name
        if len(index) == 1:
            return labels[0]
    return f"{name}[{','.join(labels)}]"


def shortened(value: Any) -> str:
    """A value in a few characters, for people."""
    if value is None:
        return ""
    if isinstance(value, bytes):
        try:
            value = value.decode()
        except UnicodeDecodeError:
            return f"{len(value):,} bytes: {value[:12].hex(' ')}{' …' * (len(value) > 12)}"
    text = f'"{value}"' if isinstance(value, str) else f"{value:g}" if isinstance(value, float) else str(value)
    return text if len(text) <= LONGEST else text[: LONGEST - 2] + '…"'


# -------------------------------------------------------------------------------------------------- images


def image_fault(file: bytes) -> tuple[str, str]:
    """Look at the header of an image file, and whether its end is there.

    Args:
        file: The whole file.

    Returns:
        Kind ("JPEG, RGB") and "", or "" and what is wrong with it.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(file), formats=tuple(_WHOLE)) as image:
            # A JPEG with a second, smaller picture behind the first one.
            kind = "JPEG" if image.format == "MPO" else str(image.format)
            colours = image.mode
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError):
        return "", f"is no image ({', '.join(_WHOLE)})"
    except Image.DecompressionBombError:
        return "", "is an image of more pixels than is sane"
    return (f"{kind}, {colours}", "") if _WHOLE[kind](file) else ("", "is an image cut short")


def _jpeg_is_whole(file: bytes) -> bool:
    # Within the data of a scan the two marks don't occur: the last scan must be followed by the end of the image.
    # Looked for from behind, the end is found at once, and with it that no scan begins after it.
    end = file.rfind(b"\xff\xd9")
    return end >= 0 and file.find(b"\xff\xda", end) < 0 and b"\xff\xda" in file


_WHOLE: dict[str, Callable[[bytes], bool]] = {
    "JPEG": _jpeg_is_whole,
    "PNG": lambda file: b"IEND" in file,
    "GIF": lambda file: file.rstrip(b"\0").endswith(b";"),
    "BMP": lambda file: len(file) >= int.from_bytes(file[2:6], "little"),
}
"""Whether a file is there to its end: TensorFlow decodes no other."""


# ---------------------------------------------------------------------------------------------- quarantine


@dataclass
class _Found:
    """How often something was found in a split, with the first places."""

    count: int = 0
    rows: list[int] = field(default_factory=list)
    values: list[str] = field(default_factory=list)

    def note(self, row: int, value: str) -> None:
        """Count one more."""
        self.count += 1
        if len(self.rows) < SHOWN:
            self.rows.append(row)
            self.values.append(value)


REPAIR = "repair the data, let `read` leave such rows out, or allow a share of them (`quarantine`)"


class Quarantine:
    """The examples of one split that can't be used: left out up to a share, and noted with their reasons.

    A stage that reads the split again leaves the same examples out by a quarantine of the same share.

    Args:
        share: Share of the split's examples that may be left out; 0: the first one stops.
        split: Name of the split, for the notes.
        remedy: How to go on when there are too many, for the message.
        before: Examples of the split that others look at: rows are counted from there.
    """

    def __init__(self, share: float = 0.0, split: str = "", remedy: str = REPAIR, before: int = 0) -> None:
        self.share = share
        self.split = split
        self._remedy = remedy
        self.examples = before
        """Examples looked at."""
        self.left_out = 0
        """Those of them that can't be used."""
        self.noted: list[dict[str, Any]] = []
        """The first of these: split, row, note (what the features for people say), problems (feature, column, reason,
        value, more)."""
        self._gone: list[int] = []
        self._problems: dict[tuple[str, str, str], _Found] = {}
        self._kinds: dict[str, dict[str, _Found]] = {}

    def admit(self, batch: pa.RecordBatch, features: Mapping[str, Feature], where: str) -> pa.RecordBatch:
        """The batch without the examples that can't be used.

        Args:
            batch: The next batch of the split; its columns have the declared types.
            features: The declared features.
            where: What is checked, for the message.

        Raises:
            DataError: An example can't be used, and none may be left out.
        """
        found: list[Fault] = []
        for name, feature in features.items():
            found += faults(batch.column(name), name, feature)
            if feature.dtype == "string" and feature.kind in ("image", "mask"):
                found += self._look_at(batch, name, features)
        keep = np.ones(batch.num_rows, bool)
        if found:
            keep[[fault.row for fault in found]] = False
            self._note(batch, features, found)
        self.examples += batch.num_rows
        if self.left_out and not self.share:
            raise self._refusal(where, so_far=True)
        return batch.filter(pa.array(keep)) if found else batch

    def close(self, where: str) -> None:
        """Say that the split has ended.

        Raises:
            DataError: More of its examples than the share can't be used.
        """
        if self.left_out > self.share * self.examples:
            raise self._refusal(where, so_far=False)

    def _look_at(self, batch: pa.RecordBatch, name: str, features: Mapping[str, Feature]) -> Iterator[Fault]:
        """What is wrong with encoded images; the kinds of the others are counted."""
        column, feature = batch.column(name), features[name]
        places, kinds = Places(column, feature), self._kinds.setdefault(name, {})
        for at, value in enumerate(_values(column, feature)):
            file = value.as_py()
            if not file:
                continue  # missing, which is another fault, or none
            row = int(places.rows[at])
            kind, reason = image_fault(file)
            if reason:
                yield Fault(row, name, places.name(name, at), reason, shortened(file))
                continue
            shown = " ".join(map(str, _note(batch, row, features).values()))
            kinds.setdefault(kind, _Found()).note(self.examples + row, shown)

    def _note(self, batch: pa.RecordBatch, features: Mapping[str, Feature], found: Sequence[Fault]) -> None:
        by_row: dict[int, list[Fault]] = {}
        for fault in found:
            by_row.setdefault(fault.row, []).append(fault)
            key = fault.feature, fault.column, fault.reason
            self._problems.setdefault(key, _Found()).note(self.examples + fault.row, fault.value)
        self.left_out += len(by_row)
        self._gone += [self.examples + row for row in sorted(by_row)]
        for row, problems in sorted(by_row.items()):
            if len(self.noted) == NOTED:
                break
            self.noted.append(
                {
                    "split": self.split,
                    "row": self.examples + row,
                    "note": _note(batch, row, features),
                    "problems": [
                        {"feature": f.feature, "column": f.column, "reason": f.reason, "value": f.value, "more": f.more}
                        for f in problems
                    ],
                }
            )

    def again(self) -> Quarantine:
        """One for the same split read again: it leaves the same examples out, and does not look at the others."""
        return _Known(self._gone)

    def original(self, row: int) -> int:
        """The position in the split of an example that has this one among those that were not left out."""
        kept_before = np.array(self._gone, np.int64) - np.arange(len(self._gone))
        return row + int(np.searchsorted(kept_before, row, side="right"))

    def anomalies(self) -> list[Anomaly]:
        """What is wrong, one for each feature, column and reason; and images of another kind than most of the split.

        The latter (a PNG named .jpg) can be read all the same, so that they are warnings.
        """
        found = []
        for (feature, column, reason), seen in self._problems.items():
            said = f"feature `{feature}`" + (f", column `{column}`, {reason}" if column else f" {reason}")
            found.append(self._told("error", feature, column, said, "unusable", seen))
        for feature, kinds in self._kinds.items():
            usual = max(kinds, key=lambda kind: kinds[kind].count, default="")
            for kind, seen in kinds.items():
                if kind != usual:
                    said = f"feature `{feature}` is {kind} where most images are {usual}"
                    found.append(self._told("warning", feature, "", said, "image", seen))
        return found

    def _told(self, severity: Severity, feature: str, column: str, said: str, kind: str, seen: _Found) -> Anomaly:
        share = seen.count / max(self.examples, 1)
        return Anomaly(severity, feature, column, said, kind, seen.count, share, tuple(seen.values), tuple(seen.rows))

    def problems(self) -> list[str]:
        """What is wrong in words, at most 8 lines: one for each feature, column and reason, with its first rows."""
        lines = [f"{found.text} in {found.places}" for found in self.anomalies() if found.severity == "error"]
        more = f"and {len(lines) - LINES} problems more"
        return [*lines[:LINES], more] if len(lines) > LINES else lines

    def remarks(self) -> list[str]:
        """What can be used, but is worth a look, in words."""
        return [f"{found.text} in {found.places}" for found in self.anomalies() if found.severity == "warning"]

    def _refusal(self, where: str, so_far: bool) -> DataError:
        lines = "".join(f"\n  - {line}" for line in self.problems())
        some = "1 example" if self.left_out == 1 else f"{self.left_out:,} examples"
        allowed = "in each example a value that can be used"
        return DataError(
            f"In {where}, {some} can't be used (rows are counted from 0):{lines}",
            expected=f"{allowed}, or at most {self.share:.2%} without" if self.share else allowed,
            received=f"{self.left_out:,} of {'the first ' if so_far else ''}{self.examples:,} without",
            remedy=self._remedy,
        )

    def to_json(self) -> dict[str, Any]:
        """The count, for a summary: examples looked at, left out, problems and remarks in words."""
        return {
            "examples": self.examples,
            "left_out": self.left_out,
            "problems": self.problems(),
            "remarks": self.remarks(),
        }


class _Known(Quarantine):
    """Leaves out the examples at these rows."""

    def __init__(self, gone: Sequence[int]) -> None:
        super().__init__()
        self._rows = np.array(gone, np.int64)

    def admit(self, batch: pa.RecordBatch, features: Mapping[str, Feature], where: str) -> pa.RecordBatch:
        first, self.examples = self.examples, self.examples + batch.num_rows
        gone = self._rows[slice(*np.searchsorted(self._rows, (first, self.examples)))] - first
        return batch.filter(pa.array(~np.isin(np.arange(batch.num_rows), gone))) if len(gone) else batch


def write_quarantine(path: Path, quarantines: Iterable[Quarantine]) -> None:
    """Write what was left out as JSON lines: one for each example noted, then one for each split with its counts."""
    quarantines = list(quarantines)
    lines = [example for quarantine in quarantines for example in quarantine.noted]
    lines += [{"split": quarantine.split, "total": quarantine.to_json()} for quarantine in quarantines]
    write_atomically(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode())


def _note(batch: pa.RecordBatch, row: int, features: Mapping[str, Feature]) -> dict[str, Any]:
    """What the features for people say of an example."""
    said = {name: batch.column(name)[row].as_py() for name, feature in features.items() if feature.role == "note"}
    return {name: value.decode(errors="replace") if isinstance(value, bytes) else value for name, value in said.items()}
