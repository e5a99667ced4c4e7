"""Records by their position: read from the shards in any order, checked, and named exactly where they are damaged."""

from __future__ import annotations

import mmap
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from headrace.errors import DataError
from headrace.records.framing import FRAME, HEAD, checksums, heads
from headrace.records.writing import ANEW, Written, lengths_path

Array = np.ndarray[Any, Any]

_PARTS = {
    "has a damaged length": slice(0, 8),
    "has a damaged checksum of its length": slice(8, HEAD),
    "does not match its checksum": slice(HEAD, FRAME),
}
"""What is wrong if these bytes of a frame (without the record) are not as they must be."""
TAIL = FRAME - HEAD
_STEP = 2**16


@dataclass(frozen=True)
class Fault:
    """What is wrong with a record, or with a whole file."""

    path: Path
    """The shard."""
    what: str
    """A sentence without its subject: `is no tf.train.Example`."""
    record: int | None = None
    """Position of the record in the shard, from 0; None if it is the file itself."""
    offset: int | None = None
    """Byte at which the record begins in the shard (in its contents, if it is compressed)."""

    def __str__(self) -> str:
        if self.record is None:
            return f"{self.path.name} {self.what}"
        return f"{self.path.name}, record {self.record:,} from byte {self.offset:,}, {self.what}"

    def error(self) -> DataError:
        """As an error."""
        return DataError(f"The records in {self.path.parent} are damaged: {self}.", remedy=ANEW)


class Reader:
    """The serialised examples of a split, by their position.

    Args:
        folder: A finished folder of records.
        split: Name of the split.
        written: Its files.
        compressed: Whether these are. One of them is unpacked at a time: read them in stored order.

    Raises:
        DataError: The file that says where each record begins is missing, or not as long as it must be.
    """

    def __init__(self, folder: Path, split: str, written: Written, compressed: bool = False) -> None:
        path = lengths_path(folder, split)
        size = path.stat().st_size if path.is_file() else None
        if size != 4 * written.examples:
            raise DataError(
                f"{path} is {'missing' if size is None else 'damaged'}: it says where each record begins.",
                expected=f"{4 * written.examples:,} bytes, for {written.examples:,} records",
                received=None if size is None else f"{size:,} bytes",
                remedy=ANEW,
            )
        self._paths = [folder / name for name in written.shards]
        self._compressed = compressed
        self._lengths = np.fromfile(path, "<u4").astype(np.int64)
        self._starts = np.concatenate([[0], np.cumsum(self._lengths + FRAME)])
        self._firsts = np.cumsum([0, *written.lengths])
        self._opened: dict[int, mmap.mmap | bytes] = {}

    def __len__(self) -> int:
        return len(self._lengths)

    def look(self, rows: Array) -> tuple[Array, list[Fault]]:
        """The examples at these positions, as an array of `bytes` (rows,), and everything that is wrong.

        What is damaged is None.
        """
        found, faults = np.empty(len(rows), object), list[Fault]()
        shards = np.searchsorted(self._firsts, rows, side="right") - 1
        for shard in np.unique(shards).tolist():
            places = np.flatnonzero(shards == shard)
            found[places] = self._look(shard, rows[places], faults)
        return found, faults

    def _look(self, shard: int, rows: Array, faults: list[Fault]) -> Array:
        """Records of one shard."""
        found = np.empty(len(rows), object)
        first, last = self._starts[self._firsts[[shard, shard + 1]]]
        try:
            contents = self._contents(shard)
        except OSError as error:
            faults.append(Fault(self._paths[shard], f"can't be read: {error.strerror or error}"))
            return found
        if len(contents) > last - first:
            faults.append(Fault(self._paths[shard], f"goes on behind its last record, from byte {last - first:,}"))
        starts = self._starts[rows] - first
        ends = starts + self._lengths[rows] + FRAME
        cut = ends > len(contents)
        faults += [self.fault(row, f"is cut off: the file ends at byte {len(contents):,}") for row in rows[cut]]
        whole, starts, ends = np.flatnonzero(~cut), starts[~cut], ends[~cut]
        bounds = zip((starts + HEAD).tolist(), (ends - TAIL).tolist(), strict=True)
        found[whole] = [contents[start:end] for start, end in bounds]

        view = np.frombuffer(contents, np.uint8)
        there = np.concatenate(
            [view[starts[:, None] + np.arange(HEAD)], view[ends[:, None] - np.arange(TAIL, 0, -1)]], 1
        )
        due = np.concatenate([heads(self._lengths[rows[whole]]), checksums(found[whole])], 1)
        for cell in np.flatnonzero((there != due).any(1)):
            parts = [what for what, part in _PARTS.items() if (there[cell, part] != due[cell, part]).any()]
            faults.append(self.fault(rows[whole[cell]], parts[0]))
            found[whole[cell]] = None
        return found

    def _contents(self, shard: int) -> mmap.mmap | bytes:
        if shard not in self._opened:
            if self._compressed:
                self._opened = {shard: _unpacked(self._paths[shard].read_bytes())}
            elif self._paths[shard].stat().st_size:
                with self._paths[shard].open("rb") as file:
                    self._opened[shard] = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
            else:
                return b""  # which can't be mapped
        return self._opened[shard]

    def fault(self, row: int, what: str) -> Fault:
        """Something wrong with the record at this position."""
        shard = int(np.searchsorted(self._firsts, row, side="right")) - 1
        first = int(self._firsts[shard])
        return Fault(self._paths[shard], what, int(row) - first, int(self._starts[row] - self._starts[first]))


def _unpacked(data: bytes) -> bytes:
    """The contents of a gzip file, as far as they can be unpacked."""
    unpacker, contents = zlib.decompressobj(wbits=31), bytearray()
    for start in range(0, len(data), _STEP):
        try:
            contents += unpacker.decompress(data[start : start + _STEP])
        except zlib.error:
            break
    return bytes(contents)
