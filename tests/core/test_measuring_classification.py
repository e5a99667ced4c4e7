"""Classes: metrics against scikit-learn and against counting, whatever answers look like."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.errors import StageFailed
from headrace.measuring import resampling
from headrace.measuring.classification import Binary, MultiClass, MultiLabel, shuffled
from headrace.measuring.sums import auc
from headrace.measuring.tasks import Task, of
from headrace.spec import Evaluate, Feature
from tests.core.judging import gate, judged, metrics, request

Array = np.ndarray[Any, Any]

NUMBER = Feature(role="target", dtype="int64")
LABELS = Feature(shape=(4,), role="target")
PROBABLE = ("log_loss", "brier", "calibration_error")


def two(examples: int = 300, seed: int = 0) -> tuple[Array, Array]:
    """Truth and scores of two classes, many of them the same."""
    random = np.random.default_rng(seed)
    truth = random.integers(0, 2, examples)
    return truth, np.round(np.clip(0.3 * truth + random.uniform(0, 0.7, examples), 0.01, 0.99), 2)[:, None]


def many(examples: int = 300, classes: int = 4, seed: int = 0) -> tuple[Array, Array]:
    """Truth and probabilities of several classes, mostly right."""
    random = np.random.default_rng(seed)
    truth = random.integers(0, classes, examples)
    answers = random.dirichlet(np.ones(classes), examples) + 0.5 * np.eye(classes)[truth]
    return truth, answers / answers.sum(axis=1, keepdims=True)


def labels(examples: int = 300, seed: int = 0) -> tuple[Array, Array]:
    """Which of four labels there are, the last of them rare, and their scores."""
    random = np.random.default_rng(seed)
    truth = random.random((examples, 4)) < [0.5, 0.3, 0.2, 0.05]
    return truth.astype(np.float32), np.clip(0.4 * truth + random.uniform(0, 0.6, (examples, 4)), 0.01, 0.99)


def facts(task: Task, truth: Array, answers: Array) -> Any:
    return task.facts(truth, answers)


TASKS: dict[str, tuple[Task, Any]] = {
    "two classes": (Binary(NUMBER), two),
    "many classes": (MultiClass(NUMBER), many),
    "labels": (MultiLabel(LABELS), labels),
}


class TestMetrics:
    def test_of_two_classes_are_those_of_scikit_learn(self) -> None:
        from sklearn import metrics as reference

        truth, score = two()
        found = metrics(Binary(NUMBER), truth, score)
        calibration = found.pop("calibration_error")
        assert found == {
            "accuracy": pytest.approx(reference.accuracy_score(truth, score >= 0.5)),
            "auc": pytest.approx(reference.roc_auc_score(truth, score)),
            "precision": pytest.approx(reference.precision_score(truth, score >= 0.5)),
            "recall": pytest.approx(reference.recall_score(truth, score >= 0.5)),
            "f1": pytest.approx(reference.f1_score(truth, score >= 0.5)),
            "log_loss": pytest.approx(reference.log_loss(truth, score)),
            "brier": pytest.approx(reference.brier_score_loss(truth, score)),
        }
        assert calibration == pytest.approx(calibration_by_hand(truth, score[:, 0]))

    def test_of_many_classes_are_those_of_scikit_learn(self) -> None:
        from sklearn import metrics as reference

        truth, answers = many(classes=12)
        said = answers.argmax(axis=1)
        found = metrics(MultiClass(NUMBER), truth, answers)
        calibration = found.pop("calibration_error")
        assert found == {
            "accuracy": pytest.approx(reference.accuracy_score(truth, said)),
            "top_5_accuracy": pytest.approx(reference.top_k_accuracy_score(truth, answers, k=5)),
            "auc": pytest.approx(reference.roc_auc_score(truth, answers, multi_class="ovr")),
            "precision": pytest.approx(reference.precision_score(truth, said, average="macro")),
            "recall": pytest.approx(reference.recall_score(truth, said, average="macro")),
            "f1": pytest.approx(reference.f1_score(truth, said, average="macro")),
            "log_loss": pytest.approx(reference.log_loss(truth, answers)),
            "brier": pytest.approx(np.square(answers - np.eye(12)[truth]).sum(axis=1).mean()),
        }
        assert calibration == pytest.approx(calibration_by_hand(said == truth, answers.max(axis=1)))

    def test_of_labels_are_those_of_scikit_learn(self) -> None:
        from sklearn import metrics as reference

        truth, score = labels()
        said = score >= 0.5
        found = metrics(MultiLabel(LABELS), truth, score)
        calibration = found.pop("calibration_error")
        assert found == {
            "accuracy": pytest.approx((said == truth).mean()),
            "exact_match": pytest.approx(reference.accuracy_score(truth, said)),
            "auc": pytest.approx(reference.roc_auc_score(truth, score)),
            "precision": pytest.approx(reference.precision_score(truth, said, average="macro")),
            "recall": pytest.approx(reference.recall_score(truth, said, average="macro")),
            "f1": pytest.approx(reference.f1_score(truth, said, average="macro")),
            "log_loss": pytest.approx(np.mean([reference.log_loss(truth[:, k], score[:, k]) for k in range(4)])),
            "brier": pytest.approx(np.square(truth - score).mean()),
        }
        assert calibration == pytest.approx(calibration_by_hand(truth.ravel(), score.ravel()))

    def test_of_ten_classes_and_fewer_know_no_best_five(self) -> None:
        assert "top_5_accuracy" not in metrics(MultiClass(NUMBER), *many(classes=10))

    @pytest.mark.parametrize("name", TASKS)
    def test_count_an_example_of_weight_two_as_two(self, name: str) -> None:
        task, make = TASKS[name]
        truth, answers = make(40)
        weights = np.random.default_rng(1).integers(0, 4, 40)
        repeated = np.repeat(np.arange(40), weights)
        assert metrics(task, truth, answers, weights.astype(float)) == pytest.approx(
            metrics(task, truth[repeated], answers[repeated])
        )

    @pytest.mark.parametrize("name", TASKS)
    def test_of_many_weightings_are_those_of_each(self, name: str) -> None:
        task, make = TASKS[name]
        found = facts(task, *make(60))
        weights = np.random.default_rng(2).integers(0, 3, (2, 3, 60)).astype(float)
        together = task.measure(found, weights)
        for place in np.ndindex(2, 3):
            alone = task.measure(found, weights[place])
            for metric, values in together.items():
                assert values[place] == pytest.approx(float(alone[metric])), metric

    def test_of_a_target_with_a_one_at_its_class_are_those_of_its_number(self) -> None:
        truth, answers = many(50)
        hot = MultiClass(Feature(shape=(4,), role="target"))
        assert metrics(hot, np.eye(4)[truth], answers) == metrics(MultiClass(NUMBER), truth, answers)

    @settings(max_examples=60, deadline=None)
    @given(st.lists(st.tuples(st.booleans(), st.integers(0, 4), st.integers(0, 3)), min_size=1, max_size=12))
    def test_area_under_the_curve_is_the_share_of_pairs_in_the_right_order(
        self, rows: list[tuple[bool, int, int]]
    ) -> None:
        truth, score, weights = (np.array(column) for column in zip(*rows, strict=True))
        won = whole = 0.0
        for case in np.flatnonzero(truth):
            for other in np.flatnonzero(~truth):
                pair = weights[case] * weights[other]
                whole += pair
                won += pair * ((score[case] > score[other]) + (score[case] == score[other]) / 2)
        expected = won / whole if whole else np.nan
        np.testing.assert_allclose(auc(truth, score.astype(float), weights.astype(float)), expected)


def calibration_by_hand(right: Array, confidence: Array) -> float:
    """The expected calibration error over ten bins, as its definition says."""
    off = 0.0
    for low in range(10):
        inside = (confidence * 10 >= low) & ((confidence * 10 < low + 1) | (low == 9))
        if inside.any():
            off += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    return off


class TestScoresThatAreNoProbabilities:
    @pytest.mark.parametrize("name", TASKS)
    def test_leave_undefined_what_needs_probabilities_and_nothing_else(self, name: str) -> None:
        task, make = TASKS[name]
        truth, answers = make()
        plain, scored = metrics(task, truth, answers), metrics(task, truth, answers * 1.05)
        assert [metric for metric, value in scored.items() if value is None] == list(PROBABLE)
        assert scored["auc"] == pytest.approx(plain["auc"])
        assert all(plain[metric] is not None for metric in PROBABLE)

    @pytest.mark.parametrize("name", TASKS)
    def test_are_shown_without_calibration_and_confidence(self, name: str) -> None:
        task, make = TASKS[name]
        truth, answers = make()
        shown = task.about(facts(task, truth, answers * 1.05))
        assert shown["calibration"] is None
        assert {entry["confidence"] for entry in shown["worst"]} == {None}

    def test_from_minus_one_to_one_are_decided_at_zero(self) -> None:
        truth, score = two()
        at_half = metrics(Binary(NUMBER), truth, score)
        sides = metrics(Binary(NUMBER, Evaluate(threshold=0.0)), 2 * truth - 1, 2 * score - 1)
        for name in ("accuracy", "auc", "precision", "recall", "f1"):
            assert sides[name] == pytest.approx(at_half[name])

    @pytest.mark.parametrize("dtype", [np.float16, np.float32])
    def test_are_not_probabilities_of_half_precision(self, dtype: Any) -> None:
        truth, answers = many(classes=60)
        assert metrics(MultiClass(NUMBER), truth, answers.astype(dtype))["log_loss"] is not None


class TestPoison:
    def test_a_class_that_is_missing_in_the_test_split_counts_where_it_is_answered(self) -> None:
        from sklearn import metrics as reference

        truth, answers = many(classes=5)
        kept = truth != 3
        truth, answers = truth[kept], answers[kept]
        said = answers.argmax(axis=1)
        found = metrics(MultiClass(NUMBER), truth, answers)
        assert (said == 3).any()
        assert found["recall"] == pytest.approx(reference.recall_score(truth, said, average="macro", zero_division=0))
        others = [reference.roc_auc_score(truth == k, answers[:, k]) for k in (0, 1, 2, 4)]
        assert found["auc"] == pytest.approx(np.mean(others))
        table = MultiClass(NUMBER).about(MultiClass(NUMBER).facts(truth, answers))["per_class"]
        assert (table[3]["examples"], table[3]["recall"], table[3]["auc"]) == (0, None, None)

    def test_a_class_beyond_those_that_are_answered_is_always_missed(self) -> None:
        truth, answers = np.array([0, 1, 7]), np.array([[0.9, 0.1], [0.2, 0.8], [0.5, 0.5]])
        found = metrics(MultiClass(NUMBER), truth, answers)
        assert found["accuracy"] == pytest.approx(2 / 3)
        assert np.isfinite([value for value in found.values() if value is not None]).all()

    @pytest.mark.parametrize("truth", [np.zeros(20, int), np.ones(20, int)], ids=["no cases", "cases only"])
    def test_one_class_alone_has_no_area_and_no_curve(self, truth: Array) -> None:
        score = np.linspace(0.1, 0.9, 20)[:, None]
        assert metrics(Binary(NUMBER), truth, score)["auc"] is None
        shown = Binary(NUMBER).about(Binary(NUMBER).facts(truth, score))
        assert shown["roc"] is None
        assert sum(map(sum, shown["confusion"])) == 20

    def test_the_same_score_for_all_is_worth_a_half(self) -> None:
        truth, _ = two()
        found = metrics(Binary(NUMBER), truth, np.full((300, 1), 0.3))
        assert (found["auc"], found["precision"], found["recall"]) == (0.5, None, 0)
        shown = Binary(NUMBER).about(Binary(NUMBER).facts(truth, np.full((300, 1), 0.3)))
        assert shown["roc"] == {"x": [0.0, 1.0], "y": [0.0, 1.0]}

    def test_a_target_that_is_no_number_stops_the_evaluation(self, tmp_path: Path) -> None:
        truth = np.array([[1.0], [np.nan], [0.0]])
        with pytest.raises(
            StageFailed, match=r"no answer to it can be measured.\n  received: \[nan\] for test example 1"
        ):
            judged(tmp_path, request("regression"), Feature(shape=(1,), role="target"), truth, np.ones((3, 1)), truth)


class TestNaiveAnswers:
    @pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7, 0.0, -2.0, 3.0])
    @pytest.mark.parametrize("share", [0.2, 0.4, 0.6, 0.9])
    def test_of_two_classes_are_the_most_frequent_at_any_threshold(self, share: float, threshold: float) -> None:
        truth = (np.arange(100) < 100 * share).astype(int)
        task = Binary(NUMBER, Evaluate(threshold=threshold))
        answers = task.naive(truth)["majority class"]({}, 100)
        assert metrics(task, truth, answers)["accuracy"] == pytest.approx(max(share, 1 - share))

    def test_drawn_labels_are_the_same_however_they_are_asked_for(self) -> None:
        truth = many()[0]
        at_once = MultiClass(NUMBER).naive(truth)["random labels"]({}, 100)
        in_parts = MultiClass(NUMBER).naive(truth)["random labels"]
        np.testing.assert_array_equal(at_once, np.concatenate([in_parts({}, 30), in_parts({}, 70)]))

    def test_shuffled_labels_are_right_as_often_as_shuffling_says(self) -> None:
        random = np.random.default_rng(0)
        truth = random.choice(5, 120, p=[0.4, 0.3, 0.15, 0.1, 0.05])
        tried = [(random.permutation(truth) == truth).mean() for _ in range(4000)]
        expected = shuffled(truth)
        assert expected.value == pytest.approx(np.mean(tried), abs=0.002)
        assert expected.interval == pytest.approx(
            [np.mean(tried) + side * 1.96 * np.std(tried) for side in (-1, 1)], abs=0.005
        )


class TestWhatPeopleSee:
    def test_of_two_classes_is_consistent_with_the_metrics(self) -> None:
        truth, score = two()
        task = Binary(Feature(role="target", dtype="int64", classes=("good", "bad")), Evaluate(threshold=0.6))
        found, shown = metrics(task, truth, score), task.about(facts(task, truth, score))
        (good, bad) = shown["confusion"]
        assert found["accuracy"] == pytest.approx((good[0] + bad[1]) / 300)
        assert shown["per_class"][1]["recall"] == pytest.approx(found["recall"])
        assert [entry["class"] for entry in shown["per_class"]] == ["good", "bad"]
        area = np.trapezoid(shown["roc"]["y"], shown["roc"]["x"])
        assert area == pytest.approx(found["auc"], abs=0.01)
        assert sum(part["examples"] for part in shown["calibration"]) == 300
        assert shown["said"][-2] == "It answers “bad” from a score of 0.6 on (the decision threshold)."

    def test_is_said_in_rates(self) -> None:
        """200 examples, 100 of each class; 10 of the bad ones are missed, and 30 of the good ones are called bad."""
        truth = np.repeat([1, 0], 100)
        score = np.concatenate([np.full(90, 0.9), np.full(40, 0.2), np.full(70, 0.1)])
        score[100:130] = 0.8
        task = Binary(Feature(role="target", dtype="int64", classes=("good", "bad")))
        said = task.about(facts(task, truth, score[:, None]))["said"]
        assert said[:4] == [
            "Of 1,000 examples like these the model gets 200 wrong.",
            "Of 100 that are “bad” it misses 10.",
            "Of 100 that are “good” it takes 30 for “bad”.",
            "Of 100 that it takes for “bad”, 75 are.",
        ]

    def test_has_curves_of_200_points_at_most(self) -> None:
        truth, _ = two(5000)
        score = np.random.default_rng(0).random((5000, 1))
        shown = Binary(NUMBER).about(Binary(NUMBER).facts(truth, score))
        for name in ("roc", "precision_recall"):
            assert len(shown[name]["x"]) == len(shown[name]["y"]) == 200
        assert (shown["roc"]["x"][0], shown["roc"]["y"][-1]) == (0, 1)

    def test_of_many_classes_names_them_and_the_surest_errors(self) -> None:
        truth, answers = many()
        truth[7], answers[7] = 1, [0.01, 0.01, 0.97, 0.01]
        task = MultiClass(Feature(role="target", dtype="int64", classes=("ant", "bee", "cat", "dog")))
        shown = task.about(facts(task, truth, answers))
        assert shown["classes"] == ["ant", "bee", "cat", "dog"]
        first = shown["worst"][0]
        assert (first["example"], first["truth"], first["answer"]) == (7, "bee", "cat")
        assert first["confidence"] == pytest.approx(0.97)
        said = answers.argmax(axis=1)
        counted = [[int(((truth == i) & (said == j)).sum()) for j in range(4)] for i in range(4)]
        assert shown["confusion"] == counted
        assert all(entry["truth"] != entry["answer"] for entry in shown["worst"])

    def test_of_a_model_without_errors_has_no_worst(self) -> None:
        truth = many()[0]
        shown = MultiClass(NUMBER).about(MultiClass(NUMBER).facts(truth, np.eye(4)[truth]))
        assert shown["worst"] == []
        assert shown["said"][0] == "Of 1,000 examples like these the model gets none wrong."

    def test_of_labels_names_them(self) -> None:
        truth, score = labels()
        task = MultiLabel(LABELS.model_copy(update={"classes": ("a", "b", "c", "d")}))
        shown = task.about(facts(task, truth, score))
        assert [entry["class"] for entry in shown["per_class"]] == ["a", "b", "c", "d"]
        first = shown["worst"][0]
        assert first["truth"] == (", ".join("abcd"[k] for k in np.flatnonzero(truth[first["example"]])) or "none")


class TestEvaluations:
    def test_of_one_hot_targets_know_the_names_of_the_classes(self, tmp_path: Path) -> None:
        truth, answers = many()
        job = request("multiclass")
        raw = Feature(role="target", dtype="int64", classes=("ant", "bee", "cat", "dog"))
        origin = job.origin.model_copy(update={"features": {"y": raw}})
        job.__dict__["origin"] = origin
        hot = np.eye(4)[truth]
        found = judged(tmp_path, job, Feature(shape=(4,), role="target"), hot, answers, hot).json("evaluation.json")
        assert found["outputs"]["y"]["classes"] == ["ant", "bee", "cat", "dog"]
        assert {part["slice"] for part in found["slices"] if part["by"] == "class"} == {"ant", "bee", "cat", "dog"}

    def test_beat_the_majority_class_and_tell_by_how_much(self, tmp_path: Path) -> None:
        truth, answers = many()
        found = judged(tmp_path, request("multiclass"), NUMBER, truth, answers, truth).json("evaluation.json")
        assert gate(found, "baseline")["passed"] is True
        assert "of the best naive answer, the majority class: better by" in gate(found, "baseline")["reason"]
        drawn = next(one for one in found["comparisons"] if one["baseline"] == "random labels")
        assert drawn["value"] == found["baselines"]["random labels"]["accuracy"] == pytest.approx(shuffled(truth).value)
        assert drawn["interval"][0] < drawn["gain"] < drawn["interval"][1]

    def test_of_a_model_that_always_says_the_same_do_not_beat_it(self, tmp_path: Path) -> None:
        truth, _ = two()
        constant = np.full((300, 1), 0.8)
        found = judged(tmp_path, request("binary"), NUMBER, truth, constant, truth).json("evaluation.json")
        assert gate(found, "baseline")["passed"] is False

    def test_of_labels_are_judged_by_f1(self, tmp_path: Path) -> None:
        truth, score = labels()
        found = judged(tmp_path, request("multilabel"), LABELS, truth, score, truth).json("evaluation.json")
        assert found["primary"] == "f1"
        assert gate(found, "baseline")["passed"] is True
        assert set(found["baselines"]) >= {"majority labels", "random labels", "linear model"}

    def test_decide_by_the_threshold_of_the_settings_everywhere(self, tmp_path: Path) -> None:
        from headrace.evaluating import measured

        truth, score = two()
        job = request("binary", {"evaluate": Evaluate(threshold=0.7)})
        made = judged(tmp_path, job, NUMBER, truth, score, truth)
        found = made.json("evaluation.json")
        expected = metrics(Binary(NUMBER, Evaluate(threshold=0.7)), truth, score.astype(np.float32))
        assert found["metrics"] == pytest.approx(expected)
        assert found["metrics"]["accuracy"] != metrics(Binary(NUMBER), truth, score)["accuracy"]
        measures, kept = measured(made)
        assert float(measures.measure(kept)["accuracy"]) == found["metrics"]["accuracy"]


def test_intervals_hold_the_metric_of_every_task() -> None:
    for task, make in TASKS.values():
        found = facts(task, *make())
        bounds = resampling.intervals(lambda drawn, task=task, found=found: task.measure(found, drawn), 300)
        values = task.measure(found, np.ones(300))
        for name in ("accuracy", "auc", "f1", "log_loss", "brier"):
            low, high = bounds[name] or (1.0, 0.0)
            assert low < values[name] < high


def test_every_task_of_classes_has_its_name() -> None:
    assert [type(of(name, LABELS)) for name in ("binary", "multiclass", "multilabel")] == [
        Binary,
        MultiClass,
        MultiLabel,
    ]
