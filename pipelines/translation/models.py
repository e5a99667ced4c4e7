"""The networks: a decoder reads what was said so far, and each step answers a probability for every word."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import keras

    from headrace import Feature


def model(
    inputs: Mapping[str, Feature],
    architecture: Literal["transformer", "rnn", "lstm"] = "transformer",
    vocabulary: int = 15_000,
    width: int = 256,
    units: int = 2048,
    heads: int = 8,
    size: int | None = None,
    dropout: float = 0.5,
) -> keras.Model:
    """A network of one of three kinds.

    Args:
        inputs: Features of the records: `source` (length,), and `previous` (length,), the words before each step.
        architecture: Which kind.
        vocabulary: Words of either language, as `preprocess.vocabulary` has it.
        width: Of the vectors of words.
        units: Of a recurrent layer, or of the dense layer within a block of the Transformer.
        heads: Of the Transformer's attention.
        size: Width of each head; default: `width`, as in the book.
        dropout: Share of what is left out before the last layer.
    """
    make = {"transformer": transformer, "rnn": rnn, "lstm": lstm}[architecture]
    return make(inputs, vocabulary, width, units, heads, size, dropout)


def transformer(
    inputs: Mapping[str, Feature], vocabulary: int, width: int, units: int, heads: int, size: int | None, dropout: float
) -> keras.Model:
    """An encoder and a decoder (19,960,216 parameters with the book's settings)."""
    import keras

    from headrace.layers import PositionalEmbedding, TransformerDecoder, TransformerEncoder

    source, previous, length = _given(inputs)
    x = PositionalEmbedding(length, vocabulary, width, name="source_words")(source)
    encoded = TransformerEncoder(width, units, heads, size=size, name="encoder")(x)
    x = PositionalEmbedding(length, vocabulary, width, name="previous_words")(previous)
    x = TransformerDecoder(width, units, heads, size=size, name="decoder")(x, encoded)
    return keras.Model([source, previous], _words(x, vocabulary, dropout))


def rnn(inputs: Mapping[str, Feature], vocabulary: int, width: int, units: int, *rest: Any) -> keras.Model:
    """A GRU in both directions, and one that goes on from its state (34,869,912 parameters with 1,024 units)."""
    import keras

    source, previous, _ = _given(inputs)
    x = keras.layers.Embedding(vocabulary, width, mask_zero=True, name="source_words")(source)
    encoded = keras.layers.Bidirectional(keras.layers.GRU(units), merge_mode="sum", name="encoder")(x)
    x = keras.layers.Embedding(vocabulary, width, mask_zero=True, name="previous_words")(previous)
    x = keras.layers.GRU(units, return_sequences=True, name="decoder")(x, initial_state=encoded)
    return keras.Model([source, previous], _words(x, vocabulary, rest[-1]))


def lstm(inputs: Mapping[str, Feature], vocabulary: int, width: int, units: int, *rest: Any) -> keras.Model:
    """Word for word, each from those before it in the source (2,435,608 parameters with 128 and 32 units)."""
    import keras

    source = keras.Input(inputs["source"].shape, dtype="int64", name="source")
    x = keras.layers.Embedding(vocabulary, width, name="source_words")(source)
    x = keras.layers.LSTM(units, return_sequences=True, name="decoder")(x)
    return keras.Model(source, keras.layers.Dense(vocabulary, activation="softmax", name="following")(x))


def _given(inputs: Mapping[str, Feature]) -> tuple[Any, Any, int]:
    import keras

    source, previous = (keras.Input(inputs[name].shape, dtype="int64", name=name) for name in ("source", "previous"))
    return source, previous, int(inputs["source"].shape[0] or 0)


def _words(x: Any, vocabulary: int, dropout: float) -> Any:
    import keras

    x = keras.layers.Dropout(dropout)(x)
    return keras.layers.Dense(vocabulary, activation="softmax", name="following")(x)
