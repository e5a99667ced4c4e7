"""DeepDream: a picture is changed so that layers of a network that knows images answer it more strongly.

Book:    Chollet, Deep Learning with Python (2nd ed.), section 12.2. Its parameters say 30 steps in each octave (its
         prose says 20): those are what is done here.
Run:     headrace run deepdream                            InceptionV3 and a coast, as in the book: 90 MB of weights
         headrace run deepdream --variant squeezenet       another network, whose weights are 3 MB
         headrace run deepdream --source ./holiday.jpg     a picture of your own, or the first that is drawn of a folder
Expect:  a picture, in the report and as page 1 of the exported album (page 0 is the one it began with): its layers
         answer several times as strongly as to the start, and more than to the start with as much noise. The book
         prints the picture, and no figure. A step on 400 × 600 pixels takes about a second on two CPU cores. The twin's
         landscapes are drawn; a network with weights that were never trained dreams as well, of nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headrace import Export, Feature, Pipeline, Train, Variant
from pipelines.sources.pictures import COAST_PICTURE

if TYPE_CHECKING:
    import keras

    from headrace.describing.summaries import Statistics
    from headrace.engine.journals import Moment
    from headrace.engine.loops import Loop, Start
    from headrace.measuring.own import Own, Trial
    from headrace.records.inputs import Batch

LAYERS = {
    "inception_v3": {"mixed4": 1.0, "mixed5": 1.5, "mixed6": 2.0, "mixed7": 2.5},
    "squeezenet": {"fire4_concat": 1.0, "fire6_concat": 1.5, "fire8_concat": 2.0, "fire9_concat": 2.5},
    "vgg16": {"block4_conv3": 1.0, "block5_conv2": 1.5},
    "vgg19": {"block4_conv4": 1.0, "block5_conv2": 1.5},
    "xception": {"block5_sepconv3_bn": 1.0, "block8_sepconv3_bn": 1.5, "block11_sepconv3_bn": 2.0},
    "mobilenet_v2": {"block_6_expand": 1.0, "block_10_expand": 1.5, "block_13_expand": 2.0},
}
"""Backbone → the layers that shall answer more strongly, and how much each counts; InceptionV3's are the book's."""


@dataclass(frozen=True)
class Plan:
    """How a picture is dreamt of."""

    backbone: str
    layers: Mapping[str, float]
    octaves: int
    scale: float
    max_loss: float | None


def plan(
    backbone: str = "inception_v3",
    layers: dict[str, float] | None = None,
    octaves: int = 3,
    scale: float = 1.4,
    max_loss: float | None = 15.0,
) -> Plan:
    """A plan, with the usual layers of a backbone where none are named.

    Raises:
        ConfigError: Nothing is known of the backbone's layers.
    """
    from headrace.errors import unknown

    if layers is None and backbone not in LAYERS:
        raise unknown("backbone with layers to dream by", backbone, LAYERS)
    return Plan(backbone, layers or LAYERS[backbone], octaves, scale, max_loss)


def learn(batches: Any, statistics: Statistics, height: int | None = None) -> Mapping[str, Any]:
    """The size that all pictures get: that of the first one, or its proportions at this height."""
    from pipelines._perception import size_of

    return {"size": size_of(next(iter(batches))["image"][0], height)}


def preprocess(statistics: Statistics, learned: Mapping[str, Any]) -> Callable[[Batch], Batch]:
    """Files become pictures of one size."""
    from headrace.images import decode

    size = (int(learned["size"][0]), int(learned["size"][1]))
    return lambda batch: {**batch, "image": decode(batch["image"], size)}


def model(
    inputs: Mapping[str, Feature],
    backbone: str = "inception_v3",
    layers: dict[str, float] | None = None,
    octaves: int = 3,
    scale: float = 1.4,
    max_loss: float | None = 15.0,
) -> keras.Model:
    """An album of two pages, the start and the dream, beside a network that is only looked through.

    Args:
        inputs: The picture.
        backbone: One of `headrace.engine.backbones`.
        layers: Layer of the backbone → how much its answers count; default: those of `LAYERS`.
        octaves: How many sizes the picture is dreamt of in.
        scale: By how much an octave is larger than the one before.
        max_loss: Answers above which an octave ends; none where there is no limit.
    """
    from pipelines.deepdream.loops import made

    return made(inputs["image"].shape, plan(backbone, layers, octaves, scale, max_loss))


def loop(start: Start) -> Loop:
    """Gradient ascent."""
    from pipelines.deepdream.loops import Dream

    return Dream(start)


def keep(studio: Any) -> Mapping[str, keras.Model]:
    """The album, and beside it the network by which it is measured."""
    return {"model": studio.work, "eyes": studio.eyes}


def sample(studio: Any, moment: Moment) -> Mapping[str, Any]:
    """The picture as it is now."""
    from pipelines._perception import RESULT, pages, shown

    return {"dream": shown(pages(studio.work)[RESULT])}


def measure(trial: Trial) -> Own:
    """How much more strongly the layers answer to the dream than to the start: `rise`, and `trend` of the way there.

    The naive answer is the start with noise as strong as what was dreamt into it.
    """
    import numpy as np

    from headrace.measuring.own import Own
    from pipelines._perception import pages, trend
    from pipelines.deepdream.loops import answers

    weights = list(plan(**trial.settings.model).layers.values())
    first, last = pages(trial.models["model"])[:, None]
    noise = np.random.default_rng(trial.seed).normal(0, np.std(last - first), first.shape)
    noisy = np.clip(first + noise, 0, 255).astype(np.float32)
    start, dream, noised = (
        float(np.dot(np.asarray(answers(trial.models["eyes"], picture)), weights)) for picture in (first, last, noisy)
    )
    curve, steps = trial.results["answers"], int(trial.results["iterations"])
    falling = [trend(-curve[k : k + steps]) for k in range(0, len(curve), steps)]
    octaves = {name: trial.results[name] for name in sorted(trial.results) if name.startswith("octave_")}
    return Own(
        {"rise": dream / start, "answers": dream, "trend": float(np.mean(falling))},
        larger_is_better={"rise", "answers", "trend"},
        naive={"start with as much noise": {"rise": noised / start, "answers": noised}},
        samples={"start": trial.results["start"], "dream": trial.results["result"], **octaves},
    )


BOOK = Train(
    epochs=90, optimizer="sgd", learning_rate=20.0, loss=None, sample_every=30, weights={"inception_v3": "imagenet"}
)
# Steps of 20 pile up in one place, where a network without batch normalisation answers most.
SQUEEZENET = BOOK.model_copy(update={"learning_rate": 5.0, "weights": {"squeezenet": "imagenet"}})
ALBUM = Export(examples=2, representative=2)

PIPELINE = Pipeline(
    name="deepdream",
    title="DeepDream: what a network sees in a picture",
    task="own",
    book="Chollet, Deep Learning with Python (2nd ed.), 12.2",
    expect="a picture; its layers answer several times as strongly as to the start",
    sources={"coast": COAST_PICTURE},
    learn=learn,
    preprocess=preprocess,
    model=model,
    loop=loop,
    keep=keep,
    sample=sample,
    measure=measure,
    variants={
        "inception": Variant(
            description="InceptionV3, three octaves of 30 steps, each step of length 20",
            train=BOOK,
            export=ALBUM,
        ),
        "squeezenet": Variant(
            description="SqueezeNet, of which 3 MB of weights are enough, on 400 rows, in steps of length 5",
            preprocess={"height": 400},
            model={"backbone": "squeezenet", "max_loss": None},
            train=SQUEEZENET,
            export=ALBUM,
            line="squeezenet",
        ),
    },
    smoke={
        "train.epochs": 9,
        "train.sample_every": 3,
        "train.weights": {},
        "preprocess.height": 96,
        "model.backbone": "squeezenet",
        "model.layers": {"fire2_concat": 1.0, "fire3_concat": 1.5},
        "model.max_loss": None,
    },
)
