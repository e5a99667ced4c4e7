"""Statistics against numpy, part by part and as a whole."""

from __future__ import annotations

import json
import pickle
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.describing import summaries
from headrace.describing.summaries import FeatureStatistics, Statistics, Summary, summarise
from headrace.errors import StageFailed
from headrace.readers.batches import batches
from headrace.spec import Column, Feature

PERCENTS = range(101)


def vector(size: int, **changes: Any) -> dict[str, Feature]:
    return {"x": Feature(shape=(size,), **changes)}


def of(values: Any, rows: int = 100, like: Statistics | None = None) -> FeatureStatistics:
    """Statistics of a table of numbers, read in batches of `rows`."""
    values = np.asarray(values)
    feature = Feature(shape=values.shape[1:], dtype="int64" if values.dtype.kind == "i" else "float32")
    return summarise(batches({"x": values}, rows), {"x": feature}, like)["x"]


@pytest.fixture
def table() -> np.ndarray:
    """1,000 rows: a heavy tail, a large offset with a small spread, negative numbers, a few distinct values."""
    random = np.random.default_rng(0)
    columns = [
        random.lognormal(0, 3, 1000),
        random.normal(1e4, 1, 1000),
        random.normal(-5, 3, 1000),
        random.integers(0, 3, 1000),
    ]
    return np.column_stack(columns).astype(np.float32)


