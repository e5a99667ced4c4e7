"""Arrow batches as serialised `tf.train.Example`, all rows at once: the wire format is laid out by NumPy and Arrow.

A row is a sequence of pieces: tags and names, lengths, numbers, strings. What is equal in all rows is worked out once;
rows of equal length are the rows of one matrix, whose columns are filled in; only what differs in length is joined row
by row, by an Arrow kernel. Features stand in the order of their names, so that equal examples are equal bytes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headrace.ragged import Ragged
from headrace.readers.batches import to_arrays
from headrace.spec import Feature

Array = np.ndarray[Any, Any]

# Field number and wire type, as tensorflow/core/example declares them: each field is preceded by its length.
_FEATURES = _ENTRY = _KEY = _VALUES = b"\x0a"
_FEATURE = b"\x12"
_LIST = {"string": b"\x0a", "uint8": b"\x0a", "float32": b"\x12", "int64": b"\x1a"}

_WIDE = 64
"""Bytes from which something of fixed width (an image) is copied as a whole where rows differ in length."""


def encode(batch: pa.RecordBatch, layout: Mapping[str, Feature]) -> pa.LargeBinaryArray:
    """Each row of a batch as a serialised `tf.train.Example`.

    Numbers and strings are stored as many as there are, row-major; those of a uint8 feature as one string of bytes.

    Args:
        batch: One column for each feature, as `headrace.readers.batches` describes them; for a uint8 feature it may
            also hold strings of bytes (images encoded as PNG, say).
        layout: The features to store.

    Returns:
        The rows: one contiguous buffer, and the offsets of the rows in it. What is missing is NaN or an empty string.

    Raises:
        DataError: A whole number is missing, or an example of a ragged feature breaks off within a step.
    """
    pieces: list[_Piece] = []
    if not batch.num_rows:
        return pa.array([], pa.large_binary())
    for name, feature in sorted(layout.items()):
        values = _field(_FEATURE, *_field(_LIST[feature.dtype], *_values(batch.column(name), name, feature)))
        pieces += _field(_ENTRY, *_field(_KEY, _constant(name.encode())), *values)
    return _joined(_field(_FEATURES, *pieces), batch.num_rows)


# ------------------------------------------------------------------------------------------------- pieces


@dataclass(frozen=True)
class _Plain:
    """Bytes of each row as a row of a matrix."""

    data: Array
    """(rows, width), uint8; a single row stands for all."""
    size: int | Array
    """How many of them count, the first ones: all (`width`), or in each row another number (rows,)."""


@dataclass(frozen=True)
class _Blob:
    """Bytes of each row that lie in memory already, one row after the other."""

    data: pa.LargeBinaryArray
    size: Array
    """(rows,)"""


_Piece: TypeAlias = _Plain | _Blob


def _constant(data: bytes) -> _Plain:
    return _Plain(np.frombuffer(data, np.uint8)[None], len(data))


def _blob(data: Array, splits: Array) -> _Blob:
    """Row `i` is `data[splits[i]:splits[i + 1]]`, of bytes."""
    buffers = [None, pa.py_buffer(np.ascontiguousarray(splits, np.int64)), pa.py_buffer(data)]
    return _Blob(pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(splits) - 1, buffers), np.diff(splits))


def _field(tag: bytes, *pieces: _Piece, unless_empty: bool = False) -> list[_Piece]:
    """A field of a message: tag, length, contents. `unless_empty` leaves it out in rows where it has no contents."""
    length = _same(sum(piece.size for piece in pieces))
    if isinstance(length, int):
        return [] if unless_empty and not length else [_header(tag, length), *pieces]
    data, sizes = _varints(length, tag)
    return [_Plain(data, _same(np.where(length > 0, sizes, 0) if unless_empty else sizes)), *pieces]


@lru_cache(4096)
def _header(tag: bytes, length: int) -> _Plain:
    """Tag and length of a field that is equally long in all rows."""
    return _constant(_varints(np.array([length]), tag)[0].tobytes())


def _same(sizes: int | Array) -> int | Array:
    """One number for sizes that are all alike."""
    return int(sizes[0]) if isinstance(sizes, np.ndarray) and len(sizes) and (sizes == sizes[0]).all() else sizes


def _varints(numbers: Array, tag: bytes = b"") -> tuple[Array, Array]:
    """Numbers in groups of seven bits, the lowest first; the eighth bit says that more follow.

    Args:
        numbers: Whole numbers (rows,); negative ones count as those of 64 bits.
        tag: What stands before each of them.

    Returns:
        The bytes (rows, width), uint8, and how many of them each row has (rows,).
    """
    rest: Array = numbers.astype(np.int64, copy=False).view(np.uint64)
    groups = max(-(-int(rest.max(initial=0)).bit_length() // 7), 1)
    data = np.empty((len(rest), len(tag) + groups), np.uint8)
    data[:, : len(tag)] = np.frombuffer(tag, np.uint8)
    sizes = np.full(len(rest), len(tag) + 1)
    for group in range(len(tag), len(tag) + groups):
        data[:, group] = rest & 0x7F
        rest = rest >> 7
        more = rest > 0
        data[:, group] |= more.astype(np.uint8) << 7
        sizes += more
    return data, sizes


# ------------------------------------------------------------------------------------------------- values


def _values(column: pa.Array, name: str, feature: Feature) -> list[_Piece]:
    """What a BytesList, FloatList or Int64List holds."""
    if feature.dtype == "string":
        return _strings(column, feature)
    if feature.dtype == "uint8" and (pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type)):
        return _field(_VALUES, _lying(column))
    values = to_arrays(pa.RecordBatch.from_arrays([column], [name]), {name: feature})[name]
    numbers = _integers(values) if feature.dtype == "int64" else _as_they_are(values)
    # An empty list of numbers has no field for them; an empty string is a string.
    return _field(_VALUES, numbers, unless_empty=feature.dtype != "uint8")


def _as_they_are(values: Array | Ragged) -> _Piece:
    if isinstance(values, Ragged):
        flat = np.ascontiguousarray(values.values).reshape(-1)
        return _blob(flat.view(np.uint8), _flat_splits(values) * flat.itemsize)
    data = np.ascontiguousarray(values).reshape(-1).view(np.uint8).reshape(len(values), -1)
    return _Plain(data, data.shape[1])


def _integers(values: Array | Ragged) -> _Piece:
    if isinstance(values, Ragged):
        splits, digits, sizes = _flat_splits(values), *_varints(values.values.reshape(-1))
    else:
        digits, sizes = _varints(values.reshape(-1))
        count = math.prod(values.shape[1:])
        if count == 1 or isinstance(_same(sizes), int):
            return _Plain(digits.reshape(len(values), -1), _same(sizes.reshape(len(values), -1).sum(1)))
        splits = np.arange(len(values) + 1) * count
    ends = np.concatenate([[0], np.cumsum(sizes)])
    return _blob(digits[np.arange(digits.shape[1]) < sizes[:, None]], ends[splits])


def _flat_splits(values: Ragged) -> Array:
    """Where the examples begin in the values, row-major."""
    return values.splits * math.prod(values.values.shape[1:])


def _strings(column: pa.Array, feature: Feature) -> list[_Piece]:
    if not feature.shape:
        return _field(_VALUES, _lying(column))
    if feature.ragged:
        values = column.flatten()
        splits = np.concatenate([[0], np.cumsum(pc.fill_null(pc.list_value_length(column), 0).to_numpy())])
    else:
        values = column.values.slice(column.offset * feature.size, len(column) * feature.size)
        splits = np.arange(len(column) + 1) * feature.size
    data, ends = content(_joined(_field(_VALUES, _lying(values)), len(values)))
    return [_blob(data, ends[splits])]


def _lying(strings: pa.Array) -> _Blob:
    strings = pc.fill_null(strings.cast(pa.large_binary()), b"")
    return _Blob(strings, pc.binary_length(strings).to_numpy())


# --------------------------------------------------------------------------------------------------- rows


def content(rows: pa.LargeBinaryArray) -> tuple[Array, Array]:
    """The bytes of an array, uint8, and where its rows begin and the last one ends (rows + 1,), int64; no copy."""
    _, offsets, data = rows.buffers()
    splits = np.frombuffer(offsets, np.int64)[rows.offset : rows.offset + len(rows) + 1]
    return np.frombuffer(data or b"", np.uint8), splits


def joined(columns: Sequence[pa.LargeBinaryArray]) -> pa.LargeBinaryArray:
    """Arrays of bytes, joined row by row."""
    return columns[0] if len(columns) == 1 else pc.binary_join_element_wise(*columns, pa.scalar(b"", pa.large_binary()))


def _joined(pieces: Sequence[_Piece], rows: int) -> pa.LargeBinaryArray:
    if not rows:
        return pa.array([], pa.large_binary())
    plain = [piece for piece in pieces if isinstance(piece, _Plain)]
    if len(plain) == len(pieces) and all(isinstance(piece.size, int) for piece in plain):
        return _side_by_side(plain, rows)
    columns: list[pa.LargeBinaryArray] = []
    narrow: list[_Plain] = []
    for piece in pieces:
        if isinstance(piece, _Plain) and piece.data.shape[1] < _WIDE:
            narrow.append(piece)
            continue
        columns += [_side_by_side(narrow, rows)] if narrow else []
        columns.append(piece.data if isinstance(piece, _Blob) else _side_by_side([piece], rows))
        narrow = []
    return joined([*columns, _side_by_side(narrow, rows)] if narrow else columns)


def _side_by_side(pieces: Sequence[_Plain], rows: int) -> pa.LargeBinaryArray:
    """Pieces as one matrix, of which the cells that a row does not have are left out."""
    ends = np.cumsum([piece.data.shape[1] for piece in pieces])
    matrix = np.empty((rows, ends[-1]), np.uint8)
    # All at once what is the same in all rows, then the rest column by column.
    matrix[:] = np.concatenate([piece.data[0] for piece in pieces])
    there = None
    for piece, end in zip(pieces, ends, strict=True):
        start = end - piece.data.shape[1]
        if len(piece.data) > 1:
            _put(matrix, start, piece.data)
        if isinstance(piece.size, np.ndarray):
            there = np.ones(matrix.shape, bool) if there is None else there
            there[:, start:end] = np.arange(end - start) < piece.size[:, None]
    if there is None:
        return _blob(matrix.reshape(-1), np.arange(rows + 1) * ends[-1]).data
    return _blob(matrix[there], np.concatenate([[0], np.cumsum(sum(piece.size for piece in pieces))])).data


def _put(matrix: Array, column: int, data: Array) -> None:
    """Fill some columns of bytes; as numbers of two to eight bytes where that can be, in one step each."""
    width = data.shape[1]
    if width in (2, 4, 8) and data.flags.c_contiguous:
        kind = f"u{width}"
        np.ndarray(len(matrix), kind, matrix, column, (matrix.shape[1],))[:] = data.view(kind)[:, 0]
    else:
        matrix[:, column : column + width] = data
