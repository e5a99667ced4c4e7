"""Pictures that are optimised: what a network sees in them, and the album in which they are kept.

A picture is a tensor (height, width, 3) of brightness from 0 to 255, in the order red, green, blue.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from headrace.engine.backbones import backbone, prepared
from headrace.engine.loops import Loop
from headrace.errors import ConfigError, nearest

Array = np.ndarray[Any, Any]
START, RESULT = 0, 1
"""The pages of an album."""


class Studio(keras.Model):
    """What is trained, beside the network that looks at it and stays as it is.

    Args:
        work: What is trained and served: an album, or a network that paints.
        network: A backbone, which is called by its name, so that `Train.weights` finds it.
        layers: Layers of the backbone whose answers count.
        plan: Whatever else the loop must know.
    """

    def __init__(self, work: keras.Model, network: keras.Model, layers: Sequence[str], plan: Any) -> None:
        super().__init__(name="studio")
        network.trainable = False
        self.work, self.network, self.plan = work, network, plan
        self.eyes = eyes(network, layers)
        self.built = True

    def call(self, inputs: Any, training: bool = False) -> Any:
        """What is trained answers."""
        return self.work(inputs, training=training)


def studio(work: keras.Model, name: str, layers: Sequence[str], plan: Any) -> Studio:
    """A studio with a backbone by its name, for pictures of any size."""
    return Studio(work, backbone(name, (None, None, 3)), layers, plan)


def eyes(network: keras.Model, layers: Sequence[str]) -> keras.Model:
    """Pictures (batch, height, width, 3) → what these layers of a backbone answer, in their order.

    Raises:
        ConfigError: The backbone has no such layer.
    """
    known = [layer.name for layer in network.layers]
    lost = [name for name in layers if name not in known]
    if lost:
        raise ConfigError(f"{network.name} has no layer `{lost[0]}`: {nearest(lost[0], known)}")
    seen = keras.Model(network.inputs, [network.get_layer(name).output for name in layers], name="features")
    pictures = keras.Input((None, None, 3), name="picture")
    return keras.Model(pictures, seen(prepared(network.name, pictures)), name="eyes")


def looked(network: keras.Model, pictures: Any) -> list[Any]:
    """What a network's eyes see: a list, also of a single layer."""
    found = network(pictures, training=False)
    return list(found) if isinstance(found, list | tuple) else [found]


def size_of(file: Any, height: int | None = None, width: int | None = None) -> Array:
    """Height and width (2,) that a picture gets.

    Args:
        file: Its bytes, a tensor of strings ().
        height: Default: its own.
        width: Default: what keeps its proportions.
    """
    own = tf.shape(tf.io.decode_image(file, channels=3, expand_animations=False)).numpy()[:2]
    high = height or int(own[0])
    return np.array([high, width or round(int(own[1]) * high / int(own[0]))])


# -------------------------------------------------------------------------------------------------- albums


def album(shape: Sequence[int | None]) -> keras.Model:
    """A model whose weights are two pictures: number of a page (batch,) → picture (batch, height, width, 3).

    Page 0 is the picture that it began with, page 1 what has become of it.
    """
    page = keras.Input((), dtype="int64", name="page")
    size = math.prod(int(side or 1) for side in shape)
    pixels = keras.layers.Embedding(2, size, embeddings_initializer="zeros", name="pictures")(page)
    bright = keras.layers.ReLU(255.0, name="brightness")(pixels)
    return keras.Model(page, keras.layers.Reshape(tuple(shape), name="picture")(bright), name="album")


def put(book: keras.Model, page: int, picture: Any) -> None:
    """Put a picture (1, height, width, 3) on a page."""
    pages = book.get_layer("pictures").embeddings.value
    pages[page].assign(tf.reshape(tf.cast(picture, tf.float32), (-1,)))


def pages(book: keras.Model) -> Array:
    """The pictures of an album (2, height, width, 3)."""
    return np.asarray(book(tf.constant([START, RESULT], tf.int64)))


def shown(picture: Any) -> Array:
    """A picture, or several, as bytes."""
    return np.asarray(np.clip(np.round(np.asarray(picture)), 0, 255), np.uint8)


# --------------------------------------------------------------------------------------------------- loops


class Lean(Loop):
    """A loop whose checkpoints leave out the network that only looks: its weights are the same in every attempt.

    A subclass sets `moving`: the variables that its steps change.
    """

    moving: Sequence[Any] = ()

    def kept(self) -> Mapping[str, Any]:
        """Arrays that the next step depends on beside the variables."""
        return {}

    def take(self, kept: Mapping[str, Any]) -> None:
        """Put them back."""

    def state(self) -> Mapping[str, Any]:
        """What the next step depends on."""
        return {**{f"moving {k}": variable.numpy() for k, variable in enumerate(self.moving)}, **self.kept()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Put back what `state` gave."""
        for number, variable in enumerate(self.moving):
            variable.assign(state[f"moving {number}"])
        self.take(state)


def trend(curve: Array, parts: int = 5) -> float:
    """In how many of the steps from one part of a curve to the next its mean falls, as a share: 1 if in all.

    Args:
        curve: (steps,)
        parts: Into how many the curve is cut; of a shorter one each value is a part.
    """
    means = np.array([part.mean() for part in np.array_split(np.asarray(curve, np.float64), min(parts, len(curve)))])
    return float((np.diff(means) < 0).mean()) if len(means) > 1 else 1.0
