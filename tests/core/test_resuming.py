"""A training that is cut off anywhere ends with the weights of one that was left alone: every kind, to the last bit."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from headrace import training
from headrace.artifacts import Artifact
from headrace.training import train
from tests.core.cutting import child, cut_off
from tests.core.trainables import KINDS, records, request

STEPS = {"epochs": 4, "steps_per_execution": 2}
"""Six steps an epoch (four or five where something is held out), in calls of two."""

HARD: dict[str, dict[str, Any]] = {
    "convnet": {"seeds": "strict"},
    "lstm": {"drop_remainder": True},
    "dqn": {"epochs": 12},
}
"""What makes it harder."""


def trained(kind: str, folder: Path, home: Path, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> Artifact:
    """A training in a home of its own."""
    monkeypatch.setenv("HEADRACE_HOME", str(home))
    made = json.loads((folder / "manifest.json").read_text())
    return train(request(kind, **settings), Artifact(folder, made["digest"], "preprocess"))


def cut(kind: str, folder: Path, home: Path, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> None:
    """The same, until the power is cut."""
    cut_off(lambda: trained(kind, folder, home, monkeypatch, **settings), monkeypatch)


@pytest.mark.parametrize("kind", KINDS)
def test_a_training_cut_off_in_the_middle_of_an_epoch_goes_on_to_the_same_end(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "records"
    records(kind, folder)
    settings = {**STEPS, **HARD.get(kind, {})}
    expected = trained(kind, folder, tmp_path / "whole", monkeypatch, **settings)

    cut(kind, folder, tmp_path / "cut", monkeypatch, **settings)
    training._programs.clear()
    again = trained(kind, folder, tmp_path / "cut", monkeypatch, **settings)

    facts = again.json("training.json")
    assert facts["resumed_from_epoch"] > 0
    if kind != "dqn":
        assert facts["resumed_from_step"] > 0
    assert again.digest == expected.digest


@pytest.mark.parametrize("kind", ["dense", "convnet", "transformer", "gan"])
def test_a_stream_gives_the_weights_that_memory_gives(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut off and taken up again in the middle of an epoch as well."""
    folder = tmp_path / "records"
    records(kind, folder, validation=17)
    settings = {**STEPS, "validation_split": 0, "validation": None if kind == "gan" else "validation"}
    expected = trained(kind, folder, tmp_path / "memory", monkeypatch, **settings, feed="memory")
    cut(kind, folder, tmp_path / "stream", monkeypatch, **settings, feed="stream")
    training._programs.clear()
    again = trained(kind, folder, tmp_path / "stream", monkeypatch, **settings, feed="stream")

    facts = again.json("training.json")
    assert (facts["feed"], facts["resumed_from_step"] > 0) == ("stream", True)
    assert again.json("history.json") == expected.json("history.json")
    assert again.digest == expected.digest


# ------------------------------------------------------------------------------------------------- kill -9


def start(kind: str, home: Path | str, folder: Path, settings: dict[str, Any]) -> subprocess.Popen[str]:
    return child("-m", "tests.core.trainables", kind, str(home), str(folder), json.dumps(settings))


def outcome(process: subprocess.Popen[str]) -> tuple[str, tuple[int, int]]:
    """The digest of what it has made, and where it had gone on."""
    out, _ = process.communicate()
    word, digest, epoch, step = out.split()
    assert (process.returncode, word) == (0, "done")
    return digest, (int(epoch), int(step))


LONG = {
    "dense": 900,
    "convnet": 250,
    "lstm": 400,
    "transformer": 400,
    "vae": 900,
    "gan": 500,
    "dqn": 60,
}
"""Epochs that take some seconds."""


QUICK = ("lstm", "gan")
"""Killed once, every time the tests are run; the others twice, with `--run-slow`."""


@pytest.mark.parametrize("kind", [pytest.param(kind, marks=() if kind in QUICK else pytest.mark.slow) for kind in LONG])
def test_a_killed_process_goes_on_to_the_same_end(kind: str, tmp_path: Path) -> None:
    """SIGKILL at a random moment after a checkpoint, each time a fresh process."""
    folder = tmp_path / "records"
    records(kind, folder)
    # Short calls, so that checkpoints fall in the middle of epochs as well.
    settings = {**HARD.get(kind, {}), "epochs": LONG[kind], "steps_per_execution": 100, "early_stopping": None}
    undisturbed = start(kind, tmp_path / "undisturbed", folder, settings)

    home, kills, seen = tmp_path / "killed", 0, 0.0
    moments = random.Random(kind)
    process = start(kind, home, folder, settings)
    while kills < (1 if kind in QUICK else 2) and process.poll() is None:
        stamps = [path.stat().st_mtime for path in home.glob(f"work/{kind}/train/*/scratch/checkpoint-*.npz")]
        if not stamps or max(stamps) <= seen:
            time.sleep(0.01)
            continue
        time.sleep(moments.uniform(0, 0.5))
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            process.communicate()
            kills += 1
            seen = time.time()
            process = start(kind, home, folder, settings)
    digest, resumed = outcome(process)

    assert kills >= 1
    assert resumed > (0, 0)
    assert digest == outcome(undisturbed)[0]
