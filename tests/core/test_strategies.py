"""Strategies change where the work is done, not what comes out. Virtual devices stand in for accelerators."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from headrace.errors import ConfigError
from headrace.strategies import choose

TRAIN = """
import json, sys
import tensorflow as tf
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)
import keras, numpy as np
from headrace.epochs import Program, Split
from headrace.spec import Train
from headrace.strategies import choose

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
    program = Program(model, settings, strategy, split)
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
    with pytest.raises(ConfigError, match="auto, default, one_device or mirrored"):
        choose("parameter_server")
