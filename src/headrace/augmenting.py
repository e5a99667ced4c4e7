"""Augmentation that changes an image and its mask alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf


class Together(keras.Model):
    """A network that learns from images which are changed at random, and from masks which are changed with them.

    What is drawn comes from the seed generators of the layers, which are part of the model: a training that is resumed
    goes on with the changes that were due. Saved is the network without them (`unchanged`).

    Args:
        inputs: The image (height, width, channels), of any type.
        outputs: What the network makes of it.
        changes: Keras' layers that change images at random, and masks with them (`keras.layers.RandomFlip`, …); one
            after the other.
    """

    def __init__(self, inputs: Any, outputs: Any, changes: Sequence[keras.Layer]) -> None:
        super().__init__(inputs, outputs)
        self.changes = list(changes)

    def train_step(self, data: Any) -> Mapping[str, Any]:
        """One update, as Keras makes it, with images and masks that are changed."""
        images, masks, *weights = data
        images, masks = self.changed(images, masks)
        results: Mapping[str, Any] = super().train_step((images, masks, *weights))
        return results

    def changed(self, images: tf.Tensor, masks: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Images (batch, height, width, channels) and masks (batch, height, width, 1), of the types that they have.

        A pixel that comes from beyond the border is one from within: no class is made up.
        """
        made = {"images": tf.cast(images, tf.float32), "segmentation_masks": tf.cast(masks, tf.float32)}
        for change in self.changes:
            made = change(made, training=True)
        pixels = made["images"] if images.dtype.is_floating else tf.clip_by_value(tf.round(made["images"]), 0, 255)
        return tf.cast(pixels, images.dtype), tf.cast(tf.round(made["segmentation_masks"]), masks.dtype)


def unchanged(model: Together) -> Mapping[str, keras.Model]:
    """The network alone, which loads without this class: a `keep` of workloads; the same weights."""
    return {"model": keras.Model(model.inputs, model.outputs)}
