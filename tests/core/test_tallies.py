"""How single values are counted in bounded memory."""

from __future__ import annotations

from collections import Counter as Truth
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.describing.tallies import LONGEST, Counter, Tally

words = st.lists(st.sampled_from("abcdefghijklmnop"), max_size=60)


def counter(values: Any, most: int = 100, rows: int = 7, **options: Any) -> Counter:
    """The values counted in batches of some rows."""
    made = Counter(most, **options)
    for start in range(0, len(values), rows):
        found = Truth(values[start : start + rows])
        kind = pa.int64() if isinstance(values[0], int) else pa.large_binary()
        made.take(pa.array(list(found), kind), np.array(list(found.values())))
    return made


def tally(values: Any, **options: Any) -> Tally:
    return counter(values, **options).finish()


def test_few_values_are_counted_exactly_the_most_frequent_first_and_equals_by_name() -> None:
    found = tally(["b", "a", "c", "a", "c", "a", "b"])
    assert found.top == (("a", 3), ("b", 2), ("c", 2))
    assert (found.total, found.unique, found.exact) == (7, 3, True)


def test_whole_numbers_have_the_names_of_their_classes() -> None:
    found = tally([0, 2, 2, 7], known=range(3), names=("cat", "dog", "owl"))
    assert found.known == (("cat", 1), ("dog", 0), ("owl", 2))
    assert found.top == (("owl", 2), ("7", 1), ("cat", 1))
    assert found.unknown == 1


@settings(max_examples=40, deadline=None)
@given(st.lists(words, min_size=1, max_size=5), st.integers(1, 8), st.integers(1, 20))
def test_beyond_the_bound_counts_fall_short_by_no_more_than_is_said(
    parts: list[list[str]], most: int, rows: int
) -> None:
    counters = [counter(part, most=most, rows=rows) for part in parts]
    for other in counters[1:]:
        counters[0].merge(other)
    found, truth = counters[0].finish(), Truth(value for part in parts for value in part)

    assert found.exact == (len(truth) <= most)
    assert found.unique == len(truth)
    assert found.total == truth.total()
    assert found.short * (most + 1) <= found.total
    counts = dict(found.top)
    assert all(count > found.short for count in counts.values())
    assert all(truth[value] - found.short <= count <= truth[value] for value, count in counts.items())
    # Whatever is more than twice as frequent as a count can fall short is there.
    assert {value for value, count in truth.items() if count > 2 * found.short} <= counts.keys()


@settings(max_examples=40, deadline=None)
@given(words, st.sets(st.sampled_from("abcdefghijklmnopq"), max_size=5), st.integers(1, 4))
def test_known_values_are_exact_whatever_happens(values: list[str], known: set[str], most: int) -> None:
    asked = sorted(known)
    found = tally(values, most=most, known=[value.encode() for value in asked])
    assert found.known == tuple((value, values.count(value)) for value in asked)
    assert found.unknown == (sum(value not in known for value in values) if known else 0)


def test_where_all_values_differ_none_is_called_frequent_and_their_number_is_estimated() -> None:
    values = [f"id {i}" for i in range(60_000)]
    found = tally(values, most=2**14, rows=8192)
    assert found.top == ()
    assert not found.exact
    assert abs(found.unique / 60_000 - 1) < 0.03


def test_only_the_number_of_different_values_can_be_asked_for() -> None:
    found = tally(["a", "b", "a"], most=0)
    assert (found.unique, found.total, found.top, found.exact) == (2, 3, (), True)


def test_long_strings_are_told_apart_by_their_beginning_but_counted_as_different() -> None:
    found = tally(["x" * LONGEST + end for end in "abc"] + ["y"])
    assert found.top == (("x" * LONGEST, 3), ("y", 1))
    assert found.unique == 4


def test_long_strings_of_another_part_are_counted_as_different_too() -> None:
    first, second = counter(["y"]), counter(["x" * LONGEST + end for end in "abc"])
    first.merge(second)
    assert first.finish().unique == 4


def test_long_strings_that_begin_alike_are_frequent_however_many_there_are() -> None:
    found = tally([f"{'x' * LONGEST}{i}" for i in range(50)], most=10, rows=50)
    assert found.top == (("x" * LONGEST, 50),)


def test_only_the_most_frequent_of_many_are_kept() -> None:
    found = tally([f"{i:03}" for i in range(300) for _ in range(300 - i)], most=1000, rows=8192)
    assert [value for value, _ in found.top] == [f"{i:03}" for i in range(20)]
    assert found.exact


def test_json_gives_back_the_same() -> None:
    found = tally([0, 2, 2, 7], known=range(3), names=("cat", "dog", "owl"))
    assert Tally.from_json(found.to_json()) == found
