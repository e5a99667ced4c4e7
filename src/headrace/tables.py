"""Archives of arrays and tables of the user's own as batches of examples, checked while they are read."""

from __future__ import annotations

import csv
import io
import logging
import math
import re
import textwrap
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace.errors import ConfigError, DataError, nearest
from headrace.spec import Feature, Source

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

log = logging.getLogger(__name__)

SUFFIXES = (".csv", ".parquet")
ROWS = 8192
"""Examples in a batch: a few hundred kilobytes for a table, so that overheads and memory are both small."""

_Choice = Callable[[Sequence[str]], dict[str, Feature]]
"""The columns that a table has → those to be read, and the feature that each belongs to."""

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
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            raise ValueError("a single array, no archive of them")
        with loaded as archive:
            held = list(archive)
            arrays = {name: archive[name] for name in dimensions if name in held}
    except Exception as error:
        # A damaged archive has no error of its own: the zip reader, zlib and the header's parser each raise theirs.
        missing = isinstance(error, FileNotFoundError)
        raise DataError(
            f"There is no file {path}." if missing else f"{path.name} can't be read: it is truncated or damaged.",
            expected=f"a NumPy archive (.npz) with {_listed(dimensions)}",
            received=None if missing else f"{type(error).__name__}: {_first_line(error)}",
            remedy=f"put a sound {path.name} where this one came from, and run again",
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

    flat = values.reshape(-1)
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

    trouble = _refusal(path)
    if trouble:
        raise DataError(trouble, expected=f"a file that ends in {' or '.join(SUFFIXES)}")
    read = _read_csv if path.suffix.lower() == ".csv" else _read_parquet
    table = read(path, lambda header: _chosen(path, header, features, targets_required))
    if not table.num_rows:
        raise DataError(f"{path.name} has no rows.", expected="at least one example below the names of the columns")
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


def _chosen(
    path: Path, header: Sequence[str], features: Mapping[str, Feature], targets_required: bool
) -> dict[str, Feature]:
    """The columns of a table that are read, and the feature that each belongs to.

    Raises:
        DataError: One is missing, or is there more than once.
    """
    wanted: dict[str, Feature] = {}
    for name, feature in features.items():
        columns = _columns(name, feature)
        if targets_required or feature.role != "target" or not set(columns).isdisjoint(header):
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
        one_cell = len(header) == 1 and re.search(r"[;\t|]", header[0])
        raise _unusable(
            path, problems, f"the columns {', '.join(wanted)}", "separate the columns by commas" if one_cell else None
        )
    ignored = [column for column in header if column not in wanted]
    if ignored:
        log.info("%s: ignored %s", path.name, textwrap.shorten(", ".join(ignored), 150, placeholder=" …"))
    return wanted


class _Findings:
    """What is wrong in the cells of a table: the first places of each problem, and how many there are."""

    def __init__(self, unit: str, wanted: Mapping[str, Feature]) -> None:
        self._unit = unit
        self._wanted = wanted
        self._counts: Counter[tuple[str, str]] = Counter()
        self._places: defaultdict[tuple[str, str], list[str]] = defaultdict(list)

    def check(self, column: str, cell: str, feature: Feature, number: int) -> None:
        """Look at a cell in the line or row of this number."""
        what = _wrong(cell, feature)
        if what:
            self.add(column, what, number, cell)

    def add(self, subject: str, what: str, number: int, cell: str = "") -> None:
        """Note a problem in the line or row of this number."""
        self._counts[subject, what] += 1
        if self._counts[subject, what] <= _SHOWN:
            shown = f' ("{cell[:30]}{"…" * (len(cell) > 30)}")' if cell.strip() else ""
            self._places[subject, what].append(f"{self._unit} {number}{shown}")

    def lines(self) -> list[str]:
        """The problems in words, one line for each column and kind."""
        told = []
        for (subject, what), places in self._places.items():
            target = subject in self._wanted and self._wanted[subject].role == "target"
            more = self._counts[subject, what] - len(places)
            told.append(
                f"{subject}{', the target,' if target else ''} {what} on {', '.join(places)}"
                + (f" and {more:,} more" if more else "")
            )
        return told


_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)
_WHOLE = re.compile(r"-?\d+")
_INFINITE = re.compile(r"[+-]?inf(inity)?", re.IGNORECASE)
_NOTHING = re.compile(r"-?nan|-?1\.#(ind|qnan)|n/?a|#n/?a( n/a)?|<na>|null|none", re.IGNORECASE)


def _wrong(cell: str, feature: Feature) -> str | None:
    """What is wrong with a cell."""
    text = cell if feature.dtype == "string" else cell.strip()
    if not text:
        return "is empty"
    if feature.dtype == "string":
        return None
    if _NOTHING.fullmatch(text):
        return "has no value"
    if _INFINITE.fullmatch(text):
        return "is infinite"
    if not _NUMBER.fullmatch(text):
        return "holds text instead of a number"
    if feature.dtype == "float32":
        return None if abs(float(text)) <= _LARGEST else "is too large"
    if not _WHOLE.fullmatch(text):
        return "is no whole number"
    return None if -(2**63) <= int(text) < 2**63 else "is too large"


def _sound(table: pa.Table, wanted: Mapping[str, Feature]) -> bool:
    """Whether every cell has a value that can be stored."""
    import pyarrow.compute as pc

    for column, feature in wanted.items():
        cells = table[column]
        if cells.null_count:
            return False
        if feature.dtype == "string" and pc.any(pc.equal(pc.binary_length(cells), 0)).as_py():
            return False
        # Not "any greater": a NaN is neither greater nor less.
        if feature.dtype == "float32" and pc.all(pc.less_equal(pc.abs(cells), _LARGEST), min_count=0).as_py() is False:
            return False
    return True


