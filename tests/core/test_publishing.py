from __future__ import annotations

import itertools
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headrace import exporting, publishing, registry
from headrace.artifacts import Artifact
from headrace.errors import ConfigError
from headrace.jobs import Job, resolve
from headrace.judging.verdicts import GATES, in_words, judge, settled, waivers
from headrace.publishing import line_of, publish
from headrace.records.inputs import arrays, read_info
from headrace.spec import Publish, Waiver, Waivers
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
            "slices": [
                {
                    "by": "ZN",
                    "slice": "lower half",
                    "examples": 5,
                    "metrics": {"mae": 2.9},
                    "intervals": {"mae": [2.0, 4.0]},
                    "small": False,
                    "worse": True,
                }
            ],
        }
        np.savez(folder / "facts.npz", **{"price/absolute": np.zeros(102)})
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
        formats = {"tflite_int8": {"problem": "an operation is missing"}}
        return artifact(folder, "export", bundle=described, parity={"gate": parity, "formats": formats})

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


def job_with(job: Job, **policy: Any) -> Job:
    """The job with another policy of publishing."""
    settings = job.settings.model_copy(update={"publish": Publish.model_validate(policy)})
    return job.model_copy(update={"settings": settings})


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

    def test_the_parity_alone_says_nothing_of_quality(self) -> None:
        gates = [{"gate": "parity", "passed": True, "reason": "r"}, {"gate": "baseline", "passed": None, "reason": "r"}]
        assert judge(gates) == ("pass", "nothing but the parity could be judged")

    def test_there_are_five_gates_in_one_order(self) -> None:
        given = [PARITY, *({"gate": name, "passed": None, "reason": "r"} for name in ("blessed", "baseline"))]
        assert [gate["gate"] for gate in settled(given, Publish())] == list(GATES)
        assert settled(given, Publish())[0] == {"gate": "promise", "passed": None, "reason": "nothing is promised"}

    def test_a_gate_that_is_required_fails_if_it_can_not_be_judged(self) -> None:
        gates = settled([PARITY], Publish(require=("promise", "blessed")))
        assert gates[0]["passed"] is False
        assert judge(gates) == ("fail", "promise: not judged, and required: nothing is promised")

    def test_a_waiver_lets_a_gate_fail_and_hides_nothing(self) -> None:
        policy = Publish(
            waivers=Waivers(promise=Waiver(by="Ada", reason="known"), blessed=Waiver(by="Ada", reason="x"))
        )
        gates = settled([{"gate": "promise", "passed": False, "reason": "MAE 9"}, PARITY], policy)
        assert gates[0]["passed"] is False
        assert gates[0]["reason"] == "MAE 9"
        assert in_words(gates[0]) == "FAILED, waived by Ada: known"
        assert judge(gates) == ("pass", "promise failed, waived by Ada: known")
        needed, other = waivers(gates, policy)
        assert needed == {"gate": "promise", "by": "Ada", "reason": "known", "needed": True, "failed": ["MAE 9"]}
        assert (other["gate"], other["needed"], other["failed"]) == ("blessed", False, [])

    def test_a_waiver_of_one_gate_does_not_cover_another(self) -> None:
        policy = Publish(waivers=Waivers(promise=Waiver(by="Ada", reason="known")))
        failed = [{"gate": name, "passed": False, "reason": "worse"} for name in ("promise", "baseline")]
        assert judge(settled(failed, policy)) == ("fail", "baseline: worse")

    @pytest.mark.parametrize("given", [{}, {"by": "Ada"}, {"reason": "known"}, {"by": " ", "reason": "known"}])
    def test_a_waiver_without_name_and_reason_is_refused(self, given: dict[str, str]) -> None:
        with pytest.raises(ConfigError, match=r"publish.waivers.promise: a waiver needs a name and a reason"):
            resolve("house_prices", overrides={"publish.waivers.promise": given})

    def test_parity_can_not_be_waived(self) -> None:
        with pytest.raises(ConfigError, match=r"`publish.waivers` has no setting `parity`"):
            resolve("house_prices", overrides={"publish.waivers.parity": {"by": "Ada", "reason": "known"}})

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
        assert [entry["gate"] for entry in said["gates"]] == ["promise", "baseline", "blessed", "slices", "parity"]
        assert gate(said, "blessed") == {"gate": "blessed", "passed": None, "reason": "no version is blessed yet"}
        assert registry.blessed(LINE) == 1
        assert f"published {LINE} version 1, blessed (before: none)" in caplog.text
        files = {p.relative_to(registry.folder(LINE, 1)).as_posix() for p in registry.folder(LINE, 1).rglob("*.*")}
        assert {"saved_model.pb", "variables/variables.index", "assets.extra/model.keras"} <= files
        for name in ("model_card.md", "lineage.json", "evaluation.json", "parity.json", "statistics.json"):
            assert f"assets.extra/{name}" in files

    def test_a_waived_model_is_published_with_the_figures_that_it_failed_by(self, line: Line) -> None:
        line.publish(line.bundle(noise=0.0))
        said = {"blessed": {"by": "Ada Lovelace", "reason": "the table | was wrong"}}
        line.job = job_with(line.job, waivers=said)
        told = line.publish(line.bundle(noise=4.0))
        assert (told["verdict"], told["version"], registry.blessed(LINE)) == ("pass", 2, 2)
        assert "waived by Ada Lovelace" in told["reason"]
        failed = gate(told, "blessed")
        assert failed["passed"] is False
        assert failed["waived"] == said["blessed"]
        assert told["waivers"][0]["failed"] == [failed["reason"]]
        shown = registry.show(LINE, 2)
        assert shown["waivers"] == told["waivers"] == registry.moves(LINE)[-1]["waivers"]
        assert gate(shown["verdict"], "blessed") == failed
        card = (registry.folder(LINE, 2) / "assets.extra" / "model_card.md").read_text()
        assert "| blessed | FAILED, waived by Ada Lovelace: the table \\| was wrong | " + failed["reason"] in card
        assert "> Ada Lovelace waived the gate `blessed`: the table | was wrong" in card

    def test_a_waiver_lets_no_broken_export_through(self, line: Line) -> None:
        given = {name: {"by": "Ada", "reason": "known"} for name in ("promise", "baseline", "blessed", "slices")}
        line.job = job_with(line.job, waivers=given)
        said = line.publish(line.bundle(parity={**PARITY, "passed": False}))
        assert (said["verdict"], registry.lines()) == ("fail", [])

    def test_a_person_may_have_the_last_word(self, line: Line) -> None:
        line.job = job_with(line.job, bless=False)
        said = line.publish(line.bundle())
        assert (said["version"], said["blessed"], registry.blessed(LINE)) == (1, False, None)
        assert said["reason"] == f"published as version 1 of {LINE}, not blessed"
        registry.bless(LINE, 1)
        assert np.isfinite(line.answers()).all()

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
        assert "This was a smoke run: the model is hardly trained." in card
        assert "| MAE | 2.5 | [2.1, 2.9] | 6.5 |" in card
        assert "  - RM: rooms per dwelling, on average" in card
        assert "- Split `test`: 102 examples" in card
        assert "| baseline | passed | beats them |" in card
        assert "| parity | passed | agrees |" in card
        assert "| ZN | 1 | 5 | 2.9 | [2, 4] | worse |" in card.replace("lower half", "1")
        assert "tflite_int8 | | | | | | can't be made: an operation is missing |" in " ".join(card.split())

    def test_the_environment_is_kept_with_exact_versions(self, line: Line) -> None:
        line.publish(line.bundle())
        lines = (registry.folder(LINE, 1) / "assets.extra" / "environment.txt").read_text().splitlines()
        assert f"numpy=={np.__version__}" in lines
        assert lines[0].startswith("# Python 3.")

    def test_what_a_later_version_is_compared_by_is_kept(self, line: Line) -> None:
        line.publish(line.bundle())
        files = {path.name for path in (registry.folder(LINE, 1) / "assets.extra").iterdir()}
        assert {"facts.npz", "bundle.json", "parity.json", "verdict.json", "evaluation.json"} <= files

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


