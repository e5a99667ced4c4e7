"""Cats and dogs: few photographs, and what helps then: augmentation, better networks, what was learned elsewhere.

Book:    Chollet, Deep Learning with Python (2nd ed.): 8.2 (`scratch`, `augmented`), 8.3 (`features`,
         `features_augmented`, `fine_tuned`), 9.3 (`mini_xception`, `residual`).
Run:     headrace run cats_vs_dogs                              a convnet from scratch, on Kaggle's photographs
         headrace run cats_vs_dogs --source small               on a small set that was made already
         headrace run cats_vs_dogs --variant fine_tuned         VGG16 of ImageNet, its top trained on
         headrace run cats_vs_dogs --variant squeezenet_tuned   SqueezeNet, which a laptop can do
         headrace run cats_vs_dogs --variant turns              a backbone of our own, from photographs without labels
         headrace run cats_vs_dogs --variant borrowed_tuned     the same recipe with that one, from the registry
         headrace study cats_vs_dogs book                       augmented against scratch, on a sample
         headrace study cats_vs_dogs transfer                   the backbone of our own against none
Expect:  test accuracies of 0.695 from scratch, 0.835 augmented, 0.975 and more with VGG16, 0.908 of a small Xception,
         each within a point or two; on a sample less. `scratch` takes a quarter of an hour on two CPU cores, VGG16
         hours: there the book has a GPU. Of the twin, drawn heads, all can be told.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from headrace import Finding, Functions, ModelCheckpoint, Pipeline, Promise, Study, Train, Variant
from pipelines.cats_vs_dogs import models
from pipelines.sources.cats_vs_dogs import KAGGLE, SMALL

if TYPE_CHECKING:
    from headrace.describing.summaries import Statistics
    from headrace.records.inputs import Batch


def preprocess(statistics: Statistics, size: int = 180) -> Callable[[Batch], Batch]:
    """Photographs are decoded and brought to one size."""
    from headrace.images import decode

    return lambda batch: {**batch, "image": decode(batch["image"], (size, size))}


def features(
    statistics: Statistics,
    size: int = 180,
    network: str = "vgg16",
    weights: Literal["imagenet", "random"] = "imagenet",
) -> Callable[[Batch], Batch]:
    """What a backbone sees in a photograph, computed once: the records hold it instead of the photograph.

    Args:
        statistics: Of the training split; nothing of them is needed.
        size: Height and width in pixels.
        network: One of `headrace.engine.backbones.CATALOGUE`.
        weights: Where the backbone's come from; `random` is for trying things without a download.
    """
    import tensorflow as tf

    from headrace.engine.backbones import backbone, prepared
    from headrace.images import decode

    base = backbone(network, (size, size, 3), weights=weights)

    # One by one: what VGG16 computes of 180 × 180 pixels on the way takes 40 MB.
    @tf.function(autograph=False)
    def seen(images: tf.Tensor) -> tf.Tensor:
        return tf.map_fn(
            lambda image: base(prepared(network, tf.cast(image, tf.float32)[None]), training=False)[0],
            images,
            fn_output_signature=tf.TensorSpec(base.output_shape[1:], tf.float32),
        )

    def replaced(batch: Batch) -> Batch:
        found = {"features": seen(decode(batch["image"], (size, size)))}
        return {name: value for name, value in batch.items() if name != "image"} | found

    return replaced


def turning() -> Functions:
    """The code by which photographs without labels are learned from; it imports Keras when it is called."""
    return Functions(model=models.turns, keep=kept_as_layers, measure=measured_by_turns)


def kept_as_layers(model: Any) -> Mapping[str, Any]:
    """See `pipelines.cats_vs_dogs.turning`."""
    from pipelines.cats_vs_dogs.turning import as_layers

    return as_layers(model)


def measured_by_turns(trial: Any) -> Any:
    """See `pipelines.cats_vs_dogs.turning`."""
    from pipelines.cats_vs_dogs.turning import measure

    return measure(trial)


def trained(epochs: int, **others: Any) -> Train:
    """How a variant is trained: by RMSprop, and the epoch of the least loss on other photographs is used."""
    usual = {"loss": "binary_crossentropy", "metrics": ("accuracy",), "checkpoint": ModelCheckpoint()}
    return Train(**{"epochs": epochs, "batch_size": 32, "validation": "validation", **usual, **others})


def accuracy(source: str, book: float, at_least: float) -> tuple[Promise, ...]:
    """A promise of test accuracy."""
    return (Promise(metric="accuracy", at_least=at_least, book=book, source=source),)


SMALLEST = 80
"""Side of the photographs in smoke runs of the convnet, whose five convolutions leave one pixel of 78."""
NO_DOWNLOAD: dict[str, Any] = {"train.weights": {}}
"""Smoke runs draw the weights that others borrow."""
SQUEEZED: dict[str, Any] = {"model.network": "squeezenet", "train.frozen": ("squeezenet",)}
"""In smoke runs SqueezeNet is there for VGG16, which has twenty times its parameters."""

FROM_SCRATCH = {
    "scratch": Variant(
        description="Five convolutions, 30 epochs: they overfit from the tenth on",
        train=trained(30),
        smoke={"preprocess.size": SMALLEST},
        promises=accuracy("section 8.2.4", book=0.695, at_least=0.67),
    ),
    "augmented": Variant(
        description="The same with augmented photographs and dropout, 100 epochs",
        model={"augmentation": True, "dropout": 0.5},
        train=trained(100),
        smoke={"preprocess.size": SMALLEST},
        promises=accuracy("section 8.2.5", book=0.835, at_least=0.8),
    ),
    "mini_xception": Variant(
        description="A small Xception: separable convolutions, batch normalisation, residual connections",
        functions=Functions(model=models.mini_xception),
        train=trained(100),
        promises=accuracy("section 9.3.5", book=0.908, at_least=0.88),
    ),
    "residual": Variant(
        description="Residual blocks on photographs of 32 × 32; the book builds this network, and doesn't train it",
        functions=Functions(model=models.residual),
        preprocess={"size": 32},
        train=trained(30),
    ),
}

VGG16 = {
    "features": Variant(
        description="A dense network on what VGG16 sees, computed once",
        functions=Functions(preprocess=features, model=models.head),
        train=trained(20),
        smoke={"preprocess.network": "squeezenet", "preprocess.weights": "random"},
        promises=accuracy("section 8.3.1, on other validation photographs", book=0.97, at_least=0.96),
    ),
    "features_augmented": Variant(
        description="The same on VGG16 itself, frozen, which sees photographs that are augmented",
        functions=Functions(model=models.on_backbone),
        train=trained(50, weights={"vgg16": "imagenet"}, frozen=("vgg16",)),
        smoke={**SQUEEZED, **NO_DOWNLOAD},
        promises=accuracy("section 8.3.1", book=0.975, at_least=0.96),
    ),
    "fine_tuned": Variant(
        description="Then VGG16's last four layers trained on, at a tiny rate",
        functions=Functions(model=models.on_backbone),
        train=trained(
            30,
            learning_rate=1e-5,
            weights={"": "variant:features_augmented"},
            frozen=("vgg16",),
            unfrozen=("vgg16/block5_*",),
        ),
        smoke={**SQUEEZED, "train.unfrozen": ("squeezenet/fire9_*",)},
        promises=accuracy("section 8.3.2", book=0.985, at_least=0.97),
    ),
}

SQUEEZENET = {
    "squeezenet_features": Variant(
        description="A dense network on what SqueezeNet sees, computed once",
        functions=Functions(preprocess=features, model=models.head),
        preprocess={"network": "squeezenet"},
        train=trained(20, learning_rate=1e-4),
        smoke={"preprocess.weights": "random"},
    ),
    "squeezenet_augmented": Variant(
        description="The same on SqueezeNet itself, frozen, which sees photographs that are augmented",
        functions=Functions(model=models.on_backbone),
        model={"network": "squeezenet"},
        train=trained(20, learning_rate=1e-4, weights={"squeezenet": "imagenet"}, frozen=("squeezenet",)),
        smoke=NO_DOWNLOAD,
    ),
    "squeezenet_tuned": Variant(
        description="Then SqueezeNet's last four convolutions trained on, at a tiny rate",
        functions=Functions(model=models.on_backbone),
        model={"network": "squeezenet"},
        train=trained(
            10,
            learning_rate=1e-5,
            weights={"": "variant:squeezenet_augmented"},
            frozen=("squeezenet",),
            unfrozen=("squeezenet/fire[89]_*",),
        ),
    ),
}
"""The book's recipe with a network whose weights are 3 MB."""

