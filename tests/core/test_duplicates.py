"""Digests of examples, and what they tell: repeats, within and across splits, and labels that contradict each other."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.looking.duplicates import FIRST, across, contradictions, digests, within
from headrace.ragged import Ragged
from tests.core.making import KINDS


def of(**arrays: object) -> np.ndarray:
    return digests(arrays, len(next(iter(arrays.values()))))  # type: ignore[arg-type]


class TestDigests:
    @pytest.mark.parametrize("kind", KINDS)
    def test_are_equal_for_equal_examples_of_every_kind(self, kind: str) -> None:
        _, arrays = KINDS[kind](20)
        twice = np.array([3, 4, 3])
        found = digests({name: values[twice] for name, values in arrays.items()}, 3)
        assert found[0] == found[2] != found[1]

    @pytest.mark.parametrize("kind", KINDS)
    def test_do_not_depend_on_how_batches_are_cut(self, kind: str) -> None:
        _, arrays = KINDS[kind](20)
        parts = [{name: values[cut] for name, values in arrays.items()} for cut in (slice(0, 7), slice(7, 20))]
        cut = np.concatenate([digests(parts[0], 7), digests(parts[1], 13)])
        np.testing.assert_array_equal(digests(arrays, 20), cut)

    @given(st.lists(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=3, max_size=3), min_size=2, max_size=8))
    def test_differ_where_anything_does(self, rows: list[list[int]]) -> None:
        found = of(x=np.array(rows, np.int64))
        assert len(set(found.tolist())) == len({tuple(row) for row in rows})

    @pytest.mark.parametrize(
        ("one", "other"),
        [
            ([1.0, -2.0, 3.0, 4.0], [-1.0, 2.0, 3.0, 4.0]),
            ([1.0, 2.0], [2.0, 1.0]),
            ([0.0, 1.0], [1.0, 0.0]),
        ],
    )
    def test_tell_signs_and_places_apart(self, one: list[float], other: list[float]) -> None:
        found = of(x=np.array([one, other], np.float32))
        assert found[0] != found[1]

    def test_take_missing_values_and_zeros_of_either_sign_for_equal(self) -> None:
        odd = np.array([0x7FC00001], np.uint32).view(np.float32)[0]
        found = of(x=np.array([[np.nan, 0.0], [odd, -0.0]], np.float32))
        assert found[0] == found[1]

    def test_tell_features_apart(self) -> None:
        assert of(a=np.array([1, 2]), b=np.array([2, 1]))[0] != of(a=np.array([2, 1]), b=np.array([1, 2]))[0]

    def test_tell_sequences_apart_that_only_differ_in_length_or_in_where_they_are_cut(self) -> None:
        found = of(x=Ragged.of([[], [0], [0, 0], [1, 2], [2, 1]], np.int64))
        assert len(set(found.tolist())) == 5
        one, other = of(x=Ragged.of([[1], [2, 3]], np.int64)), of(x=Ragged.of([[1, 2], [3]], np.int64))
        assert not set(one.tolist()) & set(other.tolist())

    def test_hardly_ever_agree_by_chance(self) -> None:
        assert len(np.unique(of(x=np.arange(200_000, dtype=np.int64)))) == 200_000

    def test_use_all_of_their_bits(self) -> None:
        found = of(x=np.arange(4096, dtype=np.int64))
        ones = [(found >> np.uint64(bit) & np.uint64(1)).mean() for bit in range(64)]
        assert min(ones) > 0.45
        assert max(ones) < 0.55


def some(*values: int) -> np.ndarray:
    return np.array(values, np.uint64)


class TestRepeats:
    def test_are_counted_and_the_first_ones_named(self) -> None:
        found = within(some(7, 8, 7, 9, 8, 7))
        assert (found.count, found.share, found.first) == (3, 0.5, ((2, 0), (4, 1), (5, 0)))

    def test_that_are_many_are_named_in_part(self) -> None:
        assert len(within(some(*[1] * 20)).first) == FIRST

    def test_are_none_where_all_differ_or_nothing_is(self) -> None:
        assert within(some(1, 2, 3)).count == 0
        assert (within(some()).count, within(some()).share) == (0, 0.0)

    def test_across_splits_are_those_of_the_other_split(self) -> None:
        found = across(some(1, 2, 3, 2), some(9, 2, 3, 3))
        assert (found.count, found.share, found.first) == (3, 0.75, ((1, 1), (2, 2), (3, 2)))


class TestContradictions:
    def test_are_equal_inputs_with_other_targets_in_all_splits_together(self) -> None:
        inputs = {"train": some(1, 2, 1, 3), "test": some(3, 4, 2)}
        targets = {"train": some(0, 0, 5, 0), "test": some(0, 7, 9)}
        found = contradictions(inputs, targets)
        # 1 has two targets within train, 2 has another one in test; 3 has the same in both.
        assert (found.count, found.groups) == (4, 2)
        assert found.first == ((("train", 0), ("train", 2)), (("train", 1), ("test", 2)))

    def test_count_every_example_of_a_group(self) -> None:
        found = contradictions({"train": some(1, 1, 1, 1)}, {"train": some(0, 0, 5, 0)})
        assert (found.count, found.groups, found.share) == (4, 1, 1.0)

    def test_are_none_without_examples(self) -> None:
        assert contradictions({"train": some()}, {"train": some()}).count == 0
