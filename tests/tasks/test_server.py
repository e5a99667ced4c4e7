"""The project's own server, as real processes: started once, used by all, gone when it is stopped."""

from __future__ import annotations

import os
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from headrace.artifacts import home, read_json
from headrace.errors import ConfigError, SystemTrouble
from headrace.running import born
from tasks import server
from tests.harness import Server

PROJECT = Path(__file__).resolve().parents[2]


def process(code: str, **environment: str) -> subprocess.Popen[str]:
    """A Python process in the project, without the settings that the tests of flows have made."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    prelude = "import logging; from tasks import server; logging.basicConfig(level=logging.INFO)\n"
    return subprocess.Popen(
        [sys.executable, "-c", prelude + code],
        cwd=PROJECT,
        env=inherited | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def said(running: subprocess.Popen[str]) -> str:
    """What a process has printed when it has ended well."""
    out, err = running.communicate(timeout=240)
    assert running.returncode == 0, err
    return out.strip()


@pytest.fixture
def nothing_stays(headrace_home: Path) -> Iterator[Callable[[], dict[str, Any]]]:
    """What `server.json` says; in the end the server is stopped and nothing of it is left."""

    def record() -> dict[str, Any]:
        return read_json(headrace_home / "prefect" / "server.json") or {}

    seen: list[int] = []
    try:
        yield lambda: seen.append(record()["pid"]) or record()
    finally:
        last = record()
        server.stop()
        assert [pid for pid in [*seen, last.get("pid", -1)] if born(pid)] == []


# Prefect reads its settings when it is imported; `python -m flows.NAME` has imported it before the server is there.
LATE = """
from prefect.settings import get_current_settings
assert get_current_settings().api.url is None
url = server.ensure()
assert get_current_settings().api.url == url
print(url)
"""


def test_two_processes_that_need_a_server_start_one_and_a_third_stops_it(
    nothing_stays: Callable[[], dict[str, Any]],
) -> None:
    first, second = process("print(server.ensure())"), process(LATE, PREFECT_HOME=os.environ["PREFECT_HOME"])
    url = said(first)

    assert said(second) == url == nothing_stays()["url"]
    assert said(process("print(server.status()['runs'], server.status()['url'])")) == f"True {url}"
    assert said(process("print(server.stop(), server.stop(), server.status()['runs'])")) == "True False False"


@pytest.mark.slow
def test_a_server_that_was_killed_is_replaced(nothing_stays: Callable[[], dict[str, Any]]) -> None:
    said(process("server.ensure()"))
    killed = nothing_stays()
    os.kill(killed["pid"], signal.SIGKILL)

    url = said(process("print(server.ensure())"))

    assert nothing_stays()["pid"] != killed["pid"]
    assert nothing_stays()["url"] == url


def test_a_server_that_cannot_start_says_why(nothing_stays: Callable[[], dict[str, Any]]) -> None:
    starting = process("server.ensure()", PREFECT_SERVER_DATABASE_CONNECTION_URL="nonsense://")

    _, err = starting.communicate(timeout=240)

    assert starting.returncode == 1
    assert "SystemTrouble: The project's Prefect server ended while it was starting" in err
    assert "nonsense" in err
    assert server.status()["runs"] is False


def test_a_server_of_the_users_that_does_not_answer_is_not_replaced(
    headrace_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")

    with pytest.raises(SystemTrouble, match="PREFECT_API_URL does not answer"):
        server.ensure()
    assert not (headrace_home / "prefect" / "server.json").exists()


@pytest.mark.harness
def test_a_server_of_the_users_is_used(harness: str, headrace_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", harness)

    assert server.ensure() == harness
    unknown = {"pid": None, "log": None, "database": None}
    assert server.status() == {"runs": True, "url": harness, "ui": harness[:-4], **unknown}
    assert not (headrace_home / "prefect" / "server.json").exists()


ENDLESS = """
import sys, time
from pathlib import Path
from prefect import flow
from headrace.artifacts import Artifact
from headrace.jobs import resolve
from tasks.policies import as_task

def train(job):
    print("training", flush=True)
    time.sleep(600)

train = as_task(train, shows=lambda job, made: None, timeout=900)

@flow(name="house_prices")
def house_prices():
    train(resolve("house_prices"))

