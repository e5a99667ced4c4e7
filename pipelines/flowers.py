"""Flowers of five kinds, told apart by MobileNetV2, which begins with random weights, and by a small network.

Book:    the TensorFlow handbook, on building and training models.
Run:     headrace run flowers                           MobileNetV2 from random weights, 5 epochs
         headrace run flowers --variant small           a small network, 20 epochs
         headrace run flowers --source tf_flowers       the same photographs as TensorFlow Datasets deals them out
         headrace run flowers --source ./photographs    of your own, in a folder for each kind
Expect:  the book gives no figure, and 5 epochs are too few for MobileNetV2 from random weights: what its batch
         normalisation has averaged by then is not yet what it was trained with. The small network takes some minutes on
         two CPU cores. Of the twin, drawn flowers, all can be told.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from headrace import Feature, Functions, Pipeline, Promise, Train, Variant
from pipelines.sources.flowers import FLOWERS, TF_FLOWERS

if TYPE_CHECKING:
    import keras

    from headrace.describing.summaries import Statistics
    from headrace.records.inputs import Batch

KINDS = len(FLOWERS.features["label"].classes)


def preprocess(statistics: Statistics, size: int = 224) -> Callable[[Batch], Batch]:
    """Photographs are decoded and brought to one size."""
    from headrace.images import decode

    return lambda batch: {**batch, "image": decode(batch["image"], (size, size))}


def model(inputs: Mapping[str, Feature], network: str = "mobilenet_v2") -> keras.Model:
    """A well-known network, the mean of its maps, and a number for each kind.

    Of MobileNetV2 that makes 2,264,389 parameters, 2,230,277 of them trained.

    Args:
        inputs: The image (height, width, 3).
        network: One of `headrace.engine.backbones.CATALOGUE`.
    """
    import keras

    from headrace.engine.backbones import backbone

    shape = inputs["image"].shape
    given = keras.Input(shape, dtype="uint8", name="image")
    # Divided by 255, as the book does, rather than by what the network was made for (from −1 to 1).
    x = backbone(network, shape)(keras.layers.Rescaling(1 / 255)(given))
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(given, keras.layers.Dense(KINDS, activation="softmax", name="label")(x))


def small(inputs: Mapping[str, Feature], filters: int = 16, dropout: float = 0.3) -> keras.Model:
    """Four convolutions with pooling, and photographs that are mirrored and turned a little in each epoch.

    Args:
        inputs: The image (height, width, 3).
        filters: Of the first convolution; each other has twice as many.
        dropout: Share that is dropped before the last layer.
    """
    import keras
    from keras import layers

    given = keras.Input(inputs["image"].shape, dtype="uint8", name="image")
    x = layers.Rescaling(1 / 255)(given)
    x = layers.RandomRotation(0.05)(layers.RandomFlip("horizontal")(x))
    for doubled in range(4):
        x = layers.Conv2D(filters * 2**doubled, 3, padding="same", use_bias=False)(x)
        # With Keras' 0.99 what serves lags a hundred steps behind what is trained: epochs, where photographs are few.
        x = layers.Activation("relu")(layers.BatchNormalization(momentum=0.9)(x))
        x = layers.MaxPooling2D(2)(x)
    x = layers.Dropout(dropout)(layers.GlobalAveragePooling2D()(x))
    return keras.Model(given, layers.Dense(KINDS, activation="softmax", name="label")(x))


BOOK = Train(
    epochs=5,
    batch_size=50,
    optimizer="adam",
    learning_rate=1e-3,
    loss="sparse_categorical_crossentropy",
    metrics=("accuracy",),
)

PIPELINE = Pipeline(
    name="flowers",
    title="Flowers of five kinds",
    task="multiclass",
    book="The TensorFlow handbook, on building and training models",
    expect="no figure in the book; of the small network a test accuracy of 0.6 or more",
    sources={"flowers": FLOWERS, "tf_flowers": TF_FLOWERS},
    preprocess=preprocess,
    model=model,
    variants={
        "mobilenet_v2": Variant(
            description="The book's: 5 epochs from random weights",
            train=BOOK,
            smoke={"model.network": "squeezenet"},
        ),
        "small": Variant(
            description="A small network that learns from few photographs",
            train=BOOK.model_copy(update={"epochs": 20, "batch_size": 32}),
            preprocess={"size": 96},
            functions=Functions(model=small),
            line="small",
            promises=(Promise(metric="accuracy", at_least=0.6),),
        ),
    },
    smoke={"train.epochs": 2, "preprocess.size": 48, "export.examples": 8},
)
