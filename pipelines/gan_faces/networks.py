"""Two networks that play against each other, and the step that trains both (Chollet 12.5)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

SLOPE = 0.2
"""Of LeakyReLU below 0."""


def discriminator(shape: tuple[int | None, ...], filters: Sequence[int], dropout: float) -> keras.Model:
    """Faces (batch, height, width, channels), from 0 to 1 → how surely each is made up (batch, 1).

    404,801 parameters for 64 × 64 pixels in colour.
    """
    given = keras.Input(shape, name="image")
    x = given
    for number in filters:
        x = keras.layers.Conv2D(number, 4, strides=2, padding="same")(x)
        x = keras.layers.LeakyReLU(SLOPE)(x)
    x = keras.layers.Dropout(dropout)(keras.layers.Flatten()(x))
    return keras.Model(given, keras.layers.Dense(1, activation="sigmoid", name="made_up")(x), name="discriminator")


def generator(shape: tuple[int | None, ...], filters: Sequence[int], latent: int) -> keras.Model:
    """Points (batch, latent) → faces (batch, height, width, channels), from 0 to 1.

    3,979,651 parameters for 64 × 64 pixels in colour.
    """
    height, width, channels = (int(length or 0) for length in shape)
    given = keras.Input((latent,), name="latent")
    low, wide = height >> len(filters), width >> len(filters)
    x = keras.layers.Dense(low * wide * latent)(given)
    x = keras.layers.Reshape((low, wide, latent))(x)
    for number in filters:
        x = keras.layers.Conv2DTranspose(number, 4, strides=2, padding="same")(x)
        x = keras.layers.LeakyReLU(SLOPE)(x)
    x = keras.layers.Conv2D(channels, 5, padding="same", activation="sigmoid", name="image")(x)
    return keras.Model(given, x, name="generator")


class Gan(keras.Model):
    """Both, each with an optimizer of its own.

    Args:
        discriminator: Tells faces that are made up (1) from real ones (0).
        generator: Makes them up.
        noise: By how much at most a label is raised, so that the discriminator is never quite sure.
        pace: Learning rate of the discriminator, as a multiple of the generator's.
    """

    def __init__(self, discriminator: keras.Model, generator: keras.Model, noise: float, pace: float) -> None:
        super().__init__()
        self.discriminator, self.generator = discriminator, generator
        self.noise, self.pace = noise, pace
        # Variables, so that a training goes on with what it would have drawn.
        self.points, self.labels = keras.random.SeedGenerator(), keras.random.SeedGenerator()
        self.entropy = keras.losses.BinaryCrossentropy()
        self.averages = [keras.metrics.Mean(name=name) for name in ("generator_loss", "discriminator_loss")]

    def compile(self, optimizer: Any = "rmsprop", **others: Any) -> None:
        """Take the optimizer for the generator, and one of the same kind for the discriminator, at its own pace."""
        super().compile(optimizer=optimizer, **others)
        config = self.optimizer.get_config()
        if isinstance(config["learning_rate"], float):
            config["learning_rate"] *= self.pace
        self.opponent = type(self.optimizer).from_config(config)

    @property
    def metrics(self) -> list[Any]:
        """What is begun afresh with each epoch."""
        return self.averages

    def drawn(self, count: Any) -> Any:
        """Points of the latent space (count, latent), from the standard normal distribution."""
        return keras.random.normal((count, self.generator.input_shape[1]), seed=self.points)

    def train_step(self, data: Any) -> dict[str, Any]:
        """An update of the discriminator, then one of the generator, on faces (batch, height, width, channels)."""
        real = tf.cast(data, tf.float32) / 255
        count = tf.shape(real)[0]
        both = tf.concat([self.generator(self.drawn(count), training=True), real], axis=0)
        labels = tf.concat([tf.ones((count, 1)), tf.zeros((count, 1))], axis=0)
        labels += self.noise * keras.random.uniform(tf.shape(labels), seed=self.labels)
        with tf.GradientTape() as tape:
            lost = self.entropy(labels, self.discriminator(both, training=True))
        self._update(self.opponent, tape, lost, self.discriminator)
        with tf.GradientTape() as tape:
            judged = self.discriminator(self.generator(self.drawn(count), training=True), training=True)
            # The generator wins where what it has made is taken for real.
            missed = self.entropy(tf.zeros_like(judged), judged)
        self._update(self.optimizer, tape, missed, self.generator)
        for average, loss in zip(self.averages, (missed, lost), strict=True):
            average.update_state(loss)
        return {average.name: average.result() for average in self.averages}

    def _update(self, optimizer: Any, tape: tf.GradientTape, loss: Any, network: keras.Model) -> None:
        weights = network.trainable_weights
        optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
