"""Training written by hand: with layers of our own, with drawn batches, with a compiled step.

The network that a loop trains is a Keras model in any case, since it is evaluated, exported and served as one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from headrace.engine.compiling import compile_model
from headrace.engine.loops import Loop, Start
from headrace.records.orders import order


class Batches(Loop):
    """Steps on batches of the examples, each by a compiled update."""

    def __init__(self, start: Start) -> None:
        self.model = start.model
        self._size, self._shuffle, self._seed = start.settings.batch_size, start.settings.shuffle, start.seed
        self._images = tf.constant(start.train.inputs["image"])
        self._digits = tf.constant(start.train.targets["label"])
        self.examples = len(start.train)
        self.steps = math.ceil(self.examples / self._size)
        self._drawn: tuple[int, Any] = (-1, None)

    def advance(self, step: int) -> dict[str, float]:
        """One update on the batch of this step."""
        loss, accuracy = self.update(tf.constant(self.rows(step)))
        return {"loss": float(loss), "accuracy": float(accuracy)}

    def rows(self, step: int) -> Any:
        """The positions of a batch: every epoch goes through all examples once."""
        epoch, number = divmod(step, self.steps)
        if self._drawn[0] != epoch:
            self._drawn = epoch, order(self._seed, epoch, self.examples, self._shuffle)
        return self._drawn[1][number * self._size : (number + 1) * self._size]

    @tf.function(reduce_retracing=True)
    def update(self, rows: Any) -> Any:
        """One update on the examples at these positions: loss and accuracy of the batch before it."""
        images, digits = tf.gather(self._images, rows), tf.gather(self._digits, rows)
        with tf.GradientTape() as tape:
            answers = self.answers(images)
            loss = tf.reduce_mean(keras.losses.sparse_categorical_crossentropy(digits, answers))
        self.apply(tape.gradient(loss, self.weights))
        return loss, tf.reduce_mean(tf.cast(tf.equal(tf.argmax(answers, 1), digits), tf.float32))

    @property
    def weights(self) -> list[Any]:
        """What is trained."""
        raise NotImplementedError

    def answers(self, images: Any) -> Any:
        """Images (batch, 28, 28, 1) → probabilities (batch, classes)."""
        raise NotImplementedError

    def apply(self, gradients: list[Any]) -> None:
        """Move the weights."""
        raise NotImplementedError


class KerasBatches(Batches):
    """A Keras model and a Keras optimizer in a loop of our own."""

    def __init__(self, start: Start) -> None:
        super().__init__(start)
        compile_model(self.model, start.settings, {})
        self.optimizer = self.model.optimizer
        self.optimizer.build(self.model.trainable_variables)

    @property
    def weights(self) -> list[Any]:
        """Those of the model."""
        return self.model.trainable_variables

    def answers(self, images: Any) -> Any:
        """What the model answers in training."""
        return self.model(images, training=True)

    def apply(self, gradients: list[Any]) -> None:
        """Let the optimizer move the weights."""
        self.optimizer.apply_gradients(zip(gradients, self.weights, strict=True))


class DrawnBatches(KerasBatches):
    """Batches drawn with replacement: an epoch is as many steps as it would take to see every example once."""

    def __init__(self, start: Start) -> None:
        super().__init__(start)
        self.steps = max(self.examples // self._size, 1)

    def rows(self, step: int) -> Any:
        """The positions of a batch, a function of seed and step."""
        random = np.random.Generator(np.random.Philox(key=[self._seed, step]))
        return random.integers(0, self.examples, self._size, dtype=np.int32)


# ------------------------------------------------------------------------------------------- without Keras


class Dense:
    """A dense layer: `activation(inputs @ kernel + bias)`.

    Args:
        kernel: Variable (inputs, outputs).
        bias: Variable (outputs,).
        activation: What is done to the result.
    """

    def __init__(self, kernel: tf.Variable, bias: tf.Variable, activation: Callable[[Any], Any]) -> None:
        self.weights = [kernel, bias]
        self.activation = activation

    def __call__(self, inputs: Any) -> Any:
        """Inputs (batch, inputs) → (batch, outputs)."""
        kernel, bias = self.weights
        return self.activation(tf.matmul(inputs, kernel) + bias)


class Sequential:
    """Layers one after the other."""

    def __init__(self, layers: list[Dense]) -> None:
        self.layers = layers

    def __call__(self, inputs: Any) -> Any:
        """Inputs (batch, inputs) → what the last layer answers."""
        for layer in self.layers:
            inputs = layer(inputs)
        return inputs

    @property
    def weights(self) -> list[Any]:
        """Those of all layers."""
        return [weight for layer in self.layers for weight in layer.weights]


class FromScratch(Batches):
    """Layers, loss gradient and update of our own; kernels begin uniform from 0 to 0.1, biases at zero.

    The variables are those of a Keras model of the same shape, so that what was learned can be served.
    """

    def __init__(self, start: Start) -> None:
        super().__init__(start)
        self.rate = start.settings.learning_rate or 1e-3
        layers = []
        dense = [layer for layer in self.model.layers if isinstance(layer, keras.layers.Dense)]
        for number, layer in enumerate(dense):
            kernel, bias = layer.kernel.value, layer.bias.value
            kernel.assign(tf.random.stateless_uniform(kernel.shape, (start.seed, number), maxval=0.1))
            bias.assign(tf.zeros_like(bias))
            layers.append(Dense(kernel, bias, tf.nn.softmax if layer is dense[-1] else tf.nn.relu))
        self.network = Sequential(layers)

    @property
    def weights(self) -> list[Any]:
        """Those of our own layers."""
        return self.network.weights

    def answers(self, images: Any) -> Any:
        """What our own layers answer."""
        return self.network(tf.reshape(tf.cast(images, tf.float32) / 255, (len(images), -1)))

    def apply(self, gradients: list[Any]) -> None:
        """Plain gradient descent."""
        for weight, gradient in zip(self.weights, gradients, strict=True):
            weight.assign_sub(self.rate * gradient)
