"""Baselines: what plain learners are given and answer, when they are left out, and what must be beaten."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from headrace.measuring import baselines
from headrace.measuring.baselines import BOOSTED, LINEAR, Compared, affordable, compared, why_no_vectors
from headrace.measuring.tasks import Measures, of
from headrace.spec import Evaluate, Feature, TaskName
from tests.core.judging import gate, judged, request

Array = np.ndarray[Any, Any]

TARGET = Feature(shape=(1,), role="target")
NUMBER = Feature(role="target", dtype="int64")


@pytest.fixture(autouse=True)
def _forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """What other tests have learned is not known."""
    monkeypatch.setattr(baselines, "_made", {})


def info(features: Mapping[str, Feature], train: int = 0, test: int = 0) -> Any:
    """As records say it of themselves."""

    def named(role: str) -> dict[str, Feature]:
        return {name: feature for name, feature in features.items() if feature.role == role}

    return SimpleNamespace(features=features, examples={"train": train, "test": test}, named=named)


def learned(task: TaskName, target: Feature, inputs: Mapping[str, Any], truth: Array, rows: int) -> Any:
    """What plain learners come to that learn from the first rows: metrics of each, and why others were left out."""
    features = {name: Feature(shape=values.shape[1:], dtype=_dtype(values)) for name, values in inputs.items()}
    whole = {**inputs, "y": truth}
    train, test = ({name: values[part] for name, values in whole.items()} for part in (slice(rows), slice(rows, None)))
    measures = Measures({"y": of(task, target)})
    about = info({**features, "y": target}, rows, len(truth) - rows)
    halves = [{name: values[part] for name, values in train.items()} for part in (slice(100), slice(100, None))]
    found = baselines.plain("digest", measures, about, halves, [test])
    assert set(found.learned_from) == set(found.known)
    return {name: baselines.metrics(measures, name, facts) for name, facts in found.known.items()}, found.left_out


def _dtype(values: Array) -> Any:
    return {"f": "float32", "i": "int64", "u": "uint8", "O": "string"}[values.dtype.kind]


class TestPlainLearners:
    def test_of_numbers_learn_what_is_there_to_learn(self) -> None:
        x = np.random.default_rng(0).normal(size=(600, 3)).astype(np.float32)
        truth = (3 * x[:, :1] - x[:, 1:2] + 5).astype(np.float32)
        found, left_out = learned("regression", TARGET, {"x": x}, truth, 400)
        assert left_out == {}
        assert found[LINEAR]["mae"] < 0.05
        assert found[BOOSTED]["r2"] > 0.9

    def test_of_classes_give_their_probabilities(self) -> None:
        random = np.random.default_rng(0)
        truth = random.integers(0, 3, 600)
        x = (np.eye(3)[truth] + random.normal(0, 0.3, (600, 3))).astype(np.float32)
        found, left_out = learned("multiclass", NUMBER, {"x": x}, truth, 400)
        assert left_out == {}
        assert min(found[name]["accuracy"] for name in (LINEAR, BOOSTED)) > 0.9
        assert found[LINEAR]["log_loss"] < 0.5

    def test_of_two_classes_learn_from_several_inputs_and_from_missing_values(self) -> None:
        random = np.random.default_rng(0)
        truth = random.integers(0, 2, 600)
        x = (truth[:, None] + random.normal(0, 0.3, (600, 2))).astype(np.float32)
        x[::5, 0] = np.nan
        flat = random.integers(0, 2, 600)
        found, _ = learned("binary", NUMBER, {"x": x, "flag": flat}, truth, 400)
        assert min(found[name]["auc"] for name in (LINEAR, BOOSTED)) > 0.95

    def test_of_labels_learn_each_of_them(self) -> None:
        random = np.random.default_rng(0)
        truth = (random.random((600, 2)) < 0.4).astype(np.float32)
        x = (truth + random.normal(0, 0.2, (600, 2))).astype(np.float32)
        target = Feature(shape=(2,), role="target")
        found, _ = learned("multilabel", target, {"x": x}, truth, 400)
        assert min(found[name]["f1"] for name in (LINEAR, BOOSTED)) > 0.9

    def test_of_a_bag_of_words_are_linear_and_sparse(self) -> None:
        random = np.random.default_rng(0)
        truth = random.integers(0, 2, 700)
        bag = (random.random((700, 2000)) < 0.01).astype(np.float32)
        bag[:, 7] = truth
        found, left_out = learned("binary", NUMBER, {"x": bag}, truth, 500)
        assert found[LINEAR]["accuracy"] > 0.95
        assert left_out == {BOOSTED: "2,000 columns, most of them 0, are too many"}

    def test_come_out_the_same_each_time(self) -> None:
        random = np.random.default_rng(0)
        x, truth = random.normal(size=(300, 2)).astype(np.float32), random.normal(size=(300, 1)).astype(np.float32)
        first, _ = learned("regression", TARGET, {"x": x}, truth, 200)
        baselines._made.clear()
        again, _ = learned("regression", TARGET, {"x": x}, truth, 200)
        assert first == again

    def test_learn_once_for_all_models_of_a_process(self, monkeypatch: pytest.MonkeyPatch) -> None:
        x, truth = np.ones((300, 2), np.float32), np.arange(300, dtype=np.float32)[:, None]
        first, _ = learned("regression", TARGET, {"x": x}, truth, 200)
        monkeypatch.setattr(baselines, "_plain", None)
        assert learned("regression", TARGET, {"x": x}, truth, 200)[0] == first

    def test_that_find_one_class_only_say_so(self) -> None:
        x = np.random.default_rng(0).normal(size=(300, 2)).astype(np.float32)
        found, left_out = learned("binary", NUMBER, {"x": x}, np.ones(300, int), 200)
        assert LINEAR in left_out
        assert "class" in left_out[LINEAR]
        assert LINEAR not in found


class TestWhatIsLeftOut:
    @pytest.mark.parametrize(
        ("feature", "words"),
        [
            (Feature(shape=(28, 28, 1), dtype="uint8"), "`x` is image of type uint8 and shape"),
            (Feature(dtype="string"), "`x` is text of type string"),
            (Feature(shape=(None,), dtype="int64"), "`x` is tokens"),
            (Feature(shape=(20,), dtype="int64", content="tokens"), "`x` is a sequence of tokens"),
        ],
    )
    def test_inputs_that_are_no_vectors(self, feature: Feature, words: str) -> None:
        assert words in (why_no_vectors(info({"x": feature, "y": TARGET})) or "")

    def test_numbers_of_words(self) -> None:
        tokens = np.random.default_rng(0).integers(0, 50, (300, 8))
        _, left_out = learned("regression", TARGET, {"x": tokens}, np.ones((300, 1), np.float32), 200)
        assert left_out[LINEAR] == "the numbers of `x` are names of something, and no quantities"

    def test_what_takes_too_long(self) -> None:
        narrow, wide = np.zeros((10, 13), np.float32), np.zeros((10, 784), np.float32)
        assert affordable(BOOSTED, 404, narrow, 1) == (404, None)
        assert 50_000 < affordable(BOOSTED, 100_000, narrow, 1)[0] < 70_000
        rows, why = affordable(BOOSTED, 60_000, wide, 10)
        assert (rows, why) == (0, "60,000 examples of 784 columns and 10 outputs would take too long")
        rows, why = affordable(LINEAR, 60_000, wide, 10)
        assert 20_000 < rows < 60_000
        assert why is None


def told(name: str, gain: float, low: float, high: float) -> Compared:
    return Compared(name, 0.5, gain, [low, high])


class TestGate:
    def test_is_that_of_the_best_naive_answer(self) -> None:
        found = [told("majority class", 0.1, 0.05, 0.15), told("random labels", 0.4, 0.3, 0.5)]
        judged = baselines.gate("accuracy", 0.6, found, "naive")
        assert (judged["passed"], judged["reason"]) == (
            True,
            "accuracy 0.6 beats 0.5 of the best naive answer, the majority class: better by 0.1 [0.05, 0.15]",
        )

    def test_leaves_plain_learners_out_unless_they_are_to_be_beaten(self) -> None:
        found = [told("majority class", 0.1, 0.05, 0.15), told(LINEAR, -0.1, -0.2, -0.05)]
        assert baselines.gate("accuracy", 0.6, found, "naive")["passed"] is True
        plain = baselines.gate("accuracy", 0.6, found, "plain")
        assert plain["passed"] is False
        assert "does not clearly beat 0.5 of the best plain learner, the linear model" in plain["reason"]

    def test_fails_where_it_may_have_been_luck(self) -> None:
        assert baselines.gate("accuracy", 0.6, [told("majority class", 0.1, -0.01, 0.2)], "naive")["passed"] is False

    @pytest.mark.parametrize(("ours", "found"), [(None, [told("mean", 1, 1, 1)]), (0.5, [])])
    def test_does_not_judge_what_can_not_be_compared(self, ours: float | None, found: list[Compared]) -> None:
        assert baselines.gate("accuracy", ours, found, "naive")["passed"] is None


class TestComparisons:
    def test_are_paired(self) -> None:
        """What is hard is hard for both: the interval of the gain is far narrower than that of the metric."""
        random = np.random.default_rng(0)
        truth = random.normal(0, 10, (300, 1))
        hard = random.normal(0, 5, (300, 1))
        measures = Measures({"y": of("regression", TARGET)})
        ours = measures.facts({"y": truth}, {"y": truth + hard})
        theirs = {"mean": {"y": measures.tasks["y"].facts(truth, truth + 1.1 * hard)}}
        (found,) = compared(measures, "mae", ours, theirs)
        assert found.gain == pytest.approx(0.1 * np.abs(hard).mean())
        low, high = found.interval or (0.0, 0.0)
        assert 0 < low < found.gain < high < 2 * found.gain

    def test_of_one_of_several_targets_take_only_what_says_something_of_it(self) -> None:
        truth = np.random.default_rng(0).normal(size=(100, 1))
        measures = Measures({"a": of("regression", TARGET), "b": of("regression", TARGET)})
        ours = measures.facts({"a": truth, "b": truth}, {"a": truth + 0.1, "b": truth})
        task = measures.tasks["a"]
        theirs = {"mean": {"a": task.facts(truth, truth + 1)}, "other": {"b": task.facts(truth, truth)}}
        assert [one.name for one in compared(measures, "a_mae", ours, theirs)] == ["mean"]

    def test_are_not_made_where_the_metric_is_undefined(self) -> None:
        task = of("binary", NUMBER)
        measures, truth = Measures({"y": task}), np.array([0, 1, 1, 0])
        ours = measures.facts({"y": truth}, {"y": np.array([-1.0, 2.0, 2.0, 0.0])})
        theirs = {"majority class": {"y": task.facts(truth, np.full((4, 1), 0.5))}}
        assert compared(measures, "log_loss", ours, theirs) == []


class TestEvaluations:
    def data(self) -> tuple[Array, Array, Array]:
        """Truth, the answers of a model that knows a little, and an input that tells all."""
        random = np.random.default_rng(0)
        truth = random.normal(0, 5, (400, 1)).astype(np.float32)
        return truth, 0.5 * truth + random.normal(0, 1, (400, 1)), truth

    def test_tell_what_plain_learners_come_to(self, tmp_path: Path) -> None:
        truth, answers, _ = self.data()
        found = judged(tmp_path, request("regression"), TARGET, truth, answers, truth).json("evaluation.json")
        assert gate(found, "baseline")["passed"] is True
        assert {one["baseline"]: one["kind"] for one in found["comparisons"]} == {
            "mean": "naive",
            "median": "naive",
            LINEAR: "plain",
            BOOSTED: "plain",
        }
        assert (found["left_out"], found["learned_from"]) == ({}, {LINEAR: 400, BOOSTED: 400})
        assert found["baselines"][LINEAR]["mae"] < found["metrics"]["mae"]

    def test_can_demand_that_they_are_beaten(self, tmp_path: Path) -> None:
        truth, answers, _ = self.data()
        job = request("regression", {"evaluate": Evaluate(beat="plain")})
        found = judged(tmp_path, job, TARGET, truth, answers, truth).json("evaluation.json")
        assert gate(found, "baseline")["passed"] is False
        assert "of the best plain learner" in gate(found, "baseline")["reason"]
