"""A web server on this machine that does as it is told, faults included."""

from __future__ import annotations

import contextlib
import gzip
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Web(ThreadingHTTPServer):
    """Gives files, remembers what it was asked, and does wrong what it is told to."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.files: dict[str, bytes] = {}
        """Path, with its query → contents."""
        self.pages: dict[str, str] = {}
        """Path, with its query → a web page."""
        self.redirects: dict[str, str] = {}
        self.asked: list[tuple[str, str, str | None]] = []
        """Method, path and range of each request."""
        self.headers: list[dict[str, str]] = []
        """The headers of each request."""
        self.ranges = True
        self.tags: dict[str, str] = {}
        """Path → ETag."""
        self.faults: list[int | str] = []
        """What to do wrong, request by request: answer a status, "break 100" off after 100 bytes, "hang", …"""
        self.pause = 0.0
        self.meet: Callable[[], Any] = lambda: None
        """Called in the middle of every file that is sent."""
        self.patience = threading.Event()
        """Set at the end: a request that hangs does so until then."""

    def gets(self, path: str) -> list[str | None]:
        """The ranges of the downloads of a file."""
        return [span for method, asked, span in self.asked if method == "GET" and asked == path]


class Handler(BaseHTTPRequestHandler):
    """Answers as the server is told to."""

    server: Web

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def answer(self) -> None:
        web, span = self.server, self.headers["Range"]
        web.asked.append((self.command, self.path, span))
        web.headers.append(dict(self.headers))
        time.sleep(web.pause)
        fault = web.faults.pop(0) if web.faults else ""
        if fault == "hang":
            web.patience.wait()
            return
        if self.path in web.redirects:
            self.send_response(302)
            self.send_header("Location", web.redirects[self.path])
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if isinstance(fault, int) or self.path not in web.files.keys() | web.pages.keys():
            self.send_response(fault if isinstance(fault, int) else 404)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        page = web.pages.get(self.path)
        body = page.encode() if page is not None else web.files[self.path]
        if self.headers["If-Range"] not in (None, web.tags.get(self.path)):
            span = None
        start = int(span.removeprefix("bytes=").removesuffix("-")) if span and web.ranges else 0
        if start >= len(body):
            self.send_response(416)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Type", "text/html; charset=utf-8" if page is not None else "application/octet-stream")
        if self.path in web.tags:
            self.send_header("ETag", web.tags[self.path])
        if start:
            begin = 0 if fault == "range" else start
            self.send_header("Content-Range", f"bytes {begin}-{len(body) - 1}/{len(body)}")
        body = body[start:]
        if fault.startswith("gzip"):
            body = gzip.compress(body)
            self.send_header("Content-Encoding", "gzip")
        elif fault == "called gzip":
            self.send_header("Content-Encoding", "gzip")
        if fault.startswith("chunked"):
            self.send_header("Transfer-Encoding", "chunked")
        elif not fault.startswith("unknown"):
            self.send_header("Content-Length", str(len(body) + {"long": 50, "short": -50}.get(fault, 0)))
        self.end_headers()
        if self.command == "HEAD":
            return
        _, _, limit = fault.partition("break ")
        _, _, silent = fault.partition("stall ")
        with contextlib.suppress(ConnectionError):
            self.wfile.write(f"{len(body):x}\r\n".encode() * fault.startswith("chunked"))
            half = int(silent or limit or len(body) // 2)
            self.wfile.write(body[:half])
            if silent:
                web.patience.wait()
            if silent or limit:
                return
            web.meet()
            self.wfile.write(body[half:])

    def log_message(self, *words: Any) -> None:
        """Say nothing on standard error."""


@contextlib.contextmanager
def serving() -> Iterator[Web]:
    """A web server, for as long as the context lasts."""
    with Web() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.patience.set()
            server.shutdown()
            thread.join()
