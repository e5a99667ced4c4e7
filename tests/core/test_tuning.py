"""Tunings: what is proposed, what is never repeated, and what becomes of the best."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from headrace import projects, tuning
from headrace.artifacts import Artifact, home
from headrace.chain import Stages, tuned
from headrace.errors import ConfigError, Diverged, StageFailed, SystemTrouble
from headrace.spec import Choice, Float, Int, Tuning
from headrace.tuning import Trial
from tests.core.pretending import pretending, write_workload

Headrace = Callable[..., Any]

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def tiny(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_workload(project)
    # Drawing takes longer than all the rest.
    monkeypatch.setattr(tuning, "_page", lambda job, found: "")
    return project / "pipelines" / "tiny.py"


@pytest.fixture
def pretended(stages: Stages, monkeypatch: pytest.MonkeyPatch) -> Stages:
    """Stages whose results follow from the settings; the command line uses them, too."""
    used = pretending(stages)
    monkeypatch.setattr(Stages, "plain", lambda: used)
    return used


def declare(monkeypatch: pytest.MonkeyPatch, **changes: Any) -> None:
    """Change the tuning `eight`."""
    pipeline = projects.load("tiny")
    changed = Tuning.model_validate(pipeline.tunings["eight"].model_dump() | changes)
    monkeypatch.setitem(pipeline.tunings, "eight", changed)


def tune(stages: Stages, limit: int = 1, **request: Any) -> tuple[dict[str, Any], dict[str, str]]:
    """What `tuning.json` says, and the state of each node."""
    plan = tuning.plan("tiny", "eight", **request)
    made = tuned(plan, limit)(plan.job, stages)
    return made[-1].json("tuning.json"), {artifact.node: artifact.state for artifact in made}


def proposed(most: int = 1, value: Callable[[Trial], float | None] = lambda trial: 1.0, **request: Any) -> list[Trial]:
    """All trials that the oracle proposes if trials come to this value."""
    plan = tuning.plan("tiny", "eight", **request)
    found: list[Trial] = []
    with tuning.proposals(plan) as oracle:
        while batch := oracle.ask(most):
            for trial in batch:
                found.append(trial.model_copy(update={"value": value(trial)}))
                oracle.tell(found[-1])
    return found


class TestProposals:
    def test_by_grid_are_the_whole_space_once(self) -> None:
        values = [tuple(trial.values.values()) for trial in proposed()]
        assert len(values) == 8
        assert set(values) == {(units, rule) for units in (16, 32, 48, 64) for rule in ("rmsprop", "adam")}

    def test_at_random_are_different_and_follow_from_the_seed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        space = {"model.units": Int(low=2, high=64), "train.learning_rate": Float(low=1e-4, high=1e-1, sampling="log")}
        declare(monkeypatch, tuner="random", space=space, max_trials=6)
        first, again, other = proposed(), proposed(), proposed(seed=5)
        assert [trial.values for trial in first] == [trial.values for trial in again]
        assert [trial.values for trial in first] != [trial.values for trial in other]
        assert len({tuple(trial.values.values()) for trial in first}) == 6
        assert all(2 <= trial.values["model.units"] <= 64 for trial in first)
        assert all(1e-4 <= trial.values["train.learning_rate"] <= 1e-1 for trial in first)

    def test_at_random_end_when_the_space_is_used_up(self, monkeypatch: pytest.MonkeyPatch) -> None:
        declare(monkeypatch, tuner="random", space={"model.units": Choice(values=(2, 4))}, max_trials=50)
        assert sorted(trial.values["model.units"] for trial in proposed()) == [2, 4]

    def test_by_hyperband_try_the_best_again_for_longer(self, monkeypatch: pytest.MonkeyPatch) -> None:
        space = {"model.units": Int(low=2, high=64)}
        declare(monkeypatch, tuner="hyperband", space=space)
        trials = proposed(value=lambda trial: 1 / trial.values["model.units"], overrides={"train.epochs": 9})
        assert {trial.epochs for trial in trials} == {1, 3, 9}
        first = [trial for trial in trials[:12] if trial.epochs == 1]
        second = [trial for trial in trials if trial.epochs == 3][: len(first) // 3]
        best = sorted((trial.values["model.units"] for trial in first), reverse=True)
        assert {trial.values["model.units"] for trial in second} <= set(best[: len(best) // 2])

    def test_by_bayes_need_a_package_that_may_not_be_there(self, monkeypatch: pytest.MonkeyPatch) -> None:
        declare(monkeypatch, tuner="bayesian")
        bayesian = pytest.importorskip("keras_tuner.src.tuners.bayesian")
        monkeypatch.setattr(bayesian, "sklearn", None)
        with pytest.raises(SystemTrouble, match="needs scikit-learn"):
            proposed()

    def test_by_bayes_learn_from_results_and_follow_from_them(self, monkeypatch: pytest.MonkeyPatch) -> None:
        pytest.importorskip("sklearn")
        space = {"model.units": Int(low=0, high=100)}
        declare(monkeypatch, tuner="bayesian", space=space, max_trials=9)

        def value(trial: Trial) -> float:
            return float((trial.values["model.units"] - 70) ** 2)

        first = proposed(value=value)
        assert [trial.values for trial in first] == [trial.values for trial in proposed(value=value)]
        assert min(abs(trial.values["model.units"] - 70) for trial in first[3:]) <= 5

    def test_go_on_after_trials_that_failed(self) -> None:
        assert len(proposed(value=lambda trial: None if trial.number < 6 else 1.0)) == 8

    def test_in_batches_are_as_many(self) -> None:
        assert len(proposed(most=3)) == 8


class TestPlans:
    def test_are_refused_for_values_that_can_not_be_set(self, monkeypatch: pytest.MonkeyPatch) -> None:
        space = {"model.unit": Choice(values=(1,)), "train.epochs": Int(low=0, high=5)}
        declare(monkeypatch, space=space)
        with pytest.raises(ConfigError) as raised:
            tuning.plan("tiny", "eight")
        assert "takes no `unit`" in str(raised.value)
        assert "train.epochs: input should be greater than or equal to 1; received 0" in str(raised.value)

    def test_are_refused_where_nothing_is_held_out(self, monkeypatch: pytest.MonkeyPatch) -> None:
        declare(monkeypatch, settings={})
        with pytest.raises(ConfigError, match="trials are judged on held-out examples, and there are none"):
            tuning.plan("tiny", "eight")

    def test_are_refused_for_a_tuning_that_is_not_there(self) -> None:
        with pytest.raises(ConfigError, match="did you mean `eight`"):
            tuning.plan("tiny", "eigth")

    def test_of_a_smoke_run_are_small(self) -> None:
        plan = tuning.plan("tiny", "eight", profile="smoke")
        assert (plan.tuning.max_trials, plan.tuning.top, plan.job.settings.train.epochs) == (4, 2, 1)

    def test_know_the_direction_of_the_objective(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert tuning.plan("tiny", "eight").tuning.mode == "min"
        declare(monkeypatch, objective="val_accuracy")
        assert tuning.plan("tiny", "eight").tuning.mode == "max"


class TestRuns:
    def test_choose_on_held_out_examples_and_test_the_best_alone(self, pretended: Stages) -> None:
        tested: list[str] = []

        def evaluate(job: Any, *others: Any, **named: Any) -> Artifact:
            tested.append(job.label)
            return pretended.evaluate(job, *others, **named)

        found, states = tune(replace(pretended, evaluate=evaluate))
        assert tested == ["best 1", "best 2"]
        assert [trial["value"] for trial in found["trials"]][:2] == pytest.approx([1.5, 1.2])
        values = [one["values"] for one in found["finalists"]]
        assert values == [
            {"model.units": 64, "train.optimizer": "adam"},
            {"model.units": 48, "train.optimizer": "adam"},
        ]
        assert [node for node in states if "trial" in node] == [f"train/trial {number}" for number in range(1, 9)]
        assert "ensemble/eight" in states
        assert found["ensemble"]["metrics"] == {"mae": 0.5}

    def test_train_the_best_on_everything_for_a_little_longer(self, pretended: Stages) -> None:
        jobs: dict[str, Any] = {}

        def train(job: Any, *others: Any, **named: Any) -> Artifact:
            jobs[job.label] = job.settings.train
            return pretended.train(job, *others, **named)

        found, _ = tune(replace(pretended, train=train), overrides={"train.epochs": 20})
        searched, final = jobs["best 1 · epochs"], jobs["best 1"]
        assert (searched.validation_split, searched.early_stopping.patience, searched.epochs) == (0.2, 10, 20)
        assert (final.validation_split, final.early_stopping, final.epochs) == (0.0, None, 12)
        assert (found["finalists"][0]["best_epoch"], found["finalists"][0]["epochs"]) == (10, 12)

    def test_skip_everything_the_second_time(self, pretended: Stages) -> None:
        first, _ = tune(pretended)
        again, states = tune(pretended)
        assert set(states.values()) == {"skipped"}
        assert again == first

    def test_take_the_mean_of_several_executions(self, pretended: Stages, monkeypatch: pytest.MonkeyPatch) -> None:
        declare(monkeypatch, executions=2, max_trials=1, top=1)
        found, states = tune(pretended)
        assert [node for node in states if "trial" in node] == ["train/trial 1", "train/trial 1 · seed 1"]
        assert found["trials"][0]["value"] == pytest.approx(1.505)

    def test_tell_a_trial_that_diverges_and_go_on(self, pretended: Stages, monkeypatch: pytest.MonkeyPatch) -> None:
        declare(monkeypatch, space={"train.learning_rate": Choice(values=(2.0, 0.01))})
        found, _ = tune(pretended)
        assert [trial["value"] for trial in found["trials"]] == [None, pytest.approx(3.0)]
        assert found["trials"][0]["problem"] == "The loss is nan in epoch 1."
        assert found["best"] == 2

    def test_that_finish_no_trial_fail(self, pretended: Stages) -> None:
        with pytest.raises(StageFailed, match="No trial of `eight` could be finished"):
            tune(pretended, overrides={"train.learning_rate": 3.0})

    def test_go_on_without_a_finalist_that_diverges(self, pretended: Stages) -> None:
        def train(job: Any, *others: Any, **named: Any) -> Artifact:
            if job.label == "best 1":
                raise Diverged("The loss is nan in epoch 9.")
            return pretended.train(job, *others, **named)

        found, states = tune(replace(pretended, train=train))
        assert found["finalists"][0]["problem"].startswith("The loss is nan in epoch 9.")
        assert found["finalists"][1]["metrics"]
        assert "ensemble/eight" not in states

    def test_for_an_objective_that_was_not_measured_name_the_nearest(
        self, pretended: Stages, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        declare(monkeypatch, objective="val_mea")
        with pytest.raises(ConfigError, match="did you mean `val_mae`"):
            tune(pretended)

    @pytest.mark.parametrize("tuner", ["random", "grid", "hyperband"])
    def test_that_are_interrupted_repeat_no_trial_and_end_as_undisturbed(
        self, pretended: Stages, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tuner: str
    ) -> None:
        declare(monkeypatch, tuner=tuner, max_trials=6)
        trained: list[str] = []

        def train(job: Any, *others: Any, **named: Any) -> Artifact:
            made = pretended.train(job, *others, **named)
            if made.state == "run":
                trained.append(job.label)
            if len(trained) == 4:
                raise KeyboardInterrupt
            return made

        with pytest.raises(KeyboardInterrupt):
            tune(replace(pretended, train=train))
        resumed, states = tune(pretended)
        assert [states[f"train/trial {number}"] for number in range(1, 7)] == ["skipped"] * 4 + ["run"] * 2
        monkeypatch.setenv("HEADRACE_HOME", str(tmp_path / "elsewhere"))
        undisturbed, _ = tune(pretended)
        places = [finalist.pop("model") for one in (resumed, undisturbed) for finalist in one["finalists"]]
        assert places
        assert resumed == undisturbed


KILLED = """
import os, signal, sys
sys.path[:0] = [{project!r}, {root!r}]
from dataclasses import replace
from headrace import tuning
from headrace.chain import Stages, tuned
from tests.core import conftest
from tests.core.pretending import pretending

