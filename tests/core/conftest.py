"""A project of a test's own, so that workload files can be written and changed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from headrace import projects

TINY = '''
"""A workload that is read and described, but never trained."""

from pathlib import Path

from headrace import CrossValidation, Feature, Pipeline, Source, Train, Variant

FACTOR = 2


def read(raw: Path):
    """Numbers."""
    return scaled(raw)


def scaled(raw):
    return {"train": [FACTOR], "test": []}


def preprocess(statistics):
    """Nothing to learn."""
    return lambda batch: batch


def model(inputs, units=4):
    raise NotImplementedError


PIPELINE = Pipeline(
    name="tiny",
    title="Tiny",
    task="regression",
    book="none",
    expect="nothing",
    sources={
        "numbers": Source(
            title="Numbers",
            features={"x": Feature(shape=(2,)), "y": Feature(shape=(1,), role="target")},
            read=read,
        ),
    },
    preprocess=preprocess,
    model=model,
    variants={
        "plain": Variant(train=Train(epochs=5)),
        "folded": Variant(train=Train(epochs=5), cross_validation=CrossValidation(folds=3)),
    },
    smoke={"train.epochs": 1, "cross_validation.folds": 2},
)
'''

Edit = Callable[[str, str], None]


def _forget_workloads() -> None:
    projects.root.cache_clear()
    for name in [name for name in sys.modules if name.partition(".")[0] == "pipelines"]:
        del sys.modules[name]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The root of a project with one workload, `tiny`; the current directory lies in it."""
    root = tmp_path / "project"
    (root / "pipelines").mkdir(parents=True)
    (root / "pipelines" / "__init__.py").write_text("")
    (root / "pipelines" / "tiny.py").write_text(TINY)
    monkeypatch.chdir(root)
    monkeypatch.syspath_prepend(root)
    # A file that is changed within a second and keeps its size would be read from its old bytecode.
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    kept = {name: module for name, module in sys.modules.items() if name.partition(".")[0] == "pipelines"}
    _forget_workloads()
    yield root
    _forget_workloads()
    sys.modules.update(kept)


@pytest.fixture
def edit(project: Path) -> Edit:
    """Change the workload's file: `edit("FACTOR = 2", "FACTOR = 3")`."""

    def replace(old: str, new: str) -> None:
        path = project / "pipelines" / "tiny.py"
        text = path.read_text()
        assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in the file"
        path.write_text(text.replace(old, new))
        _forget_workloads()

    return replace
