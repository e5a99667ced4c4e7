"""Each kind of model in each format. What takes long is marked slow; the quick ones make the formats of a usual run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headrace import exporting
from headrace.artifacts import Artifact
from headrace.bundling import graphs, strangers
from headrace.bundling.examples import examples_of
from headrace.bundling.text import TextReader
from headrace.errors import StageFailed
from tests.core import bundles
from tests.core.bundles import ALL, Kind

FLOAT = ("saved_model", "tflite", "onnx")
QUANTISED = ("tflite_dynamic", "tflite_float16", "tflite_int8")


def made(bundle: Artifact) -> dict[str, Any]:
    """Format → what parity says of it, if it was made; all must have passed."""
    formats = bundle.json("parity.json")["formats"]
    assert bundle.json("bundle.json")["gate"]["passed"] is True
    for name, entry in formats.items():
        if entry["problem"]:
            continue
        assert entry["passed"] is True
        assert entry["accepts_wrong_types"] == []
        assert entry["bytes"] > 0
        assert 0 < entry["milliseconds"] <= entry["milliseconds_p95"]
        if name in FLOAT:
            assert entry["relative_difference"] < 1e-4
    return {name: entry for name, entry in formats.items() if not entry["problem"]}


def lite(path: Path) -> Any:
    from ai_edge_litert.interpreter import Interpreter

    return Interpreter(str(path)).get_signature_runner("serving_default")


def once(kind: Kind, factory: pytest.TempPathFactory, **settings: Any) -> Artifact:
    """A bundle in all formats that several tests look at."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEADRACE_HOME", str(factory.mktemp("home")))
        return kind.export(factory.mktemp("made"), formats=ALL, **settings)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """Of the model of text."""
    return once(bundles.TEXT, tmp_path_factory)


