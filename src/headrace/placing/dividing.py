"""Work on a stream of data: in one go where it is asked for, or divided into parts that helpers work on.

Work that can be divided takes the pieces of a stream one after the other and gives its results in their order, and
what it gives for some of them does not depend on those before. How the data are cut into pieces is for the caller,
and never depends on who does the work: so that the results are the same, byte for byte, however many helpers there are.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from typing import Any, TypeVar

Piece = TypeVar("Piece")
Result = TypeVar("Result")

Work = Callable[[Iterable[Any]], Iterable[Any]]
"""From the pieces of a stream to its results. With helpers it is pickled, once for all parts."""
Helpers = Callable[[Work, Iterable[list[Any]]], Iterator[tuple[Iterable[Any], float]]]
"""From work and the parts of a stream to the results of each part and the seconds that it took, in their order."""

SECONDS = 1.0
"""What the work on a part should take: long beside sending it, and so short that helpers end at about the same time."""
PART = 64 * 2**20
"""Bytes from which on a part is full however little there is to do: a few of them for each helper fit into memory."""
FEW = 2**23
"""Bytes that are worked on here in any case, unless that takes longer than a part should: no helper is ready before."""
SENT = 250e6
"""Bytes a second that can be sent to helpers and back. Work that is quicker is not sent."""
PROCESSORS = "HEADRACE_PROCESSORS"
"""Variable of the environment: how many processors may be used at once; default: those that the process is given."""

_helpers: ContextVar[Helpers | None] = ContextVar("helpers", default=None)


@contextlib.contextmanager
def helped_by(helpers: Helpers) -> Iterator[None]:
    """Have helpers do the work that can be divided, in this context."""
    token = _helpers.set(helpers)
    try:
        yield
    finally:
        _helpers.reset(token)


def divided(
    work: Callable[[Iterable[Piece]], Iterable[Result]], pieces: Iterable[Piece], size: Callable[[Piece], int]
) -> Iterator[Result]:
    """Do work on a stream: here, or by the helpers of the context if there are any and it is worth sending.

    Args:
        work: What to do.
        pieces: The stream. An error that it raises comes after the results of what was there before it, as here.
        size: Of a piece, in bytes: of it and of what becomes of it.

    Returns:
        The results, in the order of the pieces.
    """
    helpers = _helpers.get()
    if helpers is None:
        yield from work(pieces)
        return
    trouble: list[Exception] = []
    parts = Parts(until_trouble(trouble, pieces), size)
    begun = time.perf_counter()
    yield from work(parts.first())
    parts.took(time.perf_counter() - begun - parts.reading)
    if parts.rate > SENT:
        yield from work(parts.rest)
    else:
        for results, seconds in helpers(work, parts):
            parts.took(seconds)
            yield from results
    if trouble:
        raise trouble[0]


class Parts:
    """Pieces in lists of as many as are worked on in `SECONDS`, and up to one piece more.

    A photograph of which a network makes features takes a hundred times as long as one that is only decoded. How long
    is learned from the first pieces, which are worked on here, and then from each part.

    Args:
        pieces: What is cut.
        size: Of a piece, in bytes.
    """

    rest: Iterator[Any]
    """The pieces that are in no part yet."""
    rate: float = 0.0
    """Bytes of pieces that are worked on in a second, as far as it is known."""
    reading: float = 0.0
    """Seconds that it took to come by the first pieces: no part of the work on them."""

    def __init__(self, pieces: Iterable[Piece], size: Callable[[Piece], int]) -> None:
        self.rest, self._size = iter(pieces), size
        self._under_way: deque[int] = deque()

    def first(self) -> Iterator[Any]:
        """What is worked on here: `FEW` bytes, or as many pieces as are begun in `SECONDS`."""
        held = 0
        until = time.perf_counter() + SECONDS
        while held <= FEW and time.perf_counter() < until:
            begun = time.perf_counter()
            piece = next(self.rest, None)
            self.reading += time.perf_counter() - begun
            if piece is None:
                break
            held += self._size(piece)
            yield piece
        self._under_way.append(held)

    def __iter__(self) -> Iterator[list[Any]]:
        part: list[Any] = []
        held = 0
        for piece in self.rest:
            part.append(piece)
            held += self._size(piece)
            if held >= min(PART, self.rate * SECONDS):
                self._under_way.append(held)
                yield part
                part, held = [], 0
        if part:
            self._under_way.append(held)
            yield part

    def took(self, seconds: float) -> None:
        """How long the work on a part was: the first of those of which it was not told yet."""
        self.rate = self._under_way.popleft() / max(seconds, SHORTEST)


SHORTEST = 1e-6
"""Seconds that any work takes."""


def until_trouble(trouble: list[Exception], pieces: Iterable[Piece]) -> Iterator[Piece]:
    """The pieces up to an error, which is kept for later."""
    try:
        yield from pieces
    except Exception as error:
        trouble.append(error)


def in_turn(submit: Callable[[Piece], Callable[[], Result]], pieces: Iterable[Piece], ahead: int) -> Iterator[Result]:
    """Results in the order of the pieces, while some of them are worked on.

    Args:
        submit: Has a piece worked on, and returns what waits for its result.
        pieces: What to work on; no more are taken than are worked on, so that memory does not grow with them. An error
            that they raise comes after the results of those before it.
        ahead: How many are worked on, or done and not taken yet, while the first of them is waited for.
    """
    waiting: deque[Callable[[], Result]] = deque()
    trouble: list[Exception] = []
    for piece in until_trouble(trouble, pieces):
        waiting.append(submit(piece))
        if len(waiting) > ahead:
            yield waiting.popleft()()
    while waiting:
        yield waiting.popleft()()
    if trouble:
        raise trouble[0]


def in_threads(
    work: Callable[[Piece], Result], pieces: Iterable[Piece], threads: int | None = None
) -> Iterator[Result]:
    """What work makes of each piece, in their order, by threads; default: one for each processor.

    Of a single one that would be a second thread at work, beside the one that asks: it is done by that.
    """
    threads = threads or processors()
    if threads == 1:
        yield from map(work, pieces)
        return
    with ThreadPoolExecutor(threads) as pool:
        yield from in_turn(lambda piece: pool.submit(work, piece).result, pieces, threads)


def processors() -> int:
    """How many processors this process may use at once."""
    given = os.environ.get(PROCESSORS)
    return int(given) if given else len(os.sched_getaffinity(0))
