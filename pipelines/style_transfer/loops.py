"""A picture that is optimised until it has the content of one and the style of another; and a network that does so."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from headrace.engine.compiling import compile_model
from headrace.engine.loops import Start
from headrace.records.orders import order
from headrace.spec import Train
from pipelines._perception import RESULT, START, Lean, Studio, looked, put, shown
from pipelines.style_transfer import Plan

CHANNELS = 3
"""In the book's normaliser of Grams, whatever the depth of a layer."""


class Taste:
    """What a painting is judged by: its content, its style, and how it varies from pixel to pixel.

    Args:
        eyes: Pictures → what the content layer sees, then what each style layer sees.
        plan: The weights.
        painting: The picture whose style is taken (1, height, width, 3).
    """

    def __init__(self, eyes: keras.Model, plan: Plan, painting: Any) -> None:
        self.eyes, self.plan = eyes, plan
        self.grams = [gram(found) for found in looked(eyes, painting)[1:]]

    def content(self, photographs: Any) -> Any:
        """What is to be seen in photographs by the content layer."""
        return looked(self.eyes, photographs)[0]

    def __call__(self, pictures: Any, content: Any) -> dict[str, Any]:
        """The parts of the loss of each picture (batch,), each times its weight: `content`, `style`, `variation`.

        Args:
            pictures: (batch, height, width, 3)
            content: What `content` says of the photographs.
        """
        seen, *styles = looked(self.eyes, pictures)
        size = math.prod(pictures.shape[1:3])
        pairs = zip(styles, self.grams, strict=True)
        distances = [style_loss(gram(found), wanted, size) for found, wanted in pairs]
        return {
            "content": self.plan.content * squares(seen - content),
            "style": self.plan.style / len(distances) * tf.add_n(distances),
            "variation": self.plan.variation * variation(pictures),
        }


def gram(found: Any) -> Any:
    """Products of a layer's channels, summed over all places: (batch, …, channels) → (batch, channels, channels)."""
    flat = tf.reshape(found, (tf.shape(found)[0], -1, found.shape[-1]))
    return tf.matmul(flat, flat, transpose_a=True)


def style_loss(one: Any, other: Any, size: int) -> Any:
    """Squared distance of Grams (batch, channels, channels), by the size of the pictures in pixels; (batch,)."""
    return squares(one - other) / (4.0 * CHANNELS**2 * float(size) ** 2)


def squares(difference: Any) -> Any:
    """Sum of the squares of each example, (batch,)."""
    return tf.reduce_sum(tf.square(difference), axis=list(range(1, len(difference.shape))))


def variation(pictures: Any) -> Any:
    """How much neighbouring pixels differ: the squared steps down and to the right, to the power of 1.25; (batch,)."""
    down = tf.square(pictures[:, :-1, :-1] - pictures[:, 1:, :-1])
    right = tf.square(pictures[:, :-1, :-1] - pictures[:, :-1, 1:])
    return tf.reduce_sum((down + right) ** 1.25, axis=[1, 2, 3])


def optimizer_of(settings: Train) -> Any:
    """The optimizer that the settings name, with its schedule."""
    carrier = keras.Sequential()
    compile_model(carrier, settings.model_copy(update={"metrics": ()}), {})
    return carrier.optimizer


def described(parts: Mapping[str, Any]) -> Any:
    """The loss of each picture."""
    return tf.add_n(list(parts.values()))


# ----------------------------------------------------------------------------------------- by optimisation


class Optimised(Lean):
    """One picture whose pixels are the weights; an epoch is one step.

    It begins with the photograph, as in the book, or with noise.
    """

    def __init__(self, start: Start) -> None:
        self.model: Studio = start.model
        plan: Plan = self.model.plan
        photograph = tf.constant(start.train.inputs["image"][:1], tf.float32)
        first = photograph if plan.start == "photograph" else noise(photograph.shape, start.seed)
        taste = Taste(self.model.eyes, plan, tf.constant(start.train.targets["painted"][:1], tf.float32))
        self.descent = Descent(taste, start.settings, photograph, first)
        self.optimizer = self.descent.optimizer
        self.moving = self.descent.moving
        self.first = first
        self.losses: list[float] = []
        put(self.model.work, START, first)
        put(self.model.work, RESULT, first)

    def advance(self, step: int) -> Mapping[str, float]:
        """One step; the losses are those before it."""
        parts = {name: float(value) for name, value in self.descent.step().items()}
        self.losses.append(sum(parts.values()))
        put(self.model.work, RESULT, self.descent.picture.value)
        return {"loss": self.losses[-1], **parts}

    def kept(self) -> Mapping[str, Any]:
        """The curve."""
        return {"losses": np.array(self.losses)}

    def take(self, kept: Mapping[str, Any]) -> None:
        """Put it back."""
        self.losses = [float(value) for value in kept["losses"]]
        put(self.model.work, RESULT, self.descent.picture.value)

    def results(self) -> Mapping[str, Any]:
        """The picture before and after, and the loss at each step."""
        pictures = {"start": self.first, "result": self.descent.picture.value}
        return {**{name: shown(picture)[0] for name, picture in pictures.items()}, "losses": np.array(self.losses)}


