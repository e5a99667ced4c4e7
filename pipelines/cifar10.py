"""CIFAR-10 at scale: one file for a TPU, for several accelerators, and for two CPU cores.

Book:    Chollet, Deep Learning with Python (2nd ed.), section 13.2.3: ResNet50 on the eight cores of a TPU. It prints
         no figure. The book calls `fit` without a number of epochs: one is trained.
Run:     headrace run cifar10                                          whatever accelerators there are, or none
         headrace run cifar10 --variant mixed                          the same, computed by 16 bits (a TPU's bfloat16)
         headrace run cifar10 --variant small                          a small residual network, for a CPU
         headrace run cifar10 --set train.strategy=tpu                 a TPU and nothing else
Expect:  one epoch of ResNet50 from random weights is a test of the machine, not a classifier: an accuracy around 0.1 to
         0.4. It takes seconds on a TPU, and most of an hour on two CPU cores. The small network takes some minutes
         there for 0.7 or more. Of the twin, drawn flowers, all kinds can be told.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from headrace import Feature, Functions, Pipeline, Promise, Train, Variant
from pipelines.sources.cifar10 import CIFAR10, CLASSES

if TYPE_CHECKING:
    import keras

    from headrace.describing.summaries import Statistics
    from headrace.records.inputs import Batch


def preprocess(statistics: Statistics) -> Callable[[Batch], Batch]:
    """Images stay as they are, so that records are small: the network prepares them."""

    def as_they_are(batch: Batch) -> Batch:
        return dict(batch)

    return as_they_are


def resnet50(inputs: Mapping[str, Feature], network: str = "resnet50") -> keras.Model:
    """A well-known network from random weights, the largest of each of its maps, and a number for each kind.

    Of ResNet50 that makes 23,608,202 parameters, 23,555,082 of them trained.

    Args:
        inputs: The image (height, width, 3).
        network: One of `headrace.engine.backbones.CATALOGUE`.
    """
    import keras

    from headrace.engine.backbones import backbone, prepared

    shape = inputs["image"].shape
    given = keras.Input(shape, dtype="uint8", name="image")
    x = prepared(network, keras.ops.cast(given, "float32"))
    x = backbone(network, shape, pooling="max")(x)
    # By 32 bits, whatever the rest computes in: the probabilities of sixteen bits don't add up to 1.
    return keras.Model(given, keras.layers.Dense(len(CLASSES), "softmax", dtype="float32", name="label")(x))


def small(
    inputs: Mapping[str, Feature], filters: Sequence[int] = (16, 32, 64), augmentation: bool = True
) -> keras.Model:
    """Residual blocks of two convolutions, one for each of `filters`.

    Args:
        inputs: The image (height, width, 3).
        filters: Of each block; each but the first halves height and width.
        augmentation: Mirror and shift images in training.
    """
    import keras
    from keras import layers

    def convolved(x: keras.KerasTensor, count: int, size: int = 3, strides: int = 1) -> keras.KerasTensor:
        x = layers.Conv2D(count, size, strides, padding="same", use_bias=False)(x)
        # Over all replicas together: two devices compute what one does. With Keras' 0.99 what serves lags a hundred
        # steps behind what is trained.
        return layers.BatchNormalization(momentum=0.9, synchronized=True)(x)

    given = keras.Input(inputs["image"].shape, dtype="uint8", name="image")
    x = layers.Rescaling(1 / 127.5, -1)(given)
    if augmentation:
        x = layers.RandomTranslation(0.1, 0.1, fill_mode="reflect")(layers.RandomFlip("horizontal")(x))
    x = layers.ReLU()(convolved(x, filters[0]))
    for place, count in enumerate(filters):
        strides = 2 if place else 1
        shortcut = convolved(x, count, 1, strides) if place else x
        x = layers.ReLU()(convolved(x, count, 3, strides))
        x = layers.ReLU()(layers.Add()([convolved(x, count), shortcut]))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(given, layers.Dense(len(CLASSES), "softmax", name="label")(x))


BOOK = Train(
    epochs=1,
    batch_size=1024,
    optimizer="rmsprop",
    loss="sparse_categorical_crossentropy",
    metrics=("accuracy",),
    steps_per_execution=8,
)

PIPELINE = Pipeline(
    name="cifar10",
    title="CIFAR-10 on one device or many",
    task="multiclass",
    book="Chollet, Deep Learning with Python (2nd ed.), 13.2.3",
    expect="no figure in the book: an epoch, however many devices there are; of the small network 0.7 or more",
    sources={"cifar10": CIFAR10},
    preprocess=preprocess,
    model=resnet50,
    variants={
        "resnet50": Variant(
            description="The book's: ResNet50 from random weights, one epoch in batches of 1,024, eight steps a call",
            train=BOOK,
            smoke={"model.network": "squeezenet"},
        ),
        "mixed": Variant(
            description="The same, computed by 16 bits: twice as fast where the hardware knows them",
            train=BOOK.model_copy(update={"precision": "mixed_bfloat16"}),
            smoke={"model.network": "squeezenet"},
        ),
        "small": Variant(
            description="A small residual network for a CPU, 20 epochs in batches of 128",
            train=BOOK.model_copy(
                update={"epochs": 20, "batch_size": 128, "optimizer": "adam", "steps_per_execution": None}
            ),
            functions=Functions(model=small),
            line="small",
            promises=(Promise(metric="accuracy", at_least=0.7),),
        ),
    },
    smoke={"train.epochs": 1, "train.batch_size": 128, "train.steps_per_execution": 2, "export.examples": 8},
)
