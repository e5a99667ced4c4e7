"""Sequences written token by token inside TensorFlow's graph: the likeliest token each time, or a beam of candidates.

A `Step` answers what may come next. What it remembers of the tokens before (keys and values of a Transformer, the state
of a recurrent layer) is one tensor or a structure of them, a row for each sequence that is being written:

    def step(tokens, at, state):      # (sequences,), how many were written before, what is remembered
        …
        return scores, state          # (sequences, vocabulary), logarithms of probabilities

    tokens = greedy(step, state, first, end, length)
    tokens = beam(step, state, first, end, length, width=4)

Both give (examples, length) int64: after the end token come zeros, and no answer depends on the examples beside it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import tensorflow as tf

State = Any
Step = Callable[["tf.Tensor", "tf.Tensor", State], "tuple[tf.Tensor, State]"]
NEVER = -1e9
"""The score of what can't be. Finite, since sums and differences of it are computed."""


def greedy(step: Step, state: State, first: tf.Tensor, end: int | tf.Tensor, length: int) -> tf.Tensor:
    """The likeliest token each time, until all sequences have ended.

    Args:
        step: What may come next.
        state: What it remembers at the beginning; its first dimension is that of `first`.
        first: The token before the first one (examples,), int64.
        end: The token that ends a sequence. It is written.
        length: Tokens that are written at most.

    Returns:
        (examples, length), int64.
    """
    import tensorflow as tf

    first, end = tf.cast(first, tf.int64), tf.cast(end, tf.int64)
    places = tf.range(length)

    def go_on(at: Any, tokens: Any, done: Any, written: Any, state: Any) -> Any:
        return tf.logical_and(at < length, tf.logical_not(tf.reduce_all(done)))

    def write(at: Any, tokens: Any, done: Any, written: Any, state: Any) -> Any:
        scores, state = step(tokens, at, state)
        chosen = tf.where(done, tf.zeros_like(tokens), tf.argmax(scores, axis=-1))
        written = tf.where(places == at, chosen[:, None], written)
        return at + 1, chosen, tf.logical_or(done, chosen == end), written, state

    written = tf.zeros((tf.shape(first)[0], length), tf.int64)
    begun = (tf.constant(0), first, tf.zeros_like(first, tf.bool), written, state)
    return tf.ensure_shape(_loop(go_on, write, begun)[3], (None, length))


def beam(
    step: Step,
    state: State,
    first: tf.Tensor,
    end: int | tf.Tensor,
    length: int,
    width: int = 4,
    penalty: float = 0.7,
) -> tf.Tensor:
    """The best of several candidates that are written side by side.

    Args:
        step: What may come next; it is given `width` sequences for each example, one after the other.
        state: What it remembers at the beginning, a row for each example.
        first: The token before the first one (examples,), int64.
        end: The token that ends a sequence. It is written.
        length: Tokens that are written at most.
        width: Candidates for each example. With 1 the answers are those of `greedy`.
        penalty: The logarithm of a candidate's probability is divided by the power of its length: 0 prefers short
            answers, 1 long ones (Wu et al., 2016, with a simpler formula).

    Returns:
        (examples, length), int64.
    """
    import tensorflow as tf

    first, end = tf.cast(first, tf.int64), tf.cast(end, tf.int64)
    places, count = tf.range(length), tf.shape(first)[0]
    rows = tf.range(count)[:, None] * width

    def go_on(at: Any, tokens: Any, score: Any, done: Any, written: Any, state: Any) -> Any:
        return tf.logical_and(at < length, tf.logical_not(tf.reduce_all(done)))

    def write(at: Any, tokens: Any, score: Any, done: Any, written: Any, state: Any) -> Any:
        scores, state = step(tokens, at, state)
        size = tf.shape(scores)[-1]
        scores = tf.reshape(tf.cast(scores, tf.float32), (count, width, size))
        # What has ended goes on with zeros, at no cost.
        nothing = tf.where(tf.range(size) == 0, 0.0, NEVER)
        scores = score[:, :, None] + tf.where(done[:, :, None], nothing, scores)
        score, places_of = tf.math.top_k(tf.reshape(scores, (count, width * size)), width)
        parent, chosen = places_of // size, tf.cast(places_of % size, tf.int64)
        done = tf.logical_or(tf.gather(done, parent, batch_dims=1), chosen == end)
        written = tf.where(places == at, chosen[:, :, None], tf.gather(written, parent, batch_dims=1))
        kept = tf.reshape(rows + parent, (-1,))
        state = tf.nest.map_structure(lambda each: tf.gather(each, kept), state)
        return at + 1, tf.reshape(chosen, (-1,)), score, done, written, state

    # All candidates are the same at first: only one of them counts.
    score = tf.where(tf.range(width) == 0, 0.0, NEVER) * tf.ones((count, 1))
    begun = (
        tf.constant(0),
        repeated(first, width),
        score,
        tf.zeros((count, width), tf.bool),
        tf.zeros((count, width, length), tf.int64),
        repeated(state, width),
    )
    _, _, score, _, written, _ = _loop(go_on, write, begun)
    tokens = tf.reduce_sum(tf.cast(written > 0, tf.float32), axis=-1)
    best = tf.argmax(score / tf.maximum(tokens, 1.0) ** penalty, axis=-1)
    return tf.ensure_shape(tf.gather(written, best, batch_dims=1), (None, length))


def repeated(structure: State, times: int) -> State:
    """Each row of every tensor as often as that, one after the other."""
    import tensorflow as tf

    return tf.nest.map_structure(lambda each: tf.repeat(each, times, axis=0), structure)


def _loop(go_on: Any, write: Any, begun: Any) -> Any:
    import tensorflow as tf

    # Rows are as many as there were, which a graph can't see of every operation.
    return tf.while_loop(go_on, write, begun, shape_invariants=tf.nest.map_structure(_any_rows, begun))


def _any_rows(tensor: Any) -> Any:
    import tensorflow as tf

    return tf.TensorShape([None, *tensor.shape[1:]] if tensor.shape.rank else tensor.shape)
