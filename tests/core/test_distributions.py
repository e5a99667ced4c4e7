"""How numbers are counted by value in bounded memory."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.describing.distributions import Column, Distribution, Series


def counted(values: Any, dtype: str = "float32", most: int = 2**15) -> Series:
    column = Column(dtype, most)
    column.add(np.asarray(values, dtype))
    return column.finish()


def distribution(values: Any, dtype: str = "float32", most: int = 2**15) -> Distribution:
    found = counted(values, dtype, most).distribution
    assert found
    return found


class TestBins:
    @settings(max_examples=60, deadline=None)
    @given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1), st.integers(2, 40))
    def test_counts_up_to_each_edge_are_exact_however_few_bins_there_are(self, values: list[float], most: int) -> None:
        found = distribution(values, most=most)
        assert np.cumsum(found.counts).tolist() == [sum(v <= edge for v in values) for edge in found.edges]
        assert (np.diff(found.edges) > 0).all()

    @settings(max_examples=60, deadline=None)
    @given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1), st.integers(2, 40))
    def test_of_whole_numbers_too(self, values: list[int], most: int) -> None:
        found = distribution(values, "int64", most)
        exact = np.array(values, np.int64).astype(np.float64)
        assert np.cumsum(found.counts).tolist() == [(exact <= edge).sum() for edge in found.edges]

    @settings(max_examples=60, deadline=None)
    @given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1), st.integers(2, 40))
    def test_begin_and_end_with_the_extremes(self, values: list[float], most: int) -> None:
        found = distribution(values, most=most)
        assert (found.edges[0], found.edges[-1]) == (min(values), max(values))
        assert found.counts[0] == values.count(min(values))

    @pytest.mark.parametrize(("most", "kept"), [(64, 64), (63, 32), (32, 32), (31, 16)])
    def test_lose_only_as_many_digits_as_it_takes(self, most: int, kept: int) -> None:
        # 64 values in one octave: half as many for each digit that is lost.
        edges = distribution(1 + np.arange(64) / 64, most=most).edges
        assert (edges[0], edges[-1]) == (1, 1 + 63 / 64)
        # Each bin ends right before the next one begins, or with its only value.
        inner = edges[-kept:-1]
        assert np.floor(inner * kept).tolist() == list(range(kept, 2 * kept - 1))

    @pytest.mark.parametrize("sizes", [(10, 5000), (5000, 10), (300, 5000, 300)])
    def test_of_parts_that_lost_different_digits_are_those_of_the_whole(self, sizes: tuple[int, ...]) -> None:
        random = np.random.default_rng(0)
        parts = [random.normal(size=size).astype(np.float32) for size in sizes]
        columns = [Column("float32", 200) for _ in parts]
        for column, values in zip(columns, parts, strict=True):
            column.add(values)
        for column in columns[1:]:
            columns[0].merge(column)
        found, whole = columns[0].finish().distribution, distribution(np.concatenate(parts), most=200)
        assert found
        assert found.edges.tolist() == whole.edges.tolist()
        assert found.counts.tolist() == whole.counts.tolist()

    @pytest.mark.parametrize("sign", [1, -1])
    @pytest.mark.parametrize("dtype", ["float32", "int64"])
    def test_percentiles_of_values_over_many_orders_of_magnitude_are_within_a_few_thousandths(
        self, dtype: str, sign: int
    ) -> None:
        values = (sign * np.random.default_rng(0).lognormal(10, 4, 200_000)).astype(dtype)
        found = distribution(values, dtype)
        exact = np.quantile(values, np.arange(101) / 100, method="inverted_cdf")
        np.testing.assert_allclose([found.quantile(p) for p in range(101)], exact, rtol=4e-3)

    def test_large_whole_numbers_keep_their_leading_digits(self) -> None:
        values = np.arange(100_000) * 10**9 + 1
        assert distribution(values, "int64").quantile(25) == pytest.approx(24_999e9, rel=1e-3)

    def test_bytes_are_counted_one_by_one(self) -> None:
        values = np.random.default_rng(0).integers(0, 256, 200_000).astype(np.uint8)
        found = distribution(values, "uint8")
        assert found.edges.tolist() == list(range(256))
        assert found.counts.tolist() == np.bincount(values).tolist()


class TestBars:
    @pytest.mark.parametrize("count", [12, 24, 48])
    @pytest.mark.parametrize("size", [2_000, 100_000])
    def test_of_many_values_are_those_of_numpy_within_a_thousandth(self, size: int, count: int) -> None:
        values = np.random.default_rng(0).gamma(2, 5, size).astype(np.float32)
        expected, _ = np.histogram(values, count)
        bars = distribution(values).bars(count)
        assert bars.sum() == len(values)
        np.testing.assert_allclose(bars, expected, atol=size / 1000)

    def test_of_few_values_are_exact(self) -> None:
        assert distribution([0.0] * 5 + [1.0] * 3 + [10.0]).bars(5).tolist() == [8, 0, 0, 0, 1]

    def test_of_one_value_are_one(self) -> None:
        assert distribution([7.0, 7.0]).bars(4).tolist() == [2, 0, 0, 0]

    def test_of_nothing_are_empty(self) -> None:
        assert distribution([]).bars(4).tolist() == [0, 0, 0, 0]


class TestSeries:
    def test_of_values_with_counts_equal_those_of_the_values_repeated(self) -> None:
        values, counts = np.array([-2, 0, 5]), np.array([3, 2, 1])
        weighted = Column("int64", 100)
        weighted.take(values, counts, missing=4)
        found, expected = weighted.finish(), counted(np.repeat(values, counts), "int64")
        assert (found.count, found.zeros, found.missing) == (6, 2, 4)
        assert (found.minimum, found.maximum, found.mean) == (expected.minimum, expected.maximum, expected.mean)
        assert found.std == pytest.approx(expected.std)
        assert found.missing_share == 0.4

    def test_of_nothing_have_no_mean(self) -> None:
        found = counted([math.nan, math.inf])
        assert (found.count, found.missing) == (0, 2)
        assert all(map(math.isnan, (found.mean, found.std, found.minimum, found.maximum, found.quantile(50))))
        assert Series.from_json(found.to_json()).to_json() == found.to_json()
