"""Finished statistics: what is known of each feature of a split, as a value that is kept, compared and shown."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np

from headrace.describing.distributions import Array, Distribution, Series, number
from headrace.describing.tallies import Tally
from headrace.errors import DataError, StageFailed, nearest
from headrace.spec import Feature

if TYPE_CHECKING:
    from tensorflow_metadata.proto.v0 import statistics_pb2

VERSION = 2
"""Of the JSON form."""
POSITIONS = 256
"""Up to so many positions each has a distribution of its own."""


@dataclass(frozen=True, eq=False)
class FeatureStatistics:
    """The statistics of one feature.

    Numbers are described position by position: those of a vector each; of anything with more dimensions, those along
    the last one (the channels of an image, the columns of a series), where all others count together. A scalar, tokens
    and a ragged list of numbers have one position. The arrays have this shape: `(13,)` for 13 columns, `(3,)` for
    images of three channels, `()` for a scalar; they broadcast against the values.

    Strings have no arrays of numbers (these are empty), but tallies and measures.
    """

    kind: str
    """As `Feature.kind`."""
    dtype: str
    shape: tuple[int | None, ...]
    names: tuple[str, ...]
    """The positions' names, flattened: the columns', or `image[2]` for the third channel."""
    rows: int
    """Examples."""
    absent: int
    """Examples that lack the feature altogether (null)."""
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
    distributions: tuple[Distribution, ...] = ()
    """One for each position, or a single one for all of them where there are more than 256."""
    tallies: tuple[Tally, ...] = ()
    """How often single values occur, of strings, categories, tokens and masks: for each position if these are named
    columns, else for all of them together. Empty for plain numbers."""
    measures: Mapping[str, Series] = field(default_factory=dict)
    """Of every example: `length` (steps of a ragged feature); of every string: `characters` and `words`; of every image
    file: `width`, `height`, `channels` and `bytes`."""
    pixels: Mapping[str, Series] = field(default_factory=dict)
    """Of image files: `red`, `green` and `blue` (0 to 255) of a sample drawn by digests."""
    words: Tally | None = None
    """The words of texts, in lower case and without punctuation around them."""
    formats: Tally | None = None
    """Of image files: `JPEG`, `PNG` …"""
    examples: Tally | None = None
    """Of masks: in how many examples each class occurs."""
    empty: int = 0
    """Strings of no length."""
    broken: int = 0
    """Strings that are not UTF-8, or image files whose header can't be read."""

    @cached_property
    def scale(self) -> Array:
        """The standard deviation, but 1 where it is 0: safe to divide by."""
        return np.where(self.std > 0, self.std, 1.0)

    @property
    def missing_share(self) -> float:
        """Share of all values that are missing, 0 to 1."""
        missing = int(self.missing.sum())
        return missing / max(int(self.count.sum()) + missing, 1)

    def quantile(self, percent: int) -> Array:
        """The percentile at each position; of all positions together where these share one distribution."""
        found = np.array([distribution.quantile(percent) for distribution in self.distributions])
        return found.reshape(self.mean.shape) if found.size == self.mean.size else found.reshape(())

    @property
    def pooled(self) -> bool:
        """Whether all positions share one distribution because there are too many of them."""
        return self.mean.size > len(self.distributions) > 0

    @cached_property
    def series(self) -> dict[str, Series]:
        """The numbers, by the name of their position; empty for strings."""
        own = (None,) * self.mean.size if self.pooled else self.distributions
        columns = [getattr(self, name).ravel().tolist() for name in ARRAYS]
        return {
            name: Series(**dict(zip(ARRAYS, values, strict=True)), distribution=distribution)
            for name, distribution, *values in zip(self.names, own, *columns, strict=False)
        }

    @property
    def whole(self) -> Series:
        """The numbers of all positions together."""
        known = self.count > 0
        count, mean = self.count[known], self.mean[known]
        total = max(int(count.sum()), 1)
        middle = float((mean * count).sum()) / total
        squares = float(((self.std[known] ** 2 + (mean - middle) ** 2) * count).sum())
        some = bool(known.any())
        return Series(
            count=int(count.sum()),
            missing=int(self.missing.sum()),
            zeros=int(self.zeros.sum()),
            mean=middle if some else math.nan,
            std=math.sqrt(squares / total) if some else math.nan,
            minimum=float(self.minimum[known].min()) if some else math.nan,
            maximum=float(self.maximum[known].max()) if some else math.nan,
            distribution=self.distributions[0] if len(self.distributions) == 1 else None,
        )

    @property
    def tally(self) -> Tally | None:
        """How often single values occur where all positions count together; None for plain numbers."""
        return self.tallies[0] if len(self.tallies) == 1 else None

    @property
    def unique(self) -> int | None:
        """Distinct values of `tally`; None where there is none."""
        return self.tally.unique if self.tally else None

    @property
    def top(self) -> tuple[tuple[str, int], ...]:
        """The most frequent values of `tally` with their counts."""
        return self.tally.top if self.tally else ()

    @property
    def classes(self) -> dict[str, int]:
        """How often each declared class occurs, in the declared order; of a mask, in pixels."""
        return dict(self.tally.known) if self.tally else {}

    @property
    def lengths(self) -> Series | None:
        """Steps of the examples, where these differ in length."""
        return self.measures.get("length")

    def to_json(self) -> dict[str, Any]:
        """As a JSON value; `from_json` gives the same numbers to the last bit."""
        return {
            "kind": self.kind,
            "dtype": self.dtype,
            "shape": list(self.shape),
            "names": list(self.names),
            "rows": self.rows,
            "absent": self.absent,
            **{name: [number(value) for value in getattr(self, name).ravel().tolist()] for name in ARRAYS},
            "positions": list(self.mean.shape),
            "distributions": [distribution.to_json() for distribution in self.distributions],
            "tallies": [tally.to_json() for tally in self.tallies],
            **{name: {key: s.to_json() for key, s in getattr(self, name).items()} for name in _SERIES},
            **{name: tally.to_json() if (tally := getattr(self, name)) else None for name in _TALLIES},
            "empty": self.empty,
            "broken": self.broken,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """What `to_json` gave."""

        def array(name: str) -> Array:
            kind = np.int64 if name in _COUNTS else np.float64
            flat = np.array([math.nan if item is None else item for item in value[name]], kind)
            # Of strings, only the counts are there.
            return flat.reshape(value["positions"]) if flat.size == math.prod(value["positions"]) else flat

        held: dict[str, Any] = {
            **{name: value[name] for name in ("kind", "dtype", "rows", "absent", "empty", "broken")},
            **{name: tuple(value[name]) for name in ("shape", "names")},
            **{name: array(name) for name in ARRAYS},
            "distributions": tuple(map(Distribution.from_json, value["distributions"])),
            "tallies": tuple(map(Tally.from_json, value["tallies"])),
            **{name: {key: Series.from_json(s) for key, s in value[name].items()} for name in _SERIES},
            **{name: Tally.from_json(value[name]) if value[name] else None for name in _TALLIES},
        }
        return cls(**held)


_COUNTS = ("count", "missing", "zeros")
ARRAYS = (*_COUNTS, "mean", "std", "minimum", "maximum")
"""Names of the arrays, in the order of the fields of `Series`."""
_SERIES = ("measures", "pixels")
_TALLIES = ("words", "formats", "examples")


class Statistics(dict[str, FeatureStatistics]):
    """The statistics of a split: name of a feature → its statistics."""

    def __missing__(self, name: str) -> FeatureStatistics:
        raise StageFailed(f"There are no statistics of a feature `{name}`: {nearest(name, self)}")

    @property
    def rows(self) -> int:
        """Examples in the split."""
        return max((feature.rows for feature in self.values()), default=0)

    def to_json(self) -> dict[str, Any]:
        """As a JSON value; `from_json` gives the same numbers to the last bit."""
        features = {name: feature.to_json() for name, feature in self.items()}
        return {"version": VERSION, "rows": self.rows, "features": features}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """What `to_json` gave.

        Raises:
            DataError: It was written by another version.
        """
        if value.get("version") != VERSION:
            raise DataError(
                "These statistics were written by another version of Headrace.",
                expected=f"version {VERSION}",
                received=value.get("version", "no version"),
                remedy="run `preprocess` again",
            )
        return cls({name: FeatureStatistics.from_json(entry) for name, entry in value["features"].items()})

    def to_proto(self, split: str) -> statistics_pb2.DatasetFeatureStatisticsList:
        """In the form that TensorFlow's data tools read; each column of a vector is a feature of its own."""
        from headrace.describing.statistics_proto import proto

        return proto(self, split)


# ---------------------------------------------------------------------------------------------- comparison


class Aligned(NamedTuple):
    """One aspect of a feature in two splits, counted in the same places."""

    what: str
    """Name of a column, or of a measure: `length`, `words`, `formats` …"""
    numbers: bool
    """Whether the places follow each other as numbers do; else each is a value of its own."""
    places: tuple[str, ...] | Array
    """Values, the last one standing for all others; or upper ends, the first one standing for all below the minimum."""
    then: Array
    """How often each place occurs in the reference (int64), and …"""
    now: Array
    """… in the other split."""


def aligned(old: FeatureStatistics, new: FeatureStatistics) -> Iterator[Aligned]:
    """Every aspect of a feature in which two splits can be compared.

    Args:
        old: Statistics of the reference.
        new: Statistics of the other split, counted in the same places: `summarise(…, like=reference)`.
    """
    names = old.names if len(old.distributions) == len(old.names) else ("all positions",)
    for what, then, now in zip(names, old.distributions, new.distributions, strict=False):
        yield _numbers(what, then, now)
    names = old.names if len(old.tallies) == len(old.names) else ("values",)
    for what, one, other in zip(names, old.tallies, new.tallies, strict=False):
        # Of strings that are nearly all different, nothing is known that could occur again.
        if one.counts:
            yield _values(what, one, other)
    for what, series in old.measures.items():
        if series.distribution and (measured := new.measures[what].distribution):
            yield _numbers(what, series.distribution, measured)
    for what in _TALLIES:
        before, after = getattr(old, what), getattr(new, what)
        if before and after and before.counts:
            yield _values(what, before, after)


def _numbers(what: str, then: Distribution, now: Distribution) -> Aligned:
    # The places of the newer one are those of the older, and one below, perhaps one above (see `Cuts`).
    counts = np.zeros(len(now.edges), np.int64)
    counts[1 : len(then.counts) + 1] = then.counts
    return Aligned(what, True, now.edges, counts, now.counts)


def _values(what: str, then: Tally, now: Tally) -> Aligned:
    places = [value for value, _ in now.known]
    counts = [[tally.counts.get(value, 0) for value in places] for tally in (then, now)]
    old, new = (np.array([*c, t.total - sum(c)], np.int64) for c, t in zip(counts, (then, now), strict=True))
    return Aligned(what, False, (*places, "others"), old, new)


# --------------------------------------------------------------------------------------------------- names


def position_names(name: str, feature: Feature) -> tuple[str, ...]:
    """Names of all values of one example (of one step, where the length differs), flattened.

    They are the columns', or the feature's own name with the index: `series[3,temperature]`, `x[1]`.
    """
    if feature.columns and len(feature.shape) == 1:
        return tuple(column.name for column in feature.columns)
    shape = [length for length in feature.shape if length is not None]
    if not shape:
        return (name,)
    last = [column.name for column in feature.columns] or range(shape[-1])
    ways = np.ndindex(*shape[:-1])
    return tuple(f"{name}[{','.join(map(str, (*way, index)))}]" for way in ways for index in last)


def positions(feature: Feature) -> tuple[int, ...]:
    """The shape of a feature's statistics: that of the last dimension, or none (see `FeatureStatistics`)."""
    shape = feature.shape
    if not shape or shape[-1] is None or feature.kind == "tokens":
        return ()
    # An image of two dimensions has no channels.
    return () if feature.kind in ("image", "mask") and len(shape) == 2 else (shape[-1],)


def series_names(name: str, feature: Feature) -> tuple[str, ...]:
    """Names of the positions that `positions` counts: the columns', or the feature's own name with the index."""
    shape = positions(feature)
    if not shape:
        return (name,)
    if shape == (1,) and len(feature.shape) > 1 and not feature.columns:
        return (name,)
    return tuple(column.name for column in feature.columns) or tuple(f"{name}[{i}]" for i in range(shape[0]))
