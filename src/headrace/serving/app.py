"""The REST API of TensorFlow Serving, version 1, for one model: status, metadata, and predict.

| address | answers |
| --- | --- |
| `GET /v1/models/NAME[/versions/N or /labels/LABEL]` | which versions are available |
| `GET …/metadata` | the signatures |
| `POST …:predict` | `instances` → `predictions`, or `inputs` → `outputs` |
| `GET /healthz`, `/readyz`, `/metrics` | whether it lives, whether it takes requests, what it has done |

Every error is `{"error": "…"}` with a status that says whose it is, and never a traceback.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from headrace.errors import nearest
from headrace.serving.figures import Figures
from headrace.serving.loading import first_line
from headrace.serving.payloads import Refused, read, written

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

    from headrace.serving.logs import RequestLog
    from headrace.serving.shelves import Served, Shelf

log = logging.getLogger(__name__)

HELD = 256 * 2**20
"""Bytes of bodies that may be in memory, all together."""
LONG = 2**16
"""Bytes from which a body is read in a thread, so that short requests need not wait for it."""


@dataclass
class Service:
    """What an app serves, and within which bounds."""

    shelf: Shelf
    requests: RequestLog | None = None
    """Where requests are kept; None: nowhere."""
    most_bytes: int = 16 * 2**20
    """Of a request's body."""
    most_requests: int = 1024
    """Requests that are read, asked or answered at the same time."""
    seconds: float = 30.0
    """For which the body of a request is waited for."""
    poll: float = 1.0
    """Seconds between two looks at where the names of versions point."""
    figures: Figures = field(default_factory=Figures)
    held: int = 0
    """Bytes of bodies that are in memory now."""
    leaving: bool = False
    """Whether the server is about to end: what it has is answered, nothing new is taken."""


