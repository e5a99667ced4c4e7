"""Drift of what is no plain column of numbers: categories, text, images, sequences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from headrace.describing.described import aligned
from headrace.describing.summaries import summarise
from headrace.monitoring import VALUES, _shares, moved
from headrace.ragged import Ragged
from headrace.readers.batches import batches
from headrace.spec import Feature, Monitor
from tests.core.making import KINDS


def drifted(feature: Feature, then: Any, now: Any) -> list[str]:
    """The aspects of a feature that have moved."""
    old = summarise(batches({"x": then}), {"x": feature})
    new = summarise(batches({"x": now}), {"x": feature}, like=old)
    return [column["column"] for column in moved(new, old, Monitor(), seed=0) if column["drifted"]]


def words(rows: int, seed: int, weights: Mapping[str, float]) -> np.ndarray:
    random = np.random.default_rng(seed)
    names = np.array([name.encode() for name in weights], object)
    return names[random.choice(len(names), rows, p=list(weights.values()))]


CATEGORY = Feature(dtype="string", content="category")
PORTS = {"S": 0.7, "C": 0.2, "Q": 0.1}


class TestCategories:
    def test_drift_where_their_shares_do(self) -> None:
        now = words(200, 1, {"S": 0.3, "C": 0.6, "Q": 0.1})
        assert drifted(CATEGORY, words(500, 0, PORTS), now) == ["x"]

    def test_drift_where_many_are_new(self) -> None:
        assert drifted(CATEGORY, words(500, 0, PORTS), words(200, 1, {"S": 0.6, "C": 0.2, "X": 0.2})) == ["x"]

    def test_drift_where_one_of_many_is_nearly_twice_as_frequent(self) -> None:
        hours = {f"{hour:02}": 0.05 for hour in range(20)}
        now = {**dict.fromkeys(hours, 0.91 / 19), "17": 0.09}
        assert drifted(CATEGORY, words(5000, 0, hours), words(1000, 1, now)) == ["x"]

    def test_may_have_one_that_was_never_seen(self) -> None:
        now = words(100, 1, {"JPEG": 1.0})
        now[7] = b"PNG"
        assert drifted(CATEGORY, words(300, 0, {"JPEG": 1.0}), now) == []

    def test_of_which_many_occur_once_go_on_like_that(self) -> None:
        """Half of the passengers have a cabin, each another one: in other passengers all of them are new."""
        cabins = np.array([b"none" if i % 2 else f"cabin {1000 + i}".encode() for i in range(450)], object)
        assert drifted(CATEGORY, cabins[:300], cabins[300:]) == []

    def test_with_a_long_tail_hardly_ever_drift_by_chance(self) -> None:
        def tail(rows: int, seed: int) -> np.ndarray:
            drawn = np.random.default_rng(seed).zipf(1.5, rows)
            return np.array([f"{min(n, 10**6):07}".encode() for n in drawn], object)

        alarms = sum(bool(drifted(CATEGORY, tail(400, 2 * seed), tail(100, 2 * seed + 1))) for seed in range(40))
        assert alarms <= 1

    def test_of_numbers_are_compared_one_by_one(self) -> None:
        feature = Feature(dtype="int64", classes=("a", "b", "c"))
        random = np.random.default_rng(0)
        then, now = random.choice(3, 400, p=[0.4, 0.2, 0.4]), random.choice(3, 200, p=[0.2, 0.6, 0.2])
        assert drifted(feature, then, now) == ["x"]

    def test_of_which_there_are_many_are_compared_by_the_most_frequent(self) -> None:
        names = np.array([f"word {i}".encode() for i in range(5000)], object)
        old = summarise(batches({"x": names}), {"x": CATEGORY})
        new = summarise(batches({"x": names[:900]}), {"x": CATEGORY}, like=old)
        for aspect in aligned(old["x"], new["x"]):
            expected, found = _shares(aspect, 10)
            assert len(expected) == len(found) <= VALUES + 1
            assert (expected.sum(), found.sum()) == (pytest.approx(1), pytest.approx(1))


class TestManyValuesInOneExample:
    def images(self, rows: int, seed: int, brighter: float = 0.0) -> np.ndarray:
        random = np.random.default_rng(seed)
        pixels = random.normal(100 + brighter, 40, (rows, 1, 1, 1)) + random.normal(0, 5, (rows, 8, 8, 1))
        return pixels.clip(0, 255).astype(np.uint8)

    @pytest.mark.parametrize("seed", range(5))
    def test_count_as_one_since_they_are_alike(self, seed: int) -> None:
        """Of 64 pixels that are nearly equal, each tells little more than the first: by chance nothing drifts."""
        feature = Feature(shape=(8, 8, 1), dtype="uint8")
        assert drifted(feature, self.images(200, 2 * seed), self.images(60, 2 * seed + 1)) == []

    def test_drift_together(self) -> None:
        feature = Feature(shape=(8, 8, 1), dtype="uint8")
        assert len(drifted(feature, self.images(200, 0), self.images(60, 1, brighter=60))) == 1

    def test_drift_in_their_number(self) -> None:
        random = np.random.default_rng(0)
        then, now = (
            Ragged.of([random.normal(size=n) for n in random.integers(1, most, 300)], np.float32) for most in (20, 60)
        )
        assert drifted(Feature(shape=(None,)), then, now) == ["length of x"]


class TestText:
    def test_drifts_in_its_words_and_their_number(self) -> None:
        def review(rows: int, *some: str) -> np.ndarray:
            random = np.random.default_rng(rows)
            lines = [" ".join(random.choice(some, random.integers(3, 9))) for _ in range(rows)]
            return np.array([line.encode() for line in lines], object)

        feature = Feature(dtype="string")
        then = review(300, "good", "film", "bad")
        assert drifted(feature, then, review(100, "good", "film", "bad")) == []
        assert "words of x" in drifted(feature, then, review(100, "good", "good", "plot"))

    def test_files_drift_in_their_sizes(self) -> None:
        features, then = KINDS["files"](60)
        _, now = KINDS["files"](60, 1)
        assert drifted(features["image"], then["image"], now["image"]) == []
