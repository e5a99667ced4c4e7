from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headrace import exporting, publishing, registry
from headrace.artifacts import Artifact
from headrace.jobs import Job
from headrace.publishing import judge, line_of, publish
from headrace.records.inputs import arrays, read_info
from tests.core.making import artifact, trained, twin

Factory = Callable[..., Job]
LINE = "house_prices-synthetic-smoke"
PARITY = {"gate": "parity", "passed": True, "reason": "agrees"}


class Line:
    """A line of the registry, to which models of a given error are published."""

    def __init__(self, job: Job, tmp_path: Path) -> None:
        from headrace.preprocessing import preprocess

        self.job = job
        self.raw = twin(job, tmp_path / "raw")
        self.records = preprocess(job, self.raw)
        self._folders = (tmp_path / f"made-{i}" for i in itertools.count())

    def evaluation(self, *gates: dict[str, Any]) -> Artifact:
        folder = next(self._folders)
        folder.mkdir()
        given = gates or ({"gate": "baseline", "passed": True, "reason": "beats them"},)
        measured = {
            "primary": "mae",
            "examples": 102,
            "metrics": {"mae": 2.5},
            "intervals": {"mae": [2.1, 2.9]},
            "baselines": {"mean": {"mae": 6.5}},
            "gates": list(given),
        }
        return artifact(folder, "evaluate", evaluation=measured)

    def bundle(self, noise: float = 1.0, parity: dict[str, Any] = PARITY, output: str = "price") -> Artifact:
        """A bundle whose model is fitted by least squares, then worsened by noise in its weights."""
        folder = next(self._folders)
        model = linear(arrays(self.records.path, "train"), noise)
        trained(model, folder)
        info = read_info(self.records.path)
        exporting.write_saved_model(self.job, self.records, info, model, folder / "saved_model")
        if output != "price":
            renamed(folder / "saved_model", output)
        described = {"formats": ["keras", "saved_model"], "gate": parity, "noise": noise, "output": output}
        return artifact(folder, "export", bundle=described, parity={"gate": parity})

    def publish(self, bundle: Artifact, *gates: dict[str, Any]) -> dict[str, Any]:
        made = publish(self.job, self.raw, self.records, self.evaluation(*gates), bundle)
        return made.json("publication.json")

    def answers(self) -> np.ndarray[Any, Any]:
        """What the blessed version answers to a fixed input."""
        import tensorflow as tf

        version = registry.blessed(LINE)
        loaded = tf.saved_model.load(str(registry.folder(LINE, version)))
        features = tf.reshape(tf.linspace(0.0, 400.0, 130), (10, 13))
        return loaded.signatures["serving_default"](features=features)["price"].numpy()


def linear(train: dict[str, np.ndarray[Any, Any]], noise: float) -> Any:
    import keras

    given = keras.Input((13,), name="features")
    model = keras.Model(given, keras.layers.Dense(1, name="price")(given))
    x = np.column_stack([train["features"], np.ones(len(train["features"]))])
    weights = np.linalg.lstsq(x, train["price"], rcond=None)[0]
    weights += noise * np.random.default_rng(0).normal(size=weights.shape)
    model.set_weights([weights[:-1].astype(np.float32), weights[-1].astype(np.float32)])
    return model


def renamed(path: Path, output: str) -> None:
    """Let a SavedModel answer under another name."""
    import tensorflow as tf

    loaded = tf.saved_model.load(str(path))
    serve = loaded.signatures["serving_default"]
    signature = [tf.TensorSpec((None, 13), tf.float32, name="features")]
    loaded.again = tf.function(lambda features: {output: serve(features=features)["price"]}, input_signature=signature)
    shutil.rmtree(path)
    tf.saved_model.save(loaded, str(path), signatures={"serving_default": loaded.again})


def gate(publication: dict[str, Any], name: str) -> dict[str, Any]:
    return next(entry for entry in publication["gates"] if entry["gate"] == name)


@pytest.fixture
def line(job: Factory, tmp_path: Path) -> Line:
    return Line(job(), tmp_path)


class TestVerdict:
    @pytest.mark.parametrize(
        ("gates", "verdict"),
        [
            ([True, None], "pass"),
            ([True, False, None], "fail"),
            ([None, False], "fail"),
            ([None, None], "not judged"),
            ([], "not judged"),
        ],
    )
    def test_one_failure_fails_and_one_success_passes(self, gates: list[bool | None], verdict: str) -> None:
        assert judge([{"gate": "g", "passed": passed, "reason": "r"} for passed in gates])[0] == verdict

    def test_the_reason_names_every_gate_that_fails(self) -> None:
        gates = [{"gate": name, "passed": name == "b", "reason": f"because {name}"} for name in "abc"]
        assert judge(gates)[1] == "a: because a; c: because c"


