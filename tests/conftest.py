"""Markers, flags and fixtures that all tests share."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from headrace.jobs import Job, resolve

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

PROJECT = Path(__file__).resolve().parents[1]
MIRROR = Path(os.environ.get("HEADRACE_MIRROR") or PROJECT.parent / "shared" / "datasets")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--run-slow", action="store_true", help="run the tests that take longer than ten seconds, too")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        # Side by side (`-n`), the tests of one file stay in one process, and those that share a Prefect server, too.
        folder = item.path.parent
        server = folder.name in ("flows", "tasks")
        if not item.get_closest_marker("xdist_group"):
            item.add_marker(pytest.mark.xdist_group(folder.parent.name if server else str(item.path)))
        if "slow" in item.keywords and not config.getoption("--run-slow"):
            item.add_marker(pytest.mark.skip(reason="slow: run with --run-slow"))


@pytest.fixture(autouse=True)
def headrace_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home for each test, and no mirror unless the test asks for one."""
    home = tmp_path / "home"
    monkeypatch.setenv("HEADRACE_HOME", str(home))
    monkeypatch.delenv("HEADRACE_MIRROR", raising=False)
    return home


@pytest.fixture
def mirror(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The mirror of real data, set as HEADRACE_MIRROR."""
    if not MIRROR.is_dir():
        pytest.skip(f"no real data at {MIRROR}: set HEADRACE_MIRROR")
    monkeypatch.setenv("HEADRACE_MIRROR", str(MIRROR))
    return MIRROR


JobFactory = Callable[..., Job]


@pytest.fixture
def job() -> JobFactory:
    """A small job on the synthetic twin; state only what differs."""

    def make(workload: str = "house_prices", **changes: Any) -> Job:
        overrides = changes.pop("overrides", {})
        return resolve(workload, **{"profile": "smoke", "data": "synthetic", **changes}, overrides=overrides)

    return make
