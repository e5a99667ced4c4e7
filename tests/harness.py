"""A temporary Prefect server for the tests of tasks and flows, started once however many folders ask for it."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tasks.server import FEW_WRITES, one_certificate

# Prefect makes its home when it is imported; it must not be that of the person who runs the tests.
os.environ["PREFECT_HOME"] = tempfile.mkdtemp(prefix="prefect-home-")
os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] = "false"
os.environ["DO_NOT_TRACK"] = "1"
os.environ.update(FEW_WRITES)
os.environ["PREFECT_API_SSL_CERT_FILE"] = str(one_certificate(Path(os.environ["PREFECT_HOME"])))
os.environ.pop("PREFECT_API_URL", None)
atexit.register(shutil.rmtree, os.environ["PREFECT_HOME"], ignore_errors=True)

_running: list[str] = []


@pytest.fixture(scope="session")
def harness() -> Iterator[str]:
    """The address of a temporary server against which all flows of this process run, without heartbeats."""
    if _running:
        yield _running[0]
        return
    from prefect.settings import PREFECT_API_URL, PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings
    from prefect.testing.utilities import prefect_test_harness

    with ExitStack() as stack:
        # The heartbeat costs a second for each run of a flow.
        stack.enter_context(temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}))
        stack.enter_context(prefect_test_harness(server_startup_timeout=180))
        _running.append(str(PREFECT_API_URL.value()))
        yield _running[0]
        _running.clear()


class Server:
    """Questions to the server, as the browser asks them."""

    def __init__(self, url: str) -> None:
        self.url = url

    def ask(self, path: str, **question: Any) -> Any:
        """POST a question, return the answer."""
        from prefect import get_client

        with get_client(sync_client=True) as client:
            return client.request("POST", path, json=question).json()

    def task_runs(self, flow_run: object) -> list[dict[str, Any]]:
        """The task runs of a flow run, in the order in which they began."""
        wanted = {"id": {"any_": [str(flow_run)]}}
        until = time.monotonic() + 30
        while True:
            found = self.ask("/task_runs/filter", flow_runs=wanted)
            # The server writes a task run down a moment before its state.
            if all(run["state"] for run in found) or time.monotonic() > until:
                return sorted(found, key=lambda run: run["start_time"] or "")
            time.sleep(0.1)

    def artifacts(self, flow_run: object) -> list[dict[str, Any]]:
        """The artifacts of a flow run."""
        return self.ask("/artifacts/filter", flow_runs={"id": {"any_": [str(flow_run)]}})


@pytest.fixture
def prefect_server(harness: str) -> Server:
    """The temporary server, ready to be asked."""
    return Server(harness)