class TestLine:
    @pytest.mark.parametrize(
        ("source", "data", "profile", "name"),
        [
            ("boston", "real", "full", "house_prices"),
            ("boston", "real", "smoke", "house_prices-smoke"),
            ("boston", "synthetic", "full", "house_prices-synthetic"),
            ("california", "real", "full", "house_prices-california"),
            ("california", "synthetic", "smoke", "house_prices-california-synthetic-smoke"),
            ("tables/My Houses.csv", "real", "full", "house_prices-own_my_houses"),
        ],
    )
    def test_made_up_and_other_data_and_smoke_runs_have_lines_of_their_own(
        self, job: Factory, source: str, data: str, profile: str, name: str
    ) -> None:
        assert line_of(job().model_copy(update={"source": source, "profile": profile}), data) == name


class TestPublication:
    def test_a_model_that_passes_is_published_and_blessed(self, line: Line, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level("INFO")
        bundle = line.bundle()
        said = line.publish(bundle)
        assert (said["verdict"], said["line"], said["version"], said["blessed"]) == ("pass", LINE, 1, True)
        assert [entry["gate"] for entry in said["gates"]] == ["baseline", "parity", "blessed"]
        assert gate(said, "blessed") == {"gate": "blessed", "passed": None, "reason": "no version is blessed yet"}
        assert registry.blessed(LINE) == 1
        assert f"published {LINE} version 1, blessed (before: none)" in caplog.text
        files = {p.relative_to(registry.folder(LINE, 1)).as_posix() for p in registry.folder(LINE, 1).rglob("*.*")}
        assert {"saved_model.pb", "variables/variables.index", "assets.extra/model.keras"} <= files
        for name in ("model_card.md", "lineage.json", "evaluation.json", "parity.json", "statistics.json"):
            assert f"assets.extra/{name}" in files

    def test_a_failed_gate_changes_nothing_in_the_registry(self, line: Line) -> None:
        line.publish(line.bundle())
        said = line.publish(line.bundle(noise=0.5), {"gate": "promise", "passed": False, "reason": "MAE 9"})
        assert (said["verdict"], said["version"], said["blessed"]) == ("fail", None, False)
        assert said["reason"] == "promise: MAE 9"
        assert (registry.versions(LINE), registry.blessed(LINE)) == ([1], 1)

    def test_an_export_that_is_not_sound_is_neither_compared_nor_published(self, line: Line) -> None:
        line.publish(line.bundle())
        said = line.publish(line.bundle(noise=0.5, parity={**PARITY, "passed": False}))
        assert said["verdict"] == "fail"
        assert gate(said, "blessed")["reason"] == "not compared: the export itself is not sound"
        assert registry.versions(LINE) == [1]

    def test_what_nobody_judged_is_not_published(self, line: Line) -> None:
        gates = {"gate": "baseline", "passed": None, "reason": "not judged"}
        said = line.publish(line.bundle(parity={**PARITY, "passed": None}), gates)
        assert (said["verdict"], said["version"]) == ("not judged", None)
        assert registry.lines() == []

    def test_the_card_says_what_a_person_must_know(self, line: Line) -> None:
        line.publish(line.bundle())
        card = (registry.folder(LINE, 1) / "assets.extra" / "model_card.md").read_text()
        assert "Column B encodes the share of Black residents" in card
        assert "The data are made up." in card
        assert "| MAE | 2.5 | [2.1, 2.9] | 6.5 |" in card
        assert "  - RM: rooms per dwelling, on average" in card

    def test_the_lineage_names_request_data_and_every_stage(self, line: Line) -> None:
        bundle = line.bundle()
        line.publish(bundle)
        lineage = registry.show(LINE, 1)["lineage"]
        assert lineage["request"]["settings"]["train"]["epochs"] == 25
        assert lineage["data"]["data"] == "synthetic"
        assert list(lineage["stages"]) == ["download", "preprocess", "evaluate", "export"]
        assert lineage["stages"]["export"]["digest"] == bundle.digest
        assert "tensorflow" in lineage["stages"]["preprocess"]["ingredients"]["versions"]


class TestBesideTheBlessed:
    def test_a_worse_model_is_refused(self, line: Line) -> None:
        line.publish(line.bundle(noise=0.0))
        said = line.publish(line.bundle(noise=4.0))
        assert said["verdict"] == "fail"
        assert gate(said, "blessed")["passed"] is False
        assert "of the blessed version 1" in gate(said, "blessed")["reason"]
        assert "on the same 102 test examples: worse" in gate(said, "blessed")["reason"]
        assert (registry.versions(LINE), registry.blessed(LINE)) == ([1], 1)

    def test_a_better_model_takes_its_place(self, line: Line) -> None:
        line.publish(line.bundle(noise=4.0))
        said = line.publish(line.bundle(noise=0.0))
        assert gate(said, "blessed")["passed"] is True
        assert (said["version"], said["against"], registry.blessed(LINE)) == (2, 1, 2)

    def test_a_model_that_is_worse_by_chance_only_takes_its_place(self, line: Line) -> None:
        line.publish(line.bundle(noise=0.0))
        said = line.publish(line.bundle(noise=0.05))
        assert gate(said, "blessed")["passed"] is True
        assert "not clearly worse" in gate(said, "blessed")["reason"]
        assert registry.blessed(LINE) == 2

    def test_another_signature_is_not_comparable(self, line: Line) -> None:
        line.publish(line.bundle(output="rent"))
        said = line.publish(line.bundle(noise=4.0))
        assert gate(said, "blessed")["passed"] is None
        assert "not comparable with the blessed version 1: the signatures differ" in gate(said, "blessed")["reason"]
        assert "rent float32" in gate(said, "blessed")["reason"]
        assert said["version"] == 2

    def test_a_damaged_version_is_not_comparable(self, line: Line) -> None:
        line.publish(line.bundle(noise=0.0))
        (registry.folder(LINE, 1) / "saved_model.pb").write_bytes(b"")
        said = line.publish(line.bundle(noise=4.0))
        assert gate(said, "blessed")["passed"] is None
        assert gate(said, "blessed")["reason"].endswith("saved_model.pb was altered after it was finished")

    def test_a_version_that_cant_be_run_is_not_comparable(self, line: Line) -> None:
        registry.publish(LINE, {"saved_model.pb": b"from another age"}, bundle="old")
        registry.bless(LINE, 1)
        said = line.publish(line.bundle())
        assert gate(said, "blessed")["passed"] is None
        assert "not comparable with the blessed version 1: it can't be run" in gate(said, "blessed")["reason"]
        assert registry.blessed(LINE) == 2

    def test_rollback_restores_the_answers_bit_for_bit(self, line: Line) -> None:
        line.publish(line.bundle(noise=1.0))
        before = line.answers()
        line.publish(line.bundle(noise=0.0))
        assert not np.array_equal(line.answers(), before)
        registry.rollback(LINE)
        assert np.array_equal(line.answers(), before)


class TestDoingItAgain:
    def test_nothing_is_done_while_the_registry_holds_the_version(self, line: Line) -> None:
        bundle, evaluation = line.bundle(), line.evaluation()
        arguments = (line.job, line.raw, line.records, evaluation, bundle)
        publish(*arguments)
        assert publish.plan(*arguments).state == "skipped"
        registry.publish(LINE, {"saved_model.pb": b"another"}, bundle="another")
        registry.bless(LINE, 2)
        assert publish(*arguments).state == "skipped"
        assert registry.blessed(LINE) == 2, "a decision of a person was taken back"

    @pytest.mark.parametrize(
        ("harm", "reason"),
        [
            (lambda version: shutil.rmtree(version), "version 1 is no longer in the registry"),
            (
                lambda version: (version / "saved_model.pb").write_bytes(b""),
                "version 1 in the registry is damaged: saved_model.pb was altered after it was finished",
            ),
        ],
        ids=["deleted", "damaged"],
    )
    def test_a_version_that_is_lost_is_published_again(
        self, line: Line, harm: Callable[[Path], None], reason: str
    ) -> None:
        arguments = (line.job, line.raw, line.records, line.evaluation(), line.bundle())
        publish(*arguments)
        harm(registry.folder(LINE, 1))
        assert publish.plan(*arguments).reason == f"made before, but {reason}"
        assert publish(*arguments).json("publication.json")["version"] == 2
        assert registry.blessed(LINE) == 2

    def test_a_refused_model_gets_another_chance_when_another_version_is_blessed(self, line: Line) -> None:
        line.publish(line.bundle(noise=3.0))
        line.publish(line.bundle(noise=0.0))
        arguments = (line.job, line.raw, line.records, line.evaluation(), line.bundle(noise=2.0))
        assert publish(*arguments).json("publication.json")["verdict"] == "fail"
        assert publish.plan(*arguments).state == "skipped"
        registry.rollback(LINE)
        reason = "made before, but it was refused beside version 2, and 1 is blessed by now"
        assert publish.plan(*arguments).reason == reason
        assert publish(*arguments).json("publication.json")["version"] == 3

    def test_a_run_that_died_between_registry_and_record_keeps_its_version(
        self, line: Line, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        arguments = (line.job, line.raw, line.records, line.evaluation(), line.bundle())

        def die(*_: object) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr(publishing, "write_json", die)
            with pytest.raises(KeyboardInterrupt):
                publish(*arguments)
        assert registry.versions(LINE) == [1]
        said = publish(*arguments).json("publication.json")
        assert (said["version"], registry.versions(LINE), registry.blessed(LINE)) == (1, [1], 1)
        assert gate(said, "blessed")["reason"] == "this model is the blessed version 1 itself"

    def test_an_equal_bundle_of_another_run_gets_no_second_version(self, line: Line) -> None:
        bundle = line.bundle()
        line.publish(bundle)
        said = line.publish(bundle, {"gate": "baseline", "passed": True, "reason": "beats them, said otherwise"})
        assert (said["version"], registry.versions(LINE)) == (1, [1])
