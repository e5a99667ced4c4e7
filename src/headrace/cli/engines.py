"""Who carries the stages of a command out, and how many trainings at a time."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from headrace.placing.spreading import Share, crew

if TYPE_CHECKING:
    from headrace.chain import Stages

Command = TypeVar("Command", bound=Callable[..., Any])

ENGINES = {
    "local": "this process",
    "prefect": "a Prefect flow run",
    "ray": "trainings, and parts of the data, on the nodes of a Ray cluster, the rest in this process",
}
"""Who carries the stages out."""


def engine_option(*names: str) -> Callable[[Any], Any]:
    """The option that says who carries the stages out."""
    said = "; ".join(f"{name}: {ENGINES[name]}" for name in names)
    return click.option(
        "--engine",
        type=click.Choice(names),
        default="local",
        show_default=True,
        help=f"Who carries the stages out. {said}.",
    )


@dataclass(frozen=True)
class Spread:
    """How many trainings run at a time, and what each asks of a cluster."""

    jobs: int | None
    share: Share


def spread_options(command: Command) -> Command:
    """Add how trainings are spread; the command gets them as `spread`."""

    @click.option(
        "--jobs",
        type=click.IntRange(min=1),
        help="Trainings at the same time, each in a process of its own; default: 1, on a cluster as many as fit.",
    )
    @click.option(
        "--cpus",
        type=click.FloatRange(min=0, min_open=True),
        default=1.0,
        show_default=True,
        help="Processors that a training (each of its workers), or a part of the data, asks of a Ray cluster.",
    )
    @click.option(
        "--gpus",
        type=click.FloatRange(min=0),
        default=0.0,
        show_default=True,
        help="Accelerators that a training (each of its workers) asks of a Ray cluster.",
    )
    @click.option(
        "--workers",
        type=click.IntRange(min=1),
        default=1,
        show_default=True,
        help="Processes of a Ray cluster that train one model together (train.strategy=multi_worker).",
    )
    @functools.wraps(command)
    def spread(*args: Any, jobs: int | None, cpus: float, gpus: float, workers: int, **kwargs: Any) -> Any:
        return command(*args, spread=Spread(jobs, Share(cpus, gpus, workers)), **kwargs)

    return cast(Command, spread)


@contextlib.contextmanager
def carried_out_by(engine: str, spread: Spread) -> Iterator[tuple[Stages, int]]:
    """The stages, trainings and evaluations of which an engine of the core's own carries out, and how many at a time.

    Args:
        engine: `local` or `ray`.
        spread: How many, and what each asks for.
    """
    from headrace.chain import Stages

    plain = Stages.plain()
    with crew(spread.jobs, spread.share if engine == "ray" else None) as (elsewhere, limit):
        yield replace(plain, train=elsewhere(plain.train), evaluate=elsewhere(plain.evaluate)), limit
