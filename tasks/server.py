"""The project's own Prefect server: started once, in the background, used by every run, stopped by `make down`.

What it is to be is said by Prefect's own variables, whoever starts it: `PREFECT_SERVER_API_HOST` and
`PREFECT_SERVER_API_PORT`, `PREFECT_SERVER_DATABASE_CONNECTION_URL`, and `PREFECT_API_AUTH_STRING` (user:password).

Never a temporary server: it takes as long to start, for each run anew, shows nothing in a browser, and loses records
of task runs when its process ends. Nothing here imports Prefect at the top, because Prefect reads its settings from
the environment when it is imported, and `ensure` is what puts them there.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import http.client
import ipaddress
import logging
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from io import TextIOWrapper
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from headrace.artifacts import home, is_held, locked, read_json, system_errors, write_atomically, write_json
from headrace.errors import ConfigError, SystemTrouble
from headrace.running import born

log = logging.getLogger("headrace.server")

HOST = "127.0.0.1"
POOL = "headrace"
START_SECONDS = 400.0
"""A machine with five times as much to do as it has cores has needed more than three minutes for what takes four
seconds elsewhere."""
STOP_SECONDS = 45.0
"""A worker gives the run that it carries out half a minute to end."""
RECORD_SECONDS = 60.0
NEEDS_PASSWORD = "The Prefect server wants a user and a password: PREFECT_API_AUTH_STRING=user:password."

FEW_WRITES = {
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "200",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_BATCH_SIZE": "500",
}
"""Records are written once a second instead of one by one, two at a time: SQLite knows one writer only.

Measured on runs of 11 tasks: with Prefect's own settings every fourth run waits two seconds for the database, and one
in fifty a whole minute; with these (300 runs) one in fifteen waits two seconds, and none longer.
"""

PATIENT = {"PREFECT_SERVER_DATABASE_CONNECTION_TIMEOUT": "60"}
"""Five seconds are too few for a busy machine; a service that can't connect at the start ends the server."""

Server = dict[str, Any]
"""What `server.json` says: url, pid, when the process was born, host and database, and whether it wants a password."""


@dataclass(frozen=True)
class Wanted:
    """What the environment asks of the project's own server; None where it asks nothing."""

    host: str | None
    port: int | None
    database: str | None
    auth: str | None

    @classmethod
    def of_environment(cls) -> Self:
        """Read Prefect's variables.

        Raises:
            ConfigError: One of them makes no sense, or the server would be open to everybody.
        """
        named = {name: os.environ.get(f"PREFECT_SERVER_{name}") for name in ("API_HOST", "API_PORT")}
        host, port = named["API_HOST"], named["API_PORT"]
        auth = os.environ.get("PREFECT_API_AUTH_STRING") or os.environ.get("PREFECT_SERVER_API_AUTH_STRING")
        if port and not (port.isdecimal() and 0 < int(port) < 65536):
            raise ConfigError("This is no port.", expected="a number from 1 to 65535", received=port)
        if auth and not all(auth.partition(":")):
            # Never what was received: it may be half of a password.
            raise ConfigError("PREFECT_API_AUTH_STRING holds no user and password.", expected="user:password")
        if host and not _is_loopback(host) and not auth:
            raise ConfigError(
                "A server that other machines can reach needs a password: whoever reaches it can run anything.",
                received=f"host {host}",
                remedy="set PREFECT_API_AUTH_STRING=user:password here and wherever a client or worker runs, or leave "
                f"the host at {HOST} and reach it through a tunnel (ssh -L)",
            )
        database = os.environ.get("PREFECT_SERVER_DATABASE_CONNECTION_URL")
        return cls(host, int(port) if port else None, with_driver(database) if database else None, auth)

    def unlike(self, server: Server) -> list[tuple[str, object, object]]:
        """Where a server that runs is not as wanted: what, wanted, is."""
        is_now: dict[str, object] = {
            "host": server.get("host", HOST),
            "port": urlsplit(server["url"]).port,
            "database": server.get("database", SQLITE),
        }
        wants: dict[str, object] = {
            "host": self.host,
            "port": self.port,
            "database": self.database and without_password(self.database),
        }
        if self.auth:
            wants["password"], is_now["password"] = "one", "one" if server.get("auth") else "none"
        return [(name, wanted, is_now[name]) for name, wanted in wants.items() if wanted not in (None, is_now[name])]


SQLITE = "SQLite"


def with_driver(database: str) -> str:
    """The address of a database as Prefect's library wants it: with the driver that comes with Prefect."""
    scheme, separator, rest = database.partition("://")
    return f"postgresql+asyncpg{separator}{rest}" if scheme in ("postgres", "postgresql") else database