@pytest.fixture(scope="module")
def recurrent(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """Of the recurrent model."""
    return once(bundles.LSTM, tmp_path_factory, max_metric_loss=0.1)


class TestTextInPreprocessing:
    def test_every_format_is_made(self, bundle: Artifact) -> None:
        assert set(made(bundle)) == set(ALL)

    def test_formats_without_text_take_what_is_prepared(self, bundle: Artifact) -> None:
        inputs = bundle.json("bundle.json")["inputs"]
        assert inputs["saved_model"] == {"kind": "raw", "why": None, "batch": None}
        assert {inputs[name]["kind"] for name in ALL if name != "saved_model"} == {"prepared"}
        assert "the input `review` of strings" in inputs["tflite"]["why"]

    def test_the_reader_feeds_tflite_from_strings(self, bundle: Artifact) -> None:
        assert bundle.json("bundle.json")["readers"] == ["review"]
        reader = TextReader.of(bundle.path / "saved_model" / "assets", "review")
        prepared = np.array(reader(examples_of(bundle)["review"]))
        expected = examples_of(bundle, "output")["label"]
        assert lite(bundle.path / "model.tflite")(review=prepared)["label"] == pytest.approx(expected, rel=1e-4)

    def test_labels_and_vocabulary_travel_as_assets(self, bundle: Artifact) -> None:
        assets = bundle.path / "saved_model" / "assets"
        assert (assets / "labels_label.txt").read_text() == "calm\nwild\nodd\n"
        assert "film" in (assets / "review_vocabulary.txt").read_text().splitlines()
        assert bundle.json("bundle.json")["assets"] == ["labels_label.txt", "review_vocabulary.txt", "text.json"]
        assert bundle.json("bundle.json")["classes"] == {"label": ["calm", "wild", "odd"]}

    def test_the_representative_set_is_of_the_training_split_and_recorded(self, bundle: Artifact) -> None:
        said = bundle.json("representative.json")
        assert (said["split"], said["inputs"], said["examples"]) == ("train", "prepared", 16)
        assert sorted(set(said["rows"])) == said["rows"]
        assert max(said["rows"]) < 60
        assert len(said["sha256"]) == 64

    def test_litert_and_onnx_runtime_are_tried_without_tensorflow(self, bundle: Artifact) -> None:
        memory = {name: entry["peak_bytes"] for name, entry in made(bundle).items()}
        assert memory["saved_model"] > 250e6
        assert all(bytes_ < 200e6 for name, bytes_ in memory.items() if name != "saved_model")

    @pytest.mark.slow
    def test_tensorflows_own_command_shows_and_runs_it(self, bundle: Artifact, tmp_path: Path) -> None:
        command = [str(Path(sys.executable).with_name("saved_model_cli"))]
        where = ["--dir", str(bundle.path / "saved_model")]
        shown = subprocess.run([*command, "show", *where, "--all"], capture_output=True, text=True, check=True).stdout
        assert "inputs['review'] tensor_info:\n        dtype: DT_STRING" in shown
        assert "outputs['label'] tensor_info" in shown
        texts = examples_of(bundle)["review"][:3].tolist()
        how = ["--tag_set", "serve", "--signature_def", "serving_default"]
        subprocess.run(
            [*command, "run", *where, *how, "--input_exprs", f"review={texts!r}", "--outdir", str(tmp_path)],
            capture_output=True,
            check=True,
        )
        expected = examples_of(bundle, "output")["label"][:3]
        assert np.load(tmp_path / "label.npy") == pytest.approx(expected, rel=1e-5)


class TestSeveralInputsAndOutputs:
    def test_have_their_names_in_every_format(self, tmp_path: Path) -> None:
        import keras

        bundle = bundles.TICKETS.export(tmp_path, formats=("saved_model", "tflite", "onnx"))
        formats = made(bundle)
        assert set(formats) == {"saved_model", "tflite", "onnx"}
        described = bundle.json("bundle.json")
        assert list(described["signature"]["inputs"]) == ["title", "tags"]
        assert described["signature"]["outputs"] == {
            "priority": {"dtype": "float32", "shape": []},
            "department": {"dtype": "float32", "shape": [3]},
        }
        assert described["readers"] == ["title"]
        reader = TextReader.of(bundle.path / "saved_model" / "assets", "title")
        raw, expected = examples_of(bundle), examples_of(bundle, "output")
        title = np.array(reader(raw["title"]), np.int64)
        answers = lite(bundle.path / "model.tflite")(title=title, tags=raw["tags"])
        model = keras.saving.load_model(bundle.path / "model.keras")
        priority, department = model.predict([title, raw["tags"]], verbose=0)
        for one, other in ((answers["department"], department), (answers["priority"], priority)):
            assert one == pytest.approx(other, rel=1e-4)
        assert department == pytest.approx(expected["department"], rel=1e-4)


class TestRaggedInputs:
    @pytest.mark.slow
    def test_are_sent_with_their_lengths(self, tmp_path: Path) -> None:
        import tensorflow as tf

        bundle = bundles.RAGGED.export(tmp_path)
        formats = made(bundle)
        assert bundle.json("bundle.json")["signature"]["inputs"] == {
            "tokens": {"dtype": "int64", "shape": [None]},
            "tokens_length": {"dtype": "int64", "shape": []},
        }
        assert (formats["tflite"]["inputs"], formats["tflite"]["batch"]) == ("prepared", 1)
        loaded = tf.saved_model.load(str(bundle.path / "saved_model"))
        serve = loaded.signatures["serving_default"]
        # Whatever stands behind the end of an example is not looked at.
        one, other = (
            serve(tokens=tf.constant([[3, 4, filler]], tf.int64), tokens_length=tf.constant([2], tf.int64))["label"]
            for filler in (0, 17)
        )
        assert np.array_equal(one, other)


class TestRecurrentModels:
    @pytest.mark.slow
    def test_every_format_is_made(self, recurrent: Artifact) -> None:
        assert set(made(recurrent)) == set(ALL)

    @pytest.mark.slow
    def test_tflite_takes_one_example_at_a_time_unless_steps_are_written_out(self, recurrent: Artifact) -> None:
        inputs = recurrent.json("bundle.json")["inputs"]
        assert inputs["tflite"] == {"kind": "raw", "why": "it loops over steps", "batch": 1}
        assert inputs["tflite_int8"] == {"kind": "raw", "why": "steps are written out one by one", "batch": None}
        assert inputs["onnx"]["batch"] is None


@pytest.mark.slow
@pytest.mark.parametrize("name", ["DENSE", "CONVNET", "FILES", "SEGMENTATION", "TRANSLATION", "DECODER", "GENERATOR"])
def test_every_format_of_each_kind_is_made_and_agrees(name: str, tmp_path: Path) -> None:
    kind: Kind = getattr(bundles, name)
    # Untrained models decide by hairs.
    bundle = kind.export(tmp_path, formats=ALL, max_metric_loss=0.2, min_agreement=0.8)
    assert set(made(bundle)) == set(ALL)


def test_an_image_is_taken_as_the_bytes_of_its_file(tmp_path: Path) -> None:
    bundle = bundles.FILES.export(tmp_path)
    assert set(made(bundle)) == {"saved_model", "tflite"}
    assert bundle.json("bundle.json")["signature"]["inputs"] == {"image": {"dtype": "string", "shape": []}}
    assert examples_of(bundle)["image"][0].startswith(b"\xff\xd8"), "a JPEG"
    assert examples_of(bundle, "prepared")["image"].shape == (24, 12, 12, 3)
    assert "DecodeImage" in bundle.json("bundle.json")["inputs"]["tflite"]["why"]


def test_a_model_that_takes_what_no_record_holds_is_tried_on_inputs_that_are_drawn(tmp_path: Path) -> None:
    bundle = bundles.LATENT.export(tmp_path)
    assert set(made(bundle)) == {"saved_model", "tflite"}
    described = bundle.json("bundle.json")
    assert described["drawn"] is True
    assert described["signature"]["inputs"] == {"z": {"dtype": "float32", "shape": [4]}}
    assert [said["shape"] for said in described["signature"]["outputs"].values()] == [[8, 8, 1]]
    assert examples_of(bundle)["z"].std() == pytest.approx(1, abs=0.3)


class TestCompression:
    @pytest.mark.slow
    def test_pruned_and_clustered_files_are_smaller_when_zipped_and_the_cost_is_told(self, tmp_path: Path) -> None:
        plain = bundles.CONVNET.export(tmp_path / "plain", formats=("tflite_int8",), prune=0.001, min_agreement=0.5)
        small = bundles.CONVNET.export(
            tmp_path / "small", formats=("tflite_int8",), prune=0.5, cluster=4, min_agreement=0, max_metric_loss=9
        )
        sizes = [b.json("parity.json")["formats"]["tflite_int8"]["zipped_bytes"] for b in (plain, small)]
        assert sizes[1] < sizes[0]
        said = small.json("parity.json")
        assert said["compression"]["prune"] == 0.5
        words = "before quantisation 50% of each kernel pruned and 4 different weights in each kernel: accuracy"
        assert words in said["gate"]["reason"]
        # What is not quantised keeps its weights.
        assert said["formats"]["saved_model"]["relative_difference"] < 1e-5


def altered_scale(path: Path) -> None:
    """Let the last weights of a quantised file mean something else."""
    from tensorflow.lite.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model(str(path))
    (graph,) = model.subgraphs
    kernels = [
        t for t in graph.tensors if t.type == 9 and len(t.shape) == 2 and model.buffers[t.buffer].data is not None
    ]
    kernels[-1].quantization.scale = [4 * value for value in kernels[-1].quantization.scale]
    flatbuffer_utils.write_model(model, str(path))


def spoilt(monkeypatch: pytest.MonkeyPatch, name: str, spoil: Any) -> None:
    """Spoil a format after it was made, before it is tried in its own process."""
    run = strangers._run

    def between(folder: Path, plan: Any) -> str:
        for step in plan["steps"]:
            if (step["do"], step["format"]) == ("check", name):
                spoil(Path(step["path"]))
        return run(folder, plan)

    monkeypatch.setattr(strangers, "_run", between)


class TestBrokenOnPurpose:
    def test_a_wrong_scale_in_int8_is_caught(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        spoilt(monkeypatch, "tflite_int8", altered_scale)
        bundle = bundles.DENSE.export(tmp_path, formats=("tflite_int8",))
        gate = bundle.json("bundle.json")["gate"]
        assert gate["passed"] is False
        assert bundle.json("parity.json")["formats"]["tflite_int8"]["passed"] is False
        assert "quantised: tflite_int8 a mean difference of" in gate["reason"]
        assert bundle.json("parity.json")["formats"]["saved_model"]["passed"] is True

    def test_a_missing_asset_is_caught(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        spoilt(monkeypatch, "saved_model", lambda path: (path / "assets" / "review_vocabulary.txt").unlink())
        gate = bundles.TEXT.export(tmp_path, formats=("saved_model",)).json("bundle.json")["gate"]
        assert gate["passed"] is False
        assert (
            "saved_model can't be made: FileNotFoundError: its asset review_vocabulary.txt is missing" in gate["reason"]
        )

    @pytest.mark.slow
    def test_weights_altered_in_the_file_are_caught(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def altered(path: Path) -> None:
            data = path.joinpath("variables", "variables.data-00000-of-00001")
            content = bytearray(data.read_bytes())
            content[40] ^= 0xFF
            data.write_bytes(content)

        spoilt(monkeypatch, "saved_model", altered)
        gate = bundles.DENSE.export(tmp_path, formats=("saved_model",)).json("bundle.json")["gate"]
        assert gate["passed"] is False

    def test_a_table_that_cant_be_found_stops_it_with_a_remedy(self, tmp_path: Path) -> None:
        import dataclasses

        kind = dataclasses.replace(bundles.TEXT, preprocess=hidden)
        with pytest.raises(StageFailed, match="a table or a variable that can't be saved with it") as caught:
            kind.export(tmp_path)
        assert "refer to it" in str(caught.value)

    @pytest.mark.slow
    def test_a_package_that_is_missing_is_named(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        without = Path(exporting.__file__).with_name("serving_check.py").read_text()
        (tmp_path / "child.py").write_text(without.replace('_optional("tf2onnx")', '_optional("tf2onnx_is_not_there")'))
        monkeypatch.setattr(strangers.serving_check, "__file__", str(tmp_path / "child.py"))
        bundle = bundles.DENSE.export(tmp_path / "bundle", formats=("onnx",))
        problem = bundle.json("parity.json")["formats"]["onnx"]["problem"]
        assert problem == "tf2onnx_is_not_there is not installed: pip install headrace[onnx]"
        assert bundle.json("bundle.json")["gate"]["passed"] is True
        assert bundle.json("bundle.json")["formats"] == ["keras", "saved_model"]


_TABLES: list[Any] = []


class _Locked:
    """Holds a table where no attribute shows it."""

    __slots__ = ("place",)

    def __init__(self, table: Any) -> None:
        _TABLES.append(table)
        self.place = len(_TABLES) - 1

    def __call__(self, words: Any) -> Any:
        return vars(sys.modules[__name__])["_TABLES"][self.place](words)


def hidden(statistics: Any, learned: Any) -> Any:
    """Vectorised text, by a layer that nothing leads to."""
    import keras

    layer = keras.layers.TextVectorization(output_sequence_length=12, vocabulary=["film", "quiet"])
    locked = _Locked(layer)
    return lambda batch: {**batch, "review": locked(batch["review"])}


@pytest.mark.slow
def test_equal_inputs_give_an_equal_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digests = []
    for name in ("first", "second"):
        monkeypatch.setenv("HEADRACE_HOME", str(tmp_path / name / "home"))
        bundle = bundles.TICKETS.export(tmp_path / name, formats=ALL, max_metric_loss=0.5, min_agreement=0.5)
        files = bundle.json("manifest.json")["files"]
        digests.append({path: entry["sha256"] for path, entry in files.items() if "volatile" not in entry})
    assert digests[0] == digests[1]
    assert {"model_int8.tflite", "model.onnx", "examples.npz", "saved_model/assets/text.json"} <= set(digests[0])


def test_variables_of_one_name_are_kept_in_the_order_of_their_use(tmp_path: Path) -> None:
    import tensorflow as tf

    from headrace.records.inputs import Info
    from headrace.spec import Feature

    tables = [tf.Variable(float(i), name="same", trainable=False) for i in range(6)]

    def prepare(batch: Any) -> Any:
        x = batch["x"]
        for table in tables:
            x = x * 2 + table
        return {"x": x}

    import keras

    given = keras.Input((2,), name="x")
    model = keras.Model(given, keras.layers.Dense(1)(given))
    features = {"x": Feature(shape=(2,)), "y": Feature(shape=(1,), role="target")}
    info = Info("w", "s", "synthetic", features, {}, {})
    made_ = graphs.graph(prepare, {"x": features["x"]}, model, info)
    assert [float(variable.numpy()) for variable in made_.module.others] == [0, 1, 2, 3, 4, 5]
