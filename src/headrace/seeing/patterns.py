"""What a filter looks for: an image that is changed until the filter answers strongly (Chollet 9.4.2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.errors import ConfigError
from headrace.seeing.networks import Network, unbent

if TYPE_CHECKING:
    import tensorflow as tf

    Array = np.ndarray[Any, Any]

SIDE = 200
"""Height and width of the image of a network that takes any."""
ITERATIONS, MOST = 30, 300
"""Steps that every image is changed by, and those after which a filter is given up that still isn't raised enough."""
STEP = 10 / (SIDE * SIDE * 3) ** 0.5
"""How far a step moves a pixel in the mean (root of the mean square), as a share of a pixel's span: the book divides
the gradient by its length and multiplies by 10, on images of 200 × 200 × 3."""
ENOUGH = 10.0
"""How many times the answer to the first image a raised answer is."""
BORDER = 2
"""Pixels at the rim of a map that don't count: filters answer to the border of an image, too."""
TOGETHER = 16
"""Filters whose images are made at once."""


@dataclass(frozen=True)
class Pattern:
    """The image that a filter was given, and what it makes of it."""

    path: str
    filter: int
    start: float
    """The mean answer to grey noise."""
    end: float
    """The mean answer to the image."""
    iterations: int
    image: Array
    """(height, width, channels), uint8: 64 to a standard deviation, around 128."""

    @property
    def ratio(self) -> float | None:
        """How many times the first answer the last one is; None if the first one was not above zero."""
        return self.end / self.start if self.start > 0 else None

    @property
    def raised(self) -> bool:
        """Whether it answers ten times as strongly as to noise, or at all where it did not."""
        return self.end > max(ENOUGH * self.start, 0) if self.start > 0 else self.end > 0


def patterns(network: Network, path: str, filters: Sequence[int], *, seed: int = 0) -> list[Pattern]:
    """Images to which the filters of a layer answer strongly, made by gradient ascent from grey noise.

    What is raised is what a filter answers before its activation, so that one that is silent at first finds a way, too;
    `start` and `end` are measured after it.

    Args:
        network: The network.
        path: Of a convolution.
        filters: Numbers of its channels.
        seed: Of the noise.

    Raises:
        ConfigError: There is no such layer, no such filter, or the layer's answers are no maps.
    """
    seen = network.known(path)
    if not seen.is_map:
        raise ConfigError(f"The layer {seen.path} has no filters that look at places.", received=f"shape {seen.shape}")
    wrong = [number for number in filters if not 0 <= number < seen.shape[2]]
    if wrong:
        raise ConfigError(f"The layer {seen.path} has no filter {wrong[0]}.", expected=f"0 to {seen.shape[2] - 1}")
    found: list[Pattern] = []
    for begin in range(0, len(filters), TOGETHER):
        found += _together(network, seen.path, list(filters[begin : begin + TOGETHER]), seed)
    return found


def _together(network: Network, path: str, filters: list[int], seed: int) -> list[Pattern]:
    import tensorflow as tf

    low, high = network.span
    size = (SIDE, SIDE) if network.any_size else network.size
    # The same noise for each filter, so that a filter's pattern does not depend on which others are asked for.
    noise = tf.random.stateless_uniform((1, *size, network.channels), (seed, 0), 0.4, 0.6)
    images = tf.repeat(low + (high - low) * noise, len(filters), axis=0)
    layer, numbers = network.layer(path), tf.constant(filters)

    def answers(images: tf.Tensor) -> tf.Tensor:
        maps = network.heard(images, [path])[1][path]
        if min(maps.shape[1:3]) > 2 * BORDER:
            maps = maps[:, BORDER:-BORDER, BORDER:-BORDER]
        return tf.gather(tf.reduce_mean(maps, axis=(1, 2)), numbers, batch_dims=1)

    @tf.function(autograph=False)
    def climbed(images: tf.Tensor, going: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape, unbent(layer):
            tape.watch(images)
            total = tf.reduce_sum(answers(images))
        slope = tape.gradient(total, images)
        if slope is None:
            raise ConfigError(f"No gradient leads from the layer {path} to the image.")
        length = tf.sqrt(tf.reduce_mean(slope**2, axis=(1, 2, 3), keepdims=True))
        return images + STEP * (high - low) * tf.math.divide_no_nan(slope, length) * going[:, None, None, None]

    measured = tf.function(answers, autograph=False)
    start = end = measured(images).numpy()
    steps = np.zeros(len(filters), np.int64)
    going = np.ones(len(filters), bool)
    while going.any():
        images = climbed(images, tf.constant(going, tf.float32))
        steps[going] += 1
        if steps.max() >= ITERATIONS and steps.max() % 10 == 0:
            end = measured(images).numpy()
            # What was silent at first is there as soon as it answers at all.
            going &= (end <= np.maximum(ENOUGH * start, 0)) & (steps < MOST)
    return [
        Pattern(path, number, float(start[k]), float(end[k]), int(steps[k]), visible(images[k].numpy()))
        for k, number in enumerate(filters)
    ]


def visible(image: Array) -> Array:
    """An image (height, width, channels) as pixels, uint8, without its rim, where filters see beyond the border."""
    rim = 25 if min(image.shape[:2]) >= 100 else 0
    image = image[rim : image.shape[0] - rim, rim : image.shape[1] - rim]
    centred = (image - image.mean()) / max(float(image.std()), 1e-9)
    pixels: Array = (centred * 64 + 128).clip(0, 255).astype(np.uint8)
    return pixels
