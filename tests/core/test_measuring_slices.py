"""Slices: how examples are told apart, which slices are worse, and what the gate makes of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headrace.errors import ConfigError
from headrace.measuring.slices import Seen, cut, gates, sliced
from headrace.measuring.tasks import Measures, of
from headrace.ragged import Ragged
from headrace.spec import Column, Evaluate, Feature
from tests.core.judging import gate, judged, request

Array = np.ndarray[Any, Any]

TARGET = Feature(shape=(1,), role="target")
NUMBER = Feature(role="target", dtype="int64")


def parts(by: str, values: Any, feature: Feature | None = None, small: int = 10) -> dict[str, int]:
    """Slice → how many examples it has."""
    made = cut(by, np.asarray(values), feature, small)
    if made is None:
        return {}
    return {label: int((made.slice_of == number).sum()) for number, label in enumerate(made.labels)}


class TestColumns:
    def test_of_numbers_are_cut_into_quarters(self) -> None:
        values = np.random.default_rng(0).normal(size=100)
        assert parts("x", values) == {
            "lowest quarter": 25,
            "second quarter": 25,
            "third quarter": 25,
            "highest quarter": 25,
        }

    def test_are_cut_into_halves_where_quarters_would_be_small(self) -> None:
        assert parts("x", np.arange(100.0), small=26) == {"lower half": 50, "upper half": 50}

    def test_of_which_many_values_are_the_same_have_fewer_parts(self) -> None:
        values = np.concatenate([np.zeros(60), np.arange(1.0, 41)])
        found = parts("x", values)
        assert found == {f"part {k} of 3, in rising order": count for k, count in ((1, 60), (2, 15), (3, 25))}

    def test_of_few_values_are_cut_by_value(self) -> None:
        assert parts("river", [0.0, 1.0, 1.0]) == {"0": 1, "1": 2}
        port = Feature(dtype="int64", classes=("C", "Q", "S"))
        assert parts("port", [2, 0, 2], port) == {"C": 1, "S": 2}
        assert parts("port", np.array([b"C", b"S", b"S"], object)) == {"C": 1, "S": 2}

    def test_keep_what_is_missing_apart(self) -> None:
        values = np.append(np.arange(99.0), np.nan)
        assert parts("x", values)["missing"] == 1

    def test_that_tell_nothing_apart_are_left_out(self) -> None:
        assert parts("x", np.ones(10)) == {}
        assert parts("name", np.array([str(k) for k in range(50)], object)) == {}


class TestSeen:
    def test_takes_columns_of_vectors_scalars_and_lengths_of_texts(self) -> None:
        features = {
            "x": Feature(shape=(2,), columns=(Column(name="rooms"), Column(name="age"))),
            "hidden": Feature(shape=(3,)),
            "image": Feature(shape=(4, 4, 1), dtype="uint8"),
            "fare": Feature(role="note"),
            "review": Feature(dtype="string"),
            "words": Feature(shape=(None,), dtype="int64"),
            "y": TARGET,
        }
        seen = Seen(features)
        for size in (30, 20):
            seen.add(
                {
                    "x": np.random.default_rng(size).normal(size=(size, 2)),
                    "hidden": np.zeros((size, 3)),
                    "image": np.zeros((size, 4, 4, 1), np.uint8),
                    "fare": np.arange(size) * 1.5,
                    "review": np.array([b"a " * k for k in range(size)], object),
                    "words": Ragged.of([np.arange(k) for k in range(size)], np.int64),
                    "y": np.zeros((size, 1)),
                }
            )
        found = {one.by: one for one in seen.cuts(10)}
        assert list(found) == ["rooms", "age", "fare", "length of review", "length of words"]
        assert all(len(one.slice_of) == 50 for one in found.values())
        assert (found["length of words"].slice_of == found["length of review"].slice_of).all()

    def test_takes_only_what_was_asked_for(self) -> None:
        seen = Seen({"a": Feature(), "b": Feature()}, asked=("b",))
        seen.add({"a": np.arange(9.0), "b": np.arange(9.0)})
        assert [one.by for one in seen.cuts(1)] == ["b"]


def numbers_with(worse: float, examples: int = 400, seed: int = 0) -> tuple[Array, Array, Array]:
    """Truth, answers that are off by 1, and a group (0 or 1), in the second of which they are off by more."""
    random = np.random.default_rng(seed)
    truth, group = random.normal(0, 5, examples), (np.arange(examples) % 4 == 0).astype(float)
    error = (1 + worse * group) * random.choice([-1.0, 1.0], examples) * random.uniform(0.5, 1.5, examples)
    return truth[:, None], (truth + error)[:, None], group


def evaluated(folder: Path, how: Evaluate, worse: float = 1.0, examples: int = 400) -> dict[str, Any]:
    """The evaluation of a regression that is worse on one of two groups."""
    truth, answers, group = numbers_with(worse, examples)
    job = request("regression", {"evaluate": how})
    found: dict[str, Any] = judged(folder, job, TARGET, truth, answers, truth, group=group).json("evaluation.json")
    return found


class TestSlices:
    def test_have_metrics_and_intervals_of_their_own(self, tmp_path: Path) -> None:
        truth, answers, group = numbers_with(1.0)
        found = {part["slice"]: part for part in evaluated(tmp_path, Evaluate())["slices"] if part["by"] == "group"}
        assert {name: part["examples"] for name, part in found.items()} == {"0": 300, "1": 100}
        second = found["1"]
        assert second["metrics"]["mae"] == pytest.approx(np.abs(truth - answers)[group == 1].mean(), rel=1e-4)
        low, high = second["intervals"]["mae"]
        assert low < second["metrics"]["mae"] < high
        assert (second["worse"], found["0"]["worse"], second["small"]) == (True, False, False)

    def test_by_class_know_no_metrics_that_compare_classes(self, tmp_path: Path) -> None:
        random = np.random.default_rng(0)
        truth = random.integers(0, 2, 300)
        score = np.clip(0.4 * truth + random.uniform(0, 0.6, 300), 0, 1)[:, None]
        found = judged(tmp_path, request("binary"), NUMBER, truth, score, truth).json("evaluation.json")
        first = next(part for part in found["slices"] if part["by"] == "class")
        assert first["metrics"]["auc"] is None
        assert first["metrics"]["precision"] is None
        assert first["metrics"]["accuracy"] == pytest.approx((score[truth == 0] < 0.5).mean())

    def test_are_not_called_worse_by_chance(self) -> None:
        """Twenty columns that have nothing to do with the errors: rarely is any of 80 slices called worse."""
        measures, wrong = Measures({"y": of("regression", TARGET)}), 0
        for seed in range(10):
            random = np.random.default_rng(seed)
            truth, answers, _ = numbers_with(0.0, 800, seed)
            seen = Seen({f"c{k}": Feature() for k in range(20)})
            seen.add({f"c{k}": random.normal(size=800) for k in range(20)})
            found = sliced(measures, measures.facts({"y": truth}, {"y": answers}), seen, "mae", Evaluate())
            assert len(found) == 80
            wrong += any(part["worse"] for part in found)
        assert wrong <= 2

    def test_that_are_not_there_are_answered_with_the_nearest(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="told apart by `groups`: did you mean `group`"):
            evaluated(tmp_path, Evaluate(slices=("groups", "group")))


class TestGate:
    def test_fails_where_a_slice_is_worse_by_more_than_is_tolerated(self, tmp_path: Path) -> None:
        found = gate(evaluated(tmp_path, Evaluate(slice_gap=0.3, slices=("group",))), "slices")
        assert found["passed"] is False
        assert found["reason"].startswith(
            "MAE 1.26 over all; of 2 slices, 1 worse by clearly more than 0.3: group 1 2."
        )

    def test_passes_where_the_gap_is_tolerated(self, tmp_path: Path) -> None:
        found = gate(evaluated(tmp_path, Evaluate(slice_gap=1.0, slices=("group",))), "slices")
        assert found["passed"] is True
        assert found["reason"].endswith("of 2 slices, none is worse by clearly more than 1")

    def test_does_not_judge_what_chance_may_explain(self, tmp_path: Path) -> None:
        found = evaluated(tmp_path, Evaluate(slice_gap=0.0, small_slice=5, slices=("group",)), worse=0.1, examples=40)
        assert gate(found, "slices")["passed"] is True

    def test_does_not_judge_small_slices(self, tmp_path: Path) -> None:
        found = evaluated(tmp_path, Evaluate(slice_gap=0.3, small_slice=101, slices=("group",)))
        assert [(part["small"], part["worse"]) for part in found["slices"]] == [(False, False), (True, False)]
        assert gate(found, "slices")["passed"] is True
        assert "of 1 slice (1 more are too small" in gate(found, "slices")["reason"]

    def test_judges_nothing_where_nobody_said_what_is_too_much(self, tmp_path: Path) -> None:
        found = gate(evaluated(tmp_path, Evaluate(slices=("group",))), "slices")
        assert found["passed"] is None
        assert "1 clearly worse: group 1 2." in found["reason"]
        assert found["reason"].endswith("not judged: no gap is said to be too much")

    def test_is_not_there_without_slices(self) -> None:
        assert gates([], "mae", 1.0, Evaluate(slice_gap=0.1)) == []

    def test_says_so_where_all_slices_are_small(self) -> None:
        part = {"by": "a", "slice": "b", "examples": 3, "metrics": {"mae": 1.0}, "small": True, "worse": False}
        assert gates([part], "mae", 1.0, Evaluate(slice_gap=0.1))[0]["passed"] is None
