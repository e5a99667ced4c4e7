"""Training on windows that are drawn, as the handbook does it."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from headrace.engine.compiling import compile_model
from headrace.engine.loops import Loop, Start


class Drawn(Loop):
    """Steps on batches of windows drawn with replacement, each a function of seed and step."""

    steps = 100

    def __init__(self, start: Start) -> None:
        self.model = start.model
        compile_model(self.model, start.settings, {})
        self.optimizer = self.model.optimizer
        self.optimizer.build(self.model.trainable_variables)
        self._windows = tf.constant(start.train.inputs["window"])
        self._following = tf.constant(start.train.targets["following"])
        self._examples, self._size, self._seed = len(start.train), start.settings.batch_size, start.seed

    def advance(self, step: int) -> dict[str, float]:
        """One update; the loss is that of the batch before it, in nats per character."""
        random = np.random.Generator(np.random.Philox(key=[self._seed, step]))
        rows = random.integers(0, self._examples, self._size, dtype=np.int32)
        return {"loss": float(self.update(tf.constant(rows)))}

    @tf.function(reduce_retracing=True)
    def update(self, rows: Any) -> Any:
        """One update on the windows at these positions."""
        windows, following = tf.gather(self._windows, rows), tf.gather(self._following, rows)
        with tf.GradientTape() as tape:
            loss = self.model.compute_loss(windows, following, self.model(windows, training=True), None)
        weights = self.model.trainable_variables
        self.optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
        return loss