def make(service: Service) -> Starlette:
    """The app that serves this."""
    # Starlette is what FastAPI stands on: of what FastAPI adds, nothing is used here, and it costs each request time.
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException
    from starlette.responses import PlainTextResponse, Response
    from starlette.routing import Route

    shelf, figures = service.shelf, service.figures

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        watcher = asyncio.create_task(shelf.watch(service.poll))
        try:
            yield
        finally:
            watcher.cancel()
            await shelf.close()
            if service.requests:
                await asyncio.to_thread(service.requests.close)

    def answer(body: bytes, status: int = 200, **headers: str) -> Response:
        return Response(body, status, headers or None, "application/json")

    def refusal(error: Refused) -> Response:
        headers = {"retry-after": str(error.wait)} if error.wait is not None else {}
        return answer(_json({"error": error.problem}), error.status, **headers)

    def chosen(request: Request) -> Served:
        given = request.path_params
        if given["name"] != shelf.name:
            raise Refused(404, f"There is no model `{given['name']}`: {nearest(given['name'], [shelf.name])}")
        return shelf.chosen(given.get("version"), given.get("label"))

    async def predict(request: Request) -> Response:
        begun = time.perf_counter()
        rows = held = 0
        figures.under_way += 1
        try:
            if service.leaving:
                raise Refused(503, "The server is about to end.", 1)
            if figures.under_way > service.most_requests:
                raise Refused(429, f"{service.most_requests} requests are under way already: try again later.", 1)
            served = chosen(request)
            body = await _body(request, service)
            held = len(body)
            rows, response = await _predicted(served, body, service)
            made = answer(response)
        except Refused as error:
            made = refusal(error)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            made = refusal(_failure(error))
        finally:
            figures.under_way -= 1
            service.held -= held
        figures.request(made.status_code, rows if made.status_code == 200 else 0, time.perf_counter() - begun)
        return made

    async def status(request: Request) -> Response:
        try:
            if ":" in request.path_params["name"]:
                raise Refused(405, f"{request.method} does not go with {request.url.path}: POST a request to it.")
            served = chosen(request)
        except Refused as error:
            return refusal(error)
        named = {"version", "label"} & set(request.path_params)
        versions = [served.bundle.version] if named else sorted(shelf.all, reverse=True)
        return answer(_json({"model_version_status": [_available(number) for number in versions]}))

    async def metadata(request: Request) -> Response:
        try:
            served = chosen(request)
        except Refused as error:
            return refusal(error)
        return answer(_json(_metadata(served)))

    async def healthy(_: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def ready(_: Request) -> Response:
        return PlainTextResponse("leaving\n", 503) if service.leaving else PlainTextResponse("ready\n")

    async def measured(_: Request) -> Response:
        others: dict[str, float] = {
            "model_version": shelf.usual.bundle.version,
            "waiting_examples": shelf.waiting,
            "version_swaps_total": shelf.swaps,
            "version_failures_total": shelf.failures,
        }
        if service.requests:
            others["kept_examples_total"] = service.requests.written
            others["lost_examples_total"] = service.requests.lost
        return PlainTextResponse(figures.text(**others))

    places = ("", "/versions/{version}", "/labels/{label}")
    routes = [Route(f"/v1/models/{{name}}{place}:predict", predict, methods=["POST"]) for place in places]
    for place in reversed(places):
        routes.append(Route(f"/v1/models/{{name}}{place}/metadata", metadata, methods=["GET"]))
        routes.append(Route(f"/v1/models/{{name}}{place}", status, methods=["GET"]))
    for path, told in {"/healthz": healthy, "/readyz": ready, "/metrics": measured}.items():
        routes.append(Route(path, told, methods=["GET"]))

    async def unknown(request: Request, error: Exception) -> Response:
        code = error.status_code if isinstance(error, HTTPException) else 500
        said = {
            404: f"There is no {request.url.path}: expected /v1/models/{shelf.name}, …/metadata or …:predict",
            405: f"{request.method} does not go with {request.url.path}: GET a status or metadata, POST to :predict",
        }
        return answer(_json({"error": said.get(code, "The server has failed.")}), code)

    return Starlette(routes=routes, lifespan=lifespan, exception_handlers={HTTPException: unknown, Exception: unknown})


async def _body(request: Request, service: Service) -> bytes:
    """The body of a request.

    Raises:
        Refused: It is too long (413), packed (415), or does not come (408).
    """
    from starlette.requests import ClientDisconnect

    most = service.most_bytes
    headers = request.headers
    if headers.get("content-encoding", "identity") != "identity":
        raise Refused(415, f"A body can't be packed by {headers['content-encoding']}.")
    length = headers.get("content-length", "")
    if length.isdecimal() and int(length) > most:
        raise Refused(413, f"The body has {int(length):,} bytes; {most:,} are allowed.")
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(service.seconds):
            async for part in request.stream():
                size += len(part)
                service.held += len(part)
                if size > most:
                    raise Refused(413, f"The body has more than the {most:,} bytes that are allowed.")
                if service.held > max(HELD, most):
                    raise Refused(429, "Too much is being read already: try again later.", 1)
                parts.append(part)
    except BaseException as error:
        service.held -= size
        if isinstance(error, TimeoutError):
            raise Refused(408, f"The body did not come within {service.seconds:g} seconds.") from None
        if isinstance(error, ClientDisconnect):
            raise Refused(400, "The connection broke off.") from None
        raise
    return b"".join(parts)


async def _predicted(served: Served, body: bytes, service: Service) -> tuple[int, bytes]:
    """The number of examples in a request, and the body of its answer."""
    if len(body) < LONG:
        question = read(body, served.model, served.optional)
    else:
        question = await asyncio.to_thread(read, body, served.model, served.optional)
    signature = served.model.signatures[question.signature]
    # Requests that have come at the same time are to be counted before it is asked whether this one is alone.
    await asyncio.sleep(0)
    outputs = await served.batcher.answer(
        question.signature,
        question.inputs,
        question.rows if signature.batched else None,
        alone=signature.steady and service.figures.under_way == 1,
    )
    response = written(question, outputs)
    usual = question.signature == served.model.default_name
    if service.requests and question.rows and usual:
        service.requests.add(question.inputs, outputs, served.bundle.version, served.features)
    return question.rows or 1, response


def _failure(error: Exception) -> Refused:
    """What a client is told of an error of the model: the reason if it lies in the request, and nothing of the code."""
    if type(error).__module__.startswith("tensorflow") and type(error).__name__ in (
        "InvalidArgumentError",
        "OutOfRangeError",
    ):
        return Refused(400, f"The model can't answer this: {first_line(error)}")
    log.error("a request failed", exc_info=error)
    return Refused(500, "The model has failed; the server's log says why.")


def _available(version: int) -> dict[str, Any]:
    return {
        "version": str(version),
        "state": "AVAILABLE",
        "status": {"error_code": "OK", "error_message": ""},
    }


def _metadata(served: Served) -> dict[str, Any]:
    return {
        "model_spec": {"name": served.bundle.name, "signature_name": "", "version": str(served.bundle.version)},
        "metadata": {"signature_def": {"signature_def": served.model.definitions}},
    }


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=1, ensure_ascii=False).encode()
