"""Strategies change where the work is done, not what comes out. Virtual devices stand in for accelerators."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from headrace.engine.strategies import choose
from headrace.errors import ConfigError
from headrace.spec import Train
from tests.conftest import PROJECT
from tests.core import trainables

TRAIN = """
import json, sys
import tensorflow as tf
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)
import keras, numpy as np
from headrace.engine.epochs import Program, Split
from headrace.engine.steps import Step
from headrace.spec import Train
from headrace.engine.strategies import choose

random = np.random.default_rng(0)
x = random.normal(size=(70, 3)).astype("float32")
split = Split({"x": x}, {"y": x.sum(1, keepdims=True)})
found = {}
for name in ("default", "one_device", "mirrored"):
    strategy = choose(name)
    keras.utils.set_random_seed(0)
    with strategy.scope():
        given = keras.Input((3,))
        model = keras.Model(given, keras.layers.Dense(1)(keras.layers.Dense(8, "relu", kernel_regularizer="l2")(given)))
    settings = Train(epochs=4, batch_size=16, metrics=("mae",), optimizer="adam")
    program = Program(Step(model, settings, strategy, split))
    rows = program.run(split, split.take(slice(0, 9)), 0, 0, 4)
    weights = [float(np.abs(w.numpy()).sum()) for w in model.trainable_variables]
    found[name] = {"replicas": program.replicas, "weights": weights, "rows": rows.tolist()}
print(json.dumps(found))
"""


def test_two_replicas_make_the_updates_of_one() -> None:
    """70 examples in batches of 16: the last batch of 6 is shared 3 to 3."""
    result = subprocess.run([sys.executable, "-c", TRAIN], capture_output=True, text=True, timeout=240, check=False)
    assert result.returncode == 0, result.stderr[-2000:]
    found = json.loads(result.stdout.splitlines()[-1])

    assert {name: run["replicas"] for name, run in found.items()} == {"default": 1, "one_device": 1, "mirrored": 2}
    for name in ("one_device", "mirrored"):
        assert found[name]["weights"] == pytest.approx(found["default"]["weights"], rel=1e-4)
        for row, expected in zip(found[name]["rows"], found["default"]["rows"], strict=True):
            assert row == pytest.approx(expected, rel=1e-4)


def test_an_unknown_strategy_names_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="did you mean `mirrored`"):
        choose("miror")


@pytest.mark.parametrize("name", ["parameter_server", "central_storage"])
def test_a_strategy_that_trains_something_else_is_refused_with_the_reason(name: str) -> None:
    with pytest.raises(ConfigError, match="Keras 3"):
        choose(name)
    with pytest.raises(ValidationError, match="Keras 3"):
        Train(epochs=1, strategy=name)


KINDS = """
import json
import tensorflow as tf
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)
import keras, numpy as np
from headrace.engine.epochs import Program
from headrace.engine.steps import Step
from headrace.engine.feeding import Split
from headrace.engine.strategies import choose
from tests.core import trainables

found = {}
for kind in ("gan", "convnet", "vae", "dense"):
    pipeline, features, values = trainables.pipeline(kind), trainables.FEATURES[kind], trainables.arrays(kind, 40)
    split = Split(*({n: values[n] for n, f in features.items() if f.role == role} for role in ("input", "target")))
    plain = {"validation_split": 0, "early_stopping": None, "class_weight": None, "reduce_lr": None, "checkpoint": None}
    rules = trainables.request(kind, drop_remainder=True, **plain).settings.train
    strategy = choose("mirrored")
    keras.utils.set_random_seed(0)
    with strategy.scope():
        model = pipeline.model({n: f for n, f in features.items() if f.role == "input"})
    program = Program(Step(model, rules, strategy, split, own_compile=pipeline.compile))
    program.run(split, None, 0, 0, 2)
    kept = program.state
    whole = program.run(split, None, 0, 2, 2)
    program.restore(kept)
    again = program.run(split, None, 0, 2, 2)
    found[kind] = {"finite": bool(np.isfinite(whole).all()), "again": bool((whole == again).all())}