OUR_OWN = {
    "turns": Variant(
        description="A backbone from photographs without labels: which way round have they been turned?",
        task="own",
        functions=turning(),
        train=Train(epochs=60, validation="validation", optimizer="adam", loss=None),
        promises=(Promise(metric="turn_accuracy", at_least=0.5),),
    ),
    "pretrained": Variant(
        description="Cats and dogs from that backbone on, all of it trained",
        functions=Functions(model=models.on_encoder),
        train=trained(20, optimizer="adam", weights={"encoder": "variant:turns"}),
    ),
    "borrowed": Variant(
        description="One unit on that backbone as it is blessed in the registry, frozen",
        functions=Functions(model=models.on_encoder),
        train=trained(
            10, optimizer="adam", weights={"encoder": "registry:cats_vs_dogs-turns@blessed"}, frozen=("encoder",)
        ),
        smoke=NO_DOWNLOAD,
    ),
    "borrowed_tuned": Variant(
        description="Then its convolutions trained on, at a small rate",
        functions=Functions(model=models.on_encoder),
        train=trained(
            20,
            optimizer="adam",
            learning_rate=1e-4,
            weights={"": "variant:borrowed"},
            frozen=("encoder",),
            unfrozen=("encoder/conv*",),
        ),
    ),
}
"""The book's recipe where ImageNet's weights can't be had. With `--source small` the backbone's line is
`cats_vs_dogs-turns-small`."""


