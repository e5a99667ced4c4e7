"""A job: one workload with everything that was asked for, resolved and checked. All mistakes are told at once."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import yaml
from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from headrace import projects
from headrace.errors import ConfigError, nearest
from headrace.fingerprints import leaves
from headrace.spec import Feature, Pipeline, Source, Spec, TaskName, Tasks, Variant, explain, spec_of, task_in_words

Profile = Literal["smoke", "full"]
Data = Literal["auto", "real", "synthetic"]


class Job(Spec):
    """What a run shall do. Plain values only: it travels as JSON, and finds the workload's functions by its name."""

    workload: str
    variant: str
    profile: Profile = "full"
    data: Data = "auto"
    source: str
    """Name of one of the workload's sources, or the path of data of the user's own."""
    seed: int = Field(default=0, ge=0, lt=2**31)
    settings: Variant
    """The variant with the profile and all overrides applied."""
    cell: str = ""
    """What tells this job from others of one fan-out: the cell of a study, the trial of a tuning. It changes how the
    job's nodes are called, and nothing that they compute."""

    @cached_property
    def pipeline(self) -> Pipeline:
        """The workload's file."""
        return projects.load(self.workload)

    @cached_property
    def origin(self) -> Source:
        """The source of the examples."""
        return source_named(self.pipeline, self.source, self.usual_source)

    @property
    def inputs(self) -> dict[str, Feature]:
        """The raw inputs of an example, as a served model takes them: of a window of rows, where that is an example."""
        from headrace.windows import of_example

        windows, rows = self.settings.windows, self.origin.named("input")
        return {name: of_example(row, windows) for name, row in rows.items()} if windows else rows

    @property
    def usual_source(self) -> str:
        """The source that the variant takes where none is asked for."""
        return self.pipeline.source_of(self.variant)

    @property
    def on_its_own_data(self) -> bool:
        """Whether the source is the variant's own, or one that stands for it: promises are made for no other."""
        return self.usual_source in (self.source, self.origin.stands_for)

    def function(self, name: str) -> Callable[..., Any] | None:
        """The workload's function of this name that the variant uses."""
        return self.pipeline.function(name, self.variant)

    def the(self, name: str) -> Callable[..., Any]:
        """A function that every workload has: `preprocess`, `model`."""
        found = self.function(name)
        assert found is not None  # noqa: S101 (a spec without it is refused)
        return found

    @property
    def task(self) -> Tasks:
        """What the model is for; of several targets that of each."""
        return self.settings.task or self.pipeline.task

    def task_of(self, target: str) -> TaskName:
        """What the model is for, as to this target."""
        return self.task[target] if isinstance(self.task, dict) else self.task

    @property
    def task_in_words(self) -> str:
        """What the model is for, for people."""
        return task_in_words(self.task)

    @property
    def label(self) -> str:
        """The cell with its seed, as it stands in the names of the job's nodes: "adam-256 · seed 1"."""
        return " · ".join([self.cell, *([f"seed {self.seed}"] if self.seed else [])]) if self.cell else ""

    @property
    def title(self) -> str:
        """The job in a few words, for people."""
        words = [self.workload, self.variant]
        if self.cell:
            words.append(self.cell)
        if self.source != self.usual_source:
            words.append(Path(self.source).name)
        if self.profile != "full":
            words.append(self.profile)
        if self.seed:
            words.append(f"seed {self.seed}")
        return " · ".join(words)


def source_named(pipeline: Pipeline, name: str, like: str | None = None) -> Source:
    """The source of this name, or a source that reads the user's own data at this path.

    Args:
        pipeline: The workload.
        name: A name, or a path.
        like: The source whose features the user's own data have; default: the workload's first.

    Raises:
        ConfigError: It is neither.
    """
    if name in pipeline.sources:
        return pipeline.sources[name]
    if _is_path(name):
        from headrace.readers.own_data import own_data

        return own_data(Path(name), like=pipeline.sources[like or pipeline.default_source])
    raise ConfigError(
        f"{pipeline.name} has no source `{name}`: {nearest(name, pipeline.sources)}",
        expected="one of the workload's sources, or the path of data of your own, with a `/` in it",
    )


def _is_path(name: str) -> bool:
    return os.sep in name or bool(Path(name).suffix)


