"""Digits from a space of two dimensions: a variational autoencoder.

Book:    Chollet, Deep Learning with Python (2nd ed.), section 12.4.
Run:     headrace run mnist_vae                         the book's: divergence as a mean over latent dimensions
         headrace run mnist_vae --variant sum           the divergence itself, summed over latent dimensions
         headrace study mnist_vae divergence            both, by the loss of held-out digits
Expect:  held-out digits cost at most 165 nats each, and most of the 15 nearest training digits in the plane are the
         same digit for 0.60 of them or more.
         The book prints no figure, and trains on the test digits too; here they are held out. `loss` is what they cost
         in nats, reconstruction and divergence (summed), whichever form was trained; `kl_mean` is the book's form.
Serves:  `serving_default` turns points into digits, `encode` digits into distributions, `reconstruct` digits into
         digits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from headrace import Feature, Finding, Pipeline, Promise, Study, Train, Variant
from pipelines.sources.mnist import MNIST

if TYPE_CHECKING:
    import keras
    import numpy as np

    from headrace.bundling.signatures import Given, Signature
    from headrace.describing.summaries import Statistics
    from headrace.engine.journals import Moment
    from headrace.measuring.own import Own, Trial
    from headrace.records.inputs import Batch

    Array = np.ndarray[Any, Any]

SIDE = 30
"""Digits along each side of the grid of the latent space."""

NEIGHBOURS = 15
"""Training digits that say which digit a point is: where two kinds overlap in the plane, one alone is little more than
a draw (0.55 instead of 0.63)."""

DIGITS = MNIST.model_copy(
    update={
        "features": {
            **MNIST.features,
            # For people and for what is measured; the network never sees which digit it is.
            "label": MNIST.features["label"].model_copy(update={"role": "note"}),
        }
    }
)


def preprocess(statistics: Statistics) -> Callable[[Batch], Batch]:
    """Nothing: the encoder scales images by itself."""
    return lambda batch: {**batch}


def model(inputs: Mapping[str, Feature], latent: int = 2, kl: Literal["mean", "sum"] = "mean") -> keras.Model:
    """Encoder (69,076 parameters) and decoder (65,089); see `pipelines.mnist_vae.networks.Vae` for the arguments."""
    from pipelines.mnist_vae.networks import Vae

    return Vae(inputs["image"].shape, latent, kl)


def keep(model: Any) -> Mapping[str, keras.Model]:
    """The decoder is what makes digits; the encoder is kept beside it."""
    return {"model": model.decoder, "encoder": model.encoder}


def grid(decoder: Any, side: int = SIDE, reach: float = 1.0) -> Array:
    """Digits at evenly spaced points of the first two latent dimensions, from -reach to reach, as one picture.

    The first dimension grows to the right, the second one upwards; further ones are 0.
    """
    import numpy as np

    from headrace.measuring.generated import sheet

    places = np.linspace(-reach, reach, side)
    points = np.zeros((side * side, max(decoder.input_shape[1], 2)), np.float32)
    points[:, 0], points[:, 1] = np.tile(places, side), np.repeat(places[::-1], side)
    return sheet(np.asarray(decoder(points[:, : decoder.input_shape[1]], training=False)), side)


def sample(model: Any, moment: Moment) -> Mapping[str, Any]:
    """The grid of the latent space."""
    return {"latent space": grid(model.decoder)}


def serve(given: Given) -> Mapping[str, Signature]:
    """What the encoder makes of digits, beside the decoder itself."""
    from headrace.bundling.signatures import Signature

    encoder, decoder = given.models["encoder"], given.models["model"]
    inputs = {"image": DIGITS.features["image"]}

    def encode(raw: dict[str, Any]) -> dict[str, Any]:
        return dict(encoder(given.prepare(raw)["image"], training=False))

    def reconstruct(raw: dict[str, Any]) -> dict[str, Any]:
        return {"image": decoder(encode(raw)["mean"], training=False)}

    return {"encode": Signature(encode, inputs), "reconstruct": Signature(reconstruct, inputs)}


def measure(trial: Trial) -> Own:
    """What held-out digits cost, how well a point tells which digit it is, and pictures of the latent space."""
    import numpy as np

    from headrace.measuring import generated
    from headrace.measuring.own import Own

    encoder, decoder = trial.models["encoder"], trial.models["model"]
    known, asked = (_encoded(trial, encoder, split) for split in ("train", "test"))
    drawn = np.random.default_rng(trial.seed).normal(size=asked["mean"].shape)
    points = asked["mean"] + np.exp(asked["log_variance"] / 2) * drawn
    truth = asked["image"] / 255
    lost = generated.reconstruction(truth, decoder.predict(points.astype(np.float32), verbose=0))
    apart = generated.divergence(asked["mean"], asked["log_variance"])
    nearest = generated.nearest_labels(asked["mean"], known["mean"], known["label"], NEIGHBOURS) == asked["label"]
    mean = known["image"].mean(axis=0) / 255
    unmoved = generated.reconstruction(truth, np.broadcast_to(mean, truth.shape))
    plane, flat = _principal(known["image"], asked["image"], asked["mean"].shape[1])
    by_plane = generated.nearest_labels(flat, plane, known["label"], NEIGHBOURS) == asked["label"]
    again = decoder.predict(asked["mean"][: SIDE // 2].astype(np.float32), verbose=0)
    return Own(
        {
            "loss": lost + apart,
            "reconstruction": lost,
            "kl": apart,
            "kl_mean": generated.divergence(asked["mean"], asked["log_variance"], "mean"),
            "neighbour_accuracy": nearest.astype(float),
        },
        larger_is_better={"neighbour_accuracy"},
        primary="loss",
        naive={
            "the mean digit, whatever is given": {"loss": unmoved, "reconstruction": unmoved},
            "principal components": {"neighbour_accuracy": by_plane.astype(float)},
        },
        samples={
            "latent space": grid(decoder),
            "held-out digits by their means": generated.scatter(asked["mean"][:, :2], asked["label"]),
            "held-out digits above, and what is made of them": generated.sheet(
                np.concatenate([truth[: len(again)], again]), len(again)
            ),
        },
    )


def _encoded(trial: Trial, encoder: Any, split: str) -> dict[str, Array]:
    """The images of a split (examples, 28, 28, 1), their labels (examples,), mean and log variance of each."""
    import numpy as np

    parts = []
    for batch in trial.batches(split):
        code = encoder(batch["image"], training=False)
        parts.append({"image": batch["image"], "label": batch["label"], **{k: np.asarray(v) for k, v in code.items()}})
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _principal(known: Array, asked: Array, dimensions: int) -> tuple[Array, Array]:
    """Both in as many principal components of the first: the linear way to a space of so few dimensions."""
    import numpy as np

    one, other = (images.reshape(len(images), -1).astype(np.float32) for images in (known, asked))
    middle = one.mean(axis=0)
    _, axes = np.linalg.eigh((one - middle).T @ (one - middle))
    best = axes[:, -dimensions:]
    return (one - middle) @ best, (other - middle) @ best


BOOK = Train(epochs=30, batch_size=128, optimizer="adam", loss=None)

NO_FIGURE = "section 12.4, which prints no figure"
PROMISES = (
    Promise(metric="loss", at_most=165, source=NO_FIGURE),
    Promise(metric="neighbour_accuracy", at_least=0.60, source=NO_FIGURE),
)

PIPELINE = Pipeline(
    name="mnist_vae",
    title="Digits from a space of two dimensions",
    task="own",
    book="Chollet, Deep Learning with Python (2nd ed.), 12.4",
    expect="held-out digits at most 165 nats each; nearest neighbours in the plane right for 0.60 or more",
    sources={"mnist": DIGITS},
    preprocess=preprocess,
    model=model,
    keep=keep,
    sample=sample,
    serve=serve,
    measure=measure,
    variants={
        "mean": Variant(
            description="The book's: the divergence as a mean over latent dimensions and batch",
            train=BOOK,
            promises=PROMISES,
        ),
        "sum": Variant(
            description="The divergence as it is defined, summed over latent dimensions",
            train=BOOK,
            model={"kl": "sum"},
            promises=PROMISES,
            line="sum",
        ),
    },
    studies={
        "divergence": Study(
            description="Both forms of the divergence, by what held-out digits cost",
            variants=("mean", "sum"),
            metric="loss",
            seeds=3,
            findings=(Finding(cell="sum", beats="mean", source="it is what is measured"),),
        ),
    },
    smoke={"train.epochs": 1, "export.examples": 16},
)
