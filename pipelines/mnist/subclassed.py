"""Networks written as classes."""

from __future__ import annotations

from typing import Any

import keras


class Mlp(keras.Model):
    """One hidden layer.

    Args:
        given: Shape of an image.
        units: Of the hidden layer.
        classes: How many there are.
    """

    def __init__(self, given: tuple[int | None, ...], units: int, classes: int) -> None:
        super().__init__()
        self.given = given
        self.scale = keras.layers.Rescaling(1 / 255)
        self.flatten = keras.layers.Flatten()
        self.hidden = keras.layers.Dense(units, activation="relu")
        self.scores = keras.layers.Dense(classes)
        self.softmax = keras.layers.Softmax(name="label")
        # Weights are made by a first call.
        self(keras.Input(given, dtype="uint8"))

    def call(self, images: Any, training: bool = False) -> Any:
        """Images (batch, 28, 28, 1), uint8 → probabilities (batch, classes)."""
        return self.softmax(self.scores(self.hidden(self.flatten(self.scale(images)))))


class Cnn(keras.Model):
    """Two convolutions of 5 × 5 with pooling, and a hidden layer of 1,024 units.

    Args:
        given: Shape of an image.
        classes: How many there are.
    """

    def __init__(self, given: tuple[int | None, ...], classes: int) -> None:
        super().__init__()
        self.given = given
        self.scale = keras.layers.Rescaling(1 / 255)
        self.first = keras.layers.Conv2D(32, 5, padding="same", activation="relu")
        self.first_pool = keras.layers.MaxPooling2D(2, strides=2)
        self.second = keras.layers.Conv2D(64, 5, padding="same", activation="relu")
        self.second_pool = keras.layers.MaxPooling2D(2, strides=2)
        self.flatten = keras.layers.Flatten()
        self.hidden = keras.layers.Dense(1024, activation="relu")
        self.scores = keras.layers.Dense(classes)
        self.softmax = keras.layers.Softmax(name="label")
        self(keras.Input(given, dtype="uint8"))

    def call(self, images: Any, training: bool = False) -> Any:
        """Images (batch, 28, 28, 1), uint8 → probabilities (batch, classes)."""
        x = self.first_pool(self.first(self.scale(images)))
        x = self.second_pool(self.second(x))
        return self.softmax(self.scores(self.hidden(self.flatten(x))))