def _arrow_type(feature: Feature) -> pa.DataType:
    import pyarrow as pa

    # Doubles first: the same text then gives the same float32 as from an archive of doubles.
    return {"float32": pa.float64(), "int64": pa.int64(), "string": pa.string()}[feature.dtype]


def _unusable(path: Path, problems: Sequence[str], expected: str, remedy: str | None = None) -> DataError:
    shown = [*problems[:8], *([f"and {len(problems) - 8} problems more"] if len(problems) > 8 else [])]
    lines = "\n".join(f"  - {problem}" for problem in shown)
    return DataError(f"{path.name} can't be used:\n{lines}", expected=expected, remedy=remedy or f"correct {path.name}")


def _unfit(path: Path, problems: Sequence[str]) -> DataError:
    return _unusable(
        path,
        problems,
        "a value in every cell of the columns that are read",
        f"correct {path.name}, or leave these rows out",
    )


def _unreadable(path: Path, kind: str, error: object) -> DataError:
    return DataError(
        f"{path.name} can't be read as {kind}.",
        received=_first_line(error),
        remedy=f"see whether {path.name} is complete, and write it again",
    )


def _listed(dimensions: Mapping[str, int]) -> str:
    return ", ".join(f"`{name}` ({count} dimension{'s' * (count > 1)})" for name, count in dimensions.items())


def _first_line(error: object) -> str:
    return (str(error).splitlines() or [""])[0][:200]


# --------------------------------------------------------------------------------------------------- CSV


def _read_csv(path: Path, choose: _Choice) -> pa.Table:
    """The columns of a CSV file; the slow search for what is wrong with it starts only if something is."""
    import pyarrow as pa
    from pyarrow import csv as arrow

    try:
        data = path.read_bytes()
        data.decode()
        header: list[str] = next((row for row in _reader(data) if row), [])
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise _unreadable(path, "CSV", f"letters on line {line} that are not UTF-8") from error
    except (OSError, csv.Error) as error:
        raise _unreadable(path, "CSV", error) from error
    if not data.endswith(b"\n"):
        # Arrow takes a first line that does not end for no line at all.
        data += b"\n"
    if not header:
        raise DataError(f"{path.name} is empty.", expected="the names of the columns in the first line")
    wanted = choose(header)
    options = arrow.ConvertOptions(
        include_columns=list(wanted),
        column_types={column: _arrow_type(feature) for column, feature in wanted.items()},
    )
    # A cell of text may hold a line break.
    parsing = arrow.ParseOptions(newlines_in_values=True)
    try:
        table = arrow.read_csv(pa.BufferReader(data), parse_options=parsing, convert_options=options)
    except pa.ArrowException as error:
        problems = _csv_problems(data, header, wanted)
        raise _unfit(path, problems) if problems else _unreadable(path, "CSV", error) from error
    # Quotes come in pairs, save within a word; one that stays open swallows the rows behind it in silence.
    if not _sound(table, wanted) or data.count(b'"') % 2:
        problems = _csv_problems(data, header, wanted)
        if problems:
            raise _unfit(path, problems)
    return table


def _reader(data: bytes, *, strict: bool = False) -> Any:
    return csv.reader(io.TextIOWrapper(io.BytesIO(data), "utf-8-sig", newline=""), strict=strict)


def _csv_problems(data: bytes, header: Sequence[str], wanted: Mapping[str, Feature]) -> list[str]:
    """What is wrong with the rows of a CSV file, found line by line."""
    findings = _Findings("line", wanted)
    cells = [(header.index(column), column, feature) for column, feature in wanted.items()]
    reader, begun = _reader(data), False
    for row in reader:
        if row and begun and len(row) != len(header):
            findings.add(f"a row of {len(row)} cells", f"instead of {len(header)} stands", reader.line_num)
        elif row and begun:
            for position, column, feature in cells:
                findings.check(column, row[position], feature, reader.line_num)
        begun = begun or bool(row)
    strict, line = _reader(data, strict=True), 0
    try:
        for _ in strict:
            line = strict.line_num
    except csv.Error as error:
        if "end of data" in str(error):
            return [f"a quote that opens on line {line + 1} is never closed", *findings.lines()]
    return findings.lines()


# ----------------------------------------------------------------------------------------------- Parquet


def _read_parquet(path: Path, choose: _Choice) -> pa.Table:
    """The columns of a Parquet file, cast to what the features declare."""
    import pyarrow as pa
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            wanted = choose(file.schema_arrow.names)
            raw = file.read(columns=list(wanted))
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(path, "Parquet", error) from error
    try:
        table = raw.cast(pa.schema([(column, _arrow_type(wanted[column])) for column in raw.column_names]))
    except pa.ArrowException as error:
        problems = _parquet_problems(raw, wanted)
        raise _unfit(path, problems or [_first_line(error)]) from error
    if not _sound(table, wanted):
        raise _unfit(path, _parquet_problems(raw, wanted))
    return table


def _parquet_problems(table: pa.Table, wanted: Mapping[str, Feature]) -> list[str]:
    """What is wrong with the cells of a Parquet file."""
    findings = _Findings("row", wanted)
    for column, feature in wanted.items():
        for number, value in enumerate(table[column].to_pylist(), start=1):
            if isinstance(value, bool) or (isinstance(value, float) and value.is_integer()):
                value = int(value)
            findings.check(column, "" if value is None else str(value), feature, number)
    return findings.lines()
