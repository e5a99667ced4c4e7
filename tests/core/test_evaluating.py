from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headrace.artifacts import Artifact
from headrace.errors import ConfigError, StageFailed
from headrace.evaluating import evaluate
from headrace.jobs import Job
from headrace.measuring import resampling, words
from headrace.measuring.regression import Regression
from headrace.measuring.tasks import Task
from headrace.spec import Feature
from tests.core.keeping import keep
from tests.core.making import artifact, trained

Array = np.ndarray[Any, Any]
Factory = Callable[..., Job]


WHOLE = 404
"""Training examples of the whole data set."""


def noisy(spread: float, size: int = 200, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(0, spread, size)


@pytest.fixture
def judged(tmp_path: Path, job: Factory) -> Callable[..., dict[str, Any]]:
    """Evaluate a model that answers with its input: `judged(truth, answers)` → contents of evaluation.json."""

    def run(
        truth: Array,
        answers: Array,
        *,
        train: Array | None = None,
        data: str = "real",
        cross_validation: dict[str, Any] | None = None,
        **request: Any,
    ) -> dict[str, Any]:
        request = {"profile": "full", "data": data, **request}
        learned = np.resize(truth, WHOLE) if train is None else train
        records = recorded(tmp_path / "records", learned, truth, answers, data)
        followed = None
        if cross_validation:
            (tmp_path / "folds").mkdir()
            followed = artifact(tmp_path / "folds", "cross_validate", cross_validation=cross_validation)
        made = evaluate(job(**request), records, echo(tmp_path / "model"), cross_validation=followed)
        with np.load(made.path / "predictions.npz") as file:
            np.testing.assert_array_equal(file["answer/price"][:, 0], answers.astype(np.float32))
            assert file["truth/price"].shape == (len(truth), 1)
        return made.json("evaluation.json")

    return run


def recorded(folder: Path, train: Array, truth: Array, answers: Array, data: str) -> Artifact:
    """Records of one input, which is what the model shall answer, and one target."""
    layout = {"x": Feature(shape=(1,)), "price": Feature(shape=(1,), role="target")}
    keep(
        folder,
        layout,
        about={"workload": "house_prices", "source": "boston", "data": data},
        train={"x": train[:, None], "price": train[:, None]},
        test={"x": answers[:, None], "price": truth[:, None]},
    )
    return artifact(folder, "preprocess")


def echo(folder: Path, outputs: int = 1) -> Artifact:
    """A model that answers with its input."""
    import keras

    given = keras.Input((1,), name="x")
    layer = keras.layers.Dense(outputs, use_bias=False, kernel_initializer="ones", name="price")
    return trained(keras.Model(given, layer(given)), folder)


def gate(evaluation: dict[str, Any], name: str) -> dict[str, Any]:
    return next(entry for entry in evaluation["gates"] if entry["gate"] == name)


PRICE = Feature(shape=(1,), role="target")


def metrics(task: Task, truth: Array, answers: Array, weights: Array | None = None) -> dict[str, float | None]:
    """What a task measures."""
    counted = np.ones(len(truth)) if weights is None else weights
    return words.numbers(task.measure(task.facts(truth, answers), counted))


class TestRegression:
    def test_its_metrics_are_what_their_names_say(self) -> None:
        truth, answers = np.array([[1.0], [2.0], [3.0], [6.0]]), np.array([[1.0], [3.0], [1.0], [6.0]])
        found = metrics(Regression(PRICE), truth, answers)
        assert found == {"mae": 0.75, "mse": 1.25, "rmse": pytest.approx(1.25**0.5), "r2": pytest.approx(1 - 5 / 14)}

    def test_r2_is_undefined_where_the_truth_does_not_vary(self) -> None:
        constant = np.ones((4, 1))
        assert metrics(Regression(PRICE), constant, constant + 1)["r2"] is None

    def test_r2_is_exact_far_from_zero(self) -> None:
        truth = 1e7 + noisy(1)[:, None]
        found = metrics(Regression(PRICE), truth, truth + noisy(0.5, seed=1)[:, None])["r2"]
        expected = 1 - np.square(noisy(0.5, seed=1)).mean() / noisy(1).var()
        assert found == pytest.approx(expected, rel=1e-4)

    def test_an_example_of_weight_two_counts_as_two(self) -> None:
        truth, answers = noisy(1, 3)[:, None], noisy(1, 3, seed=1)[:, None]
        task, twice = Regression(PRICE), [0, 1, 1, 2]
        assert metrics(task, truth, answers, np.array([1, 2, 1])) == pytest.approx(
            metrics(task, truth[twice], answers[twice])
        )

    def test_every_row_of_weights_is_measured_by_itself(self) -> None:
        truth, answers = noisy(1)[:, None], noisy(1, seed=1)[:, None]
        task, weights = Regression(PRICE), np.random.default_rng(2).integers(0, 3, (4, 200)).astype(float)
        together = task.measure(task.facts(truth, answers), weights)
        for i in range(4):
            alone = task.measure(task.facts(truth, answers), weights[i])
            for name, values in together.items():
                assert values[i] == pytest.approx(float(alone[name]))


class TestIntervals:
    @pytest.mark.parametrize("at_once", [1, 4_000_000], ids=["one resample at a time", "all at once"])
    def test_they_are_those_of_theory_for_a_mean(self, at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(resampling, "_AT_ONCE", at_once)
        values = noisy(2, size=400)
        found = resampling.intervals(lambda drawn: {"mean": drawn @ values / 400}, 400)["mean"]
        assert found == pytest.approx(values.mean() + np.array([-1.96, 1.96]) * values.std() / 20, abs=0.03)

    def test_equally_many_examples_are_drawn_alike(self) -> None:
        first, again = (np.concatenate(list(resampling.weights(50))) for _ in range(2))
        np.testing.assert_array_equal(first, again)
        assert first.shape == (resampling.RESAMPLES, 50)
        assert (first.sum(axis=1) == 50).all()

    def test_very_many_examples_are_drawn_less_often(self) -> None:
        counts = [sum(len(part) for part in resampling.weights(count)) for count in (1_000, 100_000)]
        assert counts == [1_000, 500]

    def test_groups_are_drawn_as_wholes(self) -> None:
        drawn = next(resampling.weights(6, np.array([0, 0, 0, 1, 1, 1])))
        assert (drawn[:, :3] == drawn[:, :1]).all()
        assert (drawn.sum(axis=1) == 6).all()

    def test_what_no_resample_defines_has_none(self) -> None:
        assert resampling.intervals(lambda drawn: {"x": np.full(len(drawn), np.nan)}, 5) == {"x": None}


class TestNumbersForPeople:
    @pytest.mark.parametrize(
        ("value", "said"), [(2.5149, "2.51"), (41_239.7, "41,240"), (0.00012, "0.00012"), (None, "undefined")]
    )
    def test_they_have_three_digits(self, value: float | None, said: str) -> None:
        assert words.short(value) == said


class TestEvaluation:
    def test_it_says_metrics_intervals_and_baselines_of_the_test_split(
        self, judged: Callable[..., dict[str, Any]]
    ) -> None:
        truth = 22 + noisy(9)
        found = judged(truth, truth + noisy(1, seed=1), train=np.array([1.0, 2.0, 9.0]))
        assert (found["split"], found["examples"], list(found["outputs"]), found["primary"]) == (
            "test",
            200,
            ["price"],
            "mae",
        )
        assert found["metrics"]["mae"] == pytest.approx(np.abs(noisy(1, seed=1)).mean(), rel=1e-4)
        low, high = found["intervals"]["mae"]
        assert 0.6 < low < found["metrics"]["mae"] < high < 1.0
        assert found["baselines"]["mean"]["mae"] == pytest.approx(np.abs(truth - 4).mean(), rel=1e-4)
        assert found["baselines"]["median"]["mae"] == pytest.approx(np.abs(truth - 2).mean(), rel=1e-4)

    def test_predictions_that_are_no_numbers_stop_it(self, judged: Callable[..., dict[str, Any]]) -> None:
        answers = np.array([1.0, np.nan, np.inf])
        said = r"2 of 3 test examples.\n  received: \[nan\] of `price` for test example 1"
        with pytest.raises(StageFailed, match=said):
            judged(np.ones(3), answers)

    def test_a_model_of_another_shape_stops_it(self, tmp_path: Path, job: Factory) -> None:
        values = noisy(1)
        records = recorded(tmp_path / "records", values, values, values, "synthetic")
        with pytest.raises(StageFailed, match=r"needs of `price`.\n  expected: \(examples, 1\)[^$]*\(examples, 2\)"):
            evaluate(job(), records, echo(tmp_path / "model", outputs=2))

    def test_equal_answers_give_equal_bytes(self, tmp_path: Path, job: Factory) -> None:
        values = 22 + noisy(9)
        records = recorded(tmp_path / "records", values, values, values + 1, "synthetic")
        model = echo(tmp_path / "model")
        first = evaluate(job(), records, model)
        shutil.rmtree(first.path)
        again = evaluate(job(), records, model)
        assert (again.digest, again.state) == (first.digest, "run")


class TestPromises:
    def test_a_kept_promise_passes_with_its_numbers(self, judged: Callable[..., dict[str, Any]]) -> None:
        truth = 22 + noisy(9)
        found = judged(truth, truth + noisy(2.5, seed=1))
        assert gate(found, "promise")["passed"] is True
        assert gate(found, "promise")["reason"] == "MAE 1.79 [1.58, 1.99] within at most 3 (the book: 2.464)"
        (promise,) = found["promises"]
        assert (promise["value"], promise["judged"]) == (found["metrics"]["mae"], True)

    def test_a_broken_promise_fails_with_its_numbers(self, judged: Callable[..., dict[str, Any]]) -> None:
        truth = 22 + noisy(9)
        found = gate(judged(truth, truth + noisy(5, seed=1)), "promise")
        assert found["passed"] is False
        assert "not within at most 3" in found["reason"]

    @pytest.mark.parametrize(
        ("request_", "reason"),
        [
            ({"profile": "smoke"}, "a smoke run"),
            ({"data": "synthetic"}, "synthetic data"),
            ({"source": "california"}, "the data are not boston"),
        ],
    )
    def test_it_is_judged_for_full_runs_on_the_default_real_data_only(
        self, judged: Callable[..., dict[str, Any]], request_: dict[str, str], reason: str
    ) -> None:
        truth = 22 + noisy(9)
        found = judged(truth, truth + noisy(5, seed=1), **request_)
        assert gate(found, "promise")["passed"] is None
        assert gate(found, "promise")["reason"].endswith(f"(the book: 2.464): {reason}")
        assert found["promises"][0]["judged"] is False
        assert found["promises"][0]["value"] == found["metrics"]["mae"]

    def test_it_is_not_judged_by_a_sample(self, judged: Callable[..., dict[str, Any]]) -> None:
        truth = 22 + noisy(9)
        found = gate(judged(truth, truth + noisy(5, seed=1), train=truth), "promise")
        assert found["passed"] is None
        assert found["reason"].endswith(": the data are a sample, 200 of 404 train examples")

    def test_one_on_the_folds_takes_the_mean_of_the_folds(self, judged: Callable[..., dict[str, Any]]) -> None:
        truth = 22 + noisy(9)
        folds = {"metric": "val_mae", "mean": 3.2, "folds": [{}, {}, {}, {}]}
        found = gate(judged(truth, truth, variant="kfold_100", cross_validation=folds), "promise")
        assert found["passed"] is False
        assert found["reason"].startswith("val_mae 3.2, the mean over 4 folds, not within")

    @pytest.mark.parametrize(
        ("folds", "reason"),
        [
            (None, "there was no cross-validation"),
            ({"metric": "val_loss", "mean": 3.2, "folds": []}, "the cross-validation measured val_loss"),
        ],
    )
    def test_one_on_folds_that_did_not_measure_it_is_not_judged(
        self, judged: Callable[..., dict[str, Any]], folds: dict[str, Any] | None, reason: str
    ) -> None:
        truth = 22 + noisy(9)
        found = judged(truth, truth, variant="kfold_100", cross_validation=folds)
        assert gate(found, "promise")["passed"] is None
        assert gate(found, "promise")["reason"].endswith(reason)
        assert found["promises"][0]["value"] is None

    def test_an_unknown_metric_is_answered_with_the_nearest(self, judged: Callable[..., dict[str, Any]]) -> None:
        promise = {"metric": "rmsse", "at_most": 3.0}
        with pytest.raises(ConfigError, match="there is no metric `rmsse`: did you mean `rmse`"):
            judged(noisy(1), noisy(1), overrides={"promises": [promise]})


class TestBaselines:
    def test_a_model_that_has_learned_beats_them(self, judged: Callable[..., dict[str, Any]]) -> None:
        truth = 22 + noisy(9)
        found = gate(judged(truth, truth + noisy(2.5, seed=1)), "baseline")
        assert found["passed"] is True
        assert found["reason"].startswith("MAE 1.79 beats 7.02 of the best naive answer, the median")

    @pytest.mark.parametrize(
        ("learned", "spread"), [(0.0, 1.0), (0.3, 5.5)], ids=["it knows nothing", "it may have been luck"]
    )
    def test_a_model_that_is_not_clearly_better_fails(
        self, judged: Callable[..., dict[str, Any]], learned: float, spread: float
    ) -> None:
        truth = 22 + noisy(9)
        answers = 22 + learned * (truth - 22) + noisy(spread, seed=1)
        found = judged(truth, answers, data="synthetic")
        assert (found["metrics"]["mae"] < found["baselines"]["median"]["mae"]) == bool(learned)
        assert gate(found, "baseline")["passed"] is False
        assert "does not clearly beat" in gate(found, "baseline")["reason"]

    def test_they_are_measured_by_the_metric_of_the_first_promise(self, judged: Callable[..., dict[str, Any]]) -> None:
        truth = 22 + noisy(9)
        found = judged(truth, truth + noisy(1, seed=1), overrides={"promises": [{"metric": "r2", "at_least": 0.5}]})
        assert found["primary"] == "r2"
        assert gate(found, "promise")["passed"] is True
        assert gate(found, "baseline")["passed"] is True
        assert gate(found, "baseline")["reason"].startswith("R² 0.98")
