"""`headrace new NAME`: a workload's file, its flow and its deployments, complete and ready to run; or nothing."""

from __future__ import annotations

import ast
import importlib.util
import keyword
import re
import sys
from pathlib import Path

import yaml
from pydantic import TypeAdapter, ValidationError

from headrace.artifacts import system_errors, write_atomically
from headrace.errors import ConfigError
from headrace.pages import TEMPLATES
from headrace.projects import RESERVED
from headrace.spec import Name

APART = 20
"""Minutes between the nightly starts of two workloads."""


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
    pipeline, flow, deployments = (
        root / "pipelines" / f"{name}.py",
        root / "flows" / f"{name}.py",
        root / "prefect.yaml",
    )
    before = _text(deployments)
    nights = before.count("slug: nightly")
    hour, minute = divmod(60 + APART * nights, 60)
    entry = _rendered("deployments.yaml.j2", name, hour=hour % 24, minute=minute)
    contents = {
        flow: _rendered("flow.py.j2", name),
        deployments: with_deployments(before, entry, name),
        # Last, because a workload exists once it is in this folder.
        pipeline: _rendered("pipeline.py.j2", name),
    }
    with system_errors(f"writing the workload {name}"):
        try:
            for path, text in contents.items():
                write_atomically(path, text.encode())
        except BaseException:
            flow.unlink(missing_ok=True)
            pipeline.unlink(missing_ok=True)
            if _text(deployments) != before:
                write_atomically(deployments, before.encode())
            raise
    return [pipeline, flow, deployments]


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


def with_deployments(text: str, entry: str, name: str) -> str:
    """The text of a prefect.yaml with more deployments at the end of its list; the rest stays as it was, to the byte.

    Raises:
        ConfigError: There is no list of deployments, or the entry does not fit in (anchors that it uses are missing).
    """
    start = re.search(r"^deployments:[ \t]*(#.*)?$", text, re.MULTILINE)
    if not start:
        raise ConfigError(
            "prefect.yaml has no list of deployments.", expected="a line `deployments:`, with a list below it"
        )
    after = re.search(r"^[^\s#-]", text[start.end() :], re.MULTILINE)
    end = start.end() + after.start() if after else len(text)
    changed = f"{text[:end].rstrip()}\n\n{entry}{chr(10) if after else ''}{text[end:]}"
    try:
        old, new = (yaml.safe_load(version) for version in (text, changed))
        added = new["deployments"][len(old["deployments"] or []) :]
        fits = [one["entrypoint"] for one in added] == [f"flows/{name}.py:{name}"] * len(added) and added
    except (yaml.YAMLError, KeyError, TypeError) as error:
        raise ConfigError(
            "Deployments can't be added to prefect.yaml.",
            expected="valid YAML with the anchors &pool, &in_turn and &smoke",
            received=str(error),
        ) from error
    if not fits:
        raise ConfigError("Deployments can't be added to prefect.yaml.", expected="a list below `deployments:`")
    return changed


def _rendered(template: str, name: str, **values: object) -> str:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        # What is rendered is Python and YAML, and all that goes in is a checked name.
        autoescape=False,
    )
    title = name.replace("_", " ").capitalize()
    return environment.get_template(template).render(name=name, title=title, **values)


def _functions(path: Path) -> set[str]:
    return {node.name for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)}


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError as error:
        raise ConfigError(
            f"{path.name} can't be read.",
            expected="a project with pipelines/, flows/ and prefect.yaml",
            received=error.strerror,
        ) from error
