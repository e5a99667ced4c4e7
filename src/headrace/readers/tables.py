"""Tables (CSV and the like, Parquet) as batches of examples: columns found by name, packed into features, checked."""

from __future__ import annotations

import codecs
import logging
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pyarrow as pa

from headrace.errors import ConfigError, DataError, nearest
from headrace.getting import archives
from headrace.readers.batches import Restartable
from headrace.readers.cells import SHOWN, Bad, unusable
from headrace.readers.columns import packed
from headrace.readers.csv_tables import CsvTable
from headrace.readers.parquet_tables import ParquetTable, in_lists
from headrace.spec import Feature

log = logging.getLogger(__name__)

Table = CsvTable | ParquetTable

SUFFIXES = (".csv", ".tsv", ".txt", ".parquet")
"""Endings of tables; those of text may be followed by `.gz`, or the table lie in an archive."""


def read_table(
    path: Path | Sequence[Path],
    features: Mapping[str, Feature],
    *,
    targets_required: bool = True,
    bad: Bad = "refuse",
    member: str = "*",
    delimiter: str | None = None,
    names: Sequence[str] | None = None,
    encoding: str = "utf-8",
    quotes: bool = True,
) -> Restartable:
    """Read a table whose columns have the names that the features declare, a few rows at a time, however large it is.

    A feature that names no columns is read from the column of its own name. Where no column is called just so, capitals
    and punctuation don't count: `t_degc` is read from "T (degC)". Columns that no feature names are ignored. A category
    (`int64` with `classes`) may stand there by name or by number. Cells that are empty, or hold NA, NaN, null or the
    like, are missing; as text, "NA" is a word unless the feature is optional.

    Args:
        path: A CSV, TSV or Parquet file; a folder of them, read in the order of their names; or a list. CSV may be
            packed by gzip, or be part of an archive.
        features: What to read; columns are packed into vectors in the order of `Feature.columns`.
        targets_required: Whether the columns of targets must be there. If they need not and are not, the batches do
            not hold these features; if they are there, they must be sound.
        bad: What becomes of a cell that can't be used, or has no value and must have one. `refuse`: all that is wrong
            with the file is told. `null`: it is null in the batch, for a source with a `quarantine` to leave it out.
        member: Which file of an archive: its path, or a pattern that fits no other one (`*hour.csv`).
        delimiter: What separates the cells; default: a tab in `.tsv` and `.txt`, else a comma.
        names: Of the columns, where the first line holds an example already.
        encoding: Of the text, as Python calls it: `latin-1`, `cp1252`, `utf-16`.
        quotes: Whether cells may stand in quotes. In tables of sentences they often are nothing but letters.

    Returns:
        Batches in the order of the file, any number of times.

    Raises:
        DataError: The file is missing, empty or of an unknown kind; a column is missing or there twice. While batches
            are read: it is damaged, or a cell is empty or no number where one is declared. All problems are told, with
            their lines.
    """
    tables = opened(path, member=member, delimiter=delimiter, names=names, encoding=encoding, quotes=quotes)
    parts = [(table, _chosen(table, features, targets_required)) for table in tables]
    return Restartable(lambda: _packed(parts, features, bad))


def opened(
    path: Path | Sequence[Path],
    *,
    member: str = "*",
    delimiter: str | None = None,
    names: Sequence[str] | None = None,
    encoding: str = "utf-8",
    quotes: bool = True,
) -> list[Table]:
    """The files of a table, each able to give its columns as they stand there; arguments as for `read_table`.

    Raises:
        ConfigError: There is no such encoding.
        DataError: A file is missing, or of an unknown kind.
    """
    try:
        codecs.lookup(encoding)
    except LookupError as error:
        raise ConfigError(f"There is no encoding `{encoding}`.", expected="`utf-8`, `latin-1`, `utf-16`, …") from error
    tables: list[Table] = []
    for file in _files(path):
        kind = _kind(file, member)
        if kind == ".parquet":
            tables.append(ParquetTable(file))
        else:
            between = delimiter or ("," if kind == ".csv" else "\t")
            tables.append(CsvTable(file, member, between, tuple(names) if names else None, encoding, quotes))
    return tables


def _packed(
    parts: Sequence[tuple[Table, Mapping[str, Sequence[str]]]],
    features: Mapping[str, Feature],
    bad: Bad,
) -> Iterator[pa.RecordBatch]:
    for table, chosen in parts:
        wanted = {column: features[name] for name, columns in chosen.items() for column in columns}
        for batch in table.batches(wanted, bad):
            yield pa.RecordBatch.from_pydict(
                {
                    name: batch.column(columns[0])
                    if in_lists(features[name])
                    else packed([batch.column(column) for column in columns], features[name])
                    for name, columns in chosen.items()
                }
            )