def without_password(database: str) -> str:
    """The address of a database as it may be shown and kept."""
    parts = urlsplit(database)
    return f"{parts.scheme}://{parts.hostname or ''}{f':{parts.port}' if parts.port else ''}{parts.path}"


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def ensure() -> str:
    """Have a server, and this process set up for it.

    Returns:
        The address of its API: that in PREFECT_API_URL if the user has set one, otherwise that of the project's own
        server, which is started unless it is running already.

    Raises:
        ConfigError: The environment asks for a server that must not be.
        SystemTrouble: The user's server does not answer, or the project's own one does not start or is another one
            than the environment asks for.
    """
    named = user_server()
    if named:
        if not _answers(named):
            raise SystemTrouble(
                "The Prefect server in PREFECT_API_URL does not answer.",
                received=named,
                remedy="start it, or unset PREFECT_API_URL to use the project's own server",
            )
        return named
    wanted = Wanted.of_environment()
    with system_errors(f"starting the Prefect server in {folder()}"), locked(folder() / "server.lock"):
        server = _running() or _start(wanted)
    for what, asked, found in wanted.unlike(server):
        raise SystemTrouble(
            "The project's Prefect server runs already, and is not as asked.",
            expected=f"{what}: {asked}",
            received=f"{what}: {found}",
            remedy="`headrace platform down`, then the same again; what is recorded is kept",
        )
    if server.get("auth") and not wanted.auth:
        raise SystemTrouble(NEEDS_PASSWORD, received="none", remedy="set it as it was when the server was started")
    _settle(server["url"])
    try:
        bury_the_dead()
    except Exception as error:
        # The next start tries again; it is no reason to run nothing now.
        log.warning("runs that were killed can't be marked as crashed: %s: %s", type(error).__name__, error)
    return str(server["url"])


def status() -> dict[str, Any]:
    """Where the server is: `url`, `ui`, `pid`, `log`, `database`, and whether it `runs`.

    Of a server of the user's, only the addresses are known.
    """
    named = user_server()
    if named:
        known = {"url": named, "ui": ui(named), "pid": None, "log": None, "database": None}
        return {"runs": _answers(named), **known}
    server = _recorded()
    if not server or not lives(server):
        return {"runs": False, "url": None, "ui": None, "pid": None, "log": str(_log()), "database": None}
    url = server["url"]
    known = {"url": url, "ui": ui(url), "pid": server["pid"], "log": str(_log())}
    return {"runs": _answers(url), **known, "database": server.get("database", SQLITE)}


def is_own(url: str) -> bool:
    """Whether the project's own server is at this address, and alive."""
    server = _recorded()
    return server is not None and server["url"] == url and lives(server)


def connect() -> None:
    """Set this process up for the server that runs, without starting one."""
    server = None if user_server() else _recorded()
    if server:
        _settle(server["url"])


def stop() -> bool:
    """Stop the project's own server; what it has recorded is kept.

    Returns:
        Whether there was one.
    """
    if not folder().is_dir():
        return False
    with locked(folder() / "server.lock"):
        server = _recorded()
        _file().unlink(missing_ok=True)
        if not server or not lives(server):
            return False
        end(server["pid"], lambda: lives(server))
    log.info("Prefect server stopped")
    return True


# ------------------------------------------------------------------------------------------- starting, ending


def _start(wanted: Wanted) -> Server:
    """Start a server of its own session, so that it outlives this process, and wait until it answers."""
    trouble = ""
    host = wanted.host or HOST
    for _ in range(3):
        port = wanted.port or _free_port()
        url = f"http://{_reached_at(host)}:{port}/api"
        log.info("starting the project's Prefect server (log: %s)", _log())
        with _log().open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "prefect", "server", "start"],
                cwd=folder(),
                env=FEW_WRITES | PATIENT | _environment(url) | _server_settings(wanted, host, port),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        server = {"url": url, "pid": process.pid, "born": born(process.pid), "host": host}
        server["database"] = without_password(wanted.database) if wanted.database else SQLITE
        server["auth"] = bool(wanted.auth)
        write_json(_file(), server)
        if _await(server):
            log.info("Prefect server at %s", ui(url))
            return server
        trouble = last_lines(_log().read_text(errors="replace"))
        _file().unlink(missing_ok=True)
        # Between being chosen and being used the port may have gone to somebody else.
        if wanted.port or "already in use" not in trouble:
            break
    raise SystemTrouble(
        "The project's Prefect server ended while it was starting.",
        received=trouble or "no message",
        remedy=f"see {_log()}; `make setup` restores the locked versions; `--engine local` needs no server",
    )


