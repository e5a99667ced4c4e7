"""What all tasks share: names, retries, how a skip, a failure and progress show, and the core's log lines in the UI.

Prefect's cache stays out of it (`NO_CACHE`): its keys see neither the bytes of a file nor the source of the core. The
core finds out by itself that a stage has nothing to do, and the task run then ends in a state called *Cached*.
"""

from __future__ import annotations

import contextlib
import logging
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from prefect import task
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.cache_policies import NO_CACHE
from prefect.context import FlowRunContext, TaskRunContext
from prefect.logging.handlers import APILogHandler
from prefect.runtime import flow_run
from prefect.states import Completed, Failed
from prefect.utilities import math
from prefect.utilities.annotations import opaque
from websockets.asyncio import connection

from headrace.artifacts import Artifact
from headrace.cli.shared import number
from headrace.console import Advance, lines, shown_by
from headrace.errors import EXIT_VERDICT, HeadraceError, StageFailed, Unavailable
from headrace.jobs import Job
from headrace.judging.verdicts import judge
from headrace.running import Summary, refused
from headrace.stages import Call
from tasks import server

if TYPE_CHECKING:
    from uuid import UUID

    from prefect.client.schemas.objects import State

log = logging.getLogger("headrace.tasks")

MINUTE, HOUR = 60, 3600
ACCELERATOR = "accelerator"
"""Tag of the tasks that compute with a model. A concurrency limit of this name, if there is one on the server, says how
many of them run at the same time, over all flow runs and machines; where there is none, nothing waits."""
PROGRESS_SECONDS = 3.0
"""Progress is sent at most so often, and not at all for work that is shorter."""

Show = Callable[[Job, Artifact], None]
"""Make the Prefect artifacts that tell a person what a stage has made."""


def as_task(
    stage: Call,
    *,
    shows: Show,
    timeout: float | None,
    retry_delays: Sequence[float] = (),
    about: Callable[[Job], str] | None = None,
    accelerated: bool = False,
) -> Call:
    """Make a Prefect task of a stage.

    Args:
        stage: A stage of the core.
        shows: Called with the job and what the stage made or found, so that every run's page shows it.
        timeout: Seconds after which an attempt is given up; None for never.
        retry_delays: Seconds to wait before each further attempt, if the failure may pass by itself.
        about: A word on the job to be added to the name of the task run.
        accelerated: Whether it computes with a model, and waits for a place if `ACCELERATOR` is limited.

    Returns:
        Something to call as the stage is called; it raises what the stage raises.
    """
    name = stage.__name__.replace("_", "-")

    def carry_out(job: Job, *inputs: Any, **named: Any) -> State[Artifact]:
        with shown_by(meter):
            made = stage(job, *inputs, **named)
        with optional(f"what {name} has made"):
            shows(job, made)
        return Completed(name="Cached" if made.state == "skipped" else None, message=made.reason, data=made)

    def run_name(parameters: dict[str, Any]) -> str:
        named, job = parameters["named"], parameters["job"]
        words = [name, *([job.label] if job.label else [])]
        if named.get("repeat") is not None:
            words.append(f"repeat {named['repeat']}")
        if named.get("fold") is not None:
            words.append(f"fold {named['fold']} of {named['folds']}")
        return " · ".join([*words, *([about(job)] if about else [])])

    # Prefect tells tasks apart by the name of their function.
    carry_out.__name__ = carry_out.__qualname__ = stage.__name__
    carry_out.__doc__ = stage.__doc__
    run = task(
        name=name,
        task_run_name=cast(Any, run_name),
        tags={"headrace", name, *([ACCELERATOR] if accelerated else [])},
        cache_policy=NO_CACHE,
        persist_result=False,
        timeout_seconds=timeout,
        retries=len(retry_delays),
        retry_delay_seconds=list(retry_delays),
        retry_condition_fn=may_pass,
    )(carry_out)

    def call(job: Job, *inputs: Any, **named: Any) -> Artifact:
        hear_the_core()
        if flow_run.id:
            server.hold(flow_run.id)
        state = run(
            opaque(job),
            *map(untouched, inputs),
            return_state=True,
            **{key: untouched(value) for key, value in named.items()},
        )
        _counted.get([]).append(str(state.state_details.task_run_id))
        outcome: Any = state.result(raise_on_failure=False)
        if isinstance(outcome, TimeoutError):
            raise StageFailed(f"{name}: {state.message}") from outcome
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    call.__name__ = stage.__name__
    call.__doc__ = stage.__doc__
    return call


def untouched(value: Any) -> Any:
    """Keep Prefect from walking through an argument.

    It tells what a task run depends on by the identity of every part of its arguments: equal strings within two
    artifacts would draw an arrow where there is none.
    """
    return [untouched(item) for item in value] if isinstance(value, list | tuple) else opaque(value)


