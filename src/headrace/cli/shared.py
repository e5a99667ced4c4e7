"""What several commands share: options, the request they make, the run they look at, tables and JSON."""

from __future__ import annotations

import importlib
import importlib.util
import json
import logging
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import click

from headrace import projects
from headrace.artifacts import home, read_json
from headrace.cli.engines import engine_option
from headrace.errors import ConfigError, SystemTrouble, unknown
from headrace.jobs import Job, parse_override, read_config, resolve
from headrace.placing.isolating import isolated

Command = TypeVar("Command", bound=Callable[..., Any])
T = TypeVar("T")


def _set_level(_context: click.Context, option: click.Parameter, given: bool) -> None:
    if given:
        logging.getLogger("headrace").setLevel(logging.WARNING if option.name == "quiet" else logging.DEBUG)


def verbosity(command: Command) -> Command:
    """Add `-q` and `-v`, which stand after the command's name as well as before it."""
    quiet = click.option("-q", "--quiet", is_flag=True, expose_value=False, callback=_set_level, help="Warnings only.")
    verbose = click.option("-v", "--verbose", is_flag=True, expose_value=False, callback=_set_level, help="Details.")
    return quiet(verbose(command))


def _isolate(context: click.Context, _option: click.Parameter, given: bool) -> None:
    if given:
        context.with_resource(isolated())


# -------------------------------------------------------------------------------------------------- printing


def show_table(columns: Sequence[str], rows: Sequence[Sequence[object]], right: Sequence[str] = ()) -> None:
    """Print a table; a terminal's width is kept, a file gets as much as it needs.

    Args:
        columns: The headings.
        rows: What stands below them; None is shown as nothing.
        right: The columns of numbers.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*("" if value is None else str(value) for value in row))
    console = Console(width=None if sys.stdout.isatty() else 240, highlight=False, markup=False)
    with console.capture() as text:
        console.print(table)
    click.echo("\n".join(line[1:].rstrip() for line in text.get().splitlines() if line.strip()) + "\n")


def show_json(value: Any) -> None:
    """Print one JSON object."""
    click.echo(json.dumps(value, indent=1, ensure_ascii=False, default=str))


def number(value: object) -> str:
    """A number in four digits; what has no value is undefined."""
    return "undefined" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


# ------------------------------------------------------------------------------------------------ requests


@dataclass(frozen=True)
class Request:
    """What the options of `plan` and `run` ask for, checked and completed."""

    job: Job
    overrides: dict[str, Any]

    @property
    def parameters(self) -> dict[str, Any]:
        """The parameters of the workload's flow."""
        job = self.job
        return {
            "variant": job.variant,
            "profile": job.profile,
            "data": job.data,
            "source": job.source,
            "seed": job.seed,
            "overrides": self.overrides,
        }


OPTIONS: dict[str, Callable[[Any], Any]] = {
    "workload": click.argument("workload"),
    "variant": click.option("--variant", help="One of the workload's variants; default: its first."),
    "profile": click.option("--profile", help="full (default), or smoke for a run of seconds."),
    "data": click.option("--data", help="auto (default: real where it can be had, else the twin), real or synthetic."),
    "source": click.option("--source", help="One of the workload's sources, or the path of a CSV or Parquet file."),
    "seed": click.option("--seed", help="Seed of everything random; default: 0."),
    "settings": click.option(
        "--set", "settings", multiple=True, metavar="PATH=VALUE", help="Override a setting; repeatable."
    ),
    "config": click.option("--config", type=click.Path(path_type=Path), help="YAML file of options and settings."),
    "engine": engine_option("local", "prefect", "ray"),
    "isolate": click.option(
        "--isolate",
        is_flag=True,
        expose_value=False,
        callback=_isolate,
        help="Carry out each stage in a process of its own; the environment variable HEADRACE_ISOLATE=1 does the same.",
    ),
    "json": click.option("--json", "as_json", is_flag=True, help="Print one JSON object, also for a failure."),
    "verbosity": verbosity,
}
"""The workload, and the options that say what to run."""


