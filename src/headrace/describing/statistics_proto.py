"""Statistics in the form of TensorFlow's data tools (`tensorflow_metadata.proto.v0.statistics_pb2`)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.describing.described import FeatureStatistics, Statistics
from headrace.describing.distributions import PERCENT, Distribution
from headrace.describing.tallies import Tally

if TYPE_CHECKING:
    from tensorflow_metadata.proto.v0 import statistics_pb2

BUCKETS = 10
"""Buckets of equal counts; these are also those of the numbers of values."""
BARS = 24
"""Buckets of equal width."""
_TYPES = {"float32": "FLOAT", "int64": "INT", "uint8": "INT", "string": "STRING"}


def proto(statistics: Statistics, split: str) -> statistics_pb2.DatasetFeatureStatisticsList:
    """The statistics of a split as a protocol buffer.

    Each position of a vector is a feature of its own, at the path (feature, position), as are channels and columns of
    anything with more dimensions. Numbers and image files have `num_stats` and `bytes_stats`; strings, categories and
    tokens `string_stats`, with the names of classes. What the form has no place for are `custom_stats`: measures of
    strings and image files, words, formats, and in how many examples each class of a mask occurs.

    Args:
        statistics: Of the split.
        split: Its name.
    """
    from tensorflow_metadata.proto.v0 import statistics_pb2 as pb

    found = pb.DatasetFeatureStatisticsList()
    part = found.datasets.add(name=split, num_examples=statistics.rows)
    for name, feature in statistics.items():
        labels = _labels(name, feature)
        for position, label in enumerate(labels):
            kind = "BYTES" if feature.formats else _TYPES[feature.dtype]
            entry = part.features.add(type=getattr(pb.FeatureNameStatistics, kind))
            entry.path.step.extend([name] if label == name else [name, label])
            if feature.formats:
                common = _bytes(feature, entry.bytes_stats)
            elif feature.tallies:
                common = _values(feature, position, entry.string_stats)
            else:
                common = _numbers(feature, position, entry.num_stats)
            _count(feature, position, len(labels), common)
            if len(labels) == 1:
                _customise(feature, entry.custom_stats)
    return found


def _labels(name: str, feature: FeatureStatistics) -> tuple[str, ...]:
    """Names of the positions that are told apart."""
    told = len(feature.tallies or feature.distributions)
    return feature.names if told == len(feature.names) else (name,)


def _count(feature: FeatureStatistics, position: int, told: int, common: Any) -> None:
    """Fill in how many examples have values, and how many values they have."""
    each = math.prod(length for length in feature.shape if length is not None) // told
    if each == 1 and not feature.lengths:
        present, absent = int(feature.count.flat[position]), int(feature.missing.flat[position])
    else:
        present, absent = feature.rows - feature.absent, feature.absent
    common.num_non_missing, common.num_missing = present, absent
    steps = feature.lengths
    if not present:
        return
    least, mean, most = (steps.minimum, steps.mean, steps.maximum) if steps else (1, 1.0, 1)
    common.min_num_values, common.max_num_values = round(least * each), round(most * each)
    common.avg_num_values, common.tot_num_values = mean * each, round(mean * each * present)
    cuts = [(steps.quantile(percent) if steps else 1) * each for percent in _PERCENTS]
    _quantiles(cuts, present, common.num_values_histogram)


def _numbers(feature: FeatureStatistics, position: int, stats: Any) -> Any:
    series = feature.whole if feature.pooled else list(feature.series.values())[position]
    distribution = feature.distributions[position]
    stats.num_zeros = series.zeros
    if series.count:
        stats.mean, stats.std_dev = series.mean, series.std
        stats.min, stats.max = series.minimum, series.maximum
        stats.median = distribution.quantile(50)
    if distribution.total:
        _quantiles(
            [distribution.quantile(percent) for percent in _PERCENTS], distribution.total, stats.histograms.add()
        )
        _bars(distribution, stats.histograms.add())
    return stats.common_stats


def _values(feature: FeatureStatistics, position: int, stats: Any) -> Any:
    tally = feature.tallies[position]
    stats.unique, stats.invalid_utf8_count = tally.unique, feature.broken
    for value, count in tally.top:
        stats.top_values.add(value=value, frequency=count)
    _ranks(tally, stats.rank_histogram)
    lengths = feature.measures.get("characters")
    if lengths and lengths.count and len(feature.tallies) == 1:
        stats.avg_length = lengths.mean
    return stats.common_stats


def _bytes(feature: FeatureStatistics, stats: Any) -> Any:
    sizes = feature.measures["bytes"]
    stats.unique = feature.tallies[0].unique
    if sizes.count:
        stats.avg_num_bytes, stats.min_num_bytes, stats.max_num_bytes = sizes.mean, sizes.minimum, sizes.maximum
        stats.max_num_bytes_int = int(sizes.maximum)
    return stats.common_stats


def _customise(feature: FeatureStatistics, stats: Any) -> None:
    """Fill in what the form has no fields for."""
    for name, series in (*feature.measures.items(), *feature.pixels.items()):
        if series.distribution and series.distribution.total:
            _bars(series.distribution, stats.add(name=name).histogram)
    for name in ("words", "formats", "examples"):
        tally = getattr(feature, name)
        if tally:
            _ranks(tally, stats.add(name=name).rank_histogram)


_PERCENTS = range(0, PERCENT + 1, PERCENT // BUCKETS)


def _quantiles(cuts: Sequence[float], total: int, histogram: Any) -> None:
    histogram.type = histogram.QUANTILES
    for low, high in itertools.pairwise(cuts):
        histogram.buckets.add(low_value=low, high_value=high, sample_count=total / BUCKETS)


def _bars(distribution: Distribution, histogram: Any) -> None:
    histogram.type = histogram.STANDARD
    borders = np.linspace(distribution.edges[0], distribution.edges[-1], BARS + 1).tolist()
    for (low, high), count in zip(itertools.pairwise(borders), distribution.bars(BARS).tolist(), strict=True):
        histogram.buckets.add(low_value=low, high_value=high, sample_count=count)


def _ranks(tally: Tally, histogram: Any) -> None:
    for rank, (value, count) in enumerate(tally.top):
        histogram.buckets.add(low_rank=rank, high_rank=rank, label=value, sample_count=count)