stages = pretending(conftest.stand_ins())
begun = []

def train(job, *others, **named):
    begun.append(job.label)
    if len(begun) == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    return stages.train(job, *others, **named)

plan = tuning.plan("tiny", "eight")
tuned(plan)(plan.job, replace(stages, train=train))
"""


def test_a_tuning_that_was_killed_repeats_no_finished_trial(pretended: Stages, project: Path) -> None:
    script = project / "killed.py"
    script.write_text(KILLED.format(root=str(ROOT), project=str(project)))
    done = subprocess.run([sys.executable, script], check=False, cwd=project, capture_output=True, text=True)
    assert done.returncode == -9, done.stderr
    _, states = tune(pretended)
    assert [states[f"train/trial {number}"] for number in range(1, 9)] == ["skipped"] * 3 + ["run"] * 5


class TestCommands:
    def test_tell_trials_and_the_best(self, pretended: Stages, headrace: Headrace) -> None:
        result = headrace("tune", "tiny")
        assert result.code == 0, result.err
        for words in ("val_mae", "rmsprop", "best 1", "average", "tuning.html"):
            assert words in result.out
        assert json.loads(headrace("tune", "tiny", "--json").out)["tuning"]["best"] == 8

    def test_plan_as_far_as_can_be_known(self, pretended: Stages, headrace: Headrace) -> None:
        planned = headrace("tune", "tiny", "--plan", "--json").json["stages"]
        assert [stage["node"] for stage in planned] == ["download", "preprocess", "train/trial 1"]
        headrace("tune", "tiny")
        planned = headrace("tune", "tiny", "--plan", "--json").json["stages"]
        assert {stage["state"] for stage in planned} == {"skip"}


@pytest.mark.slow
def test_a_real_tuning_that_was_killed_repeats_no_finished_trial(headrace: Headrace, project: Path) -> None:
    """House prices' twin: SIGKILL in the middle of the third trial, which goes on from its checkpoint."""
    (project / "pipelines" / "house_prices.py").write_text((ROOT / "pipelines" / "house_prices.py").read_text())
    words = ("tune", "house_prices", "--profile", "smoke", "--data", "synthetic", "--json")
    small = ("--set", "train.jit_compile=false", "--set", "train.epochs=300")
    process = subprocess.Popen([sys.executable, "-m", "headrace", *words, *small], cwd=project, stdout=subprocess.PIPE)
    trained = home() / "artifacts" / "house_prices" / "train"
    third = home() / "work" / "house_prices" / "train"
    until = time.monotonic() + 200
    while not (len(list(trained.glob("*"))) >= 2 and list(third.glob("*/scratch/*"))) and time.monotonic() < until:
        time.sleep(0.05)
    process.kill()
    process.communicate()
    finished = len(list(trained.glob("*/manifest.json")))
    assert 2 <= finished < 4
    found = headrace(*words, *small).json
    states = [stage["state"] for stage in found["stages"] if stage["node"].startswith("train/trial")]
    assert states == ["skipped"] * finished + ["run"] * (4 - finished)
