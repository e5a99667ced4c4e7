"""The family of MNIST: networks of exactly the book's sizes, loops that do what they say, data that say nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headrace import Feature, projects
from headrace.chain import Stages
from headrace.engine.feeding import Split
from headrace.engine.loops import Start
from headrace.jobs import resolve
from headrace.publishing import line_of
from headrace.readers.batches import whole
from headrace.running import execute
from pipelines.mnist import models, studies
from pipelines.mnist.sources import SOURCES

IMAGE = {"image": Feature(shape=(28, 28, 1), dtype="uint8")}
BESIDE = {**IMAGE, "extra": Feature(shape=(784,), dtype="uint8", role="input")}
PIPELINE = projects.load("mnist")

not_ours = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")


def built(variant: str, **changes: Any) -> Any:
    """The network of a variant, with initial weights."""
    job = resolve("mnist", variant=variant)
    inputs = BESIDE if job.origin.named("input").keys() == BESIDE.keys() else IMAGE
    return job.the("model")(inputs, **{**job.settings.model, **changes})


def images(count: int, seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).integers(0, 256, (count, 28, 28, 1), dtype=np.uint8)


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The raw folder of the twin, which all sources share."""
    folder = tmp_path_factory.mktemp("raw")
    twin = SOURCES["mnist"].twin
    assert twin is not None
    twin(folder, 0)
    return folder


class TestNetworks:
    @pytest.mark.parametrize(
        ("variant", "changes", "expected"),
        [
            ("mlp", {}, 407_050),
            ("from_scratch", {}, 407_050),
            ("noise", {}, 808_458),
            ("zeros", {}, 808_458),
            ("logistic", {}, 7_850),
            ("mlp_96", {}, 85_642),
            ("workflow_fit", {}, 407_050),
            ("workflow_step", {}, 407_050),
            ("workflow_compiled_step", {}, 407_050),
            ("convnet", {}, 104_202),
            ("convnet_no_pooling", {}, 712_202),
            ("mlp_subclassed", {}, 79_510),
            ("mlp_50_sequential", {}, 79_510),
            ("mlp_50_functional", {}, 79_510),
            ("cnn_subclassed", {}, 3_274_634),
            ("mlp_256", {}, 269_322),
            ("cnn_64", {}, 80_266),
            ("rnn", {}, 75_530),
        ],
    )
    def test_have_the_parameters_of_the_book(self, variant: str, changes: dict[str, Any], expected: int) -> None:
        assert built(variant, **changes).count_params() == expected

    @pytest.mark.parametrize(
        ("variant", "expected"),
        [
            ("convnet", [320, 18_496, 73_856, 11_530]),
            ("convnet_no_pooling", [320, 18_496, 73_856, 619_530]),
            ("cnn_64", [640, 36_928, 36_928, 5_770]),
            ("mlp_256", [200_960, 65_792, 2_570]),
            ("rnn", [72_960, 2_570]),
        ],
    )
    def test_have_them_layer_by_layer(self, variant: str, expected: list[int]) -> None:
        counts = [layer.count_params() for layer in built(variant).layers]

        assert [count for count in counts if count] == expected

    @pytest.mark.parametrize("variant", ["mlp", "convnet", "rnn", "mlp_subclassed", "cnn_subclassed", "workflow_step"])
    def test_answer_images_as_they_are_with_the_probability_of_each_digit(self, variant: str) -> None:
        answers = np.asarray(built(variant)(images(3)))

        assert answers.shape == (3, 10)
        np.testing.assert_allclose(answers.sum(axis=1), 1, rtol=1e-5)

    @pytest.mark.parametrize("variant", ["mlp_subclassed", "cnn_subclassed", "workflow_step", "workflow_compiled_step"])
    def test_of_a_class_of_their_own_are_kept_as_layers_that_answer_alike(self, variant: str, tmp_path: Path) -> None:
        import keras

        network = built(variant)
        models.as_layers(network)["model"].save(tmp_path / "model.keras")
        # Nothing but Keras is known here.
        loaded = keras.saving.load_model(tmp_path / "model.keras", custom_objects={})

        np.testing.assert_allclose(np.asarray(loaded(images(2))), np.asarray(network(images(2))), atol=1e-6)

    def test_two_inputs_are_one_vector_of_784_and_784_numbers(self) -> None:
        network = built("noise")
        one, other = images(1), np.zeros((1, 784), np.uint8)
        kernel = next(layer.kernel for layer in network.layers if layer.count_params())

        assert kernel.shape == (1_568, 512)
        assert not np.array_equal(
            network({"image": one, "extra": other}), network({"image": one, "extra": other + np.uint8(255)})
        )


