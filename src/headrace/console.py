"""How long work shows itself: a bar in a terminal, a line now and then elsewhere, or what the engine puts in place."""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress

log = logging.getLogger(__name__)

Advance = Callable[[float, str], None]
"""Take the amount that is done by now (not since last time) and a few words about it."""

Meter = Callable[[str, float | None], AbstractContextManager[Advance]]
"""Title and total (None: not known before the end) → context in which progress is shown."""


@contextlib.contextmanager
def terminal(title: str, total: float | None) -> Iterator[Advance]:
    """A progress bar on standard error."""
    with _bars.one_more(title, total) as advance:
        yield advance


class _Bars:
    """One display of all bars, each below those that began before it, in whatever order and thread they end."""

    def __init__(self) -> None:
        self._shown: Progress | None = None
        self._one_at_a_time = threading.Lock()

    @contextlib.contextmanager
    def one_more(self, title: str, total: float | None) -> Iterator[Advance]:
        """A bar in the display, which is there as long as it has any."""
        with self._one_at_a_time:
            if not self._shown:
                self._shown = _display()
                self._shown.start()
            shown = self._shown
            task = shown.add_task(title, total=total, words="")
        try:
            yield lambda done, words: shown.update(task, completed=done, words=words)
        finally:
            with self._one_at_a_time:
                shown.remove_task(task)
                if not shown.tasks:
                    shown.stop()
                    self._shown = None


def _display() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, TextColumn("{task.fields[words]}"), console=Console(stderr=True), transient=True)


_bars = _Bars()


@contextlib.contextmanager
def lines(title: str, total: float | None) -> Iterator[Advance]:
    """One log line for each unit that takes a second or longer, such as an epoch; else every five seconds."""
    last, told = time.monotonic(), 0.0

    def advance(done: float, words: str) -> None:
        nonlocal last, told
        one_more = int(done) > int(told) and done - told <= 1
        wait = 5 if not one_more else 1 if told else 0
        if time.monotonic() - last >= wait or (total is not None and done >= total):
            last, told = time.monotonic(), done
            of = "" if total is None else f" of {total:g}"
            log.info("%s: %g%s  %s", title, round(done, 2), of, words)

    yield advance


_meter: ContextVar[Meter | None] = ContextVar("meter", default=None)


def progress(title: str, total: float | None) -> AbstractContextManager[Advance]:
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