def _running() -> Server | None:
    """The server that was started before, if it is alive; one that is still starting is waited for."""
    server = _recorded()
    if server and lives(server) and _await(server):
        return server
    _file().unlink(missing_ok=True)
    return None


def _await(server: Server) -> bool:
    """Wait until a server answers; False if it ends instead.

    Raises:
        SystemTrouble: It does neither for a long time; it is stopped.
    """
    begun = told = time.monotonic()
    while lives(server):
        if _answers(server["url"]):
            return True
        waited = time.monotonic() - begun
        if waited > START_SECONDS:
            end(server["pid"], lambda: lives(server))
            _file().unlink(missing_ok=True)
            raise SystemTrouble(
                f"The project's Prefect server did not answer within {START_SECONDS:.0f} s.",
                received=last_lines(_log().read_text(errors="replace")),
                remedy=f"see {_log()}; `--engine local` needs no server",
            )
        if time.monotonic() - told > 10:
            told = time.monotonic()
            log.info("waiting for the Prefect server: %.0f s", waited)
        time.sleep(0.1)
    return False


def end(pid: int, lives: Callable[[], bool]) -> None:
    """End a session: politely, then for good, with everything that it has started."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + STOP_SECONDS
    while lives() and time.monotonic() < deadline:
        time.sleep(0.05)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
    while lives():
        time.sleep(0.05)


def lives(server: Server) -> bool:
    """Whether the process is there; a child of this process that has ended is taken off the system's list."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(server["pid"], os.WNOHANG)
    return born(server["pid"]) == server["born"]


def _answers(url: str) -> bool:
    """Whether a Prefect API answers at this address."""
    # A proxy can't reach this machine's own loopback, and need not reach the project's own server.
    near = (_recorded() or {}).get("url") == url or _is_loopback(urlsplit(url).hostname or "")
    opener = urllib.request.build_opener(*([urllib.request.ProxyHandler({})] if near else []))
    try:
        with opener.open(f"{url.rstrip('/')}/health", timeout=10) as response:
            return bool(response.status == 200)
    except urllib.error.HTTPError as error:
        # It is there, and wants credentials: Prefect will send those of the user.
        return error.code in (401, 403)
    except (OSError, ValueError, http.client.HTTPException):
        return False


# ----------------------------------------------------------------------------------------------- environment


def _environment(url: str) -> dict[str, str]:
    """The environment of everything that works with the project's own server."""
    environment = os.environ | {
        "PREFECT_HOME": str(folder()),
        "PREFECT_API_URL": url,
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
    }
    host = urlsplit(url).hostname or HOST
    for name in ("NO_PROXY", "no_proxy"):
        hosts = environment.get(name, "")
        if host not in hosts:
            environment[name] = f"{hosts},{host}".strip(",")
    if auth := environment.get("PREFECT_SERVER_API_AUTH_STRING"):
        environment.setdefault("PREFECT_API_AUTH_STRING", auth)
    environment.setdefault("PREFECT_API_SSL_CERT_FILE", str(one_certificate(folder())))
    return environment


def one_certificate(where: Path) -> Path:
    """A file in this folder with one authority's certificate, for a server that is spoken to in the clear.

    It needs none, but Prefect reads the file anew for each of its many clients: all authorities take 40 ms of a
    processor each time, which is half of what `prefect deploy --all` computes. An empty file is refused.
    """
    path = where / "certificate.pem"
    if not path.is_file():
        import certifi

        every, end = Path(certifi.where()).read_text(encoding="utf-8"), "-----END CERTIFICATE-----\n"
        first, last = every.index("-----BEGIN CERTIFICATE-----"), every.index(end) + len(end)
        write_atomically(path, every[first:last].encode())
    return path


def _server_settings(wanted: Wanted, host: str, port: int) -> dict[str, str]:
    asked = {
        # Five seconds are too few for a busy machine, and a service that can't connect at the start ends the server.
        "PREFECT_SERVER_DATABASE_CONNECTION_TIMEOUT": os.environ.get(
            "PREFECT_SERVER_DATABASE_CONNECTION_TIMEOUT", "60"
        ),
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": wanted.database,
        "PREFECT_SERVER_API_AUTH_STRING": wanted.auth,
    }
    return {name: value for name, value in asked.items() if value} | {
        "PREFECT_SERVER_API_HOST": host,
        # Not `--port`: the pages in the browser would still look for the API at the default port.
        "PREFECT_SERVER_API_PORT": str(port),
        # Wherever the browser is, the API is where it has the pages from.
        "PREFECT_SERVER_UI_API_URL": "/api",
        # The pages are copied when the server starts; the installation may be read-only.
        "PREFECT_SERVER_UI_STATIC_DIRECTORY": str(folder() / "ui"),
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    }


