"""What is to be served: a version of the registry by number or name, or an exported folder; what is declared of it."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from headrace import projects, registry
from headrace.errors import ConfigError, DataError, HeadraceError, nearest, unknown
from headrace.spec import Feature, Pipeline, Windows

BLESSED = "blessed"


@dataclass(frozen=True)
class Target:
    """What an output of a model answers."""

    task: str
    """As `spec.TaskName`."""
    classes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Bundle:
    """A SavedModel and what is declared of it; nothing is loaded."""

    name: str
    """What it is called in addresses: the line of the registry, or the workload."""
    version: int
    path: Path
    """The folder of the SavedModel."""
    features: Mapping[str, Feature] = field(default_factory=dict)
    """The inputs and the notes of the source that it was trained on, as raw examples hold them."""
    targets: Mapping[str, Target] = field(default_factory=dict)
    """Output → what it answers, as far as that is known."""
    windows: Windows | None = None
    """How the examples were cut out of a series, if they were; the inputs are of windows then."""

    @property
    def title(self) -> str:
        """For people: "house_prices version 3"."""
        return f"{self.name} version {self.version}"


def published(workload: str, wanted: str = BLESSED, line: str | None = None) -> Bundle:
    """A version of the registry, sound to the last byte.

    Args:
        workload: Name of the workload.
        wanted: The number of a version, or a name that points to one: `blessed`, `previous`, an alias.
        line: Name of the line; default: the workload's own, of full trainings on its usual real data.

    Raises:
        ConfigError: There is no such workload, line or version.
        DataError: The version is damaged.
    """
    line = known_line(workload, line)
    version = version_of(line, wanted)
    shown = registry.show(line, version)
    trouble = registry.trouble(line, version, shown.get("bundle", ""))
    if trouble:
        raise DataError(
            f"{line} can't be served: {trouble}.", remedy=f"serve another version: {registry.versions(line)}"
        )
    lineage = shown.get("lineage") or {}
    request = lineage.get("request") or {}
    if request.get("workload", workload) != workload:
        raise ConfigError(
            f"{line} is no line of {workload}.", expected="a line of this workload", received=request["workload"]
        )
    pipeline = projects.load(workload)
    features, targets, windows = _declared(pipeline, request)
    outputs = (shown.get("evaluation") or {}).get("outputs") or {}
    targets |= {name: _target(said) for name, said in outputs.items()}
    path = registry.held(line, version)
    return Bundle(line, version, path, features, _labelled(path, targets), windows)


def in_folder(workload: str, folder: Path) -> Bundle:
    """An exported bundle, or a SavedModel, that lies in a folder; its version is 1.

    Raises:
        ConfigError: There is no such workload, or no SavedModel in the folder.
    """
    _known(workload)
    places = (folder, folder / "saved_model")
    path = next((place for place in places if (place / "saved_model.pb").is_file()), None)
    if path is None:
        inside = ", ".join(sorted(item.name for item in folder.iterdir())) if folder.is_dir() else "no such folder"
        raise ConfigError(
            f"{folder} holds no SavedModel.",
            expected="saved_model.pb in it, or in its folder `saved_model`",
            received=inside or "an empty folder",
        )
    features, targets, windows = _declared(projects.load(workload), {})
    return Bundle(workload, 1, path, features, _labelled(path, targets), windows)


def known_line(workload: str, line: str | None = None) -> str:
    """The line of a workload that has versions.

    Raises:
        ConfigError: There is no such workload, or nothing is published there.
    """
    _known(workload)
    if registry.versions(line or workload):
        return line or workload
    others = [name for name in registry.lines() if name.partition("-")[0] == workload]
    if line is None and others:
        raise ConfigError(
            f"Nothing is published in the line {workload}, where full trainings on its usual real data stand.",
            received=f"other lines of the workload: {', '.join(others)}",
            remedy=f"choose one: --line {others[0]}",
        )
    raise ConfigError(
        f"There is no line `{line or workload}` in the registry: {nearest(line or workload, registry.lines())}",
        remedy=f"headrace run {workload}",
    )


def version_of(line: str, wanted: str) -> int:
    """The number of a version by number or name.

    Raises:
        ConfigError: There is none.
    """
    known = registry.versions(line)
    if wanted.isdecimal():
        if int(wanted) not in known:
            raise ConfigError(f"{line} has no version {wanted}: {nearest(wanted, map(str, known))}")
        return int(wanted)
    found = pointed(line, wanted)
    if found is None:
        raise ConfigError(
            f"No version of {line} is called `{wanted}`.",
            expected=f"`blessed`, `previous`, an alias, or one of the versions {known}",
            remedy=f"headrace registry show {line}",
        )
    return found


def pointed(line: str, name: str) -> int | None:
    """The version that a name points to, if there is such a name."""
    try:
        return registry.pointed(line, name)
    except (KeyError, HeadraceError):
        return None


def _known(workload: str) -> None:
    if workload not in projects.names():
        raise unknown("workload", workload, projects.names())


def _declared(
    pipeline: Pipeline, request: Mapping[str, Any]
) -> tuple[dict[str, Feature], dict[str, Target], Windows | None]:
    """Inputs and notes of a source, its targets, and how examples are cut out of its rows; of the usual source if the
    request names none of the workload's."""
    from headrace.windows import of_example

    chosen = pipeline.variants.get(request.get("variant") or "") or pipeline.variants[pipeline.default_variant]
    name = request.get("source") or ""
    if name not in pipeline.sources:
        name = chosen.source or pipeline.default_source
    source = pipeline.sources[name]
    tasks = chosen.task or pipeline.task
    targets = {
        target: Target(tasks if isinstance(tasks, str) else str(tasks.get(target, "")), feature.classes)
        for target, feature in source.named("target").items()
    }
    asked = (request.get("settings") or {}).get("windows")
    windows = Windows.model_validate(asked) if asked else chosen.windows
    features = {**source.named("input"), **source.named("note")}
    if windows:
        features = {name: of_example(row, windows) for name, row in features.items()}
    return features, targets, windows


def _target(said: Mapping[str, Any]) -> Target:
    """What an evaluation says of an output."""
    classes = said.get("classes") or (said.get("target") or {}).get("classes") or ()
    return Target(str(said.get("task") or ""), tuple(map(str, classes)))


def _labelled(path: Path, targets: Mapping[str, Target]) -> dict[str, Target]:
    """The targets with the names of classes that travel in the SavedModel itself, where nothing else tells them."""
    found = dict(targets)
    for file in sorted((path / "assets").glob("labels_*.txt")):
        name = file.stem.removeprefix("labels_")
        known = found.get(name, Target("multiclass"))
        if not known.classes:
            with contextlib.suppress(OSError, UnicodeDecodeError):
                found[name] = replace(known, classes=tuple(file.read_text(encoding="utf-8").splitlines()))
    return found
