"""Examples to be answered, from whatever form they come in, a few at a time; a bad one is told with its place.

What `readers.own_data` reads, with targets or without; besides, images or texts in files of any folder, a text file
with an example on each line, and JSON lines.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from headrace.errors import ConfigError, DataError, nearest
from headrace.readers.cells import judged, numbers_of
from headrace.serving.payloads import as_bytes
from headrace.spec import Feature, Windows

if TYPE_CHECKING:
    Array = np.ndarray[Any, Any]

LINES = 1024
"""Lines that are read at once."""
LONGEST = 64 * 2**20
"""Bytes of a line: more are no example, but a file of another kind."""
LOOKS = 20
"""Portions of a table with unusable rows whose lines are looked up."""


@dataclass(frozen=True)
class Bad:
    """An example that can't be used."""

    row: int
    """Its place in the input, counted from 0."""
    problems: tuple[Mapping[str, Any], ...]
    """What is wrong with it: feature, column, reason, value."""
    line: int | None = None
    """On which it stands, where there are lines."""

    def to_json(self) -> dict[str, Any]:
        """As one line of the list of such examples."""
        line = {} if self.line is None else {"line": self.line}
        return {"row": self.row, **line, "problems": list(self.problems)}

    def in_words(self) -> str:
        """What is wrong, in a line."""
        told = []
        for problem in self.problems:
            subject = problem["column"] or problem["feature"]
            value = f" ({problem['value']})" if problem["value"] else ""
            told.append(f"{subject} {problem['reason']}{value}".strip())
        place = f"row {self.row}" if self.line is None else f"line {self.line}"
        return f"{place}: {'; '.join(told)}"


def problem(reason: str, feature: str = "", column: str = "", value: str = "") -> dict[str, Any]:
    """What is wrong with a value, as `checking.Quarantine` notes it."""
    return {"feature": feature, "column": column, "reason": reason, "value": value, "more": 0}


@dataclass(frozen=True)
class Portion:
    """Some examples that lie one after the other."""

    rows: Array
    """Their places in the input (examples,)."""
    batch: pa.RecordBatch
    """The features of those that can be used, notes included; as many rows."""
    bad: Sequence[Bad] = field(default=())
    """Those between them that can't."""


def portions(
    source: Path | IO[bytes],
    features: Mapping[str, Feature],
    notes: Mapping[str, Feature],
    keep: Sequence[str] = (),
    windows: Windows | None = None,
) -> Iterator[Portion]:
    """All examples of a source, those that can't be used apart.

    Args:
        source: A file or a folder; or JSON lines, as a stream.
        features: What the model takes.
        notes: What says for people which example it is; read where it is there.
        keep: Columns of a table that are read besides, as text.
        windows: How examples are cut out of the rows of a table or of arrays, if they are windows of a series. They are
            numbered by their last rows, from which the model looks ahead. JSON lines hold a window each.

    Raises:
        ConfigError: There is no such path, or columns are to be kept that there are none of.
        DataError: It can't be read, or lacks what the model takes.
    """
    if not isinstance(source, Path):
        yield from _checked(_json_lines(source, features), features)
        return
    if not source.exists():
        raise ConfigError(f"There is no file or folder {source}.")
    if source.suffix in (".jsonl", ".ndjson"):
        with source.open("rb") as file:
            yield from _checked(_json_lines(file, features), features)
        return
    only = _only_string(features)
    if only and source.suffix == ".txt" and features[only].kind == "text":
        with source.open("rb") as file:
            yield from _checked(_text_lines(file, only), features)
        return
    listed = _files(source, features[only]) if only else False
    if only and listed:
        notes = {"file": Feature(dtype="string", role="note")}
        yield from _checked(_numbered(_of_files(source, only, features[only], notes)), {**features, **notes})
        return
    if windows:
        yield from _windows(source, features, notes, keep, windows)
    else:
        yield from _own(source, features, notes, keep)


