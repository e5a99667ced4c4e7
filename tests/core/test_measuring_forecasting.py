from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headrace.errors import StageFailed
from headrace.evaluating import evaluate, measured
from headrace.measuring.forecasting import Forecasting
from headrace.measuring.resampling import intervals
from headrace.spec import Evaluate, Feature
from tests.core.judging import gate, judged, metrics, request
from tests.core.keeping import keep
from tests.core.making import artifact, trained

Array = np.ndarray[Any, Any]

NEXT = Feature(role="target")
AHEAD = Feature(shape=(6,), role="target")


def walk(count: int, seed: int = 0, keeps: float = 0.9) -> Array:
    """Numbers that remember those before them."""
    random, found = np.random.default_rng(seed), np.zeros(count)
    for i in range(1, count):
        found[i] = keeps * found[i - 1] + random.normal()
    return found


class TestForecasting:
    def test_it_measures_what_regression_does_and_the_error_at_some_steps_ahead(self) -> None:
        random = np.random.default_rng(0)
        truth = random.normal(size=(50, 6))
        answers = truth + random.normal(size=(50, 6)) * np.arange(1, 7)
        task = Forecasting(AHEAD)
        found, errors = metrics(task, truth, answers), np.abs(answers - truth)
        assert found["mae"] == pytest.approx(errors.mean())
        named = {name: value for name, value in found.items() if name.startswith("mae_step")}
        assert named == {f"mae_step_{k}": pytest.approx(errors[:, k - 1].mean(), rel=1e-5) for k in (1, 3, 4, 6)}
        assert task.about(task.facts(truth, answers))["horizons"] == pytest.approx(errors.mean(axis=0), rel=1e-5)

    def test_a_single_step_has_no_horizons(self) -> None:
        task, truth = Forecasting(NEXT), walk(20)
        facts = task.facts(truth, truth[:, None] + 1)
        assert set(metrics(task, truth, truth[:, None])) == {"mae", "mse", "rmse", "r2"}
        assert set(task.about(facts)) == {"block", "said", "worst"}

    def test_several_channels_count_together_at_each_step(self) -> None:
        task = Forecasting(Feature(shape=(3, 2), role="target"))
        truth = np.zeros((4, 3, 2))
        answers = truth + np.array([[1, 3], [0, 0], [2, 2]])
        assert task.about(task.facts(truth, answers))["horizons"] == [2, 0, 2]

    def test_the_skill_is_what_the_naive_error_is_lowered_by(self) -> None:
        task, truth = Forecasting(NEXT), walk(200)
        ours, theirs = task.facts(truth, truth[:, None] + 1), task.facts(truth, truth[:, None] - 4)
        further = task.beside({"last value": theirs, "mean": ours})
        assert float(task.measure({**ours, **further}, np.ones(200))["skill"]) == pytest.approx(0.75)
        assert float(task.measure({**theirs, **further}, np.ones(200))["skill"]) == 0
        assert "skill" in task.rising

    def test_the_skill_is_paired_so_that_hard_moments_do_not_widen_its_interval(self) -> None:
        task, truth = Forecasting(NEXT), walk(400)
        hard = np.random.default_rng(1).gamma(0.5, 4, (400, 1))
        ours, theirs = task.facts(truth, truth[:, None] + hard), task.facts(truth, truth[:, None] + 2 * hard)
        facts = {**ours, **task.beside({"last value": theirs})}
        found = intervals(lambda drawn: task.measure(facts, drawn), 400)
        low, high = found["skill"] or [0, 0]
        assert low == pytest.approx(0.5)
        assert high == pytest.approx(0.5)
        assert found["mae"] is not None
        assert found["mae"][1] - found["mae"][0] > 0.3


class TestBlocks:
    def test_neighbours_are_drawn_together(self) -> None:
        groups = Forecasting(NEXT).groups(1_000)
        assert (groups[:10] == 0).all()
        assert groups[10] == 1
        assert len(np.unique(groups)) == 100
        assert np.unique(Forecasting(NEXT, Evaluate(block=300)).groups(1_000)).size == 4

    def test_the_interval_of_errors_that_remember_is_as_wide_as_their_mean_varies(self) -> None:
        """Blocks of 60 for errors that are forgotten after some twenty steps; drawn one by one, most is missed."""
        groups = Forecasting(NEXT, Evaluate(block=60)).groups(1_500)
        means, widths = [], {"together": [], "alone": []}
        for seed in range(30):
            errors = np.abs(5 + walk(1_500, seed))
            means.append(errors.mean())
            for how, drawn in (("together", groups), ("alone", None)):
                low, high = intervals(lambda w, e=errors: {"mae": w @ e / w.sum(axis=-1)}, 1_500, drawn)["mae"] or [
                    0,
                    0,
                ]
                widths[how].append((high - low) / 3.92)
        assert 0.65 < np.mean(widths["together"]) / np.std(means) < 1.35
        assert np.mean(widths["alone"]) / np.std(means) < 0.4


