"""`headrace new`: a workload that runs at once, or nothing."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from headrace import projects
from headrace.__main__ import main
from headrace.errors import ConfigError, SystemTrouble
from headrace.jobs import resolve
from headrace.upkeep import scaffolding, syncing
from headrace.upkeep.scaffolding import refusal, scaffold

ROOT = Path(__file__).resolve().parents[2]

DEPLOYMENTS = """\
# A comment that stays.
definitions:
  pool: &pool {name: headrace}
  in_turn: &in_turn {limit: 1}
  drift: &drift {within: 7}
  smoke: &smoke {profile: smoke}

deployments:
  # Written by `headrace sync` from the files in pipelines/, down to the next such line.
  # Here ends what `headrace sync` writes.

  - name: mine  # so does this one
    entrypoint: flows/tiny.py:tiny
    work_pool: *pool
"""


@pytest.fixture
def application(project: Path) -> Path:
    """A project with flows and deployments."""
    (project / "flows").mkdir()
    shutil.copy(ROOT / "flows" / "__init__.py", project / "flows")
    (project / "prefect.yaml").write_text(DEPLOYMENTS)
    return project


def files(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file() and p.suffix != ".pyc"}


class TestNewWorkload:
    def test_is_found_and_resolves(self, application: Path) -> None:
        written = scaffold("wine_quality", application)
        # The other one had no flow yet.
        assert [str(path.relative_to(application)) for path in written] == [
            "pipelines/wine_quality.py",
            "flows/tiny.py",
            "flows/wine_quality.py",
            "prefect.yaml",
        ]
        assert projects.names() == ["tiny", "wine_quality"]
        assert resolve("wine_quality", profile="smoke").settings.train.epochs == 10
        assert projects.load("wine_quality").title == "Wine quality"

    def test_marks_what_is_left_to_do(self, application: Path) -> None:
        pipeline, _, flow, _ = scaffold("wine_quality", application)
        assert pipeline.read_text().count("TODO(wine_quality)") >= 5
        assert "TODO" not in flow.read_text()

    def test_has_a_twin_whose_table_it_reads(self, application: Path, tmp_path: Path) -> None:
        scaffold("wine_quality", application)
        source = next(iter(projects.load("wine_quality").sources.values()))
        assert source.twin is not None
        source.twin(tmp_path, 0)
        splits = source.read(tmp_path)
        assert {name: sum(batch.num_rows for batch in split) for name, split in splits.items()} == {
            "train": 400,
            "test": 100,
        }

    def test_has_deployments_that_start_when_no_other_does(self, application: Path) -> None:
        scaffold("wine_quality", application)
        deployments = yaml.safe_load((application / "prefect.yaml").read_text())["deployments"]
        assert [(one["entrypoint"].partition(":")[2], one["name"]) for one in deployments] == [
            ("tiny", "weekly"),
            ("tiny", "on-drift"),
            ("tiny", "smoke"),
            ("wine_quality", "nightly"),
            ("wine_quality", "on-drift"),
            ("wine_quality", "smoke"),
            ("tiny", "mine"),
        ]
        assert deployments[0]["schedules"][0]["cron"] == "0 1 * * 0"
        assert deployments[3]["schedules"][0]["cron"] == "20 1 * * *"
        assert deployments[3]["work_pool"] == {"name": "headrace"}
        assert deployments[5]["parameters"] == {"profile": "smoke", "variant": "mlp"}

    def test_can_be_followed_by_another(self, application: Path) -> None:
        scaffold("one_more", application)
        scaffold("and_another", application)
        deployments = yaml.safe_load((application / "prefect.yaml").read_text())["deployments"]
        assert len(deployments) == 10

    @pytest.mark.parametrize("name", ["q", "wine_quality", "prices_of_houses_in_the_whole_country"])
    def test_is_in_the_project_s_own_style(self, application: Path, name: str) -> None:
        ruff = Path(sys.executable).with_name("ruff")
        if not ruff.exists():
            pytest.skip("ruff is not installed beside this Python")
        written = [path for path in scaffold(name, application) if path.stem == name]
        options = ["--config", str(ROOT / "pyproject.toml"), "--no-cache"]
        known = ["--config", f'src=["{ROOT}", "{ROOT / "src"}"]']
        for command in (["check", *options, *known], ["format", "--check", *options]):
            done = subprocess.run([ruff, *command, *written], check=False, capture_output=True, text=True)
            assert done.returncode == 0, done.stdout

    def test_runs_at_once(self, application: Path) -> None:
        assert main(["new", "wine_quality"]) == 0
        words = ("run", "wine_quality", "--profile", "smoke", "--data", "synthetic", "--json")
        done = subprocess.run(
            [sys.executable, "-m", "headrace", *words],
            check=False,
            capture_output=True,
            text=True,
            cwd=application,
        )
        assert done.returncode == 0, done.stderr
        summary = json.loads(done.stdout)
        assert (summary["data"], summary["verdict"]) == ("synthetic", "pass")
        assert summary["metrics"]["mae"] < 3


class TestNames:
    @pytest.mark.parametrize(
        ("name", "words"),
        [
            ("Wine", "should match pattern"),
            ("wine-quality", "should match pattern"),
            ("9wines", "should match pattern"),
            ("", "should match pattern"),
            ("w" * 61, "at most 60 characters"),
            ("class", "a word of Python's own"),
            ("match", "a word of Python's own"),
            ("statistics", "standard library"),
            ("keras", "an installed package"),
            ("headrace", "an installed package"),
            ("pipelines", "an installed package"),
            ("tiny", "pipelines/tiny.py exists already"),
            ("run", "flows/__init__.py has a function of this name"),
        ],
    )
    def test_that_would_do_harm_are_refused_with_the_reason(self, application: Path, name: str, words: str) -> None:
        before = files(application)
        with pytest.raises(ConfigError, match=words):
            scaffold(name, application)
        assert files(application) == before

    def test_that_only_a_flow_has_are_taken(self, application: Path) -> None:
        (application / "flows" / "sweep.py").write_text("")
        assert refusal("sweep", application) == "flows/sweep.py exists already"

    def test_that_are_free_are_not_refused(self, application: Path) -> None:
        assert refusal("wine_quality", application) is None


class TestDeployments:
    def test_must_have_a_place(self, application: Path) -> None:
        (application / "prefect.yaml").write_text("deployments:\n  - {name: a, entrypoint: b}\n")
        before = files(application)
        with pytest.raises(ConfigError, match="has no place for deployments"):
            scaffold("wine_quality", application)
        assert files(application) == before

    def test_must_be_there(self, project: Path) -> None:
        with pytest.raises(ConfigError, match=r"prefect\.yaml can't be read"):
            scaffold("wine_quality", project)


class TestAllOrNothing:
    @pytest.mark.parametrize("successes", [0, 1, 2, 3])
    def test_a_write_that_fails_undoes_the_others(
        self, application: Path, monkeypatch: pytest.MonkeyPatch, successes: int
    ) -> None:
        before = files(application)
        real, calls = scaffolding.write_atomically, []

        def failing(path: Path, data: bytes) -> None:
            calls.append(path)
            if len(calls) == successes + 1:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
            real(path, data)

        monkeypatch.setattr(scaffolding, "write_atomically", failing)
        monkeypatch.setattr(syncing, "write_atomically", failing)
        with pytest.raises(SystemTrouble, match="No room left while writing"):
            scaffold("wine_quality", application)
        assert files(application) == before


class TestCommand:
    def test_says_what_it_wrote_and_what_to_do_next(
        self, application: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["new", "wine_quality"]) == 0
        out = capsys.readouterr().out
        assert f"wrote {application / 'pipelines' / 'wine_quality.py'}" in out
        assert "headrace run wine_quality --profile smoke --data synthetic" in out

    def test_refuses_a_second_time(self, application: Path, capsys: Any) -> None:
        main(["new", "wine_quality"])
        assert main(["new", "wine_quality"]) == 2
        assert "exists already" in capsys.readouterr().err
