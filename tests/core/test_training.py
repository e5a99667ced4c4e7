"""The train stage: what it leaves behind, and what a kill can't change."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headrace.artifacts import Artifact
from headrace.downloading import download
from headrace.errors import ConfigError, Diverged
from headrace.jobs import Job
from headrace.preprocessing import preprocess
from headrace.training import node_seed, train
from tests.conftest import JobFactory

SMALL = {"train.epochs": 6, "train.jit_compile": False}


def records_of(job: Job) -> Artifact:
    return preprocess(job, download(job))


def test_a_training_leaves_model_history_and_logs(job: JobFactory) -> None:
    request = job(overrides=SMALL)
    model = train(request, records_of(request))

    history = model.json("history.json")
    assert history["epochs"] == 6
    assert set(history["metrics"]) == {"loss", "mae"}
    lines = [json.loads(line) for line in (model.path / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert [line["mae"] for line in lines] == history["metrics"]["mae"]
    assert model.json("training.json")["parameters"] == 5_121


def test_tensorboard_reads_the_curves(job: JobFactory) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    request = job(overrides=SMALL)
    fold = train(request, records_of(request), fold=1, folds=4)

    for side, metric in (("train", "mae"), ("validation", "val_mae")):
        events = EventAccumulator(str(fold.path / "logs" / side))
        events.Reload()
        curve = [event.value for event in events.Scalars("epoch_mae")]
        assert curve == pytest.approx(fold.json("history.json")["metrics"][metric])


def test_the_same_training_gives_the_same_bytes(job: JobFactory, headrace_home: Path) -> None:
    """In one process, where Keras would count the layers' names up, and with folds trained in between."""
    import shutil

    request = job(overrides=SMALL)
    records = records_of(request)
    first = train(request, records)
    train(request, records, fold=1, folds=2)
    shutil.rmtree(first.path)
    again = train(request, records)

    assert again.state == "run"
    assert first.digest == again.digest


def test_seed_and_fold_change_the_model(job: JobFactory) -> None:
    base, other = job(overrides=SMALL), job(overrides=SMALL, seed=1)
    records = records_of(base)
    made = [train(base, records), train(other, records), train(base, records, fold=1, folds=2)]

    assert len({artifact.digest for artifact in made}) == 3
    assert node_seed(0, 1) != node_seed(0, 2) != node_seed(1, 2)


def test_a_fold_is_a_consecutive_block(job: JobFactory) -> None:
    """404 examples in 4 folds: 101 held out, 303 learned from, every example held out once."""
    from headrace.training import _splits

    request = job(overrides=SMALL)
    records = records_of(request)
    everything, none = _splits(records, request.settings.train, None, None)
    assert none is None
    held = []
    for fold in range(1, 5):
        learn, watch = _splits(records, request.settings.train, fold, 4)
        assert watch is not None
        assert (len(learn), len(watch)) == (303, 101)
        held.append(watch.inputs["features"])

    np.testing.assert_array_equal(everything.inputs["features"], np.concatenate(held))


def test_more_folds_than_examples_is_refused(job: JobFactory) -> None:
    from headrace.training import _splits

    request = job(overrides=SMALL)

    with pytest.raises(ConfigError, match="can't be cut into 1000 folds"):
        _splits(records_of(request), request.settings.train, 1, 1000)


@pytest.mark.parametrize("setting", ["train.optimizer", "train.loss", "train.metrics"])
def test_a_name_that_keras_does_not_know_is_a_config_error(job: JobFactory, setting: str) -> None:
    value: Any = ["mea"] if setting == "train.metrics" else "mea"
    request = job(overrides={**SMALL, setting: value})

    with pytest.raises(ConfigError, match="mea"):
        train(request, records_of(request))


def test_a_loss_that_is_no_number_stops_with_the_epoch_and_leaves_no_artifact(
    job: JobFactory, headrace_home: Path
) -> None:
    request = job(overrides={**SMALL, "train.optimizer": "sgd", "train.learning_rate": 1e30})

    with pytest.raises(Diverged, match=r"in epoch 1(.|\n)*train.learning_rate"):
        train(request, records_of(request))
    assert not list((headrace_home / "artifacts/house_prices").glob("train/*"))


def test_early_stopping_keeps_the_best_weights(job: JobFactory) -> None:
    rules = {"monitor": "val_mae", "patience": 2}
    request = job(
        overrides={"train.epochs": 400, "train.validation_split": 0.2, "train.early_stopping": rules},
    )
    history = train(request, records_of(request)).json("history.json")

    curve = history["metrics"]["val_mae"]
    assert history["stopped"] == "early stopping"
    assert len(curve) == history["epochs"] < 400
    assert history["best_epoch"] == int(np.argmin(curve)) + 1 == len(curve) - 2


# ----------------------------------------------------------------------------------------------- kill -9

KILLED = """
import sys
from headrace.downloading import download
from headrace.jobs import Job
from headrace.preprocessing import preprocess
from headrace.training import train
job = Job.model_validate_json(sys.stdin.read())
made = train(job, preprocess(job, download(job)), fold=1, folds=4)
print("done", made.digest, made.json("training.json")["resumed_from_epoch"])
"""


def start(request: Job, home: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED],
        env={**os.environ, "HEADRACE_HOME": str(home)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdin is not None
    process.stdin.write(request.model_dump_json())
    process.stdin.close()
    return process


def outcome(process: subprocess.Popen[str]) -> tuple[str, int]:
    assert process.stdout is not None
    word, digest, resumed = process.stdout.read().split()
    assert process.wait() == 0
    assert word == "done"
    return digest, int(resumed)


def test_a_training_killed_at_random_steps_ends_with_the_same_weights(job: JobFactory, tmp_path: Path) -> None:
    """Real processes, SIGKILL at random moments after a checkpoint; early stopping's state must survive as well."""
    request = job(
        overrides={
            "train.epochs": 1500,
            "train.jit_compile": False,
            "train.early_stopping": {"monitor": "val_mae", "patience": 1400},
            "train.validation_split": 0.1,
        }
    )
    expected, _ = outcome(start(request, tmp_path / "undisturbed"))

    home, kills, seen = tmp_path / "killed", 0, 0.0
    moments = random.Random(4)
    process = start(request, home)
    while kills < 3 and process.poll() is None:
        stamps = [path.stat().st_mtime for path in home.glob("work/house_prices/train/*/scratch/checkpoint-*.npz")]
        if not stamps or max(stamps) <= seen:
            time.sleep(0.02)
            continue
        time.sleep(moments.uniform(0, 0.6))
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            process.wait()
            kills += 1
            seen = time.time()
            process = start(request, home)
    digest, resumed = outcome(process)

    assert kills >= 2
    assert resumed > 0
    assert expected == digest
