"""How often the next word is guessed, while a network is trained."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf


class WordAccuracy(keras.metrics.Mean):
    """The share of the next words that were the likeliest ones; what fills up sentences does not count."""

    def __init__(self, name: str = "word_accuracy", **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)

    def update_state(self, words: Any, answers: Any, sample_weight: Any = None) -> None:
        """Take a batch: words (batch, steps), and a probability for each word (batch, steps, vocabulary)."""
        counts = tf.cast(words != 0, tf.float32)
        if sample_weight is not None:
            counts *= tf.reshape(tf.cast(sample_weight, tf.float32), (-1, 1))
        right = tf.cast(tf.argmax(answers, axis=-1, output_type=words.dtype) == words, tf.float32)
        super().update_state(right, sample_weight=counts)