class Descent:
    """Gradient descent on the pixels of one picture.

    Args:
        taste: What it is judged by.
        settings: Optimizer and rate.
        photograph: Whose content is wanted (1, height, width, 3).
        first: What the picture begins with; default: the photograph.
    """

    def __init__(self, taste: Taste, settings: Train, photograph: Any, first: Any = None) -> None:
        self.taste, self.content = taste, taste.content(photograph)
        self.picture = keras.Variable(np.asarray(photograph if first is None else first, np.float32), name="picture")
        self.optimizer = optimizer_of(settings)
        self.optimizer.build([self.picture])
        self.step = tf.function(self._step, autograph=False)

    @property
    def moving(self) -> list[Any]:
        """What a step changes."""
        return [self.picture, *self.optimizer.variables]

    def _step(self) -> dict[str, Any]:
        with tf.GradientTape() as tape:
            parts = self.taste(self.picture.value, self.content)
            loss = tf.reduce_sum(described(parts))
        self.optimizer.apply_gradients([(tape.gradient(loss, self.picture.value), self.picture)])
        return {name: tf.reduce_sum(value) for name, value in parts.items()}


def by_descent(taste: Taste, settings: Train, photographs: Any, steps: int) -> Any:
    """What so many steps on the pixels make of photographs (batch, height, width, 3), one by one."""
    painted = []
    for photograph in photographs:
        descent = Descent(taste, settings, photograph[None])
        for _ in range(steps):
            descent.step()
        painted.append(descent.picture.value.numpy()[0])
    return np.stack(painted)


def noise(shape: Any, seed: int) -> Any:
    """A picture of grey noise."""
    return tf.constant(np.random.default_rng(seed).normal(127.5, 40, shape).clip(0, 255), tf.float32)


# ---------------------------------------------------------------------------------------------- by a network


class Painter(Lean):
    """Trains a network to paint photographs in one go: by the same losses, on batches of photographs."""

    def __init__(self, start: Start) -> None:
        self.model: Studio = start.model
        self.images, settings = start.train.inputs["image"], start.settings
        self.size, self.shuffle, self.seed = settings.batch_size, settings.shuffle, start.seed
        self.steps = math.ceil(len(self.images) / self.size)
        painting = tf.constant(start.train.targets["painted"][:1], tf.float32)
        self.taste = Taste(self.model.eyes, self.model.plan, painting)
        self.painting = shown(painting)[0]
        self.optimizer = optimizer_of(settings)
        self.optimizer.build(self.model.work.trainable_variables)
        self.moving = [*self.model.work.variables, *self.optimizer.variables]
        self._update = tf.function(self._step, reduce_retracing=True, autograph=False)

    def advance(self, step: int) -> Mapping[str, float]:
        """One update; every epoch goes through all photographs once."""
        epoch, number = divmod(step, self.steps)
        rows = order(self.seed, epoch, len(self.images), self.shuffle)[number * self.size :][: self.size]
        parts = {name: float(value) for name, value in self._update(tf.constant(self.images[rows])).items()}
        return {"loss": sum(parts.values()), **parts}

    def _step(self, images: Any) -> dict[str, Any]:
        photographs, weights = tf.cast(images, tf.float32), self.model.work.trainable_variables
        with tf.GradientTape() as tape:
            parts = self.taste(self.model.work(images, training=True), self.taste.content(photographs))
            loss = tf.reduce_mean(described(parts))
        self.optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
        return {name: tf.reduce_mean(value) for name, value in parts.items()}

    def results(self) -> Mapping[str, Any]:
        """The painting whose style was learned."""
        return {"painting": self.painting}


def painter(shape: tuple[int | None, ...], filters: int, blocks: int) -> keras.Model:
    """A network that paints a photograph (height, width, 3): what it changes is added to what it was given.

    Two convolutions that halve, residual blocks, and two that double again, each normalised for each picture by itself
    (Johnson, Alahi and Fei-Fei 2016; Ulyanov, Vedaldi and Lempitsky 2016).
    """
    from keras import layers

    def convolved(x: Any, count: int, size: int, strides: int = 1) -> Any:
        x = layers.Conv2D(count, size, strides, padding="same", use_bias=False)(x)
        return layers.GroupNormalization(groups=-1)(x)

    given = keras.Input(shape, dtype="uint8", name="image")
    photograph = keras.ops.cast(given, "float32")
    x = layers.Rescaling(1 / 127.5, -1)(photograph)
    x = layers.ReLU()(convolved(x, filters, 9))
    for k in (2, 4):
        x = layers.ReLU()(convolved(x, k * filters, 3, 2))
    for _ in range(blocks):
        inner = layers.ReLU()(convolved(x, 4 * filters, 3))
        x = layers.Add()([x, convolved(inner, 4 * filters, 3)])
    for k in (2, 1):
        x = layers.ReLU()(convolved(layers.UpSampling2D(2)(x), k * filters, 3))
    # Zeros: it begins with the photograph itself, whose loss it lowers from then on.
    x = layers.Conv2D(3, 9, padding="same", activation="tanh", kernel_initializer="zeros")(x)
    change = layers.Rescaling(127.5)(x)
    return keras.Model(given, layers.ReLU(255.0, name="painted")(layers.Add()([photograph, change])), name="painter")


# ------------------------------------------------------------------------------------------------ distances


def style_distances(taste: Taste, pictures: Any) -> Any:
    """How far the Grams of pictures are from the painting's, as a share of those, over the style layers; (batch,)."""
    found = [gram(seen) for seen in looked(taste.eyes, pictures)[1:]]
    shares = [tf.sqrt(squares(one - own) / squares(own)) for one, own in zip(found, taste.grams, strict=True)]
    return (tf.add_n(shares) / len(shares)).numpy()


def content_distances(taste: Taste, pictures: Any, photographs: Any) -> Any:
    """How far what is seen in pictures is from what is seen in photographs, as a share of that; (batch,)."""
    own = taste.content(photographs)
    return tf.sqrt(squares(taste.content(pictures) - own) / squares(own)).numpy()
