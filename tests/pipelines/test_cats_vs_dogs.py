"""Cats and dogs: networks of the book's sizes, what is borrowed and kept of it, what a backbone learns from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headrace import Feature, Finding, projects, registry
from headrace.artifacts import Artifact
from headrace.chain import Stages
from headrace.engine.transferring import freeze, layers
from headrace.errors import ConfigError
from headrace.evaluating import why_not_judged
from headrace.jobs import resolve
from headrace.publishing import line_of
from headrace.running import execute
from headrace.studying import Measured, judged, plan
from pipelines.cats_vs_dogs import features

PIPELINE = projects.load("cats_vs_dogs")

not_ours = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")


def photographs(size: int) -> dict[str, Feature]:
    return {"image": Feature(shape=(size, size, 3), dtype="uint8")}


def built(variant: str, size: int = 180, **changes: Any) -> Any:
    """The network of a variant, with initial weights."""
    job = resolve("cats_vs_dogs", variant=variant)
    return job.the("model")(photographs(size), **{**job.settings.model, **changes})


def files(size: tuple[int, int] = (60, 50), count: int = 2) -> list[bytes]:
    """Photographs as they come."""
    from PIL import Image

    from pipelines.sources._drawing import encoded

    random = np.random.default_rng(0)
    return [encoded(Image.fromarray(random.integers(0, 256, (*size, 3), dtype=np.uint8))) for _ in range(count)]


class TestNetworks:
    @pytest.mark.parametrize(
        ("variant", "size", "expected"),
        [
            ("scratch", 180, 991_041),
            ("augmented", 180, 991_041),
            ("mini_xception", 180, 721_857),
            ("residual", 32, 297_697),
        ],
    )
    def test_have_the_parameters_of_the_book(self, variant: str, size: int, expected: int) -> None:
        assert built(variant, size).count_params() == expected

    def test_have_them_layer_by_layer(self) -> None:
        counts = [layer.count_params() for layer in built("scratch").layers]

        assert [count for count in counts if count] == [896, 18_496, 73_856, 295_168, 590_080, 12_545]

    def test_of_normalised_batches_train_all_but_means_and_variances(self) -> None:
        assert sum(weight.numpy().size for weight in built("mini_xception").trainable_weights) == 718_849

    def test_on_vgg16_are_its_14_714_688_parameters_and_a_head_without_activation(self) -> None:
        given = {"features": Feature(shape=(5, 5, 512))}
        head = resolve("cats_vs_dogs", variant="features").the("model")(given)
        whole = built("features_augmented")

        assert head.count_params() == 3_277_313
        assert whole.get_layer("vgg16").count_params() == 14_714_688
        assert whole.count_params() == 14_714_688 + 3_277_313
        assert [layer.activation.__name__ for layer in head.layers if hasattr(layer, "units")] == ["linear", "sigmoid"]

    @pytest.mark.parametrize("variant", ["scratch", "augmented", "mini_xception", "pretrained"])
    def test_answer_files_of_pixels_with_one_score(self, variant: str) -> None:
        images = np.random.default_rng(0).integers(0, 256, (3, 80, 80, 3), dtype=np.uint8)
        answers = np.asarray(built(variant, 80)(images))

        assert answers.shape == (3, 1)
        assert ((answers > 0) & (answers < 1)).all()

    @pytest.mark.parametrize(("variant", "differ"), [("scratch", False), ("augmented", True)])
    def test_see_other_photographs_in_each_epoch_and_the_same_ones_when_they_serve(
        self, variant: str, differ: bool
    ) -> None:
        network = built(variant, 80, dropout=0.0)
        images = np.random.default_rng(0).integers(0, 256, (2, 80, 80, 3), dtype=np.uint8)
        seen = {
            training: [np.asarray(network(images, training=training)) for _ in range(2)] for training in (True, False)
        }

        assert np.array_equal(*seen[True]) is not differ
        np.testing.assert_array_equal(*seen[False])


class TestBorrowing:
    def free(self, variant: str, **changes: Any) -> set[str]:
        """The layers of a backbone that a variant trains."""
        network = built(variant, 48, **changes)
        freeze(network, resolve("cats_vs_dogs", variant=variant).settings.train)
        inner = {path for path, layer in layers(network) if "/" in path and layer.trainable_weights}
        return {path.partition("/")[2] for path in inner}

    def test_keeps_the_backbone_while_the_head_is_trained_then_frees_its_last_layers(self) -> None:
        assert self.free("features_augmented") == set()
        assert self.free("fine_tuned") == {f"block5_conv{k}" for k in (1, 2, 3)}
        assert resolve("cats_vs_dogs", variant="fine_tuned").settings.train.learning_rate == 1e-5

    def test_never_frees_batch_normalisation(self) -> None:
        assert self.free("borrowed") == set()
        freed = self.free("borrowed_tuned")
        assert len(freed) == 4
        assert all(name.startswith("conv") for name in freed)

    def test_of_features_gives_what_the_backbone_sees_and_the_same_in_every_process(self) -> None:
        import tensorflow as tf

        from headrace.engine.backbones import backbone, prepared
        from headrace.images import decode

        batch = {"image": tf.constant(files()), "file": tf.constant(["a", "b"])}
        settings: dict[str, Any] = {"size": 48, "network": "squeezenet", "weights": "random"}
        # Nothing of the statistics is looked at.
        found, again = (features(None, **settings)(batch) for _ in range(2))  # type: ignore[arg-type]
        base = backbone("squeezenet", (48, 48, 3), weights="random")
        expected = base(prepared("squeezenet", tf.cast(decode(batch["image"], (48, 48)), tf.float32)))

        assert found.keys() == {"features", "file"}
        np.testing.assert_allclose(found["features"], expected, rtol=1e-4, atol=1e-4)
        np.testing.assert_array_equal(found["features"], again["features"])


class TestTurns:
    def test_of_photographs_are_quarters_to_the_left(self) -> None:
        import tensorflow as tf

        from pipelines.cats_vs_dogs.turning import all_ways, turned

        images = np.random.default_rng(0).integers(0, 256, (4, 5, 5, 3), dtype=np.uint8)
        found = turned(tf.constant(images), tf.constant([0, 1, 2, 3]))
        for k in range(4):
            np.testing.assert_array_equal(found[k], np.rot90(images[k], k))
        every, turns = all_ways(tf.constant(images))
        assert turns.numpy().tolist() == [0] * 4 + [1] * 4 + [2] * 4 + [3] * 4
        np.testing.assert_array_equal(every[9], np.rot90(images[1], 2))

    def test_are_learned_without_a_look_at_labels(self) -> None:
        import keras

        steps = []
        images = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), dtype=np.uint8)
        for labels in (np.zeros(4), np.ones(4)):
            keras.utils.set_random_seed(0)
            network = built("turns", 16, filters=(4, 4))
            network.compile("sgd")
            steps.append(network.train_on_batch(images, labels))
        assert steps[0] == steps[1]

    def test_of_a_trained_network_are_told_by_keras_layers_alone(self) -> None:
        from pipelines.cats_vs_dogs.turning import as_layers

        network = built("turns", 16, filters=(4, 4))
        kept = as_layers(network)["model"]
        images = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), dtype=np.uint8)
        assert type(kept).__module__.startswith("keras")
        assert "encoder" in dict(layers(kept))
        np.testing.assert_allclose(kept(images, training=False), network(images, training=False), atol=1e-6)


class TestData:
    def test_of_the_small_set_are_judged_as_those_of_the_competition(self) -> None:
        whole, sample = {"train": 2_000, "test": 2_000}, {"train": 800, "test": 200}
        job = resolve("cats_vs_dogs", source="small")

        assert why_not_judged(job, "real", whole) is None
        assert "a sample, 800 of 2,000 train" in str(why_not_judged(job, "real", sample))

    def test_of_studies_on_a_sample_are_the_small_set_unless_others_are_asked_for(self) -> None:
        assert plan("cats_vs_dogs", "book").job.source == "small"
        assert {job.source for cell in plan("cats_vs_dogs", "transfer").cells for job in cell.jobs} == {"small"}
        assert plan("cats_vs_dogs", "book", source="kaggle").cells[0].jobs[0].source == "kaggle"
        assert plan("cats_vs_dogs", "networks").job.source == "kaggle"


class TestSaying:
    def test_of_smoke_runs_is_that_nothing_is_downloaded(self) -> None:
        for variant in PIPELINE.variants:
            settings = resolve("cats_vs_dogs", variant=variant, profile="smoke").settings

            if PIPELINE.variants[variant].functions.preprocess:
                assert settings.preprocess["weights"] == "random"
            assert all(origin.startswith("variant:") for origin in settings.train.weights.values())

    @pytest.mark.parametrize(("augmented", "holds"), [(0.72, True), (0.70, False), (0.65, False)])
    def test_by_how_much_a_cell_beats_another(self, augmented: float, holds: bool) -> None:
        study = plan("cats_vs_dogs", "book")
        finding = Finding(cell="augmented", beats="scratch", by=0.03)
        done = {"scratch": Measured([0.68], None, False), "augmented": Measured([augmented], None, False)}

        found = judged(finding, study, done, "augmented", None)

        assert found["passed"] is holds
        assert f"{'better' if holds else 'not better'} by 0.03 than 0.68 of scratch" in found["reason"]


QUICK: dict[str, Any] = {"preprocess.size": 32, "export.examples": 4, "export.formats": ["saved_model"]}


def test_nothing_is_borrowed_from_a_line_that_has_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_HOME", str(tmp_path))
    job = resolve("cats_vs_dogs", variant="borrowed", data="synthetic", overrides=QUICK)

    with pytest.raises(ConfigError, match="no line in the registry `cats_vs_dogs-turns`"):
        Stages.plain().train.plan(job, Artifact(tmp_path, "some records", "preprocess"))


@pytest.mark.slow
def test_the_twin_can_be_learned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_HOME", str(tmp_path))
    settings = {
        "preprocess.size": 64,
        "model.augmentation": False,
        "train.weights": {},
        "train.epochs": 14,
        "train.learning_rate": 0.003,
    }
    job, stages = resolve("cats_vs_dogs", variant="pretrained", data="synthetic", overrides=settings), Stages.plain()
    records = stages.preprocess(job, stages.download(job))

    evaluation = stages.evaluate(job, records, stages.train(job, records))

    assert evaluation.json("evaluation.json")["metrics"]["accuracy"] >= 0.95


@pytest.mark.slow
@not_ours
def test_a_backbone_of_our_own_goes_through_the_registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Learned from turns, published and blessed, and there again in the networks that borrow it."""
    import keras

    monkeypatch.setenv("HEADRACE_HOME", str(tmp_path))
    pre = {**QUICK, "train.epochs": 8, "train.learning_rate": 0.003, "model.filters": (16, 32, 64)}
    first = resolve("cats_vs_dogs", variant="turns", data="synthetic", overrides=pre)
    assert execute(first, Stages.plain())["verdict"] == "pass"
    line = line_of(first, "synthetic")
    assert registry.blessed(line) == 1

    borrowing = {**QUICK, "train.epochs": 1, "train.weights": {"encoder": f"registry:{line}@blessed"}}
    second = resolve(
        "cats_vs_dogs", variant="borrowed", data="synthetic", overrides=borrowing | {"model.filters": (16, 32, 64)}
    )
    found = execute(second, Stages.plain())
    model = Path(found["artifacts"]["train"]) / "model.keras"
    ours = keras.saving.load_model(model, compile=False).get_layer("encoder").get_weights()
    theirs = keras.saving.load_model(registry.held(line, 1) / registry.EXTRA / "model.keras", compile=False)
    # Frozen: what was learned of turns is what is served.
    for mine, its in zip(ours, dict(layers(theirs))["encoder"].get_weights(), strict=True):
        np.testing.assert_array_equal(mine, its)
    assert f"registry:{line}@1" in (model.parent / "weights.json").read_text()
