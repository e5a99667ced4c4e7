"""Film reviews as bags of words, liked or not, and what helps against overfitting.

Book:    Chollet, Deep Learning with Python (2nd ed.), sections 4.1 and 5.4.4.
Run:     headrace run imdb_indexed                      trained for 4 epochs on all training examples
         headrace run imdb_indexed --variant dev        20 epochs, the last 10,000 examples held out
         headrace study imdb_indexed regularization     smaller, larger, L1, L2, dropout
Expect:  a test accuracy of 0.87 to 0.89 (the book: 0.883) in half a minute on two CPU cores.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from headrace import Feature, Finding, Pipeline, Promise, Study, Train, Variant
from pipelines.sources.imdb_indexed import IMDB_INDEXED

if TYPE_CHECKING:
    import keras

    from headrace.describing.summaries import Statistics
    from headrace.records.inputs import Batch


def preprocess(statistics: Statistics, words: int = 10_000) -> Callable[[Batch], Batch]:
    """Reviews become bags of their most frequent words."""
    from headrace.texts import multi_hot

    def bag(batch: Batch) -> Batch:
        ready = {**batch, "words": multi_hot(batch["tokens"], words)}
        del ready["tokens"]
        return ready

    return bag


def model(
    inputs: Mapping[str, Feature],
    units: int = 16,
    layers: int = 2,
    activation: Literal["relu", "tanh"] = "relu",
    l1: float = 0.0,
    l2: float = 0.0,
    dropout: float = 0.0,
) -> keras.Model:
    """Two hidden layers of 16 units (160,305 parameters), with penalties on their weights or dropout after each."""
    import keras

    given = keras.Input(inputs["words"].shape, dtype="uint8", name="words")
    x = keras.ops.cast(given, keras.config.floatx())
    penalty = keras.regularizers.L1L2(l1, l2) if l1 or l2 else None
    for _ in range(layers):
        x = keras.layers.Dense(units, activation=activation, kernel_regularizer=penalty)(x)
        x = keras.layers.Dropout(dropout)(x) if dropout else x
    return keras.Model(given, keras.layers.Dense(1, activation="sigmoid", name="label")(x))


FINAL = Train(epochs=4, batch_size=512, optimizer="rmsprop", loss="binary_crossentropy", metrics=("accuracy",))
DEV = FINAL.model_copy(update={"epochs": 20, "validation_split": 0.4})
SECTION = "section 5.4.4"
HELD_BACK: dict[str, dict[str, Any]] = {
    "original": {},
    "smaller": {"model.units": 4},
    "larger": {"model.units": 512},
    "l2": {"model.l2": 0.002},
    "l1": {"model.l1": 0.001},
    "l1_l2": {"model.l1": 0.001, "model.l2": 0.001},
    "dropout": {"model.dropout": 0.5},
}
"""The networks of section 5.4.4 as they differ from the one of 4.1."""

PIPELINE = Pipeline(
    name="imdb_indexed",
    title="Film reviews as bags of words",
    task="binary",
    book="Chollet, Deep Learning with Python (2nd ed.), 4.1 and 5.4.4",
    expect="test accuracy 0.87 to 0.89; half a minute on two CPU cores",
    sources={"imdb": IMDB_INDEXED},
    preprocess=preprocess,
    model=model,
    variants={
        "final": Variant(
            description="4 epochs on all training examples, tested once",
            train=FINAL,
            promises=(Promise(metric="accuracy", at_least=0.87, book=0.8833, source="section 4.1.4"),),
        ),
        "dev": Variant(
            description="20 epochs with two fifths of the examples held out, to see where overfitting begins",
            train=DEV,
            line="dev",
        ),
    },
    studies={
        "book": Study(
            description="What the book reports, from five seeds",
            variants=("final",),
            seeds=5,
            findings=(Finding(cell="final", at_least=0.87, book=0.8833, source="section 4.1.4"),),
        ),
        "regularization": Study(
            description="Networks that are smaller, larger, or held back: their lowest loss on held-out examples",
            variant="dev",
            cells=HELD_BACK,
            on="validation",
            metric="val_loss",
            findings=(
                Finding(cell="dropout", beats="original", source=SECTION),
                Finding(cell="dropout", beats="l2", source=SECTION),
            ),
        ),
        "overfitting": Study(
            description="The same: how far the loss on held-out examples has risen again after 20 epochs",
            variant="dev",
            cells=HELD_BACK,
            on="validation",
            at="since_best",
            metric="val_loss",
            findings=(
                Finding(cell="smaller", beats="original", source=SECTION),
                Finding(cell="original", beats="larger", source=SECTION),
                Finding(cell="l2", beats="original", source=SECTION),
                Finding(cell="dropout", beats="original", source=SECTION),
            ),
        ),
        "variations": Study(
            description="What the book proposes to try: layers, units, loss, activation",
            variant="dev",
            cells={
                "two layers of 16": {},
                "one layer": {"model.layers": 1},
                "three layers": {"model.layers": 3},
                "32 units": {"model.units": 32},
                "64 units": {"model.units": 64},
                "squared error": {"train.loss": "mse"},
                "tanh": {"model.activation": "tanh"},
            },
            on="validation",
            metric="val_accuracy",
        ),
    },
    smoke={"train.epochs": 3, "export.examples": 16},
)
