"""Requests that are put together, refused, given up, and never mixed up."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from headrace.serving.batching import Batcher, Limits
from headrace.serving.payloads import Refused


class Model:
    """Doubles numbers, keeps a list of the batches it was given, and waits at a gate."""

    def __init__(self) -> None:
        self.batches: list[list[float]] = []
        self.threads: list[int] = []
        self.gate = threading.Event()
        self.gate.set()

    def ask(self, inputs: Any, signature: str) -> dict[str, Any]:
        self.threads.append(threading.get_ident())
        self.gate.wait(10)
        values = inputs["x"]
        self.batches.append(values.reshape(len(values), -1)[:, 0].tolist())
        if (values < 0).any():
            raise ValueError("negative")
        return {"y": values * 2}


def run(use: Callable[[Batcher, Model], Coroutine[Any, Any, Any]], limits: Limits = Limits()) -> Any:  # noqa: B008
    model = Model()

    async def main() -> Any:
        with ThreadPoolExecutor(1) as thread:
            batcher = Batcher(model.ask, thread, limits)
            try:
                return await use(batcher, model)
            finally:
                model.gate.set()
                await batcher.close()
                assert batcher.waiting == 0

    return asyncio.run(main())


def ask(batcher: Batcher, *values: float, width: int = 1) -> asyncio.Task[Any]:
    array = np.repeat(np.array(values, np.float32)[:, None], width, 1)
    return asyncio.ensure_future(batcher.answer("s", {"x": array}, len(values)))


class TestBatches:
    def test_what_comes_while_the_model_is_at_work_is_asked_together(self) -> None:
        async def use(batcher: Batcher, model: Model) -> None:
            model.gate.clear()
            tasks = [ask(batcher, float(i)) for i in range(10)]
            await asyncio.sleep(0)
            model.gate.set()
            answers = [(await task)["y"].item() for task in tasks]

            assert answers == [2.0 * i for i in range(10)]
            assert model.batches == [[0.0], [float(i) for i in range(1, 10)]]

        run(use)

    def test_only_equal_shapes_are_put_together_and_nothing_is_filled_up(self) -> None:
        async def use(batcher: Batcher, model: Model) -> None:
            model.gate.clear()
            tasks = [ask(batcher, float(i), width=1 + i % 2) for i in range(5)]
            await asyncio.sleep(0)
            model.gate.set()
            answers = [await task for task in tasks]

            assert [answer["y"].shape for answer in answers] == [(1, 1), (1, 2), (1, 1), (1, 2), (1, 1)]
            assert model.batches == [[0.0], [1.0, 3.0], [2.0, 4.0]]

        run(use)

    def test_no_batch_is_larger_than_allowed_and_a_long_request_is_asked_in_parts(self) -> None:
        async def use(batcher: Batcher, model: Model) -> None:
            answer = await ask(batcher, *map(float, range(7)))

            assert answer["y"][:, 0].tolist() == [2.0 * i for i in range(7)]
            assert [len(batch) for batch in model.batches] == [3, 3, 1]

        run(use, Limits(batch=3))

    def test_an_idle_model_waits_for_more_if_told_to(self) -> None:
        async def use(batcher: Batcher, model: Model) -> None:
            first = ask(batcher, 1.0)
            await asyncio.sleep(0.01)
            second = ask(batcher, 2.0)
            await asyncio.gather(first, second)

            assert model.batches == [[1.0, 2.0]]

        run(use, Limits(batch=2, wait=5.0))

    def test_a_request_that_fails_does_not_fail_the_others_of_its_batch(self) -> None:
        async def use(batcher: Batcher, model: Model) -> None:
            model.gate.clear()
            tasks = [ask(batcher, value) for value in (0.0, 1.0, -1.0, 2.0)]
            await asyncio.sleep(0)
            model.gate.set()
            first, second, third, fourth = await asyncio.gather(*tasks, return_exceptions=True)

            assert [answer["y"].item() for answer in (first, second, fourth)] == [0.0, 2.0, 4.0]
            assert isinstance(third, ValueError)

        run(use)


class TestLimits:
    def test_what_finds_no_room_is_refused_at_once_with_a_time_to_come_again(self) -> None:
        async def use(batcher: Batcher, model: Model) -> None:
            model.gate.clear()
            kept = [ask(batcher, 0.0), ask(batcher, 1.0)]
            await asyncio.sleep(0)
            with pytest.raises(Refused) as caught:
                await ask(batcher, 2.0)
            model.gate.set()
            await asyncio.gather(*kept)

            assert (caught.value.status, caught.value.wait) == (429, 1)

        run(use, Limits(queue=2))

    def test_a_request_that_takes_too_long_is_given_up_and_not_asked_later(self) -> None:
        async def use(batcher: Batcher, model: Model) -> None:
            model.gate.clear()
            tasks = [ask(batcher, 0.0), ask(batcher, 1.0)]
            found = await asyncio.gather(*tasks, return_exceptions=True)
            model.gate.set()
            await batcher.close()

            assert [error.status for error in found if isinstance(error, Refused)] == [504, 504]
            assert model.batches == [[0.0]]

        run(use, Limits(seconds=0.05))


class TestAlone:
    """A request that nobody else waits behind is answered without a change of threads, by a model that is quick."""

    @staticmethod
    async def asked(batcher: Batcher, model: Model, value: float) -> bool:
        """Whether the model was asked in the server's own thread."""
        answer = await batcher.answer("s", {"x": np.full((1, 1), value, np.float32)}, 1, alone=True)
        assert answer["y"].item() == 2 * value
        return model.threads[-1] == threading.get_ident()

    def test_a_model_is_trusted_to_be_quick_once_it_has_been(self) -> None:
        async def use(batcher: Batcher, model: Model) -> None:
            assert [await self.asked(batcher, model, i) for i in range(3)] == [False, True, True]

        run(use)

    def test_a_model_that_is_slow_holds_up_nobody_else(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("headrace.serving.batching.QUICK", 0.0)

        async def use(batcher: Batcher, model: Model) -> None:
            assert [await self.asked(batcher, model, i) for i in range(3)] == [False, False, False]

        run(use)

    def test_who_asks_for_batches_gets_batches(self) -> None:
        async def use(batcher: Batcher, model: Model) -> None:
            assert [await self.asked(batcher, model, i) for i in range(3)] == [False, False, False]

        run(use, Limits(wait=0.001))

    def test_it_waits_its_turn_behind_others(self) -> None:
        async def use(batcher: Batcher, model: Model) -> None:
            await self.asked(batcher, model, 0)
            model.gate.clear()
            first = ask(batcher, 1.0)
            await asyncio.sleep(0)
            second = asyncio.ensure_future(self.asked(batcher, model, 2))
            await asyncio.sleep(0)
            model.gate.set()
            await first
            assert not await second
            assert model.batches == [[0.0], [1.0], [2.0]]

        run(use)

    def test_a_fault_is_told_as_ever(self) -> None:
        async def use(batcher: Batcher, model: Model) -> None:
            await self.asked(batcher, model, 0)
            with pytest.raises(ValueError, match="negative"):
                await self.asked(batcher, model, -1)
            assert await self.asked(batcher, model, 3)

        run(use)
