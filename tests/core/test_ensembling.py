"""Ensembles: how answers are averaged, and what the weights may know."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from headrace import ensembling, evaluating, models
from headrace.chain import Stages, averaged
from headrace.ensembling import Mix, averages, ensemble, mixed, search
from headrace.errors import ConfigError, StageFailed
from headrace.jobs import Job, resolve
from headrace.measuring.tasks import Measures, of
from headrace.records import inputs
from headrace.records.inputs import Info
from headrace.spec import Feature
from tests.core.making import artifact
from tests.core.pretending import pretending, write_workload

Headrace = Callable[..., Any]


@pytest.fixture(autouse=True)
def tiny(project: Path) -> Path:
    write_workload(project)
    return project / "pipelines" / "tiny.py"


class TestAverages:
    def test_are_weighted_means(self) -> None:
        answers = np.array([[[1.0], [2.0]], [[3.0], [6.0]]], "float32")
        found = mixed(answers, np.array([0.25, 0.75]))
        assert found.dtype == np.float32
        assert found.ravel().tolist() == [2.5, 5.0]

    def test_of_powers_lean_to_the_confident_and_stay_probabilities(self) -> None:
        answers = np.array([[[0.9, 0.1]], [[0.4, 0.6]]])
        plain, powered = (mixed(answers, np.array([0.5, 0.5]), power)[0] for power in (1.0, 3.0))
        assert plain.tolist() == pytest.approx([0.65, 0.35])
        assert powered[0] > plain[0]
        assert powered.sum() == pytest.approx(1)

    def test_of_powers_are_brought_back_to_their_scale(self) -> None:
        assert mixed(np.full((2, 1, 1), 3.0), np.array([0.5, 0.5]), 2.0).item() == pytest.approx(3.0)

    def test_of_powers_refuse_negative_answers(self) -> None:
        with pytest.raises(StageFailed, match="not negative"):
            mixed(np.array([[[-1.0]], [[2.0]]]), np.array([0.5, 0.5]), 2.0)


class TestSearch:
    def test_finds_the_weights_that_are_best(self) -> None:
        planted = np.array([0.5, 0.3, 0.2])
        weights, tried = search(lambda weights: float(np.square(weights - planted).sum()), 3)
        assert weights == pytest.approx(planted, abs=0.01)
        assert weights.sum() == pytest.approx(1)
        assert tried > 50

    def test_can_leave_a_member_out(self) -> None:
        weights, _ = search(lambda weights: float(weights[1]), 2)
        assert weights[1] < 0.01

    def test_keeps_equal_weights_where_nothing_is_better(self) -> None:
        weights, _ = search(lambda weights: 1.0, 4)
        assert weights.tolist() == [0.25] * 4


class TestPlans:
    def test_have_a_job_for_each_member_and_seed(self) -> None:
        plan = ensembling.plan("tiny", "both", seeds=2)
        assert [job.label for job in plan.jobs] == ["small", "small · seed 1", "large", "large · seed 1"]
        assert plan.mix == Mix(weights="searched", held_out=0.25)

    def test_are_made_of_variants_as_well(self) -> None:
        plan = ensembling.plan("tiny", members=["plain", "folded"])
        assert [(job.variant, job.label) for job in plan.jobs] == [("plain", "plain"), ("folded", "folded")]
        assert plan.mix.weights == "equal"

    @pytest.mark.parametrize(
        ("request_", "answer"),
        [
            ({"name": "bot"}, "did you mean `both`"),
            ({}, "needs members"),
            ({"members": ["plain"]}, "at least two members"),
            ({"members": ["plain", "plane"]}, "did you mean `plain`"),
            ({"members": ["plain", "folded"], "weights": "searched"}, "no member has learned from"),
        ],
    )
    def test_are_refused_for_what_can_not_be_averaged(self, request_: dict[str, Any], answer: str) -> None:
        with pytest.raises(ConfigError, match=answer):
            ensembling.plan("tiny", **request_)


Split = dict[str, np.ndarray[Any, Any]]


class World:
    """Records and models that are made up: member k answers y plus an error of its own on each example.

    Args:
        tested: Targets of the test split.
    """

    features: ClassVar[dict[str, Feature]] = {"x": Feature(), "y": Feature(shape=(1,), role="target")}

    def __init__(self, tested: np.ndarray[Any, Any]) -> None:
        random = np.random.default_rng(1)
        self.read: list[str] = []
        self.targets = {"train": random.normal(0, 5, (80, 1)), "test": tested}

    def arrays(self, folder: Path, split: str) -> Split:
        self.read.append(split)
        return {"x": np.arange(len(self.targets[split]))[:, None], "y": self.targets[split]}

    def answered(self, job: Job, member: int, info: Info, batches: Sequence[Split]) -> Iterator[tuple[Split, Split]]:
        count = sum(len(batch["y"]) for batch in batches)
        random = np.random.default_rng([member, count])
        for batch in batches:
            yield batch, {"y": batch["y"] + random.normal(0, 1 + member, batch["y"].shape)}

    def search(self, *given: Any) -> Any:
        """Leaves a mark between what was read before and after it."""
        self.read.append("-")
        return search(*given)

    def ensemble(self, folder: Path, monkeypatch: pytest.MonkeyPatch, mix: Mix) -> dict[str, Any]:
        """What `ensemble.json` says of three members."""
        info = Info("tiny", "numbers", "synthetic", self.features, {}, {})
        monkeypatch.setattr(inputs, "arrays", self.arrays)
        monkeypatch.setattr(inputs, "read_info", lambda folder: info)
        monkeypatch.setattr(evaluating, "answered", self.answered)
        monkeypatch.setattr(models, "load", lambda model: int(model.node[-1]))
        folder.mkdir()
        made = [artifact(folder / name, name) for name in ("preprocess", "train/0", "train/1", "train/2")]
        job = resolve("tiny").model_copy(update={"cell": "three"})
        return ensemble(job, made[0], made[1:], mix=mix).json("ensemble.json")


SEARCHED = Mix(weights="searched", held_out=0.25)


class TestStage:
    def test_never_shows_the_test_split_to_the_search(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Poisoned: other test targets leave every weight as it is, and they are read when the weights are found."""
        found = []
        for name, tested in (("a", np.zeros((50, 1))), ("b", np.full((50, 1), 1e6))):
            world = World(tested)
            monkeypatch.setenv("HEADRACE_HOME", str(tmp_path / f"home {name}"))
            with monkeypatch.context() as patch:
                patch.setattr(ensembling, "search", world.search)
                found.append(world.ensemble(tmp_path / name, patch, SEARCHED))
            assert world.read == ["train", "-", "test"]
        weights = [[member["weight"] for member in one["members"]] for one in found]
        assert weights[0] == weights[1]
        assert found[0]["validation"] == found[1]["validation"]
        assert found[0]["validation"]["examples"] == 20

    def test_weighs_better_members_more_and_beats_each_on_what_it_has_seen(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        found = World(np.zeros((50, 1))).ensemble(tmp_path / "a", monkeypatch, SEARCHED)
        weights = [member["weight"] for member in found["members"]]
        assert weights[0] > weights[2]
        assert found["validation"]["searched"] <= found["validation"]["equal"]
        assert found["validation"]["searched"] <= min(found["validation"]["members"].values())

    def test_tells_the_gain_over_each_member_with_its_interval(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        found = World(np.zeros((50, 1))).ensemble(tmp_path / "a", monkeypatch, Mix())
        assert [member["weight"] for member in found["members"]] == pytest.approx([1 / 3] * 3)
        for member in found["members"]:
            low, high = member["gain_intervals"]["mae"]
            assert member["gain"]["mae"] == pytest.approx(member["metrics"]["mae"] - found["metrics"]["mae"])
            assert low <= member["gain"]["mae"] <= high

    def test_reads_no_held_out_examples_for_equal_weights(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        world = World(np.zeros((50, 1)))
        assert world.ensemble(tmp_path / "a", monkeypatch, Mix())["validation"] is None
        assert world.read == ["test"]

    def test_refuses_a_metric_that_the_task_has_not(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        mix = SEARCHED.model_copy(update={"metric": "mea"})
        with pytest.raises(ConfigError, match=r"did you mean .*`mae`"):
            World(np.zeros((50, 1))).ensemble(tmp_path / "a", monkeypatch, mix)


class Kinds(World):
    """Members that answer with probabilities of two classes and of three; the first is right most often."""

    features: ClassVar[dict[str, Feature]] = {
        "x": Feature(),
        "y": Feature(shape=(1,), role="target", dtype="int64"),
        "kind": Feature(shape=(3,), role="target"),
    }

    def __init__(self) -> None:
        super().__init__(np.zeros((50, 1)))
        random = np.random.default_rng(2)
        self.kinds = {split: random.integers(0, 3, count) for split, count in (("train", 200), ("test", 300))}

    def arrays(self, folder: Path, split: str) -> Split:
        self.read.append(split)
        kinds = self.kinds[split]
        return {"x": np.arange(len(kinds))[:, None], "y": (kinds[:, None] > 0) * 1, "kind": np.eye(3)[kinds]}

    def answered(self, job: Job, member: int, info: Info, batches: Sequence[Split]) -> Iterator[tuple[Split, Split]]:
        random = np.random.default_rng([member, len(batches)])
        for batch in batches:
            kinds = batch["kind"] + random.gamma(1, 0.3 + 0.2 * member, batch["kind"].shape)
            kinds /= kinds.sum(axis=1, keepdims=True)
            yield batch, {"y": 1 - kinds[:, :1], "kind": kinds}


class TestClasses:
    @pytest.mark.parametrize("power", [1.0, 2.0])
    def test_of_several_outputs_are_averaged_as_probabilities(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, edit: Any, power: float
    ) -> None:
        edit('task="regression"', 'task={"kind": "multiclass", "y": "binary"}')
        mix = Mix(weights="searched", held_out=0.25, metric="kind_accuracy", power=power)
        found = Kinds().ensemble(tmp_path / "a", monkeypatch, mix)
        assert (found["primary"], found["validation"]["metric"], found["examples"]) == (
            "kind_accuracy",
            "kind_accuracy",
            300,
        )
        assert found["validation"]["searched"] >= max(found["validation"]["members"].values()) > 0.5
        for metric in ("kind_log_loss", "y_log_loss", "kind_accuracy", "y_auc"):
            assert found["metrics"][metric] is not None
        assert all(member["gain"]["kind_log_loss"] > 0 for member in found["members"][1:])

    def test_of_two_are_raised_to_a_power_on_both_sides(self) -> None:
        measures = Measures({"y": of("binary", Feature(role="target", dtype="int64"))})
        given = np.array([[[0.9]], [[0.4]]])
        sides = [
            averages(measures, {"y": score}, np.array([0.5, 0.5]), 3.0)["y"].item() for score in (given, 1 - given)
        ]
        assert sum(sides) == pytest.approx(1)
        assert sides[0] > 0.65


def test_every_member_is_a_node_and_the_second_time_skipped(stages: Stages) -> None:
    plan = ensembling.plan("tiny", "both")
    for state in ("run", "skipped"):
        made = averaged(plan)(plan.job, pretending(stages))
        nodes = [artifact.node for artifact in made]
        assert nodes == ["download", "preprocess", "train/small", "train/large", "ensemble/both"]
        assert {artifact.state for artifact in made} == {state}


def test_the_command_tells_weights_and_metrics(
    headrace: Headrace, stages: Stages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Stages, "plain", lambda: pretending(stages))
    result = headrace("ensemble", "tiny", "--members", "plain,folded", "--json")
    assert (result.code, result.json["metrics"]) == (0, {"mae": 0.5})
    assert [stage["node"] for stage in result.json["stages"]][-1] == "ensemble/members"
