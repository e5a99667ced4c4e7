"""Archives of arrays and tables of the user's own as batches of examples, checked while they are read."""

from __future__ import annotations

import csv
import io
import math
import re
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace.errors import ConfigError, DataError, nearest
from headrace.spec import Feature, Source

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

SUFFIXES = (".csv", ".parquet")
ROWS = 8192
"""Examples in a batch: a few hundred kilobytes for a table, so that overheads and memory are both small."""

_SHOWN = 3
"""Places of each problem, and missing columns, that a message names; it counts the others."""
_LARGEST = 3.4028234663852886e38
"""The largest float32: what is larger would be stored as infinite."""


@dataclass(frozen=True)
class Restartable:
    """Batches that can be gone through any number of times."""

    make: Callable[[], Iterator[pa.RecordBatch]]

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        return self.make()


# ------------------------------------------------------------------------------------------------- arrays


def read_arrays(path: Path, dimensions: Mapping[str, int]) -> dict[str, np.ndarray]:
    """Read arrays of equal length from a NumPy archive (.npz).

    Args:
        path: The archive.
        dimensions: Name of each array that it must hold → number of its dimensions, the examples included.

    Returns:
        Name → array of shape `(examples, …)`.

    Raises:
        DataError: The archive is missing, truncated or altered; or an array is missing, is not made of numbers, has
            other dimensions, is empty, or is not as long as the others.
    """
    import numpy as np

    try:
        with np.load(path, allow_pickle=False) as archive:
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise ValueError("a single array, no archive of them")
            held = list(archive)
            arrays = {name: archive[name] for name in dimensions if name in held}
    except Exception as error:
        # What a damaged archive raises has no common type: the zip reader, zlib and the header's parser each have theirs.
        missing = isinstance(error, FileNotFoundError)
        raise DataError(
            f"There is no file {path}." if missing else f"{path.name} can't be read: it is truncated or damaged.",
            expected=f"a NumPy archive (.npz) with {_listed(dimensions)}",
            received=None if missing else f"{type(error).__name__}: {_first_line(error)}",
            remedy=f"put a sound copy in the place of {path}",
        ) from error
    problems = [f"there is no array `{name}`: {nearest(name, held)}" for name in dimensions if name not in arrays]
    for name, values in arrays.items():
        if values.dtype.kind not in "biuf":
            problems.append(f"`{name}` holds no numbers but {values.dtype}")
        if values.ndim != dimensions[name]:
            problems.append(f"`{name}` has {values.ndim} dimensions {values.shape}, not {dimensions[name]}")
        elif not len(values):
            problems.append(f"`{name}` is empty: its shape is {values.shape}")
    lengths = {name: len(values) for name, values in arrays.items() if values.ndim}
    if len(set(lengths.values())) > 1:
        problems.append(f"the arrays differ in length: {', '.join(f'`{k}` {n}' for k, n in lengths.items())}")
    if problems:
        raise _unusable(path, problems, f"arrays of numbers, as many examples in each: {_listed(dimensions)}")
    return arrays


def batches(arrays: Mapping[str, np.ndarray], rows: int = ROWS) -> Restartable:
    """Cut arrays into Arrow batches, one column for each array.

    Args:
        arrays: Feature → values of shape `(examples, *shape)`; as many examples in each.
        rows: Examples in a batch.

    Returns:
        Batches in the arrays' order, any number of times. Floats become float32, integers and booleans int64; a column
        whose examples have a shape is a list of fixed size, flattened row by row.
    """
    return Restartable(lambda: _cut(arrays, rows))


def _cut(arrays: Mapping[str, np.ndarray], rows: int) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa

    examples = len(next(iter(arrays.values())))
    for start in range(0, examples, rows):
        columns = [_column(values[start : start + rows]) for values in arrays.values()]
        yield pa.RecordBatch.from_arrays(columns, names=list(arrays))


