"""The project around the core: its root, and its workloads, found by listing `pipelines/` and imported when asked."""

from __future__ import annotations

import importlib
import sys
from functools import cache
from pathlib import Path

from headrace.errors import ConfigError, unknown
from headrace.spec import Pipeline


@cache
def root() -> Path:
    """The folder that holds `pipelines/`: the current directory, one above it, or the checkout this core came from."""
    here = Path.cwd()
    for folder in (here, *here.parents, Path(__file__).resolve().parents[2]):
        if (folder / "pipelines" / "__init__.py").is_file():
            return folder
    raise ConfigError(
        "This is not a Headrace project.",
        expected="a folder with `pipelines/` in it, here or in a folder above",
        received=str(here),
        remedy="change into the project",
    )


def names() -> list[str]:
    """The workloads of the project, sorted."""
    folder = root() / "pipelines"
    return sorted(
        path.stem
        for path in folder.iterdir()
        if not path.name.startswith((".", "_")) and (path.suffix == ".py" or (path / "__init__.py").is_file())
    )


def load(name: str) -> Pipeline:
    """The workload of this name.

    Raises:
        ConfigError: There is no such workload (with the nearest names), or its file defines no fitting `PIPELINE`.
    """
    if name not in names():
        raise unknown("workload", name, names())
    if str(root()) not in sys.path:
        sys.path.insert(0, str(root()))
    module = importlib.import_module(f"pipelines.{name}")
    pipeline = getattr(module, "PIPELINE", None)
    if not isinstance(pipeline, Pipeline) or pipeline.name != name:
        raise ConfigError(
            f"pipelines/{name}.py does not define its workload.",
            expected=f'PIPELINE = Pipeline(name="{name}", …)',
            received=repr(getattr(pipeline, "name", pipeline)),
        )
    return pipeline
