"""Faces that nobody has: networks of the book's sizes, sources in grey and in colour, known looks, exact resume."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headrace import Feature, projects
from headrace.artifacts import Artifact
from headrace.chain import Stages
from headrace.engine.journals import Moment
from headrace.jobs import resolve
from headrace.measuring import generated
from headrace.running import execute
from pipelines.sources import _faces
from tests.pipelines.resumed import whole_and_resumed

Array = np.ndarray[Any, Any]

PIPELINE = projects.load("gan_faces")
TINY: dict[str, Any] = {"latent": 8, "generator": [4, 4], "discriminator": [4, 4]}

not_ours = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")


def image(side: int = 64, channels: int = 3) -> Feature:
    return Feature(shape=(side, side, channels), dtype="uint8")


def built(side: int = 64, channels: int = 3, **arguments: Any) -> Any:
    return PIPELINE.model({"image": image(side, channels)}, **arguments)


def drawn(count: int, side: int = 64, seed: int = 0, *, grey: bool = False) -> tuple[Array, Array]:
    """Faces, and the looks that they were drawn with."""
    looks = _faces.factors(np.random.default_rng(seed), count)
    faces = np.stack([np.asarray(_faces.face(one, (side, side), grey=grey)) for one in looks])
    return faces.reshape(count, side, side, -1), looks


class TestNetworks:
    def test_have_the_parameters_of_the_book(self) -> None:
        model = built()
        assert (model.discriminator.count_params(), model.generator.count_params()) == (404_801, 3_979_651)

    def test_take_and_make_one_channel_where_the_source_is_grey(self) -> None:
        model = built(16, 1, **TINY)
        assert model.discriminator.input_shape == model.generator.output_shape == (None, 16, 16, 1)

    def test_have_optimizers_of_one_kind_and_a_pace_of_their_own(self) -> None:
        import keras

        model = built(16, **TINY, pace=0.25)
        model.compile(optimizer=keras.optimizers.Adam(0.004, beta_1=0.5))
        assert model.opponent is not model.optimizer
        assert float(model.opponent.learning_rate) == pytest.approx(0.001)
        assert (model.opponent.beta_1, float(model.optimizer.learning_rate)) == (0.5, pytest.approx(0.004))

    def test_move_their_own_weights_only(self) -> None:
        """The discriminator's step leaves the generator alone, and the other way round."""
        import keras

        model = built(16, **TINY, pace=1.0)
        model.compile(optimizer=keras.optimizers.SGD(0.0))
        model.opponent.learning_rate = 0.1
        before = [[weight.numpy() for weight in network.weights] for network in (model.discriminator, model.generator)]

        model.train_step(drawn(4, 16)[0])

        moved = [
            any(not np.array_equal(old, new.numpy()) for old, new in zip(olds, network.weights, strict=True))
            for olds, network in zip(before, (model.discriminator, model.generator), strict=True)
        ]
        assert moved == [True, False]