def _column(values: np.ndarray) -> pa.Array:
    import numpy as np
    import pyarrow as pa

    flat = np.ascontiguousarray(values).reshape(-1)
    if flat.dtype.kind == "f":
        # What is too large becomes infinite, which the schema refuses with its place.
        with np.errstate(over="ignore"):
            flat = flat.astype(np.float32, copy=False)
    elif flat.dtype.kind in "iub":
        flat = flat.astype(np.int64, copy=False)
    column = pa.array(flat)
    return column if values.ndim == 1 else pa.FixedSizeListArray.from_arrays(column, math.prod(values.shape[1:]))


def to_arrays(batch: pa.RecordBatch, features: Mapping[str, Feature]) -> dict[str, np.ndarray]:
    """The opposite of `batches`, for one batch.

    Args:
        batch: One column for each feature.
        features: What to take out; what the batch does not hold (a target that is not known yet) is left out.

    Returns:
        Feature → values of shape `(rows, *shape)`, perhaps read-only; text as an array of objects.
    """
    import pyarrow as pa

    arrays = {}
    for name, feature in features.items():
        if name not in batch.schema.names:
            continue
        column = batch.column(name)
        if pa.types.is_fixed_size_list(column.type):
            column = column.flatten()
        values = column.to_numpy(zero_copy_only=False)
        if feature.dtype != "string":
            values = values.astype(feature.dtype, copy=False)
        arrays[name] = values.reshape(batch.num_rows, *feature.shape)
    return arrays


# ------------------------------------------------------------------------------------------------- tables


def read_table(path: Path, features: Mapping[str, Feature], *, targets_required: bool = True) -> Restartable:
    """Read a CSV or Parquet file whose columns have the names that the features declare.

    CSV is UTF-8, separated by commas, with the names in its first line. Columns that no feature names are ignored. A
    feature that names no columns is read from the column of its own name.

    Args:
        path: The table.
        features: What to read; columns are packed into vectors in the order of `Feature.columns`.
        targets_required: Whether the columns of targets must be there. If they need not and are not, the batches do
            not hold these features; if they are there, they must be sound.

    Returns:
        Batches in the order of the file, any number of times.

    Raises:
        DataError: The file is missing, empty, damaged or of an unknown kind; a column is missing or there twice; a
            cell is empty, or is no number where one is declared. All problems are told, with their lines.
    """
    import numpy as np
    import pyarrow as pa

    trouble = _refusal(path)
    if trouble:
        raise DataError(trouble, expected=f"a file that ends in {' or '.join(SUFFIXES)}")
    layout = _Layout(path, features, targets_required)
    table: pa.Table = (_read_csv if path.suffix.lower() == ".csv" else _read_parquet)(layout)
    arrays: dict[str, np.ndarray] = {}
    for name, feature in features.items():
        columns = [table[column].to_numpy() for column in _columns(name, feature) if column in table.column_names]
        if columns:
            arrays[name] = np.column_stack(columns).reshape(-1, *feature.shape)
    return batches(arrays)


def own_table(path: Path, like: Source) -> Source:
    """The user's own table as a source with the features of another one.

    Nothing of the file is read here, since every job that names it is resolved first.

    Args:
        path: A CSV or Parquet file with a column for each column of each feature.
        like: The source whose features it has.

    Returns:
        A source without files and twin, whose `read` finds the table by its name in the raw folder and splits its
        rows 80 to 20 after a shuffle with seed 113, as `keras.datasets` does.

    Raises:
        ConfigError: There is no such file, or its ending is unknown.
    """
    path = path.expanduser()
    trouble = _refusal(path)
    if trouble:
        raise ConfigError(trouble, expected=f"a source of the workload, or a file that ends in {' or '.join(SUFFIXES)}")
    features = like.features

    def read(raw: Path) -> Mapping[str, Iterable[pa.RecordBatch]]:
        return _split(raw / path.name, features)

    return Source(title=f"{path.name}, a table of your own", features=features, read=read)


