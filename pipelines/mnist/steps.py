"""Networks that train themselves in their own way, and a metric of our own (Chollet 7.3.1 and 7.4.4)."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf


class OwnLoss(keras.Model):
    """A network with a loss and a metric that nobody has to name when it is compiled."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.given = self.input_shape[1:]
        self.entropy = keras.losses.SparseCategoricalCrossentropy()
        self.average = keras.metrics.Mean(name="loss")

    @property
    def metrics(self) -> list[Any]:
        """What is begun afresh with each epoch."""
        return [self.average]

    def train_step(self, data: Any) -> dict[str, Any]:
        """One update."""
        images, digits = data
        with tf.GradientTape() as tape:
            loss = self.entropy(digits, self(images, training=True))
        gradients = tape.gradient(loss, self.trainable_weights)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_weights, strict=True))
        self.average.update_state(loss)
        return {"loss": self.average.result()}


class CompiledLoss(keras.Model):
    """A network whose step takes loss and metrics from what it was compiled with."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.given = self.input_shape[1:]

    def train_step(self, data: Any) -> dict[str, Any]:
        """One update."""
        images, digits = data
        with tf.GradientTape() as tape:
            answers = self(images, training=True)
            loss = self.compute_loss(y=digits, y_pred=answers)
        gradients = tape.gradient(loss, self.trainable_weights)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_weights, strict=True))
        for metric in self.metrics:
            if metric.name == "loss":
                metric.update_state(loss)
            else:
                metric.update_state(digits, answers)
        return self.get_metrics_result()


class RootMeanSquaredError(keras.metrics.Metric):
    """How far probabilities are from 1 for the right digit and 0 for the others, per example."""

    def __init__(self, name: str = "rmse", **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)
        self.squares = self.add_weight(name="squares", initializer="zeros")
        self.examples = self.add_weight(name="examples", initializer="zeros")

    def update_state(self, digits: Any, answers: Any, sample_weight: Any = None) -> None:
        """Take a batch: digits (batch,), probabilities (batch, classes), and how much each example counts."""
        one_hot = tf.one_hot(tf.cast(digits, tf.int32), tf.shape(answers)[1])
        errors = tf.reduce_sum((one_hot - answers) ** 2, axis=-1)
        weights = tf.ones_like(errors) if sample_weight is None else tf.cast(sample_weight, errors.dtype)
        self.squares.assign_add(tf.reduce_sum(weights * errors))
        self.examples.assign_add(tf.reduce_sum(weights))

    def result(self) -> Any:
        """Over all batches so far."""
        return tf.sqrt(self.squares / self.examples)
