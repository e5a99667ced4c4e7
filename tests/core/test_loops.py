"""Loops written by hand: what is watched decides which weights are left, and what was gathered is kept."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headrace import Feature
from headrace.artifacts import Artifact
from headrace.engine.loops import Loop, Start
from headrace.training import train
from tests.core.trainables import EXAMPLES, records, request

CURVE = [1.0, 5.0, 2.0, 7.0, 3.0, 4.0]
"""What is found at the end of each epoch."""


class Counted(Loop):
    """Every weight is the number of steps done; two steps to an epoch."""

    steps = 2

    def __init__(self, start: Start, more: float = 0.0) -> None:
        self.model, self.done, self.more = start.model, 0, more
        self.notes = start.notes

    def advance(self, step: int) -> Mapping[str, float]:
        self.done = step + 1
        self.model.set_weights([np.full(weight.shape, self.done) for weight in self.model.get_weights()])
        return {"loss": 1.0}

    def watch(self) -> Mapping[str, float]:
        found = CURVE[self.done // 2 - 1] + self.more
        self.finished = found > 100
        return {"found": found}

    def gathered(self) -> Mapping[str, Any]:
        return {"x": np.full((7, 3), self.done, np.float32)}


def trained(folder: Path, loop: dict[str, Any] | None = None, **settings: Any) -> Artifact:
    """What a training by that loop leaves."""
    made = records("plain", folder)
    job = request("plain", **{"epochs": len(CURVE), "metrics": (), **settings})
    job.__dict__["pipeline"] = job.pipeline.model_copy(update={"loop": Counted})
    return train(job.model_copy(update={"settings": job.settings.model_copy(update={"loop": loop or {}})}), made)


def weight(made: Artifact, name: str) -> float:
    import keras

    return float(keras.saving.load_model(made.path / f"{name}.keras", compile=False).get_weights()[0].ravel()[0])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HEADRACE_HOME", str(tmp_path / "home"))
    return tmp_path / "records"


def test_without_anything_to_watch_the_last_weights_are_left(folder: Path) -> None:
    made = trained(folder)

    assert weight(made, "model") == 12
    assert made.json("history.json")["metrics"]["found"] == CURVE
    assert made.json("history.json")["metrics"]["loss"] == [1.0] * len(CURVE)


def test_the_best_weights_are_left_beside_the_last(folder: Path) -> None:
    made = trained(folder, checkpoint={"monitor": "found", "mode": "max"})

    assert (weight(made, "model"), weight(made, "last")) == (8, 12)
    assert made.json("history.json")["best_epoch"] == 4


def test_the_last_weights_are_left_beside_the_best_where_that_is_asked_for(folder: Path) -> None:
    made = trained(folder, checkpoint={"monitor": "found", "mode": "max", "use": "last"})

    assert (weight(made, "model"), weight(made, "best")) == (12, 8)


def test_early_stopping_ends_it_with_the_weights_of_the_best_epoch(folder: Path) -> None:
    made = trained(folder, early_stopping={"monitor": "found", "mode": "max", "patience": 1})

    assert made.json("history.json")["metrics"]["found"] == CURVE[:3]
    assert weight(made, "model") == 4


def test_a_loop_may_end_by_itself(folder: Path) -> None:
    made = trained(folder, {"more": 95.5})

    assert made.json("history.json")["epochs"] == 2
    assert weight(made, "model") == 4


def test_a_loop_takes_arguments(folder: Path) -> None:
    assert trained(folder, {"more": 10.0}).json("history.json")["metrics"]["found"][0] == 11.0


def test_what_was_gathered_is_kept_as_records(folder: Path) -> None:
    from headrace.records.inputs import arrays, read_info

    made = trained(folder)
    kept = made.path / "gathered"

    assert read_info(kept).examples == {"train": 7}
    np.testing.assert_array_equal(arrays(kept, "train")["x"], np.full((7, 3), 12, np.float32))


def test_notes_are_read_when_they_are_asked_for(folder: Path) -> None:
    made = records("dense", folder)
    features = {"size": Feature(shape=(3,)), "name": Feature(dtype="string", role="note")}
    start = Start(None, None, None, features, request("dense").settings.train, 0, made.path)  # type: ignore[arg-type]

    assert list(start.notes) == ["name"]
    assert len(start.notes["name"]) == EXAMPLES