class TestSources:
    @pytest.mark.parametrize(("source", "channels"), [("celeba", 3), ("caltech", 3), ("olivetti", 1)])
    def test_become_squares_in_as_many_colours_as_they_have(
        self, source: str, channels: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HEADRACE_HOME", str(tmp_path))
        job = resolve("gan_faces", profile="smoke", data="synthetic", source=source)
        stages = Stages.plain()
        records = stages.preprocess(job, stages.download(job))
        from headrace.records.inputs import read_info

        assert read_info(records.path).features["image"].shape == (16, 16, channels)

    def test_small_faces_are_enlarged_and_grey_ones_repeated_where_that_is_asked_for(self) -> None:
        from types import SimpleNamespace

        statistics: Any = {"image": SimpleNamespace(dtype="uint8", shape=(64, 64, 1))}
        faces = drawn(2, grey=True)[0]
        make: Callable[..., Any] = PIPELINE.preprocess
        found = make(statistics, size=32, channels=3)({"image": faces})["image"].numpy()
        assert found.shape == (2, 32, 32, 3)
        assert np.abs(found[..., 0].astype(int) - faces[:, ::2, ::2, 0]).mean() < 6


class TestKnownLooks:
    @pytest.mark.parametrize(("side", "grey"), [(64, False), (64, True), (32, False)])
    def test_are_found_again_in_true_drawings(self, side: int, grey: bool) -> None:
        faces, looks = drawn(150, side, grey=grey)
        found = _faces.measured(faces)
        for factor, one, other in zip(_faces.FACTORS, looks.T, found.T, strict=True):
            assert np.corrcoef(one, other)[0, 1] > 0.99, factor

    def test_are_covered_by_other_faces_and_not_by_one_of_them_or_by_noise(self) -> None:
        known, others = _faces.measured(drawn(300)[0]), _faces.measured(drawn(200, seed=1)[0])
        assert generated.bins_covered(others, known).mean() == 1
        assert generated.bins_covered(others[:1].repeat(200, axis=0), known).mean() <= 0.2
        noise = np.random.default_rng(0).integers(0, 256, (200, 64, 64, 3), dtype=np.uint8)
        assert generated.bins_covered(_faces.measured(noise), known).mean() <= 0.2


class TestSamples:
    def moment(self, faces: Array) -> Moment:
        return Moment(3, 0, {"image": faces}, {"image": image(16)})

    def test_are_faces_at_the_same_points_each_time(self) -> None:
        model = built(16, **TINY)
        faces = drawn(16, 16)[0]
        one, other = (PIPELINE.sample(model, self.moment(faces)) for _ in range(2))
        assert list(one) == ["faces"]
        assert one["faces"].shape == (8 * 16, 8 * 16, 3)
        np.testing.assert_array_equal(one["faces"], other["faces"])

    def test_tell_of_a_discriminator_that_wins_and_of_the_remedy(self, caplog: pytest.LogCaptureFixture) -> None:
        """One that takes what is bright for real, and a generator that makes only what is dark."""
        model = built(16, **TINY, dropout=0.0)
        for weight in model.generator.get_layer("image").weights:
            weight.assign(np.full(weight.shape, -1.0 if len(weight.shape) == 1 else 0.0) * 20)
        bright = np.full((16, 16, 16, 3), 255, np.uint8)
        judge = model.discriminator
        for layer in judge.layers:
            if layer.weights:
                kernel, bias = layer.get_weights()
                last = layer.name == "made_up"
                layer.set_weights(
                    [np.full_like(kernel, -10.0 if last else 0.1), np.full_like(bias, 9.0 if last else 0.0)]
                )
        found = PIPELINE.sample(model, self.moment(bright))
        assert "The discriminator wins" in found["balance"]
        assert "model.pace" in found["balance"]
        assert "after epoch 3: The discriminator wins" in caplog.text


@not_ours
def test_a_training_cut_off_after_any_step_goes_on_to_the_same_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both networks, both optimizers, the points that were drawn and the noise of the labels."""
    steps = {"train.epochs": 3, "train.batch_size": 16, "train.steps_per_execution": 1}
    job = resolve("gan_faces", variant="small", profile="smoke", data="synthetic", overrides=steps)
    # After the first epoch, so that its samples must be kept by the attempt that was cut off.
    after = random.Random(64).randrange(3, 8)

    expected, again = whole_and_resumed(job, image(16), 44, after, tmp_path, monkeypatch)

    facts = again.json("training.json")
    assert (facts["resumed_from_epoch"], facts["resumed_from_step"]) == divmod(after, 3)
    assert again.digest == expected.digest
    assert sorted(path.stem for path in expected.path.glob("*.keras")) == ["discriminator", "model"]
    assert sorted(path.name for path in again.path.glob("samples/*")) == [
        f"{epoch:05d}-faces.png" for epoch in (1, 2, 3)
    ]


@not_ours
@pytest.mark.slow
def test_faces_come_in_the_looks_of_the_twin_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At 32 × 32 pixels, at least four fifths of the bins of the known factors are covered."""
    monkeypatch.setenv("HEADRACE_HOME", str(tmp_path))
    settings = {
        "preprocess.size": 32,
        "train.epochs": 150,
        "model.latent": 32,
        "model.generator": [64, 32],
        "model.discriminator": [32, 64],
        "evaluate.trials": 400,
    }
    job = resolve("gan_faces", variant="small", profile="smoke", data="synthetic", overrides=settings)

    found = execute(job, Stages.plain())

    at: dict[str, Path] = {node: Path(path) for node, path in found["artifacts"].items()}
    evaluation = Artifact(at["evaluate"], "", "evaluate").json("evaluation.json")
    assert evaluation["metrics"]["factors_covered"] >= 0.8
    assert evaluation["metrics"]["distance_left"] <= 0.5
    assert evaluation["metrics"]["balance"] == 1
    assert any(one["file"].endswith(".gif") for one in evaluation["samples"])
    assert len(json.loads((at["train"] / "history.json").read_text())["metrics"]["generator_loss"]) == 150
