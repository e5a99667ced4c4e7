"""Columns of cells, as Arrow reads them, and what they become in a batch of examples."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headrace.readers.cells import NOTHING, judged, numbers_of
from headrace.spec import Feature


def type_read(feature: Feature) -> pa.DataType:
    """The type in which cells are best read, before they are `settled`."""
    if feature.dtype == "string" or feature.classes:
        return pa.string()
    # Doubles first: the same text then gives the same float32 as from an archive of doubles.
    return {"float32": pa.float64(), "int64": pa.int64(), "uint8": pa.uint8()}[feature.dtype]


def type_kept(feature: Feature) -> pa.DataType:
    """The type of cells in a batch of examples."""
    return {"float32": pa.float32(), "int64": pa.int64(), "uint8": pa.uint8(), "string": pa.string()}[feature.dtype]


def settled(column: pa.Array, feature: Feature, *, in_lists: bool = False) -> tuple[pa.Array, bool]:
    """Cells as they stand in a batch of examples, and whether each one that must have a value has one.

    Args:
        column: Cells of any type that can be cast to the feature's.
        feature: What the column belongs to.
        in_lists: Whether each cell is a list with all values of the feature, rather than a single value.

    Returns:
        Cells of the type that `type_kept` says (bytes as they come), null where one is missing or can't be used; or
        lists of them, one of a wrong length being null, or full of nulls where the length is fixed.
    """
    if in_lists:
        return _lists(column, feature)
    with contextlib.suppress(pa.ArrowException):
        kept, unusable = _settled(_cast(column, feature), feature)
        if not unusable or not feature.classes:
            return kept, not unusable and (feature.optional or not kept.null_count)
    # One by one, since what Arrow can't cast may be sound all the same: 5.0 is a whole number, and a class.
    judgements = [judged(cell, feature) for cell in column.to_pylist()]
    kept = pa.array([value for value, _ in judgements], type_kept(feature))
    return kept, not any(what for _, what in judgements)


def _cast(column: pa.Array, feature: Feature) -> pa.Array:
    if (column.type == type_kept(feature) and not feature.classes) or (
        feature.dtype == "string" and is_binary(column.type)
    ):
        return column
    return column.cast(type_read(feature))


def _lists(column: pa.Array, feature: Feature) -> tuple[pa.Array, bool]:
    lengths = pc.fill_null(pc.list_value_length(column), -1).to_numpy()
    fits = lengths % feature.size == 0 if feature.ragged else lengths == feature.size
    fits &= lengths >= 0
    if not fits.all():
        column = pc.if_else(pa.array(fits), column, pa.scalar(None, column.type))
    values, usable = settled(column.flatten(), feature)
    if feature.ragged:
        ends = np.concatenate([[0], np.cumsum(lengths * fits, dtype=np.int64)])
        missing = None if fits.all() else pa.array(~fits)
        return pa.LargeListArray.from_arrays(pa.array(ends), values, mask=missing), usable and bool(fits.all())
    if not fits.all():
        places = np.repeat(np.cumsum(fits) - 1, feature.size) * feature.size + np.tile(
            np.arange(feature.size), len(fits)
        )
        values = values.take(pa.array(places, mask=np.repeat(~fits, feature.size)))
    fine = fits | (lengths < 0) if feature.optional else fits
    return pa.FixedSizeListArray.from_arrays(values, feature.size), usable and bool(fine.all())


def _settled(column: pa.Array, feature: Feature) -> tuple[pa.Array, int]:
    """Single values, of the type that `type_read` says, and how many hold something that can't be used."""
    if feature.dtype == "string":
        if feature.optional and pa.types.is_string(column.type):
            missing = pc.is_in(pc.utf8_lower(pc.utf8_trim_whitespace(column)), pa.array(["", *NOTHING]))
        else:
            missing = pc.equal(pc.binary_length(column), 0)
        return pc.if_else(missing, pa.scalar(None, column.type), column), 0
    if feature.classes:
        numbers = numbers_of(feature.classes)
        text = pc.utf8_trim_whitespace(column)
        values = pa.array(numbers.values(), pa.int64()).take(pc.index_in(text, pa.array(numbers, pa.string())))
        missing = pc.is_in(pc.utf8_lower(text), pa.array(["", *NOTHING, None]))
        return values.cast(type_kept(feature)), pc.sum(pc.and_(values.is_null(), pc.invert(missing))).as_py() or 0
    if feature.dtype != "float32":
        return column, 0
    double = column.to_numpy(zero_copy_only=False)
    with np.errstate(over="ignore"):
        single = double.astype(np.float32, copy=False)
    there = np.isfinite(single)
    if there.all():
        return pa.array(single), 0
    return pa.array(single, mask=~there), int((~there & ~np.isnan(double)).sum())


def packed(columns: Sequence[pa.Array], feature: Feature) -> pa.Array:
    """The columns of a vector feature, side by side; a scalar stands alone."""
    if not feature.shape:
        return columns[0]
    rows, width = len(columns[0]), len(columns)
    side_by_side = np.arange(rows * width).reshape(width, rows).T.reshape(-1)
    values = columns[0] if width == 1 else pa.concat_arrays(columns).take(pa.array(side_by_side))
    return pa.FixedSizeListArray.from_arrays(values, feature.size)


def is_list(kind: pa.DataType) -> bool:
    """Whether each cell of a column of this type is a list."""
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def is_binary(kind: pa.DataType) -> bool:
    """Whether a column of this type holds bytes."""
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