def apart(variants: dict[str, Variant]) -> dict[str, Variant]:
    """Each in a line of its own of the registry, but the first: a small network is no worse version of a large one."""
    return {k: one if k == "scratch" else one.model_copy(update={"line": k}) for k, one in variants.items()}


SECTION = "section {}"
FEW = {"preprocess.size": 96}
"""What a sample of 800 photographs is studied with: a quarter of the work for each of them."""

STUDIES = {
    "book": Study(
        description=(
            "What augmentation is worth where photographs are few, at 96 × 96 pixels: half an hour on two CPU cores "
            "with 800 of them"
        ),
        variant="augmented",
        source="small",
        settings=FEW,
        cells={
            "scratch": {"model.augmentation": False, "model.dropout": 0.0, "train.epochs": 30},
            "augmented": {"train.epochs": 80},
        },
        seeds=3,
        findings=(
            Finding(cell="scratch", at_least=0.55, book=0.695, source=SECTION.format("8.2.4")),
            Finding(cell="augmented", beats="scratch", by=0.03, book=0.835, source=SECTION.format("8.2.5")),
        ),
    ),
    "transfer": Study(
        description="Twenty epochs from a backbone of our own, and from none: the same network, photographs of 96 × 96",
        variant="pretrained",
        source="small",
        settings=FEW,
        cells={"pretrained": {}, "drawn": {"train.weights": {}}},
        seeds=3,
        findings=(Finding(cell="pretrained", beats="drawn", source=SECTION.format("8.3")),),
    ),
    "networks": Study(
        description="All of the book's networks with its settings: days on a CPU",
        variants=("scratch", "augmented", "mini_xception", "features", "features_augmented", "fine_tuned"),
        findings=(
            Finding(cell="augmented", beats="scratch", by=0.03, book=0.835, source=SECTION.format("8.2.5")),
            Finding(cell="mini_xception", beats="augmented", book=0.908, source=SECTION.format("9.3.5")),
            Finding(cell="features_augmented", beats="augmented", book=0.975, source=SECTION.format("8.3.1")),
            Finding(cell="fine_tuned", beats="features_augmented", book=0.985, source=SECTION.format("8.3.2")),
        ),
    ),
}

PIPELINE = Pipeline(
    name="cats_vs_dogs",
    title="Cats and dogs",
    task="binary",
    book="Chollet, Deep Learning with Python (2nd ed.), 8.2, 8.3 and 9.3",
    expect="test accuracy 0.67 or more from scratch, 0.8 or more augmented, 0.97 or more with VGG16 fine-tuned",
    sources={"kaggle": KAGGLE, "small": SMALL},
    preprocess=preprocess,
    model=models.convnet,
    variants=apart(FROM_SCRATCH | VGG16 | SQUEEZENET | OUR_OWN),
    studies=STUDIES,
    smoke={"train.epochs": 1, "preprocess.size": 48, "export.examples": 8},
)