def _split(path: Path, features: Mapping[str, Feature]) -> Mapping[str, Iterable[pa.RecordBatch]]:
    import numpy as np

    parts = [to_arrays(batch, features) for batch in read_table(path, features)]
    arrays = {name: np.concatenate([part[name] for part in parts]) for name in features}
    order = np.arange(len(next(iter(arrays.values()))))
    np.random.RandomState(113).shuffle(order)
    cut = int(len(order) * (1 - 0.2))
    if not cut:
        raise DataError(
            f"{path.name} has too few rows to train on some and test on others.",
            expected="at least 2",
            received=len(order),
        )
    return {
        "train": batches({name: values[order[:cut]] for name, values in arrays.items()}),
        "test": batches({name: values[order[cut:]] for name, values in arrays.items()}),
    }


def _refusal(path: Path) -> str | None:
    """Why a path can't be a table, without opening it."""
    if path.suffix.lower() not in SUFFIXES:
        return f"{path} is no table that can be read: its ending is {f'`{path.suffix}`' if path.suffix else 'missing'}."
    if not path.exists():
        return f"There is no file {path}."
    return None if path.is_file() else f"{path} is no file."


# ------------------------------------------------------------------------------------- columns and findings


def _columns(name: str, feature: Feature) -> list[str]:
    """The columns of a table that make a feature."""
    if not feature.columns and feature.size != 1:
        raise ConfigError(
            f"The feature `{name}` can't be read from a table: it names no columns.",
            expected=f"{feature.size} columns in the workload's file",
        )
    return [column.name for column in feature.columns] or [name]


@dataclass(frozen=True)
class _Layout:
    """Which columns a table must have, and what must be in their cells."""

    path: Path
    features: Mapping[str, Feature]
    targets_required: bool

    def among(self, header: Sequence[str]) -> dict[str, Feature]:
        """The columns to be read and the feature of each, given those that the table has.

        Raises:
            DataError: One is missing, or is there more than once.
        """
        wanted: dict[str, Feature] = {}
        for name, feature in self.features.items():
            columns = _columns(name, feature)
            there = self.targets_required or feature.role != "target" or not set(columns).isdisjoint(header)
            if there:
                wanted |= dict.fromkeys(columns, feature)
        missing = [column for column in wanted if column not in header]
        problems = [
            f"there is no column `{column}`: {textwrap.shorten(nearest(column, header), 150, placeholder=' …')}"
            for column in missing[:_SHOWN]
        ]
        if len(missing) > _SHOWN:
            problems.append(f"{len(missing) - _SHOWN} more columns are missing: {', '.join(missing[_SHOWN:])}")
        problems += [f"there are {header.count(c)} columns `{c}`" for c in wanted if header.count(c) > 1]
        if problems:
            hint = None
            if len(header) == 1 and re.search(r"[;\t|]", header[0]):
                hint = "separate the columns by commas"
            raise _unusable(self.path, problems, f"the columns {', '.join(wanted)}", hint)
        return wanted


@dataclass
class _Findings:
    """What is wrong in the cells of a table: the first places of each problem, and how many there are."""

    unit: str
    places: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    counts: dict[tuple[str, str], int] = field(default_factory=dict)

    def add(self, column: str, what: str, number: int, cell: object = "") -> None:
        """Note a problem in a cell of the row or line with this number."""
        key = (column, what)
        self.counts[key] = self.counts.get(key, 0) + 1
        if self.counts[key] <= _SHOWN:
            shown = str(cell)[:20] + "…" * (len(str(cell)) > 20)
            place = f"{self.unit} {number}" + (f' ("{shown}")' if shown else "")
            self.places.setdefault(key, []).append(place)

    def lines(self, wanted: Mapping[str, Feature]) -> list[str]:
        """The problems in words, one line for each column and kind."""
        told = []
        for (column, what), places in self.places.items():
            target = ", the target," if column in wanted and wanted[column].role == "target" else ""
            more = self.counts[column, what] - len(places)
            told.append(f"{column}{target} {what} on {', '.join(places)}" + (f" and {more:,} more" if more else ""))
        return told


