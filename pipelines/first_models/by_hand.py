"""Gradient descent written by hand, and the model that the line's example subclasses."""

from __future__ import annotations

from collections.abc import Mapping

import keras
import tensorflow as tf

from headrace.engine.loops import Loop, Start


class Line(keras.Model):
    """One weighted sum, from zeros."""

    def __init__(self, **given: object) -> None:
        super().__init__(**given)
        self.sum = keras.layers.Dense(1, kernel_initializer="zeros", bias_initializer="zeros")
        self.sum.build((None, 3))
        self.built = True

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """Three numbers (batch, 3) → one (batch, 1)."""
        return self.sum(x)


class Descent(Loop):
    """All examples at once, mean squared error, and each weight moved against its gradient.

    Args:
        start: What the engine gives.
        given: Name of the input.
        target: Name of the target.
    """

    def __init__(self, start: Start, given: str, target: str) -> None:
        self.model = start.model
        self.rate = tf.Variable(start.settings.learning_rate or 0.01, trainable=False)
        self._x = tf.constant(start.train.inputs[given])
        self._y = tf.constant(start.train.targets[target])
        self._step = tf.function(self._descend, autograph=False)

    def advance(self, step: int) -> Mapping[str, float]:
        """One step; its loss is that before the step."""
        return {"loss": float(self._step())}

    def _descend(self) -> tf.Tensor:
        weights = [variable.value for variable in self.model.trainable_variables]
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(self.model(self._x, training=True) - self._y))
        for weight, gradient in zip(weights, tape.gradient(loss, weights), strict=True):
            weight.assign_sub(self.rate * gradient)
        return loss
