"""Texts inside TensorFlow's graph: what a workload's `preprocess` does with sequences of tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import tensorflow as tf


def multi_hot(tokens: tf.Tensor | tf.RaggedTensor, size: int, unknown: int = 2) -> tf.Tensor:
    """Which tokens stand in a text, whatever their order and number (Chollet 4.1.2).

    Args:
        tokens: (batch, length), integers of any length from text to text (ragged), or filled up with zeros.
        size: Tokens that are told apart: those below this number.
        unknown: The token that all others count as.

    Returns:
        (batch, size), uint8: 1 where a token is in the text. Token 0 only fills up, and never is.
    """
    import tensorflow as tf

    padded = tokens.to_tensor() if isinstance(tokens, tf.RaggedTensor) else tokens
    places = tf.where(padded > 0)
    found = tf.gather_nd(padded, places)
    found = tf.where(found < size, found, unknown)
    shape = tf.stack([tf.shape(padded, tf.int64)[0], size])
    counts = tf.scatter_nd(tf.stack([places[:, 0], tf.cast(found, tf.int64)], axis=1), tf.ones_like(found), shape)
    return tf.ensure_shape(tf.cast(counts > 0, tf.uint8), (None, size))
