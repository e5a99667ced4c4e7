"""Sample sheets: a few examples of each class, or from low to high target, as people can look at them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.describing.described import position_names
from headrace.looking.pictures import Picture, is_small, lines, overlay, sheet, tile
from headrace.looking.sampling import ROW, Arrays
from headrace.ragged import Array, Ragged
from headrace.showing.pages import number
from headrace.spec import Feature

if TYPE_CHECKING:
    from PIL.Image import Image

EXCERPT = 320
"""Characters of a text."""
SHORT = 40
"""Bytes up to which text stands in a table."""
TOKENS = 40
"""Tokens of a sequence."""
CELLS = 32
"""Values up to which a feature stands in a table; larger ones are drawn as series."""
TILES, PAIRS, TEXTS, SERIES, ROWS = 8, 4, 2, 3, 2
"""What is shown of each group."""
UNGROUPED = 4
"""How many times as much is shown where there is one group only."""

Samples = Sequence[tuple[str, Arrays]]
"""Label and examples of each group."""


def sheets(samples: Samples, features: Mapping[str, Feature]) -> tuple[list[dict[str, Any]], dict[str, Picture]]:
    """Lay out examples by what they are.

    Args:
        samples: As `Observer.samples` gives them.
        features: The declared features.

    Returns:
        The sheets: `kind` (images, text, series or table), `title`, and what stands on it; and the pictures that the
        sheets of images name, by file name.
    """
    if not samples:
        return [], {}
    found: list[dict[str, Any]] = []
    pictures: dict[str, Picture] = {}
    images, masks = (
        [n for n, f in features.items() if f.kind == kind and not f.ragged and (f.dtype != "string" or not f.shape)]
        for kind in ("image", "mask")
    )
    first = images[0] if images else None
    pairs: list[tuple[str | None, str | None]] = [(first, mask) for mask in masks]
    for image, mask in pairs or [(image, None) for image in images]:
        made, picture = _of_images(samples, image, mask, features)
        pictures[made["picture"]] = picture
        found.append(made)
    cells = [name for name, feature in features.items() if _fits_a_cell(samples, name, feature)]
    if any(features[name].role == "input" for name in cells):
        found.append(_of_rows(samples, {name: features[name] for name in cells}))
    for name, feature in features.items():
        if name in cells or feature.kind in ("image", "mask"):
            continue
        if feature.dtype == "string" or feature.kind == "tokens":
            found.append(_of_texts(samples, name, feature, features))
        else:
            found.append(_of_series(samples, name, features))
    return found, pictures


def _several(samples: Samples, count: int) -> int:
    return count if len(samples) > 1 else count * UNGROUPED


def _values(arrays: Arrays, name: str, i: int) -> list[Any]:
    """All values of one example of a feature, one after the other."""
    return np.asarray(arrays[name])[i : i + 1].reshape(-1).tolist()


def _notes(arrays: Arrays, i: int, features: Mapping[str, Feature]) -> str:
    """What the features for people say of an example, in a line."""
    return " · ".join(
        _in_a_cell(_values(arrays, name, i)[0])
        for name, feature in features.items()
        if feature.role == "note" and feature.shape == ()
    )


# ------------------------------------------------------------------------------------------- one by one


@dataclass(frozen=True)
class Shown:
    """One example by itself, as people can look at it."""

    row: int
    """Its position in its split, counted from 0."""
    note: str = ""
    """What the features for people say of it."""
    pictures: Sequence[tuple[str, Picture]] = ()
    texts: Sequence[tuple[str, str]] = ()
    series: Sequence[tuple[str, Sequence[str]]] = ()
    """The lines of each, as `headrace.looking.pictures.lines` gives them."""
    cells: Sequence[tuple[str, str]] = ()
    """Names and values of numbers and short texts."""


def one_by_one(arrays: Arrays, features: Mapping[str, Feature]) -> list[Shown]:
    """Lay out examples each by itself.

    Args:
        arrays: The values of some features of the examples, with their positions as `ROW`.
        features: The features; inputs are shown, notes are named, others are passed over.
    """
    inputs = {name: feature for name, feature in features.items() if feature.role == "input" and name in arrays}
    there = {name: feature for name, feature in features.items() if name in arrays}
    cells = [name for name, feature in inputs.items() if _fits_a_cell([("", arrays)], name, feature)]
    found = []
    for i in range(len(arrays[ROW])):
        pictures, texts, series = [], [], []
        for name, feature in inputs.items():
            if name in cells:
                continue
            value = _one(arrays[name], i)
            if feature.kind == "image":
                pictures.append((name, sheet([[tile(_picture(value))]], is_small(_picture(value)))))
            elif feature.kind == "mask":
                pictures.append((name, sheet([[overlay(None, _picture(value))]], sharp=True)))
            elif feature.dtype == "string" or feature.kind == "tokens":
                texts.append((name, _text(value, feature)))
            elif feature.dtype == "uint8" and len(feature.shape) == 1:
                texts.append((name, f"{np.count_nonzero(value):,} of {feature.size:,} are set"))
            else:
                series.append((name, lines(np.asarray(value))))
        values = [
            (label, _in_a_cell(value, inputs[name]))
            for name in cells
            for label, value in zip(position_names(name, inputs[name]), _values(arrays, name, i), strict=True)
        ]
        found.append(Shown(_row(arrays, i), _notes(arrays, i, there), pictures, texts, series, values))
    return found


def _one(values: Array | Ragged, i: int) -> Any:
    return values[np.array([i])].values if isinstance(values, Ragged) else values[i]


def _picture(value: Any) -> Array | bytes:
    """Pixels or the bytes of a file, also where the array of a single file was unpacked to an object."""
    return value if isinstance(value, bytes) else np.asarray(value)


def _text(value: Any, feature: Feature) -> str:
    if feature.dtype == "string":
        return excerpt(b" | ".join(np.asarray(value, object).reshape(-1).tolist()))
    return _tokens(np.asarray(value), feature)


# ------------------------------------------------------------------------------------------------- images


def _of_images(
    samples: Samples, image: str | None, mask: str | None, features: Mapping[str, Feature]
) -> tuple[dict[str, Any], Picture]:
    title = " and ".join(name for name in (image, mask) if name)
    count = _several(samples, PAIRS if mask else TILES)
    rows: list[list[Image]] = []
    labels: list[str] = []
    sharp = True
    examples = []
    for label, arrays in samples:
        tiles = []
        for i in range(min(count, len(arrays[ROW]))):
            picture = np.asarray(arrays[image])[i] if image else None
            if mask:
                tiles.append(overlay(picture, np.asarray(arrays[mask])[i]))
            elif picture is not None:
                tiles.append(tile(picture))
            sharp &= picture is None or is_small(picture)
            examples.append({"label": label, "row": _row(arrays, i), "note": _notes(arrays, i, features)})
        width = PAIRS if mask else TILES
        cut = [tiles[start : start + width] for start in range(0, len(tiles), width)]
        rows += cut
        labels += [label if i == 0 else "" for i in range(len(cut))]
    picture = sheet(rows, sharp)
    name = f"samples-{mask or image}{picture.suffix}"
    made = {"kind": "images", "title": title, "labels": labels, "picture": name, "examples": examples}
    return {**made, "width": picture.width, "height": picture.height}, picture


def _row(arrays: Arrays, i: int) -> int:
    return int(np.asarray(arrays[ROW])[i])


# --------------------------------------------------------------------------------------------------- text


def excerpt(text: bytes | str, length: int = EXCERPT) -> str:
    """The beginning of a text, cut after a word; white space and control characters become single spaces."""
    plain = text.decode(errors="replace") if isinstance(text, bytes) else text
    # Only the beginning is looked at: a document may be as large as a book.
    words = " ".join("".join(c if c.isprintable() else " " for c in plain[: 4 * length]).split())
    if len(words) <= length and len(plain) <= 4 * length:
        return words
    return words[: length + 1].rpartition(" ")[0].rstrip() + " …" if " " in words[:length] else words[:length] + "…"


def _tokens(values: Array, feature: Feature) -> str:
    """The beginning of a sequence: words where the feature names them, else numbers."""
    flat = values.reshape(-1)
    names = feature.classes
    shown = [names[n] if 0 <= n < len(names) else str(n) for n in flat[:TOKENS].tolist()]
    return " ".join(shown) + (f" … ({len(flat):,} in all)" if len(flat) > TOKENS else "")


def _of_texts(samples: Samples, name: str, feature: Feature, features: Mapping[str, Feature]) -> dict[str, Any]:
    items = []
    for label, arrays in samples:
        values = arrays[name]
        for i in range(min(_several(samples, TEXTS), len(arrays[ROW]))):
            text = _text(_one(values, i), feature)
            items.append({"label": label, "row": _row(arrays, i), "text": text, "note": _notes(arrays, i, features)})
    return {"kind": "text", "title": name, "items": items}


# ----------------------------------------------------------------------------------------- series, tables


def _of_series(samples: Samples, name: str, features: Mapping[str, Feature]) -> dict[str, Any]:
    items = []
    for label, arrays in samples:
        values = arrays[name]
        for i in range(min(_several(samples, SERIES), len(arrays[ROW]))):
            series = _one(values, i)
            items.append(
                {
                    "label": label,
                    "row": _row(arrays, i),
                    "steps": len(series),
                    "lines": lines(series),
                    "note": _notes(arrays, i, features),
                }
            )
    return {"kind": "series", "title": name, "items": items}


def _fits_a_cell(samples: Samples, name: str, feature: Feature) -> bool:
    if feature.ragged or feature.size > CELLS or feature.kind in ("image", "mask", "tokens"):
        return False
    if feature.dtype != "string":
        return len(feature.shape) < 2
    return all(len(text) <= SHORT for _, arrays in samples for text in np.asarray(arrays[name]).flat)


def _of_rows(samples: Samples, features: Mapping[str, Feature]) -> dict[str, Any]:
    # What is to be predicted comes first; the others keep their order.
    features = dict(sorted(features.items(), key=lambda item: item[1].role != "target"))
    rows = []
    for _, arrays in samples:
        for i in range(min(_several(samples, ROWS), len(arrays[ROW]))):
            cells = [_in_a_cell(value, f) for name, f in features.items() for value in _values(arrays, name, i)]
            rows.append([_row(arrays, i), *cells])
    columns = [{"name": label, "role": f.role} for name, f in features.items() for label in position_names(name, f)]
    return {"kind": "table", "title": "Examples", "columns": columns, "rows": rows}


def _in_a_cell(value: Any, feature: Feature | None = None) -> str:
    if isinstance(value, bytes):
        return excerpt(value, SHORT)
    if feature and feature.kind == "category" and feature.dtype != "float32" and 0 <= value < len(feature.classes):
        return feature.classes[int(value)]
    return "missing" if value != value else number(value.item() if isinstance(value, np.generic) else value)
