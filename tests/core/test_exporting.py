from __future__ import annotations

import ast
import inspect
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headrace import exporting, registry, serving_check
from headrace.artifacts import Artifact
from headrace.bundling import strangers
from headrace.errors import StageFailed
from headrace.exporting import export
from headrace.jobs import Job
from headrace.preprocessing import preprocess
from headrace.publishing import publish
from tests.core.making import artifact, trained, twin

Factory = Callable[..., Job]
Export = Callable[..., Artifact]

EXAMPLES = 20


@pytest.fixture
def asked(job: Factory) -> Job:
    return job(overrides={"export.examples": EXAMPLES})


@pytest.fixture
def given(asked: Job, tmp_path: Path) -> tuple[Artifact, Artifact]:
    """Raw data and records of the twin."""
    raw = twin(asked, tmp_path / "raw")
    return raw, preprocess(asked, raw)


@pytest.fixture
def exported(asked: Job, given: tuple[Artifact, Artifact], tmp_path: Path) -> Export:
    """Export a model of 13 prepared features with these layers between input and output."""

    def run(*layers: Callable[[Any], Any], **overrides: Any) -> Artifact:
        chosen = asked.model_copy(
            update={
                "settings": asked.settings.model_copy(
                    update={"export": asked.settings.export.model_copy(update=overrides)}
                )
            }
        )
        return export(chosen, *given, trained(dense(*layers), tmp_path / "model"))

    return run


def dense(*layers: Callable[[Any], Any]) -> Any:
    import keras

    # As in training: names of layers count up in a process, and stand in the file.
    keras.backend.clear_session(free_memory=False)
    keras.utils.set_random_seed(3)
    x = given = keras.Input((13,), name="features")
    for layer in (*layers, keras.layers.Dense(8, activation="relu"), keras.layers.Dense(1, name="price")):
        x = layer(x)
    return keras.Model(given, x)


def contents(bundle: Artifact) -> dict[str, str]:
    """Name of a file → digest of its bytes, of those that count."""
    return {
        name: entry["sha256"]
        for name, entry in bundle.json("manifest.json")["files"].items()
        if "volatile" not in entry
    }


