"""What a split looks like in numbers: one streaming pass over Arrow batches, mergeable over parts of the data."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pyarrow as pa

from headrace.errors import StageFailed, nearest
from headrace.spec import Feature
from headrace.tables import to_arrays

if TYPE_CHECKING:
    from tensorflow_metadata.proto.v0 import statistics_pb2

Array = np.ndarray[Any, Any]

PERCENT = 100
"""A finished distribution is cut at the percentiles: fine enough for every coarser set of quantile buckets."""
MOST_BINS = 2**18
"""Values that are told apart while they are counted, over all positions of a feature together (a few megabytes)."""
LEAST_BINS = 2**10
"""… and at one position, however many positions there are."""
TOP = 20
"""The most frequent strings that are kept."""
DISTINCT = 2**14
"""Up to so many distinct strings the counts of strings are exact; beyond it they are estimated."""


# ------------------------------------------------------------------------------------------------ finished


@dataclass(frozen=True)
class Distribution:
    """How often values occur at one position: `counts[i]` of them are > `edges[i-1]` and <= `edges[i]`.

    The edges are the distinct values if these are few, and the percentiles otherwise; the first is the minimum, the
    last the maximum. The counts are exact.
    """

    edges: Array
    counts: Array

    @property
    def total(self) -> int:
        """Values counted."""
        return int(self.counts.sum())

    def quantile(self, percent: int) -> float:
        """The smallest value that at least so many percent of the values do not exceed (NaN if there are none).

        Exact for the distributions that `summarise` cuts itself.
        """
        if not self.total:
            return math.nan
        rank = -(-percent * self.total // PERCENT)
        return float(self.edges[np.searchsorted(np.cumsum(self.counts), max(rank, 1))])

    def up_to(self, value: float) -> int:
        """How many values do not exceed this one; exact where it is an edge, else rounded down to the next."""
        return int(self.counts[: np.searchsorted(self.edges, value, side="right")].sum())


@dataclass(frozen=True, eq=False)
class FeatureStatistics:
    """The statistics of one feature. Arrays have the shape of the feature: one number for each position.

    For strings there are `count`, `missing`, `unique` and `top`; the arrays of numbers are empty.
    """

    dtype: str
    shape: tuple[int, ...]
    names: tuple[str, ...]
    """The positions' names, flattened: the columns', or `image[0,3]`."""
    count: Array
    """Values that are there (int64)."""
    missing: Array
    """Values that are null, NaN or infinite (int64)."""
    zeros: Array
    """Values that are 0 (int64)."""
    mean: Array
    """In float64, as are the following."""
    std: Array
    """Population standard deviation, as `x.std(axis=0)`."""
    minimum: Array
    maximum: Array
    distributions: tuple[Distribution, ...]
    """One for each position, flattened."""
    unique: int | None = None
    """Distinct strings: exact up to some thousands, estimated beyond."""
    top: tuple[tuple[str, int], ...] = ()
    """The most frequent strings with their counts."""

    @cached_property
    def scale(self) -> Array:
        """The standard deviation, but 1 where it is 0: safe to divide by."""
        return np.where(self.std > 0, self.std, 1.0)

    @property
    def rows(self) -> int:
        """Examples."""
        values = int((self.count + self.missing).max(initial=0))
        # Strings are counted over all positions together.
        return values // max(math.prod(self.shape), 1) if self.dtype == "string" else values

    def quantile(self, percent: int) -> Array:
        """The percentile at each position."""
        return np.array([d.quantile(percent) for d in self.distributions]).reshape(self.mean.shape)

    def to_json(self) -> dict[str, Any]:
        """As a JSON value; `from_json` gives the same numbers to the last bit."""
        return {
            "dtype": self.dtype,
            "shape": list(self.shape),
            "names": list(self.names),
            **{name: [_number(value) for value in getattr(self, name).ravel().tolist()] for name in _ARRAYS},
            "distributions": [{"edges": d.edges.tolist(), "counts": d.counts.tolist()} for d in self.distributions],
            "unique": self.unique,
            "top": [list(pair) for pair in self.top],
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """What `to_json` gave."""
        shape = tuple(value["shape"])

        def array(name: str) -> Array:
            kind = np.int64 if name in _COUNTS else np.float64
            flat = np.array([math.nan if item is None else item for item in value[name]], kind)
            return flat if value["dtype"] == "string" else flat.reshape(shape)

        return cls(
            dtype=value["dtype"],
            shape=shape,
            names=tuple(value["names"]),
            **{name: array(name) for name in _ARRAYS},
            distributions=tuple(
                Distribution(np.array(d["edges"], np.float64), np.array(d["counts"], np.int64))
                for d in value["distributions"]
            ),
            unique=value["unique"],
            top=tuple((text, count) for text, count in value["top"]),
        )


_COUNTS = ("count", "missing", "zeros")
_ARRAYS = (*_COUNTS, "mean", "std", "minimum", "maximum")


def _number(value: float) -> float | None:
    """JSON has no NaN: where nothing was counted, there is no mean."""
    return None if math.isnan(value) else value


class Statistics(dict[str, FeatureStatistics]):
    """The statistics of a split: name of a feature → its statistics."""

    def __missing__(self, name: str) -> FeatureStatistics:
        raise StageFailed(f"There are no statistics of a feature `{name}`: {nearest(name, self)}")

    @property
    def rows(self) -> int:
        """Examples in the split."""
        return max((f.rows for f in self.values()), default=0)

    def to_json(self) -> dict[str, Any]:
        """As a JSON value; `from_json` gives the same numbers to the last bit."""
        return {name: feature.to_json() for name, feature in self.items()}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """What `to_json` gave."""
        return cls({name: FeatureStatistics.from_json(entry) for name, entry in value.items()})

    def to_proto(self, split: str) -> statistics_pb2.DatasetFeatureStatisticsList:
        """In the form that TensorFlow's data tools read; each column of a vector is a feature of its own."""
        from tensorflow_metadata.proto.v0 import statistics_pb2 as pb

        proto = pb.DatasetFeatureStatisticsList()
        part = proto.datasets.add(name=split, num_examples=self.rows)
        for name, feature in self.items():
            for position, label in enumerate(feature.names):
                entry = part.features.add(type=getattr(pb.FeatureNameStatistics, _PROTO_TYPES[feature.dtype]))
                entry.path.step.extend([name] if label == name else [name, label])
                text = feature.dtype == "string"
                common = (entry.string_stats if text else entry.num_stats).common_stats
                common.num_non_missing = int(feature.count.flat[position])
                common.num_missing = int(feature.missing.flat[position])
                common.min_num_values = common.max_num_values = 1
                common.avg_num_values = 1.0
                if text:
                    entry.string_stats.unique = feature.unique or 0
                    for string, count in feature.top:
                        entry.string_stats.top_values.add(value=string, frequency=count)
                else:
                    _numbers_to_proto(feature, position, entry.num_stats)
        return proto


