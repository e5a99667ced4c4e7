"""Callbacks in the graph decide as those of Keras do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from headrace.engine.callbacks import Watchers
from headrace.errors import ConfigError
from headrace.spec import EarlyStopping, Train

CURVES = {
    "falls and climbs": [5.0, 4.0, 3.0, 3.5, 3.4, 3.3, 3.2, 3.1, 3.05, 3.04, 3.03],
    "stands still": [1.0] * 11,
    "falls in steps": [5.0, 5.0, 5.0, 4.0, 4.0, 4.0, 3.0, 3.0, 3.0, 2.0, 2.0],
    "jumps": [9.5, 4.0, 9.0, 1.0, 8.0, 8.0, 0.5, 7.0, 7.0, 7.0, 7.0],
}


def model() -> Any:
    import keras

    made = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    made.compile("sgd", "mse")
    return made


def settings(**watched: Any) -> Train:
    return Train.model_validate({"epochs": 20, "validation_split": 0.1, **watched})


def ours(rules: Train, curve: list[float], name: str = "val_loss") -> tuple[list[float], int, Any]:
    """The learning rate after each epoch, the epochs that were done, and what watched."""
    given = model()
    watchers = Watchers(rules, given.weights, [given.optimizer])
    rates = []
    for epoch, value in enumerate(curve, 1):
        # The weights tell which epoch they are from.
        given.set_weights([np.full((1, 1), epoch), np.full((1,), epoch)])
        going = watchers.watch({name: np.float32(value)}, epoch)
        rates.append(float(given.optimizer.learning_rate.numpy()))
        if not going:
            break
    return rates, len(rates), watchers


def theirs(callback: Any, curve: list[float], name: str = "val_loss") -> tuple[list[float], int]:
    given = model()
    callback.set_model(given)
    callback.on_train_begin()
    given.stop_training = False
    rates = []
    for epoch, value in enumerate(curve):
        callback.on_epoch_end(epoch, {name: value})
        rates.append(float(given.optimizer.learning_rate.numpy()))
        if given.stop_training:
            break
    return rates, len(rates)


@pytest.mark.parametrize("curve", CURVES.values(), ids=CURVES)
@pytest.mark.parametrize(
    "rules",
    [
        {"patience": 2},
        {"patience": 1, "cooldown": 2},
        {"patience": 0, "min_lr": 1e-4},
        {"patience": 2, "min_delta": 0.3},
    ],
    ids=str,
)
def test_the_rate_is_lowered_when_keras_lowers_it(rules: dict[str, Any], curve: list[float]) -> None:
    import keras

    callback = keras.callbacks.ReduceLROnPlateau(**{"min_delta": 1e-4, **rules}, factor=0.5)
    expected, _ = theirs(callback, curve)

    found, _, _ = ours(settings(reduce_lr={**rules, "factor": 0.5}), curve)

    assert found == pytest.approx(expected)


@pytest.mark.parametrize("curve", CURVES.values(), ids=CURVES)
@pytest.mark.parametrize("rules", [{"patience": 0}, {"patience": 3}, {"patience": 2, "start_from_epoch": 4}], ids=str)
def test_it_stops_when_keras_stops(rules: dict[str, Any], curve: list[float]) -> None:
    import keras

    _, expected = theirs(keras.callbacks.EarlyStopping(**rules, restore_best_weights=False), curve)

    _, found, _ = ours(settings(early_stopping=rules), curve)

    assert found == expected


def test_the_best_weights_are_those_of_the_best_epoch() -> None:
    _, _, watchers = ours(settings(checkpoint={"monitor": "val_loss"}), CURVES["falls and climbs"])

    assert watchers.best_epoch == 3
    assert float(watchers.best.kept.copies[0].numpy()[0, 0]) == 3


def test_what_is_no_number_is_never_the_best() -> None:
    """Keras takes the first value whatever it is, and finds nothing better than NaN afterwards."""
    _, _, watchers = ours(settings(checkpoint={"monitor": "val_loss"}), [np.nan, 3.0, 4.0])

    assert watchers.best_epoch == 2


@pytest.mark.parametrize(
    ("monitor", "mode", "best"),
    [("val_loss", "auto", 1), ("val_accuracy", "auto", 2), ("val_kind_auc", "auto", 2), ("val_loss", "max", 2)],
)
def test_what_is_better_is_known_by_name_or_told(monitor: str, mode: str, best: int) -> None:
    _, _, watchers = ours(settings(checkpoint={"monitor": monitor, "mode": mode}), [0.1, 0.2], monitor)

    assert watchers.best_epoch == best


def test_what_isnt_measured_cant_be_watched_and_all_of_it_is_told() -> None:
    watched = settings(early_stopping=EarlyStopping(monitor="val_mea"), reduce_lr={"monitor": "val_los"})
    given = model()

    with pytest.raises(ConfigError, match=r"`val_mea`: did you mean `val_mae`(.|\n)*reduce_lr can't watch"):
        Watchers(watched, given.weights, [given.optimizer]).check(["loss", "val_loss", "val_mae"])


def test_the_rate_of_a_schedule_is_nobodys_to_lower() -> None:
    with pytest.raises(ValueError, match="can't be lowered"):
        settings(reduce_lr={}, schedule={"name": "cosine_decay", "decay_steps": 10})