def serve(bundle: Artifact, features: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    import tensorflow as tf

    loaded = tf.saved_model.load(str(bundle.path / "saved_model"))
    return loaded.signatures["serving_default"](features=tf.constant(features))["price"].numpy()


def with_child(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: str) -> None:
    """Put other code in the place of the script that checks the formats."""
    (tmp_path / "child.py").write_text(code)
    monkeypatch.setattr(serving_check, "__file__", str(tmp_path / "child.py"))


class TestBundle:
    def test_it_takes_raw_features_and_agrees_with_the_keras_model(self, exported: Export, asked: Job) -> None:
        import keras
        from ai_edge_litert.interpreter import Interpreter

        bundle = exported()
        with np.load(bundle.path / "examples.npz", allow_pickle=False) as file:
            raw, expected = file["raw/features"], file["output/price"]
        assert raw.shape == (EXAMPLES, 13)
        assert raw.max() > 100, "raw features are not standardised"

        prepared = (raw - raw_statistics(asked).mean) / raw_statistics(asked).scale
        model = keras.saving.load_model(bundle.path / "model.keras")
        assert expected == pytest.approx(model.predict(prepared, verbose=0), rel=1e-4, abs=1e-4)
        assert serve(bundle, raw) == pytest.approx(expected, rel=1e-4, abs=1e-4)
        lite = Interpreter(str(bundle.path / "model.tflite")).get_signature_runner("serving_default")
        assert lite(features=raw)["price"] == pytest.approx(expected, rel=1e-4, abs=1e-4)

        parity = bundle.json("parity.json")
        assert set(parity["formats"]) == {"saved_model", "tflite"}
        for entry in parity["formats"].values():
            assert entry["passed"] is True
            assert entry["problem"] is None
            assert 0 <= entry["mean_difference"] <= entry["max_difference"] < 1e-4
            assert entry["relative_difference"] < 1e-5
            assert entry["bytes"] > 1000
            assert entry["milliseconds"] > 0
        described = bundle.json("bundle.json")
        assert described["gate"] == parity["gate"]
        assert described["gate"]["passed"] is True
        assert f"on {EXAMPLES} test examples" in described["gate"]["reason"]
        assert described["formats"] == ["keras", "saved_model", "tflite"]
        assert described["signature"] == {
            "inputs": {"features": {"dtype": "float32", "shape": [13]}},
            "outputs": {"price": {"dtype": "float32", "shape": [1]}},
        }

    def test_an_unchanged_model_gives_an_unchanged_bundle(
        self, asked: Job, given: tuple[Artifact, Artifact], tmp_path: Path
    ) -> None:
        import keras

        # Many variables, since it takes but two of them in an order of chance to change the bytes.
        model = trained(dense(*[keras.layers.Dense(13, name=f"hidden_{i}") for i in range(6)]), tmp_path / "model")
        first = export(asked, *given, model)
        before = contents(first)
        shutil.rmtree(first.path)
        again = export(asked, *given, model)
        assert contents(again) == before
        assert (again.state, again.digest) == ("run", first.digest)

    def test_what_acts_in_training_only_does_not_act_in_serving(self, exported: Export) -> None:
        import keras

        bundle = exported(
            keras.layers.Reshape((13, 1, 1)),
            keras.layers.RandomFlip("vertical", seed=1),
            keras.layers.Flatten(),
            keras.layers.Dropout(0.5, seed=1),
        )
        assert bundle.json("bundle.json")["gate"]["passed"] is True
        assert bundle.json("bundle.json")["formats"] == ["keras", "saved_model", "tflite"]
        many = np.tile(np.linspace(0, 400, 13, dtype=np.float32), (64, 1))
        assert len(np.unique(serve(bundle, many))) == 1

    def test_raw_data_that_are_not_those_of_the_records_stop_it(
        self, asked: Job, given: tuple[Artifact, Artifact], tmp_path: Path
    ) -> None:
        raw, records = given
        with np.load(raw.path / "boston_housing.npz") as file:
            few = {name: file[name][:20] for name in file.files}
        np.savez(raw.path / "boston_housing.npz", **few)
        with pytest.raises(StageFailed, match="not those of the records"):
            export(asked, raw, records, trained(dense(), tmp_path / "model"))


def raw_statistics(job: Job) -> Any:
    from headrace.artifacts import home, read_json
    from headrace.describing.summaries import Statistics

    (path,) = (home() / "artifacts" / job.workload / "preprocess").glob("*/statistics.json")
    return Statistics.from_json(read_json(path))["features"]


class TestBrokenExports:
    def test_weights_altered_after_training_are_caught_and_never_published(
        self,
        exported: Export,
        asked: Job,
        given: tuple[Artifact, Artifact],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        write = exporting.write_saved_model

        def altered(job: Job, records: Artifact, info: Any, model: Any, *where: Any) -> Any:
            model.layers[-1].kernel.assign(model.layers[-1].kernel * 1.01)
            return write(job, records, info, model, *where)

        monkeypatch.setattr(exporting, "write_saved_model", altered)
        bundle = exported()
        gate = bundle.json("bundle.json")["gate"]
        assert gate["passed"] is False
        assert "saved_model 1.0e-02, tflite 1.0e-02 (allowed: 0.0001)" in gate["reason"]

        (tmp_path / "evaluation").mkdir()
        good = {"gates": [{"gate": "baseline", "passed": True, "reason": "better"}]}
        publication = publish(asked, *given, artifact(tmp_path / "evaluation", "evaluate", evaluation=good), bundle)
        said = publication.json("publication.json")
        assert (said["verdict"], said["version"], said["blessed"]) == ("fail", None, False)
        assert said["reason"].startswith("parity: ")
        assert registry.lines() == []

    def test_a_graph_that_prepares_its_inputs_otherwise_is_caught(
        self, exported: Export, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from headrace.describing import summaries

        read = summaries.Statistics.from_json.__func__  # type: ignore[attr-defined]

        def shifted(cls: Any, value: Any) -> Any:
            found = read(cls, value)
            found["features"].mean[5] += 1
            return found

        monkeypatch.setattr(summaries.Statistics, "from_json", classmethod(shifted))
        assert exported().json("bundle.json")["gate"]["passed"] is False

    def test_something_random_left_in_the_graph_is_caught(self, exported: Export) -> None:
        import keras

        @keras.saving.register_keras_serializable("tests")
        class Sampling(keras.layers.Layer):
            """Adds noise, whatever it is called for."""

            def call(self, x: Any) -> Any:
                return x + keras.random.normal((13,), stddev=1e-3)

        bundle = exported(Sampling(), tolerance=1.0)
        gate = bundle.json("bundle.json")["gate"]
        assert gate["passed"] is False
        assert "saved_model gives two answers to the same examples" in gate["reason"]

    def test_a_format_that_cant_be_made_says_why_and_the_others_stand(self, exported: Export) -> None:
        import keras

        @keras.saving.register_keras_serializable("tests")
        class ByText(keras.layers.Layer):
            """Writes numbers down and reads them again: strings are beyond TFLite."""

            def call(self, x: Any) -> Any:
                import tensorflow as tf

                return tf.ensure_shape(tf.strings.to_number(tf.strings.lower(tf.strings.as_string(x))), (None, 13))

        bundle = exported(ByText())
        parity = bundle.json("parity.json")
        assert parity["formats"]["saved_model"]["passed"] is True
        assert parity["formats"]["tflite"]["passed"] is False
        assert "StringLower" in parity["formats"]["tflite"]["problem"]
        assert "tflite can't be made: it has operations that the format lacks" in parity["gate"]["reason"]
        assert parity["gate"]["passed"] is True
        assert bundle.json("bundle.json")["formats"] == ["keras", "saved_model"]
        assert not (bundle.path / "model.tflite").exists()


GOOD_SAVED_MODEL = """
import json, sys
import numpy as np
plan = json.load(open(sys.argv[1]))
expected = np.load(plan["examples"])["output/price"]
found = {"problem": None, "bytes": 1, "milliseconds": 1, "accepts_wrong_types": []}
if plan["steps"][0]["format"] == "saved_model":
    np.savez("saved_model.npz", **{"together/price": expected, "again/price": expected, "alone/price": expected})
    json.dump({"check saved_model": found}, open("findings.json", "w"))
"""


class TestTroubleOfTheCheck:
    """The child process is replaced, so that it fails as converters do."""

    @pytest.mark.parametrize(
        ("end", "words"),
        [
            ("import ctypes; ctypes.string_at(0)", "the check ended with SIGSEGV"),
            ("sys.exit('out of luck')", "the check ended with exit code 1: out of luck"),
            ("pass", "the check left it out"),
        ],
    )
    def test_a_converter_that_ends_the_process_spoils_its_own_format_only(
        self, exported: Export, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, end: str, words: str
    ) -> None:
        with_child(monkeypatch, tmp_path, GOOD_SAVED_MODEL + end)
        parity = exported().json("parity.json")
        assert parity["formats"]["saved_model"]["passed"] is True
        assert parity["formats"]["tflite"]["problem"] == words
        assert parity["gate"]["passed"] is True

    def test_without_a_savedmodel_the_gate_fails(
        self, exported: Export, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        with_child(monkeypatch, tmp_path, "import os; os.abort()")
        bundle = exported()
        parity = bundle.json("parity.json")
        assert parity["gate"]["passed"] is False
        assert parity["formats"]["saved_model"]["problem"] == "the check ended with SIGABRT"
        assert parity["formats"]["tflite"]["problem"].startswith("not tried, since saved_model ended the check")
        assert bundle.json("bundle.json")["formats"] == ["keras"]

    def test_a_check_that_hangs_is_given_up(
        self, exported: Export, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        with_child(monkeypatch, tmp_path, GOOD_SAVED_MODEL + "import time; time.sleep(60)")
        monkeypatch.setattr(strangers, "TIMEOUT", 2.0)
        parity = exported().json("parity.json")
        assert parity["formats"]["tflite"]["problem"] == "the check did not finish within 4 seconds"

    @pytest.mark.parametrize(
        ("answers", "words"),
        [
            ("expected[:1]", f"should have shape ({EXAMPLES}, 1), and have shape (1, 1)"),
            ("expected * np.nan", "saved_model infinite"),
            ("np.where(np.arange(len(expected))[:, None] == 3, expected + 9, expected)", "saved_model "),
        ],
        ids=["another shape", "no numbers", "one of many examples"],
    )
    def test_answers_that_differ_fail_the_gate(
        self, exported: Export, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, answers: str, words: str
    ) -> None:
        code = GOOD_SAVED_MODEL.replace('["output/price"]', f'["output/price"]\nexpected = {answers}')
        with_child(monkeypatch, tmp_path, code)
        gate = exported(formats=("saved_model",)).json("parity.json")["gate"]
        assert gate["passed"] is False
        assert words in gate["reason"]

    def test_the_check_knows_no_project(self) -> None:
        tree = ast.parse(inspect.getsource(serving_check))
        modules = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        modules |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        roots = {name.partition(".")[0] for name in modules}
        assert roots - sys.stdlib_module_names == {"numpy", "tensorflow", "ai_edge_litert"}
