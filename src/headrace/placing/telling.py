"""Progress of work that another process does, shown where the work was asked for."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from contextvars import Context, copy_context
from typing import Any

from headrace.console import Advance, progress

LISTEN_SECONDS = 0.5

Told = dict[str, Any]
"""What a process says; `says` is its kind: that a meter begins, advances, or ends."""
Say = Callable[[Told], None]
"""Sends one message."""


class Teller:
    """Shows progress by telling the process that asked for the work (a `console.Meter`).

    Args:
        say: Sends one message.
        every: Seconds between two messages of a meter: a step of a small model takes microseconds.
    """

    def __init__(self, say: Say, every: float) -> None:
        self._say, self._every = say, every
        self._numbers = itertools.count()

    @contextlib.contextmanager
    def __call__(self, title: str, total: float | None) -> Iterator[Advance]:
        """Progress under a title; what was left unsaid is said at the end."""
        number = next(self._numbers)
        last, unsaid = 0.0, None

        def advance(done: float, words: str) -> None:
            nonlocal last, unsaid
            now = time.monotonic()
            if now - last < self._every:
                unsaid = (done, words)
                return
            last, unsaid = now, None
            self._say({"says": "advances", "meter": number, "done": done, "words": words})

        self._say({"says": "begins", "meter": number, "title": title, "total": total})
        try:
            yield advance
        finally:
            if unsaid:
                self._say({"says": "advances", "meter": number, "done": unsaid[0], "words": unsaid[1]})
            self._say({"says": "ends", "meter": number})


class Listener:
    """Shows the progress that one teller tells."""

    def __init__(self) -> None:
        self._meters: dict[int, tuple[ExitStack, Advance]] = {}

    def hear(self, told: Told) -> bool:
        """Show it, and say whether it was about progress."""
        match told["says"]:
            case "begins":
                # A work that was lost and is begun again counts its meters anew.
                self._end(told["meter"])
                meter = ExitStack()
                self._meters[told["meter"]] = (meter, meter.enter_context(progress(told["title"], told["total"])))
            case "advances":
                if told["meter"] in self._meters:
                    self._meters[told["meter"]][1](told["done"], told["words"])
            case "ends":
                self._end(told["meter"])
            case _:
                return False
        return True

    def _end(self, number: int) -> None:
        if number in self._meters:
            self._meters.pop(number)[0].close()

    def close(self) -> None:
        """End what has not said that it ends, the last one first."""
        while self._meters:
            self._meters.popitem()[1][0].close()


class Exchange:
    """Progress of several works, each of them shown in the context in which it was asked for.

    Messages may come by any thread; those of works that are over are dropped.
    """

    def __init__(self) -> None:
        self._numbers = itertools.count()
        self._known: dict[int, tuple[Context, Listener]] = {}
        self._one_at_a_time = threading.Lock()

    @contextlib.contextmanager
    def line(self) -> Iterator[int]:
        """The number under which a work tells its progress, as long as it lasts."""
        listener = Listener()
        with self._one_at_a_time:
            number = next(self._numbers)
            self._known[number] = (copy_context(), listener)
        try:
            yield number
        finally:
            with self._one_at_a_time:
                del self._known[number]
                listener.close()

    def hear(self, number: int, told: Told) -> None:
        """Show what a work tells."""
        with self._one_at_a_time:
            if number in self._known:
                context, listener = self._known[number]
                context.run(listener.hear, told)


@contextlib.contextmanager
def listening(receive: Callable[[], Iterable[tuple[int, Told]]]) -> Iterator[Exchange]:
    """An exchange that hears what a thread receives, until the context ends.

    Args:
        receive: Waits `LISTEN_SECONDS` at most, and returns what has come by then: numbers of works, and what each
            tells. When it raises, nobody is left who could tell anything.
    """
    exchange = Exchange()
    over = threading.Event()

    def listen() -> None:
        while not over.is_set():
            try:
                messages = list(receive())
            except Exception:
                # What has become of the works, those who wait for them are told.
                return
            for message in messages:
                exchange.hear(*message)

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    try:
        yield exchange
    finally:
        over.set()
        thread.join(10 * LISTEN_SECONDS)
