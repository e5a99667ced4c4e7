"""How long work shows itself: a bar in a terminal, a line now and then elsewhere, or what the engine puts in place."""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from contextvars import ContextVar

log = logging.getLogger(__name__)

Advance = Callable[[float, str], None]
"""Take the amount that is done by now (not since last time) and a few words about it."""

Meter = Callable[[str, float], AbstractContextManager[Advance]]
"""Title and total → context in which progress is shown."""


@contextlib.contextmanager
def terminal(title: str, total: float) -> Iterator[Advance]:
    """A progress bar on standard error."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, TextColumn("{task.fields[words]}"), console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=total, words="")
        yield lambda done, words: bar.update(task, completed=done, words=words)


@contextlib.contextmanager
def lines(title: str, total: float) -> Iterator[Advance]:
    """One log line every five seconds, and one at the end."""
    last = time.monotonic()

    def advance(done: float, words: str) -> None:
        nonlocal last
        if done >= total or time.monotonic() - last >= 5:
            last = time.monotonic()
            log.info("%s: %g of %g  %s", title, done, total, words)

    yield advance


_meter: ContextVar[Meter | None] = ContextVar("meter", default=None)


def progress(title: str, total: float) -> AbstractContextManager[Advance]:
    """Show the progress of something: `with progress("train", 130) as advance: advance(10, "loss 8.1")`."""
    meter = _meter.get() or (terminal if sys.stderr.isatty() else lines)
    return meter(title, total)


@contextlib.contextmanager
def shown_by(meter: Meter) -> Iterator[None]:
    """Show all progress in this context by another meter, such as an orchestrator's."""
    token = _meter.set(meter)
    try:
        yield
    finally:
        _meter.reset(token)
