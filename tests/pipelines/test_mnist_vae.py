"""Digits from two dimensions: networks of the book's sizes, both forms of the divergence, exact resume."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headrace import Feature, projects
from headrace.chain import Stages
from headrace.jobs import resolve
from headrace.measuring.generated import divergence, reconstruction, tiles
from headrace.running import execute
from tests.pipelines.resumed import whole_and_resumed

Array = np.ndarray[Any, Any]

IMAGE = Feature(shape=(28, 28, 1), dtype="uint8")
PIPELINE = projects.load("mnist_vae")

not_ours = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")


def built(**arguments: Any) -> Any:
    return PIPELINE.model({"image": IMAGE}, **arguments)


def digits(count: int) -> Array:
    return np.random.default_rng(0).integers(0, 256, (count, 28, 28, 1), dtype=np.uint8)


def test_encoder_and_decoder_have_the_parameters_of_the_book() -> None:
    model = built()
    assert (model.encoder.count_params(), model.decoder.count_params()) == (69_076, 65_089)


@pytest.mark.parametrize("kl", ["mean", "sum"])
def test_the_loss_is_what_an_image_costs(kl: str) -> None:
    """Cross-entropy summed over pixels, and the divergence in the form that was asked for."""
    model = built(kl=kl)
    images = digits(9)
    code = {name: np.asarray(values) for name, values in model.encoder(images).items()}
    # Without spread, the point that is drawn is the mean.
    spread = model.encoder.get_layer("log_variance")
    spread.set_weights([np.zeros_like(spread.get_weights()[0]), np.full(2, -40.0)])

    lost, apart = (float(value) for value in model.losses_of(images))

    assert lost == pytest.approx(reconstruction(images / 255, np.asarray(model.decoder(code["mean"]))).mean(), rel=1e-4)
    assert apart == pytest.approx(divergence(code["mean"], np.full((9, 2), -40.0), kl).mean(), rel=1e-4)


def test_the_grid_lays_the_plane_out_like_a_map() -> None:
    import keras

    given = keras.Input((2,))
    # Left black, right white; the second dimension is not seen.
    pixels = keras.ops.repeat((given[:, :1] + 1) / 2, 784, axis=1)
    decoder = keras.Model(given, keras.layers.Reshape((28, 28, 1))(pixels))

    cells = tiles(PIPELINE.sample.__globals__["grid"](decoder, side=5), 28, 28)[:, 0, 0, 0].reshape(5, 5)

    assert cells[0].tolist() == cells[4].tolist() == [0, 64, 128, 191, 255]


def test_labels_are_for_people_and_not_for_the_network() -> None:
    features = PIPELINE.sources["mnist"].features
    assert {name: feature.role for name, feature in features.items()} == {"image": "input", "label": "note"}


@not_ours
def test_a_training_cut_off_after_any_step_goes_on_to_the_same_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The noise of the codes included."""
    steps = {"train.epochs": 3, "train.batch_size": 16, "train.steps_per_execution": 1}
    job = resolve("mnist_vae", profile="smoke", data="synthetic", overrides=steps)
    after = random.Random(28).randrange(1, 8)

    expected, again = whole_and_resumed(job, IMAGE, 44, after, tmp_path, monkeypatch)

    facts = again.json("training.json")
    assert (facts["resumed_from_epoch"], facts["resumed_from_step"]) == divmod(after, 3)
    assert again.digest == expected.digest
    assert sorted(path.stem for path in expected.path.glob("*.keras")) == ["encoder", "model"]
    assert [path.name for path in sorted(expected.path.glob("samples/*"))] == [
        f"{epoch:05d}-latent space.png" for epoch in (1, 2, 3)
    ]


@not_ours
@pytest.mark.slow
def test_the_plane_tells_the_digits_of_the_twin_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Better than the plane of principal components does; 0.60, as real digits have it, is more than so few allow."""
    monkeypatch.setenv("HEADRACE_HOME", str(tmp_path))
    settings = {"train.epochs": 40, "train.batch_size": 32}
    job = resolve("mnist_vae", profile="smoke", data="synthetic", overrides=settings)

    found = execute(job, Stages.plain())

    evaluation = json.loads((Path(found["artifacts"]["evaluate"]) / "evaluation.json").read_text())
    flat = evaluation["baselines"]["principal components"]["neighbour_accuracy"]
    assert evaluation["metrics"]["neighbour_accuracy"] >= flat + 0.05
    assert evaluation["metrics"]["loss"] < evaluation["baselines"]["the mean digit, whatever is given"]["loss"]
