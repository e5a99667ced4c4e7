"""Text tables (CSV, TSV), read block by block, however large; what is wrong is searched for only if something is."""

from __future__ import annotations

import codecs
import contextlib
import csv
import io
import logging
from collections.abc import Container, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
from pyarrow import csv as arrow

from headrace.errors import DataError
from headrace.getting import archives
from headrace.readers.batches import ROWS
from headrace.readers.cells import (
    SPELLINGS,
    Bad,
    Findings,
    Wanted,
    first_line,
    judged,
    unfit,
    unreadable,
)
from headrace.readers.columns import settled, type_kept, type_read

log = logging.getLogger(__name__)

_BLOCK = 1 << 20
"""Bytes that are parsed at a time; a row that is longer is read the slow way."""
_LONGEST = 1 << 28
"""Characters in a cell, at most: more stand behind a quote that is never closed."""
_SEARCHED = 200_000
"""Rows that are searched for further problems, so that a person need not wait for minutes."""


@dataclass(frozen=True)
class CsvTable:
    """A text table: a line for each row (more if a cell in quotes holds line breaks), empty lines aside."""

    path: Path
    member: str = "*"
    """Which file of an archive it is."""
    delimiter: str = ","
    names: tuple[str, ...] | None = None
    """Of the columns; None if the first line holds them."""
    encoding: str = "utf-8"
    quotes: bool = True
    """Whether a cell may stand in quotes; else they are letters like others."""

    def header(self) -> tuple[str, ...]:
        """The names of the columns.

        Raises:
            DataError: The file can't be read, is empty, or has no rows.
        """
        with self._rows() as rows:
            first = list(islice(rows, 1 if self.names else 2))
        if not first:
            raise DataError(f"{self.path.name} is empty.", expected="the names of the columns in the first line")
        if not self.names and len(first) < 2:
            raise DataError(
                f"{self.path.name} has no rows.", expected="at least one example below the names of the columns"
            )
        return self.names or tuple(first[0][1])

    def batches(self, wanted: Wanted, bad: Bad) -> Iterator[pa.RecordBatch]:
        """The rows, with the wanted columns as `columns.settled` leaves them.

        Raises:
            DataError: The file is damaged; or, unless they shall be null, cells can't be used.
        """
        done, trouble = 0, ""
        with self._text() as text:
            try:
                for batch in self._parsed(text, wanted):
                    columns = [settled(batch.column(column), feature) for column, feature in wanted.items()]
                    if bad == "refuse" and not all(usable for _, usable in columns):
                        trouble = "a cell can't be used"
                        break
                    yield pa.RecordBatch.from_arrays([column for column, _ in columns], list(wanted))
                    done += batch.num_rows
            except pa.ArrowException as error:
                trouble = first_line(error)
        # Quotes come in pairs, save within a word; one that stays open swallows the rows behind it in silence.
        if trouble or text.quotes % 2:
            problems = [self._unclosed()] if self.quotes and text.quotes else []
            if bad == "refuse":
                problems += self._problems(wanted, done)
            if any(problems):
                raise unfit(self.path, list(filter(None, problems)))
        if trouble:
            log.info("%s: read cell by cell after row %d: %s", self.path.name, done, trouble)
            yield from self._slow(wanted, done)

    def lines(self, rows: Container[int]) -> dict[int, int]:
        """The line on which each of these rows (counted from 0) ends."""
        with self._rows() as found:
            below = islice(found, 0 if self.names else 1, None)
            return {row: line for row, (line, _) in enumerate(below) if row in rows}

    # ----------------------------------------------------------------------------------------------- the fast way

    @contextlib.contextmanager
    def _text(self) -> Iterator[_Text]:
        try:
            packed = archives.stem(self.path.name) != self.path.name
            with archives.opened(self.path, self.member) if packed else self.path.open("rb") as file:
                yield _Text(file, self.path, self.encoding)
        except OSError as error:
            raise unreadable(self.path, "CSV", error) from error

    def _parsed(self, text: _Text, wanted: Wanted) -> Iterator[pa.RecordBatch]:
        with arrow.open_csv(
            pa.PythonFile(text, mode="r"),
            arrow.ReadOptions(block_size=_BLOCK, column_names=self.names),
            # A cell of text may hold a line break.
            arrow.ParseOptions(
                delimiter=self.delimiter, quote_char='"' if self.quotes else False, newlines_in_values=self.quotes
            ),
            arrow.ConvertOptions(
                include_columns=list(wanted),
                column_types={column: type_read(feature) for column, feature in wanted.items()},
                null_values=SPELLINGS,
            ),
        ) as reader:
            for batch in reader:
                for start in range(0, batch.num_rows, ROWS):
                    yield batch.slice(start, ROWS)

    # ----------------------------------------------------------------------------------------------- the slow way

    @contextlib.contextmanager
    def _rows(self, *, strict: bool = False) -> Iterator[Iterator[tuple[int, list[str]]]]:
        """The rows that are not empty, the header included, each with the number of its last line."""
        limit = csv.field_size_limit(_LONGEST)
        try:
            with self._text() as text:
                lines = io.TextIOWrapper(io.BufferedReader(text), "utf-8-sig", newline="")
                reader = csv.reader(
                    lines,
                    delimiter=self.delimiter,
                    quoting=csv.QUOTE_MINIMAL if self.quotes else csv.QUOTE_NONE,
                    strict=strict,
                )
                yield ((reader.line_num, row) for row in reader if row)
        finally:
            csv.field_size_limit(limit)

    def _judged(self, wanted: Wanted, findings: Findings, done: int) -> Iterator[tuple[int, list[Any]]]:
        """The line and the values of each row after the first ones; problems are noted.

        All values of a row with too few cells or too many are None.
        """
        header = self.header()
        cells = [(header.index(column), column, feature) for column, feature in wanted.items()]
        with self._rows() as rows:
            for line, row in islice(rows, done + (0 if self.names else 1), None):
                if len(row) != len(header):
                    findings.add(f"a row of {len(row)} cells", f"instead of {len(header)} stands", line)
                    yield line, [None] * len(cells)
                    continue
                values = []
                for position, column, feature in cells:
                    value, what = judged(row[position], feature)
                    values.append(value)
                    if what:
                        findings.add(column, what, line, row[position])
                yield line, values

    def _slow(self, wanted: Wanted, done: int) -> Iterator[pa.RecordBatch]:
        """The rows after the first ones, what is missing or can't be used as null."""
        rows = self._judged(wanted, Findings("line", wanted), done)
        while some := self._taken(rows):
            columns = zip(*(values for _, values in some), strict=True)
            yield pa.RecordBatch.from_arrays(
                [pa.array(c, type_kept(feature)) for c, feature in zip(columns, wanted.values(), strict=True)],
                list(wanted),
            )

    def _taken(self, rows: Iterator[tuple[int, list[Any]]]) -> list[tuple[int, list[Any]]]:
        try:
            return list(islice(rows, ROWS))
        except csv.Error as error:
            raise unreadable(self.path, "CSV", error) from error

    def _problems(self, wanted: Wanted, done: int) -> list[str]:
        """What is wrong with the rows after the first ones, found line by line."""
        findings, more = Findings("line", wanted), ""
        try:
            for count, (line, _) in enumerate(self._judged(wanted, findings, done)):
                if count >= _SEARCHED and findings.lines():
                    more = f"the lines after {line} were not looked at"
                    break
        except csv.Error as error:
            more = first_line(error)
        return [*findings.lines(), *filter(None, [more])]

    def _unclosed(self) -> str | None:
        line = 0
        try:
            with self._rows(strict=True) as rows:
                for line, _ in rows:  # noqa: B007 (the last one counts)
                    pass
        except csv.Error as error:
            if "end of data" in str(error) or "limit" in str(error):
                return f"a quote that opens on line {line + 1} is never closed"
        return None


class _Text(io.RawIOBase):
    """A text file as UTF-8, whatever it was."""

    def __init__(self, file: BinaryIO, path: Path, encoding: str) -> None:
        self._file, self._path, self._encoding = file, path, encoding
        self._chunks = self._decoded()
        self._rest = memoryview(b"")
        self.quotes = 0
        """Quotes read so far."""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._rest:
            self._rest = memoryview(next(self._chunks, b""))
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count

    def _decoded(self) -> Iterator[bytes]:
        decoder = codecs.getincrementaldecoder(self._encoding)()
        is_utf8 = codecs.lookup(self._encoding).name == "utf-8"
        lines = 1
        while True:
            chunk = self._file.read(_BLOCK)
            try:
                text = decoder.decode(chunk, final=not chunk)
            except UnicodeDecodeError as error:
                lines += error.object[: error.start].decode(self._encoding, "ignore").count("\n")
                named = "UTF-8" if is_utf8 else self._encoding
                raise unreadable(self._path, "CSV", f"letters on line {lines} that are not {named}") from error
            data = chunk if is_utf8 else text.encode()
            if data:
                lines += data.count(b"\n")
                self.quotes += data.count(b'"')
                yield data
            if not chunk:
                return