class TestLoops:
    def start(self, variant: str, count: int = 100, **changes: Any) -> Start:
        """What the loop of a variant is given, with a few examples."""
        settings = resolve("mnist", variant=variant).settings.train.model_copy(update=changes)
        labels = np.random.default_rng(1).integers(0, 10, count)
        return Start(built(variant), Split({"image": images(count)}, {"label": labels}), None, IMAGE, settings, seed=3)

    def loop(self, variant: str, *given: Any, **changes: Any) -> Any:
        make = PIPELINE.function("loop", variant)
        assert make is not None
        return make(self.start(variant, *given, **changes))

    def test_from_scratch_does_the_updates_of_plain_gradient_descent(self) -> None:
        import keras

        loop = self.loop("from_scratch", batch_size=64)
        network = keras.models.clone_model(loop.model)
        network.set_weights(loop.model.get_weights())
        network.compile(optimizer=keras.optimizers.SGD(1e-3), loss="sparse_categorical_crossentropy")
        split = self.start("from_scratch").train

        for step in range(2):
            rows = loop.rows(step)
            network.train_on_batch(split.inputs["image"][rows], split.targets["label"][rows])
            assert np.isfinite(list(loop.advance(step).values())).all()

        for ours, theirs in zip(loop.model.get_weights(), network.get_weights(), strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-6)

    def test_from_scratch_begins_with_kernels_from_0_to_a_tenth_and_biases_of_zero(self) -> None:
        kernel, bias, *_ = self.loop("from_scratch").model.get_weights()

        assert kernel.min() >= 0
        assert 0.099 < kernel.max() <= 0.1
        assert not bias.any()

    def test_by_hand_an_epoch_goes_through_every_example_once(self) -> None:
        loop = self.loop("workflow_loop", batch_size=32)

        rows = [loop.rows(step) for step in range(2 * loop.steps)]

        assert loop.steps == 4
        assert sorted(np.concatenate(rows[:4])) == sorted(np.concatenate(rows[4:])) == list(range(100))
        assert not np.array_equal(rows[0], rows[4])

    def test_drawn_batches_are_of_one_size_with_replacement_and_a_function_of_seed_and_step(self) -> None:
        loop, again = (self.loop("mlp_subclassed", 60, batch_size=50) for _ in range(2))

        rows = [loop.rows(step) for step in range(20)]

        assert {len(batch) for batch in rows} == {50}
        assert all(len(set(batch)) < 50 for batch in rows)
        assert set(np.concatenate(rows)) == set(range(60))
        np.testing.assert_array_equal(again.rows(7), rows[7])
        assert not np.array_equal(rows[0], rows[1])

    def test_the_handbooks_networks_are_trained_for_6000_steps(self) -> None:
        settings = resolve("mnist", variant="mlp_subclassed").settings.train

        assert settings.epochs * (60_000 // settings.batch_size) == 6_000


def test_every_network_is_published_in_a_line_of_its_own() -> None:
    """Or one that ran after a better network would not pass: it is worse than what is blessed."""
    lines = [line_of(resolve("mnist", variant=variant), "real") for variant in PIPELINE.variants]

    assert lines[0] == "mnist"
    assert len(set(lines)) == len(lines)


class TestOwnMetric:
    def test_is_the_root_of_the_mean_squared_distance_over_all_examples(self) -> None:
        metric = PIPELINE.objects["rmse"]()
        random = np.random.default_rng(0)
        truth, answers = random.integers(0, 10, 7), random.random((7, 10)).astype(np.float32)

        metric.update_state(truth[:5], answers[:5])
        metric.update_state(truth[5:], answers[5:])

        expected = np.sqrt(((np.eye(10)[truth] - answers) ** 2).sum(axis=1).mean())
        np.testing.assert_allclose(float(metric.result()), expected, rtol=1e-6)

    def test_leaves_out_what_weighs_nothing(self) -> None:
        metric = PIPELINE.objects["rmse"]()
        metric.update_state(np.array([1, 2]), np.eye(10, dtype=np.float32)[[1, 3]], sample_weight=np.array([1.0, 0.0]))

        assert float(metric.result()) == 0


class TestSources:
    def rows(self, name: str, raw: Path, split: str = "train") -> dict[str, Any]:
        return whole(SOURCES[name].read(raw)[split], SOURCES[name].features)

    def test_hold_the_same_images(self, raw: Path) -> None:
        expected = self.rows("mnist", raw)["image"]
        for name in SOURCES:
            np.testing.assert_array_equal(self.rows(name, raw)["image"], expected)

    def test_noise_is_uniform_and_always_the_same_but_not_in_both_splits(self, raw: Path) -> None:
        noise, again, test = (self.rows("noise", raw, split)["extra"] for split in ("train", "train", "test"))

        np.testing.assert_array_equal(noise, again)
        assert not np.array_equal(noise[: len(test)], test)
        # Each of 256 values 6,125 times on average, give or take 78.
        assert np.abs(np.bincount(noise.ravel(), minlength=256) - noise.size / 256).max() < 500

    def test_zeros_are_zeros(self, raw: Path) -> None:
        assert not self.rows("zeros", raw)["extra"].any()

    def test_shuffled_labels_are_as_many_of_each_and_right_by_chance_only(self, raw: Path) -> None:
        for split in ("train", "test"):
            dealt, true = (self.rows(name, raw, split)["label"] for name in ("random_labels", "mnist"))
            np.testing.assert_array_equal(np.bincount(dealt), np.bincount(true))
            assert 0.05 < (dealt == true).mean() < 0.16


class TestStudies:
    def test_the_table_of_dense_networks_has_18_rows(self) -> None:
        assert len(studies.MLP_GRID) == 18

    def test_its_listing_has_the_parameters_that_the_book_prints(self) -> None:
        row = studies.MLP_GRID["adam dropout 0.45"]
        arguments = {name.removeprefix("model."): v for name, v in row.items() if name.startswith("model.")}

        assert models.mlp(IMAGE, **arguments).count_params() == 269_322

    @pytest.mark.parametrize(
        ("cell", "expected"), [("lstm", 294_410), ("gru", 222_218), ("bidirectional", 151_050), ("sgd", 75_530)]
    )
    def test_other_recurrent_layers_take_the_place_of_the_simple_one(self, cell: str, expected: int) -> None:
        row = studies.STUDIES["rnn_grid"].cells[cell]
        arguments = {name.removeprefix("model."): v for name, v in row.items() if name.startswith("model.")}

        assert models.rnn(IMAGE, **arguments).count_params() == expected

    def test_the_space_of_the_tuning_has_8_points(self) -> None:
        sizes = [len(choice.values) for choice in studies.TUNINGS["width"].space.values()]  # type: ignore[union-attr]

        assert np.prod(sizes) == 8


class TestOtherImages:
    """Whatever has 28 × 28 pixels and 10 classes, in the layout of Keras' archives."""

    @pytest.fixture
    def archive(self, tmp_path: Path, raw: Path) -> Path:
        """Images that are the twin's turned over, with other labels."""
        with np.load(raw / "mnist.npz") as file:
            arrays = {name: file[name] for name in file.files if name != "allow_pickle"}
        for name, values in arrays.items():
            arrays[name] = values[:, ::-1] if name.startswith("x") else ((values + 1) % 10)[:, None]
        np.savez(tmp_path / "fashion.npz", **arrays)
        return tmp_path / "fashion.npz"

    def test_become_records_without_a_line_of_code(self, archive: Path, raw: Path) -> None:
        stages = Stages.plain()
        job = resolve("mnist", source=str(archive), profile="smoke")

        records = stages.preprocess(job, stages.download(job))

        info = records.json("info.json")
        assert {split: entry["examples"] for split, entry in info["splits"].items()} == {"train": 2_000, "test": 500}
        assert info["features"]["image"]["shape"] == [28, 28, 1]
        assert info["features"]["label"]["classes"] == list("0123456789")

    @pytest.mark.slow
    @not_ours
    def test_are_learned_and_published_in_a_line_of_their_own(self, archive: Path) -> None:
        found = execute(resolve("mnist", variant="convnet", source=str(archive), profile="smoke"), Stages.plain())

        assert found["verdict"] == "pass"
        assert found["metrics"]["accuracy"] > 0.9
        publication = json.loads((Path(found["artifacts"]["publish"]) / "publication.json").read_text())
        assert publication["line"] == "mnist-convnet-own_fashion-smoke"


@pytest.mark.slow
@not_ours
def test_the_twins_best_possible_accuracy_of_1_is_approached() -> None:
    job = resolve("mnist", variant="convnet", profile="smoke", data="synthetic", overrides={"train.epochs": 6})
    stages = Stages.plain()
    records = stages.preprocess(job, stages.download(job))

    evaluation = stages.evaluate(job, records, stages.train(job, records))

    assert evaluation.json("evaluation.json")["metrics"]["accuracy"] >= 0.98


@pytest.mark.slow
@pytest.mark.real_data
def test_two_layers_of_96_overfit_and_a_logistic_regression_does_not(mirror: Path) -> None:
    """Chollet 5.3.3: the loss on held-out examples rises again after some epochs, or stays where it is."""
    curves = {}
    for variant in ("mlp_96", "logistic"):
        job, stages = resolve("mnist", variant=variant, data="real"), Stages.plain()
        model = stages.train(job, stages.preprocess(job, stages.download(job)))
        curves[variant] = np.array(model.json("history.json")["metrics"]["val_loss"])

    assert 4 <= curves["mlp_96"].argmin() + 1 <= 15
    assert curves["mlp_96"][-1] > 1.15 * curves["mlp_96"].min()
    assert curves["logistic"][-1] < 1.05 * curves["logistic"].min()
    assert 0.24 <= curves["logistic"].min() <= 0.30
