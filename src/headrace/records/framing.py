"""TFRecord's framing: before each record its length and a checksum of that, behind it a checksum of the record."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import google_crc32c
import numpy as np
import pyarrow as pa

from headrace.records.encoding import content, joined

Array = np.ndarray[Any, Any]

HEAD = 12
"""Bytes before a record: its length (8, little-endian) and the checksum of these (4)."""
FRAME = 16
"""Bytes before and behind a record."""


def framed(records: pa.LargeBinaryArray) -> pa.LargeBinaryArray:
    """Records as they stand in a TFRecord file: all frames one after the other in one buffer."""
    data, splits = content(records)
    whole, bounds = data.tobytes(), splits.tolist()
    ends = checksums([whole[start:end] for start, end in pairwise(bounds)])
    return joined([_rows(heads(np.diff(splits))), records, _rows(ends)])


def heads(lengths: Array) -> Array:
    """What stands before records of these lengths (rows, 12), uint8."""
    # Many records have the same length, and then the same head.
    different, which = np.unique(lengths, return_inverse=True)
    sizes = different.astype("<u8")[:, None].view(np.uint8)
    return np.concatenate([sizes, checksums([size.tobytes() for size in sizes])], axis=1)[which]


def checksums(pieces: Iterable[bytes]) -> Array:
    """The masked CRC-32C of each piece (pieces, 4), uint8."""
    plain = np.fromiter(map(google_crc32c.value, pieces), np.uint32)
    # Masked, because the checksum of data with checksums in them would be weak.
    return ((plain >> 15 | plain << 17) + np.uint32(0xA282EAD8)).astype("<u4")[:, None].view(np.uint8)


def _rows(matrix: Array) -> pa.LargeBinaryArray:
    """The rows of a matrix of bytes."""
    splits = pa.py_buffer(np.arange(len(matrix) + 1) * matrix.shape[1])
    return pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(matrix), [None, splits, pa.py_buffer(matrix)])
