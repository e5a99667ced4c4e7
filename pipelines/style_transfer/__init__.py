"""Style transfer: a photograph painted like a painting, pixel by pixel, or by a network that has learned the style.

Book:    Chollet, Deep Learning with Python (2nd ed.), section 12.3; 12.3.3 proposes the network (`fast`).
Run:     headrace run style_transfer                            VGG19, San Francisco, the Starry Night: 80 MB of weights
         headrace run style_transfer --variant squeezenet       another network, whose weights are 3 MB
         headrace run style_transfer --variant fast             a network that paints any photograph in one go
         headrace run style_transfer --source ./mine            a folder of photographs with a `painting.jpg` among them
Expect:  a picture, in the report and as page 1 of the exported album (page 0 is the one it began with), whose Grams are
         nearer to the painting's than the photograph's are, and whose content is nearer to the photograph's than noise
         and the painting are. The book prints the picture, and no figure. 4,000 steps by VGG19 on 400 rows take hours
         on two CPU cores. The twin is a drawn landscape, and strokes in whirls. `fast` takes a photograph of any size
         and gives a painting of 256 × 256; the part of the loss that a descent on the pixels takes away, and that
         the network takes away at once (`share`), is measured on photographs that it has not seen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from headrace import Evaluate, Export, Feature, Functions, Pipeline, Records, Train, Variant
from pipelines.sources.pictures import FLOWERS_AND_PAINTING, PICTURES

if TYPE_CHECKING:
    import keras

    from headrace.describing.summaries import Statistics
    from headrace.engine.journals import Moment
    from headrace.engine.loops import Loop, Start
    from headrace.measuring.own import Own, Trial
    from headrace.records.inputs import Batch

LAYERS = {
    "vgg19": ("block5_conv2", *(f"block{k}_conv1" for k in (1, 2, 3, 4, 5))),
    "vgg16": ("block5_conv2", *(f"block{k}_conv1" for k in (1, 2, 3, 4, 5))),
    "squeezenet": ("fire6_concat", "conv1", "fire2_concat", "fire4_concat", "fire6_concat", "fire8_concat"),
}
"""Backbone → the layer that sees the content, then those that see the style; VGG19's are the book's."""


@dataclass(frozen=True)
class Plan:
    """How a picture is judged and begun: see `model`."""

    backbone: str
    layers: tuple[str, ...]
    content: float
    style: float
    variation: float
    start: str
    compared: int


def plan(
    backbone: str = "vgg19",
    layers: list[str] | None = None,
    content: float = 2.5e-8,
    style: float = 1e-6,
    variation: float = 1e-6,
    start: str = "photograph",
    compared: int = 200,
    **_: Any,
) -> Plan:
    """The plan in a variant's `model` settings, with the usual layers of a backbone where none are named.

    Raises:
        ConfigError: Nothing is known of the backbone's layers.
    """
    from headrace.errors import unknown

    if layers is None and backbone not in LAYERS:
        raise unknown("backbone with layers to judge by", backbone, LAYERS)
    return Plan(backbone, tuple(layers or LAYERS[backbone]), content, style, variation, start, compared)


def learn(
    batches: Any, statistics: Statistics, height: int | None = 400, width: int | None = None
) -> Mapping[str, Any]:
    """The size that all pictures get: the proportions of the first one at this height, or height and width."""
    from pipelines._perception import size_of

    return {"size": size_of(next(iter(batches))["image"][0], height, width)}


def preprocess(
    statistics: Statistics, learned: Mapping[str, Any], fit: Literal["stretch", "crop"] = "stretch"
) -> Callable[[Batch], Batch]:
    """Files become pictures of one size. What is painted shall be like the painting, which is its target."""
    from headrace.images import decode

    size = (int(learned["size"][0]), int(learned["size"][1]))

    def decoded(batch: Batch) -> Batch:
        ready = {**batch, "image": decode(batch["image"], size, fit=fit)}
        if "painting" in batch:
            ready["painted"] = decode(ready.pop("painting"), size, fit=fit)
        return ready

    return decoded


def model(
    inputs: Mapping[str, Feature],
    backbone: str = "vgg19",
    layers: list[str] | None = None,
    content: float = 2.5e-8,
    style: float = 1e-6,
    variation: float = 1e-6,
    start: Literal["photograph", "noise"] = "photograph",
    paints: Literal["pixels", "network"] = "pixels",
    filters: int = 32,
    blocks: int = 5,
    compared: int = 200,
) -> keras.Model:
    """What paints, beside a network that only looks: an album whose page 1 is painted, or a network for photographs.

    Args:
        inputs: The photograph.
        backbone: One of `headrace.engine.backbones`.
        layers: The layer that sees the content, then those that see the style; default: those of `LAYERS`.
        content: Weight of the content.
        style: Weight of the style, shared out to its layers.
        variation: Weight of what neighbouring pixels differ by.
        start: What the picture begins with.
        paints: What is trained.
        filters: Of the first convolution of a network that paints.
        blocks: Its residual blocks.
        compared: Steps of the descent on pixels that it is held against.
    """
    from pipelines._perception import album, studio
    from pipelines.style_transfer.loops import painter

    shape = inputs["image"].shape
    made = plan(backbone, layers, content, style, variation, start, compared)
    work = painter(shape, filters, blocks) if paints == "network" else album(shape)
    return studio(work, backbone, made.layers, made)


def by_steps(start: Start) -> Loop:
    """Descent on the pixels."""
    from pipelines.style_transfer.loops import Optimised

    return Optimised(start)


def by_network(start: Start) -> Loop:
    """Training of the network that paints."""
    from pipelines.style_transfer.loops import Painter

    return Painter(start)


def keep(studio: Any) -> Mapping[str, keras.Model]:
    """What paints, and beside it the network by which it is measured."""
    return {"model": studio.work, "eyes": studio.eyes}


def sample(studio: Any, moment: Moment) -> Mapping[str, Any]:
    """The picture as it is now."""
    from pipelines._perception import RESULT, pages, shown

    return {"painting": shown(pages(studio.work)[RESULT])}


def sample_painted(studio: Any, moment: Moment) -> Mapping[str, Any]:
    """The first photograph, as the network paints it now."""
    from pipelines._perception import shown

    return {"painting": shown(studio.work(moment.examples["image"][:1], training=False))[0]}


def measure(trial: Trial) -> Own:
    """How far the picture is from the painting's style and from the photograph's content, as a share of each.

    Naive answers: the photograph by its style, the painting by its content, and noise. `of_start` is the style distance
    as a share of that of the start; `trend`, in how many steps from one fifth of the way to the next the loss falls.
    """
    import numpy as np

    from headrace.measuring.own import Own
    from pipelines._perception import START, pages, shown, trend
    from pipelines.style_transfer.loops import Taste, content_distances, noise, style_distances

    pair = {name: values.astype(np.float32) for name, values in trial.first(1, "train").items() if name != "file"}
    taste = Taste(trial.models["eyes"], plan(**trial.settings.model), pair["painted"])
    album = pages(trial.models["model"])
    pictures = {
        "result": album[1],
        "start": album[START],
        "photograph": pair["image"][0],
        "noise": noise(pair["image"].shape, trial.seed)[0],
        "painting": pair["painted"][0],
    }
    found = {
        name: {
            "style_distance": float(style_distances(taste, picture[None])[0]),
            "content_distance": float(content_distances(taste, picture[None], pair["image"])[0]),
        }
        for name, picture in pictures.items()
    }
    nearer = found["result"]["style_distance"] / found["start"]["style_distance"]
    return Own(
        {**found["result"], "of_start": nearer, "trend": trend(trial.results["losses"])},
        larger_is_better={"trend"},
        naive={
            "photograph": {"style_distance": found["photograph"]["style_distance"]},
            "noise": found["noise"],
            "painting": {"content_distance": found["painting"]["content_distance"]},
        },
        samples={name: shown(pictures[name]) for name in ("start", "result", "photograph", "painting")},
    )


def measure_network(trial: Trial) -> Own:
    """The same of photographs that the network has not seen, and what a descent on the pixels makes of some of them.

    `loss_left`, which decides: the loss as a share of the photograph's own. `share`: how much of what the descent takes
    away from that loss the network takes away at once.
    """
    import numpy as np

    from headrace.measuring.own import Own
    from pipelines._perception import shown
    from pipelines.style_transfer.loops import Taste, by_descent, content_distances, described, noise, style_distances

    photographs = trial.first(trial.trials(8))["image"].astype(np.float32)
    painting = trial.results["painting"][None].astype(np.float32)
    made = plan(**trial.settings.model)
    taste = Taste(trial.models["eyes"], made, painting)
    painted = trial.models["model"].predict(photographs.astype(np.uint8), batch_size=4, verbose=0)
    noised = np.asarray(noise(photographs.shape, trial.seed))

    def loss(pictures: Any) -> Any:
        pairs = zip(pictures, photographs, strict=False)
        return np.concatenate([described(taste(p[None], taste.content(q[None]))) for p, q in pairs])

    def distances(pictures: Any) -> dict[str, Any]:
        pairs = list(zip(pictures, photographs, strict=True))
        return {
            "style_distance": np.concatenate([style_distances(taste, p[None]) for p, _ in pairs]),
            "content_distance": np.concatenate([content_distances(taste, p[None], q[None]) for p, q in pairs]),
        }

    held = photographs[: min(3, len(photographs))]
    stepped = by_descent(taste, DESCENT, held, made.compared)
    before, after = loss(photographs), loss(painted)
    share = ((before - after)[: len(held)]) / (before[: len(held)] - loss(stepped))
    samples = {}
    for number, (photograph, done) in enumerate(zip(photographs, painted, strict=True)):
        both = [photograph, done, *([stepped[number]] if number < len(stepped) else [])]
        samples[f"photograph_painted_{number}"] = shown(np.concatenate(both, axis=1))
    theirs = distances(photographs)["style_distance"]
    return Own(
        {"loss_left": after / before, "share": share, **distances(painted)},
        larger_is_better={"share"},
        naive={
            "photograph": {"loss_left": np.ones(len(theirs)), "style_distance": theirs},
            "noise": {"loss_left": loss(noised) / before, **distances(noised)},
        },
        samples={"painting": trial.results["painting"], **samples},
    )


LONG = Train(
    epochs=4000,
    optimizer="sgd",
    learning_rate=100.0,
    schedule={"name": "exponential_decay", "decay_steps": 100, "decay_rate": 0.96},
    loss=None,
    sample_every=100,
    weights={"vgg19": "imagenet"},
)
"""The book's: 4,000 steps, a rate that falls from 100 to 19.5, a picture kept after each 100."""
DESCENT = Train(
    epochs=300, optimizer="adam", learning_rate=5.0, loss=None, sample_every=50, weights={"squeezenet": "imagenet"}
)
"""By a network whose answers are of other sizes, each pixel at a pace of its own."""
SQUEEZENET: dict[str, Any] = {"backbone": "squeezenet", "content": 1e-4, "style": 1e-3, "variation": 1e-6}
ALBUM = Export(examples=2, representative=2)

