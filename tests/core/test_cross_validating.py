"""Laying the folds' curves over each other."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from headrace.artifacts import Artifact, close, write_json
from headrace.chain import Stages, cross_validated
from headrace.cross_validating import cross_validate, held_out, smoothed, validation_rows
from headrace.errors import ConfigError
from headrace.jobs import resolve
from tests.conftest import JobFactory
from tests.core.pretending import pretending


def fold(folder: Path, number: int, curve: list[float]) -> Artifact:
    folder = folder / f"fold-{number}"
    folder.mkdir()
    write_json(folder / "history.json", {"metrics": {"loss": curve, "val_mae": curve}})
    return Artifact(folder, close(folder, {})["digest"], f"train/fold {number}")


def validated(job: JobFactory, folds: list[Artifact], metric: str = "val_mae", mode: str = "min") -> dict[str, object]:
    request = job(variant="kfold_100", overrides={"cross_validation.metric": metric, "cross_validation.mode": mode})
    return cross_validate(request, folds).json("cross_validation.json")


def test_the_mean_is_that_of_the_last_epochs(job: JobFactory, tmp_path: Path) -> None:
    found = validated(job, [fold(tmp_path, 1, [4.0, 2.0, 1.0]), fold(tmp_path, 2, [6.0, 2.0, 3.0])])

    assert found["mean"] == 2.0
    assert found["curve"] == [5.0, 2.0, 2.0]


@pytest.mark.parametrize(("mode", "expected"), [("min", 20), ("max", 40)])
def test_the_best_epoch_is_that_of_the_smoothed_curve(
    job: JobFactory, tmp_path: Path, mode: str, expected: int
) -> None:
    """A valley at epoch 17 (smoothing lags by some epochs) and a single spike, which smoothing must not follow."""
    curve = [0.1 + abs(epoch - 16) / 10 for epoch in range(40)]
    curve[26] = 0.0 if mode == "min" else 4.0

    assert abs(int(str(validated(job, [fold(tmp_path, 1, curve)], mode=mode)["best_epoch"])) - expected) <= 4


def test_folds_of_different_length_are_averaged_as_far_as_all_go(job: JobFactory, tmp_path: Path) -> None:
    """Early stopping ends each fold where it must."""
    found = validated(job, [fold(tmp_path, 1, [3.0, 2.0, 1.0]), fold(tmp_path, 2, [5.0, 4.0])])

    assert found["curve"] == [4.0, 3.0]
    assert found["mean"] == 2.5


def test_a_metric_that_was_not_measured_is_refused_with_the_nearest(job: JobFactory, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean `val_mae`"):
        validated(job, [fold(tmp_path, 1, [1.0])], metric="val_mea")


def test_smoothing_keeps_a_constant() -> None:
    assert smoothed([3.0] * 5) == pytest.approx([3.0] * 5)


class TestFolds:
    def test_are_consecutive_blocks_of_equal_size(self) -> None:
        masks = [held_out(11, fold, 3, None, seed=0) for fold in (1, 2, 3)]
        assert [np.flatnonzero(mask).tolist() for mask in masks] == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]

    def test_that_are_drawn_share_no_example_and_differ_with_repeat_and_seed(self) -> None:
        masks = np.array([held_out(12, fold, 4, 1, seed=0) for fold in (1, 2, 3, 4)])
        assert masks.sum(axis=0).tolist() == [1] * 12
        assert masks.sum(axis=1).tolist() == [3] * 4
        first = held_out(100, 1, 4, 1, seed=0)
        assert (first == held_out(100, 1, 4, 1, seed=0)).all()
        for other in (held_out(100, 1, 4, 2, seed=0), held_out(100, 1, 4, 1, seed=1)):
            assert (first != other).any()

    def test_need_an_example_each(self) -> None:
        with pytest.raises(ConfigError, match="can't be cut into 5 folds"):
            held_out(4, 1, 5, None, seed=0)

    def test_leave_the_last_examples_to_a_validation_split(self) -> None:
        assert np.arange(60_000)[validation_rows(60_000, 1 / 6)].tolist() == list(range(50_000, 60_000))


class TestRepeats:
    DRAWN: ClassVar = {"cross_validation.repeats": 2, "cross_validation.shuffle": True}

    def test_are_nodes_of_their_own(self, stages: Stages, project: Path) -> None:
        job = resolve("tiny", variant="folded", overrides={**self.DRAWN, "cross_validation.folds": 2})
        *made, _average = cross_validated(job, pretending(stages), stages.preprocess(job, stages.download(job)))
        nodes = [artifact.node for artifact in made]
        assert nodes == [f"train/repeat {repeat}/fold {fold}" for repeat in (1, 2) for fold in (1, 2)]
        assert len({artifact.path for artifact in made}) == 4

    def test_give_the_mean_of_their_means_with_spread_and_interval(self, job: JobFactory, tmp_path: Path) -> None:
        from scipy import stats

        last = [1.0, 2.0, 3.0, 6.0]
        folds = [fold(tmp_path, number, [9.0, value]) for number, value in enumerate(last)]
        request = job(variant="kfold_100", overrides=self.DRAWN)  # 2 folds in a smoke run
        found = cross_validate(request, folds).json("cross_validation.json")
        assert (found["mean"], found["repeats"]) == (3.0, [1.5, 4.5])
        assert [(entry["repeat"], entry["fold"]) for entry in found["folds"]] == [(1, 1), (1, 2), (2, 1), (2, 2)]
        assert found["spread"] == pytest.approx(np.std(last, ddof=1))
        expected = stats.ttest_1samp(last, 0).confidence_interval()
        assert found["interval"] == pytest.approx([expected.low, expected.high])

    def test_that_would_be_all_the_same_are_refused(self, job: JobFactory) -> None:
        with pytest.raises(ConfigError, match="set shuffle"):
            job(variant="kfold_100", overrides={"cross_validation.repeats": 3})
