"""Runs that need a Ray cluster wait for a worker that has one; the others do not take them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect import get_client
from prefect.deployments import run_deployment

from tasks import operating, server
from tests.conftest import PROJECT

pytestmark = [pytest.mark.harness, pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture
def prefect(harness: str, tmp_path: Path) -> Iterator[Callable[..., None]]:
    """Run a command of Prefect's, with the pool in place and `ensemble/ray` deployed to it."""
    environment = os.environ | {"PREFECT_API_URL": harness, "PREFECT_HOME": str(tmp_path / "prefect")}
    environment.pop("RAY_ADDRESS", None)

    def run(*words: str) -> None:
        command = [sys.executable, "-m", "prefect", "--no-prompt", *words]
        done = subprocess.run(
            command, cwd=PROJECT, env=environment, capture_output=True, text=True, timeout=600, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr

    run("work-pool", "create", server.POOL, "--type", "process")
    run("deploy", "--name", "ensemble/ray")
    try:
        yield run
    finally:
        run("work-pool", "delete", server.POOL)


def test_a_run_of_queue_ray_waits_for_a_worker_of_this_queue(
    prefect: Callable[..., None], headrace_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with get_client(sync_client=True) as client:
        operating.make_queues(client)
        run: Any = run_deployment("ensemble/ray", timeout=0, _sync=True)
        once = ("worker", "start", "--pool", server.POOL, "--run-once")

        prefect(*once, *(word for queue in operating.served() for word in ("--work-queue", queue)))
        assert client.read_flow_run(run.id).state_name in ("Scheduled", "Late")

        prefect(*once, "--work-queue", operating.RAY)
        assert client.read_flow_run(run.id).state_name == "Completed"
    trained = list((headrace_home / "artifacts" / "house_prices" / "train").glob("*/manifest.json"))
    assert len(trained) == 3