def options(*names: str) -> Callable[[Command], Command]:
    """Add some of `OPTIONS` to a command, in this order."""

    def add(command: Command) -> Command:
        for name in reversed(names):
            command = OPTIONS[name](command)
        return command

    return add


request_options = options(*OPTIONS)
"""Add the workload and all options that say what to run."""


def request(workload: str, settings: Sequence[str], config: Path | None, **options: Any) -> Request:
    """Join configuration file and command line, which wins.

    Raises:
        ConfigError: Something is wrong; the message names every mistake that can be seen.
    """

    def resolved(overrides: dict[str, Any], **chosen: Any) -> Request:
        return Request(resolve(workload, **chosen, overrides=overrides), overrides)

    return asked(resolved, settings, config, **options)


def asked(make: Callable[..., T], settings: Sequence[str], config: Path | None, **options: Any) -> T:
    """Join configuration file and command line, which wins, and make something of them.

    Args:
        make: Takes the overrides and the options that were given.
        settings: What stands after each `--set`.
        config: A YAML file of options and settings.
        **options: What the command line gives, None for nothing.

    Raises:
        ConfigError: Something is wrong; the message names every mistake that can be seen.
    """
    mistakes: list[ConfigError] = []
    chosen: dict[str, Any] = {}
    overrides: dict[str, Any] = {}
    if config:
        try:
            chosen, overrides = read_config(config)
        except ConfigError as error:
            mistakes.append(error)
    for text in settings:
        try:
            path, value = parse_override(text)
            overrides[path] = value
        except ConfigError as error:
            mistakes.append(error)
    chosen |= {name: value for name, value in options.items() if value is not None}
    seed = chosen.get("seed", 0)
    # What is no number is passed on: `resolve` tells it together with the other mistakes.
    chosen["seed"] = int(seed) if isinstance(seed, str) and seed.isdecimal() else seed
    try:
        made = make(overrides=overrides, **chosen)
    except ConfigError as error:
        raise _all_of([*mistakes, error]) from None
    if mistakes:
        raise _all_of(mistakes)
    return made


def _all_of(mistakes: list[ConfigError]) -> ConfigError:
    return mistakes[0] if len(mistakes) == 1 else ConfigError("\n".join(str(mistake) for mistake in mistakes))


# --------------------------------------------------------------------------------- the project and its runs


def newest(workload: str | None, fits: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """The record of the newest completed run that fits, of one workload or of all.

    Raises:
        ConfigError: There is no such workload, or no such run.
    """
    if workload and workload not in projects.names():
        raise unknown("workload", workload, projects.names())
    paths = sorted((home() / "runs").glob(f"{workload or '*'}/*/run.json"), key=lambda path: path.parent.name)
    for path in reversed(paths):
        record = read_json(path)
        if record and record["state"] == "completed" and fits(record):
            return dict(record)
    raise ConfigError(
        f"There is no finished run{f' of {workload}' if workload else ''} to look at.",
        received=f"{len(paths)} runs, none that is completed and still has its files" if paths else "no run",
        remedy=f"headrace run {workload or 'WORKLOAD'}",
    )


def browser_at_hand() -> bool:
    """Whether somebody is at the terminal who has a browser beside it."""
    display = sys.platform == "darwin" or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    return bool(display) and sys.stdout.isatty()


def application(name: str) -> ModuleType:
    """A module of the project's application, which may need Prefect.

    Raises:
        SystemTrouble: Prefect is not installed.
    """
    if str(projects.root()) not in sys.path:
        sys.path.insert(0, str(projects.root()))
    if not importlib.util.find_spec("prefect"):
        raise SystemTrouble(
            "Prefect is not installed here.",
            remedy='`make setup` in a checkout, `pip install "headrace[prefect]"` elsewhere; or use --engine local',
        )
    return importlib.import_module(name)