house_prices()
"""


@pytest.mark.harness
def test_a_run_that_was_killed_is_marked_as_crashed_and_one_that_lives_is_not(prefect_server: Server) -> None:
    runs = [process(ENDLESS, PREFECT_API_URL=prefect_server.url, PREFECT_HOME=os.environ["PREFECT_HOME"]) for _ in "ab"]
    try:
        for run in runs:
            assert run.stdout is not None
            assert run.stdout.readline() == "training\n"
        alive = {path.name for path in (home() / "prefect" / "alive").iterdir()}
        until = time.monotonic() + 60
        while states(prefect_server, alive) != [("Running", ["Running"])] * 2:
            assert time.monotonic() < until
            time.sleep(0.1)
        runs[0].kill()
        runs[0].wait()

        server.bury_the_dead()

        assert states(prefect_server, alive) == [("Crashed", ["Crashed"]), ("Running", ["Running"])]
        assert len(list((home() / "prefect" / "alive").iterdir())) == 1
    finally:
        for run in runs:
            run.kill()
            run.communicate()


def states(prefect_server: Server, flow_runs: set[str]) -> list[tuple[str, list[str]]]:
    """The states of flow runs, each with those of its task runs."""
    found = prefect_server.ask("/flow_runs/filter", flow_runs={"id": {"any_": sorted(flow_runs)}})
    return sorted(
        (run["state"]["name"], [task["state"]["name"] for task in prefect_server.task_runs(run["id"])]) for run in found
    )


# ------------------------------------------------------------------------------------- what is asked of a server


OPEN = {"PREFECT_SERVER_API_HOST": "0.0.0.0"}
SECRET = {"PREFECT_API_AUTH_STRING": "me:hush"}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Callable[..., server.Wanted]:
    """What variables ask of the project's own server."""

    def ask(**variables: str) -> server.Wanted:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        return server.Wanted.of_environment()

    return ask


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.7", "a-machine.example.org"])
def test_a_server_that_others_can_reach_needs_a_password(asked: Callable[..., server.Wanted], host: str) -> None:
    with pytest.raises(ConfigError, match="needs a password"):
        asked(PREFECT_SERVER_API_HOST=host)

    assert asked(PREFECT_SERVER_API_HOST=host, **SECRET).auth == "me:hush"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_a_server_of_this_machine_only_needs_none(asked: Callable[..., server.Wanted], host: str) -> None:
    assert asked(PREFECT_SERVER_API_HOST=host).host == host


@pytest.mark.parametrize("auth", ["hush", ":hush", "hush:"])
def test_half_a_password_is_refused_and_not_repeated(asked: Callable[..., server.Wanted], auth: str) -> None:
    with pytest.raises(ConfigError, match="no user and password") as caught:
        asked(PREFECT_API_AUTH_STRING=auth)

    assert "hush" not in str(caught.value)


def test_what_is_no_port_is_refused(asked: Callable[..., server.Wanted]) -> None:
    with pytest.raises(ConfigError, match="no port"):
        asked(PREFECT_SERVER_API_PORT="70000")


@pytest.mark.parametrize(
    ("given", "used", "shown"),
    [
        ("postgresql://me:hush@db:5433/prefect", "postgresql+asyncpg://me:hush@db:5433/prefect", "db:5433/prefect"),
        ("postgres://db/prefect", "postgresql+asyncpg://db/prefect", "db/prefect"),
        ("sqlite+aiosqlite:////data/prefect.db", "sqlite+aiosqlite:////data/prefect.db", "//data/prefect.db"),
    ],
)
def test_a_database_gets_its_driver_and_is_shown_without_password(given: str, used: str, shown: str) -> None:
    assert server.with_driver(given) == used
    assert server.without_password(used).endswith(f"://{shown}")


def test_clients_of_a_server_without_encryption_read_one_certificate_only(
    headrace_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of Prefect's many clients reads the whole file, whether it needs it or not."""
    monkeypatch.delenv("PREFECT_API_SSL_CERT_FILE")
    found = server._environment("http://127.0.0.1:4200/api")["PREFECT_API_SSL_CERT_FILE"]
    assert Path(found).is_relative_to(headrace_home)
    assert len(ssl.create_default_context(cafile=found).get_ca_certs()) == 1


def test_a_certificate_that_the_user_names_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_SSL_CERT_FILE", "own.pem")
    assert server._environment("http://127.0.0.1:4200/api")["PREFECT_API_SSL_CERT_FILE"] == "own.pem"


def test_a_server_that_runs_otherwise_than_asked_is_told_apart() -> None:
    running = {"url": "http://127.0.0.1:4200/api", "host": "127.0.0.1", "database": "SQLite", "auth": False}
    alike = server.Wanted(host=None, port=4200, database=None, auth=None)
    other = server.Wanted(host="0.0.0.0", port=4201, database="postgresql+asyncpg://me:x@db/p", auth="me:hush")

    assert alike.unlike(running) == []
    assert [what for what, _, _ in other.unlike(running)] == ["host", "port", "database", "password"]
    assert "hush" not in str(other.unlike(running))


@pytest.mark.slow
def test_a_server_with_a_password_is_closed_to_those_who_have_none(
    nothing_stays: Callable[[], dict[str, Any]], headrace_home: Path
) -> None:
    count = "\nfrom prefect import get_client\nwith get_client(sync_client=True) as c: print(len(c.read_flows()))"
    url = said(process("print(server.ensure())", **OPEN, **SECRET))
    nothing_stays()

    assert url.startswith("http://127.0.0.1:")
    assert said(process(f"server.ensure(){count}", **SECRET)) == "0"
    _, err = process("server.ensure()").communicate(timeout=60)
    assert "wants a user and a password" in err
    _, err = process(count, PREFECT_API_URL=url, PREFECT_HOME=os.environ["PREFECT_HOME"]).communicate(timeout=60)
    assert "401" in err
    assert not [path for path in headrace_home.rglob("*") if path.is_file() and b"hush" in path.read_bytes()]
