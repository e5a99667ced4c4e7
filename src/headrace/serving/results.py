"""Where answers go: a Parquet file or JSON lines, written aside and put in place when they are whole."""

from __future__ import annotations

import base64
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol

from headrace.errors import StageFailed

if TYPE_CHECKING:
    import pyarrow as pa


GROUP_ROWS, GROUP_BYTES = 2**16, 32 * 2**20
"""A group of rows of a Parquet file holds so much."""


class Sink(Protocol):
    """Takes answers, a batch at a time."""

    def write(self, columns: Mapping[str, pa.Array]) -> None:
        """Take a batch: column → values, as many in each."""

    def close(self) -> None:
        """Put everything in place."""

    def discard(self) -> None:
        """Leave nothing behind."""


class Draft:
    """A file that is written beside its place."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        self.name = Path(name)
        self.file = os.fdopen(handle, "wb")

    def close(self) -> None:
        """Put it in its place."""
        self.file.flush()
        os.fsync(self.file.fileno())
        self.file.close()
        self.name.chmod(0o644)
        self.name.replace(self._path)

    def discard(self) -> None:
        """Leave nothing behind."""
        self.file.close()
        self.name.unlink(missing_ok=True)


class ParquetRows:
    """Answers as a Parquet file; the first batch says what its columns are."""

    def __init__(self, path: Path) -> None:
        self._draft = Draft(path)
        self._writer: Any = None
        self._waiting: list[pa.RecordBatch] = []
        self._rows = self._bytes = 0

    def write(self, columns: Mapping[str, pa.Array]) -> None:
        """Take a batch.

        Raises:
            StageFailed: Its columns are of other types than those before.
        """
        import pyarrow as pa
        from pyarrow import parquet

        batch = pa.RecordBatch.from_pydict(dict(columns))
        if self._writer is None:
            self._writer = parquet.ParquetWriter(self._draft.file, batch.schema, compression="zstd")
        try:
            self._waiting.append(batch.cast(self._writer.schema))
        except (pa.ArrowException, ValueError) as error:
            raise StageFailed(
                "The answers change their types on the way.",
                expected=str(self._writer.schema).replace("\n", ", "),
                received=str(batch.schema).replace("\n", ", "),
                remedy="write JSON lines: --format jsonl",
            ) from error
        self._rows, self._bytes = self._rows + batch.num_rows, self._bytes + batch.nbytes
        if self._rows >= GROUP_ROWS or self._bytes >= GROUP_BYTES:
            self._write()

    def _write(self) -> None:
        """Write what waits as one group of rows: each has a description of its own, which stays in memory."""
        import pyarrow as pa

        if self._waiting:
            self._writer.write_table(pa.Table.from_batches(self._waiting))
        self._waiting, self._rows, self._bytes = [], 0, 0

    def close(self) -> None:
        """Put the file in its place; without any answer, one without columns."""
        import pyarrow as pa
        from pyarrow import parquet

        if self._writer is None:
            parquet.write_table(pa.table({}), self._draft.file)
        else:
            self._write()
            self._writer.close()
        self._draft.close()

    def discard(self) -> None:
        """Leave nothing behind."""
        self._draft.discard()


class JsonLines:
    """Answers as JSON lines.

    Args:
        target: The file's path; or a stream, which gets each batch at once.
    """

    def __init__(self, target: Path | IO[str]) -> None:
        self._draft = Draft(target) if isinstance(target, Path) else None
        self._stream = None if isinstance(target, Path) else target

    def write(self, columns: Mapping[str, pa.Array]) -> None:
        """Take a batch."""
        names = list(columns)
        rows = zip(*(columns[name].to_pylist() for name in names), strict=True)
        self.lines(dict(zip(names, row, strict=True)) for row in rows)

    def lines(self, values: Any) -> None:
        """Take values, one for each line."""
        text = "".join(json.dumps(value, ensure_ascii=False, default=_plain) + "\n" for value in values)
        if self._draft:
            self._draft.file.write(text.encode())
        elif self._stream:
            self._stream.write(text)
            self._stream.flush()

    def close(self) -> None:
        """Put the file in its place."""
        if self._draft:
            self._draft.close()

    def discard(self) -> None:
        """Leave nothing behind."""
        if self._draft:
            self._draft.discard()


def _plain(value: Any) -> Any:
    return {"b64": base64.b64encode(value).decode()} if isinstance(value, bytes) else str(value)
