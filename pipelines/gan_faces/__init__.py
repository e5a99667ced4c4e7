"""Faces that nobody has: a generative adversarial network.

Book:    Chollet, Deep Learning with Python (2nd ed.), section 12.5.
Run:     headrace run gan_faces                         CelebA, 64 × 64 pixels in colour, 100 epochs: for a GPU
         headrace run gan_faces --variant small         smaller networks, 60 epochs
         headrace run gan_faces --variant small --source olivetti
         headrace run gan_faces --variant steadied      what the book advises where the discriminator wins
Expect:  What is left of the distance to held-out faces since the first epoch is half or less, and what is made is no
         less than 0.6 times as diverse as real faces are. The book prints no figure: its faces look interesting from
         epoch 20 on.
Data:    CelebA is fetched from Google Drive, or put in place by hand; `celeb_a` is the same by TensorFlow Datasets, and
         wants the authors' lists, too. Where a mirror holds a sample in its place, that is taken, in grey if its files
         are; `olivetti` and `caltech` are smaller sets. The twin's faces are drawn, and differ in five known things,
         which are looked for in what the network makes of them.
Measure: Faces are compared by the features of SqueezeNet as it was trained on ImageNet; on the twin by those of three
         convolutions that are drawn and never trained. The number's name says which: `squeezenet_distance`,
         `drawn_distance` are kernel distances to held-out faces (with Inception's features they would be KID), the
         features standardised by those of the training faces.
         `--set evaluate.network=drawn` where ImageNet's weights can't be had.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from headrace import Feature, Pipeline, Promise, Train, Variant
from pipelines.sources.faces import CALTECH, CELEB_A, CELEBA, OLIVETTI

if TYPE_CHECKING:
    import keras
    import numpy as np

    from headrace.describing.summaries import Statistics
    from headrace.engine.journals import Moment
    from headrace.measuring.own import Own, Trial
    from headrace.records.inputs import Batch

    Array = np.ndarray[Any, Any]

SIDE = 8
"""Faces along each side of a sheet."""
FRAMES, FRAME_SIDE = 16, 4
"""Pictures of the animation, and faces along each side of them."""


def preprocess(statistics: Statistics, size: int = 64, channels: int | None = None) -> Callable[[Batch], Batch]:
    """Squares from the middle of the photographs.

    Args:
        statistics: Of the training split.
        size: Side in pixels; a power of 2 from 8 on.
        channels: 3 for colours, 1 for grey; default: as the files have it.
    """
    import tensorflow as tf

    from headrace.images import decode

    image = statistics["image"]
    files = image.dtype == "string"
    held = image.measures["channels"].maximum if files else image.shape[-1]
    wanted = channels or (1 if held == 1 else 3)

    def faces(batch: Batch) -> Batch:
        given = batch["image"]
        if files:
            return {**batch, "image": decode(given, (size, size), wanted, fit="crop")}
        pixels = tf.repeat(given, wanted, axis=-1) if wanted > given.shape[-1] else given
        if given.shape[1:3] != (size, size):
            pixels = tf.cast(tf.round(tf.image.resize(pixels, (size, size), antialias=True)), tf.uint8)
        return {**batch, "image": pixels}

    return faces


def model(
    inputs: Mapping[str, Feature],
    latent: int = 128,
    generator: tuple[int, ...] = (128, 256, 512),
    discriminator: tuple[int, ...] = (64, 128, 128),
    dropout: float = 0.2,
    noise: float = 0.05,
    pace: float = 1.0,
) -> keras.Model:
    """A discriminator (404,801 parameters in colour) and a generator (3,979,651).

    Args:
        inputs: The image.
        latent: Dimensions of the latent space, and channels of the generator's smallest map.
        generator: Filters of its layers, each of which doubles the sides of the image.
        discriminator: Filters of its layers, each of which halves them.
        dropout: Share of its last map that the discriminator must do without.
        noise: By how much at most a label is raised.
        pace: Learning rate of the discriminator, as a multiple of `train.learning_rate`, which is the generator's.
    """
    from pipelines.gan_faces import networks

    shape = inputs["image"].shape
    judge = networks.discriminator(shape, discriminator, dropout)
    return networks.Gan(judge, networks.generator(shape, generator, latent), noise, pace)


def keep(model: Any) -> Mapping[str, keras.Model]:
    """The generator makes faces; the discriminator is kept beside it."""
    return {"model": model.generator, "discriminator": model.discriminator}


def points(generator: Any, count: int, seed: int = 0) -> Array:
    """The same points of the latent space each time (count, latent)."""
    import numpy as np

    return np.random.default_rng(seed).normal(size=(count, generator.input_shape[1])).astype(np.float32)


def made_up(generator: Any, latent: Array) -> Array:
    """Faces at some points of the latent space (points, height, width, channels), uint8."""
    import numpy as np

    from headrace.measuring.generated import as_bytes

    parts = [
        generator(latent[first : first + SIDE * SIDE], training=False) for first in range(0, len(latent), SIDE * SIDE)
    ]
    return as_bytes(np.concatenate([np.asarray(part) for part in parts]))


def sample(model: Any, moment: Moment) -> Mapping[str, Any]:
    """Faces at points that are the same in each epoch; where the discriminator wins, what is wrong in words."""
    import numpy as np

    from headrace.measuring.generated import alarm, sheet

    faces = made_up(model.generator, points(model.generator, SIDE * SIDE))
    found: dict[str, Any] = {"faces": sheet(faces, SIDE)}
    judged, right = (
        np.clip(np.asarray(model.discriminator(images.astype(np.float32) / 255, training=False)), 1e-7, 1 - 1e-7)
        for images in (faces, np.asarray(moment.examples["image"]))
    )
    missed, lost = -np.log1p(-judged).mean(), (-np.log(judged).mean() - np.log1p(-right).mean()) / 2
    trouble = alarm([float(missed)], [float(lost)])
    if trouble:
        _tell(moment.epoch, trouble)
        found["balance"] = f"{trouble} {REMEDY}"
    return found


REMEDY = "Lower model.pace, the discriminator's learning rate, and raise model.dropout: see the variant `steadied`."


def _tell(epoch: int, trouble: str) -> None:
    import logging

    logging.getLogger("headrace").warning("after epoch %d: %s %s", epoch, trouble, REMEDY)


def measure(trial: Trial) -> Own:
    """How far what was made is from held-out faces, how diverse and new it is, and whether both networks learned."""
    import numpy as np

    from headrace.measuring import generated
    from headrace.measuring.own import Own
    from headrace.records.inputs import read_info
    from pipelines.sources import _faces

    drawn = read_info(trial.records.path).data == "synthetic"
    network = trial.settings.evaluate.network or (generated.DRAWN if drawn else "squeezenet")
    generator, count = trial.models["model"], trial.trials(1_000)
    held, known = trial.first(count)["image"], trial.first(5 * count, "train")["image"]
    look = generated.standardised(generated.looking(network), known)
    faces = made_up(generator, points(generator, count, trial.seed + 1))
    real, training, made = (look(images) for images in (held, known, faces))
    random = np.random.default_rng(trial.seed)
    mean = np.broadcast_to(known.mean(axis=0).round().astype(np.uint8), held.shape)
    rows = random.integers(0, len(known), (len(held), *known.shape[1:3]))
    mixed = known[rows, np.arange(known.shape[1])[:, None], np.arange(known.shape[2])]
    sheets = trial.sampled("faces")
    losses = {name: trial.history.get(f"{name}_loss", []) for name in ("generator", "discriminator")}
    trouble = generated.alarm(losses["generator"], losses["discriminator"])
    later = generated.balanced(losses["generator"], losses["discriminator"])[len(losses["generator"]) // 2 :]
    distance = f"{network}_distance"
    metrics: dict[str, Any] = {
        distance: generated.kernel_distances(real, made),
        f"{network}_frechet_distance": generated.frechet_distance(real, made),
        # As shares of what real faces have: 1 is as diverse, as new as they are.
        "diversity": generated.diversity(made) / generated.diversity(real).mean(),
        "novelty": generated.nearest(made, training) / generated.nearest(real, training).mean(),
        "coverage": generated.coverage(made, training, kinds=min(20, len(training) // 5)),
        "balance": later.astype(float).mean(),
    }
    naive: dict[str, dict[str, Any]] = {
        "the mean face": {distance: generated.kernel_distances(real, look(mean))},
        "pixels of different faces": {distance: generated.kernel_distances(real, look(mixed))},
    }
    first, last = (look(generated.tiles(sheets[k], *faces.shape[1:3])) for k in (min(sheets), max(sheets)))
    begun = generated.kernel_distance(real, first)
    metrics["distance_left"] = _root_of_share(generated.kernel_distance(real, last), begun)
    for theirs in naive.values():
        theirs["distance_left"] = _root_of_share(float(theirs[distance].mean()), begun)
    if drawn:
        covered = generated.bins_covered(_faces.measured(faces), _faces.measured(known))
        metrics["factors_covered"] = float(covered.mean())
    shown = {
        "faces that were made up": generated.sheet(faces[: SIDE * SIDE], SIDE),
        "held-out faces": generated.sheet(held[: SIDE * SIDE], SIDE),
        "made up above, and the most alike of the training faces": _beside_nearest(faces, made, known, training),
        "how faces are compared": (
            f"By the features of {network}, standardised by those of {len(known):,} training faces: {len(faces):,} "
            f"faces that were made up, and {len(held):,} held-out ones."
        ),
        "balance": trouble or f"Both losses were within the healthy band in {later.mean():.0%} of the later epochs.",
        "the same points of the latent space from epoch to epoch": animated(sheets, faces.shape[1:3]),
    }
    return Own(
        metrics,
        larger_is_better={"diversity", "novelty", "coverage", "balance", "factors_covered"} & set(metrics),
        primary=distance,
        naive=naive,
        samples=shown,
    )


def _root_of_share(distance: float, begun: float) -> float:
    """What is left of a distance; the estimates are of squares, and may be below 0 where there is none."""
    return float(max(distance, 0.0) / max(begun, 1e-12)) ** 0.5


def animated(sheets: Mapping[int, Array], size: tuple[int, int]) -> bytes:
    """Some faces of the sheets of all epochs, one after the other, as a GIF."""
    import numpy as np

    from headrace.measuring import generated

    epochs = sorted(sheets)
    chosen = [epochs[k] for k in np.unique(np.linspace(0, len(epochs) - 1, FRAMES).round().astype(int))]
    few = (generated.tiles(sheets[epoch], *size)[: FRAME_SIDE * FRAME_SIDE] for epoch in chosen)
    return generated.animation([generated.sheet(faces, FRAME_SIDE) for faces in few])


def _beside_nearest(faces: Array, made: Array, known: Array, training: Array) -> Array:
    """Some faces that were made up, and below each the training face of the nearest features."""
    import numpy as np

    from headrace.measuring import generated

    nearest = generated.nearest_places(made[:SIDE], training)
    return generated.sheet(np.concatenate([faces[:SIDE], known[nearest]]), SIDE)


BOOK = Train(epochs=100, batch_size=32, optimizer="adam", learning_rate=1e-4, loss=None)
SMALL = {"generator": (128, 64, 32), "discriminator": (32, 64, 128)}
FASTER = BOOK.model_copy(update={"epochs": 60, "optimizer": {"name": "adam", "beta_1": 0.5}, "learning_rate": 4e-4})
CALMER = {"pace": 0.5, "dropout": 0.4}

NO_FIGURE = "section 12.5, which prints no figure"
PROMISES = (
    Promise(metric="distance_left", at_most=0.5, source=NO_FIGURE),
    Promise(metric="diversity", at_least=0.6, source=NO_FIGURE),
    Promise(metric="balance", at_least=0.8, source=NO_FIGURE),
)

PIPELINE = Pipeline(
    name="gan_faces",
    title="Faces that nobody has",
    task="own",
    book="Chollet, Deep Learning with Python (2nd ed.), 12.5",
    expect="the distance to held-out faces falls by half or more after the first epoch; faces from epoch 20 on",
    sources={"celeba": CELEBA, "celeb_a": CELEB_A, "olivetti": OLIVETTI, "caltech": CALTECH},
    preprocess=preprocess,
    model=model,
    keep=keep,
    sample=sample,
    measure=measure,
    variants={
        "book": Variant(description="The book's networks and settings", train=BOOK, promises=PROMISES),
        "steadied": Variant(
            description="The same with a discriminator that learns more slowly, and with more dropout",
            train=BOOK,
            model=CALMER,
            promises=PROMISES,
        ),
        "small": Variant(
            description="Smaller networks (1.7 million weights, not 4.4) and faster updates, for a small set of faces",
            train=FASTER,
            model=SMALL,
            promises=PROMISES,
        ),
    },
    smoke={
        "train.epochs": 2,
        "preprocess.size": 16,
        "model.latent": 16,
        "model.generator": [8, 8],
        "model.discriminator": [8, 8],
        "evaluate.trials": 64,
        "export.examples": 16,
    },
)
