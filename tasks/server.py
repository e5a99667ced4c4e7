"""The project's own Prefect server: started once, in the background, used by every run, stopped by `make down`.

Never a temporary server: it takes as long to start, for each run anew, shows nothing in a browser, and loses records
of task runs when its process ends. Nothing here imports Prefect at the top, because Prefect reads its settings from
the environment when it is imported, and `ensure` is what puts them there.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import http.client
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from io import TextIOWrapper
from pathlib import Path
from typing import Any

from headrace.artifacts import home, is_held, locked, read_json, system_errors, write_json
from headrace.errors import SystemTrouble
from headrace.projects import root
from headrace.running import born

log = logging.getLogger("headrace.server")

HOST = "127.0.0.1"
POOL = "headrace"
START_SECONDS = 180.0
"""A slow, busy machine has needed more than a minute for what takes four seconds elsewhere."""
STOP_SECONDS = 45.0
"""A worker gives the run that it carries out half a minute to end."""
RECORD_SECONDS = 60.0

FEW_WRITES = {
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "200",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_BATCH_SIZE": "500",
}
"""Records are written once a second instead of one by one, two at a time: SQLite knows one writer only.

Measured on runs of 11 tasks: with Prefect's own settings every fourth run waits two seconds for the database, and one
in fifty a whole minute; with these (300 runs) one in fifteen waits two seconds, and none longer.
"""

Server = dict[str, Any]
"""What `server.json` says: url, pid, and when the process was born."""


def ensure() -> str:
    """Have a server, and this process set up for it.

    Returns:
        The address of its API: that in PREFECT_API_URL if the user has set one, otherwise that of the project's own
        server, which is started unless it is running already.

    Raises:
        SystemTrouble: The user's server does not answer, or the project's own one does not start.
    """
    named = _named()
    if named:
        if not _answers(named):
            raise SystemTrouble(
                "The Prefect server in PREFECT_API_URL does not answer.",
                received=named,
                remedy="start it, or unset PREFECT_API_URL to use the project's own server",
            )
        return named
    with system_errors(f"starting the Prefect server in {_folder()}"), locked(_folder() / "server.lock"):
        server = _running() or _start()
    _settle(server["url"])
    try:
        _bury_the_dead()
    except Exception as error:
        # The next start tries again; it is no reason to run nothing now.
        log.warning("runs that were killed can't be marked as crashed: %s: %s", type(error).__name__, error)
    return str(server["url"])


def status() -> dict[str, Any]:
    """Where the server is: `url`, `ui`, `pid`, `log`, and whether it `runs`; pid is None for a server of the user's."""
    named = _named()
    if named:
        return {"runs": _answers(named), "url": named, "ui": _ui(named), "pid": None, "log": None}
    server = _recorded()
    if not server or not _lives(server):
        return {"runs": False, "url": None, "ui": None, "pid": None, "log": str(_log())}
    url = server["url"]
    return {"runs": _answers(url), "url": url, "ui": _ui(url), "pid": server["pid"], "log": str(_log())}


def stop() -> bool:
    """Stop the project's own server; what it has recorded is kept.

    Returns:
        Whether there was one.
    """
    if not _folder().is_dir():
        return False
    with locked(_folder() / "server.lock"):
        server = _recorded()
        _file().unlink(missing_ok=True)
        if not server or not _lives(server):
            return False
        _end(server["pid"], lambda: _lives(server))
    log.info("Prefect server stopped")
    return True


down = stop
"""`headrace platform down`; an `up` in another terminal ends by itself when its server is gone."""


# ----------------------------------------------------------------------------------------------- the platform


def up() -> None:
    """Serve everything until Ctrl-C or SIGTERM: server, work pool, all deployments, and a worker that runs them.

    Raises:
        SystemTrouble: A part did not start, or another `up` is at work on the same home.
    """
    stopping = threading.Event()
    before = {
        number: signal.signal(number, lambda *_: stopping.set())
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }
    try:
        with _alone(_folder() / "up.lock"):
            # What was there before stays when this ends.
            started = not status()["runs"]
            url = ensure()
            try:
                _serve(url, stopping)
            finally:
                if started:
                    stop()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _serve(url: str, stopping: threading.Event) -> None:
    """Deploy everything and keep a worker until told to stop, or until there is no server any more."""
    for words in (("work-pool", "create", POOL, "--type", "process", "--overwrite"), ("deploy", "--all")):
        if stopping.is_set():
            return
        _prefect(*words)
    # One run at a time: two trainings would only share the cores (or fight for the accelerator's memory).
    worker = subprocess.Popen(
        [sys.executable, "-m", "prefect", "worker", "start", "--pool", POOL, "--limit", "1"],
        cwd=root(),
        env=os.environ | {"PREFECT_WORKER_QUERY_SECONDS": "2"},
        stdin=subprocess.DEVNULL,
        # Ctrl-C in a terminal reaches this process only, which then ends the worker in order.
        start_new_session=True,
    )
    log.info("all deployments are at %s; Ctrl-C stops them", _ui(url))
    try:
        while not stopping.wait(1.0) and worker.poll() is None and _stays(url):
            pass
        code = worker.poll()
    finally:
        _end(worker.pid, lambda: worker.poll() is None)
        if _answers(url):
            _bury_the_dead(others=not _named())
    if code is not None:
        raise SystemTrouble("The Prefect worker has ended by itself.", received=f"exit code {code}")


def _stays(url: str) -> bool:
    """Whether nobody has stopped the project's own server; that of a user is the user's business."""
    server = _recorded()
    return bool(_named()) or (server is not None and server["url"] == url and _lives(server))


