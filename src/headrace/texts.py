"""Texts as numbers: vocabularies of the training split, and what a workload's `preprocess` does in TensorFlow's graph.

A text becomes the numbers of its words (or of its words and pairs of words), as many as it has: `Vocabulary.vectorise`.
They are stored as they are, and the model's first layer makes of them what it needs: `headrace.layers.TokenBag` a bag,
`headrace.layers.FixedLength` a sequence that is cut or filled up. A film review's numbers take 419 bytes on average, a
dense row of 20,000 positions 48 times as many. All models of one kind of words share one set of records, and its
vocabulary is computed once.
"""

from __future__ import annotations

import heapq
import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from headrace.bundling.text import Recipe, TextReader

if TYPE_CHECKING:
    import numpy as np
    import tensorflow as tf

    Array = np.ndarray[Any, Any]

log = logging.getLogger(__name__)

PADDING, UNKNOWN, FIRST = 0, 1, 2
"""What numbers stand for that are no words: filling up, words that are not in the vocabulary; and the first word's."""


@dataclass(frozen=True)
class Vocabulary:
    """The most frequent words of some texts, the most frequent first, and in how many texts each of them is.

    Words are what `keras.layers.TextVectorization` makes of a text by default: lower case (of ASCII), no punctuation,
    cut at blanks.
    """

    words: tuple[bytes, ...]
    """Word `k` has the number `FIRST + k`."""
    texts: Array
    """In how many texts each word is (words,), int64."""
    count: int
    """Texts."""
    ngrams: int = 1
    """Most words of one token: 2 counts pairs of neighbours, too."""

    @classmethod
    def of(cls, texts: Iterable[bytes], size: int, ngrams: int = 1) -> Self:
        """Learn it, in one pass.

        Args:
            texts: UTF-8.
            size: Most words. Of words that are equally frequent, the first in the order of their bytes are taken.
            ngrams: Most words of one token.
        """
        import numpy as np

        reader = _reader(ngrams)
        often: Counter[bytes] = Counter()
        within: Counter[bytes] = Counter()
        count = 0
        for count, text in enumerate(texts, 1):  # noqa: B007 (how many there were)
            tokens = reader.tokens(text)
            often.update(tokens)
            within.update(set(tokens))
        del often[b""]
        first = heapq.nsmallest(size, often, key=lambda word: (-often[word], word))
        words = tuple(word for word in first if _is_kept(word))
        return cls(words, np.array([within[word] for word in words], np.int64), count, ngrams)

    def arrays(self) -> dict[str, Array]:
        """As `learn` returns it: arrays by name."""
        import numpy as np

        return {
            "words": np.array(self.words, bytes),
            "texts": self.texts,
            "counted": np.array([self.count, self.ngrams], np.int64),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Array]) -> Self:
        """The vocabulary that `arrays` has taken apart."""
        count, ngrams = map(int, arrays["counted"])
        return cls(tuple(arrays["words"].tolist()), arrays["texts"], count, ngrams)

    def weights(self) -> Array:
        """How telling each token is, ln(1 + texts / (1 + texts it is in)), by its number (FIRST + words,), float32.

        As Keras weighs by "tf_idf" (Chollet 11.3.2); a word that is not in the vocabulary, as all others on average.
        Padding weighs nothing.
        """
        import numpy as np

        known = np.log1p(self.count / (1 + self.texts))
        return np.concatenate([[0.0, known.mean() if len(known) else 0.0], known]).astype(np.float32)

    def rows(self, vectors: Mapping[str, Array], dimensions: int) -> Array:
        """Vectors that others have learned, by the numbers of tokens: (FIRST + words, dimensions), float32.

        What has no vector has a row of zeros; the log says how many words have one.
        """
        import numpy as np

        found = np.zeros((FIRST + len(self.words), dimensions), np.float32)
        known = 0
        for number, word in enumerate(self.words, FIRST):
            vector = vectors.get(word.decode())
            if vector is not None:
                found[number] = vector
                known += 1
        log.info(
            "vectors are known of %s of %s words (%.0f%%)",
            f"{known:,}",
            f"{len(self.words):,}",
            100 * known / max(len(self.words), 1),
        )
        return found

    def vectorise(self) -> Any:
        """The Keras layer that turns texts (batch,) into the numbers of their tokens (batch, as many as each has)."""
        import keras

        return keras.layers.TextVectorization(
            vocabulary=[word.decode() for word in self.words],
            ngrams=self.ngrams if self.ngrams > 1 else None,
            output_mode="int",
            ragged=True,
        )


def _is_kept(word: bytes) -> bool:
    """Whether neither Keras nor NumPy, which ends a string at a zero, would make another word of it."""
    try:
        word.decode()
    except UnicodeDecodeError:
        return False
    return not word.endswith(b"\0")


def _reader(ngrams: int) -> TextReader:
    """What splits texts as `TextVectorization` does, without TensorFlow, and several times as fast."""
    lengths = tuple(range(1, ngrams + 1)) if ngrams > 1 else ()
    return TextReader(Recipe(source="", vocabulary="", ngrams=lengths), ())


def strings(batches: Iterable[Mapping[str, tf.Tensor]], name: str) -> Iterable[bytes]:
    """All texts of a feature, as `learn` is given them."""
    for batch in batches:
        yield from batch[name].numpy().tolist()


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

    return tf.cast(counts(tokens, size, unknown) > 0, tf.uint8)


def counts(tokens: tf.Tensor | tf.RaggedTensor, size: int, unknown: int = 2) -> tf.Tensor:
    """How often each token stands in a text: (batch, size), of the tokens' type; else as `multi_hot`."""
    import tensorflow as tf

    padded = tokens.to_tensor() if isinstance(tokens, tf.RaggedTensor) else tokens
    places = tf.where(padded > 0)
    found = tf.gather_nd(padded, places)
    found = tf.where(found < size, found, tf.cast(unknown, found.dtype))
    shape = tf.stack([tf.shape(padded, tf.int64)[0], size])
    summed = tf.scatter_nd(tf.stack([places[:, 0], tf.cast(found, tf.int64)], axis=1), tf.ones_like(found), shape)
    return tf.ensure_shape(summed, (None, size))
