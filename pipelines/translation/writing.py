"""Translations written by a trained model: with what is remembered of earlier steps, or all over again at each step.

The book runs the whole network once for every word. `begun` keeps what does not change instead: what was encoded, and
the keys and values (or the state) of the words so far; the tokens are the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

    from headrace.decoding import State, Step


def begun(model: keras.Model, source: tf.Tensor, candidates: int = 1) -> tuple[Step, State]:
    """What may come next in the translations of some sentences, and what is remembered at the beginning.

    Args:
        model: A trained network: the Transformer, or the recurrent one.
        source: Tokens of the sentences (examples, length), int64.
        candidates: Translations of each that are written side by side.
    """
    names = [layer.name for layer in model.layers]
    kind = type(model.get_layer("decoder")).__name__ if "encoder" in names else ""
    make = {"TransformerDecoder": _transformer, "GRU": _recurrent}[kind]
    return make(model, source, candidates)


def _transformer(model: keras.Model, source: tf.Tensor, candidates: int) -> tuple[Step, State]:
    import tensorflow as tf

    from headrace.decoding import repeated

    layer = model.get_layer
    there = source > 0
    encoded = layer("encoder")(layer("source_words")(source), mask=there)
    # The same for all candidates of an example, and at all steps.
    known, there = repeated((layer("decoder").remember(encoded), there), candidates)

    def step(tokens: tf.Tensor, at: tf.Tensor, cache: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        x = layer("previous_words")(tokens[:, None], first=at)
        x, cache = layer("decoder").step(x, at, cache, known, there)
        return _logarithms(layer("following")(x)[:, 0]), cache

    return step, layer("decoder").cache(tf.shape(source)[0], source.shape[1])


def _recurrent(model: keras.Model, source: tf.Tensor, candidates: int) -> tuple[Step, State]:
    import tensorflow as tf

    layer = model.get_layer
    encoded = layer("encoder")(layer("source_words")(source), mask=source > 0)

    def step(tokens: tf.Tensor, at: tf.Tensor, state: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        # The vectors without the mask that their layer would give them: a single step has no use for it.
        x, (state,) = layer("decoder").cell(tf.gather(layer("previous_words").embeddings, tokens), [state])
        return _logarithms(layer("following")(x)), state

    return step, encoded


def all_over(model: keras.Model, source: tf.Tensor, candidates: int = 1) -> tuple[Step, State]:
    """The same as `begun`, as the book does it: the whole network at each step. What is remembered are the tokens."""
    import tensorflow as tf

    from headrace.decoding import repeated

    places, sources = tf.range(source.shape[1]), repeated(source, candidates)

    def step(tokens: tf.Tensor, at: tf.Tensor, previous: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        previous = tf.where(places == at, tokens[:, None], previous)
        return _logarithms(model([sources, previous], training=False)[:, at]), previous

    return step, tf.zeros_like(source)


def _logarithms(probabilities: tf.Tensor) -> tf.Tensor:
    import tensorflow as tf

    return tf.math.log(tf.maximum(tf.cast(probabilities, tf.float32), 1e-30))


def written(
    model: keras.Model, source: tf.Tensor, start: int, end: int, width: int = 1, how: Callable[..., Any] = begun
) -> tf.Tensor:
    """The translations of some sentences as tokens (examples, length), int64: up to `end`, then zeros.

    Args:
        model: A trained network.
        source: Tokens of the sentences (examples, length), int64.
        start: The token before the first word.
        end: The token after the last one.
        width: Candidates of a beam search; 1: the likeliest word each time.
        how: `begun`, or `all_over`.
    """
    import tensorflow as tf

    from headrace.decoding import beam, greedy

    length = source.shape[1]
    if "encoder" not in [layer.name for layer in model.layers]:
        return word_for_word(model, source, end)
    first = tf.fill((tf.shape(source)[0],), tf.constant(start, tf.int64))
    step, state = how(model, source, width)
    if width == 1:
        return greedy(step, state, first, end, length)
    return beam(step, state, first, end, length, width)


def word_for_word(model: keras.Model, source: tf.Tensor, end: int) -> tf.Tensor:
    """What a network answers that has a word for each word of the source, up to the first end."""
    import tensorflow as tf

    tokens = tf.argmax(model(source, training=False), axis=-1)
    ended = tf.cumsum(tf.cast(tokens == end, tf.int32), axis=1, exclusive=True)
    return tf.where(ended == 0, tokens, 0)


def text(tokens: tf.Tensor, words: tf.Tensor) -> tf.Tensor:
    """Tokens (examples, length) as sentences (examples,), without what only begins, ends or fills them up.

    Args:
        tokens: Numbers of words.
        words: The words by number: those of brackets, and the empty one, are left out.
    """
    import tensorflow as tf

    found = tf.gather(words, tokens)
    silent = tf.reduce_any([found == name for name in ("[start]", "[end]")], axis=0)
    joined = tf.strings.reduce_join(tf.where(silent, "", found), axis=-1, separator=" ")
    return tf.strings.strip(tf.strings.regex_replace(joined, " +", " "))
