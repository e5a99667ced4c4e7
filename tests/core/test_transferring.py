"""Weights that were learned elsewhere, and layers that keep theirs: loaded, frozen, told in key and lineage."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headrace import registry, training
from headrace.artifacts import Artifact, write_json
from headrace.chain import Stages, cross_validated, standard
from headrace.engine import backbones, borrowing
from headrace.engine.transferring import freeze, layers, load
from headrace.errors import ConfigError, DataError
from headrace.jobs import resolve
from headrace.spec import File, Train
from headrace.stages import Room, stage
from headrace.training import train
from tests.core.test_resuming import cut
from tests.core.trainables import records, request


def body(units: int = 4) -> Any:
    import keras

    inside = [
        keras.layers.Dense(units, name="first"),
        keras.layers.BatchNormalization(name="normal"),
        keras.layers.Dense(3, name="last"),
    ]
    return keras.Sequential([keras.Input((2,)), *inside], name="body")


def made(seed: int = 0, units: int = 4, within: str = "") -> Any:
    """A head on a body; the body may lie in another layer."""
    import keras

    keras.utils.set_random_seed(seed)
    given = keras.Input((2,))
    part = body(units)
    if within:
        part = keras.Sequential([keras.Input((2,)), part], name=within)
    return keras.Model(given, keras.layers.Dense(1, name="head")(part(given)))


def settings(**changes: Any) -> Train:
    return Train.model_validate({"epochs": 1, **changes})


def weights(layer: Any) -> list[list[Any]]:
    return [values.tolist() for values in layer.get_weights()]


def saved(model: Any, path: Path) -> Path:
    model.save(path)
    return path


class TestFreezing:
    def test_keeps_a_layer_with_all_within_it(self) -> None:
        model = made()
        freeze(model, settings(frozen=["body"]))
        assert [weight.path for weight in model.trainable_weights] == ["head/kernel", "head/bias"]
        x = np.random.default_rng(0).normal(size=(8, 2)).astype(np.float32)
        assert (model(x, training=True).numpy() == model(x, training=False).numpy()).all()

    def test_leaves_exceptions_free_but_never_batch_normalisation(self) -> None:
        model = made()
        freeze(model, settings(frozen=["body/*"], unfrozen=["body/last", "body/norm*"]))
        assert {weight.path.split("/")[-2] for weight in model.trainable_weights} == {"last", "head"}
        model = made()
        freeze(model, settings(frozen=["*"], unfrozen=["head", "*"]))
        assert {weight.path.split("/")[-2] for weight in model.trainable_weights} == {"first", "last", "head"}

    def test_reaches_what_a_layer_holds_beside_the_layers_in_it(self) -> None:
        import keras

        class Scaled(keras.layers.Layer):  # type: ignore[misc]
            def __init__(self) -> None:
                super().__init__(name="scaled")
                self.inner = keras.layers.Dense(2, name="inner")

            def build(self, shape: Any) -> None:
                self.scale = self.add_weight(shape=(1,), name="scale")
                self.inner.build(shape)

            def call(self, x: Any) -> Any:
                return self.inner(x) * self.scale

        model = keras.Sequential([keras.Input((2,)), Scaled(), keras.layers.Dense(1, name="head")])
        freeze(model, settings(frozen=["scaled"], unfrozen=["scaled/inner"]))
        names = [weight.path.partition("/")[2] for weight in model.trainable_weights]
        assert (len(names), any("scale" in name.split("/")[-1] for name in names)) == (4, False)

    def test_of_what_does_not_exist_names_what_does(self) -> None:
        with pytest.raises(ConfigError) as caught:
            freeze(made(), settings(frozen=["bodi"], unfrozen=["body/lost"]))
        assert "train.frozen: no layer is called `bodi`: did you mean `body`" in str(caught.value)
        assert "train.unfrozen: no layer is called `body/lost`: did you mean `body/last`" in str(caught.value)


class TestLoading:
    def test_a_layer_of_a_saved_model(self, tmp_path: Path) -> None:
        source, model = made(seed=1), made(seed=2)
        head = weights(model.get_layer("head"))
        path = saved(source, tmp_path / "source.keras")
        told = load(model, settings(weights={"body": f"file:{path}"}))
        assert weights(model.get_layer("body")) == weights(source.get_layer("body"))
        assert weights(model.get_layer("head")) == head
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        assert told == {"body": {"from": f"file:{path}", "digest": f"sha256 {digest}"}}

    def test_a_layer_that_lies_elsewhere_in_it(self, tmp_path: Path) -> None:
        source, model = made(seed=1, within="outer"), made(seed=2)
        load(model, settings(weights={"body": f"file:{saved(source, tmp_path / 'source.keras')}"}))
        assert weights(model.get_layer("body")) == weights(dict(layers(source))["outer/body"])

    def test_a_whole_model_and_one_layer_drawn(self, tmp_path: Path) -> None:
        source, model = made(seed=1), made(seed=2)
        load(model, settings(weights={"": f"file:{saved(source, tmp_path / 'source.keras')}", "head": "random"}))
        assert weights(model) == weights(source)

    def test_a_file_of_weights(self, tmp_path: Path) -> None:
        source, model = body(), made(seed=2)
        source.save_weights(tmp_path / "body.weights.h5")
        load(model, settings(weights={"body": f"file:{tmp_path / 'body.weights.h5'}"}))
        assert weights(model.get_layer("body")) == weights(source)

    def test_from_the_registry(self, tmp_path: Path) -> None:
        sources = [made(seed=seed) for seed in (1, 2)]
        for number, source in enumerate(sources, 1):
            path = saved(source, tmp_path / f"{number}.keras")
            registry.publish("millstones", {"assets.extra/model.keras": path}, bundle=f"bundle {number}")
            registry.bless("millstones", number)
        registry.alias("millstones", "canary", 1)
        for version, source in {
            "blessed": sources[1],
            "previous": sources[0],
            "canary": sources[0],
            "1": sources[0],
        }.items():
            model = made(seed=3)
            told = load(model, settings(weights={"body": f"registry:millstones@{version}"}))
            assert weights(model.get_layer("body")) == weights(source.get_layer("body"))
            assert told["body"]["from"] == f"registry:millstones@{2 if version == 'blessed' else 1}"

    def test_what_imagenet_gives(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        source, model = body(), made(seed=2)
        mirror = tmp_path / "mirror"
        mirror.mkdir()
        path = mirror / "body.weights.h5"
        source.save_weights(path)
        monkeypatch.setenv("HEADRACE_MIRROR", str(mirror))
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        entry = replace(
            backbones.CATALOGUE["squeezenet"], notop=File(url=f"https://none.invalid/{path.name}", sha256=digest)
        )
        monkeypatch.setitem(backbones.CATALOGUE, "body", entry)
        told = load(model, settings(weights={"body": "imagenet"}))
        assert weights(model.get_layer("body")) == weights(source)
        assert told["body"]["digest"] == digest[:20]

    def test_what_does_not_fit(self, tmp_path: Path) -> None:
        path = saved(made(units=5), tmp_path / "source.keras")
        with pytest.raises(DataError, match=r"layer `body`.*\n.*8 arrays, the 1th of shape \(2, 4\)\n.*\(2, 5\)"):
            load(made(), settings(weights={"body": f"file:{path}"}))
        body(units=5).save_weights(tmp_path / "body.weights.h5")
        with pytest.raises(DataError, match=r"body.weights.h5 don't fit `body`"):
            load(made(), settings(weights={"body": f"file:{tmp_path / 'body.weights.h5'}"}))
        broken = tmp_path / "broken.keras"
        broken.write_bytes(b"bread")
        with pytest.raises(DataError, match=r"can't load the model .*broken.keras"):
            load(made(), settings(weights={"body": f"file:{broken}"}))

    @pytest.mark.parametrize(
        ("given", "told"),
        [
            ({"bodi": "random"}, "no layer is called `bodi`: did you mean `body`"),
            ({"head": "imagenet"}, "There is no backbone `head`"),
            ({"body": "file:lost.keras"}, "there is no file lost.keras"),
            ({"body": "registry:quern@blessed"}, "There is no line in the registry `quern`"),
        ],
    )
    def test_what_does_not_exist(self, given: dict[str, str], told: str) -> None:
        with pytest.raises(ConfigError, match=told):
            load(made(), settings(weights=given))

    def test_a_damaged_version(self, tmp_path: Path) -> None:
        path = saved(made(), tmp_path / "1.keras")
        registry.publish("millstones", {"assets.extra/model.keras": path}, bundle="bundle")
        (registry.folder("millstones", 1) / "assets.extra" / "model.keras").write_bytes(b"bread")
        with pytest.raises(DataError, match="version 1 in the registry is damaged"):
            load(made(), settings(weights={"body": "registry:millstones@1"}))
        with pytest.raises(ConfigError, match="no version of millstones is blessed"):
            load(made(), settings(weights={"body": "registry:millstones@blessed"}))


class TestSaying:
    @pytest.mark.parametrize("source", ["imagenett", "registry:quern", "registry:quern@the best", "variant:", "file:"])
    def test_a_source_of_no_kind_is_refused(self, source: str) -> None:
        with pytest.raises(ValueError, match="expected random, imagenet, file:PATH"):
            settings(weights={"body": source})

    def test_two_variants_or_exceptions_from_nothing_are_refused(self) -> None:
        with pytest.raises(ValueError, match="one other variant, not from variant:a and variant:b"):
            settings(weights={"x": "variant:a", "y": "variant:b"})
        with pytest.raises(ValueError, match="nothing is frozen"):
            settings(unfrozen=["x"])


class TestTraining:
    def test_begins_with_them_and_keeps_what_is_frozen(self, tmp_path: Path) -> None:
        import keras

        folder = tmp_path / "records"
        given = records("dense", folder)
        first = train(request("dense", epochs=2), given)
        source = keras.saving.load_model(first.path / "model.keras", compile=False)
        hidden, normal = (name for name, _ in layers(source) if name.startswith(("dense", "batch")))
        asked = {"epochs": 2, "weights": {"": "variant:other"}, "frozen": [hidden, normal]}
        second = train(request("dense", **asked), given, start=first)
        model = keras.saving.load_model(second.path / "model.keras", compile=False)
        for name in (hidden, normal):
            assert weights(model.get_layer(name)) == weights(source.get_layer(name))
        assert weights(model.get_layer("price")) != weights(source.get_layer("price"))
        assert second.json("weights.json") == {"": {"from": "variant:other", "digest": f"content {first.digest}"}}
        assert train(request("dense", **asked), given, start=first).state == "skipped"
        other = train(request("dense", epochs=1), given)
        assert train.plan(request("dense", **asked), given, start=other).state == "run"

    def test_depends_on_the_bytes_of_a_file(self, tmp_path: Path) -> None:
        given = records("dense", tmp_path / "records")
        first = train(request("dense", epochs=1), given)
        path = tmp_path / "start.keras"
        path.write_bytes((first.path / "model.keras").read_bytes())
        job = request("dense", epochs=1, weights={"price": f"file:{path}"})
        train(job, given)
        assert train.plan(job, given).state == "skipped"
        path.write_bytes((train(request("dense", epochs=2), given).path / "model.keras").read_bytes())
        planned = train.plan(job, given)
        assert (planned.state, "weights.price.digest" in planned.reason) == ("run", True)

    def test_goes_on_where_it_was_cut_off(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        folder = tmp_path / "records"
        given = records("convnet", folder)
        monkeypatch.setenv("HEADRACE_HOME", str(tmp_path / "whole"))
        first = train(request("convnet", epochs=1), given)
        asked = {
            "steps_per_execution": 2,
            "weights": {"": f"file:{first.path / 'model.keras'}"},
            "frozen": ["conv2d", "batch*"],
        }
        expected = train(request("convnet", **asked), given)
        cut("convnet", folder, tmp_path / "cut", monkeypatch, **asked)
        training._programs.clear()
        monkeypatch.setenv("HEADRACE_HOME", str(tmp_path / "cut"))
        again = train(request("convnet", **asked), given)
        assert (again.json("training.json")["resumed_from_epoch"] > 0, again.digest) == (True, expected.digest)


@stage(settings=("train",))
def grind(
    job: Any,
    room: Room,
    records: Artifact,
    *,
    fold: int | None = None,
    folds: int | None = None,
    chosen: Artifact | None = None,
    start: Artifact | None = None,
) -> None:
    """A training that notes what it began with."""
    write_json(room.output / "start.json", [*start.json("start.json"), start.node] if start else [])
    curves = {name: [1.0, 0.5] for name in ("loss", "mae", "val_loss", "val_mae")}
    write_json(room.output / "history.json", {"epochs": 2, "metrics": curves, "stopped": None})


class TestAVariantThatBeginsWithAnother:
    """As of a frozen base, whose top is freed when the head has been trained."""

    @pytest.fixture(autouse=True)
    def variants(self, edit: Callable[[str, str], None]) -> None:
        edit(
            '        "folded":',
            '        "freed": Variant(train=Train(epochs=2, weights={"": "variant:plain"})),\n'
            '        "polished": Variant(train=Train(epochs=3, weights={"": "variant:freed"})),\n'
            '        "folded_freed": Variant(\n'
            '            train=Train(epochs=2, weights={"": "variant:plain"}),\n'
            "            cross_validation=CrossValidation(folds=2),\n"
            "        ),\n"
            '        "loop": Variant(train=Train(epochs=2, weights={"": "variant:loop"})),\n'
            '        "lost": Variant(train=Train(epochs=2, weights={"": "variant:plane"})),\n'
            '        "folded":',
        )

    def test_comes_after_it(self, stages: Stages) -> None:
        carried = replace(stages, train=grind)
        made = {artifact.node: artifact for artifact in standard(resolve("tiny", variant="polished"), carried)}
        trained = [node for node in made if node.startswith("grind")]
        assert trained == ["grind/from plain", "grind/from freed", "grind"]
        assert made["grind"].json("start.json") == ["grind/from plain", "grind/from freed"]
        # What was trained for the variant itself is not trained again.
        again = standard(resolve("tiny", variant="freed"), carried)
        assert {a.node: a.state for a in again if a.node.startswith("grind")} == {
            "grind/from plain": "skipped",
            "grind": "skipped",
        }

    def test_has_its_own_start_for_each_fold(self, stages: Stages) -> None:
        carried = replace(stages, train=grind)
        job = resolve("tiny", variant="folded_freed")
        made = cross_validated(job, carried, carried.preprocess(job, carried.download(job)))
        assert [artifact.node for artifact in made] == [
            "grind/from plain/fold 1",
            "grind/fold 1",
            "grind/from plain/fold 2",
            "grind/fold 2",
            "cross_validate",
        ]
        assert made[3].json("start.json") == ["grind/from plain/fold 2"]

    def test_is_planned(self, stages: Stages) -> None:
        carried = replace(stages, train=grind)
        planned = Stages(**{item.name: getattr(carried, item.name).plan for item in fields(Stages)})
        nodes = [artifact.node for artifact in standard(resolve("tiny", variant="freed"), planned)]
        assert nodes.index("grind/from plain") < nodes.index("grind")

    def test_can_t_begin_with_itself_or_with_nothing(self) -> None:
        with pytest.raises(ConfigError, match="can't begin with itself: loop ← loop"):
            borrowing.base(resolve("tiny", variant="loop"))
        with pytest.raises(ConfigError, match="no variant `plane`: did you mean `plain`"):
            borrowing.base(resolve("tiny", variant="lost"))
