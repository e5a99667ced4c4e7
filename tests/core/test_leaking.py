"""Columns that give the target away, and those that only look like it."""

from __future__ import annotations

import numpy as np
import pytest

from headrace.looking.leaking import Clue, _runs, clues, columns
from tests.core.making import KINDS

ROWS = 400


def found(make: object, *, classes: bool, kinds: int = 3) -> Clue:
    """What one column says about the target; `make` gives it from a generator and the target."""
    parts = []
    for seed in (0, 1):
        random = np.random.default_rng(seed)
        target = random.integers(0, kinds, ROWS) if classes else random.gamma(1, 5, ROWS)
        parts += [{("x", "a"): np.asarray(make(random, target))}, target]  # type: ignore[operator]
    (clue,) = clues(parts[0], parts[1], parts[2], parts[3], classes=classes)
    return clue


class TestClasses:
    def test_are_given_away_by_a_number_in_which_each_has_its_range(self) -> None:
        clue = found(lambda random, y: 10 * y + random.uniform(0, 9, ROWS), classes=True, kinds=10)
        assert clue.skill == pytest.approx(1, abs=0.02)
        assert not clue.equal

    def test_are_given_away_by_a_few_values(self) -> None:
        assert found(lambda random, y: 7 * (y == 0) + 3 * (y == 1), classes=True).skill == 1

    def test_are_given_away_by_text(self) -> None:
        digest = np.array([11, 2**63 + 5, 7], np.uint64)
        assert found(lambda random, y: digest[y], classes=True).skill == 1

    def test_are_not_given_away_by_noise(self) -> None:
        for make in (lambda random, y: random.normal(size=ROWS), lambda random, y: random.integers(0, 9, ROWS)):
            assert found(make, classes=True).skill < 0.15

    def test_are_not_given_away_by_names_that_are_all_different(self) -> None:
        """A table of 400 names knows every training example, and nothing of the others."""
        clue = found(lambda random, y: random.integers(0, 2**63, ROWS).astype(np.uint64), classes=True)
        assert clue.skill == 0

    def test_are_told_to_a_part(self) -> None:
        clue = found(lambda random, y: np.where(random.random(ROWS) < 0.5, y, 5), classes=True)
        assert 0.4 < clue.skill < 0.65

    def test_that_are_rare_count(self) -> None:
        """99% of one class: the majority's accuracy is high, the skill of answering it is 0."""
        parts = []
        for seed in (0, 1):
            random = np.random.default_rng(seed)
            y = (random.random(5000) < 0.01).astype(int)
            parts += [{("x", "noise"): random.normal(size=5000), ("x", "leak"): y + random.uniform(0, 0.5, 5000)}, y]
        first, second = clues(parts[0], parts[1], parts[2], parts[3], classes=True)
        assert (first.column, first.skill) == ("leak", 1)
        assert second.skill <= 0

    def test_that_were_never_seen_can_not_be_known(self) -> None:
        x, y = {("x", "a"): np.arange(40.0) % 2}, np.arange(40) % 2 * 2
        (clue,) = clues(x, y, {("x", "a"): np.full(4, 1.0)}, np.full(4, 1), classes=True)
        assert clue.skill == 0

    def test_are_not_looked_for_between_single_examples(self) -> None:
        random = np.random.default_rng(0)
        x, y = random.normal(size=400), random.integers(0, 2, 400)
        assert _runs(x, y, x) == []
        assert len(_runs(x, (x > 0).astype(int), x)) == 1


class TestNumbers:
    def test_are_given_away_by_themselves_in_another_unit(self) -> None:
        clue = found(lambda random, y: np.exp(y / 10) * 3, classes=False)
        assert clue.skill > 0.99
        assert not clue.equal

    def test_are_equal_to_a_column_that_holds_them(self) -> None:
        assert found(lambda random, y: y, classes=False).equal

    def test_are_not_given_away_by_noise(self) -> None:
        assert found(lambda random, y: random.normal(size=ROWS), classes=False).skill < 0.05

    def test_are_told_to_a_part(self) -> None:
        clue = found(lambda random, y: y + random.normal(0, 5, ROWS), classes=False)
        assert 0.2 < clue.skill < 0.7

    def test_do_not_stumble_over_missing_values(self) -> None:
        clue = found(lambda random, y: np.where(random.random(ROWS) < 0.3, np.nan, y), classes=False)
        assert 0.5 < clue.skill < 0.8

    def test_that_never_change_are_no_secret(self) -> None:
        x = {("x", "a"): np.arange(9.0)}
        assert clues(x, np.ones(9), x, np.ones(9), classes=False)[0].skill == 0


class TestColumns:
    @pytest.mark.parametrize(
        ("kind", "expected"),
        [
            ("numbers", {("x", "rooms"), ("x", "age")}),
            ("table", {("port", "port"), ("fare", "fare")}),
            ("images", {("image", "mean"), ("image", "spread")}),
            ("files", {("image", "bytes")}),
            ("text", {("review", "review"), ("review", "bytes")}),
            ("tokens", {("tokens", "length")}),
            ("sequences", {("steps", "length"), ("steps", "mean"), ("steps", "last value")}),
        ],
    )
    def test_sum_up_what_is_no_column(self, kind: str, expected: set[tuple[str, str]]) -> None:
        features, arrays = KINDS[kind](20)
        inputs = {name: feature for name, feature in features.items() if feature.role == "input"}
        found = columns(arrays, inputs)
        assert set(found) == expected
        assert {values.shape for values in found.values()} == {(20,)}

    def test_of_sequences_are_right_with_empty_ones(self) -> None:
        features, arrays = KINDS["sequences"](20)
        found = columns(arrays, {"steps": features["steps"]})
        each = list(arrays["steps"])
        np.testing.assert_allclose(
            found["steps", "mean"], [s.mean() if len(s) else np.nan for s in each], rtol=1e-5, atol=1e-6
        )
        np.testing.assert_allclose(
            found["steps", "last value"], [s[-1].mean() if len(s) else np.nan for s in each], rtol=1e-5, atol=1e-6
        )
        assert found["steps", "length"].tolist() == [len(s) for s in each]
