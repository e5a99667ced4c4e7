"""Work on a stream of data: in one go where it is asked for, or divided into parts that helpers work on.

Work that can be divided takes the pieces of a stream one after the other and gives its results in their order, and
what it gives for some of them does not depend on those before. How the data are cut into pieces is for the caller,
and never depends on who does the work: so that the results are the same, byte for byte, however many helpers there are.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from typing import Any, TypeVar

Piece = TypeVar("Piece")
Result = TypeVar("Result")

Work = Callable[[Iterable[Any]], Iterable[Any]]
"""From the pieces of a stream to its results. With helpers it is pickled, once for all parts."""
Helpers = Callable[[Work, Iterable[list[Any]]], Iterator[Iterable[Any]]]
"""From work and the parts of a stream to the results of each part, in their order."""

PART = 64 * 2**20
"""Bytes of pieces from which on a part is full. Large enough that sending it costs little beside the work on it, small
enough that helpers end at about the same time, and that a few parts for each of them fit into memory."""
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
    """Do work on a stream: by the helpers of the context, if there are any and more than one part of it; else here.

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
    cut = parts(until_trouble(trouble, pieces), size)
    first = list(itertools.islice(cut, 2))
    if len(first) < 2:
        # It would be done before a helper is ready.
        yield from work(itertools.chain.from_iterable(first))
    else:
        yield from itertools.chain.from_iterable(helpers(work, itertools.chain(first, cut)))
    if trouble:
        raise trouble[0]


def parts(pieces: Iterable[Piece], size: Callable[[Piece], int]) -> Iterator[list[Piece]]:
    """Pieces in lists of `PART` bytes and up to one piece more."""
    part: list[Piece] = []
    held = 0
    for piece in pieces:
        part.append(piece)
        held += size(piece)
        if held >= PART:
            yield part
            part, held = [], 0
    if part:
        yield part


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