def last_temperature(statistics: Any) -> Mapping[str, Any]:
    """As the module's own example has it."""
    series = statistics["window"]
    column = series.names.index("p")
    mean, scale = series.mean[column], series.scale[column]
    return {"last value": lambda inputs, count: inputs["window"][:, -1, column, None] * scale + mean}


def test_the_last_value_of_a_standardised_window_is_brought_back_into_its_unit() -> None:
    from headrace.describing.summaries import summarise
    from headrace.readers.batches import batches
    from tests.core.making import series

    features, values = series()
    statistics = summarise(batches(values, 16), features)
    window = values["window"] * 3 + 20
    given = statistics["window"]
    standardised = (window - given.mean) / given.scale
    answers = last_temperature(statistics)["last value"]({"window": standardised}, len(window))
    np.testing.assert_allclose(answers, window[:, -1, 1, None], rtol=1e-5)
    assert Forecasting(Feature(shape=(1,), role="target")).fits(answers.shape[1:])


def last_value(statistics: Any) -> Mapping[str, Any]:
    """The input of these tests is what the model answers, 1 above the last value."""
    return {"last value": lambda inputs, count: inputs["x"] - 1}


def of_another_shape(statistics: Any) -> Mapping[str, Any]:
    return {"last value": lambda inputs, count: np.zeros((count, 5))}


def of_each(statistics: Any) -> Mapping[str, Any]:
    return {"y": {"last value": lambda inputs, count: inputs["x"] - 1}}


class TestEvaluation:
    def test_naive_answers_of_one_of_several_targets_are_those_of_that_one(self, tmp_path: Path) -> None:
        import keras

        truth = walk(120).astype(np.float32)
        target = Feature(shape=(1,), role="target")
        values = {"x": truth[:, None] + 0.2, "y": truth[:, None], "z": truth[:, None]}
        layout = {"x": Feature(shape=(1,)), "y": target, "z": target}
        about = {"workload": "judged", "source": "made", "data": "synthetic"}
        keep(tmp_path / "records", layout, about=about, train=values, test=values)
        empty = {"version": 2, "rows": 120, "features": {}}
        records = artifact(tmp_path / "records", "preprocess", statistics=empty)
        given = keras.Input((1,), name="x")
        outputs = {name: keras.layers.Activation("linear", name=name)(given) for name in ("y", "z")}
        job = request({"y": "forecasting", "z": "regression"}, naive=of_each)
        found = evaluate(job, records, trained(keras.Model(given, outputs), tmp_path / "model"))
        baselines = found.json("evaluation.json")["baselines"]
        assert set(baselines["last value"]) == {"y_mae", "y_mse", "y_rmse", "y_r2", "y_skill"}
        assert {"y_mae", "z_mae"} <= set(baselines["mean"])

    def test_a_forecast_is_judged_by_its_skill_over_the_workloads_own_naive_one(self, tmp_path: Path) -> None:
        truth = walk(300)
        answers = truth[:, None] + 0.2
        job = request(
            "forecasting",
            {"promises": [{"metric": "skill", "at_least": 0.5}], "evaluate": {"block": 20}},
            naive=last_value,
        )
        made = judged(tmp_path, job, NEXT, truth.astype(np.float32), answers, walk(200, 1).astype(np.float32))
        found = made.json("evaluation.json")
        assert list(found["baselines"])[:3] == ["last value", "mean", "median"]
        assert found["baselines"]["last value"]["mae"] == pytest.approx(0.8, rel=1e-4)
        assert found["metrics"]["skill"] == pytest.approx(0.75, rel=1e-3)
        assert found["baselines"]["linear model"]["skill"] < 0
        assert found["baselines"]["last value"]["skill"] == pytest.approx(0)
        assert found["outputs"]["y"]["block"] == 20
        assert gate(found, "baseline")["passed"] is True
        assert "0 of the best naive answer, the last value" in gate(found, "baseline")["reason"]
        measures, facts = measured(made)
        assert float(measures.measure(facts)["skill"]) == pytest.approx(found["metrics"]["skill"])
        groups = measures.groups(300)
        assert groups is not None
        assert groups.max() == 14

    def test_one_of_several_steps_tells_each_of_them(self, tmp_path: Path) -> None:
        random = np.random.default_rng(0)
        truth = random.normal(size=(100, 6)).astype(np.float32)
        found = judged(tmp_path, request("forecasting"), AHEAD, truth, truth * 0.9, truth).json("evaluation.json")
        assert len(found["outputs"]["y"]["horizons"]) == 6
        assert found["baselines"]["mean"]["mae_step_6"] > found["metrics"]["mae_step_6"]
        assert found["metrics"]["skill"] == pytest.approx(0.9, abs=0.02)

    def test_naive_answers_of_another_shape_stop_it(self, tmp_path: Path) -> None:
        truth = walk(50).astype(np.float32)
        with pytest.raises(StageFailed, match=r"`last value` has not the shape.*\n.*\n  received: \(50, 5\)"):
            judged(tmp_path, request("forecasting", naive=of_another_shape), NEXT, truth, truth[:, None], truth)
