"""Where in an image a decision rests: gradient-weighted class activation (Selvaraju et al. 2017; Chollet 9.4.3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.errors import ConfigError
from headrace.seeing.networks import Network, Seen, unbent

if TYPE_CHECKING:
    import tensorflow as tf

    Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class HeatMap:
    """What of an image speaks for a class."""

    number: int
    """Of the class."""
    score: float
    """What the network answers for it."""
    map: Array
    """(height, width) of the layer, float32 from 0 to 1; 0 everywhere if nothing speaks for it."""

    def peak(self, size: tuple[int, int]) -> tuple[int, int]:
        """The pixel (row, column) of an image of this size in the middle of the map's largest value."""
        row, column = np.unravel_index(int(self.map.argmax()), self.map.shape)
        height, width = self.map.shape
        return int((row + 0.5) * size[0] / height), int((column + 0.5) * size[1] / width)


def last_map(network: Network) -> Seen:
    """The last layer before places are lost, which is no pooling: its maps mean the most, and are still fine.

    Raises:
        ConfigError: There is none.
    """
    maps = network.maps("convolution", "other")
    return maps[-1]


def heat_maps(network: Network, image: tf.Tensor, *, top: int = 3, path: str | None = None) -> list[HeatMap]:
    """The classes that a network takes for the likeliest, and what speaks for each of them.

    Gradients are those of the scores before softmax or sigmoid: a network that is sure hardly changes its answer.

    Args:
        network: A network that answers with a number for each class; of a single one, that of class 1 against class 0.
        image: (1, height, width, channels), float32.
        top: How many classes.
        path: Of the layer whose maps are weighted; default: `last_map`.

    Returns:
        The likeliest first.

    Raises:
        ConfigError: The answer is no vector, or there is no such layer, or it has no maps.
    """
    import tensorflow as tf

    seen = network.known(path) if path else last_map(network)
    refused = why_not(network)
    if refused or not seen.is_map:
        raise ConfigError(refused or f"The layer {seen.path} has no maps.", received=f"shape {seen.shape}")
    answers = network.model(image, training=False).numpy()[0]
    single = len(answers) == 1
    scores = np.array([1 - answers[0], answers[0]]) if single else answers
    chosen = np.argsort(-scores, kind="stable")[:top].tolist()
    last = network.layer(list(network.layers)[-1])
    with tf.GradientTape(persistent=True) as tape, unbent(last):
        tape.watch(image)
        raw, heard = network.heard(image, [seen.path])
        # Against class 1 speaks what speaks for class 0.
        wanted = {number: raw[0, 0] * (1 if number else -1) if single else raw[0, number] for number in chosen}
    maps = heard[seen.path]
    return [
        HeatMap(number, float(scores[number]), _weighted(maps, tape.gradient(wanted[number], maps), seen))
        for number in chosen
    ]


def why_not(network: Network) -> str:
    """Why a network's decisions can't be laid out over an image; empty if they can."""
    if len(network.answers) == 1:
        return ""
    return f"{network.name} answers with shape {network.answers}: a heat map needs a number for each class"


def _weighted(maps: tf.Tensor, slope: tf.Tensor | None, seen: Seen) -> Array:
    """Maps (1, height, width, channels) weighted by the mean of their gradients, what is below zero cut off."""
    import tensorflow as tf

    if slope is None:
        raise ConfigError(f"The answer does not depend on the layer {seen.path}.")
    weights = tf.reduce_mean(slope, axis=(1, 2), keepdims=True)
    heat = tf.nn.relu(tf.reduce_sum(weights * maps, axis=-1))[0].numpy()
    found: Array = heat / heat.max() if heat.max() > 0 else heat
    return found


def overlaid(image: Array, heat: Array, share: float = 0.4) -> Array:
    """An image under its heat map, in the colours from blue (nothing) to red (most).

    Args:
        image: (height, width, 1 or 3), uint8.
        heat: (height, width) of a map, from 0 to 1.
        share: Of the colours in a pixel.

    Returns:
        (height, width, 3), uint8.
    """
    from matplotlib import colormaps
    from PIL import Image

    height, width = image.shape[:2]
    grey = Image.fromarray((heat * 255).astype(np.uint8)).resize((width, height), Image.Resampling.BILINEAR)
    colours = colormaps["jet"](np.asarray(grey))[..., :3] * 255
    pixels = np.broadcast_to(image[..., :3], (height, width, 3)) * (1 - share) + colours * share
    return pixels.clip(0, 255).astype(np.uint8)
