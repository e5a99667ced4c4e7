"""What is wrong with an installation and its home is found, told with a remedy, and mended where that loses nothing."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from headrace import doctoring, projects, registry, running
from headrace.__main__ import main
from headrace.artifacts import Artifact, home, locked, read_json, write_json
from headrace.chain import Stages, standard
from headrace.doctoring import CHECKS, Finding, examine
from headrace.jobs import resolve


def findings(check: str, *, fix: bool = False) -> list[Finding]:
    """What one of the checks finds."""
    found = list(CHECKS[check](fix))
    assert {finding.check for finding in found} == {check}
    return found


def only(check: str, *, fix: bool = False) -> Finding:
    (finding,) = findings(check, fix=fix)
    return finding


@pytest.fixture
def made(project: Path, stages: Stages) -> dict[str, Artifact]:
    """The artifacts of a run by their nodes."""
    return {artifact.node: artifact for artifact in standard(resolve("tiny"), stages)}


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Pretend that a package has another version: `installed(sqlalchemy="2.1.0")`; None for absent."""

    def pretend(**versions: str | None) -> None:
        real = importlib.metadata.version

        def version(name: str) -> str:
            if name.lower() in versions:
                pretended = versions[name.lower()]
                if pretended is None:
                    raise importlib.metadata.PackageNotFoundError(name)
                return pretended
            return real(name)

        monkeypatch.setattr(importlib.metadata, "version", version)

    return pretend


