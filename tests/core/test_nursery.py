"""Forks of a process that has imported TensorFlow: fresh, alone, and never waited for in vain."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace import serving_check
from headrace.bundling import nursery
from headrace.bundling.nursery import Closed, Nursery

SCRIPT = f"""
import sys
sys.path.insert(0, {str(Path(serving_check.__file__).parent)!r})
import json, os, signal, time, serving_check
def main(plan):
    with open(plan) as file:
        exec(json.load(file)["do"])
serving_check.main = main
serving_check.nursery()
"""
"""A nursery whose plans are Python."""


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("nursery") / "script.py"
    path.write_text(SCRIPT)
    return str(path)


@pytest.fixture(scope="module")
def opened(script: str) -> Iterator[Nursery]:
    found = Nursery(script, os.environ)
    yield found
    found.close()


def done(opened: Nursery, folder: Path, code: str, seconds: float = 60) -> int:
    (folder / "plan.json").write_text(json.dumps({"do": code}))
    return opened.run(folder, seconds)


def test_a_fork_has_tensorflow_works_in_its_folder_and_leaves_nothing_to_the_next(
    opened: Nursery, tmp_path: Path
) -> None:
    seen = "'tensorflow' in sys.modules, 'headrace' in sys.modules, hasattr(sys, 'x')"
    code = f"open('found.txt', 'w').write(str(({seen})))"
    for _ in range(2):
        assert done(opened, tmp_path, f"{code}; sys.x = 1") == 0
        assert (tmp_path / "found.txt").read_text() == "(True, False, False)"


def test_tensorflow_can_be_used_in_a_fork(opened: Nursery, tmp_path: Path) -> None:
    work = "float(tf.reduce_sum(tf.ones((300, 300)) @ tf.ones((300, 300))))"
    code = f"import tensorflow as tf; open('sum.txt', 'w').write(str({work}))"
    for _ in range(2):
        assert done(opened, tmp_path, code) == 0
        assert float((tmp_path / "sum.txt").read_text()) == 300**3


def test_a_fork_that_fails_says_why_and_one_that_is_killed_by_what(opened: Nursery, tmp_path: Path) -> None:
    assert done(opened, tmp_path, "raise RuntimeError('stone')") == 1
    assert "RuntimeError: stone" in (tmp_path / "errors.txt").read_text()
    assert done(opened, tmp_path, "os.kill(os.getpid(), signal.SIGSEGV)") == -signal.SIGSEGV
    assert done(opened, tmp_path, "pass") == 0


def test_one_that_does_not_end_is_killed_and_the_next_one_is_served(opened: Nursery, tmp_path: Path) -> None:
    with pytest.raises(TimeoutError):
        done(opened, tmp_path, "open('pid', 'w').write(str(os.getpid())); time.sleep(600)", 1.0)
    child = int((tmp_path / "pid").read_text())
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)
    assert done(opened, tmp_path, "pass") == 0


def test_a_process_opens_one_for_its_second_bundle_and_another_when_that_has_ended(
    script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nursery, "_asked", 0)
    monkeypatch.setattr(nursery, "_opened", None)
    (tmp_path / "plan.json").write_text('{"do": "pass"}')
    with pytest.raises(Closed):
        nursery.run(script, tmp_path, os.environ, 60)
    assert nursery.run(script, tmp_path, os.environ, 60) == 0
    assert nursery._opened
    nursery._opened._process.kill()
    nursery._opened._process.wait()
    with pytest.raises(Closed):
        nursery.run(script, tmp_path, os.environ, 60)
    assert nursery.run(script, tmp_path, os.environ, 60) == 0
    nursery._close()
