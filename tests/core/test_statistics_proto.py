"""Statistics as TensorFlow's data tools read them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tensorflow_metadata.proto.v0 import statistics_pb2 as pb

from headrace.describing.summaries import summarise
from headrace.ragged import Ragged
from headrace.readers.batches import batches
from headrace.spec import Column, Feature
from tests.core.kinds import EVERY, everything, picture, strings


def entries(values: Any, feature: Feature) -> dict[str, Any]:
    """The entries of one feature, by their paths, as they come back from their bytes."""
    proto = summarise(batches({"x": values}, 16), {"x": feature}).to_proto("train")
    (part,) = pb.DatasetFeatureStatisticsList.FromString(proto.SerializeToString()).datasets
    assert (part.name, part.num_examples) == ("train", len(values))
    return {"/".join(entry.path.step): entry for entry in part.features}


def entry(values: Any, feature: Feature) -> Any:
    (found,) = entries(values, feature).values()
    return found


def common(stats: Any) -> tuple[int, int, int, int, float, int]:
    c = stats.common_stats
    return (
        *(c.num_non_missing, c.num_missing, c.min_num_values, c.max_num_values),
        *(c.avg_num_values, c.tot_num_values),
    )


def ranks(histogram: Any) -> dict[str, float]:
    assert [bucket.low_rank for bucket in histogram.buckets] == list(range(len(histogram.buckets)))
    return {bucket.label: bucket.sample_count for bucket in histogram.buckets}


def test_numbers_are_those_of_numpy() -> None:
    values = np.random.default_rng(0).gamma(2, 3, 5000).astype(np.float32)
    values[:100], values[100:150] = np.nan, 0
    found = entry(values, Feature(optional=True))
    there = values[np.isfinite(values)].astype(np.float64)

    stats = found.num_stats
    assert found.type == pb.FeatureNameStatistics.FLOAT
    assert common(stats) == (4900, 100, 1, 1, 1.0, 4900)
    assert stats.num_zeros == 50
    moments = (stats.mean, stats.std_dev, stats.min, stats.max)
    np.testing.assert_allclose(moments, (there.mean(), there.std(), there.min(), there.max()), rtol=1e-12)
    assert stats.median == np.quantile(there, 0.5, method="inverted_cdf")

    quantiles, standard = stats.histograms
    assert (quantiles.type, standard.type) == (pb.Histogram.QUANTILES, pb.Histogram.STANDARD)
    cuts = [quantiles.buckets[0].low_value, *(bucket.high_value for bucket in quantiles.buckets)]
    assert cuts == np.quantile(there, np.arange(11) / 10, method="inverted_cdf").tolist()
    assert {bucket.sample_count for bucket in quantiles.buckets} == {490.0}

    counts, borders = np.histogram(there, 24)
    np.testing.assert_allclose([bucket.low_value for bucket in standard.buckets], borders[:-1])
    np.testing.assert_allclose([bucket.high_value for bucket in standard.buckets], borders[1:])
    np.testing.assert_allclose([bucket.sample_count for bucket in standard.buckets], counts, atol=2)


def test_each_position_of_a_vector_is_a_feature_of_its_own() -> None:
    feature = Feature(shape=(2,), columns=(Column(name="CRIM"), Column(name="ZN")))
    found = entries(np.array([[1.0, 4.0], [3.0, np.nan]]), feature)
    assert [e.num_stats.mean for e in found.values()] == [2.0, 4.0]
    assert list(found) == ["x/CRIM", "x/ZN"]
    assert common(found["x/ZN"].num_stats) == (1, 1, 1, 1, 1.0, 1)


def test_channels_have_as_many_values_as_there_are_pixels() -> None:
    images = np.random.default_rng(0).integers(0, 256, (10, 4, 5, 3)).astype(np.uint8)
    found = entries(images, Feature(shape=(4, 5, 3), dtype="uint8"))
    assert list(found) == ["x/x[0]", "x/x[1]", "x/x[2]"]
    green = found["x/x[1]"]
    assert (green.type, green.num_stats.mean) == (pb.FeatureNameStatistics.INT, pytest.approx(images[..., 1].mean()))
    assert common(green.num_stats) == (10, 0, 20, 20, 20.0, 200)


def test_a_wide_vector_is_one_feature() -> None:
    values = np.random.default_rng(0).normal(size=(20, 300)).astype(np.float32)
    found = entries(values, Feature(shape=(300,)))["x"].num_stats
    assert common(found) == (20, 0, 300, 300, 300.0, 6000)
    assert (found.mean, found.std_dev) == pytest.approx((values.mean(dtype=float), values.std(dtype=float)))


def test_ragged_numbers_tell_how_many_there_are() -> None:
    lengths = [0, 1, 1, 2, 2, 2, 3, 3, 3, 8]
    found = entry(Ragged.of([np.ones(n) for n in lengths], np.float32), Feature(shape=(None,))).num_stats
    assert common(found) == (10, 0, 0, 8, 2.5, 25)
    histogram = found.common_stats.num_values_histogram
    assert histogram.type == pb.Histogram.QUANTILES
    assert [bucket.high_value for bucket in histogram.buckets] == lengths


def test_tokens_and_categories_are_values() -> None:
    tokens = entry(Ragged.of([[4, 4], [7]], np.int64), Feature(shape=(None,), dtype="int64"))
    assert tokens.type == pb.FeatureNameStatistics.INT
    assert ranks(tokens.string_stats.rank_histogram) == {"4": 2, "7": 1}
    assert common(tokens.string_stats) == (2, 0, 1, 2, 1.5, 3)

    label = entry(np.array([1, 1, 0]), Feature(dtype="int64", classes=("ant", "bee")))
    assert [(top.value, top.frequency) for top in label.string_stats.top_values] == [("bee", 2), ("ant", 1)]


def test_texts_have_values_lengths_and_words() -> None:
    values = strings(b"red fox", b"red", b"red", b"\xff", None)
    found = entry(values, Feature(dtype="string", optional=True))
    stats = found.string_stats
    assert (found.type, stats.unique, stats.invalid_utf8_count) == (pb.FeatureNameStatistics.STRING, 3, 1)
    assert common(stats) == (4, 1, 1, 1, 1.0, 4)
    assert stats.avg_length == pytest.approx(13 / 3)
    assert ranks(stats.rank_histogram)["red"] == 2
    custom = {extra.name: extra for extra in found.custom_stats}
    assert ranks(custom["words"].rank_histogram) == {"fox": 1, "red": 1}


def test_columns_of_strings_are_features_of_their_own() -> None:
    feature = Feature(shape=(2,), dtype="string", columns=(Column(name="sex"), Column(name="deck")))
    found = entries(np.array([[b"f", b"A"], [b"m", b"A"]], object), feature)
    assert {path: e.string_stats.unique for path, e in found.items()} == {"x/sex": 2, "x/deck": 1}


def test_image_files_are_bytes() -> None:
    files = [picture(8, 12), picture(8, 14)]
    found = entry(strings(*files), Feature(dtype="string", content="image"))
    stats = found.bytes_stats
    assert found.type == pb.FeatureNameStatistics.BYTES
    assert (stats.unique, stats.max_num_bytes_int) == (2, max(map(len, files)))
    assert stats.avg_num_bytes == np.mean([len(file) for file in files])
    custom = {extra.name: extra for extra in found.custom_stats}
    assert ranks(custom["formats"].rank_histogram) == {"PNG": 2}
    assert [b.sample_count for b in custom["width"].histogram.buckets if b.sample_count] == [1, 1]


@pytest.mark.parametrize("rows", [0, 30])
def test_every_kind_can_be_written_even_of_nothing(rows: int) -> None:
    proto = summarise(batches(everything(rows), 7), EVERY).to_proto("train")
    (part,) = pb.DatasetFeatureStatisticsList.FromString(proto.SerializeToString()).datasets
    assert {found.path.step[0] for found in part.features} == set(EVERY)
    assert all(found.WhichOneof("stats") for found in part.features)
