"""CIFAR-10: the book's counts, the bytes of the original files, and two devices that compute what one does."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest

from headrace.errors import DataError
from headrace.jobs import resolve
from pipelines.sources.cifar10 import CIFAR10, NAME, RECORD, photographs
from tests.conftest import PROJECT


def test_resnet50_has_the_parameters_of_the_book() -> None:
    model = resolve("cifar10").the("model")(CIFAR10.named("input"))

    assert model.count_params() == 23_608_202
    assert sum(int(np.prod(weight.shape)) for weight in model.trainable_weights) == 23_555_082


def test_the_settings_are_the_books() -> None:
    train = resolve("cifar10").settings.train

    assert (train.epochs, train.batch_size, train.steps_per_execution) == (1, 1024, 8)
    assert (train.optimizer, train.learning_rate, train.strategy) == ("rmsprop", None, "auto")


def archive(folder: Path, content: bytes) -> Path:
    """The original archive, every file of it with this content."""
    with tarfile.open(folder / NAME, "w:gz") as tar:
        for name in (*(f"data_batch_{k}.bin" for k in range(1, 6)), "test_batch.bin"):
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return folder


def test_an_example_is_its_class_and_three_planes_of_colour(tmp_path: Path) -> None:
    red, green, blue = (np.full((32, 32), value, np.uint8) for value in (10, 20, 30))
    red[0, 1] = 99
    found = photographs(
        archive(tmp_path, bytes([7]) + b"".join(plane.tobytes() for plane in (red, green, blue))), "train"
    )

    assert found["label"].tolist() == [7] * 5
    assert found["image"].shape == (5, 32, 32, 3)
    assert found["image"][0, 5, 5].tolist() == [10, 20, 30]
    assert found["image"][0, 0, 1].tolist() == [99, 20, 30]


def test_a_file_that_is_cut_off_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"test_batch\.bin is cut off"):
        photographs(archive(tmp_path, bytes(RECORD + 5)), "test")


TRAIN = """
import json, sys
import tensorflow as tf
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)
import keras, numpy as np
from headrace import Feature
from headrace.engine.epochs import Program, Split
from headrace.engine.steps import Step
from headrace.engine.strategies import choose
from headrace.jobs import resolve

random = np.random.default_rng(0)
images, labels = random.integers(0, 256, (24, 32, 32, 3), dtype=np.uint8), random.integers(0, 10, 24)
split = Split({"image": images}, {"label": labels})
found = {}
for variant in ("resnet50", "small"):
    # What is drawn for an image depends on the replica that gets it.
    plain = {"model.filters": [4, 8], "model.augmentation": False} if variant == "small" else {}
    job = resolve("cifar10", variant=variant, profile="smoke", overrides={"train.batch_size": 8, **plain})
    for name in ("one_device", "mirrored"):
        strategy = choose(name)
        keras.utils.set_random_seed(0)
        with strategy.scope():
            model = job.the("model")({"image": Feature(shape=(32, 32, 3), dtype="uint8")}, **job.settings.model)
        program = Program(Step(model, job.settings.train, strategy, split))
        rows = program.run(split, None, 0, 0, 1)
        weights = [float(np.abs(w.numpy()).sum()) for w in model.weights]
        found.setdefault(variant, {})[name] = {
            "replicas": program.replicas, "weights": weights, "rows": np.asarray(rows).tolist()
        }
print(json.dumps(found))
"""


def test_two_virtual_devices_make_the_updates_of_one() -> None:
    """ResNet50 itself does not, on any hardware: its batch normalisation looks at what a replica is given."""
    run = subprocess.run(
        [sys.executable, "-c", TRAIN], capture_output=True, text=True, timeout=300, check=False, cwd=PROJECT
    )
    assert run.returncode == 0, run.stderr[-2000:]
    for found in json.loads(run.stdout.splitlines()[-1]).values():
        one, two = found["one_device"], found["mirrored"]
        assert (one["replicas"], two["replicas"]) == (1, 2)
        assert two["weights"] == pytest.approx(one["weights"], rel=2e-3, abs=1e-4)
        assert np.asarray(two["rows"]) == pytest.approx(np.asarray(one["rows"]), rel=1e-3)
