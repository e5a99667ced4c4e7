"""A workload's own training on images of noise, left alone, and cut off and taken up again: both must end alike."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from headrace import Feature, training
from headrace.artifacts import Artifact
from headrace.engine import checkpoints, driving
from headrace.jobs import Job
from headrace.training import train
from tests.core.making import artifact


class Cut(BaseException):
    """The power is cut."""


def records(folder: Path, workload: str, image: Feature, examples: int) -> Artifact:
    """Finished records of images of noise."""
    from headrace.readers.batches import batches
    from headrace.records.inputs import Info, write_info
    from headrace.records.writing import stored, write
    from headrace.spec import Records

    folder.mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (examples, *image.shape), dtype=np.uint8)
    layout = {"image": image}
    written = {"train": write(folder, "train", batches({"image": pixels}), layout)}
    write_info(folder, Info(workload, "made", "synthetic", layout, written, stored(layout, Records())))
    return artifact(folder, "preprocess")


def whole_and_resumed(
    job: Job, image: Feature, examples: int, after: int, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Artifact, Artifact]:
    """What a training leaves that was left alone, and one that was cut off after some steps, each in a fresh program.

    Args:
        job: The job.
        image: What an image is.
        examples: How many there are.
        after: Steps after which the power is cut.
        folder: Where to work.
        monkeypatch: For the homes, and the cut.
    """
    given = records(folder / "records", job.workload, image, examples)

    def trained(home: str) -> Artifact:
        monkeypatch.setenv("HEADRACE_HOME", str(folder / home))
        training._programs.clear()
        return train(job, given)

    save, per_epoch = checkpoints.save, -(-examples // job.settings.train.batch_size)

    def saved(where: Path, checkpoint: checkpoints.Checkpoint) -> None:
        save(where, checkpoint)
        if checkpoint.epoch * per_epoch + checkpoint.step == after:
            raise Cut

    expected = trained("whole")
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints.Keeper, "due", lambda self: True)
        patch.setattr(checkpoints, "save", saved)
        patch.setattr(driving, "LOOK_SECONDS", 1e9)
        with pytest.raises(Cut):
            trained("cut")
    return expected, trained("cut")