def _unusable(path: Path, problems: Sequence[str], expected: str, remedy: str | None = None) -> DataError:
    shown = [*problems[:8], *([f"and {len(problems) - 8} problems more"] if len(problems) > 8 else [])]
    lines = "\n".join(f"  - {problem}" for problem in shown)
    return DataError(f"{path.name} can't be used:\n{lines}", expected=expected, remedy=remedy or f"correct {path}")


def _unreadable(path: Path, kind: str, error: object) -> DataError:
    return DataError(
        f"{path.name} can't be read as {kind}.",
        received=_first_line(error),
        remedy=f"see whether {path} is complete, and write it again",
    )


def _listed(dimensions: Mapping[str, int]) -> str:
    return ", ".join(f"`{name}` ({count} dimension{'s' * (count > 1)})" for name, count in dimensions.items())


def _first_line(error: object) -> str:
    return (str(error).splitlines() or [""])[0][:200]


# --------------------------------------------------------------------------------------------------- CSV


def _read_csv(layout: _Layout) -> pa.Table:
    """The columns of a CSV file as numbers; the slow search for what is wrong with it starts only if something is."""
    import pyarrow as pa
    from pyarrow import csv as arrow

    path = layout.path
    try:
        data = path.read_bytes()
        header = _header(data)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise _unreadable(path, "CSV in UTF-8", error) from error
    if not header:
        raise DataError(f"{path.name} is empty.", expected="the names of the columns in the first line")
    wanted = layout.among(header)
    options = arrow.ConvertOptions(
        include_columns=list(wanted),
        column_types={column: _arrow_type(feature) for column, feature in wanted.items()},
    )
    try:
        # A cell of text may hold a line break; without the option some of these lose rows without a word.
        parsing = arrow.ParseOptions(newlines_in_values=True)
        table = arrow.read_csv(pa.BufferReader(data), parse_options=parsing, convert_options=options)
    except pa.ArrowException as error:
        problems = _csv_problems(data, header, wanted)
        raise _cells(path, problems) if problems else _unreadable(path, "CSV", error) from error
    # Quotes come in pairs, except as a letter within a word; an open one swallows all rows behind it.
    if not all(_sound(table[column], feature) for column, feature in wanted.items()) or data.count(b'"') % 2:
        problems = _csv_problems(data, header, wanted)
        if problems:
            raise _cells(path, problems)
    if not table.num_rows:
        raise DataError(f"{path.name} has no rows.", expected="examples below the names of the columns")
    return table


def _arrow_type(feature: Feature) -> pa.DataType:
    import pyarrow as pa

    # Doubles first: the same text then gives the same float32 as from an archive of doubles.
    return {"float32": pa.float64(), "int64": pa.int64(), "string": pa.string()}[feature.dtype]


def _sound(column: pa.ChunkedArray, feature: Feature) -> bool:
    """Whether every cell of a column has a value that can be stored."""
    import pyarrow.compute as pc

    if column.null_count:
        return False
    if feature.dtype == "string":
        return not pc.any(pc.equal(pc.binary_length(column), 0)).as_py()
    if feature.dtype == "int64":
        return True
    return bool(pc.all(pc.less_equal(pc.abs(column), _LARGEST)).as_py() is not False)


def _header(data: bytes) -> list[str]:
    """The cells of the first line that is not empty."""
    with io.TextIOWrapper(io.BytesIO(data), "utf-8-sig", newline="") as text:
        return next((row for row in csv.reader(text) if row), [])