ANSWERS = """
import hashlib, sys
import tensorflow as tf
from headrace import registry

line = sys.argv[1]
loaded = tf.saved_model.load(str(registry.folder(line, registry.blessed(line))))
features = tf.reshape(tf.linspace(0.0, 400.0, 130), (10, 13))
answers = loaded.signatures["serving_default"](features=features)["price"].numpy()
print(registry.blessed(line), hashlib.sha256(answers.tobytes()).hexdigest())
"""


def test_a_process_that_serves_after_a_rollback_gives_the_same_bits_as_one_before(line: Line) -> None:
    def process(*words: str) -> list[str]:
        done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=True)
        return done.stdout.split()

    line.publish(line.bundle(noise=1.0))
    before = process("-c", ANSWERS, LINE)
    line.publish(line.bundle(noise=0.0))
    process("-m", "headrace", "registry", "rollback", LINE)
    assert registry.pointed(LINE, "previous") == 2
    assert process("-c", ANSWERS, LINE) == before


class TestTwoAtOnce:
    """Both were compared with the same older version: the second one must be compared with the first."""

    def test_a_worse_model_is_not_blessed_in_place_of_a_better_one(
        self, line: Line, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        line.publish(line.bundle(noise=4.0))
        better, worse = line.bundle(noise=0.0), line.bundle(noise=2.0)
        told: list[Any] = []
        judged = publishing._gates

        def slow(*arguments: Any) -> Any:
            gates = judged(*arguments)
            if not told:
                monkeypatch.setattr(publishing, "_gates", judged)
                told.append(line.publish(better))
            return gates

        monkeypatch.setattr(publishing, "_gates", slow)
        said = line.publish(worse)
        assert (told[0]["version"], told[0]["blessed"], told[0]["against"]) == (2, True, 1)
        assert (said["verdict"], said["version"], said["against"]) == ("fail", None, 2)
        assert "of the blessed version 2" in gate(said, "blessed")["reason"]
        assert (registry.versions(LINE), registry.blessed(LINE)) == ([1, 2], 2)


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
