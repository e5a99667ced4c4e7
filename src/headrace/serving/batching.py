"""Requests that wait are asked together: what came while the model was at work makes the next batch."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from headrace.serving.payloads import Refused

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]
    Arrays = Mapping[str, Array]

Ask = Callable[["Arrays", str], "dict[str, Array]"]
"""Inputs and the name of a signature → outputs; called in a thread of its own."""

_Result: TypeAlias = "dict[str, Array] | Exception"

AGAIN = 1
"""Seconds after which a request that found no room may be repeated."""

QUICK = 0.005
"""Seconds: a model that takes less is asked in the server's own thread, where nobody else is waiting: changing to
another thread and back takes a good part of the time of a small model."""


@dataclass(eq=False)
class _Waiting:
    """A request that is not answered yet."""

    kind: tuple[Any, ...]
    """What it must have in common with others to be asked together: signature and shapes."""
    inputs: Arrays
    rows: int
    answer: asyncio.Future[dict[str, Array]]
    since: float


@dataclass(frozen=True)
class Limits:
    """How requests are put together, and how many may wait."""

    batch: int = 64
    """Examples that are asked together, at most; longer requests are asked in parts."""
    wait: float = 0.0
    """Seconds for which an idle model waits for more before it begins. 0: batches form by themselves under load."""
    queue: int = 4096
    """Examples that may wait, at most."""
    seconds: float = 30.0
    """After which a request is given up."""


class Batcher:
    """Answers requests one batch at a time, in the order of their coming.

    Only requests of equal shapes are put together, so that no value is made up to fill a gap. If a batch fails, each of
    its requests is asked alone, so that nobody pays for another's mistake.

    Args:
        ask: The model.
        thread: Where it is asked: one thread.
        limits: How requests are put together.
        told: Called with the number of examples of each batch.
    """

    def __init__(
        self, ask: Ask, thread: ThreadPoolExecutor, limits: Limits, told: Callable[[int], None] = lambda rows: None
    ) -> None:
        self._ask = ask
        self._thread = thread
        self._limits = limits
        self._told = told
        self._queue: deque[_Waiting] = deque()
        self._busy = False
        self._took = QUICK
        """Seconds of the batch before this one."""
        self._later: asyncio.TimerHandle | None = None
        self.waiting = 0
        """Examples that are not answered yet."""

    async def answer(self, signature: str, inputs: Arrays, rows: int | None, alone: bool = False) -> dict[str, Array]:
        """The outputs for a request.

        Args:
            signature: Which one is asked.
            inputs: Its inputs.
            rows: Examples in it; None if it can't be put together with others.
            alone: Whether no other request is being read or answered.

        Raises:
            Refused: There is no room (429), or it took too long (504).
            Exception: What the model raises.
        """
        size = rows or 1
        # One that is larger than the queue is taken when nobody else is there.
        if self.waiting and self.waiting + size > self._limits.queue:
            raise Refused(429, f"{self.waiting} examples are waiting already: try again later.", AGAIN)
        loop = asyncio.get_running_loop()
        # What can't be put together is of a kind of its own.
        shapes = ((name, values.shape[1:]) for name, values in inputs.items())
        kind = (signature, object()) if rows is None else (signature, *shapes)
        one = _Waiting(kind, inputs, size, loop.create_future(), loop.time())
        if alone and not self._busy and not self.waiting and self._took < QUICK and not self._limits.wait:
            self._told(size)
            (result,) = self._computed([one])
            if isinstance(result, Exception):
                raise result
            return result
        self._queue.append(one)
        self.waiting += size
        self._begin(loop)
        late = loop.call_later(self._limits.seconds, _give_up, one.answer, self._limits.seconds)
        try:
            return await one.answer
        finally:
            late.cancel()

    async def close(self) -> None:
        """Answer what is waiting, then end."""
        while self.waiting or self._busy:
            await asyncio.sleep(0.005)

    def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        """Ask the next batch, unless one is being asked or more requests are waited for."""
        if self._later:
            self._later.cancel()
            self._later = None
        if self._busy or not self._queue:
            return
        left = self._queue[0].since + self._limits.wait - loop.time() if self._limits.wait else 0
        if left > 0 and self.waiting < self._limits.batch:
            self._later = loop.call_later(left, self._begin, loop)
            return
        batch = self._next()
        if batch:
            self._busy = True
            self._told(sum(one.rows for one in batch))
            self._thread.submit(self._work, loop, batch)

    def _finish(self, loop: asyncio.AbstractEventLoop, batch: list[_Waiting], results: list[_Result]) -> None:
        for one, result in zip(batch, results, strict=True):
            self.waiting -= one.rows
            if one.answer.done():
                continue
            if isinstance(result, Exception):
                one.answer.set_exception(result)
            else:
                one.answer.set_result(result)
        self._busy = False
        self._begin(loop)

    def _next(self) -> list[_Waiting]:
        """The first request and those that go with it; the others keep their places."""
        batch: list[_Waiting] = []
        rows, others = 0, deque[_Waiting]()
        while self._queue:
            one = self._queue.popleft()
            if one.answer.done():
                self.waiting -= one.rows
            elif not batch or (one.kind == batch[0].kind and rows + one.rows <= self._limits.batch):
                batch.append(one)
                rows += one.rows
            else:
                others.append(one)
            if rows >= self._limits.batch:
                break
        self._queue.extendleft(reversed(others))
        return batch

    # ------------------------------------------------------------------------------------- in the model's thread

    def _work(self, loop: asyncio.AbstractEventLoop, batch: list[_Waiting]) -> None:
        results = self._computed(batch)
        # The loop is gone if the process was told to end at once.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(self._finish, loop, batch, results)

    def _computed(self, batch: list[_Waiting]) -> list[_Result]:
        begun = time.perf_counter()
        try:
            return self._asked(batch)
        finally:
            self._took = time.perf_counter() - begun

    def _asked(self, batch: list[_Waiting]) -> list[_Result]:
        if len(batch) == 1:
            return [self._alone(batch[0])]
        import numpy as np

        names = batch[0].inputs
        try:
            together = {name: np.concatenate([one.inputs[name] for one in batch]) for name in names}
            outputs = self._ask(together, batch[0].kind[0])
        except Exception:  # whose fault it is shows when each is asked alone
            return [self._alone(one) for one in batch]
        ends = np.cumsum([one.rows for one in batch])
        return [
            {name: values[end - one.rows : end] for name, values in outputs.items()}
            for one, end in zip(batch, ends, strict=True)
        ]

    def _alone(self, one: _Waiting) -> _Result:
        import numpy as np

        signature = one.kind[0]
        most = self._limits.batch
        try:
            if one.rows <= most:
                return self._ask(one.inputs, signature)
            parts = [
                self._ask({name: values[start : start + most] for name, values in one.inputs.items()}, signature)
                for start in range(0, one.rows, most)
            ]
            return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        except Exception as error:
            return error


def _give_up(answer: asyncio.Future[Any], seconds: float) -> None:
    if not answer.done():
        answer.set_exception(Refused(504, f"It was not answered within {seconds:g} seconds."))