def may_pass(_task: object, _run: object, state: State[Any]) -> bool:
    """Whether a failure may pass by itself: what can't be reached now can be later, a wrong checksum stays wrong."""
    return isinstance(state.data, Unavailable)


# --------------------------------------------------------------------------------------------- flow runs


class Rejected(HeadraceError):
    """Everything ran, and the verdict is *fail*."""

    exit_code = EXIT_VERDICT
    summary: Summary


def concluded(summary: Summary) -> Any:
    """The state in which a flow run ends: *Completed*, or *Rejected* (a failure) with the reasons of the verdict.

    Which verdicts make a failure of a run is the policy of the variant (`Publish.on_fail`, `Publish.on_not_judged`).
    """
    verdict = summary["verdict"]
    reasons = judge(summary["gates"])[1]
    if not refused(summary):
        figures = [f"{name} {number(value)}" for name, value in summary["metrics"].items()]
        figures += [reasons] if reasons else []
        return Completed(message=f"verdict: {verdict} ({', '.join(figures)})", data=summary)
    rejected = Rejected(f"The verdict is {verdict}: {reasons}")
    rejected.summary = summary
    return Failed(name="Rejected", message=rejected.problem, data=rejected)


def flow_run_name() -> str:
    """The name of a flow run: the job in a few words, as the command line and the report name it."""
    job = Job.model_construct(workload=flow_run.flow_name, **flow_run.parameters)
    return (job if job.source else job.model_copy(update={"source": job.usual_source})).title


def fan_out_name() -> str:
    """The name of a run of many trainings: workload, name of the study or tuning, and what is unusual about it."""
    given = flow_run.parameters
    unusual = [given["profile"]] if given.get("profile") != "full" else []
    name = given["name"] or ", ".join(given.get("members") or [])
    return " · ".join([given["workload"], name, *unusual])


_counted: ContextVar[list[str]] = ContextVar("counted")


@contextlib.contextmanager
def counted() -> Iterator[list[str]]:
    """Collect the ids of all task runs that are made in this context."""
    made: list[str] = []
    token = _counted.set(made)
    try:
        yield made
    finally:
        _counted.reset(token)


# --------------------------------------------------------------------------------------------- what shows


@contextlib.contextmanager
def optional(what: str) -> Iterator[None]:
    """Go on without it if something can't be shown: no picture is worth a run."""
    try:
        yield
    except Exception as error:
        log.warning("%s can't be shown: %s: %s", what, type(error).__name__, error)


@contextlib.contextmanager
def meter(title: str, total: float | None) -> Iterator[Advance]:
    """Show progress as log lines and, if it takes a while, as a bar on the page of the run (`console.Meter`)."""
    bar: UUID | None = None
    last = time.monotonic()

    def show(percent: float, words: str) -> None:
        nonlocal bar
        with optional(f"the progress of {title}"):
            if bar is None:
                bar = cast("UUID", create_progress_artifact(percent, description=f"{title}: {words}"))
            else:
                update_progress_artifact(bar, percent, description=f"{title}: {words}")

    with lines(title, total) as say:

        def advance(done: float, words: str) -> None:
            nonlocal last
            say(done, words)
            if total and time.monotonic() - last >= PROGRESS_SECONDS:
                last = time.monotonic()
                show(min(100.0, 100 * done / total), words)

        yield advance
    if bar is not None:
        show(100.0, "done")


@cache
def hear_the_core() -> None:
    """Send what the core reports to the logs of the run, in whatever way the run was started.

    Prefect's own setting for this (`PREFECT_LOGGING_EXTRA_LOGGERS`) must be in the environment before Prefect is
    imported, leaves the level at WARNING, and complains about each line that is logged outside of a run.
    """
    logger = logging.getLogger("headrace")
    handler = APILogHandler()
    handler.addFilter(lambda record: bool(FlowRunContext.get() or TaskRunContext.get()))
    logger.addHandler(handler)
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.INFO)


def _is_news(record: logging.LogRecord) -> bool:
    """Keep Prefect brief about errors that explain themselves: they are told in full with the final state.

    The traceback of such an error is dropped, and of a line about another attempt only the problem is left.
    """
    if isinstance(record.args, tuple):
        record.args = tuple(arg.problem if isinstance(arg, HeadraceError) else arg for arg in record.args)
    return not (record.exc_info and isinstance(record.exc_info[1], HeadraceError))


for _logger in ("prefect.flow_runs", "prefect.task_runs"):
    logging.getLogger(_logger).addFilter(_is_news)


def _draw_apart() -> None:
    """Give Prefect's threads dice of their own.

    They draw from Python's `random` whenever it suits them (the pings of a web socket, waiting times), and Keras draws
    the seeds of weights from it: a ping between seeding and building a model gave another model.
    """
    for module in (math, connection):
        vars(module)["random"] = random.Random()


_draw_apart()


def source_of(job: Job) -> str:
    """The source of the job in a word."""
    return Path(job.source).name
