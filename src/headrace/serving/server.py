"""The process that serves: its socket, its signals, its end."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import ipaddress
import logging
import signal
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from headrace.errors import SystemTrouble

if TYPE_CHECKING:
    from headrace.serving.app import Service

log = logging.getLogger(__name__)

GRACE = 30
"""Seconds that requests under way have to be answered in when the server is to end."""


def installed() -> None:
    """Make sure that what a server needs is there.

    Raises:
        SystemTrouble: It is not.
    """
    missing = [name for name in ("starlette", "uvicorn") if not importlib.util.find_spec(name)]
    if missing:
        raise SystemTrouble(
            f"{' and '.join(missing)} {'are' if len(missing) > 1 else 'is'} not installed here.",
            remedy='`pip install "headrace[serve]"`',
        )


def listening(host: str, port: int) -> socket.socket:
    """A socket at this address; port 0 takes a free one.

    Raises:
        SystemTrouble: The address is taken, or is none of this machine's.
    """
    try:
        family, kind, proto, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        taken = socket.socket(family, kind, proto)
        try:
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            taken.bind(address)
        except OSError:
            taken.close()
            raise
    except OSError as error:
        raise SystemTrouble(
            f"{host}:{port} can't be listened to.",
            received=error.strerror or str(error),
            remedy="choose another one: --port 0 takes a free port",
        ) from error
    if not is_loopback(host):
        log.warning("%s can be reached from other machines, and nobody is asked for a password", host)
    return taken


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach it."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def address(taken: socket.socket) -> str:
    """The address of a socket as a URL."""
    host, port = taken.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def serve(service: Service, taken: socket.socket, begun: Callable[[], None] = lambda: None) -> None:
    """Serve until Ctrl-C or SIGTERM; requests that are under way are answered first.

    Args:
        service: What to serve.
        taken: Where.
        begun: Called when requests are taken.
    """
    import uvicorn

    from headrace.serving.app import make

    config = uvicorn.Config(
        make(service),
        log_level="warning",
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="on",
        ws="none",
        timeout_graceful_shutdown=GRACE,
    )

    class Server(uvicorn.Server):
        """Ends by itself, as a server should, and not by the signal that asked it to."""

        @contextlib.contextmanager
        def capture_signals(self) -> Any:
            loop = asyncio.get_running_loop()
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.add_signal_handler(number, self.leave, number)
            yield

        def leave(self, number: int) -> None:
            log.info("%s: answering what is under way, then ending", signal.Signals(number).name)
            self.force_exit = service.leaving and number == signal.SIGINT
            service.leaving = self.should_exit = True

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            begun()

    Server(config).run(sockets=[taken])