_PROTO_TYPES = {"float32": "FLOAT", "int64": "INT", "string": "STRING"}


def _numbers_to_proto(feature: FeatureStatistics, position: int, proto: Any) -> None:
    distribution = feature.distributions[position]
    proto.mean, proto.std_dev = feature.mean.flat[position], feature.std.flat[position]
    proto.min, proto.max = feature.minimum.flat[position], feature.maximum.flat[position]
    proto.median, proto.num_zeros = distribution.quantile(50), int(feature.zeros.flat[position])
    deciles = proto.histograms.add(type="QUANTILES")
    cuts = [distribution.quantile(percent) for percent in range(0, PERCENT + 1, 10)]
    for low, high in itertools.pairwise(cuts):
        deciles.buckets.add(low_value=low, high_value=high, sample_count=distribution.total / 10)


# ------------------------------------------------------------------------------------------------ counting


class _Bins:
    """Counts of values at one position, exact until more than `most` distinct values were met.

    Then the values are told apart by fewer leading bits, only as few as it takes. What is lost depends on the set of
    values alone, not on their order: merging parts in any order gives the same as counting the whole.
    """

    def __init__(self, dtype: str, most: int) -> None:
        self._dtype = dtype
        self._most = most
        self._dropped = 0
        self._keys: Array = np.empty(0, np.int64)
        self._counts: Array = np.empty(0, np.int64)
        self._waiting: list[Array] = []

    def add(self, values: Array) -> None:
        """Count values of one batch."""
        self._waiting.append(_to_keys(values))
        if sum(map(len, self._waiting)) >= self._most:
            self._settle()

    def merge(self, other: _Bins) -> None:
        """Count what another part has counted."""
        other._settle()
        self._settle()
        self._drop(other._dropped - self._dropped)
        keys = other._keys >> max(self._dropped - other._dropped, 0)
        self._combine(keys, other._counts)

    def _settle(self) -> None:
        """Sort what waits into the bins; waiting saves sorting once for each batch."""
        if self._waiting:
            keys, counts = np.unique(np.concatenate(self._waiting) >> self._dropped, return_counts=True)
            self._waiting = []
            self._combine(keys, counts)

    def _combine(self, keys: Array, counts: Array) -> None:
        self._keys, self._counts = _aggregated(
            np.concatenate([self._keys, keys]), np.concatenate([self._counts, counts])
        )
        while len(self._keys) > self._most:
            self._drop(1)

    def _drop(self, bits: int) -> None:
        if bits > 0:
            self._dropped += bits
            self._keys, self._counts = _aggregated(self._keys >> bits, self._counts)

    def distribution(self, maximum: float) -> Distribution:
        """The percentiles, or the distinct values if these are fewer; `maximum` is the largest value."""
        self._settle()
        counts = self._counts.astype(np.int64)
        # The upper end of a bin: what lies in it does not exceed this value.
        ends = np.minimum(_from_keys(((self._keys + 1) << self._dropped) - 1, self._dtype), maximum)
        if len(ends) <= PERCENT + 1:
            return Distribution(ends, counts)
        reached = np.cumsum(counts)
        ranks = np.maximum(-(-np.arange(PERCENT + 1) * reached[-1] // PERCENT), 1)
        at = np.unique(np.searchsorted(reached, ranks))
        return Distribution(ends[at], np.diff(reached[at], prepend=0))


class _Cuts:
    """Exact counts of values between edges that are given: those of another split, so that the two compare."""

    def __init__(self, like: Distribution) -> None:
        # Values below the smallest known one are told apart from it; those above the largest have a place at the end.
        self._edges = np.concatenate([np.nextafter(like.edges[:1], -np.inf), like.edges])
        self._counts: Array = np.zeros(len(self._edges) + 1, np.int64)

    def add(self, values: Array) -> None:
        """Count values of one batch."""
        places = np.searchsorted(self._edges, values.astype(np.float64))
        self._counts += np.bincount(places, minlength=len(self._counts))

    def merge(self, other: _Cuts) -> None:
        """Count what another part has counted."""
        self._counts += other._counts

    def distribution(self, maximum: float) -> Distribution:
        """The counts; what exceeds all edges is counted up to `maximum`, the largest value."""
        if not self._counts[-1]:
            return Distribution(self._edges, self._counts[:-1])
        return Distribution(np.append(self._edges, maximum), self._counts)


def _aggregated(keys: Array, counts: Array) -> tuple[Array, Array]:
    """Equal keys once, in ascending order, with the sum of their counts."""
    unique, where = np.unique(keys, return_inverse=True)
    return unique, np.bincount(where, weights=counts, minlength=len(unique)).astype(np.int64)


_SIGN = np.int64(0x7FFFFFFF)


def _to_keys(values: Array) -> Array:
    """Whole numbers in the order of the values. Those of float32 are their bits: leading bits are leading digits."""
    if values.dtype == np.int64:
        return values
    bits = (values.astype(np.float32) + np.float32(0)).view(np.int32).astype(np.int64)  # −0 + 0 is 0
    return np.where(bits < 0, bits ^ _SIGN, bits)


def _from_keys(keys: Array, dtype: str) -> Array:
    """The values (float64) that have these keys."""
    if dtype == "int64":
        return keys.astype(np.float64)
    return np.where(keys < 0, keys ^ _SIGN, keys).astype(np.int32).view(np.float32).astype(np.float64)


class _Numbers:
    """What is known so far of a numeric feature."""

    def __init__(self, name: str, feature: Feature, like: FeatureStatistics | None) -> None:
        self._name, self._feature = name, feature
        size = feature.size
        most = max(MOST_BINS // max(size, 1), LEAST_BINS)
        self._bins: list[_Bins | _Cuts] = (
            [_Cuts(d) for d in like.distributions] if like else [_Bins(feature.dtype, most) for _ in range(size)]
        )
        self._count, self._missing, self._zeros = (np.zeros(size, np.int64) for _ in range(3))
        self._mean, self._squares = np.zeros(size), np.zeros(size)
        self._minimum, self._maximum = np.full(size, np.inf), np.full(size, -np.inf)

    def add(self, column: pa.Array) -> None:
        # Positions first, so that each one's values lie side by side: numpy then sums them pairwise, which is exact
        # to the last digits also for long columns.
        rows = to_arrays(pa.RecordBatch.from_arrays([column], [self._name]), {self._name: self._feature})[self._name]
        values = np.ascontiguousarray(rows.reshape(len(rows), -1).T)
        exact = values.astype(np.float64)
        there = np.isfinite(exact)
        count = there.sum(axis=1)
        whole = bool(there.all())
        with np.errstate(invalid="ignore"):
            mean = np.where(there, exact, 0).sum(axis=1) / np.maximum(count, 1)
            squares = (np.where(there, exact - mean[:, None], 0) ** 2).sum(axis=1)
        self._moments(count, mean, squares)
        self._missing += len(rows) - count
        self._zeros += (exact == 0).sum(axis=1)
        self._minimum = np.minimum(self._minimum, exact.min(axis=1, initial=np.inf, where=there))
        self._maximum = np.maximum(self._maximum, exact.max(axis=1, initial=-np.inf, where=there))
        for position, bins in enumerate(self._bins):
            bins.add(values[position] if whole else values[position][there[position]])

    def merge(self, other: _Numbers) -> None:
        self._moments(other._count, other._mean, other._squares)
        self._missing += other._missing
        self._zeros += other._zeros
        self._minimum = np.minimum(self._minimum, other._minimum)
        self._maximum = np.maximum(self._maximum, other._maximum)
        for mine, theirs in zip(self._bins, other._bins, strict=True):
            mine.merge(theirs)  # type: ignore[arg-type]  # both parts were begun alike

    def _moments(self, count: Array, mean: Array, squares: Array) -> None:
        """Take in the moments of another part (Chan, Golub and LeVeque, 1979)."""
        total = self._count + count
        share = count / np.maximum(total, 1)
        apart = mean - self._mean
        self._squares = self._squares + squares + apart**2 * self._count * share
        self._mean = self._mean + apart * share
        self._count = total

    def finish(self) -> FeatureStatistics:
        shape = self._feature.shape
        known = self._count > 0

        def shaped(values: Array) -> Array:
            return (values if values.dtype == np.int64 else np.where(known, values, np.nan)).reshape(shape)

        return FeatureStatistics(
            dtype=self._feature.dtype,
            shape=shape,
            names=position_names(self._name, self._feature),
            count=shaped(self._count),
            missing=shaped(self._missing),
            zeros=shaped(self._zeros),
            mean=shaped(self._mean),
            # A column that never changes has a deviation of 0, not of what rounding left of it.
            std=shaped(np.where(self._minimum < self._maximum, np.sqrt(self._squares / np.maximum(self._count, 1)), 0)),
            minimum=shaped(self._minimum),
            maximum=shaped(self._maximum),
            distributions=tuple(
                bins.distribution(float(most)) for bins, most in zip(self._bins, self._maximum, strict=True)
            ),
        )


class _Strings:
    """What is known so far of a feature of strings; all positions count together."""

    def __init__(self, name: str, feature: Feature) -> None:
        from tfx_bsl.sketches import KmvSketch, MisraGriesSketch

        self._name, self._feature = name, feature
        self._count = self._missing = 0
        self._distinct = KmvSketch(DISTINCT)
        self._frequent = MisraGriesSketch(DISTINCT)

    def add(self, column: pa.Array) -> None:
        values = column.flatten() if pa.types.is_fixed_size_list(column.type) else column
        self._count += len(values) - values.null_count
        self._missing += values.null_count
        present = values.drop_null().cast(pa.large_binary())
        self._distinct.AddValues(present)
        self._frequent.AddValues(present)

    def merge(self, other: _Strings) -> None:
        self._count += other._count
        self._missing += other._missing
        self._distinct.Merge(other._distinct)
        self._frequent.Merge(other._frequent)

    def finish(self) -> FeatureStatistics:
        none: Array = np.empty(0)
        found = self._frequent.Estimate()
        pairs = zip(found.field(0).to_pylist(), found.field(1).to_pylist(), strict=True)
        top = sorted(((value.decode(errors="replace"), int(count)) for value, count in pairs), key=_most_frequent_first)
        return FeatureStatistics(
            dtype="string",
            shape=self._feature.shape,
            names=(self._name,),
            count=np.array([self._count]),
            missing=np.array([self._missing]),
            zeros=none.astype(np.int64),
            mean=none,
            std=none,
            minimum=none,
            maximum=none,
            distributions=(),
            unique=int(self._distinct.Estimate()),
            top=tuple(top[:TOP]),
        )


def _most_frequent_first(pair: tuple[str, int]) -> tuple[int, str]:
    return -pair[1], pair[0]


def position_names(name: str, feature: Feature) -> tuple[str, ...]:
    """Names of the positions of a feature: its columns', or the feature's own name with the index."""
    if feature.columns:
        return tuple(column.name for column in feature.columns)
    if not feature.shape:
        return (name,)
    return tuple(f"{name}[{','.join(map(str, index))}]" for index in np.ndindex(*feature.shape))


class Summary:
    """What is known so far of a split. Parts that were summarised apart merge into what the whole would have given.

    Counts, extremes and distributions are equal whatever the parts; means and standard deviations to rounding. It can
    be pickled, so that parts can be summarised elsewhere.

    Args:
        features: The features to summarise; other columns of a batch are passed over.
        like: Statistics of a reference split: values are then counted between its edges, so that the two distributions
            compare exactly.
    """

    def __init__(self, features: Mapping[str, Feature], like: Statistics | None = None) -> None:
        self._parts: dict[str, _Numbers | _Strings] = {
            name: _Strings(name, feature)
            if feature.dtype == "string"
            else _Numbers(name, feature, like[name] if like else None)
            for name, feature in features.items()
        }

    def add(self, batch: pa.RecordBatch) -> None:
        """Take in a batch."""
        if batch.num_rows:
            for name, part in self._parts.items():
                part.add(batch.column(name))

    def merge(self, other: Summary) -> None:
        """Take in another part of the same split, begun with the same features."""
        for name, part in self._parts.items():
            part.merge(other._parts[name])  # type: ignore[arg-type]  # both parts were begun alike

    def finish(self) -> Statistics:
        """The statistics of all that was taken in."""
        return Statistics({name: part.finish() for name, part in self._parts.items()})


def summarise(
    batches: Iterable[pa.RecordBatch], features: Mapping[str, Feature], like: Statistics | None = None
) -> Statistics:
    """The statistics of a split, in one pass and flat memory; arguments as for `Summary`."""
    summary = Summary(features, like)
    for batch in batches:
        summary.add(batch)
    return summary.finish()
