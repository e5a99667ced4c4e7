"""Several calls at once: in threads that wait, and in worker processes that train.

TensorFlow and Keras keep seeds, names of layers and much else once for a process, so that two trainings in threads of
one process would disturb each other. What runs at the same time runs in processes; the threads of the caller only wait
for them (and tell Prefect, where the calls are tasks).
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial, wraps
from multiprocessing.connection import Connection
from typing import Any, TypeVar, cast

from headrace.artifacts import Artifact
from headrace.console import shown_by
from headrace.errors import SystemTrouble
from headrace.jobs import Job
from headrace.placing.isolating import end_with_caller
from headrace.placing.telling import LISTEN_SECONDS, Say, Teller, Told, listening
from headrace.stages import Call
from headrace.storing.depots import at_hand

PROGRESS_SECONDS = 1.0
"""How often each work tells its progress at most: whoever shows it must keep up with all of them."""

T = TypeVar("T")
Elsewhere = Callable[[Call], Call]
"""From a stage to one that is carried out by another process."""


def at_once(calls: Sequence[Callable[[], T]], limit: int) -> list[T]:
    """Carry out calls, as many at the same time as the limit says, and return their results in the order of the calls.

    Args:
        calls: What to do.
        limit: 1 does one after the other, in this thread.

    Raises:
        Exception: The first that a call raises; those that had not begun are left out.
    """
    if limit <= 1:
        return [call() for call in calls]
    threads = ThreadPoolExecutor(limit)
    try:
        futures = [threads.submit(copy_context().run, call) for call in calls]
        wait(futures, return_when=FIRST_EXCEPTION)
    finally:
        # Not waited for: after Ctrl-C or a failure the caller ends the workers, and with them what is going on.
        threads.shutdown(wait=False, cancel_futures=True)
    return [future.result() for future in futures if not future.cancelled()]


@dataclass(frozen=True)
class Work:
    """A call of a stage, as another process can be given it."""

    module: str
    name: str
    job: str
    """JSON of the job."""
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    node: str
    """What the call is called, for messages."""

    @property
    def arguments(self) -> dict[str, Any]:
        """All arguments beside the job."""
        return {**{str(place): value for place, value in enumerate(self.args)}, **self.kwargs}


def elsewhere(stage: Any, submit: Callable[[Work], Artifact]) -> Call:
    """A stage that is carried out where `submit` has it done, unless there is nothing to do."""

    @wraps(stage)
    def call(job: Job, *args: Any, **kwargs: Any) -> Artifact:
        found: Artifact = stage.plan(job, *args, **kwargs)
        if found.state == "skipped":
            return cast(Artifact, at_hand(found))
        return submit(Work(stage.__module__, stage.__name__, job.model_dump_json(), args, kwargs, found.node))

    return call


@dataclass(frozen=True)
class Share:
    """What a training asks of a cluster."""

    cpus: float = 1
    """Processors of each of its workers."""
    gpus: float = 0
    """Accelerators of each of its workers; without any it sees none."""
    workers: int = 1
    """Processes that train one model together (`train.strategy=multi_worker`), on as many nodes as it takes."""


@contextlib.contextmanager
def crew(jobs: int | None = None, cluster: Share | None = None) -> Iterator[tuple[Elsewhere, int]]:
    """Have somebody to carry out stages: this process, some of this machine, or the nodes of a Ray cluster.

    Args:
        jobs: Stages at the same time; None: one, or on a cluster as many as it has room for.
        cluster: What each asks of a cluster; None to do without one.

    Yields:
        Function from a stage to one that they carry out, and how many they carry out at the same time.
    """
    if cluster:
        from headrace.placing.clusters import nodes

        with nodes(jobs, cluster) as found:
            yield found
    else:
        with workers(jobs or 1) as elsewhere:
            yield elsewhere, jobs or 1


@contextlib.contextmanager
def workers(limit: int) -> Iterator[Elsewhere]:
    """Have processes to carry out stages, ended with the context, and with this process however it ends.

    Args:
        limit: How many; with 1 there are none, and stages run where they are called.

    Yields:
        Function from a stage to one that runs in a worker, unless there is nothing to do.
    """
    if limit <= 1:
        yield lambda stage: stage
        return
    spawn = multiprocessing.get_context("spawn")
    heard, told = spawn.Pipe(duplex=False)
    pool = ProcessPoolExecutor(limit, spawn, initializer=_prepare, initargs=(told, spawn.Lock()))

    def receive() -> list[tuple[int, Told]]:
        return [heard.recv()] if heard.poll(LISTEN_SECONDS) else []

    def submit(work: Work) -> Artifact:
        try:
            with exchange.line() as line:
                return pool.submit(_carry_out, work, line).result()
        except BrokenProcessPool as error:
            raise SystemTrouble(
                f"A worker process has ended without a word, perhaps that of {work.node}.",
                expected="enough memory for all that run at once",
                remedy="the same command with a smaller --jobs; what was finished is kept",
            ) from error

    try:
        with listening(receive) as exchange:
            yield lambda stage: elsewhere(stage, submit)
    except BaseException:
        # Nobody waits for what they are doing: their checkpoints are there for the next attempt.
        for process in list((pool._processes or {}).values()):
            process.kill()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


_say: Callable[[int, Told], None]
"""In a worker: tells the caller something about the work of this number."""


def _prepare(told: Connection, one_at_a_time: AbstractContextManager[Any]) -> None:
    """Prepare a worker: Ctrl-C is for the caller to answer, and a worker does not outlive it."""
    global _say
    end_with_caller()
    begin()

    def say(line: int, message: Told) -> None:
        with one_at_a_time:
            told.send((line, message))

    _say = say


def _carry_out(work: Work, line: int) -> Artifact:
    return carry_out(work, partial(_say, line))


def begin() -> None:
    """Prepare a process that carries out stages of another one: what it does is told there."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    logging.getLogger("headrace").setLevel(logging.WARNING)


def carry_out(work: Work, say: Say) -> Artifact:
    """Call a stage, in the process that was given it, and tell its progress."""
    stage = getattr(importlib.import_module(work.module), work.name)
    with shown_by(Teller(say, PROGRESS_SECONDS)):
        made: Artifact = stage(Job.model_validate_json(work.job), *work.args, **work.kwargs)
    return made