def _windows(
    path: Path, features: Mapping[str, Feature], notes: Mapping[str, Feature], keep: Sequence[str], windows: Windows
) -> Iterator[Portion]:
    """The windows of a series, whose rows are read as any others are; one with a row that can't be used is told."""
    from headrace.readers.batches import batches, to_arrays
    from headrace.windows import CUT, of_row, offsets

    rows = {name: of_row(feature, windows) for name, feature in features.items()}
    found = list(_own(path, rows, notes, keep))
    bad = {one.row: one for portion in found for one in portion.bad}
    there = np.concatenate([portion.rows for portion in found])
    total = len(there) + len(bad)
    if total <= windows.span or not len(there):
        raise DataError(
            f"{path.name} is too short for a window of {windows.length} steps.",
            expected=f"more than {windows.span:,} rows",
            received=f"{total:,} rows",
        )
    # Where each row of the file is among those that can be used, -1 for the others.
    place = np.full(total, -1)
    place[there] = np.arange(len(there))
    whole = pa.Table.from_batches([portion.batch for portion in found]).combine_chunks().to_batches()[0]
    values = to_arrays(whole, rows)
    texts = whole.select([name for name in whole.schema.names if name not in rows])
    steps = np.asarray(offsets(next(iter(features.values())), windows))
    for first in range(0, total - windows.span, CUT):
        begin = np.arange(first, min(first + CUT, total - windows.span))
        used = place[begin[:, None] + steps]
        sound = (used >= 0).all(axis=1)
        told = []
        for start, missing in zip(begin[~sound].tolist(), (used[~sound] < 0).argmax(axis=1).tolist(), strict=True):
            one = bad[start + int(steps[missing])]
            told.append(Bad(start + windows.span, one.problems, one.line))
        last = begin[sound] + windows.span
        chosen = batches({name: series[used[sound]] for name, series in values.items()}, CUT)
        batch = next(iter(chosen), pa.RecordBatch.from_pydict({name: _column([], f) for name, f in features.items()}))
        for name, column in zip(texts.schema.names, texts.take(pa.array(place[last])).columns, strict=True):
            batch = batch.append_column(name, column)
        yield Portion(last, batch, told)


def _own(
    path: Path, features: Mapping[str, Feature], notes: Mapping[str, Feature], keep: Sequence[str]
) -> Iterator[Portion]:
    """Examples as `own_data` reads them."""
    from headrace.readers.own_data import kind_of, read_own

    header = _header(path) if kind_of(path, features) == "table" else ()
    asked = {name: Feature(dtype="string", role="note", optional=True) for name in keep}
    lacking = [name for name in asked if name not in header]
    if lacking:
        raise ConfigError(f"There is no column `{lacking[0]}` to be kept in {path.name}: {nearest(lacking[0], header)}")
    known = {
        name: note.model_copy(update={"optional": True})
        for name, note in notes.items()
        if name in header and not note.shape and note.dtype == "string"
    }
    wanted = {**features, **known, **asked}
    found = _checked(_numbered(read_own(path, wanted, bad="null", targets_required=False)), wanted)
    cells = _Cells(path, features) if header else None
    for portion in found:
        yield cells.told(portion) if cells and portion.bad else portion


def _only_string(features: Mapping[str, Feature]) -> str | None:
    """The input, if there is a single one that is a text or an image file."""
    names = [name for name, feature in features.items() if feature.dtype == "string" and not feature.shape]
    return names[0] if len(features) == len(names) == 1 else None


# ----------------------------------------------------------------------------------------------- checking


def _numbered(batches: Iterable[pa.RecordBatch]) -> Iterator[Portion]:
    first = 0
    for batch in batches:
        yield Portion(np.arange(first, first + batch.num_rows), batch)
        first += batch.num_rows


def _checked(found: Iterable[Portion], features: Mapping[str, Feature]) -> Iterator[Portion]:
    """The same examples without those whose values can't be used."""
    from headrace.validation.checking import Quarantine, checked

    for portion in found:
        if not portion.batch.num_rows:
            yield portion
            continue
        quarantine = Quarantine(1.0)
        clean = list(checked([portion.batch], features, "the input", quarantine))
        noted = {note["row"]: note["problems"] for note in quarantine.noted}
        keep = [row for row in range(portion.batch.num_rows) if row not in noted] if noted else slice(None)
        bad = [*portion.bad, *(Bad(int(portion.rows[row]), tuple(told)) for row, told in noted.items())]
        batch = clean[0] if clean else portion.batch.slice(0, 0)
        yield Portion(portion.rows[keep], batch, sorted(bad, key=lambda one: one.row))


# -------------------------------------------------------------------------------------------------- tables


def _header(path: Path) -> tuple[str, ...]:
    from headrace.readers.tables import opened

    return opened(path)[0].header()