def resolve(
    workload: str,
    *,
    variant: str | None = None,
    profile: str = "full",
    data: str = "auto",
    source: str | None = None,
    seed: int = 0,
    overrides: Mapping[str, Any] | None = None,
) -> Job:
    """Check a request and complete it.

    Args:
        workload: Name of a file in `pipelines/`.
        variant: Name of one of its variants; default: its first.
        profile: `full`, or `smoke` for a run of seconds.
        data: `real`, `synthetic` (the twin), or `auto`: real where it can be had, else the twin.
        source: Name of one of its sources, or path of data of one's own; default: its first.
        seed: Seed of everything random.
        overrides: Dotted path of a setting → value, applied after the profile's.

    Raises:
        ConfigError: Something is unknown or out of bounds; the message names every mistake.
    """
    pipeline = projects.load(workload)
    mistakes: list[str] = []
    # A configuration file may hold anything; what is no name is unknown as one.
    variant = str(variant or pipeline.default_variant)
    chosen = pipeline.variants.get(variant)
    usual = pipeline.source_of(variant) if chosen else pipeline.default_source
    source = str(source or usual)
    settings: Variant | None = None
    if chosen is None:
        mistakes.append(f"variant: there is no `{variant}`: {nearest(variant, pipeline.variants)}")
    for name, value, allowed in (("profile", profile, get_args(Profile)), ("data", data, get_args(Data))):
        if value not in allowed:
            mistakes.append(f"{name}: there is no `{value}`: {nearest(str(value), allowed)}")
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**31:
        mistakes.append(f"seed: expected a whole number from 0 to {2**31 - 1}; received {seed!r}")
    try:
        source_named(pipeline, source, usual)
    except ConfigError as error:
        mistakes.append(f"source: {error}")
    # The settings are checked even if the variant is unknown, against the default one, which has the same names.
    known = variant if chosen else pipeline.default_variant
    tree = pipeline.variants[known].model_dump()
    if profile == "smoke":
        for path, value in (pipeline.smoke | pipeline.variants[known].smoke).items():
            # What a variant does not have (folds, say) needs no smaller form.
            _put(tree, path, value, missing_is_fine=True)
    for path, value in (overrides or {}).items():
        mistake = _put(tree, path, value)
        if mistake:
            mistakes.append(mistake)
    try:
        settings = Variant.model_validate(tree)
    except ValidationError as error:
        mistakes += explain(error, Variant)
    for name in ("model", "preprocess", "loop"):
        if isinstance(tree[name], dict):
            mistakes += _arguments(pipeline, known, name, tree[name])
    if mistakes or settings is None:
        raise ConfigError(
            f"{workload} can't run as asked:\n" + "\n".join(f"  - {line}" for line in mistakes),
            remedy=f"`headrace show {workload}` lists variants, sources and settings",
        )
    return Job.model_validate(
        {
            "workload": workload,
            "variant": variant,
            "profile": profile,
            "data": data,
            "source": source,
            "seed": seed,
            "settings": settings,
        }
    )


def _put(tree: dict[str, Any], path: str, value: Any, *, missing_is_fine: bool = False) -> str | None:
    """Set a value at a dotted path of nested settings; the mistake in words, if the path leads nowhere."""
    *parents, last = path.split(".")
    place: Any = tree
    model: type[BaseModel] | None = Variant
    for depth, step in enumerate([*parents, last]):
        known: list[str] = list(place) if model is None else list(model.model_fields)
        if model is not None and step not in known:
            if missing_is_fine:
                return None
            within = ".".join([*parents, last][:depth])
            return f"{path}: {f'`{within}` has' if within else 'there is'} no setting `{step}`: {nearest(step, known)}"
        if depth == len(parents):
            break
        inner = spec_of(model, step)
        if place.get(step) is None:
            if missing_is_fine:
                return None
            place[step] = {}
        if not isinstance(place[step], dict):
            return f"{path}: `{'.'.join([*parents, last][: depth + 1])}` is a single value, it has no `{last}`"
        place, model = place[step], inner
    place[last] = value
    return None


