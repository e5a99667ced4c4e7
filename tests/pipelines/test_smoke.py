"""Every variant of every workload from its twin to its report, in seconds: what `headrace run --profile smoke` does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from headrace import projects
from headrace.artifacts import Artifact
from headrace.chain import Stages
from headrace.jobs import resolve
from headrace.running import execute

VARIANTS = [
    pytest.param(name, variant, marks=pytest.mark.xdist_group(f"smoke of {name}"))
    for name in projects.names()
    for variant in projects.load(name).variants
]

pytestmark = [
    # Not ours: what TensorFlow and its converters warn of.
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning"),
    pytest.mark.timeout(300),
]


@pytest.fixture(scope="module")
def shared_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One home for all of them: variants of a workload share their data."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def headrace_home(shared_home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """That home, in place of an empty one for each test."""
    monkeypatch.setenv("HEADRACE_HOME", str(shared_home))
    monkeypatch.delenv("HEADRACE_MIRROR", raising=False)
    return shared_home


@pytest.mark.parametrize(("name", "variant"), VARIANTS)
def test_a_variant_goes_through_every_stage_on_its_twin(name: str, variant: str) -> None:
    job = resolve(name, variant=variant, profile="smoke", data="synthetic")

    found = execute(job, Stages.plain())

    assert found["data"] == "synthetic"
    assert found["verdict"] in ("pass", "fail", "not judged")
    assert Path(found["report"]).stat().st_size > 10_000
    at = {node: Path(path) for node, path in found["artifacts"].items()}
    history = json.loads((at["train"] / "history.json").read_text())
    assert np.isfinite([value for curve in history["metrics"].values() for value in curve]).all()
    bundle = Artifact(at["export"], "", "export").json("bundle.json")
    assert {"keras", "saved_model"} <= set(bundle["formats"])
    assert bundle["gate"]["passed"], bundle["gate"]["reason"]
