"""Newswires in 46 topics: a bag of words and a small dense network, and what a layer that is too narrow costs.

Book:    Chollet, Deep Learning with Python (2nd ed.), section 4.2.
Run:     headrace run newswire                          trained for 9 epochs on all training examples
         headrace run newswire --variant dev            20 epochs, the last 1,000 examples held out
         headrace run newswire --variant bottleneck     a layer of 4 units in the middle
         headrace study newswire width                  how many units and layers
Expect:  a test accuracy of 0.78 to 0.82 (the book: 0.797) in half a minute on two CPU cores; labels drawn at random
         are right in 19 of 100.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from headrace import Deploy, Feature, Finding, Pipeline, Promise, Study, Train, Variant
from pipelines.sources.reuters import REUTERS, TOPICS

if TYPE_CHECKING:
    import keras

    from headrace.describing.summaries import Statistics
    from headrace.records.inputs import Batch


def preprocess(statistics: Statistics, words: int = 10_000, one_hot: bool = False) -> Callable[[Batch], Batch]:
    """Texts become bags of their most frequent words; topics stay numbers, or become vectors with a 1."""
    import tensorflow as tf

    from headrace.texts import multi_hot

    def bag(batch: Batch) -> Batch:
        ready = {**batch, "words": multi_hot(batch["tokens"], words)}
        del ready["tokens"]
        if one_hot and "topic" in batch:
            ready["topic"] = tf.one_hot(batch["topic"], len(TOPICS))
        return ready

    return bag


def model(inputs: Mapping[str, Feature], units: int = 64, layers: int = 2, narrow: int = 0) -> keras.Model:
    """Hidden layers of 64 units (647,214 parameters), the last of them of `narrow` units if that is given."""
    import keras

    given = keras.Input(inputs["words"].shape, dtype="uint8", name="words")
    x = keras.ops.cast(given, keras.config.floatx())
    for size in [units] * (layers - bool(narrow)) + [narrow] * bool(narrow):
        x = keras.layers.Dense(size, activation="relu")(x)
    return keras.Model(given, keras.layers.Dense(len(TOPICS), activation="softmax", name="topic")(x))


FINAL = Train(
    epochs=9,
    batch_size=512,
    optimizer="rmsprop",
    loss="sparse_categorical_crossentropy",
    metrics=("accuracy",),
)
DEV = FINAL.model_copy(update={"epochs": 20, "validation_split": 1_000 / 8_982})

PIPELINE = Pipeline(
    name="newswire",
    title="Topics of newswires",
    task="multiclass",
    book="Chollet, Deep Learning with Python (2nd ed.), 4.2",
    expect="test accuracy 0.78 to 0.82; half a minute on two CPU cores",
    sources={"reuters": REUTERS},
    preprocess=preprocess,
    model=model,
    variants={
        "final": Variant(
            description="9 epochs on all training examples, tested once",
            train=FINAL,
            promises=(Promise(metric="accuracy", at_least=0.78, book=0.797, source="section 4.2.4"),),
        ),
        "dev": Variant(
            description="20 epochs with 1,000 examples held out, to see where overfitting begins",
            train=DEV,
            line="dev",
        ),
        "one_hot": Variant(
            description="As `final`, with topics as vectors: the same loss by another name",
            train=FINAL.model_copy(update={"loss": "categorical_crossentropy"}),
            preprocess={"one_hot": True},
            promises=(Promise(metric="accuracy", at_least=0.78, book=0.797, source="section 4.2.4"),),
        ),
        "bottleneck": Variant(
            description="A layer of 4 units in the middle, through which 46 topics don't fit",
            train=DEV.model_copy(update={"batch_size": 128}),
            model={"narrow": 4},
            line="bottleneck",
            promises=(
                Promise(metric="accuracy", at_most=0.75, book=0.71, source="section 4.2.7, on held-out examples"),
            ),
        ),
    },
    studies={
        "book": Study(
            description="What the book reports, from five seeds",
            variants=("final", "one_hot", "bottleneck"),
            seeds=5,
            findings=(
                Finding(cell="final", at_least=0.78, at_most=0.82, book=0.797, source="section 4.2.4"),
                Finding(cell="final", beats="bottleneck", source="section 4.2.7"),
            ),
        ),
        "bottleneck": Study(
            description="What the narrow layer costs, at its best epoch on held-out examples",
            variants=("dev", "bottleneck"),
            on="validation",
            metric="val_accuracy",
            findings=(
                Finding(cell="dev", beats="bottleneck", source="section 4.2.7"),
                Finding(cell="bottleneck", at_most=0.75, book=0.71, source="section 4.2.7"),
            ),
        ),
        "width": Study(
            description="Fewer and more units, one hidden layer and three",
            variant="dev",
            axes={"model.units": (32, 64, 128), "model.layers": (1, 2, 3)},
            on="validation",
            metric="val_accuracy",
        ),
    },
    smoke={"train.epochs": 6, "export.examples": 16},
    deploy=Deploy(smoke="bottleneck"),
)
