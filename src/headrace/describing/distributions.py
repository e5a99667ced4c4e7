"""How numbers are distributed: counted by value in bounded memory, so that parts in any order add up to the whole."""

from __future__ import annotations

import bisect
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

Array = np.ndarray[Any, Any]

PERCENT = 100
"""A finished distribution is cut at the percentiles: fine enough for every coarser set of quantile buckets."""
STEPS = 48
"""… and at so many even steps from the smallest to the largest value, of which bars of histograms are made."""
FEW = 256
"""Up to so many distinct values are kept one by one: every value of a byte."""
BLOCK = 2**16
"""Bytes that are counted at once: their copies as whole words stay in the processor's cache."""


# ------------------------------------------------------------------------------------------------ finished


@dataclass(frozen=True, eq=False)
class Distribution:
    """How often values occur: `counts[i]` of them are > `edges[i-1]` and <= `edges[i]`.

    The edges are the distinct values if these are few (256), else the percentiles and the ends of even steps; the first
    is the minimum, the last the maximum. The counts are exact. A percentile is the value that has this rank, rounded up
    in its last digits where more distinct values occur than can be told apart (`Bins`): by 0.1 percent for a million
    normal numbers, and by 0.4 at most while they span no more than 18 orders of magnitude.
    """

    edges: Array
    counts: Array

    @property
    def total(self) -> int:
        """Values counted."""
        return int(self.counts.sum())

    def quantile(self, percent: int) -> float:
        """The smallest value that at least so many percent of the values do not exceed (NaN if there are none)."""
        if not self.total:
            return math.nan
        rank = -(-percent * self.total // PERCENT)
        return float(self.edges[np.searchsorted(np.cumsum(self.counts), max(rank, 1))])

    def up_to(self, value: float) -> int:
        """How many values do not exceed this one; exact where it is an edge, else rounded down to the next."""
        return int(self.counts[: np.searchsorted(self.edges, value, side="right")].sum())

    def bars(self, count: int = STEPS // 2) -> Array:
        """Values in each of so many intervals of equal width from the first edge to the last, int64.

        A value on the border of two counts in the lower one. Right to within one bin if `count` divides 48.
        """
        if not self.total:
            return np.zeros(count, np.int64)
        ends = np.linspace(self.edges[0], self.edges[-1], count + 1)[1:]
        ends[-1] = self.edges[-1]
        reached = np.concatenate([[0], np.cumsum(self.counts)])[np.searchsorted(self.edges, ends, side="right")]
        return np.diff(reached, prepend=0)

    def to_json(self) -> dict[str, Any]:
        """As a JSON value; `from_json` gives the same numbers to the last bit."""
        return {"edges": self.edges.tolist(), "counts": self.counts.tolist()}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """What `to_json` gave."""
        return cls(np.array(value["edges"], np.float64), np.array(value["counts"], np.int64))


@dataclass(frozen=True, eq=False)
class Series:
    """The statistics of one list of numbers: a column's values, or a measure of every example (a length, a width)."""

    count: int
    """Numbers that are there."""
    missing: int
    """Null, NaN or infinite."""
    zeros: int
    mean: float
    std: float
    """Population standard deviation, as `x.std()`. NaN, like the following, if nothing is there."""
    minimum: float
    maximum: float
    distribution: Distribution | None
    """None where a vector is too wide to have one for each of its positions."""

    @property
    def missing_share(self) -> float:
        """Share of the values that are missing, 0 to 1."""
        return self.missing / max(self.count + self.missing, 1)

    def quantile(self, percent: int) -> float:
        """As `Distribution.quantile`; NaN if there is no distribution."""
        return self.distribution.quantile(percent) if self.distribution else math.nan

    def to_json(self) -> dict[str, Any]:
        """As a JSON value; `from_json` gives the same numbers to the last bit."""
        return {
            **{name: getattr(self, name) for name in ("count", "missing", "zeros")},
            **{name: number(getattr(self, name)) for name in ("mean", "std", "minimum", "maximum")},
            "distribution": self.distribution.to_json() if self.distribution else None,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """What `to_json` gave."""
        held: dict[str, Any] = {name: math.nan if item is None else item for name, item in value.items()}
        held["distribution"] = Distribution.from_json(value["distribution"]) if value["distribution"] else None
        return cls(**held)


def number(value: float) -> float | None:
    """JSON has no NaN: where nothing was counted, there is no mean."""
    return None if math.isnan(value) else value


# ------------------------------------------------------------------------------------------------ counting


def ordered(values: Array) -> Array:
    """The finite values in ascending order."""
    # Sorting is the fastest way to count: it uses the processor's vectors, and what is not finite ends up at both ends.
    values = np.sort(values)
    if values.dtype.kind == "f":
        lowest, highest = values.dtype.type(-np.inf), values.dtype.type(np.inf)
        values = values[np.searchsorted(values, lowest, "right") : np.searchsorted(values, highest, "left")]
    return values


def distinct(values: Array) -> tuple[Array, Array]:
    """The finite values in ascending order, each once, and how often each occurs (int64)."""
    if values.dtype != np.uint8:
        return summed(ordered(values), None)
    counts = np.zeros(256, np.int64)
    for start in range(0, len(values), BLOCK):
        counts += np.bincount(values[start : start + BLOCK], minlength=256)
    found = np.flatnonzero(counts)
    return found, counts[found]


def summed(values: Array, counts: Array | None) -> tuple[Array, Array]:
    """Equal values once, with the sum of their counts; the values are in ascending order. Without counts, each is 1."""
    changes = np.flatnonzero(values[1:] != values[:-1]) + 1
    ends = np.append(changes, len(values))[: len(values)]
    reached = ends if counts is None else np.cumsum(counts)[ends - 1]
    return values[ends - 1], np.diff(reached, prepend=0)


class Bins:
    """Counts of values, exact until more than `most` distinct ones were met.

    Then the values are told apart by fewer leading bits, only as few as it takes. What is lost depends on the set of
    values alone, not on their order: merging parts in any order gives the same as counting the whole. Since the bits
    are those of floating-point numbers, it is the last digits of each value that are lost, however large it is.

    Args:
        dtype: `float32`; anything else is counted in double precision.
        most: Distinct values, or bins, 12 or 16 bytes each.
    """

    def __init__(self, dtype: str, most: int) -> None:
        self._single = dtype == "float32"
        self._most = most
        self._dropped = 0
        self._keys: Array = np.empty(0, np.int32 if self._single else np.int64)
        self._counts: Array = np.empty(0, np.int64)
        self._waiting: list[tuple[Array, Array]] = []

    def take(self, values: Array, counts: Array | None) -> None:
        """Count finite values, in ascending order, each so many times (or once)."""
        self._waiting.append(summed(self._to_keys(values) >> self._dropped, counts))
        if sum(len(waiting) for waiting, _ in self._waiting) > 2 * self._most:
            self._settle()

    def merge(self, other: Bins) -> None:
        """Count what another part has counted."""
        self._settle()
        other._settle()
        self._drop(other._dropped - self._dropped)
        self._waiting.append(summed(other._keys >> (self._dropped - other._dropped), other._counts))
        self._settle()

    def _settle(self) -> None:
        """Sort what waits into the bins; waiting saves going through them for each batch."""
        if not self._waiting:
            return
        keys, counts = map(np.concatenate, zip((self._keys, self._counts), *self._waiting, strict=True))
        self._waiting = []
        # Of lists in order that follow each other, a stable sort only merges the one into the other.
        order = np.argsort(keys, kind="stable")
        self._keys, self._counts = summed(keys[order], counts[order])
        if len(self._keys) > self._most:
            self._drop(bisect.bisect_left(range(self._bits), True, key=self._fits))

    def _fits(self, bits: int) -> bool:
        keys = self._keys >> bits
        return bool(np.count_nonzero(keys[1:] != keys[:-1]) < self._most)

    def _drop(self, bits: int) -> None:
        if bits > 0:
            self._dropped += bits
            self._keys, self._counts = summed(self._keys >> bits, self._counts)

    @property
    def _bits(self) -> int:
        return 8 * self._keys.itemsize

    def _to_keys(self, values: Array) -> Array:
        """Whole numbers in the order of the values, made of their bits: leading bits are leading digits."""
        floats = values.astype(np.float32 if self._single else np.float64) + 0  # −0 + 0 is 0
        return self._swapped(floats.view(self._keys.dtype))

    def _to_values(self, keys: Array) -> Array:
        """The values (float64) that have these keys."""
        return self._swapped(keys).view(np.float32 if self._single else np.float64).astype(np.float64)

    def _swapped(self, bits: Array) -> Array:
        """Bits of numbers below 0 the other way round, since these have the largest bits where they are farthest."""
        return bits ^ ((bits >> (self._bits - 1)) & np.iinfo(bits.dtype).max)

    def _ends(self, keys: Array, maximum: float) -> Array:
        """The upper ends of these bins: what lies in them does not exceed these values."""
        last = ((keys.astype(np.int64) + 1) << self._dropped) - 1
        # The bits before those of 0 are of −0, which nothing has: bins below 0 end with the largest number below 0.
        last[last == -1] = -2
        # The end of the last bin may lie beyond the largest number there is, which `fmin` passes over.
        return np.fmin(self._to_values(last.astype(self._keys.dtype)), maximum)

    def distribution(self, minimum: float, least: int, maximum: float) -> Distribution:
        """The distribution of what was counted.

        Args:
            minimum: The smallest value.
            least: How often it occurs.
            maximum: The largest value.
        """
        self._settle()
        if not len(self._keys):
            return Distribution(np.empty(0), np.empty(0, np.int64))
        ends, reached = self._ends(self._keys, maximum), np.cumsum(self._counts)
        if len(ends) > FEW:
            ranks = np.maximum(-(-np.arange(PERCENT + 1) * reached[-1] // PERCENT), 1)
            at = np.searchsorted(reached, ranks)
            steps, counted = self._steps(minimum, maximum, reached)
            ends, reached = np.concatenate([ends[at], steps]), np.concatenate([reached[at], counted])
        edges, first = np.unique(np.append(minimum, ends), return_index=True)
        return Distribution(edges, np.diff(np.append(least, reached)[first], prepend=0))

    def _steps(self, minimum: float, maximum: float, reached: Array) -> tuple[Array, Array]:
        """Ends of bins closest below even steps from the minimum to the maximum, and how many values are up to each."""
        steps = np.linspace(minimum, maximum, STEPS + 1)[1:-1]
        keys = self._to_keys(steps)
        # Rounding to single precision must not carry a step beyond itself.
        keys = np.where(self._to_values(keys) > steps, keys - 1, keys)
        bins = ((keys.astype(np.int64) + 1) >> self._dropped) - 1
        places = np.searchsorted(self._keys, bins, side="right")
        inside = places > 0
        return self._ends(bins[inside], maximum), reached[places[inside] - 1]


class Cuts:
    """Exact counts of values between edges that are given: those of another split, so that the two compare."""

    def __init__(self, like: Distribution) -> None:
        # Values below the smallest known one are told apart from it; those above the largest have a place at the end.
        self._edges = np.concatenate([np.nextafter(like.edges[:1], -np.inf), like.edges])
        self._counts: Array = np.zeros(len(self._edges) + 1, np.int64)

    def take(self, values: Array, counts: Array | None) -> None:
        """Count finite values, in ascending order, each so many times (or once)."""
        places = np.searchsorted(values, self._edges, side="right")
        reached = places if counts is None else np.concatenate([[0], np.cumsum(counts)])[places]
        total = len(values) if counts is None else counts.sum()
        self._counts += np.diff(reached, prepend=0, append=total)

    def merge(self, other: Cuts) -> None:
        """Count what another part has counted."""
        self._counts += other._counts

    def distribution(self, minimum: float, least: int, maximum: float) -> Distribution:
        """The counts; what exceeds all edges is counted up to `maximum`, the largest value."""
        if not self._counts[-1]:
            return Distribution(self._edges, self._counts[:-1])
        return Distribution(np.append(self._edges, maximum), self._counts)


class Column:
    """What is known so far of one list of numbers.

    Args:
        dtype: As of `Bins`.
        most: As of `Bins`.
        like: A distribution between whose edges values are counted, instead of by their own.
    """

    def __init__(self, dtype: str, most: int, like: Distribution | None = None) -> None:
        self._bins: Bins | Cuts = Cuts(like) if like else Bins(dtype, most)
        self._count = self._missing = self._zeros = self._least = 0
        self._mean = self._squares = 0.0
        self._minimum, self._maximum = math.inf, -math.inf

    def add(self, values: Array) -> None:
        """Take in the next values (1-D, numbers of any type)."""
        if values.dtype == np.uint8:
            self.take(*distinct(values))
        else:
            finite = ordered(values)
            self.take(finite, None, missing=len(values) - len(finite))

    def take(self, values: Array, counts: Array | None, missing: int = 0) -> None:
        """Take in finite values, in ascending order, each so many times (or once); and so many that are missing."""
        self._missing += missing
        if not len(values):
            return
        if values.dtype != np.float32:
            values = values.astype(np.float64)
        # Searched in their own type, lest all of them be converted.
        least = slice(0, np.searchsorted(values, values[0], side="right"))
        zero = values.dtype.type(0)
        zeros = slice(np.searchsorted(values, zero), np.searchsorted(values, zero, side="right"))
        exact = values.astype(np.float64)
        if counts is None:
            count, mean = len(values), float(exact.mean())
        else:
            count, mean = int(counts.sum()), float((exact * counts).sum() / counts.sum())
        exact -= mean
        np.square(exact, out=exact)
        squares = float((exact if counts is None else exact * counts).sum())

        def within(part: slice) -> int:
            return int(part.stop - part.start if counts is None else counts[part].sum())

        self._zeros += within(zeros)
        self._moments(count, mean, squares)
        self._reach(float(values[0]), within(least), float(values[-1]))
        self._bins.take(values, counts)

    def merge(self, other: Column) -> None:
        """Take in what another part, begun alike, has taken in."""
        self._missing += other._missing
        self._zeros += other._zeros
        self._moments(other._count, other._mean, other._squares)
        self._reach(other._minimum, other._least, other._maximum)
        self._bins.merge(other._bins)  # type: ignore[arg-type]  # both parts were begun alike

    def _moments(self, count: int, mean: float, squares: float) -> None:
        """Take in the moments of another part (Chan, Golub and LeVeque, 1979)."""
        total = self._count + count
        share = count / max(total, 1)
        apart = mean - self._mean
        self._squares += squares + apart**2 * self._count * share
        self._mean += apart * share
        self._count = total

    def _reach(self, minimum: float, least: int, maximum: float) -> None:
        if minimum < self._minimum:
            self._minimum, self._least = minimum, least
        elif minimum == self._minimum:
            self._least += least
        self._maximum = max(self._maximum, maximum)

    def finish(self) -> Series:
        """The statistics of all that was taken in."""
        known = self._count > 0
        # A column that never changes has a deviation of 0, not of what rounding left of it.
        std = math.sqrt(self._squares / self._count) if self._minimum < self._maximum else 0.0
        return Series(
            count=self._count,
            missing=self._missing,
            zeros=self._zeros,
            mean=self._mean if known else math.nan,
            std=std if known else math.nan,
            minimum=self._minimum if known else math.nan,
            maximum=self._maximum if known else math.nan,
            distribution=self._bins.distribution(self._minimum, self._least, self._maximum),
        )
