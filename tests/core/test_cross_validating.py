"""Laying the folds' curves over each other."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.artifacts import Artifact, close, write_json
from headrace.cross_validating import cross_validate, smoothed
from headrace.errors import ConfigError
from tests.conftest import JobFactory


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