strategy = choose("mirrored")
with strategy.scope():
    given = keras.Input((50,))
    model = keras.Model(given, keras.layers.Dropout(0.5)(given))
from headrace.engine.steps import _split_noise
_split_noise(model)
noise = strategy.run(tf.function(lambda: model(tf.ones((4, 50)), training=True)))
one, other = (values.numpy() for values in strategy.experimental_local_results(noise))
print(json.dumps({**found, "noise differs": bool((one != other).any())}))
"""


@pytest.mark.slow
def test_models_with_steps_optimizers_and_noise_of_their_own_are_mirrored() -> None:
    """Two optimizers, batch normalisation, dropout that differs by replica; a restored state goes on exactly."""
    result = subprocess.run(
        [sys.executable, "-c", KINDS], capture_output=True, text=True, timeout=280, check=False, cwd=PROJECT
    )
    assert result.returncode == 0, result.stderr[-2000:]
    found = json.loads(result.stdout.splitlines()[-1])

    assert found.pop("noise differs")
    assert found == {kind: {"finite": True, "again": True} for kind in ("gan", "convnet", "vae", "dense")}


# ---------------------------------------------------------------------------------------- several workers


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def workers(folder: Path, records: Path, count: int, **settings: Any) -> list[subprocess.Popen[str]]:
    """Processes that train `plain` together, each in a home of its own under the folder."""
    cluster = {"worker": [f"127.0.0.1:{port}" for port in free_ports(count)]}
    found = []
    for index in range(count):
        config = json.dumps({"cluster": cluster, "task": {"type": "worker", "index": index}})
        words = ["plain", str(folder / str(index)), str(records), json.dumps(settings)]
        found.append(
            subprocess.Popen(
                [sys.executable, "-W", "ignore", "-m", "tests.core.trainables", *words],
                env={**os.environ, **({"TF_CONFIG": config} if count > 1 else {})},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                cwd=PROJECT,
            )
        )
    return found


def finished(processes: list[subprocess.Popen[str]]) -> list[str]:
    """The digests of what they have made."""
    digests = []
    for process in processes:
        out, err = process.communicate(timeout=280)
        assert process.returncode == 0, err[-2000:]
        digests.append(out.split()[1])
    return digests


def history(home: Path) -> dict[str, list[float]]:
    (path,) = home.glob("artifacts/plain/train/*/history.json")
    return json.loads(path.read_text())["metrics"]


@pytest.mark.slow
def test_two_workers_make_the_updates_of_one_process(tmp_path: Path) -> None:
    """35 examples in batches of 8: the last batch of 3 is shared 2 to 1."""
    made = trainables.records("plain", tmp_path / "records")
    alone = workers(tmp_path / "alone", made.path, 1)
    together = workers(tmp_path / "together", made.path, 2, strategy="multi_worker")
    finished(alone)
    digests = finished(together)

    assert digests[0] == digests[1]
    expected = history(tmp_path / "alone" / "0")
    for name, values in history(tmp_path / "together" / "0").items():
        assert values == pytest.approx(expected[name], rel=1e-5)


@pytest.mark.slow
def test_a_killed_worker_ends_the_others_and_all_go_on_from_the_last_checkpoint(tmp_path: Path) -> None:
    made = trainables.records("plain", tmp_path / "records")
    settings = {"strategy": "multi_worker", "epochs": 150}
    expected = finished(workers(tmp_path / "whole", made.path, 2, **settings))

    chief, victim = workers(tmp_path / "cut", made.path, 2, **settings)
    until = time.monotonic() + 120
    while time.monotonic() < until and not list(tmp_path.glob("cut/0/*/plain/train/*/scratch/checkpoint-*.npz")):
        time.sleep(0.05)
    victim.send_signal(signal.SIGKILL)
    victim.communicate()
    _, told = chief.communicate(timeout=200)
    assert chief.returncode != 0
    assert "Another worker is gone" in told

    assert finished(workers(tmp_path / "cut", made.path, 2, **settings)) == expected
