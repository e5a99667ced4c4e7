"""Film reviews, liked or not: bags of words and of pairs of words, recurrent networks, transformers.

Book:    Chollet, Deep Learning with Python (2nd ed.), sections 11.3 and 11.4.
Run:     headrace run imdb_reviews                          a bag of words
         headrace run imdb_reviews --variant bigram         of words and pairs of words: the best of the chapter
         headrace run imdb_reviews --variant masked         a bidirectional LSTM that leaves padding out
         headrace run imdb_reviews --variant positional     a transformer that knows where words stand
         headrace study imdb_reviews bags                   all bags, from three seeds
         headrace study imdb_reviews short                  sequence models on 200 words, in half an hour
Expect:  a test accuracy of 0.88 to 0.90 of the bags (the book: 0.892 and 0.904) in minutes on two CPU cores; of the
         sequence models 0.85 to 0.88, in hours.

Records hold the numbers of all words of a review (or of its words and pairs of words), as many as it has, and each
model's first layer makes a bag or a sequence of 600 of them: all variants of one kind of words share one set of
records, and its vocabulary. The book stores what each model takes: 500 MB for a bag of 20,000.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from headrace import Feature, Finding, Functions, Pipeline, Promise, Study, Train, Variant
from headrace.spec import ModelCheckpoint
from pipelines.sources import glove
from pipelines.sources.imdb_raw import LABELLED, WITH_GLOVE

if TYPE_CHECKING:
    import keras
    import numpy as np

    from headrace.describing.summaries import Statistics
    from headrace.records.inputs import Batch
    from headrace.texts import Vocabulary

    Arrays = Mapping[str, np.ndarray[Any, Any]]

WORDS = 20_000
"""Tokens that are told apart, padding not counted; the first of them stands for unknown words."""
GLOVE = 100
"""Numbers in a vector of GloVe."""


# --------------------------------------------------------------------------------------------- preprocessing


def learn(batches: Iterable[Batch], statistics: Statistics, words: int = WORDS, ngrams: int = 1) -> Arrays:
    """The most frequent words of the training reviews, or words and pairs of words."""
    return vocabulary(batches, words, ngrams).arrays()


def learn_with_glove(
    batches: Iterable[Batch], statistics: Statistics, raw: Path, words: int = WORDS, ngrams: int = 1
) -> Arrays:
    """The same, and the vectors that GloVe has of them."""
    found = vocabulary(batches, words, ngrams)
    vectors = glove.vectors(raw, [word.decode() for word in found.words], GLOVE)
    return {**found.arrays(), "vectors": found.rows(vectors, GLOVE)}


def vocabulary(batches: Iterable[Batch], words: int, ngrams: int) -> Vocabulary:
    """Of the training reviews; all others count as one unknown word."""
    from headrace.texts import Vocabulary, strings

    return Vocabulary.of(strings(batches, "review"), words - 1, ngrams)


def preprocess(statistics: Statistics, learned: Arrays) -> Callable[[Batch], Batch]:
    """Reviews become the numbers of their words."""
    from headrace.texts import Vocabulary

    vectorise = Vocabulary.from_arrays(learned).vectorise()

    def numbers(batch: Batch) -> Batch:
        ready = {**batch, "tokens": vectorise(batch["review"])}
        del ready["review"]
        return ready

    return numbers


# ---------------------------------------------------------------------------------------------------- models


def bag(
    inputs: Mapping[str, Feature],
    learned: Arrays,
    words: int = WORDS,
    units: int = 16,
    mode: Literal["multi_hot", "count", "tf_idf"] = "multi_hot",
) -> keras.Model:
    """A bag of 20,000 words and a hidden layer of 16 units: 320,033 parameters."""
    import keras
    import numpy as np

    from headrace.layers import TokenBag
    from headrace.texts import Vocabulary

    given = keras.Input((None,), dtype="int64", name="tokens")
    taken = TokenBag(words, mode, name="bag")
    x = taken(given)
    if mode == "tf_idf":
        # Padding has no place in the bag; words that don't occur need no weight.
        weights = Vocabulary.from_arrays(learned).weights()[1 : words + 1]
        taken.weight.assign(np.pad(weights, (0, words - len(weights))))
    x = keras.layers.Dense(units, activation="relu")(x)
    return ending(given, x)


def one_hot(inputs: Mapping[str, Feature], words: int = WORDS, length: int = 600, units: int = 32) -> keras.Model:
    """A bidirectional LSTM on vectors of 20,000 numbers with a single 1: 5,128,513 parameters.

    Nothing is multiplied by zeros: what such a vector gives is a row of the kernel, which is looked up.
    """
    import keras

    from headrace.layers import LookedUpLSTMCell

    given, tokens = sequence(words, length)
    ways = []
    for name in ("forward", "backward"):
        rows = keras.layers.Embedding(words, 4 * units, embeddings_initializer="glorot_uniform", name=f"{name}_kernel")(
            tokens
        )
        cell = LookedUpLSTMCell(units, name=f"{name}_cell")
        ways.append(keras.layers.RNN(cell, go_backwards=name == "backward", name=name)(rows))
    return ending(given, keras.layers.Concatenate()(ways))


def recurrent(
    inputs: Mapping[str, Feature],
    words: int = WORDS,
    length: int = 600,
    width: int = 256,
    units: int = 32,
    masked: bool = False,
) -> keras.Model:
    """Vectors of words that are learned with the rest, and a bidirectional LSTM: 5,194,049 parameters.

    Masked, it ends with the last word of a review; else it goes on through its padding and forgets.
    """
    import keras

    given, tokens = sequence(words, length)
    x = keras.layers.Embedding(words, width, mask_zero=masked, name="words")(tokens)
    return ending(given, keras.layers.Bidirectional(keras.layers.LSTM(units))(x))


def with_glove(
    inputs: Mapping[str, Feature], learned: Arrays, words: int = WORDS, length: int = 600, units: int = 32
) -> keras.Model:
    """Vectors of GloVe that stay as they are, and a bidirectional LSTM: of 2,034,113 parameters 34,113 are trained."""
    import keras
    import numpy as np

    given, tokens = sequence(words, length)
    embedding = keras.layers.Embedding(words, GLOVE, mask_zero=True, trainable=False, name="glove")
    x = embedding(tokens)
    known = learned["vectors"][:words]
    embedding.embeddings.assign(np.pad(known, ((0, words - len(known)), (0, 0))))
    return ending(given, keras.layers.Bidirectional(keras.layers.LSTM(units))(x))


def transformer(
    inputs: Mapping[str, Feature],
    words: int = WORDS,
    length: int = 600,
    width: int = 256,
    inner: int = 32,
    heads: int = 2,
    positions: bool = False,
) -> keras.Model:
    """A transformer's encoder: 5,664,033 parameters, or 5,817,633 with positions and a mask.

    Without positions a review is a bag to it, in which words look at each other.
    """
    import keras

    from headrace.layers import LargestOfSteps, PositionalEmbedding, TransformerEncoder

    given, tokens = sequence(words, length)
    embedding = PositionalEmbedding(length, words, width) if positions else keras.layers.Embedding(words, width)
    x = TransformerEncoder(width, inner, heads)(embedding(tokens))
    return ending(given, LargestOfSteps()(x))


def sequence(words: int, length: int) -> tuple[Any, Any]:
    """The input, and the first 600 words of it."""
    import keras

    from headrace.layers import FixedLength

    given = keras.Input((None,), dtype="int64", name="tokens")
    return given, FixedLength(length, words, name="first_words")(given)


def ending(given: keras.KerasTensor, x: keras.KerasTensor) -> keras.Model:
    """Dropout of a half, and the score of a good review."""
    import keras

    x = keras.layers.Dropout(0.5)(x)
    return keras.Model(given, keras.layers.Dense(1, activation="sigmoid", name="label")(x))


def own() -> Mapping[str, Any]:
    """What saved models are made of beside Keras' own layers."""
    from headrace.layers import LAYERS

    return LAYERS


