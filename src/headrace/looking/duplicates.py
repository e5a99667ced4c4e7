"""Examples that occur more than once, found by a digest of 64 bits for what each of them holds.

A digest takes 8 bytes for each example, two of them (inputs and targets) 16, and as much again while they are sorted;
nothing else grows with the data. Two different examples among ten million share a digest by chance in one case of
400,000.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from headrace.ragged import Array, Ragged

FIRST = 5
"""Places that are named; the others are counted."""

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FACTORS = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


# ------------------------------------------------------------------------------------------------- digests


def mixed(numbers: Array) -> Array:
    """Numbers (uint64) spread evenly over all of 64 bits, each bit depending on every bit given (splitmix64)."""
    numbers = (numbers ^ (numbers >> np.uint64(30))) * _FACTORS[0]
    numbers = (numbers ^ (numbers >> np.uint64(27))) * _FACTORS[1]
    return numbers ^ (numbers >> np.uint64(31))


def digests(arrays: Mapping[str, Array | Ragged], rows: int) -> Array:
    """The digest of each example of a batch (rows,), uint64; equal for equal values of all these features.

    Args:
        arrays: Values of the features that count, `(rows, *shape)` or ragged.
        rows: Examples in the batch.
    """
    total = np.zeros(rows, np.uint64)
    for name, values in arrays.items():
        # Equal values of two features must not weigh the same.
        total += mixed(_digests(values) ^ np.uint64(zlib.crc32(name.encode())))
    return total


def _digests(values: Array | Ragged) -> Array:
    """The digest of each example of one feature."""
    if isinstance(values, Ragged):
        steps = _digests(values.values)
        first = np.repeat(values.splits[:-1], values.lengths)
        within = (np.arange(len(steps)) - first).astype(np.uint64)
        # Sums from the left end to each place: their differences are sums over examples, empty ones included.
        sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(mixed(steps + within * _GOLDEN), dtype=np.uint64)])
        return mixed(sums[values.splits[1:]] - sums[values.splits[:-1]] + values.lengths.astype(np.uint64))
    parts = words(values.reshape(len(values), math.prod(values.shape[1:])))
    places = np.arange(parts.shape[1], dtype=np.uint64) * _GOLDEN
    return mixed(parts + places).sum(axis=1, dtype=np.uint64)


def words(values: Array) -> Array:
    """Values (rows, size) as words of 64 bits (rows, fewer or as many), equal for equal values; of text its digests."""
    if values.dtype == object:
        known: dict[bytes, int] = {}
        for value in values.flat:
            if value not in known:
                known[value] = int.from_bytes(hashlib.blake2b(value, digest_size=8).digest(), "little")
        return np.array([known[value] for value in values.flat], np.uint64).reshape(values.shape)
    if values.dtype.kind == "f":
        # −0 equals 0, and one missing value another.
        values = np.where(np.isnan(values), np.float32(np.nan), values + np.float32(0)).astype(np.float32)
    width = values.shape[1] * values.itemsize
    padded = np.zeros((len(values), -(-width // 8) * 8), np.uint8)
    padded[:, :width] = np.ascontiguousarray(values).view(np.uint8).reshape(len(values), width)
    return padded.view(np.uint64)


# ------------------------------------------------------------------------------------------------- repeats


@dataclass(frozen=True)
class Repeats:
    """Examples that are there before."""

    count: int
    """Examples that repeat an earlier one."""
    share: float
    """Of all examples looked at."""
    first: tuple[tuple[int, int], ...]
    """The first of them with the example that each repeats: positions in their splits, counted from 0."""


def within(known: Array) -> Repeats:
    """Examples of a split that repeat an earlier one of the same split, given the digests in their order."""
    order = np.argsort(known, kind="stable")
    sorted_ = known[order]
    again = np.sort(order[1:][sorted_[1:] == sorted_[:-1]])
    originals = ((int(row), int(np.argmax(known == known[row]))) for row in again[:FIRST])
    return Repeats(len(again), len(again) / max(len(known), 1), tuple(originals))


def across(known: Array, new: Array) -> Repeats:
    """Examples of a new split whose digest is among the known ones of another."""
    rows = np.flatnonzero(np.isin(new, known))
    originals = ((int(row), int(np.argmax(known == new[row]))) for row in rows[:FIRST])
    return Repeats(len(rows), len(rows) / max(len(new), 1), tuple(originals))


@dataclass(frozen=True)
class Contradictions:
    """Examples with equal inputs and different targets: no model can be right about all of them."""

    count: int
    """Examples whose inputs occur with another target, too."""
    groups: int
    """Different inputs of that kind."""
    share: float
    first: tuple[tuple[tuple[str, int], tuple[str, int]], ...]
    """For the first groups two examples that contradict each other: split and position of each."""


def contradictions(inputs: Mapping[str, Array], targets: Mapping[str, Array]) -> Contradictions:
    """Look through all splits together, given the digests of inputs and of targets for each."""
    splits = list(inputs)
    ends = list(itertools.accumulate(len(inputs[split]) for split in splits))
    given, wanted = (np.concatenate([found[split] for split in splits]) for found in (inputs, targets))
    order = np.lexsort((wanted, given))
    given, wanted = given[order], wanted[order]
    same = given[1:] == given[:-1]
    differs = np.flatnonzero(same & (wanted[1:] != wanted[:-1]))
    # Each run of equal inputs by its number; those in which the target changes anywhere.
    runs = np.concatenate([np.zeros(1, np.int64), np.cumsum(~same)])[: len(given)]
    bad, places = np.unique(runs[differs], return_index=True)
    pairs = sorted(sorted((int(order[i]), int(order[i + 1]))) for i in differs[places])
    count = int(np.isin(runs, bad).sum())
    return Contradictions(
        count,
        len(bad),
        count / max(len(given), 1),
        tuple((_place(a, splits, ends), _place(b, splits, ends)) for a, b in pairs[:FIRST]),
    )


def _place(row: int, splits: Sequence[str], ends: Sequence[int]) -> tuple[str, int]:
    """Split and position of a row of all splits together."""
    which = next(i for i, end in enumerate(ends) if row < end)
    return splits[which], row - (ends[which - 1] if which else 0)
