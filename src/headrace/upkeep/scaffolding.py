"""`headrace new NAME`: a workload's file, its flow and its deployments, complete and ready to run; or nothing."""

from __future__ import annotations

import ast
import importlib.util
import keyword
import sys
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from headrace.artifacts import system_errors, write_atomically
from headrace.errors import ConfigError
from headrace.projects import RESERVED
from headrace.showing.pages import plain
from headrace.spec import Name
from headrace.upkeep import syncing


def scaffold(name: str, root: Path) -> list[Path]:
    """Write the files of a new workload.

    Args:
        name: Of the workload, its file, its flow and its column of the registry.
        root: The project.

    Returns:
        The files that were written or changed.

    Raises:
        ConfigError: The name can't be used, or the project lacks what a workload is added to. Nothing was written.
        SystemTrouble: A file can't be written. Nothing is left of the others.
    """
    reason = refusal(name, root)
    if reason:
        raise ConfigError(
            f"A workload can't be called `{name}`: {reason}.",
            expected="lower-case letters, digits and underscores, as in wine_quality",
        )
    # Before anything is written: what is wrong with the project as it stands.
    syncing.texts(root)
    pipeline = root / "pipelines" / f"{name}.py"
    with system_errors(f"writing the workload {name}"):
        write_atomically(pipeline, plain("pipeline.py.j2", name=name, title=title_of(name)).encode())
    try:
        return [pipeline, *syncing.sync(root)]
    except BaseException:
        pipeline.unlink(missing_ok=True)
        raise


def title_of(name: str) -> str:
    """What a workload of this name is called until somebody says it better."""
    return name.replace("_", " ").capitalize()


def refusal(name: str, root: Path) -> str | None:
    """Why a name can't be that of a new workload; None if it can."""
    try:
        TypeAdapter(Name).validate_python(name)
    except ValidationError as error:
        return error.errors()[0]["msg"].removeprefix("String ")
    if keyword.iskeyword(name) or keyword.issoftkeyword(name):
        return "it is a word of Python's own"
    if name in RESERVED:
        return f"`headrace data {name}` is a command"
    for path in (root / "pipelines" / f"{name}.py", root / "pipelines" / name, root / "flows" / f"{name}.py"):
        if path.exists():
            return f"{path.relative_to(root)} exists already"
    # A deployment puts flows/ first on the path of modules: `import statistics` would find the flow there.
    if name in sys.stdlib_module_names:
        return "a module of Python's standard library has this name"
    if importlib.util.find_spec(name):
        return "an installed package has this name"
    rules = root / "flows" / "__init__.py"
    if rules.is_file() and name in _functions(rules):
        return "flows/__init__.py has a function of this name"
    return None


def _functions(path: Path) -> set[str]:
    return {node.name for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)}
