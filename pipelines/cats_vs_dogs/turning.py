"""Which way up is it? What a network learns of photographs that nobody has labelled (Gidaris et al. 2018).

Each photograph is turned by 0, 90, 180 or 270 degrees, and the network tells by how many quarters. To do so it has to
see what stands in it: heads, legs, eyes. What it has learned, the layer `encoder`, is the backbone of other variants.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from headrace.measuring.own import Own, Trial

WAYS = 4


def turned(images: Any, turns: Any) -> Any:
    """Images (batch, side, side, channels), each turned to the left by its own number of quarters (batch,)."""
    every = tf.stack([tf.image.rot90(images, k) for k in range(WAYS)])
    return tf.gather_nd(every, tf.stack([turns, tf.range(tf.shape(turns)[0])], axis=1))


def all_ways(images: Any) -> tuple[Any, Any]:
    """Images turned all four ways, one after the other, and the number of quarters of each."""
    every = tf.concat([tf.image.rot90(images, k) for k in range(WAYS)], axis=0)
    return every, tf.repeat(tf.range(WAYS), tf.shape(images)[0])


class Turns(keras.Model):
    """A network that turns the photographs that it is trained on itself, and looks at no label."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.quarters = keras.random.SeedGenerator()
        self.entropy = keras.losses.SparseCategoricalCrossentropy()
        self.mean_loss = keras.metrics.Mean(name="loss")
        self.mean_accuracy = keras.metrics.SparseCategoricalAccuracy(name="accuracy")

    @property
    def metrics(self) -> list[Any]:
        """What is begun afresh with each epoch."""
        return [self.mean_loss, self.mean_accuracy]

    def train_step(self, data: Any) -> dict[str, Any]:
        """One update, by photographs that are each turned in one way, drawn."""
        images = data[0]
        turns = keras.random.randint((tf.shape(images)[0],), 0, WAYS, "int32", seed=self.quarters)
        with tf.GradientTape() as tape:
            answers = self(turned(images, turns), training=True)
            loss = self.entropy(turns, answers)
        gradients = tape.gradient(loss, self.trainable_weights)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_weights, strict=True))
        return self._noted(turns, answers, loss)

    def test_step(self, data: Any) -> dict[str, Any]:
        """What it makes of photographs that are turned in all ways."""
        images, turns = all_ways(data[0])
        answers = self(images, training=False)
        return self._noted(turns, answers, self.entropy(turns, answers))

    def _noted(self, turns: Any, answers: Any, loss: Any) -> dict[str, Any]:
        self.mean_loss.update_state(loss)
        self.mean_accuracy.update_state(turns, answers)
        return {metric.name: metric.result() for metric in self.metrics}


def as_layers(model: Any) -> Mapping[str, keras.Model]:
    """A network of a class of its own as a graph of Keras' layers, which loads without that class; the same weights."""
    given = keras.Input(model.input_shape[1:], dtype="uint8", name="image")
    return {"model": keras.Model(given, model.call(given, training=False))}


def measure(trial: Trial) -> Own:
    """How often it tells the way of test photographs that are turned in all four; guessing, of a quarter of them."""
    model, right = trial.models["model"], list[Any]()
    for batch in trial.batches():
        images, turns = all_ways(tf.constant(batch["image"]))
        told = np.argmax(model(images, training=False), axis=-1) == turns.numpy()
        # A photograph is one unit: its four ways are not independent.
        right.append(told.reshape(WAYS, -1).mean(axis=0))
    values = np.concatenate(right)
    return Own(
        {"turn_accuracy": values},
        larger_is_better={"turn_accuracy"},
        naive={"guessing": {"turn_accuracy": np.full(len(values), 1 / WAYS)}},
        samples=_shown(model, trial.first(SHOWN)["image"]),
    )


SHOWN = 8


def _shown(model: Any, images: Any) -> dict[str, Any]:
    """Some photographs, each turned in one way, by what they were turned and what was told."""
    turns = np.arange(len(images)) % WAYS
    given = turned(tf.constant(images), tf.constant(turns, tf.int32))
    told = np.argmax(model(given, training=False), axis=-1)
    return {
        f"{k + 1}: turned by {90 * turn}°, told {90 * said}°": image
        for k, (turn, said, image) in enumerate(zip(turns, told, given.numpy(), strict=True))
    }
