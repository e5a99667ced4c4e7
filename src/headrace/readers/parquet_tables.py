"""Parquet tables, read some rows at a time, and their columns cast to what the features declare."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
from pyarrow import parquet

from headrace.errors import DataError
from headrace.readers.batches import ROWS
from headrace.readers.cells import Bad, Findings, Wanted, unfit, unreadable, wrong
from headrace.readers.columns import is_list, settled
from headrace.spec import Feature


@dataclass(frozen=True)
class ParquetTable:
    """A Parquet file. Of a column of lists, each row is one cell."""

    path: Path

    def header(self) -> tuple[str, ...]:
        """The names of the columns.

        Raises:
            DataError: The file can't be read, or has no rows.
        """
        with self._open() as file:
            if not file.metadata.num_rows:
                raise DataError(f"{self.path.name} has no rows.", expected="at least one example")
            return tuple(file.schema_arrow.names)

    def batches(self, wanted: Wanted, bad: Bad) -> Iterator[pa.RecordBatch]:
        """The rows, with the wanted columns as `columns.settled` leaves them.

        Raises:
            DataError: The file is damaged; or, unless they shall be null, cells can't be used.
        """
        for batch in self._read(wanted):
            columns = [settled(batch.column(c), feature, in_lists=in_lists(feature)) for c, feature in wanted.items()]
            if bad == "refuse" and not all(usable for _, usable in columns):
                raise unfit(self.path, self._problems(wanted))
            yield pa.RecordBatch.from_arrays([column for column, _ in columns], list(wanted))

    @contextlib.contextmanager
    def _open(self) -> Iterator[parquet.ParquetFile]:
        try:
            with parquet.ParquetFile(self.path) as file:
                yield file
        except (pa.ArrowException, OSError) as error:
            raise unreadable(self.path, "Parquet", error) from error

    def _read(self, wanted: Wanted) -> Iterator[pa.RecordBatch]:
        with self._open() as file:
            unlike = [
                f"{column} holds {file.schema_arrow.field(column).type}, "
                + ("no lists" if in_lists(feature) else "and no single values")
                for column, feature in wanted.items()
                if is_list(file.schema_arrow.field(column).type) != in_lists(feature)
            ]
            if unlike:
                raise unfit(self.path, unlike)
            yield from file.iter_batches(ROWS, columns=list(wanted))

    def _problems(self, wanted: Wanted) -> list[str]:
        """What is wrong with the cells, found row by row."""
        findings, done = Findings("row", wanted), 0
        for batch in self._read(wanted):
            for column, feature in wanted.items():
                for row, cell in enumerate(batch.column(column).to_pylist()):
                    what = wrong(cell, feature, in_lists=in_lists(feature))
                    if what:
                        findings.add(column, what, done + row + 1, "" if cell is None else str(cell))
            done += batch.num_rows
        return findings.lines()


def in_lists(feature: Feature) -> bool:
    """Whether a feature is a list in each cell of one column, rather than a column for each position."""
    return feature.ragged or len(feature.shape) > 1 or (feature.size > 1 and not feature.columns)