def _prefect(*words: str) -> None:
    """Run one command of Prefect's in the project's folder."""
    done = subprocess.run(
        [sys.executable, "-m", "prefect", "--no-prompt", *words],
        cwd=root(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemTrouble(f"`prefect {' '.join(words)}` failed.", received=_last_lines(done.stdout))


# ------------------------------------------------------------------------------------------- starting, ending


def _start() -> Server:
    """Start a server of its own session, so that it outlives this process, and wait until it answers."""
    trouble = ""
    for _ in range(3):
        port = _free_port()
        url = f"http://{HOST}:{port}/api"
        log.info("starting the project's Prefect server (log: %s)", _log())
        with _log().open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "prefect", "server", "start"],
                cwd=_folder(),
                env=FEW_WRITES | _environment(url) | _server_settings(port),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        server = {"url": url, "pid": process.pid, "born": born(process.pid)}
        write_json(_file(), server)
        if _await(server):
            log.info("Prefect server at %s", _ui(url))
            return server
        trouble = _last_lines(_log().read_text(errors="replace"))
        _file().unlink(missing_ok=True)
        # Between being chosen and being used the port may have gone to somebody else.
        if "already in use" not in trouble:
            break
    raise SystemTrouble(
        "The project's Prefect server ended while it was starting.",
        received=trouble or "no message",
        remedy=f"see {_log()}; `make setup` restores the locked versions; `--engine local` needs no server",
    )


def _running() -> Server | None:
    """The server that was started before, if it is alive; one that is still starting is waited for."""
    server = _recorded()
    if server and _lives(server) and _await(server):
        return server
    _file().unlink(missing_ok=True)
    return None


def _await(server: Server) -> bool:
    """Wait until a server answers; False if it ends instead.

    Raises:
        SystemTrouble: It does neither for a long time; it is stopped.
    """
    begun = told = time.monotonic()
    while _lives(server):
        if _answers(server["url"]):
            return True
        waited = time.monotonic() - begun
        if waited > START_SECONDS:
            _end(server["pid"], lambda: _lives(server))
            _file().unlink(missing_ok=True)
            raise SystemTrouble(
                f"The project's Prefect server did not answer within {START_SECONDS:.0f} s.",
                received=_last_lines(_log().read_text(errors="replace")),
                remedy=f"see {_log()}; `--engine local` needs no server",
            )
        if time.monotonic() - told > 10:
            told = time.monotonic()
            log.info("waiting for the Prefect server: %.0f s", waited)
        time.sleep(0.1)
    return False


def _end(pid: int, lives: Callable[[], bool]) -> None:
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


def _lives(server: Server) -> bool:
    """Whether the process is there; a child of this process that has ended is taken off the system's list."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(server["pid"], os.WNOHANG)
    return born(server["pid"]) == server["born"]


def _answers(url: str) -> bool:
    """Whether a Prefect API answers at this address."""
    # A proxy can't reach this machine's own loopback.
    local = url.startswith(f"http://{HOST}:")
    opener = urllib.request.build_opener(*([urllib.request.ProxyHandler({})] if local else []))
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
        "PREFECT_HOME": str(_folder()),
        "PREFECT_API_URL": url,
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
    }
    for name in ("NO_PROXY", "no_proxy"):
        hosts = environment.get(name, "")
        if HOST not in hosts:
            environment[name] = f"{hosts},{HOST}".strip(",")
    return environment


def _server_settings(port: int) -> dict[str, str]:
    return {
        "PREFECT_SERVER_API_HOST": HOST,
        # Not `--port`: the pages in the browser would still look for the API at the default port.
        "PREFECT_SERVER_API_PORT": str(port),
        # The pages are copied when the server starts; the installation may be read-only.
        "PREFECT_SERVER_UI_STATIC_DIRECTORY": str(_folder() / "ui"),
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    }


_settled: set[str] = set()
"""Addresses that this process has put into its environment itself."""


def _named() -> str | None:
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


def _folder() -> Path:
    return home() / "prefect"


def _file() -> Path:
    return _folder() / "server.json"


def _log() -> Path:
    return _folder() / "server.log"


def _ui(url: str) -> str:
    return url.removesuffix("/").removesuffix("/api")


def _recorded() -> Server | None:
    return read_json(_file())


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _last_lines(text: str) -> str:
    return "\n".join(text.strip().splitlines()[-5:])


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold a lock, or say that somebody else does."""
    with system_errors(f"starting the platform in {path.parent}"):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("w")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SystemTrouble(
                "The platform is up already.", received=str(home()), remedy="use it, or `make down` first"
            ) from None
        yield


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
    path = _folder() / "alive" / flow_run
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = _folder() / f".{flow_run}"
    file = draft.open("w")
    fcntl.flock(file, fcntl.LOCK_EX)
    # Nobody must see it before it is locked.
    draft.rename(path)
    atexit.register(path.unlink, missing_ok=True)
    return file


def _bury_the_dead(*, others: bool = False) -> None:
    """Mark flow runs as crashed whose process is gone: nobody else would, they would be *Running* for ever.

    Args:
        others: Include those that a worker had taken from the work pool and whose process had not begun yet.
    """
    dead = [path for path in (_folder() / "alive").glob("*") if not is_held(path)]
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
            path = _folder() / "alive" / str(run.id)
            if path in dead or (others and run.work_pool_name == POOL and not path.exists()):
                client.set_flow_run_state(run.id, crashed, force=True)
                of_run = filters.FlowRunFilter(id={"any_": [run.id]})
                state = filters.TaskRunFilter(state={"type": {"any_": unfinished}})
                for task_run in client.read_task_runs(flow_run_filter=of_run, task_run_filter=state):
                    client.set_task_run_state(task_run.id, crashed, force=True)
    for path in dead:
        path.unlink(missing_ok=True)