def _csv_problems(data: bytes, header: Sequence[str], wanted: Mapping[str, Feature]) -> list[str]:
    """What is wrong with the cells of a CSV file, found line by line."""
    findings = _Findings("line")
    others: list[str] = []
    places = [(header.index(column), column, feature) for column, feature in wanted.items()]
    text = data.decode("utf-8-sig", "replace")
    reader = csv.reader(io.StringIO(text, newline=""))
    try:
        next(row for row in reader if row)
        for row in reader:
            if not row:
                continue
            if len(row) != len(header):
                findings.add(f"a row of {len(row)} cells", f"instead of {len(header)} stands", reader.line_num)
                continue
            for position, column, feature in places:
                what = _wrong(row[position], feature)
                if what:
                    findings.add(column, what, reader.line_num, row[position])
    except csv.Error as error:
        others.append(f"line {reader.line_num}: {error}")
    strict = csv.reader(io.StringIO(text, newline=""), strict=True)
    line = 0
    try:
        for _ in strict:
            line = strict.line_num
    except csv.Error as error:
        if "end of data" in str(error):
            others.append(f"a quote that is opened on line {line + 1} is never closed")
    return others + findings.lines(wanted)


_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_WHOLE = re.compile(r"-?\d+")
_INFINITE = re.compile(r"[+-]?inf(inity)?", re.IGNORECASE)
_NOTHING = {"na", "nan", "-nan", "n/a", "#n/a", "#na", "#n/a n/a", "<na>", "null", "none", "1.#ind", "1.#qnan"}


def _wrong(cell: str, feature: Feature) -> str | None:
    """What is wrong with a cell of a CSV file."""
    text = cell if feature.dtype == "string" else cell.strip()
    if not text:
        return "is empty"
    if feature.dtype == "string":
        return "is not UTF-8" if "\N{REPLACEMENT CHARACTER}" in text else None
    if text.lower() in _NOTHING:
        return "has no value"
    if feature.dtype == "int64":
        if not _WHOLE.fullmatch(text):
            return "is no whole number"
        return None if -(2**63) <= int(text) < 2**63 else "is too large"
    if _INFINITE.fullmatch(text):
        return "is infinite"
    if not _NUMBER.fullmatch(text):
        return "holds text instead of a number"
    return None if abs(float(text)) <= _LARGEST else "is too large"


def _cells(path: Path, problems: Sequence[str]) -> DataError:
    return _unusable(
        path, problems, "a value in every cell of the columns that are read", f"correct {path}, or leave these rows out"
    )


# ----------------------------------------------------------------------------------------------- Parquet


def _read_parquet(layout: _Layout) -> pa.Table:
    """The columns of a Parquet file as numbers."""
    import pyarrow as pa
    from pyarrow import parquet

    path = layout.path
    try:
        with parquet.ParquetFile(path) as file:
            wanted = layout.among(file.schema_arrow.names)
            table = file.read(columns=list(wanted))
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(path, "Parquet", error) from error
    problems: list[str] = []
    columns = {}
    for column, feature in wanted.items():
        values, found = _parquet_column(column, table[column], feature)
        columns[column] = values
        problems += found.lines(wanted)
    if problems:
        raise _cells(path, problems)
    if not table.num_rows:
        raise DataError(f"{path.name} has no rows.", expected="at least one example")
    return pa.table(columns)


def _parquet_column(name: str, column: pa.ChunkedArray, feature: Feature) -> tuple[Any, _Findings]:
    """A column in the type that its feature asks for, and what is wrong with it."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    findings = _Findings("row")
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    kind = column.type
    numbers = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    text = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind)
    if feature.dtype == "string" and not text:
        findings.add(name, f"holds {kind} instead of text", 1)
    elif feature.dtype != "string" and not (numbers or pa.types.is_boolean(kind) or pa.types.is_null(kind)):
        findings.add(name, f"holds {kind} instead of numbers", 1, column[0] if len(column) else "")
    return column, findings
