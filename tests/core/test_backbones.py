"""Networks by name: as their papers and Keras have them, their inputs prepared, their weights verified."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headrace.artifacts import Artifact
from headrace.chain import Stages
from headrace.engine import backbones
from headrace.engine.backbones import CATALOGUE, backbone, file_of, load, prepared
from headrace.engine.borrowing import imagenet
from headrace.errors import ConfigError, DataError
from headrace.jobs import resolve
from headrace.records.inputs import arrays
from headrace.spec import File

PARAMETERS = {"vgg16": 14_714_688, "mobilenet_v2": 2_257_984, "squeezenet": 722_496}


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_backbone_is_a_layer_of_its_name_without_its_top(name: str) -> None:
    model = backbone(name, (64, 64, 3), pooling="avg")
    channels = {"vgg16": 512, "mobilenet_v2": 1280, "squeezenet": 512}[name]
    assert (model.name, model.count_params(), model.output_shape) == (name, PARAMETERS[name], (None, channels))


def test_squeezenet_takes_images_of_any_size() -> None:
    import keras

    model = backbone("squeezenet")
    assert [model(np.zeros((1, size, size, 3), np.float32)).shape for size in (48, 65)] == [
        (1, 2, 2, 512),
        (1, 3, 3, 512),
    ]
    assert isinstance(model, keras.Model)


def test_what_is_not_known_is_told() -> None:
    with pytest.raises(ConfigError, match=r"no backbone `vgg61`: did you mean .*`vgg16`"):
        backbone("vgg61")
    with pytest.raises(ConfigError, match="squeezenet is known without its top only"):
        backbone("squeezenet", top=True)


def test_addresses_are_those_of_keras() -> None:
    """As they stand in the package that is installed."""
    import inspect

    import keras

    for name in CATALOGUE.keys() - {"squeezenet"}:
        entry = CATALOGUE[name]
        module = inspect.getmodule(getattr(getattr(keras.applications, entry.module), entry.maker))
        source = inspect.getsource(module)  # type: ignore[arg-type]
        for top in (False, True):
            file, md5 = file_of(name, top=top)
            assert file.url.startswith("https://storage.googleapis.com/tensorflow/keras-applications/")
            assert md5 is None if name == "mobilenet_v2" else str(md5) in source, name
            if name in ("vgg16", "vgg19", "xception", "inception_v3", "densenet121"):
                assert file.name in source


@pytest.mark.parametrize("name", ["vgg16", "xception", "resnet50", "squeezenet"])
def test_inputs_are_prepared_in_the_graph_that_is_saved(name: str, tmp_path: Path) -> None:
    import keras

    given = keras.Input((4, 4, 3))
    model = keras.Model(given, prepared(name, given))
    model.save(tmp_path / "model.keras")
    images = np.random.default_rng(0).integers(0, 255, (2, 4, 4, 3)).astype(np.float32)
    expected = getattr(keras.applications, CATALOGUE[name].module).preprocess_input(images.copy())
    assert np.abs(keras.saving.load_model(tmp_path / "model.keras")(images).numpy() - expected).max() == 0
    assert abs(expected.mean()) < 60


class TestWeights:
    def mirrored(self, name: str, content: bytes, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let a mirror hold this file of a network's weights."""
        folder.mkdir()
        (folder / file_of(name)[0].name).write_bytes(content)
        monkeypatch.setenv("HEADRACE_MIRROR", str(folder))

    def test_are_those_that_keras_pins(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.mirrored("vgg16", b"made up", tmp_path / "mirror", monkeypatch)
        md5 = hashlib.md5(b"made up", usedforsecurity=False).hexdigest()
        with pytest.raises(DataError, match=rf"(?s)not those of Keras.*6d6bbae143d832006294945121d1f1fc.*{md5}"):
            imagenet("vgg16")
        monkeypatch.setitem(CATALOGUE, "vgg16", replace(CATALOGUE["vgg16"], notop_md5=md5))
        assert imagenet("vgg16").read_bytes() == b"made up"

    def test_come_with_the_backbone_on_request(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """In the layout of groups that Keras 1 wrote."""
        import h5py  # type: ignore[import-untyped]

        random = np.random.default_rng(0)
        path = tmp_path / "made.h5"
        expected: dict[str, list[Any]] = {}
        with h5py.File(path, "w") as file:
            named = [layer for layer in backbone("squeezenet").layers if not layer.name.startswith("input")]
            file.attrs["layer_names"] = [layer.name.encode() for layer in named]
            for layer in named:
                group = file.create_group(layer.name)
                values = [random.normal(size=weight.shape).astype(np.float32) for weight in layer.weights]
                names = [f"{layer.name}_{part}".encode() for part, _ in zip("Wb", values, strict=False)]
                group.attrs["weight_names"] = names
                for given, value in zip(names, values, strict=True):
                    group[given.decode()] = value
                expected[layer.name] = values
        content = path.read_bytes()
        pinned = File(url=f"https://none.invalid/{path.name}", sha256=hashlib.sha256(content).hexdigest())
        monkeypatch.setitem(CATALOGUE, "squeezenet", replace(CATALOGUE["squeezenet"], notop=pinned))
        self.mirrored("squeezenet", content, tmp_path / "mirror", monkeypatch)
        model = backbone("squeezenet", (32, 32, 3), weights="imagenet")
        for layer in model.layers:
            for found, value in zip(layer.get_weights(), expected.get(layer.name, []), strict=True):
                assert (found == value).all()

    def test_of_other_layers_are_refused(self, tmp_path: Path) -> None:
        backbone("squeezenet").save_weights(tmp_path / "squeezenet.weights.h5")
        with pytest.raises(DataError, match=r"squeezenet\.weights\.h5 don't fit `mobilenet_v2`"):
            load(backbone("mobilenet_v2", (32, 32, 3)), tmp_path / "squeezenet.weights.h5")

    @pytest.mark.real_data
    def test_of_squeezenet_fit_and_see_edges(self, mirror: Path) -> None:
        model = backbones.backbone("squeezenet", (64, 64, 3), weights="imagenet")
        kernel = model.get_layer("conv1").get_weights()[0]
        assert (kernel.shape, bool(np.isfinite(kernel).all())) == ((3, 3, 3, 64), True)
        # What is drawn varies as much in every filter; what was learned does not.
        spread = kernel.std(axis=(0, 1, 2))
        assert spread.max() > 3 * spread.min()


SEEN = '''
"""Images seen through a network that has learned on others."""

import numpy as np

from headrace import Feature, Pipeline, Source, Train, Variant


def read(raw):
    from headrace.readers.batches import batches

    random = np.random.default_rng(0)

    def split(rows):
        price = random.normal(size=rows).astype(np.float32)
        light = 100 + 40 * price[:, None, None, None] + random.integers(0, 30, (rows, 40, 40, 3))
        return list(batches({"image": light.clip(0, 255).astype(np.uint8), "price": price}, 16))

    return {"train": split(40), "test": split(12)}


def preprocess(statistics):
    """What the network sees in an image, computed once."""
    import tensorflow as tf

    from headrace.engine.backbones import backbone, prepared

    base = backbone("squeezenet", (40, 40, 3), weights="imagenet", pooling="avg")

    def features(batch):
        images = prepared("squeezenet", tf.cast(batch["image"], tf.float32))
        seen = {"features": base(images, training=False)}
        return seen | {name: batch[name] for name in ("price",) if name in batch}

    return features


def model(inputs):
    import keras

    given = keras.Input(inputs["features"].shape, name="features")
    return keras.Model(given, keras.layers.Dense(1, name="price")(given))


PIPELINE = Pipeline(
    name="seen",
    title="Seen",
    task="regression",
    book="none",
    expect="nothing",
    sources={
        "made": Source(
            title="Made up",
            features={"image": Feature(shape=(40, 40, 3), dtype="uint8"), "price": Feature(role="target")},
            read=read,
            twin=lambda raw, seed: (raw / "nothing").write_text(""),
        ),
    },
    preprocess=preprocess,
    model=model,
    variants={"only": Variant(train=Train(epochs=3))},
)
'''


@pytest.mark.slow
@pytest.mark.real_data
def test_features_of_a_frozen_backbone_are_records_and_serve_with_it(
    mirror: Path, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tensorflow as tf

    (project / "pipelines" / "seen.py").write_text(SEEN)
    job, stages = resolve("seen", data="synthetic"), Stages.plain()
    raw = stages.download(job)
    seen = stages.preprocess(job, raw)
    image = next(iter(job.origin.read(raw.path)["test"])).column("image").flatten().to_numpy().reshape(-1, 40, 40, 3)
    base = backbone("squeezenet", (40, 40, 3), weights="imagenet", pooling="avg")
    expected = base(prepared("squeezenet", tf.cast(image, tf.float32)), training=False).numpy()
    found = np.asarray(arrays(seen.path, "test")["features"])
    assert found.shape == (12, 512)
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()

    model = stages.train(job, seen)
    bundle = stages.export(job, raw, seen, model)
    assert bundle.json("bundle.json")["gate"]["passed"]
    served = tf.saved_model.load(str(bundle.path / "saved_model")).signatures["serving_default"](
        image=tf.constant(image)
    )
    answers = keras_answers(model, found)
    assert np.abs(served["price"].numpy() - answers).max() <= 1e-4 * np.abs(answers).max()

    monkeypatch.setenv("HEADRACE_HOME", str(tmp_path / "other"))
    assert stages.preprocess(job, stages.download(job)).digest == seen.digest


def keras_answers(model: Artifact, features: Any) -> Any:
    import keras

    return keras.saving.load_model(model.path / "model.keras")(features).numpy()
