"""The platform, as real processes: up, up again, down; and what `status` makes of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect import flow, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.states import Late

from headrace.artifacts import read_json
from headrace.running import born
from tasks import operating, server

PROJECT = Path(__file__).resolve().parents[2]


def headrace(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """One command line, without the settings that the tests of flows have made."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    # A schedule whose time has come would take the only place of the worker.
    unscheduled = {"PREFECT_SERVER_SERVICES_SCHEDULER_ENABLED": "false"}
    return subprocess.run(
        [sys.executable, "-m", "headrace", *words],
        cwd=PROJECT,
        env=inherited | unscheduled | environment,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )


@pytest.fixture
def records(headrace_home: Path) -> Iterator[Callable[[], tuple[dict[str, Any], dict[str, Any]]]]:
    """What is noted of the server and of the platform; in the end nothing of either is left."""
    seen: set[int] = set()

    def read() -> tuple[dict[str, Any], dict[str, Any]]:
        found = tuple(read_json(headrace_home / "prefect" / f"{name}.json") or {} for name in ("server", "platform"))
        seen.update(pid for pid in (found[0].get("pid"), found[1].get("pid"), *_worker(found[1])) if pid)
        return found[0], found[1]

    try:
        yield read
    finally:
        read()
        headrace("platform", "down")
        assert [pid for pid in seen if born(pid)] == []


def _worker(platform: dict[str, Any]) -> list[int]:
    return [platform["worker"]["pid"]] if platform else []


def status() -> dict[str, Any]:
    """What `status --json` prints, and its exit code."""
    done = headrace("platform", "status", "--json")
    return json.loads(done.stdout) | {"exit_code": done.returncode}


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_platform_comes_up_once_runs_what_it_has_deployed_and_leaves_nothing_behind(records: Any) -> None:
    before = status()
    assert (before["exit_code"], before["problems"]) == (4, ["the server does not run: headrace platform up"])

    first = headrace("platform", "up", "--background")
    assert first.returncode == 0, first.stderr
    noted = records()
    found = status()
    assert (found["exit_code"], found["problems"]) == (0, [])
    assert [worker["alive"] for worker in found["workers"]] == [True]
    assert found["deployments"]["there"] == len(operating.declared())
    assert found["automations"]["missing"] == []
    assert found["notified"] is False

    second = headrace("platform", "up")
    assert second.returncode == 0
    assert "up already" in second.stderr
    assert "nothing had to be changed" in second.stderr
    assert records() == noted

    words = ["deployment", "run", "house_prices/smoke", "--watch"]
    environment = os.environ | {"PREFECT_API_URL": found["url"]}
    run = subprocess.run([sys.executable, "-m", "prefect", *words], env=environment, cwd=PROJECT, check=False)
    assert run.returncode == 0
    (last,) = status()["last_runs"]
    assert (last["deployment"], last["state"]) == ("house_prices/smoke", "Completed")

    other = headrace("platform", "up", "--port", "1")
    assert other.returncode == 4
    assert "port: 1" in other.stderr

    down = headrace("platform", "down")
    assert down.stdout == "stopped: worker, server\n"
    assert headrace("platform", "down").stdout == "there was nothing to stop\n"
    assert status()["runs"] is False


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_platform_that_was_killed_leaves_a_worker_that_the_next_one_ends(records: Any) -> None:
    assert headrace("platform", "up", "--background").returncode == 0
    _, platform = records()
    os.kill(platform["pid"], signal.SIGKILL)
    until = time.monotonic() + 10
    while born(platform["pid"]) == platform["born"] and time.monotonic() < until:
        time.sleep(0.1)
    assert "no worker is alive, so nothing is run: headrace platform up" in status()["problems"]

    assert headrace("platform", "up", "--background").returncode == 0

    _, after = records()
    assert born(platform["worker"]["pid"]) != platform["worker"]["born"]
    assert after["worker"]["pid"] != platform["worker"]["pid"]
    assert status()["problems"] == []


def test_an_open_platform_is_refused_before_anything_is_started(headrace_home: Path) -> None:
    refused = headrace("platform", "up", "--background", "--host", "0.0.0.0")

    assert refused.returncode == 2
    assert "needs a password" in refused.stderr
    assert "PREFECT_API_AUTH_STRING=user:password" in refused.stderr
    assert not (headrace_home / "prefect" / "server.json").exists()


def queue(name: str, **changes: Any) -> dict[str, Any]:
    return {"name": name, "paused": False, "served": True, "late": 0} | changes


