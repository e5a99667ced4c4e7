"""Workloads with networks and trainings of their own, killed and started again: the same end, to the last bit."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

import pytest

from tests.core.cutting import child

TRAIN = """
import json, sys
from headrace.chain import Stages, prepared
from headrace.jobs import resolve

workload, variant, overrides = sys.argv[1:]
stages = Stages.plain()
job = resolve(workload, variant=variant, profile="smoke", data="synthetic", overrides=json.loads(overrides))
made = stages.train(job, prepared(job, stages)[-1])
facts = made.json("training.json")
print(json.dumps([made.digest, facts["resumed_from_epoch"], facts["resumed_from_step"]]))
"""

LONG = {
    ("mnist_vae", "mean"): {"train.epochs": 12},
    ("gan_faces", "small"): {"train.epochs": 12},
    ("cartpole", "steady"): {"train.epochs": 20},
    ("cifar10", "resnet50"): {"train.epochs": 3, "train.batch_size": 32, "model.network": "resnet50"},
    ("cifar10", "small"): {"train.epochs": 6},
}
"""Workloads and variants, and what makes their smoke runs take some seconds."""


def start(home: Path, workload: str, variant: str, overrides: dict[str, object]) -> subprocess.Popen[str]:
    return child("-c", TRAIN, workload, variant, json.dumps(overrides), HEADRACE_HOME=str(home))


def outcome(process: subprocess.Popen[str]) -> tuple[str, tuple[int, int]]:
    """The digest of what it has made, and the epoch and the step where it had gone on."""
    out, _ = process.communicate()
    assert process.returncode == 0
    digest, epoch, step = json.loads(out.splitlines()[-1])
    return digest, (epoch, step)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("workload", "variant"), LONG)
def test_a_training_killed_at_its_first_checkpoint_goes_on_to_the_same_end(
    workload: str, variant: str, tmp_path: Path
) -> None:
    overrides = LONG[workload, variant]
    expected, begun = outcome(start(tmp_path / "undisturbed", workload, variant, overrides))
    assert begun == (0, 0)

    killed = start(tmp_path / "killed", workload, variant, overrides)
    while not list((tmp_path / "killed").glob("work/*/train/*/scratch/checkpoint-*.npz")):
        assert killed.poll() is None, "it was done before there was a checkpoint: train for longer"
        time.sleep(0.01)
    killed.kill()
    killed.communicate()

    digest, resumed = outcome(start(tmp_path / "killed", workload, variant, overrides))
    assert resumed > (0, 0)
    assert digest == expected