def arguments(pipeline: Pipeline, variant: str, name: str) -> dict[str, tuple[Callable[..., Any], inspect.Parameter]]:
    """What a variant's `model`, `loop` or `preprocess` settings may hold: name → the function that takes it, and how.

    Args:
        pipeline: The workload.
        variant: One of its variants.
        name: `model`, `loop`, or `preprocess`, whose arguments `learn` shares.
    """
    given = {"model": 1, "loop": 1, "preprocess": 2 if pipeline.function("learn", variant) else 1, "learn": 2}
    found: dict[str, tuple[Callable[..., Any], inspect.Parameter]] = {}
    for which in ("learn", "preprocess") if name == "preprocess" else (name,):
        function = pipeline.function(which, variant)
        if function is not None:
            parameters = list(inspect.signature(function).parameters.items())[given[which] :]
            found |= {key: (function, parameter) for key, parameter in parameters if key != GIVEN.get(which)}
    return found


GIVEN = {"learn": "raw", "model": "learned"}
"""What a function is given, if it has an argument of this name, which is no setting then: the folder of raw files, and
what `learn` gave (arrays by name)."""


def taken(function: Callable[..., Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the settings that a function takes, where it shares them with another one."""
    known = inspect.signature(function).parameters
    return {name: value for name, value in settings.items() if name in known}


def _arguments(pipeline: Pipeline, variant: str, setting: str, given: Mapping[str, Any]) -> list[str]:
    """The arguments that the workload's functions do not take, or not with such a value."""
    known = arguments(pipeline, variant, setting)
    mistakes = []
    for name, value in given.items():
        if name not in known:
            where = f"`{setting}` in {projects.file(pipeline.name)} takes no `{name}`"
            mistakes.append(f"{setting}.{name}: {where}: {nearest(name, known)}")
            continue
        function, parameter = known[name]
        try:
            TypeAdapter(_evaluated(function, parameter.annotation)).validate_python(value)
        except ValidationError as error:
            mistakes += [f"{setting}.{name}: {line.partition(': ')[2]}" for line in explain(error)]
    return mistakes


def _evaluated(function: Callable[..., Any], annotation: Any) -> Any:
    """The type that an annotation names; anything goes where it can't be told, as for names that only checkers know."""
    if isinstance(annotation, str):
        try:
            return eval(annotation, function.__globals__)  # the workload's own code, imported already
        except NameError:
            return Any
    return Any if annotation is inspect.Parameter.empty else annotation


# --------------------------------------------------------------------------------- requests in text form

_OPTIONS = ("variant", "profile", "data", "source", "seed")


def parse_override(text: str) -> tuple[str, Any]:
    """`train.epochs=8` → ("train.epochs", 8); the value is read as YAML.

    Raises:
        ConfigError: There is no `=`, or the value is no YAML.
    """
    path, equals, value = text.partition("=")
    if not equals or not path.strip():
        raise ConfigError(f"`--set {text}` names no value.", expected="--set path=value, as in --set train.epochs=8")
    try:
        return path.strip(), _numbers(yaml.safe_load(value))
    except yaml.YAMLError as error:
        raise ConfigError(
            f"The value in `--set {text}` can't be read.",
            expected="a YAML value: 8, 0.5, true, name, [64, 64]",
            received=value,
        ) from error


def _numbers(value: Any) -> Any:
    """Read `1e-3` as the number it is: YAML 1.1 calls it a string for want of a dot."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def read_config(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read a YAML file of options and settings.

    ```yaml
    variant: kfold_100
    seed: 3
    train: {epochs: 50}
    ```

    Returns:
        The options (variant, profile, data, source, seed) and the overrides (dotted path → value).

    Raises:
        ConfigError: The file can't be read, or is no mapping.
    """
    try:
        tree = yaml.safe_load(path.read_text())
    except OSError as error:
        raise ConfigError(f"The configuration {path} can't be read.", received=error.strerror) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"The configuration {path} is not YAML.", received=str(error)) from error
    if not isinstance(tree, dict):
        raise ConfigError(
            f"The configuration {path} is empty or no mapping.",
            expected="lines such as `variant: final` or `train: {epochs: 8}`",
            received=type(tree).__name__,
        )
    options = {name: tree.pop(name) for name in _OPTIONS if name in tree}
    return options, {".".join(path): _numbers(value) for path, value in leaves(tree) if path}