_settled: set[str] = set()
"""Addresses that this process has put into its environment itself."""


def user_server() -> str | None:
    """The address in PREFECT_API_URL, if it is the user who has put it there."""
    url = os.environ.get("PREFECT_API_URL")
    return None if url in _settled else url


def _settle(url: str) -> None:
    """Set this process up for the server, also if Prefect has been imported already (`python -m flows.NAME`)."""
    os.environ.update(_environment(url))
    _settled.add(url)
    if "prefect" in sys.modules:
        from prefect.context import refresh_global_settings_context
        from prefect.logging.configuration import setup_logging

        refresh_global_settings_context()
        # To the standard error of now: the command line may have moved it.
        setup_logging(incremental=False)


def folder() -> Path:
    """Where the platform of this home keeps its files."""
    return home() / "prefect"


def _file() -> Path:
    return folder() / "server.json"


def _log() -> Path:
    return folder() / "server.log"


def ui(url: str) -> str:
    """The address for a browser."""
    return url.removesuffix("/").removesuffix("/api")


def _recorded() -> Server | None:
    return read_json(_file())


def _reached_at(host: str) -> str:
    """The name under which this machine reaches a server that listens at `host`."""
    return {"0.0.0.0": HOST, "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def last_lines(text: str) -> str:
    """The end of a log, for a message."""
    return "\n".join(text.strip().splitlines()[-5:])


# --------------------------------------------------------------------------------------------- records of runs


def await_records(task_runs: Sequence[str]) -> None:
    """Wait until the server has recorded the end of these task runs: it writes them down in its own time."""
    from prefect import get_client

    done = {"type": {"any_": ["COMPLETED", "FAILED", "CRASHED", "CANCELLED"]}}
    wanted = {"task_runs": {"id": {"any_": list(task_runs)}, "state": done}}
    deadline = time.monotonic() + RECORD_SECONDS
    with get_client(sync_client=True) as client:
        while task_runs:
            recorded = client.request("POST", "/task_runs/count", json=wanted).json()
            if recorded >= len(task_runs):
                return
            if time.monotonic() > deadline:
                log.warning("the Prefect server has recorded %d of %d task runs only", recorded, len(task_runs))
                return
            time.sleep(0.1)


@cache
def hold(flow_run: str) -> TextIOWrapper:
    """Mark a flow run as being carried out by this process: a lock that the kernel lets go of, however it ends."""
    path = folder() / "alive" / flow_run
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = folder() / f".{flow_run}"
    file = draft.open("w")
    fcntl.flock(file, fcntl.LOCK_EX)
    # Nobody must see it before it is locked.
    draft.rename(path)
    atexit.register(path.unlink, missing_ok=True)
    return file


def bury_the_dead(*, others: bool = False) -> None:
    """Mark flow runs as crashed whose process is gone: nobody else would, they would be *Running* for ever.

    Args:
        others: Include those that a worker had taken from the work pool and whose process had not begun yet.
    """
    dead = [path for path in (folder() / "alive").glob("*") if not is_held(path)]
    if not dead and not others:
        return
    from prefect import get_client
    from prefect.client.schemas import filters, objects
    from prefect.states import Crashed

    unfinished = [objects.StateType.RUNNING, objects.StateType.PENDING, objects.StateType.CANCELLING]
    crashed: objects.State[Any] = Crashed(message="The process has ended: killed, out of memory, or with its worker.")
    with get_client(sync_client=True) as client:
        unfinished_flow = filters.FlowRunFilter(state={"type": {"any_": unfinished}})
        for run in client.read_flow_runs(flow_run_filter=unfinished_flow):
            path = folder() / "alive" / str(run.id)
            if path in dead or (others and run.work_pool_name == POOL and not path.exists()):
                client.set_flow_run_state(run.id, crashed, force=True)
                of_run = filters.FlowRunFilter(id={"any_": [run.id]})
                state = filters.TaskRunFilter(state={"type": {"any_": unfinished}})
                for task_run in client.read_task_runs(flow_run_filter=of_run, task_run_filter=state):
                    client.set_task_run_state(task_run.id, crashed, force=True)
    for path in dead:
        path.unlink(missing_ok=True)
