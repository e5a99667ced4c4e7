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
from contextvars import copy_context
from functools import wraps
from typing import Any, TypeVar

from headrace.artifacts import Artifact
from headrace.errors import SystemTrouble
from headrace.isolating import end_with_caller
from headrace.jobs import Job

T = TypeVar("T")


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


@contextlib.contextmanager
def workers(limit: int) -> Iterator[Callable[[Callable[..., Artifact]], Callable[..., Artifact]]]:
    """Have processes to carry out stages, ended with the context, and with this process however it ends.

    Args:
        limit: How many; with 1 there are none, and stages run where they are called.

    Yields:
        Function from a stage to one that runs in a worker, unless there is nothing to do.
    """
    if limit <= 1:
        yield lambda stage: stage
        return
    pool = ProcessPoolExecutor(limit, multiprocessing.get_context("spawn"), initializer=_begin)

    def elsewhere(stage: Any) -> Callable[..., Artifact]:
        @wraps(stage)
        def call(job: Job, *args: Any, **kwargs: Any) -> Artifact:
            found: Artifact = stage.plan(job, *args, **kwargs)
            if found.state == "skipped":
                return found
            work = pool.submit(_carry_out, stage.__module__, stage.__name__, job.model_dump_json(), args, kwargs)
            try:
                return work.result()
            except BrokenProcessPool as error:
                raise SystemTrouble(
                    f"A worker process has ended without a word, perhaps that of {found.node}.",
                    expected="enough memory for all that run at once",
                    remedy="the same command with a smaller --jobs; what was finished is kept",
                ) from error

        return call

    try:
        yield elsewhere
    except BaseException:
        # Nobody waits for what they are doing: their checkpoints are there for the next attempt.
        for process in list((pool._processes or {}).values()):
            process.kill()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _begin() -> None:
    """Prepare a worker: Ctrl-C is for the caller to answer, and a worker does not outlive it."""
    end_with_caller()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    logging.getLogger("headrace").setLevel(logging.WARNING)


def _carry_out(module: str, name: str, job: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Artifact:
    """Call a stage in a worker."""
    stage = getattr(importlib.import_module(module), name)
    made: Artifact = stage(Job.model_validate_json(job), *args, **kwargs)
    return made
