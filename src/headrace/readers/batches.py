"""Examples as Arrow batches and as NumPy arrays: one into the other, without a copy where the memory is laid out alike.

| a feature of shape | in an Arrow batch | in arrays |
|---|---|---|
| `()` | a plain column | `(rows,)` |
| `(28, 28, 1)` | a list of fixed size, flattened row by row | `(rows, 28, 28, 1)` |
| `(None, 3)` | a list as long as it is, flattened row by row | `Ragged` |

Text, and the bytes of images, are arrays of `bytes` objects. A missing value is null (or NaN) in a batch, and NaN or
`b""` in arrays.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headrace.errors import DataError
from headrace.ragged import Ragged, joined
from headrace.spec import Feature

Array = np.ndarray[Any, Any]
Arrays = Mapping[str, Array | Ragged]

ROWS = 8192
"""Examples in a batch of small ones: some hundred kilobytes of a table, so that overheads and memory are both small."""
BYTES = 16 * 2**20
"""What a batch of larger examples (arrays of images) holds at most, unless a single one is larger yet."""


@dataclass(frozen=True)
class Restartable:
    """Batches that can be gone through any number of times."""

    make: Callable[[], Iterator[pa.RecordBatch]]

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        return self.make()


def batches(arrays: Arrays, rows: int | None = None) -> Restartable:
    """Cut arrays into Arrow batches, one column for each array.

    Args:
        arrays: Feature → values of shape `(examples, *shape)`, or `Ragged`; as many examples in each. In arrays of
            objects (`bytes` or `str`), None is missing.
        rows: Examples in a batch; default: 8192, or as many as make 16 MB.

    Returns:
        Batches in the arrays' order, any number of times. Floats become float32, integers and booleans int64; uint8
        stays what it is.

    Raises:
        DataError: The arrays differ in length.
    """
    lengths = {name: len(values) for name, values in arrays.items()}
    if len(set(lengths.values())) != 1:
        raise DataError(
            "Features differ in the number of their examples." if lengths else "There is no feature.",
            expected="an array for each feature, as many examples in each",
            received=", ".join(f"{length} of `{name}`" for name, length in lengths.items()) or None,
        )
    if rows is None:
        examples = max(next(iter(lengths.values())), 1)
        held = sum(values.values.nbytes if isinstance(values, Ragged) else values.nbytes for values in arrays.values())
        rows = max(min(ROWS, BYTES * examples // max(held, 1)), 1)
    return Restartable(lambda: _cut(arrays, rows))


def _cut(arrays: Arrays, rows: int) -> Iterator[pa.RecordBatch]:
    examples = len(next(iter(arrays.values())))
    for start in range(0, examples, rows):
        columns = [_column(values, start, min(start + rows, examples)) for values in arrays.values()]
        yield pa.RecordBatch.from_arrays(columns, names=list(arrays))


def _column(values: Array | Ragged, start: int, end: int) -> pa.Array:
    if isinstance(values, Ragged):
        splits = values.splits[start : end + 1]
        size = math.prod(values.values.shape[1:])
        return pa.LargeListArray.from_arrays((splits - splits[0]) * size, _flat(values.values[splits[0] : splits[-1]]))
    flat = _flat(values[start:end])
    return flat if values.ndim == 1 else pa.FixedSizeListArray.from_arrays(flat, math.prod(values.shape[1:]))


def _flat(values: Array) -> pa.Array:
    """All values one after the other, as a type that batches know."""
    flat = values.reshape(-1)
    if flat.dtype.kind == "f":
        # What is too large becomes infinite, which the schema refuses with its place.
        with np.errstate(over="ignore"):
            return pa.array(flat.astype(np.float32, copy=False))
    if flat.dtype.kind in "iub" and flat.dtype != np.uint8:
        return pa.array(flat.astype(np.int64, copy=False))
    return pa.array(flat, pa.large_binary()) if flat.dtype == object else pa.array(flat)


def to_arrays(batch: pa.RecordBatch, features: Mapping[str, Feature]) -> dict[str, Array | Ragged]:
    """The opposite of `batches`, for one batch.

    Args:
        batch: One column for each feature.
        features: What to take out; what the batch does not hold (a target that is not known yet) is left out.

    Returns:
        Feature → values of shape `(rows, *shape)`, or `Ragged`; perhaps read-only.

    Raises:
        DataError: A whole number is missing, or an example of a ragged feature breaks off within a step.
    """
    return {
        name: _values(batch.column(name), name, feature)
        for name, feature in features.items()
        if name in batch.schema.names
    }


def whole(batches: Iterable[pa.RecordBatch], features: Mapping[str, Feature]) -> dict[str, Any]:
    """All examples of some batches as arrays, for what needs to see them together; the arrays as in `to_arrays`.

    Raises:
        DataError: There are none.
    """
    parts = [to_arrays(batch, features) for batch in batches]
    if not parts:
        raise DataError("There are no examples.", expected="at least one")
    return {name: joined([part[name] for part in parts]) for name in parts[0]}


def _values(column: pa.Array, name: str, feature: Feature) -> Array | Ragged:
    step = feature.shape[1:] if feature.ragged else feature.shape
    if feature.ragged:
        lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy()
        if (lengths % feature.size).any():
            row = int(np.flatnonzero(lengths % feature.size)[0])
            raise DataError(
                f"Feature `{name}` breaks off within a step in row {row} of a batch.",
                expected=f"a multiple of {feature.size} values, for shape {feature.shape}",
                received=int(lengths[row]),
            )
        splits = np.concatenate([[0], np.cumsum(lengths // feature.size, dtype=np.int64)])
        return Ragged(_plain(column.flatten(), name, feature).reshape(-1, *step), splits)
    if not pa.types.is_fixed_size_list(column.type):
        return _plain(column, name, feature).reshape(len(column), *step)
    # Not `flatten`: it leaves the rows out that are null.
    width = column.type.list_size
    flat = column.values.slice(column.offset * width, len(column) * width)
    if column.null_count:
        there = pa.array(np.repeat(column.is_valid().to_numpy(zero_copy_only=False), width))
        flat = pc.if_else(there, flat, pa.scalar(None, flat.type))
    return _plain(flat, name, feature).reshape(len(column), *step)


def _plain(values: pa.Array, name: str, feature: Feature) -> Array:
    """Values without a shape; what is missing as NaN or `b""`."""
    if feature.dtype == "string":
        return pc.fill_null(values.cast(pa.large_binary()), b"").to_numpy(zero_copy_only=False)
    if values.null_count and feature.dtype != "float32":
        raise DataError(
            f"Feature `{name}` has {values.null_count} missing values in a batch.",
            expected=f"a value in each row: {feature.dtype} has none that could mean missing",
        )
    return values.to_numpy(zero_copy_only=False).astype(feature.dtype, copy=False)
