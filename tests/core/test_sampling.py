"""Samples of a stream: fair, the same every time, and small."""

from __future__ import annotations

import numpy as np
import pytest

from headrace.looking.sampling import ROW, Grouped, Sample
from headrace.ragged import Ragged


def drawn(size: int, rows: int, batch: int, seed: int = 0) -> np.ndarray:
    """The positions that a sample of a stream of this many rows keeps."""
    sample = Sample(size, seed)
    for start in range(0, rows, batch):
        positions = np.arange(start, min(start + batch, rows))
        sample.add({"x": positions * 10}, positions)
    kept = sample.arrays
    np.testing.assert_array_equal(kept["x"], np.asarray(kept[ROW]) * 10)
    return np.asarray(kept[ROW])


class TestSamples:
    @pytest.mark.parametrize("batch", [1, 7, 100, 1000])
    def test_do_not_depend_on_how_batches_are_cut(self, batch: int) -> None:
        np.testing.assert_array_equal(drawn(20, 1000, batch), drawn(20, 1000, 333))

    def test_hold_everything_that_is_little_enough(self) -> None:
        np.testing.assert_array_equal(drawn(20, 20, 7), np.arange(20))

    def test_take_from_all_of_the_stream_alike(self) -> None:
        rows = [row for seed in range(40) for row in drawn(50, 1000, 90, seed)]
        counts, _ = np.histogram(rows, bins=10, range=(0, 1000))
        assert counts.sum() == 40 * 50
        assert counts.min() > 150
        assert counts.max() < 250

    def test_of_another_seed_are_others(self) -> None:
        assert set(drawn(20, 1000, 100)) != set(drawn(20, 1000, 100, seed=1))

    def test_hold_sequences(self) -> None:
        sample = Sample(3)
        sample.add({"x": Ragged.of([[i] * i for i in range(10)], np.int64)}, np.arange(10))
        kept = sample.arrays
        assert [list(each) for each in kept["x"]] == [[i] * i for i in kept[ROW]]

    def test_of_nothing_are_empty(self) -> None:
        assert Sample(3).arrays == {}

    def test_do_not_keep_whole_batches_alive(self) -> None:
        sample = Sample(2)
        sample.add({"x": np.arange(100_000)}, np.arange(100_000))
        assert np.asarray(sample.arrays["x"]).base is None


class TestGroups:
    def test_have_samples_of_their_own(self) -> None:
        grouped = Grouped(2, groups=5)
        labels = np.array([3, 1, 3, 3, 1, 2])
        for start in (0, 3):
            rows = np.arange(start, start + 3)
            grouped.add({"label": labels[rows]}, rows, labels[rows], np.arange(3))
        found = {name: np.asarray(kept["label"]).tolist() for name, kept in grouped.arrays.items()}
        assert found == {1: [1, 1], 2: [2], 3: [3, 3]}

    @pytest.mark.parametrize("order", [1, -1])
    def test_that_are_too_many_are_the_first_ones_by_name(self, order: int) -> None:
        grouped = Grouped(2, groups=3)
        labels = np.array([b"d", b"a", b"c", b"b", b"a", b"e"], object)[::order]
        for row, label in enumerate(labels):
            grouped.add({"label": np.array([label], object)}, np.array([row]), np.array([label], object), np.array([0]))
        found = grouped.arrays
        assert list(found) == [b"a", b"b", b"c"]
        assert len(found[b"a"][ROW]) == 2

    def test_leave_out_what_is_not_offered(self) -> None:
        grouped = Grouped(2, groups=3)
        grouped.add({}, np.arange(3), np.array([0, 1, 2]), np.array([0, 2]))
        assert list(grouped.arrays) == [0, 2]