def refusal(path: Path) -> str | None:
    """Why a path can't be a table, without opening it."""
    if path.is_dir():
        return None if _within(path) else f"{path} holds no table."
    if Path(archives.stem(path.name)).suffix.lower() not in SUFFIXES and archives.stem(path.name) == path.name:
        return f"{path} is no table that can be read: its ending is {f'`{path.suffix}`' if path.suffix else 'missing'}."
    if not path.exists():
        return f"There is no file {path}."
    return None if path.is_file() else f"{path} is no file."


def _within(folder: Path) -> list[Path]:
    """The tables in a folder, of one kind: Parquet if there are any."""
    kinds = [sorted(folder.glob(f"[!.]*{suffix}")) for suffix in (".parquet", ".csv", ".tsv")]
    return next(filter(None, kinds), [])


def _files(path: Path | Sequence[Path]) -> list[Path]:
    paths = [path] if isinstance(path, Path) else list(path)
    for trouble in filter(None, map(refusal, paths)):
        raise DataError(trouble, expected=f"a file that ends in {', '.join(SUFFIXES)}, or a folder of them")
    return [file for path in paths for file in (_within(path) if path.is_dir() else [path])]


def _kind(path: Path, member: str) -> str:
    """The ending by which a table is read."""
    endings = [Path(name).suffix.lower() for name in (member, archives.stem(path.name))]
    kind = next((ending for ending in endings if ending in SUFFIXES), ".csv")
    if kind == ".parquet" and path.suffix.lower() != kind:
        raise DataError(f"Parquet can't be read out of {path.name}.", remedy=f"unpack {path.name} first")
    return kind


# ------------------------------------------------------------------------------------------------- columns


def _chosen(table: Table, features: Mapping[str, Feature], targets_required: bool) -> dict[str, list[str]]:
    """The columns of a table that make each feature.

    Raises:
        ConfigError: A feature can't be read from such a table.
        DataError: A column is missing, or is there more than once.
    """
    path, header = table.path, table.header()
    columns: dict[str, list[str]] = {}
    missing: list[str] = []
    for name, feature in features.items():
        if in_lists(feature) and isinstance(table, CsvTable):
            raise ConfigError(
                f"The feature `{name}` can't be read from {path.name}: it names no columns.",
                expected=f"a column for each of its positions (shape {feature.shape}), or a Parquet file with lists",
            )
        named = [name] if in_lists(feature) or not feature.columns else [column.name for column in feature.columns]
        places = {column: found(column, header) for column in named}
        if not targets_required and feature.role == "target" and not any(places.values()):
            continue
        missing += [column for column, place in places.items() if place is None]
        columns[name] = [place for place in places.values() if place is not None]
    problems = [
        f"there is no column `{column}`: {textwrap.shorten(nearest(column, header), 150, placeholder=' …')}"
        for column in missing[:SHOWN]
    ]
    if len(missing) > SHOWN:
        problems.append(f"{len(missing) - SHOWN} more columns are missing: {', '.join(missing[SHOWN:])}")
    taken = [column for chosen in columns.values() for column in chosen]
    problems += [f"there are {header.count(c)} columns `{c}`" for c in taken if header.count(c) > 1]
    problems += [f"two features are read from `{c}`" for c in sorted({c for c in taken if taken.count(c) > 1})]
    if problems:
        remedy = None
        if isinstance(table, CsvTable) and len(header) == 1 and re.search(r"[,;\t|]", header[0]):
            remedy = f"separate the columns by {'commas' if table.delimiter == ',' else 'tabs'}"
        raise unusable(path, problems, f"the columns {', '.join([*taken, *missing])}", remedy)
    ignored = [column for column in header if column not in taken]
    if ignored:
        log.info("%s: ignored %s", path.name, textwrap.shorten(", ".join(ignored), 150, placeholder=" …"))
    return columns


def found(column: str, header: Sequence[str]) -> str | None:
    """The column of this name, or the only one whose name differs in capitals and punctuation alone."""
    if column in header:
        return column
    alike = [known for known in header if _letters(known) == _letters(column)]
    return alike[0] if len(alike) == 1 else None


def _letters(name: str) -> str:
    return re.sub(r"[\W_]+", "_", name.casefold()).strip("_")