class _Cells:
    """The cells of a table once more, as text: what stood in those that could not be used, and on which line.

    Args:
        path: The table.
        features: What is read from it.
    """

    def __init__(self, path: Path, features: Mapping[str, Feature]) -> None:
        from headrace.readers.tables import found, opened

        self._tables = opened(path)
        header = self._tables[0].header()
        single = len(self._tables) == 1 and not any(len(f.shape) > 1 or f.ragged for f in features.values())
        self._cells = {
            place: (name, column, Feature(dtype=feature.dtype, classes=feature.classes, optional=feature.optional))
            for name, feature in features.items()
            for column in ([column.name for column in feature.columns] or [name])
            if (place := found(column, header)) and single
        }
        wanted = {place: Feature(dtype="string", optional=True) for place in self._cells}
        self._batches = iter(self._tables[0].batches(wanted, "null")) if wanted else iter(())
        self._batch: pa.RecordBatch | None = None
        self._first = 0
        self._looks = 0

    def told(self, portion: Portion) -> Portion:
        """The same, with reasons and lines; portions must come in their order."""
        return Portion(portion.rows, portion.batch, [self._one(bad, line) for bad, line in self._lined(portion.bad)])

    def _lined(self, some: Sequence[Bad]) -> Iterator[tuple[Bad, int | None]]:
        from headrace.readers.csv_tables import CsvTable

        lines: Mapping[int, int] = {}
        self._looks += 1
        # Each look goes through the whole file.
        if self._looks <= LOOKS and self._cells and isinstance(self._tables[0], CsvTable):
            with contextlib.suppress(DataError):
                lines = self._tables[0].lines({bad.row for bad in some})
        yield from ((bad, lines.get(bad.row)) for bad in some)

    def _one(self, bad: Bad, line: int | None) -> Bad:
        texts = self._texts(bad.row)
        if texts is None:
            return Bad(bad.row, bad.problems, line)
        if len(texts) > 1 and not any(texts.values()):
            return Bad(bad.row, (problem("has no values, or another number of cells than the header"),), line)
        problems = []
        for place, (name, column, feature) in self._cells.items():
            what = judged(texts[place], feature)[1]
            if what:
                problems.append(problem(what, name, column if column != name else "", texts[place][:60]))
        return Bad(bad.row, tuple(problems) or bad.problems, line)

    def _texts(self, row: int) -> dict[str, str] | None:
        """The cells of a row by column, if they can be read; rows must come in their order."""
        while self._batch is None or row >= self._first + self._batch.num_rows:
            self._first += self._batch.num_rows if self._batch is not None else 0
            try:
                self._batch = next(self._batches, None)
            except (DataError, pa.ArrowException):
                self._batch = None
            if self._batch is None:
                self._batches = iter(())
                return None
        values = {place: self._batch.column(place)[row - self._first].as_py() for place in self._cells}
        return {p: v.decode(errors="replace") if isinstance(v, bytes) else v or "" for p, v in values.items()}


# --------------------------------------------------------------------------------------------------- files


def _files(path: Path, feature: Feature) -> bool:
    """Whether examples lie in files of their own."""
    from headrace.getting import archives
    from headrace.readers.own_data import kind_of

    if path.is_file() and kind_of(path, {}) != "table":
        return False
    if path.is_file() and archives.stem(path.name) == path.name:
        return False
    return any(True for _ in _names(path, feature))


def _names(path: Path, feature: Feature) -> Iterator[str]:
    from headrace.getting import archives
    from headrace.readers.folders import IMAGES, TEXTS

    endings = IMAGES if feature.kind == "image" else TEXTS
    with contextlib.suppress(DataError), archives.contents(path) as files:
        yield from (name for name in files if Path(name).suffix.lower() in endings and "/." not in f"/{name}")


def _of_files(path: Path, name: str, feature: Feature, notes: Mapping[str, Feature]) -> Iterable[pa.RecordBatch]:
    """Files in the order of their paths, each an example that is called by its path."""
    from headrace.readers.folders import files_by_name

    known = set(_names(path, feature))
    found = files_by_name(
        path,
        {name: feature, **notes},
        {name: "*"},
        values=lambda file: {} if file in known else None,
        split=lambda file: "test",
        seed=None,
        bad="null",
    )
    return found["test"]


# --------------------------------------------------------------------------------------------------- lines


def _lines(file: IO[bytes]) -> Iterator[list[tuple[int, bytes]]]:
    """Lines that are not empty, with their numbers, some at a time.

    Raises:
        DataError: A line is so long that it is no example.
    """

    def numbered() -> Iterator[tuple[int, bytes]]:
        number = 0
        while line := file.readline(LONGEST):
            number += 1
            if len(line) == LONGEST and not line.endswith(b"\n"):
                raise DataError(f"Line {number} is longer than {LONGEST:,} bytes.", expected="an example on each line")
            if line.strip():
                yield number, line.rstrip(b"\r\n")

    lines = numbered()
    while some := list(islice(lines, LINES)):
        yield some


def _text_lines(file: IO[bytes], name: str) -> Iterator[Portion]:
    first = 0
    for some in _lines(file):
        good, bad = [], []
        for row, (number, line) in enumerate(some, first):
            try:
                line.decode()
                good.append((row, line))
            except UnicodeDecodeError:
                bad.append(Bad(row, (problem("is no UTF-8", name),), number))
        first += len(some)
        batch = pa.RecordBatch.from_pydict({name: pa.array([line for _, line in good], pa.large_binary())})
        yield Portion(np.array([row for row, _ in good], np.int64), batch, bad)


