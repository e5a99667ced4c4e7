from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headrace.artifacts import Artifact
from headrace.errors import ConfigError, StageFailed
from headrace.evaluating import evaluate
from headrace.measuring import own, tasks
from headrace.measuring.own import Own, Trial
from headrace.spec import Feature
from tests.core.judging import echo, gate, request
from tests.core.keeping import keep
from tests.core.making import artifact

Array = np.ndarray[Any, Any]


def returns(mean: float, episodes: int = 60, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(mean, 20, episodes)


def play(trial: Trial) -> Own:
    """Games of the model, and of one that does anything."""
    episodes = trial.trials(60)
    return Own(
        {"reward": returns(100, episodes), "length": returns(30, episodes, 1), "frechet_distance": 12.5},
        larger_is_better={"reward"},
        naive={
            "random actions": {"reward": returns(20, 40, 2), "frechet_distance": 80.0},
            "always left": {"reward": returns(10, 40, 3)},
        },
        samples={"last frame": np.zeros((4, 6, 3), np.uint8), "log": "left, right"},
    )


def no_better(trial: Trial) -> Own:
    return Own({"reward": returns(21)}, larger_is_better=["reward"], naive={"random": {"reward": returns(20, seed=1)}})


def distance_only(trial: Trial) -> Own:
    return Own({"frechet_distance": 12.5}, naive={"noise": {"frechet_distance": 80.0}})


def alone(trial: Trial) -> Own:
    return Own({"loss": returns(5)})


def broken(trial: Trial) -> Own:
    return Own({"loss": np.array([1.0, np.nan])})


def speaks_of_others(trial: Trial) -> Own:
    return Own({"loss": 1.0}, naive={"noise": {"lost": 2.0}})


def returns_numbers(trial: Trial) -> Any:
    return {"loss": 1.0}


def folder(path: Path) -> Artifact:
    """Records of images without a target, and what a training leaves: two models and an array."""
    layout = {"image": Feature(shape=(2, 2, 1))}
    about = {"workload": "judged", "source": "made", "data": "synthetic"}
    images = np.arange(12, dtype=np.float32).reshape(3, 2, 2, 1)
    keep(path, layout, about=about, train={"image": images + 1}, test={"image": images})
    empty = {"version": 2, "rows": 3, "features": {}}
    return artifact(path, "preprocess", statistics=empty)


def judge(path: Path, measure: Any, **variant: Any) -> Artifact:
    return evaluate(request("own", variant, measure=measure), folder(path / "records"), echo(path / "model", (2, 2, 1)))


class TestOwnMeasures:
    def test_a_model_without_a_target_is_judged_by_what_its_workload_measures(self, tmp_path: Path) -> None:
        made = judge(tmp_path, play)
        found = made.json("evaluation.json")
        assert (found["primary"], found["larger_is_better"], found["outputs"]) == ("reward", ["reward"], {})
        assert found["metrics"]["reward"] == pytest.approx(returns(100).mean())
        low, high = found["intervals"]["reward"]
        assert high - low == pytest.approx(2 * 1.96 * returns(100).std() / 60**0.5, rel=0.1)
        assert (found["metrics"]["frechet_distance"], found["intervals"]["frechet_distance"]) == (12.5, None)
        assert found["units"] == {"reward": 60, "length": 60, "frechet_distance": None}
        assert found["baselines"]["random actions"]["frechet_distance"] == 80
        assert gate(found, "baseline")["passed"] is True
        assert "of the best naive answer, the random actions: better by" in gate(found, "baseline")["reason"]

    def test_it_has_the_shape_of_any_other_evaluation(self, tmp_path: Path) -> None:
        found = judge(tmp_path, play, promises=[{"metric": "length", "at_most": 50}]).json("evaluation.json")
        assert found["primary"] == "length"
        assert {"split", "examples", "metrics", "intervals", "baselines", "gates", "promises"} <= set(found)
        assert [entry["gate"] for entry in found["gates"]] == ["promise", "baseline"]
        assert gate(found, "promise")["reason"].startswith("length 29")
        assert gate(found, "baseline") == {
            "gate": "baseline",
            "passed": None,
            "reason": "`measure` names nothing naive to beat in length",
        }

    def test_what_people_shall_look_at_is_kept_as_files(self, tmp_path: Path) -> None:
        from PIL import Image

        made = judge(tmp_path, play)
        samples = made.json("evaluation.json")["samples"]
        assert [entry["name"] for entry in samples] == ["last frame", "log"]
        image, text = (made.path / entry["file"] for entry in samples)
        assert Image.open(image).size == (6, 4)
        assert text.read_text() == "left, right"

    def test_a_smoke_run_tries_fewer(self, tmp_path: Path) -> None:
        found = judge(tmp_path, play, evaluate={"trials": 7}).json("evaluation.json")
        assert found["units"]["reward"] == 7

    def test_a_study_can_draw_the_units_again(self, tmp_path: Path) -> None:
        made = judge(tmp_path, play)
        drawn = own.resamples(made, "reward")
        assert drawn is not None
        assert [np.percentile(drawn, q) for q in (2.5, 97.5)] == made.json("evaluation.json")["intervals"]["reward"]
        assert own.resamples(made, "frechet_distance") is None

    @pytest.mark.parametrize(
        ("measure", "error", "said"),
        [
            (None, ConfigError, "nothing measures it"),
            (returns_numbers, StageFailed, r"returns no metrics[^$]*received: dict"),
            (broken, StageFailed, "1 of them not finite"),
            (speaks_of_others, StageFailed, "does not measure: lost"),
        ],
    )
    def test_what_is_no_measure_stops_it(self, tmp_path: Path, measure: Any, error: type[Exception], said: str) -> None:
        with pytest.raises(error, match=said):
            judge(tmp_path, measure)

    def test_it_is_the_task_of_all_targets_together(self) -> None:
        assert tasks.usual("own") == ("", frozenset())
        with pytest.raises(ConfigError, match="single target can't be `own`"):
            tasks.of("own", Feature())


class TestBaselineGate:
    def test_a_model_that_is_not_clearly_better_fails(self, tmp_path: Path) -> None:
        found = gate(judge(tmp_path, no_better).json("evaluation.json"), "baseline")
        assert found["passed"] is False
        assert "does not clearly beat" in found["reason"]

    def test_single_numbers_are_compared_as_they_are(self, tmp_path: Path) -> None:
        found = gate(judge(tmp_path, distance_only).json("evaluation.json"), "baseline")
        assert found["passed"] is True
        assert found["reason"].endswith("better by 67.5 single numbers, without an interval")

    def test_units_are_not_paired(self) -> None:
        """The same numbers twice, as if they came from two models: a paired difference would have no width at all."""
        units = returns(20)
        found = own.baseline_gate(Own({"x": units}, naive={"twin": {"x": units}}), "x")
        low, high = (float(bound) for bound in found["reason"].split("[")[1].rstrip("]").split(", "))
        assert high - low == pytest.approx(2 * 1.96 * units.std() * (2 / 60) ** 0.5, rel=0.15)


class TestBlessedGate:
    @pytest.mark.parametrize(("before", "passed"), [(99, True), (112, True), (125, False)])
    def test_it_fails_if_the_model_is_worse_by_more_than_chance(self, before: float, passed: bool) -> None:
        sides: list[dict[str, Any]] = [
            {
                "primary": "reward",
                "larger_is_better": ["reward"],
                "metrics": {"reward": value},
                "intervals": {"reward": [value - 10, value + 10]},
            }
            for value in (100, before)
        ]
        found = own.blessed_gate(sides[0], sides[1], 3)
        assert found["passed"] is passed
        assert f"of the blessed version 3 {before}" in found["reason"]

    def test_single_numbers_are_not_comparable(self) -> None:
        side: Mapping[str, Any] = {
            "primary": "d",
            "larger_is_better": [],
            "metrics": {"d": 1},
            "intervals": {"d": None},
        }
        assert own.blessed_gate(side, side, 3)["passed"] is None


class TestTrial:
    def test_it_gives_models_examples_and_what_a_loop_has_left(self, tmp_path: Path) -> None:
        from headrace.training import save_model

        model = echo(tmp_path / "model", (2, 2, 1))
        import keras

        save_model(keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)]), model.path / "critic.keras")
        np.savez(model.path / "results.npz", picture=np.ones(4))
        job = request("own", {"evaluate": {"trials": 5}}, measure=play)
        trial = own.trial_of(job, folder(tmp_path / "records"), model)
        assert list(trial.models) == ["critic", "model"]
        assert trial.models["critic"].input_shape == (None, 3)
        assert trial.models["critic"] is trial.models["critic"]
        assert trial.results["picture"].shape == (4,)
        assert trial.first(2)["image"][1, 0, 0, 0] == 4
        assert trial.first(99, "train")["image"].shape == (3, 2, 2, 1)
        assert [len(batch["image"]) for batch in trial.batches("test")] == [3]
        assert (trial.trials(100), trial.seed, trial.settings.train.epochs) == (5, 0, 1)
        assert set(trial.features) == {"image"}
        with pytest.raises(StageFailed, match="left no model `critics`: did you mean `critic`"):
            trial.models["critics"]
