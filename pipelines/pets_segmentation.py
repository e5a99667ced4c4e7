"""Which pixels are the pet: the class of each pixel of photographs of cats and dogs.

Book:    Chollet, Deep Learning with Python (2nd ed.), section 9.2.
Run:     headrace run pets_segmentation                         200 × 200 pixels, as in the book; an accelerator's work
         headrace run pets_segmentation --variant augmented     photograph and mask flipped, turned and zoomed alike
         headrace run pets_segmentation --variant small         96 × 96 pixels, a smaller network: for a CPU
         headrace run pets_segmentation --variant pretrained    on what SqueezeNet knows of ImageNet: few photographs
         headrace study pets_segmentation small                 the small network, its augmented form, and that one
Expect:  the book prints no figure, it shows masks that are good with small artefacts, and overfitting from about epoch
         25 on. On a sample of 361 photographs `small` comes to a mean IoU of 0.49, and `pretrained` to 0.73, in some
         minutes on two CPU cores, where the majority mask has 0.37. The masks of the twin's drawn heads are exact: 0.85
         or more in a minute.

The book holds out 1,000 photographs to validate with, and tests on none: here 500 of them are watched in training, and
what is reported is measured on the other 500.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from headrace import (
    Feature,
    Finding,
    Functions,
    ModelCheckpoint,
    Pipeline,
    Promise,
    ReduceLROnPlateau,
    Study,
    Train,
    Variant,
)
from pipelines.sources.oxford_iiit_pet import PETS

if TYPE_CHECKING:
    import keras

    from headrace.describing.summaries import Statistics
    from headrace.records.inputs import Batch

CLASSES = 3


def preprocess(statistics: Statistics, size: int = 200) -> Callable[[Batch], Batch]:
    """Photographs and their masks, brought to squares of one size; classes are counted from 0, not from 1 as in files.

    Args:
        statistics: Of the training split; nothing is learned from them.
        size: Pixels of a side, a multiple of 8.
    """
    from headrace.images import decode, decode_masks

    def squares(batch: Batch) -> Batch:
        ready = {**batch, "image": decode(batch["image"], (size, size))}
        if "mask" in batch:
            # A 0 would become 255, which is no class: what no file of the data set has.
            ready["mask"] = decode_masks(batch["mask"], (size, size)) - 1
        return ready

    return squares


def model(inputs: Mapping[str, Feature], filters: tuple[int, ...] = (64, 128, 256)) -> keras.Model:
    """Convolutions down to an eighth and transposed ones up again (2,880,643 parameters).

    Strides make the image smaller, not pooling: it matters where something is.

    Args:
        inputs: The image (height, width, 3), uint8; both sides multiples of 8.
        filters: At a half, a quarter and an eighth of the size.

    Returns:
        A model that answers with the probability of each class at each pixel (height, width, 3).
    """
    import keras

    given, answers = network(inputs, filters)
    return keras.Model(given, answers)


def network(inputs: Mapping[str, Feature], filters: tuple[int, ...]) -> tuple[Any, Any]:
    """Input and output of `model`."""
    import keras

    def convolved(x: Any, kind: Any, count: int, strides: int) -> Any:
        return kind(count, 3, strides=strides, padding="same", activation="relu")(x)

    given = keras.Input(inputs["image"].shape, dtype="uint8", name="image")
    x = keras.layers.Rescaling(1 / 255)(given)
    for count in filters:
        x = convolved(x, keras.layers.Conv2D, count, 2)
        x = convolved(x, keras.layers.Conv2D, count, 1)
    for count in reversed(filters):
        x = convolved(x, keras.layers.Conv2DTranspose, count, 1)
        x = convolved(x, keras.layers.Conv2DTranspose, count, 2)
    return given, keras.layers.Conv2D(CLASSES, 3, padding="same", activation="softmax", name="mask")(x)


def augmented(
    inputs: Mapping[str, Feature],
    filters: tuple[int, ...] = (64, 128, 256),
    rotation: float = 0.05,
    zoom: float = 0.1,
) -> keras.Model:
    """The same network, which learns from photographs that are flipped, turned and zoomed, and their masks with them.

    Args:
        inputs: As for `model`.
        filters: As for `model`.
        rotation: Share of a full turn by which it is turned at most, either way.
        zoom: Share by which it becomes larger or smaller at most.
    """
    from headrace.augmenting import Together

    return Together(*network(inputs, filters), augmentation(rotation, zoom))


def augmentation(rotation: float, zoom: float) -> list[Any]:
    """What happens to a photograph and its mask alike."""
    import keras

    return [
        keras.layers.RandomFlip("horizontal"),
        keras.layers.RandomRotation(rotation),
        keras.layers.RandomZoom(zoom),
    ]


def on_squeezenet(
    inputs: Mapping[str, Feature], filters: int = 64, rotation: float = 0.05, zoom: float = 0.1
) -> keras.Model:
    """What SqueezeNet sees at a sixteenth to a half of the size, brought up again step by step.

    Of 1,408,419 parameters 685,923 are trained where SqueezeNet's are as ImageNet has made them. At each step what it
    sees at this size is laid beside what came from below (Ronneberger et al. 2015, U-Net): where something begins is
    known from the larger maps, what it is from the smaller ones. What it sees reaches from 0 to a thousand, and is
    normalised at each place, without which some seeds hardly learn at first.

    Args:
        inputs: As for `model`; both sides 32 or more.
        filters: Of the convolution at each size, half of them at the size of the photograph.
        rotation: See `augmented`.
        zoom: See `augmented`.
    """
    import keras

    from headrace.augmenting import Together
    from headrace.engine.backbones import backbone, prepared

    shape = inputs["image"].shape
    whole = backbone("squeezenet", shape)
    seen = [whole.get_layer(name).output for name in ("conv1", "fire3_concat", "fire5_concat", "fire9_concat")]
    given = keras.Input(shape, dtype="uint8", name="image")
    pixels = prepared("squeezenet", keras.ops.cast(given, "float32"))
    maps = keras.Model(whole.inputs, seen, name="squeezenet")(pixels)
    *larger, x = [keras.layers.LayerNormalization()(map_) for map_ in maps]

    def convolved(x: Any, count: int) -> Any:
        return keras.layers.Conv2D(count, 3, padding="same", activation="relu")(x)

    for map_ in reversed(larger):
        x = keras.layers.Resizing(*map_.shape[1:3])(convolved(x, filters))
        x = keras.layers.concatenate([x, map_])
    x = keras.layers.Resizing(*shape[:2])(convolved(x, filters))
    x = convolved(keras.layers.concatenate([x, keras.layers.Rescaling(1 / 255)(given)]), filters // 2)
    answers = keras.layers.Conv2D(CLASSES, 3, padding="same", activation="softmax", name="mask")(x)
    return Together(given, answers, augmentation(rotation, zoom))


def unchanged(model: Any) -> Mapping[str, keras.Model]:
    """The network without what changes its examples in training."""
    from headrace.augmenting import unchanged as alone

    return alone(model)


BOOK = Train(
    epochs=50,
    batch_size=64,
    optimizer="rmsprop",
    loss="sparse_categorical_crossentropy",
    validation="validation",
    checkpoint=ModelCheckpoint(monitor="val_loss"),
)
QUICK = BOOK.model_copy(
    update={
        "epochs": 30,
        "batch_size": 8,
        "optimizer": "adam",
        "learning_rate": 2e-3,
        "reduce_lr": ReduceLROnPlateau(monitor="val_loss", patience=3, factor=0.5),
    }
)
JOINT = Functions(model=augmented, keep=unchanged)
SMALL: dict[str, Any] = {"preprocess": {"size": 96}, "model": {"filters": [16, 32, 64]}}

PIPELINE = Pipeline(
    name="pets_segmentation",
    title="Which pixels are the pet",
    task="segmentation",
    book="Chollet, Deep Learning with Python (2nd ed.), 9.2",
    expect="no figure in the book; of the twin a mean IoU of 0.85 or more in a minute",
    sources={"pets": PETS},
    preprocess=preprocess,
    model=model,
    variants={
        "book": Variant(
            description="50 epochs at 200 × 200 pixels, the best by its loss on photographs that are watched",
            train=BOOK,
            promises=(Promise(metric="mean_iou", at_least=0.6, source="section 9.2, which prints no figure"),),
        ),
        "augmented": Variant(
            description="The same on photographs that are flipped, turned and zoomed together with their masks",
            functions=JOINT,
            train=BOOK,
        ),
        "small": Variant(
            description="96 × 96 pixels, a sixteenth of the parameters, Adam: what two cores can do in some minutes",
            **SMALL,
            train=QUICK,
            line="small",
        ),
        "small_augmented": Variant(
            description="The small network on photographs and masks that are changed alike, twice as many epochs",
            **SMALL,
            functions=JOINT,
            train=QUICK.model_copy(update={"epochs": 60}),
            line="small_augmented",
        ),
        "pretrained": Variant(
            description="On SqueezeNet as it is, with ImageNet's weights: for some hundred photographs",
            preprocess={"size": 128},
            functions=Functions(model=on_squeezenet, keep=unchanged),
            train=QUICK.model_copy(update={"weights": {"squeezenet": "imagenet"}, "frozen": ("squeezenet",)}),
            line="pretrained",
            smoke={"train.weights": {}, "model.filters": 8},
        ),
    },
    studies={
        "small": Study(
            description="The small network with and without augmentation, and one on SqueezeNet, from three seeds",
            variants=("small", "small_augmented", "pretrained"),
            seeds=3,
            # 0.15 above the majority mask, which has 0.37 on the sample of 361 photographs.
            findings=(
                *(
                    Finding(cell=cell, at_least=0.52, source="the majority mask's 0.37, and 0.15")
                    for cell in ("small", "pretrained")
                ),
                Finding(cell="pretrained", beats="small_augmented"),
            ),
        ),
    },
    smoke={
        "train.epochs": 2,
        "train.batch_size": 16,
        "preprocess.size": 32,
        "model.filters": [8, 16, 16],
        "export.examples": 8,
    },
)
