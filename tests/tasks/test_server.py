"""The project's own server, as real processes: started once, used by all, gone when it is stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from headrace.artifacts import home, read_json
from headrace.errors import SystemTrouble
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
    assert server.status() == {"runs": True, "url": harness, "ui": harness[:-4], "pid": None, "log": None}
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

        server._bury_the_dead()

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


@pytest.mark.slow
def test_the_platform_deploys_everything_runs_it_and_leaves_nothing_behind(
    nothing_stays: Callable[[], dict[str, Any]],
) -> None:
    platform = process("server.up()")
    try:
        assert platform.stderr is not None
        for line in platform.stderr:
            if "all deployments are at" in line:
                break
        url = nothing_stays()["url"]
        code = """
import os; os.environ["PREFECT_API_URL"] = URL
from prefect import get_client
from prefect.deployments import run_deployment
with get_client(sync_client=True) as client:
    print(*sorted(f"{d.name} {d.entrypoint}" for d in client.read_deployments()), sep="\\n")
print(run_deployment("house_prices/smoke", timeout=200, _sync=True).state.name)
"""
        lines = said(process(f"URL = {url!r}\n{code}", PREFECT_HOME=os.environ["PREFECT_HOME"])).splitlines()
        assert lines == [
            "nightly flows/house_prices.py:house_prices",
            "smoke flows/house_prices.py:house_prices",
            "Completed",
        ]
        second = process("server.up()")
        _, err = second.communicate(timeout=60)
        assert "The platform is up already" in err
    finally:
        platform.send_signal(signal.SIGTERM)
        _, err = platform.communicate(timeout=120)
    assert platform.returncode == 0, err
    assert server.status()["runs"] is False
