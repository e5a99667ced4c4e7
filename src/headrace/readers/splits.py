"""Dealing examples out to splits, by a seed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from itertools import accumulate
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa

from headrace.errors import DataError
from headrace.readers.batches import ROWS, Array, Arrays, Restartable

SEED = 113
"""The seed of `keras.datasets`."""
HELD = 128 * 2**20
"""Bytes of examples that are held in memory to bring them into another order; of more, in several sweeps."""

Shares = Mapping[str, float]
"""Split → its share of all examples; the others train."""
A_FIFTH: Shares = MappingProxyType({"test": 0.2})
"""What Keras holds back by default."""


def keras_order(examples: int, seed: int = SEED) -> Array:
    """The order into which `keras.datasets` bring their examples: positions, drawn by the legacy generator."""
    order = np.arange(examples)
    np.random.RandomState(seed).shuffle(order)
    return order


def deal(examples: int, shares: Shares = A_FIFTH, seed: int = SEED, what: str = "The data") -> dict[str, Array]:
    """Deal examples out to splits.

    Args:
        examples: How many there are.
        shares: Split → its share; the others are split `train`.
        seed: Of the order, see `keras_order`.
        what: Of what there are too few, for the message.

    Returns:
        Split → positions of its examples, in the order drawn; `train` comes first.

    Raises:
        DataError: A split would be empty.
    """
    order, total = keras_order(examples, seed), sum(shares.values())
    # The first cut is made as Keras makes it; the others, in proportion to what is left.
    kept = int(examples * (1 - total))
    before = [0.0, *accumulate(shares.values())][:-1]
    starts = [0, *(kept + round((examples - kept) * share / total) for share in before)]
    names = ["train", *shares]
    dealt = {name: order[s:e] for name, s, e in zip(names, starts, [*starts[1:], examples], strict=True)}
    empty = [name for name, rows in dealt.items() if not len(rows)]
    if empty:
        raise DataError(
            f"{what} has too few examples for the splits {', '.join(names)}: none is left for {', '.join(empty)}.",
            received=examples,
        )
    return dealt


def split_arrays(arrays: Arrays, shares: Shares = A_FIFTH, seed: int = SEED) -> dict[str, dict[str, Any]]:
    """Split → the arrays of its examples, dealt out as `deal` says: as Keras splits its own data sets."""
    (examples,) = {len(values) for values in arrays.values()}
    dealt = deal(examples, shares, seed)
    return {split: {name: values[rows] for name, values in arrays.items()} for split, rows in dealt.items()}


def split_batches(
    batches: Iterable[pa.RecordBatch], shares: Shares = A_FIFTH, seed: int = SEED, what: str = "The data"
) -> dict[str, Restartable]:
    """Split → batches of its examples, dealt out as `deal` says, however many there are.

    Nothing is read before a split is gone through. What exceeds 128 MB is swept several times.

    Args:
        batches: To be gone through any number of times, always in the same order.
        shares: As in `deal`.
        seed: As in `deal`.
        what: As in `deal`.
    """
    return {split: Restartable(partial(_dealt, batches, shares, seed, what, split)) for split in ("train", *shares)}


def _dealt(
    batches: Iterable[pa.RecordBatch], shares: Shares, seed: int, what: str, split: str
) -> Iterator[pa.RecordBatch]:
    held: list[pa.RecordBatch] = []
    rows = size = 0
    for batch in batches:
        rows, size = rows + batch.num_rows, size + batch.nbytes
        if size <= HELD:
            held.append(batch)
    order = deal(rows, shares, seed, what)[split]
    step = max(HELD * rows // max(size, 1), 1)
    for start in range(0, len(order), step):
        yield from _picked(held if size <= HELD else batches, order[start : start + step])


def _picked(batches: Iterable[pa.RecordBatch], rows: Array) -> Iterator[pa.RecordBatch]:
    """The examples in these rows, in this order."""
    ascending = np.argsort(rows)
    positions = rows[ascending]
    found, begin = [], 0
    for batch in batches:
        first, last = np.searchsorted(positions, [begin, begin + batch.num_rows])
        if last > first:
            found.append(batch.take(pa.array(positions[first:last] - begin)))
        begin += batch.num_rows
        if last == len(positions):
            break
    together, places = pa.Table.from_batches(found).combine_chunks(), np.argsort(ascending)
    for start in range(0, len(rows), ROWS):
        yield from together.take(pa.array(places[start : start + ROWS])).combine_chunks().to_batches()
