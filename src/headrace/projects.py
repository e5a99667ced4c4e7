"""The project around the core: its root, and its workloads, found by listing `pipelines/` and imported when asked."""

from __future__ import annotations

import importlib
import sys
import traceback
from functools import cache
from pathlib import Path

from pydantic import ValidationError

from headrace import spec
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


SHARED = "sources"
"""The package in `pipelines/` that is no workload: the data sets that several of them use."""

RESERVED = ("schema", "validate")
"""What no workload can be called: `headrace data validate` is a command of its own."""


def names() -> list[str]:
    """The workloads of the project, sorted."""
    folder = root() / "pipelines"
    return sorted(
        path.stem
        for path in folder.iterdir()
        if not path.name.startswith((".", "_"))
        and path.stem != SHARED
        and (path.suffix == ".py" or (path / "__init__.py").is_file())
    )


def file(name: str) -> str:
    """The file that a workload is written in, as people call it: `pipelines/house_prices.py`."""
    folder = (root() / "pipelines" / name).is_dir()
    return f"pipelines/{name}/__init__.py" if folder else f"pipelines/{name}.py"


def load(name: str) -> Pipeline:
    """The workload of this name.

    Raises:
        ConfigError: There is no such workload (with the nearest names), its file fails, or defines no fitting
            `PIPELINE`.
    """
    if name not in names():
        raise unknown("workload", name, names())
    if str(root()) not in sys.path:
        sys.path.insert(0, str(root()))
    try:
        module = importlib.import_module(f"pipelines.{name}")
    except ValidationError as error:
        lines = spec.explain(error, getattr(spec, error.title, None))
        raise ConfigError(
            f"{file(name)} does not describe its workload rightly, in {error.title}(…):\n"
            + "\n".join(f"  - {line}" for line in lines)
        ) from error
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        places = [f", because of line {frame.lineno}" for frame in frames if f"pipelines/{name}" in frame.filename]
        raise ConfigError(
            f"{file(name)} can't be loaded{places[-1] if places else ''}.",
            received=f"{type(error).__name__}: {error}",
        ) from error
    pipeline = getattr(module, "PIPELINE", None)
    if not isinstance(pipeline, Pipeline) or pipeline.name != name:
        raise ConfigError(
            f"{file(name)} does not define its workload.",
            expected=f'PIPELINE = Pipeline(name="{name}", …)',
            received=repr(getattr(pipeline, "name", pipeline)),
        )
    return pipeline