def _json_lines(file: IO[bytes], features: Mapping[str, Feature]) -> Iterator[Portion]:
    """JSON lines: objects by feature or by column; or the value itself, where the model takes one input."""
    first = 0
    for some in _lines(file):
        rows: list[int] = []
        values: dict[str, list[Any]] = {name: [] for name in features}
        bad: list[Bad] = []
        for row, (number, line) in enumerate(some, first):
            found = _example(line, features)
            if isinstance(found, dict):
                rows.append(row)
                for name, value in found.items():
                    values[name].append(value)
            else:
                bad.append(Bad(row, (found[0],), number))
        first += len(some)
        columns = {name: _column(values[name], feature) for name, feature in features.items()}
        yield Portion(np.array(rows, np.int64), pa.RecordBatch.from_pydict(columns), bad)


def _example(line: bytes, features: Mapping[str, Feature]) -> dict[str, Any] | list[dict[str, Any]]:
    """The values of an example, flat, by feature; or, in a list, what is wrong with it."""
    try:
        said = json.loads(line)
    except (ValueError, RecursionError):
        return [problem("is no JSON", value=line[:60].decode(errors="replace"))]
    if not isinstance(said, dict) or set(said) == {"b64"}:
        if len(features) > 1:
            return [problem(f"is no object with {', '.join(features)}", value=str(said)[:60])]
        said = {next(iter(features)): said}
    found: dict[str, Any] = {}
    for name, feature in features.items():
        if name in said:
            value = said[name]
        elif feature.columns and len(feature.shape) == 1 and any(column.name in said for column in feature.columns):
            lacking = [column.name for column in feature.columns if column.name not in said]
            if lacking and not feature.optional:
                return [problem("is missing", name, lacking[0])]
            value = [said.get(column.name) for column in feature.columns]
        elif feature.optional:
            value = None if not feature.shape else [None] * feature.size
        else:
            return [problem(f"is missing: {nearest(name, said)}", name)]
        flat, what = _flat(value, feature)
        if what:
            return [problem(what, name, value=json.dumps(value, ensure_ascii=False)[:60])]
        found[name] = flat
    return found


def _flat(value: Any, feature: Feature) -> tuple[Any, str]:
    """The values of a feature in a row, and what is wrong with them."""
    items: list[Any] = []
    shape = _gathered(value, items)
    if shape is None or not _is(shape, feature.shape):
        return None, f"is not of shape {list(feature.shape)}".replace("None", "any")
    values = []
    for item in items:
        good, what = _single(item, feature)
        if what:
            return None, what
        values.append(good)
    return (values if feature.shape else values[0]), ""


def _is(shape: tuple[int, ...], wanted: tuple[int | None, ...]) -> bool:
    """Whether values lie as declared; a single one may stand with a list around it or without."""
    if len(shape) == len(wanted):
        return all(b in (None, a) for a, b in zip(shape, wanted, strict=True))
    return None not in wanted and math.prod(shape) == math.prod(length or 1 for length in wanted) == 1


def _gathered(value: Any, items: list[Any]) -> tuple[int, ...] | None:
    """Put all values of nested lists in a row; their shape, None if they have none."""
    if not isinstance(value, list):
        items.append(value)
        return ()
    shapes = {_gathered(item, items) for item in value}
    if len(shapes) > 1 or None in shapes:
        return None
    inner = shapes.pop() if shapes else ()
    return None if inner is None else (len(value), *inner)


def _single(item: Any, feature: Feature) -> tuple[Any, str]:
    if item is None:
        return None, "" if feature.optional else "is missing"
    if feature.dtype == "string":
        if isinstance(item, str):
            return item.encode(), ""
        try:
            return as_bytes(item), ""
        except (ValueError, TypeError):
            return None, "is no text"
    if isinstance(item, str) and feature.classes:
        number = numbers_of(feature.classes).get(item)
        return number, "" if number is not None else f"is none of the {len(feature.classes)} classes"
    if isinstance(item, bool) and feature.dtype == "int64":
        return int(item), ""
    if isinstance(item, bool) or not isinstance(item, int | float):
        return None, "is no number"
    if feature.dtype == "float32":
        return float(item), ""
    if isinstance(item, float) and not item.is_integer():
        return None, "is no whole number"
    low, high = (0, 255) if feature.dtype == "uint8" else (-(2**63), 2**63 - 1)
    return (int(item), "") if low <= item <= high else (None, f"is not from {low} to {high}")


def _column(values: Sequence[Any], feature: Feature) -> pa.Array:
    kinds = {"float32": pa.float32(), "int64": pa.int64(), "uint8": pa.uint8(), "string": pa.large_binary()}
    kind = kinds[feature.dtype]
    if feature.ragged:
        return pa.array(values, pa.large_list(kind))
    return pa.array(values, pa.list_(kind, feature.size) if feature.shape else kind)
