"""The real stages, from download to report: what is made stays made, and a change reruns what depends on it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headrace import projects
from headrace.artifacts import home

ROOT = Path(__file__).resolve().parents[2]
WORKLOAD = ("house_prices", "--profile", "smoke")
HEAVY = "[name for name in ('tensorflow', 'keras', 'prefect', 'matplotlib', 'jinja2') if name in sys.modules]"
STAGES = {"download", "preprocess", "examine", "train", "evaluate", "export", "publish", "monitor", "report"}

Headrace = Callable[..., Any]


@pytest.fixture
def own(project: Path) -> Path:
    """A copy of the workload's file that a test may change."""
    shutil.copy(ROOT / "pipelines" / "house_prices.py", project / "pipelines")
    return project / "pipelines" / "house_prices.py"


def change(path: Path, old: str, new: str) -> None:
    """Change a line of a workload's file, as its author would between two runs."""
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))
    projects.root.cache_clear()
    for name in [name for name in sys.modules if name.partition(".")[0] == "pipelines"]:
        del sys.modules[name]


def flip(path: Path, place: int) -> None:
    """Change the lowest bit of one byte, which makes another digit of a digit."""
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def in_a_process(*words: str) -> tuple[Any, str]:
    """The JSON that a command line prints, and the heavy modules that it loads."""
    script = (
        f"import sys; from headrace.__main__ import main; code = main({list(words)!r}); "
        f"print({HEAVY}, file=sys.stderr); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr.splitlines()[-1]


def test_a_second_run_skips_every_stage_at_once_and_says_why() -> None:
    words = (*WORKLOAD, "--variant", "kfold_100", "--data", "synthetic", "--json")
    first, loaded = in_a_process("run", *words)
    assert "tensorflow" in loaded
    assert {stage["state"] for stage in first["stages"]} == {"run"}
    assert {stage["node"] for stage in first["stages"]} == STAGES | {"train/fold 1", "train/fold 2", "cross_validate"}

    again, loaded = in_a_process("run", *words)
    assert loaded == "[]"
    assert {(stage["state"], stage["reason"]) for stage in again["stages"]} == {
        ("skipped", "nothing it depends on has changed")
    }
    assert (again["metrics"], again["report"], again["version"]) == (
        first["metrics"],
        first["report"],
        first["version"],
    )

    plan, loaded = in_a_process("plan", *words)
    assert loaded == "[]"
    assert {(stage["state"], stage["reason"]) for stage in plan["stages"]} == {
        ("skip", "nothing it depends on has changed")
    }


@pytest.fixture
def reran(headrace: Headrace, own: Path) -> Callable[..., tuple[set[str], dict[str, str]]]:
    """Plan and run with these options: the stages that ran, and the reasons that the plan gave for what it knew."""

    def run(*options: str) -> tuple[set[str], dict[str, str]]:
        plan = headrace("plan", *WORKLOAD, *options, "--json").json["stages"]
        summary = headrace("run", *WORKLOAD, *options, "--json").json
        ran = {stage["node"] for stage in summary["stages"] if stage["state"] == "run"}
        assert {stage["node"] for stage in plan if stage["state"] == "run"} <= ran
        assert not {stage["node"] for stage in plan if stage["state"] == "skip"} & ran
        return ran, {stage["node"]: stage["reason"] for stage in plan if stage["state"] == "run"}

    return run


def test_a_change_reruns_exactly_what_depends_on_it(reran: Callable[..., Any], own: Path) -> None:
    made_up = ("--data", "synthetic")
    assert reran(*made_up)[0] == STAGES
    assert reran(*made_up) == (set(), {})

    # A field of the spec
    ran, reasons = reran(*made_up, "--set", "monitor.buckets=5")
    assert ran == {"monitor", "report"}
    assert reasons == {"monitor": "`monitor.buckets` 10 → 5"}
    ran, reasons = reran(*made_up, "--set", "export.examples=8")
    assert ran == {"export", "publish", "monitor", "report"}
    assert reasons == {"export": "`export.examples` 16 → 8"}
    ran, reasons = reran(*made_up, "--set", "train.epochs=3")
    assert ran == STAGES - {"download", "preprocess", "examine"}
    assert reasons == {"train": "`train.epochs` 25 → 3"}

    # A line of the workload's code; then a comment, and the line as it was
    change(own, '(batch["features"] - mean) / scale}', '(batch["features"] - mean) / scale * 0.5}')
    ran, reasons = reran(*made_up)
    assert ran == STAGES - {"download"}
    assert reasons["preprocess"] == "`preprocess` in pipelines/house_prices.py was changed"
    change(own, "    learned = statistics", "    # Why not?\n    learned = statistics")
    assert reran(*made_up) == (set(), {})
    change(own, "/ scale * 0.5}", "/ scale}")
    assert reran(*made_up) == (set(), {})

    # A byte of what was made: made good, and since it is what it was, nothing follows
    for shard in (home() / "artifacts" / "house_prices" / "preprocess").glob("*/test.tfrecord*"):
        flip(shard, 100)
    ran, reasons = reran(*made_up)
    assert ran == {"preprocess"}
    assert reasons["preprocess"].startswith("made before, but test.tfrecord-00000-of-00001 was altered")


def test_a_byte_of_data_reruns_everything(reran: Callable[..., Any], tmp_path: Path) -> None:
    columns = [column.name for column in projects.load("house_prices").sources["boston"].features["features"].columns]
    rows = np.random.default_rng(0).uniform(1, 9, (80, 14))
    path = tmp_path / "own.csv"
    np.savetxt(path, rows, fmt="%.3f", delimiter=",", header=",".join([*columns, "MEDV"]), comments="")
    source = ("--source", str(path))
    assert reran(*source)[0] == STAGES
    assert reran(*source) == (set(), {})

    flip(path, -2)
    ran, reasons = reran(*source)
    assert ran == STAGES
    assert reasons["download"].startswith("`files.own.csv`")