@pytest.fixture
def few_bins(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the data had far more distinct values than are told apart."""
    monkeypatch.setattr(summaries, "MOST_BINS", 300)


class TestMoments:
    @pytest.mark.parametrize("rows", [1, 7, 1000])
    def test_equal_those_of_numpy_in_double_precision(self, table: np.ndarray, rows: int) -> None:
        found, exact = of(table, rows), table.astype(np.float64)
        np.testing.assert_allclose(found.mean, exact.mean(axis=0), rtol=1e-12)
        np.testing.assert_allclose(found.std, exact.std(axis=0), rtol=1e-12)
        np.testing.assert_array_equal(found.minimum, exact.min(axis=0))
        np.testing.assert_array_equal(found.maximum, exact.max(axis=0))
        np.testing.assert_array_equal(found.zeros, (exact == 0).sum(axis=0))

    def test_a_constant_column_has_no_deviation_and_can_be_divided_by(self) -> None:
        # Large whole numbers whose sum is rounded, so that their mean is not quite one of them.
        found = of(np.full((10, 1), 2**53 - 1))
        assert found.std.tolist() == [0.0]
        assert found.scale.tolist() == [1.0]

    def test_the_scale_of_a_column_that_varies_is_its_deviation(self, table: np.ndarray) -> None:
        found = of(table)
        np.testing.assert_array_equal(found.scale, found.std)

    def test_missing_and_infinite_values_are_counted_and_left_out(self) -> None:
        found = of(np.array([[1.0, np.nan], [3.0, np.inf], [np.nan, 8.0], [-np.inf, -np.inf]]), rows=2)
        assert found.count.tolist() == [2, 1]
        assert found.missing.tolist() == [2, 3]
        assert found.mean.tolist() == [2.0, 8.0]
        assert [d.total for d in found.distributions] == [2, 1]
        assert found.rows == 4

    def test_of_more_than_one_dimension_have_the_shape_of_the_last(self) -> None:
        found = of(np.arange(24.0).reshape(4, 3, 2))
        assert found.mean.tolist() == [11.0, 12.0]
        assert found.count.tolist() == [12, 12]
        assert found.names == ("x[0]", "x[1]")
        assert found.quantile(50).tolist() == [10.0, 11.0]
        assert found.rows == 4

    @pytest.mark.parametrize("shape", [(), (1,), (4,), (3, 2), (2, 2, 3)])
    def test_broadcast_against_the_values(self, shape: tuple[int, ...]) -> None:
        values = np.random.default_rng(0).normal(3, 2, (50, *shape)).astype(np.float32)
        found = of(values)
        scaled = (values - found.mean) / found.scale
        axes = tuple(range(scaled.ndim - 1)) if shape else None
        np.testing.assert_allclose(scaled.mean(axis=axes), 0, atol=1e-6)
        np.testing.assert_allclose(scaled.std(axis=axes), 1, rtol=1e-6)

    def test_of_whole_numbers(self) -> None:
        found = of(np.array([3, -1, 3, 7]))
        assert (found.mean.item(), found.minimum.item(), found.maximum.item()) == (3.0, -1.0, 7.0)
        assert found.distributions[0].edges.tolist() == [-1, 3, 7]
        assert found.distributions[0].counts.tolist() == [1, 2, 1]


class TestDistributions:
    def test_percentiles_are_exact(self, table: np.ndarray) -> None:
        found = of(table)
        for percent in PERCENTS:
            expected = np.quantile(table.astype(np.float64), percent / 100, axis=0, method="inverted_cdf")
            np.testing.assert_array_equal(found.quantile(percent), expected)

    def test_counts_between_edges_are_exact(self, table: np.ndarray) -> None:
        for column, distribution in zip(table.T, of(table).distributions, strict=True):
            reached = [(column <= edge).sum() for edge in distribution.edges]
            assert np.cumsum(distribution.counts).tolist() == reached
            assert len(distribution.edges) <= 101 + 48

    @pytest.mark.usefixtures("few_bins")
    def test_beyond_the_bound_counts_stay_exact_and_percentiles_close(self) -> None:
        values = np.random.default_rng(1).normal(50, 10, (20_000, 1)).astype(np.float32)
        found = of(values, rows=1000)
        distribution = found.distributions[0]
        assert np.cumsum(distribution.counts).tolist() == [(values <= edge).sum() for edge in distribution.edges]
        np.testing.assert_allclose(
            [distribution.quantile(p) for p in PERCENTS], np.quantile(values, np.arange(101) / 100), rtol=0.02
        )

    @pytest.mark.usefixtures("few_bins")
    def test_memory_does_not_grow_with_the_values(self) -> None:
        sizes = []
        summary = Summary({"x": Feature()})
        for batch in batches({"x": np.random.default_rng(1).normal(size=50_000)}, 5_000):
            summary.add(batch)
            sizes.append(len(pickle.dumps(summary)))
        assert max(sizes) < 20_000

    def test_rare_values_among_few_distinct_ones_have_edges_of_their_own(self) -> None:
        # No percentile of these falls on the one in the middle.
        distribution = of(np.array([0.0] * 725 + [0.25] + [1.0] * 1275)).distributions[0]
        assert distribution.edges.tolist() == [0, 0.25, 1]
        assert distribution.counts.tolist() == [725, 1, 1275]

    def test_few_distinct_values_are_the_edges(self) -> None:
        distribution = of(np.array([0.0, 1.0, 0.0, -2.5, -0.0])).distributions[0]
        assert distribution.edges.tolist() == [-2.5, 0, 1]
        assert distribution.counts.tolist() == [1, 3, 1]

    def test_like_another_split_they_are_cut_at_its_edges(self) -> None:
        known = Statistics(x=of(np.array([1.0, 2.0, 3.0])))
        distribution = of(np.array([0.5, 1.0, 2.5, 9.0, 10.0]), like=known).distributions[0]
        below, *edges = distribution.edges.tolist()
        assert below == np.nextafter(1.0, 0.0)
        assert edges == [1, 2, 3, 10]
        assert distribution.counts.tolist() == [1, 1, 0, 1, 2]

    def test_of_nothing_are_empty(self) -> None:
        found = of(np.array([np.nan, np.nan]))
        assert found.distributions[0].total == 0
        assert np.isnan(found.quantile(50))
        assert np.isnan(found.mean)


class TestMerging:
    @settings(max_examples=30, deadline=None)
    @given(
        st.lists(
            st.lists(st.floats(-(2.0**20), 2.0**20, width=32), max_size=60),
            min_size=1,
            max_size=5,
        ),
        st.randoms(use_true_random=False),
    )
    def test_parts_in_any_order_give_the_whole(self, parts: list[list[float]], random: Any) -> None:
        feature = {"x": Feature()}
        with pytest.MonkeyPatch.context() as patch:
            # Few enough that the parts lose different numbers of digits before they meet.
            patch.setattr(summaries, "MOST_BINS", 16)
            patch.setattr(summaries, "ROWS", 20)
            whole = summarise(batches({"x": np.array([v for part in parts for v in part], np.float32)}), feature)["x"]
            pieces = []
            for part in parts:
                pieces.append(Summary(feature))
                for batch in batches({"x": np.array(part, np.float32)}, 7):
                    pieces[-1].add(batch)
            while len(pieces) > 1:
                random.shuffle(pieces)
                pieces[0].merge(pieces.pop())
            merged = pieces[0].finish()["x"]
        assert merged.distributions[0].edges.tolist() == whole.distributions[0].edges.tolist()
        assert merged.distributions[0].counts.tolist() == whole.distributions[0].counts.tolist()
        assert merged.count == whole.count
        spread = float(whole.maximum - whole.minimum)
        np.testing.assert_allclose(merged.mean, whole.mean, rtol=1e-12, atol=1e-12 * spread)
        np.testing.assert_allclose(merged.std, whole.std, rtol=1e-9, atol=1e-12 * spread)

    def test_parts_may_come_from_other_processes(self, table: np.ndarray) -> None:
        halves = [Summary(vector(4)), Summary(vector(4))]
        for half, rows in zip(halves, (table[:300], table[300:]), strict=True):
            for batch in batches({"x": rows}, 100):
                half.add(batch)
        first, second = (pickle.loads(pickle.dumps(half)) for half in halves)
        first.merge(second)
        np.testing.assert_allclose(first.finish()["x"].mean, table.astype(np.float64).mean(axis=0), rtol=1e-12)

    def test_counts_between_the_edges_of_another_split_add_up(self) -> None:
        known = Statistics(x=of(np.array([1.0, 2.0])))
        parts = [Summary({"x": Feature()}, known), Summary({"x": Feature()}, known)]
        for part, value in zip(parts, (0.0, 5.0), strict=True):
            for batch in batches({"x": np.array([value])}):
                part.add(batch)
        parts[0].merge(parts[1])
        assert parts[0].finish()["x"].distributions[0].counts.tolist() == [1, 0, 0, 1]


class TestStrings:
    @pytest.fixture
    def found(self) -> FeatureStatistics:
        column = pa.array(["oak", "elm", None, "oak", "ash"], pa.large_string())
        batch = pa.RecordBatch.from_arrays([column], ["tree"])
        return summarise([batch, batch], {"tree": Feature(dtype="string")})["tree"]

    def test_are_counted_with_the_most_frequent_first(self, found: FeatureStatistics) -> None:
        assert (found.count.item(), found.missing.item(), found.unique) == (8, 2, 3)
        assert found.top == (("oak", 4), ("ash", 2), ("elm", 2))
        assert found.rows == 10

    def test_of_parts_add_up(self) -> None:
        parts = [Summary({"tree": Feature(dtype="string")}) for _ in range(2)]
        for part, trees in zip(parts, (["oak", "oak"], ["oak", "elm", None]), strict=True):
            part.add(pa.RecordBatch.from_arrays([pa.array(trees)], ["tree"]))
        parts[0].merge(parts[1])
        found = parts[0].finish()["tree"]
        assert (found.top, found.unique) == ((("oak", 3), ("elm", 1)), 2)
        assert (found.count.item(), found.missing.item()) == (4, 1)

    def test_of_several_positions_count_together(self) -> None:
        column = pa.array([["a", "b"], ["a", "c"]], pa.list_(pa.string(), 2))
        batch = pa.RecordBatch.from_arrays([column], ["pair"])
        found = summarise([batch], {"pair": Feature(shape=(2,), dtype="string")})
        assert found["pair"].top == (("a", 2), ("b", 1), ("c", 1))
        assert found.rows == 2

    def test_go_into_json_and_back(self, found: FeatureStatistics) -> None:
        assert FeatureStatistics.from_json(json.loads(json.dumps(found.to_json()))).to_json() == found.to_json()

    def test_go_into_the_protocol_buffer(self, found: FeatureStatistics) -> None:
        entry = Statistics(tree=found).to_proto("train").datasets[0].features[0]
        assert entry.string_stats.unique == 3
        assert entry.string_stats.top_values[0].value == "oak"
        assert entry.string_stats.common_stats.num_missing == 2


class TestKeeping:
    def test_json_gives_back_every_bit(self, table: np.ndarray) -> None:
        table[0, 0] = np.nan
        before = Statistics(x=of(table))
        text = json.dumps(before.to_json(), allow_nan=False)
        after = Statistics.from_json(json.loads(text))
        assert json.dumps(after.to_json()) == text
        for name in ("count", "missing", "zeros", "mean", "std", "scale", "minimum", "maximum"):
            np.testing.assert_array_equal(getattr(after["x"], name), getattr(before["x"], name))
            assert getattr(after["x"], name).dtype == getattr(before["x"], name).dtype
        np.testing.assert_array_equal(after["x"].quantile(37), before["x"].quantile(37))

    def test_json_of_nothing_holds_no_nan(self) -> None:
        empty = of(np.array([[np.nan]]))
        after = FeatureStatistics.from_json(json.loads(json.dumps(empty.to_json(), allow_nan=False)))
        assert np.isnan(after.mean).all()

    def test_each_column_is_a_feature_of_the_protocol_buffer(self) -> None:
        feature = Feature(shape=(2,), columns=(Column(name="CRIM"), Column(name="ZN")))
        values = np.array([[1.0, 0.0], [2.0, 0.0], [3.0, 4.0]])
        proto = summarise(batches({"x": values}), {"x": feature}).to_proto("train").datasets[0]
        assert (proto.name, proto.num_examples) == ("train", 3)
        assert [list(entry.path.step) for entry in proto.features] == [["x", "CRIM"], ["x", "ZN"]]
        crim, zn = (entry.num_stats for entry in proto.features)
        assert (crim.mean, crim.median, crim.min, crim.max) == (2.0, 2.0, 1.0, 3.0)
        assert zn.num_zeros == 2
        assert [bucket.high_value for bucket in crim.histograms[0].buckets] == [1, 1, 1, 2, 2, 2, 3, 3, 3, 3]

    def test_an_unknown_feature_is_answered_with_the_nearest(self) -> None:
        with pytest.raises(StageFailed, match=r"no statistics of a feature `featuress`: did you mean `features`\?"):
            Statistics(features=of(np.zeros((1, 1))))["featuress"]