PIPELINE = Pipeline(
    name="style_transfer",
    title="Style transfer: a photograph painted like a painting",
    task="own",
    book="Chollet, Deep Learning with Python (2nd ed.), 12.3",
    expect="a picture with the content of a photograph and the style of a painting",
    records=Records(roles={"painted": "target"}),
    sources={"pictures": PICTURES, "flowers": FLOWERS_AND_PAINTING},
    learn=learn,
    preprocess=preprocess,
    model=model,
    loop=by_steps,
    keep=keep,
    sample=sample,
    measure=measure,
    variants={
        "vgg19": Variant(
            description="VGG19, 4,000 steps from the photograph",
            train=LONG,
            export=ALBUM,
        ),
        "squeezenet": Variant(
            description="SqueezeNet, of which 3 MB of weights are enough, 300 steps from the photograph",
            preprocess={"height": 256},
            model=SQUEEZENET,
            train=DESCENT,
            export=ALBUM,
            line="squeezenet",
        ),
        "from_noise": Variant(
            description="The same from noise: what is there in the end was put there by the losses",
            preprocess={"height": 256},
            model={**SQUEEZENET, "start": "noise"},
            train=DESCENT,
            export=ALBUM,
            line="from_noise",
        ),
        "fast": Variant(
            description="A network of 1.7 million parameters that paints any photograph in one go, by SqueezeNet",
            source="flowers",
            functions=Functions(loop=by_network, sample=sample_painted, measure=measure_network),
            preprocess={"height": 256, "width": 256, "fit": "crop"},
            model={**SQUEEZENET, "paints": "network"},
            train=Train(
                epochs=8,
                batch_size=4,
                optimizer="adam",
                learning_rate=1e-3,
                loss=None,
                weights={"squeezenet": "imagenet"},
                feed="memory",
            ),
            evaluate=Evaluate(trials=8),
            export=Export(examples=4, representative=16),
            line="fast",
        ),
    },
    smoke={
        "train.epochs": 3,
        "train.batch_size": 20,
        "train.sample_every": 3,
        "train.weights": {},
        "preprocess.height": 64,
        "preprocess.width": 64,
        "model.backbone": "squeezenet",
        "model.layers": ["fire3_concat", "conv1", "fire2_concat"],
        "model.filters": 4,
        "model.blocks": 1,
        "model.compared": 2,
        "evaluate.trials": 2,
        "export.examples": 2,
    },
)
