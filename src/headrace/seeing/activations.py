"""What the layers of a network answer to an image, channel by channel (Chollet 9.4.1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.seeing.networks import Network, Seen

if TYPE_CHECKING:
    import tensorflow as tf

    Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Activation:
    """What a layer answers to one image."""

    layer: Seen
    maps: Array
    """(height, width, channels), float32."""

    @property
    def zeros(self) -> float:
        """Share of its numbers that are zero: what is not there in the image. It grows with depth."""
        return float((self.maps == 0).mean())

    @property
    def silent(self) -> int:
        """Channels that answer the same everywhere: they have found nothing, or say nothing about places."""
        return int((np.ptp(self.maps, axis=(0, 1)) == 0).sum())


def activations(network: Network, image: tf.Tensor, paths: Sequence[str] = ()) -> list[Activation]:
    """What layers answer to an image, in the order in which they are called.

    Args:
        network: The network.
        image: (1, height, width, channels), float32.
        paths: Of layers; default: every convolution and every pooling.

    Raises:
        ConfigError: There is no such layer.
    """
    wanted = [network.known(path) for path in paths] or network.maps("convolution", "pooling")
    _, heard = network.heard(image, [seen.path for seen in wanted])
    return [
        Activation(network.layers[path], values.numpy()[0]) for path, values in heard.items() if values.shape.rank == 4
    ]


def visible(maps: Array) -> Array:
    """Maps (height, width, channels) as grey pixels, uint8: each channel around 128, 64 to a standard deviation."""
    centred = maps - maps.mean(axis=(0, 1))
    deviation = maps.std(axis=(0, 1))
    scaled = np.divide(centred, deviation, out=np.zeros_like(centred), where=deviation > 0) * 64 + 128
    # A channel that answers the same everywhere stays black, as nothing was found.
    return np.where(deviation > 0, scaled, 0).clip(0, 255).astype(np.uint8)
