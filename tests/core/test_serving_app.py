"""What a client is told when the server is full, ends, waits in vain, or fails; without sockets and TensorFlow."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from headrace.serving import app as module
from headrace.serving.app import Service, make
from headrace.serving.loading import Signature, Tensor

BODY = b'{"instances": [[1.0], [2.0]]}'


class Shelf:
    """Holds a single model that answers as it is told to."""

    name = "m"
    all: dict[int, Any] = {}  # noqa: RUF012
    waiting = swaps = failures = 0

    def __init__(self, answer: Callable[[Any], Any]) -> None:
        async def answered(signature: str, inputs: Any, rows: int, alone: bool) -> Any:
            result = answer(inputs)
            return await result if asyncio.iscoroutine(result) else result

        inputs = {"x": Tensor("float32", (None, 1))}
        signatures = {"s": Signature(inputs, {"y": Tensor("float32", (None, 1))})}
        self.usual = SimpleNamespace(
            model=SimpleNamespace(signatures=signatures, default_name="s"),
            optional=frozenset(),
            batcher=SimpleNamespace(answer=answered),
            bundle=SimpleNamespace(version=1, name="m"),
            features={},
        )

    def chosen(self, version: str | None, label: str | None) -> Any:
        return self.usual


def doubled(inputs: Any) -> Any:
    return {"y": inputs["x"] * 2}


async def post(app: Any, *parts: bytes, pause: float = 0, broken: bool = False) -> tuple[int, Any, dict[str, str]]:
    """Status, body and headers of a predict request whose body comes in parts."""
    left = [*parts]
    sent: list[Any] = []

    async def receive() -> Any:
        await asyncio.sleep(pause)
        if not left:
            return {"type": "http.disconnect"}
        body = left.pop(0)
        return {"type": "http.request", "body": body, "more_body": bool(left) or broken}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/models/m:predict",
        "headers": [],
        "query_string": b"",
        "root_path": "",
    }
    await app(scope, receive, send)
    headers = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], json.loads(b"".join(m.get("body", b"") for m in sent[1:])), headers


def ask(service: Service, *parts: bytes, **how: Any) -> tuple[int, Any, dict[str, str]]:
    return asyncio.run(post(make(service), *parts, **how))


def test_a_body_may_come_in_parts() -> None:
    service = Service(Shelf(doubled))  # type: ignore[arg-type]

    assert ask(service, BODY[:5], BODY[5:])[:2] == (200, {"predictions": [[2.0], [4.0]]})
    assert (service.held, service.figures.under_way) == (0, 0)


@pytest.mark.parametrize(
    ("service", "parts", "how", "code", "words"),
    [
        ({"leaving": True}, [BODY], {}, 503, "about to end"),
        ({"most_requests": 0}, [BODY], {}, 429, "under way already"),
        ({"most_bytes": 10}, [BODY], {}, 413, "more than the 10 bytes"),
        ({"held": module.HELD}, [BODY], {}, 429, "Too much is being read"),
        ({"seconds": 0.02}, [BODY], {"pause": 5}, 408, "did not come within 0.02 seconds"),
        ({}, [BODY[:5]], {"broken": True}, 400, "broke off"),
    ],
)
def test_what_is_not_taken_is_told_and_leaves_nothing_behind(
    service: dict[str, Any], parts: list[bytes], how: dict[str, Any], code: int, words: str
) -> None:
    made = Service(Shelf(doubled), **service)  # type: ignore[arg-type]
    status, told, headers = ask(made, *parts, **how)

    assert (status, list(told)) == (code, ["error"])
    assert words in told["error"]
    assert ("retry-after" in headers) == (code in (429, 503))
    assert (made.held, made.figures.under_way) == (service.get("held", 0), 0)


def test_a_fault_of_the_model_is_in_the_log_and_not_in_the_answer(caplog: pytest.LogCaptureFixture) -> None:
    def fail(inputs: Any) -> Any:
        raise RuntimeError("secret path /home/somebody")

    status, told, _ = ask(Service(Shelf(fail)), BODY)  # type: ignore[arg-type]

    assert (status, told) == (500, {"error": "The model has failed; the server's log says why."})
    assert "secret path" in caplog.text


def test_more_requests_than_allowed_at_once_are_refused_and_the_others_answered() -> None:
    async def main() -> list[int]:
        gate = asyncio.Event()

        async def slowly(inputs: Any) -> Any:
            await gate.wait()
            return doubled(inputs)

        app = make(Service(Shelf(slowly), most_requests=2))  # type: ignore[arg-type]
        tasks = [asyncio.create_task(post(app, BODY)) for _ in range(4)]
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        while len(done) < 2:
            done, _ = await asyncio.wait(tasks, timeout=0.01)
        gate.set()
        return sorted([(await task)[0] for task in tasks])

    assert asyncio.run(main()) == [200, 200, 429, 429]