def found(**changes: Any) -> dict[str, Any]:
    """What a healthy platform is like; state only what differs."""
    healthy: dict[str, Any] = {
        "workers": [{"name": "here", "alive": True}],
        "queues": [queue("default"), queue("ray", served=False)],
        "deployments": {"missing": [], "current": True},
        "automations": {"missing": []},
    }
    return healthy | changes


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, []),
        ({"workers": []}, ["no worker"]),
        ({"workers": [{"name": "a", "alive": False}, {"name": "b", "alive": True}]}, []),
        ({"deployments": {"missing": ["mnist/weekly"], "current": False}}, ["mnist/weekly"]),
        ({"deployments": {"missing": [], "current": False}}, ["has changed since"]),
        ({"automations": {"missing": ["headrace: x"]}}, ["headrace: x"]),
        ({"queues": [queue("ray", served=False, late=2)]}, ["--work-queue ray, with RAY_ADDRESS set"]),
        (
            {"queues": [queue("watch", served=False, late=1)]},
            ["nobody serves work queue `watch`, in which runs wait (1)"],
        ),
        ({"queues": [queue("ray", served=False, late=2, paused=True), queue("default", late=3)]}, []),
        ({"queues": [queue("default", served=False, late=1)], "workers": []}, ["no worker"]),
    ],
)
def test_status_tells_what_is_wrong(changes: dict[str, Any], words: list[str]) -> None:
    problems = list(operating._problems(found(**changes)))

    assert len(problems) == len(words)
    for problem, word in zip(problems, words, strict=True):
        assert word in problem


def test_what_the_deployments_follow_from_changes_with_a_flow(project: Path) -> None:
    before = operating.digest_of_files()
    (project / "flows" / "mnist.py").write_text("# changed")

    assert operating.digest_of_files() != before


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with nothing but what deployments follow from."""
    (tmp_path / "flows").mkdir()
    (tmp_path / "prefect.yaml").write_text(
        "deployments:\n"
        "- {entrypoint: 'flows/mnist.py:mnist', name: weekly, work_pool: {name: headrace}}\n"
        "- {entrypoint: 'flows/study.py:study', name: ray, work_pool: {name: headrace, work_queue_name: ray}}\n"
    )
    monkeypatch.setattr(operating, "root", lambda: tmp_path)
    return tmp_path


def test_deployments_are_known_by_flow_and_name(project: Path) -> None:
    assert operating.declared() == ["mnist/weekly", "study/ray"]


def test_the_worker_serves_every_queue_and_that_of_a_cluster_only_where_one_is_at_hand(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert operating.served() == ["default"]

    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    assert operating.served() == ["default", "ray"]


@pytest.mark.harness
def test_queues_are_made_where_they_are_missing_and_stay_as_a_person_has_left_them(harness: str, project: Path) -> None:
    with get_client(sync_client=True) as client:
        client.create_work_pool(WorkPoolCreate(name=server.POOL, type="process"))
        try:
            assert operating.make_queues(client) == ["work queue `ray` created"]
            (ray,) = [one for one in client.read_work_queues(server.POOL) if one.name == "ray"]
            client.update_work_queue(ray.id, is_paused=True, concurrency_limit=3)

            assert operating.make_queues(client) == []

            after = client.read_work_queue(ray.id)
            assert (after.is_paused, after.concurrency_limit) == (True, 3)
        finally:
            client.delete_work_pool(server.POOL)


@pytest.mark.harness
def test_a_run_that_waits_in_a_queue_without_a_worker_is_seen(harness: str, project: Path) -> None:
    @flow
    def waiting() -> None: ...

    with get_client(sync_client=True) as client:
        client.create_work_pool(WorkPoolCreate(name=server.POOL, type="process"))
        try:
            operating.make_queues(client)
            place = {"work_pool_name": server.POOL, "work_queue_name": "ray"}
            deployment = client.create_deployment(client.create_flow(waiting), "one", **place)
            run = client.create_flow_run_from_deployment(deployment)
            client.set_flow_run_state(run.id, Late(), force=True)

            assert list(operating._queues(client)) == [
                queue("default", served=False),
                queue("ray", served=False, late=1),
            ]
        finally:
            client.delete_work_pool(server.POOL)


def test_nothing_to_stop_is_no_failure(headrace_home: Path) -> None:
    assert operating.down() == []
    assert server.status()["runs"] is False