class TestInstallation:
    def test_is_fine_here(self) -> None:
        for check in ("python", "requirements"):
            assert only(check).state == "ok"

    def test_of_an_old_python_is_told(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(doctoring.sys, "version_info", (3, 9, 1, "final", 0))
        finding = only("python")
        assert (finding.state, finding.remedy) == ("trouble", "make setup PYTHON=python3.11")

    @pytest.mark.parametrize(
        ("package", "version", "words"),
        [
            ("sqlalchemy", "2.1.9", "with 2.1 schedules silently never fire"),
            ("fastapi", "0.155.0", "later ones answer Prefect's own calls with 422"),
            ("keras", "3.16.0", "the measured behaviour of one minor version"),
            ("tensorflow", None, "tensorflow is not installed"),
        ],
    )
    def test_with_a_version_that_breaks_things_is_told_with_the_reason(
        self, installed: Callable[..., None], package: str, version: str | None, words: str
    ) -> None:
        installed(**{package: version})
        finding = only("requirements")
        assert finding.state == "trouble"
        assert words in finding.found
        assert finding.remedy == "make setup"

    def test_needs_no_prefect(self, installed: Callable[..., None]) -> None:
        installed(prefect=None, fastapi=None, sqlalchemy=None)
        assert only("requirements").state == "ok"

    def test_that_is_not_as_locked_is_listed(self, project: Path) -> None:
        click = importlib.metadata.version("click")
        lines = [f"click=={click} \\", "    --hash=sha256:00", "rich==1.0 \\", "nothing-such==1 ; python_version < '3'"]
        (project / "requirements.lock").write_text("\n".join(lines))
        finding = only("lock")
        assert finding.state == "trouble"
        assert finding.found == f"rich {importlib.metadata.version('rich')} instead of 1.0"

    def test_that_is_as_locked_is_fine(self, project: Path) -> None:
        (project / "requirements.lock").write_text(f"click=={importlib.metadata.version('click')} \\\n")
        assert only("lock").found == "1 packages as locked"

    def test_outside_of_a_checkout_has_no_lock(self, project: Path) -> None:
        assert only("lock").state == "ok"

    def test_without_bytecode_is_told(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setattr(doctoring.importlib.util, "cache_from_source", lambda path: str(tmp_path / "none.pyc"))
        finding = only("bytecode")
        assert finding.state == "trouble"
        assert "compileall" in finding.remedy


class TestHome:
    def test_that_is_not_there_yet_is_fine(self) -> None:
        assert only("home").state == "ok"
        assert not home().exists()

    def test_that_can_not_be_written_is_told(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HEADRACE_HOME", "/proc/headrace")
        finding = only("home")
        assert finding.state == "trouble"
        assert "HEADRACE_HOME" in finding.remedy

    def test_on_an_object_store_is_asked_beside_the_folder(
        self, bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HEADRACE_SCRATCH", str(tmp_path / "scratch"))
        monkeypatch.setenv("HEADRACE_HOME", f"{bucket}/home")
        folder, store = findings("home")
        assert (folder.state, store.state) == ("ok", "ok")
        assert f"{bucket}/home answers" in store.found
        monkeypatch.setenv("HEADRACE_HOME", "s3://no-such-bucket/home")
        folder, store = findings("home")
        assert (folder.state, store.state) == ("ok", "trouble")
        assert "make the bucket" in store.remedy
        assert findings("registry")[0].state == "trouble"

    def test_on_a_full_disk_is_told(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(doctoring, "LEAST_ROOM", 1e18)
        assert only("home").state == "trouble"


class TestMirror:
    def test_need_not_be_set(self) -> None:
        assert only("mirror").state == "ok"

    def test_that_is_a_folder_is_fine(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HEADRACE_MIRROR", str(tmp_path))
        assert only("mirror").state == "ok"

    def test_that_is_not_there_is_told(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HEADRACE_MIRROR", str(tmp_path / "none"))
        finding = only("mirror")
        assert finding.state == "trouble"
        assert "No such file" in finding.found

    def test_that_does_not_answer_is_told(self, monkeypatch: pytest.MonkeyPatch) -> None:
        # Port 9 of this machine: nobody listens, and no network is needed to learn it.
        monkeypatch.setenv("HEADRACE_MIRROR", "http://127.0.0.1:9/")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        assert only("mirror").state == "trouble"


class TestDeadRuns:
    @pytest.fixture
    def dead(self, project: Path) -> Path:
        process = {"host": os.uname().nodename, "pid": 2**22 + 1, "born": "1"}
        path = home() / "runs" / "tiny" / "20200101-000000-aaaaaa" / "run.json"
        write_json(path, {"state": "running", "process": process})
        return path

    def test_are_told_and_left_alone(self, dead: Path) -> None:
        finding = only("runs")
        assert (finding.state, finding.remedy) == ("trouble", "--fix")
        assert "tiny/20200101-000000-aaaaaa" in finding.found
        assert read_json(dead)["state"] == "running"

    def test_are_ended(self, dead: Path) -> None:
        assert only("runs", fix=True).state == "fixed"
        assert read_json(dead)["state"] == "crashed"
        assert only("runs").state == "ok"


class TestArtifacts:
    def test_that_are_whole_are_counted(self, made: dict[str, Artifact]) -> None:
        assert only("artifacts") == Finding("artifacts", "ok", f"{len(made)} folders, all whole")

    def test_that_are_damaged_are_told_and_left_alone(self, made: dict[str, Artifact]) -> None:
        (made["train"].path / "history.json").write_text("{}")
        finding = only("artifacts")
        assert finding.state == "trouble"
        assert f"tiny/train/{made['train'].path.name}: history.json was altered" in finding.found
        assert made["train"].path.is_dir()

    def test_that_are_damaged_are_removed_to_be_made_again(self, made: dict[str, Artifact], stages: Stages) -> None:
        (made["train"].path / "history.json").unlink()
        (made["export"].path / "manifest.json").unlink()
        assert [finding.state for finding in findings("artifacts", fix=True)] == ["fixed", "fixed"]
        assert not made["train"].path.exists()
        assert made["download"].path.exists()
        again = {artifact.node: artifact.state for artifact in standard(resolve("tiny"), stages)}
        assert (again["train"], again["export"], again["evaluate"]) == ("run", "run", "skipped")
        assert only("artifacts").state == "ok"


class TestUnfinishedWork:
    @pytest.fixture
    def killed(self, project: Path) -> Path:
        """The work folder of a stage that was killed."""
        script = (
            "import os, signal\n"
            "from headrace.artifacts import Place, room\n"
            "with room(Place('tiny', 'train', 'abc')) as (output, scratch):\n"
            "    (output / 'half').write_text('half')\n"
            "    (scratch / 'checkpoint').write_text('epoch 3')\n"
            "    os.kill(os.getpid(), signal.SIGKILL)\n"
        )
        assert subprocess.run([sys.executable, "-c", script], check=False).returncode == -9
        return home() / "work" / "tiny" / "train" / "abc"

    def test_is_told(self, killed: Path) -> None:
        half, begun = findings("unfinished")
        assert (half.state, begun.state) == ("trouble", "note")
        assert "the same command goes on there" in begun.remedy
        assert (killed / "output" / "half").exists()

    def test_is_cleared_of_what_nobody_reads_and_keeps_its_checkpoints(self, killed: Path) -> None:
        assert [finding.state for finding in findings("unfinished", fix=True)] == ["fixed", "note"]
        assert not (killed / "output").exists()
        assert (killed / "scratch" / "checkpoint").read_text() == "epoch 3"

    def test_is_not_what_a_process_is_at(self, killed: Path) -> None:
        with locked(killed.with_suffix(".lock")):
            assert only("unfinished", fix=True).state == "ok"
        assert (killed / "output" / "half").exists()


class TestRegistry:
    def test_that_is_whole_is_fine(self) -> None:
        registry.publish("tiny", {"saved_model.pb": b"model"}, bundle="a")
        assert only("registry").found == "1 lines, all versions whole"

    def test_with_a_damaged_version_is_told(self) -> None:
        version = registry.publish("tiny", {"saved_model.pb": b"model"}, bundle="a")
        (registry.folder("tiny", version) / "saved_model.pb").write_bytes(b"other")
        finding = only("registry")
        assert finding.state == "trouble"
        assert finding.found == "tiny version 1: saved_model.pb was altered after it was finished"
        assert "headrace registry rollback tiny" in finding.remedy


class TestServer:
    def note(self, born: str | None) -> Path:
        path = home() / "prefect" / "server.json"
        write_json(path, {"url": "http://127.0.0.1:1/api", "pid": os.getpid(), "born": born})
        return path

    def test_that_runs_is_fine(self) -> None:
        self.note(running.born(os.getpid()))
        assert only("server").found == "running at http://127.0.0.1:1/api"

    def test_that_was_killed_is_forgotten(self) -> None:
        path = self.note("1")
        assert only("server").state == "note"
        assert only("server", fix=True).state == "fixed"
        assert not path.exists()


class TestCommand:
    def test_exits_with_0_if_nothing_is_wrong(
        self, made: dict[str, Artifact], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(doctoring, "CHECKS", {name: CHECKS[name] for name in ("artifacts", "server")})
        assert main(["doctor"]) == 0
        assert "all whole" in capsys.readouterr().out

    def test_exits_with_4_if_something_is_and_with_0_once_it_is_mended(
        self, made: dict[str, Artifact], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(doctoring, "CHECKS", {"artifacts": CHECKS["artifacts"]})
        (made["train"].path / "history.json").unlink()
        assert main(["doctor"]) == 4
        assert "TROUBLE" in capsys.readouterr().out
        assert main(["doctor", "--fix"]) == 0
        assert main(["doctor"]) == 0


def test_every_trouble_comes_with_a_remedy(made: dict[str, Artifact], monkeypatch: pytest.MonkeyPatch) -> None:
    (made["train"].path / "history.json").unlink()
    monkeypatch.setenv("HEADRACE_MIRROR", "/nowhere/at/all")
    (projects.root() / "requirements.lock").write_text(json.dumps(None) + "\nclick==0.1\n")
    found: list[Any] = [finding for finding in examine() if finding.state == "trouble"]
    assert len(found) >= 3
    assert all(finding.remedy for finding in found)