# -------------------------------------------------------------------------------------------------- pipeline

TEN = Train(
    epochs=10,
    batch_size=32,
    optimizer="rmsprop",
    loss="binary_crossentropy",
    metrics=("accuracy",),
    validation="validation",
    checkpoint=ModelCheckpoint(),
)
TWENTY = TEN.model_copy(update={"epochs": 20})
PAIRS = {"ngrams": 2}
SHORT = {"model.length": 30}
"""Steps of a recurrent network in a smoke run."""


def promised(at_least: float, book: float | None = None, section: str = "11.3.3") -> tuple[Promise, ...]:
    """The accuracy on test reviews."""
    return (Promise(metric="accuracy", at_least=at_least, book=book, source=f"section {section}"),)


PIPELINE = Pipeline(
    name="imdb_reviews",
    title="Film reviews as texts",
    task="binary",
    book="Chollet, Deep Learning with Python (2nd ed.), 11.3 and 11.4",
    expect="test accuracy 0.88 to 0.90 of bags, in minutes; 0.85 to 0.88 of sequence models, in hours",
    sources={"imdb": LABELLED, "imdb_glove": WITH_GLOVE},
    learn=learn,
    preprocess=preprocess,
    model=bag,
    custom=own,
    variants={
        "unigram": Variant(
            description="Which of 20,000 words are there",
            train=TEN,
            promises=promised(0.88, 0.892, "11.3.2"),
        ),
        "bigram": Variant(
            description="Which of 20,000 words and pairs of words are there",
            train=TEN,
            preprocess=PAIRS,
            promises=promised(0.89, 0.904, "11.3.2"),
        ),
        "count": Variant(
            description="How often each of them is there (the book names it, and trains none)",
            train=TEN,
            preprocess=PAIRS,
            model={"mode": "count"},
            promises=promised(0.87, section="11.3.2, without a figure"),
        ),
        "tf_idf": Variant(
            description="How often, weighed by how telling a word is",
            train=TEN,
            preprocess=PAIRS,
            model={"mode": "tf_idf"},
            promises=promised(0.88, 0.898, "11.3.2"),
        ),
        "one_hot": Variant(
            description="A bidirectional LSTM on words as vectors with a single 1",
            train=TEN,
            functions=Functions(model=one_hot),
            promises=promised(0.84, 0.87),
            smoke={**SHORT, "model.units": 8},
        ),
        "embedding": Variant(
            description="The same on vectors that are learned",
            train=TEN,
            functions=Functions(model=recurrent),
            promises=promised(0.84, 0.87),
            smoke={**SHORT, "model.width": 16},
        ),
        "masked": Variant(
            description="The same, which leaves padding out",
            train=TEN,
            functions=Functions(model=recurrent),
            model={"masked": True},
            promises=promised(0.85, 0.88),
            smoke={**SHORT, "model.width": 16},
        ),
        "glove": Variant(
            description="The same on vectors of GloVe, which stay as they are",
            train=TEN,
            source="imdb_glove",
            functions=Functions(learn=learn_with_glove, model=with_glove),
            promises=promised(0.8, section="11.3.3, without a figure"),
            smoke=SHORT,
        ),
        "transformer": Variant(
            description="A transformer's encoder that does not know where words stand",
            train=TWENTY,
            functions=Functions(model=transformer),
            promises=promised(0.85, 0.875, "11.4.3"),
            smoke={**SHORT, "model.width": 16},
        ),
        "positional": Variant(
            description="One that does",
            train=TWENTY,
            functions=Functions(model=transformer),
            model={"positions": True},
            promises=promised(0.86, 0.883, "11.4.3"),
            smoke={**SHORT, "model.width": 16},
        ),
    },
    studies={
        "bags": Study(
            description="Words and pairs of words, and how they are counted, from three seeds",
            variants=("unigram", "bigram", "count", "tf_idf"),
            seeds=3,
            findings=(
                Finding(cell="unigram", at_least=0.83, book=0.892, source="section 11.3.2"),
                Finding(cell="bigram", at_least=0.83, book=0.904, source="section 11.3.2"),
                Finding(cell="bigram", beats="unigram", source="section 11.3.2"),
                Finding(cell="bigram", beats="tf_idf", source="section 11.3.2"),
            ),
        ),
        "recurrent": Study(
            description="What a bidirectional LSTM is given",
            variants=("one_hot", "embedding", "masked", "glove"),
            findings=(
                Finding(cell="one_hot", at_least=0.72, book=0.87, source="section 11.3.3"),
                Finding(cell="embedding", at_least=0.72, book=0.87, source="section 11.3.3"),
                Finding(cell="masked", at_least=0.72, book=0.88, source="section 11.3.3"),
                Finding(cell="glove", at_least=0.72, source="section 11.3.3"),
                Finding(cell="masked", beats="embedding", source="section 11.3.3"),
            ),
        ),
        "short": Study(
            description="Sequence models on the first 200 words of reviews, in four epochs: half an hour on a CPU",
            variants=("one_hot", "embedding", "masked", "glove", "transformer", "positional"),
            settings={"model.length": 200, "train.epochs": 4},
            findings=(
                *(
                    Finding(cell=cell, at_least=0.72)
                    for cell in ("one_hot", "embedding", "masked", "transformer", "positional")
                ),
                Finding(cell="glove", at_least=0.6, source="the words that the file of vectors has"),
                Finding(cell="positional", beats="transformer", source="section 11.4.3"),
            ),
        ),
        "transformers": Study(
            description="A transformer with positions and without, and the bag that beats both",
            variants=("transformer", "positional", "bigram"),
            findings=(
                Finding(cell="transformer", at_least=0.72, book=0.875, source="section 11.4.3"),
                Finding(cell="positional", at_least=0.72, book=0.883, source="section 11.4.3"),
                Finding(cell="positional", beats="transformer", source="section 11.4.3"),
                Finding(cell="bigram", beats="positional", source="section 11.4.4"),
            ),
        ),
    },
    smoke={"train.epochs": 2, "export.examples": 16},
)
