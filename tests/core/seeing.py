"""Small networks and made-up images with an object whose place is known, for the tests of what networks see."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import keras

Array = np.ndarray[Any, Any]

SIDE = 48


def shapes(count: int, seed: int = 0) -> tuple[Array, Array, Array]:
    """Images with one striped thing anywhere on noise: stripes that lie (0) or stand (1).

    Returns:
        Images (count, 48, 48, 3) uint8, labels (count,), and where the thing is (count, 48, 48), bool: a ninth of each.
    """
    random = np.random.default_rng(seed)
    images = random.integers(60, 140, (count, SIDE, SIDE, 3)).astype(np.uint8)
    labels = random.integers(0, 2, count)
    places = np.zeros((count, SIDE, SIDE), bool)
    stripes = (np.arange(16) // 2 % 2 * 200 + 30).astype(np.uint8)
    for k, label in enumerate(labels):
        row, column = random.integers(0, SIDE - 16, 2)
        thing = np.broadcast_to(stripes[None, :] if label else stripes[:, None], (16, 16))
        images[k, row : row + 16, column : column + 16] = thing[..., None]
        places[k, row : row + 16, column : column + 16] = True
    return images, labels, places


def convnet(classes: int = 2, *, normalised: bool = False) -> keras.Model:
    """Three convolutions with pooling between, uint8 images in."""
    import keras
    from keras import layers

    given = keras.Input((SIDE, SIDE, 3), dtype="uint8", name="image")
    x = layers.Rescaling(1 / 255)(given)
    for place, filters in enumerate((8, 16, 16)):
        x = layers.MaxPooling2D(2)(x) if place else x
        x = layers.Conv2D(filters, 3, padding="same", activation=None if normalised else "relu", name=f"conv{place}")(x)
        x = layers.ReLU()(layers.BatchNormalization()(x)) if normalised else x
    x = layers.GlobalAveragePooling2D()(x)
    last = layers.Dense(1 if classes == 1 else classes, activation="sigmoid" if classes == 1 else "softmax")
    return keras.Model(given, last(x))


@cache
def trained(classes: int = 2) -> keras.Model:
    """A network that tells the shapes apart."""
    import keras

    keras.utils.set_random_seed(0)
    images, labels, _ = shapes(600)
    model = convnet(classes)
    loss = "binary_crossentropy" if classes == 1 else "sparse_categorical_crossentropy"
    model.compile(keras.optimizers.Adam(0.005), loss, metrics=["accuracy"])
    model.fit(images, labels, batch_size=32, epochs=8, verbose=0)
    return model
