"""Names in a spec become objects of Keras, or of the workload; mistakes are told all at once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from headrace.engine.compiling import compile_model, precision
from headrace.errors import ConfigError
from headrace.spec import Train


def model() -> Any:
    import keras

    return keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, "sigmoid")])


def compiled(custom: dict[str, Any] | None = None, **settings: Any) -> Any:
    made = model()
    compile_model(made, Train.model_validate({"epochs": 1, **settings}), custom or {})
    return made


def results(made: Any) -> list[str]:
    made.train_on_batch(np.ones((4, 3)), np.eye(2)[[0, 1, 1, 0]])
    return list(made.get_metrics_result())


LOSSES = ("mse", "mae", "huber", "msle", "cosine_similarity", "binary_crossentropy", "categorical_crossentropy")
LOSSES += ("binary_focal_crossentropy", "kl_divergence", "kld", "MeanSquaredError", "poisson", "dice")


@pytest.mark.parametrize("loss", LOSSES)
def test_the_losses_of_the_books_are_found_by_name(loss: str) -> None:
    assert results(compiled(loss=loss))[0] == "loss"


@pytest.mark.parametrize("name", ["sgd", "SGD", "adagrad", "rmsprop", "RMSprop", "adam", "adamw", "nadam", "lion"])
def test_optimizers_are_found_however_they_are_written(name: str) -> None:
    assert type(compiled(optimizer=name).optimizer).__name__.lower() == name.lower()


def test_metrics_are_called_as_they_are_asked_for() -> None:
    asked = ["accuracy", "auc", "f1_score", "Precision", "mae", "rmse", {"name": "mean_iou", "num_classes": 2}]

    assert results(compiled(loss="binary_crossentropy", metrics=asked)) == [
        *("loss", "accuracy", "auc", "f1_score", "precision", "mae", "rmse", "mean_iou"),
    ]
    # Not numbered, although it is the second one of this process.
    assert "auc" in results(compiled(metrics=["auc"]))


def test_arguments_reach_what_they_are_for() -> None:
    made = compiled(
        optimizer={"name": "adam", "clipnorm": 2.0, "gradient_accumulation_steps": 3},
        learning_rate=0.5,
        loss={"name": "binary_crossentropy", "label_smoothing": 0.1},
    )

    assert (made.optimizer.clipnorm, made.optimizer.gradient_accumulation_steps) == (2.0, 3)
    assert float(made.optimizer.learning_rate.numpy()) == 0.5
    assert made.loss.get_config()["label_smoothing"] == 0.1


def test_a_schedule_begins_with_the_learning_rate() -> None:
    schedule = {"name": "exponential_decay", "decay_steps": 100, "decay_rate": 0.96}
    made = compiled(optimizer="sgd", learning_rate=100.0, schedule=schedule)

    assert float(made.optimizer.learning_rate.numpy()) == 100.0
    assert made.optimizer.get_config()["learning_rate"]["config"]["decay_rate"] == 0.96


def test_own_losses_and_metrics_go_by_the_names_of_the_workload() -> None:
    import keras
    import tensorflow as tf

    def doubled(truth: Any, guess: Any) -> Any:
        return 2 * tf.reduce_mean((truth - guess) ** 2, -1)

    class Largest(keras.metrics.Mean):  # type: ignore[misc]
        def update_state(self, truth: Any, guess: Any, sample_weight: Any = None) -> None:
            super().update_state(tf.reduce_max(guess))

    made = compiled({"doubled": doubled, "largest": Largest}, loss="doubled", metrics=["largest"])

    assert made.loss is doubled
    assert "largest" in results(made)


def test_all_mistakes_are_told_with_the_nearest_names() -> None:
    with pytest.raises(ConfigError) as caught:
        compiled(
            optimizer={"name": "adam", "clipnrm": 1.0},
            loss="mea",
            metrics=["acuracy", {"name": "auc", "curv": "PR"}, {"name": "mean_iou"}],
            schedule="cosine_decy",
        )
    for words in (
        "`adam` takes no `clipnrm`: did you mean `clipnorm`",
        "train.loss: there is no `mea`: did you mean `mse`",
        "train.metrics: there is no `acuracy`",
        "`auc` takes no `curv`: did you mean `curve`?",
        "`mean_iou` can't be made: ",
        "train.schedule: there is no `cosine_decy`: did you mean `cosine_decay`",
    ):
        assert words in str(caught.value)


def test_a_rate_that_is_given_twice_is_a_mistake() -> None:
    with pytest.raises(ConfigError, match="given twice"):
        compiled(optimizer={"name": "adam", "learning_rate": 0.1}, learning_rate=0.2)


def test_a_policy_ends_with_the_models_that_were_built_under_it() -> None:
    import keras

    with precision("mixed_bfloat16"):
        made = model()

    assert made.layers[-1].compute_dtype == "bfloat16"
    assert keras.config.dtype_policy().name == "float32"
