"""An encoder and a decoder, and the step that trains the two together (Chollet 12.4)."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

IMAGE = "image"


def encoder(shape: tuple[int | None, ...], latent: int) -> keras.Model:
    """Digits (batch, 28, 28, 1), uint8 → mean and logarithm of the variance of a normal distribution (batch, latent).

    69,076 parameters with two latent dimensions.
    """
    given = keras.Input(shape, dtype="uint8", name=IMAGE)
    x = keras.layers.Rescaling(1 / 255)(given)
    x = keras.layers.Conv2D(32, 3, strides=2, padding="same", activation="relu")(x)
    x = keras.layers.Conv2D(64, 3, strides=2, padding="same", activation="relu")(x)
    x = keras.layers.Dense(16, activation="relu")(keras.layers.Flatten()(x))
    outputs = {name: keras.layers.Dense(latent, name=name)(x) for name in ("mean", "log_variance")}
    return keras.Model(given, outputs, name="encoder")


def decoder(shape: tuple[int | None, ...], latent: int) -> keras.Model:
    """Points (batch, latent) → digits (batch, 28, 28, 1), from 0 to 1; 65,089 parameters with two dimensions."""
    height, width, channels = (int(length or 0) for length in shape)
    given = keras.Input((latent,), name="latent")
    x = keras.layers.Dense(height // 4 * (width // 4) * 64, activation="relu")(given)
    x = keras.layers.Reshape((height // 4, width // 4, 64))(x)
    x = keras.layers.Conv2DTranspose(64, 3, strides=2, padding="same", activation="relu")(x)
    x = keras.layers.Conv2DTranspose(32, 3, strides=2, padding="same", activation="relu")(x)
    x = keras.layers.Conv2D(channels, 3, padding="same", activation="sigmoid", name=IMAGE)(x)
    return keras.Model(given, x, name="decoder")


class Vae(keras.Model):
    """Both, with a loss of their own: what is lost of an image, and how far its code is from the standard normal.

    Args:
        shape: Shape of an image.
        latent: Dimensions of the latent space.
        kl: How the divergence of a batch is taken together: `sum` over latent dimensions, which is the divergence, or
            `mean` over them, as in the book: with two dimensions half of it.
    """

    def __init__(self, shape: tuple[int | None, ...], latent: int, kl: str) -> None:
        super().__init__()
        self.kl = kl
        self.encoder, self.decoder = encoder(shape, latent), decoder(shape, latent)
        # A variable, so that a training goes on with the noise that it would have had.
        self.noise = keras.random.SeedGenerator()
        self.averages = [keras.metrics.Mean(name=name) for name in ("loss", "reconstruction_loss", "kl_loss")]

    @property
    def metrics(self) -> list[Any]:
        """What is begun afresh with each epoch."""
        return self.averages

    def losses_of(self, images: Any) -> tuple[Any, Any]:
        """Reconstruction and divergence of a batch (batch, height, width, channels), uint8; both in nats per image."""
        code = self.encoder(images)
        mean, log_variance = code["mean"], code["log_variance"]
        drawn = mean + tf.exp(0.5 * log_variance) * keras.random.normal(tf.shape(mean), seed=self.noise)
        truth = tf.cast(images, tf.float32) / 255
        lost = tf.reduce_sum(keras.losses.binary_crossentropy(truth, self.decoder(drawn)), axis=(1, 2))
        each = -0.5 * (1 + log_variance - tf.square(mean) - tf.exp(log_variance))
        apart = tf.reduce_sum(each, axis=1) if self.kl == "sum" else tf.reduce_mean(each, axis=1)
        return tf.reduce_mean(lost), tf.reduce_mean(apart)

    def train_step(self, data: Any) -> dict[str, Any]:
        """One update of both."""
        with tf.GradientTape() as tape:
            lost, apart = self.losses_of(data)
            loss = lost + apart
        gradients = tape.gradient(loss, self.trainable_weights)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_weights, strict=True))
        return self._told(loss, lost, apart)

    def test_step(self, data: Any) -> dict[str, Any]:
        """The losses of images that nothing is learned from."""
        lost, apart = self.losses_of(data)
        return self._told(lost + apart, lost, apart)

    def _told(self, *losses: Any) -> dict[str, Any]:
        for average, loss in zip(self.averages, losses, strict=True):
            average.update_state(loss)
        return {average.name: average.result() for average in self.averages}
