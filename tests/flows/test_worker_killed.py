"""A worker and everything that it runs killed without a word, in training, a run cancelled, a pod told to end: nothing
is lost.

The worker is on a machine of its own, so to say: its home is not that of the server, which therefore learns of the end
by the missing signs of life alone.
"""

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

from headrace.artifacts import read_json
from tasks.automations import HEARTBEAT, SILENCE
from tests.conftest import PROJECT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

OVERRIDES = {"train.epochs": 20_000}
"""Many epochs on few examples: half a minute, with a checkpoint each second."""
REQUEST = {"variant": "final", "profile": "smoke", "data": "synthetic", "overrides": OVERRIDES}


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A server with the pool, one deployment and the automations, and nothing that runs anything."""
    for name in [name for name in os.environ if name.startswith("PREFECT_")]:
        monkeypatch.delenv(name)
    code = """
import sys
from tasks import operating, server
url = server.ensure()
operating.run_prefect("work-pool", "create", server.POOL, "--type", "process")
operating.run_prefect("deploy", "--name", "house_prices/smoke")
from prefect import get_client
from tasks import automations
with get_client(sync_client=True) as client:
    automations.install(client, [known for known, _ in operating.deployed(client)])
print(url)
"""
    home = {"HEADRACE_HOME": str(tmp_path / "server")}
    try:
        yield said("-c", code, **home)
    finally:
        said("-c", "from tasks import server; server.stop()", **home)


def said(*words: str, **environment: str) -> str:
    """The last line that a Python process prints."""
    done = subprocess.run(
        [sys.executable, *words],
        cwd=PROJECT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return (done.stdout.strip().splitlines() or [""])[-1]


@pytest.fixture
def work(api: str, tmp_path: Path) -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    """Start a worker whose home is its own."""
    started: list[subprocess.Popen[bytes]] = []

    def start() -> subprocess.Popen[bytes]:
        telling = {"PREFECT_WORKER_QUERY_SECONDS": "1", "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT)}
        own = {"PREFECT_API_URL": api, "HEADRACE_HOME": str(tmp_path / "worker"), "PREFECT_HOME": str(tmp_path / "p")}
        with (tmp_path / "worker.log").open("ab") as log:
            words = ["-m", "prefect", "worker", "start", "--pool", "headrace", "--name", f"elsewhere-{len(started)}"]
            environment = os.environ | telling | own
            worker = subprocess.Popen([sys.executable, *words], cwd=PROJECT, env=environment, stdout=log, stderr=log)
        started.append(worker)
        return worker

    try:
        yield start
    finally:
        for worker in started:
            kill(worker)


def kill(process: subprocess.Popen[bytes]) -> None:
    """End a process and all that it has started, without a word and all at once."""
    family = [process.pid]
    for pid in family:
        family += [int(child) for task in tasks(pid) for child in (task / "children").read_text().split()]
    for pid in family:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    process.wait()


def tasks(pid: int) -> list[Path]:
    """The threads of a process; any of them may have started others."""
    return list(Path(f"/proc/{pid}/task").glob("*"))


def ask(api: str, run: str, code: str = "") -> str:
    """The name of the state that a flow run is in, after something was done about it."""
    lines = f"""
from uuid import UUID
from prefect import get_client
from prefect.client.schemas.sorting import LogSort
from prefect.states import Cancelling, Pending, Scheduled
run = UUID({run!r})
with get_client(sync_client=True) as client:
    {code}
    print(client.read_flow_run(run).state.name)
"""
    return said("-c", lines, PREFECT_API_URL=api)


def until(what: Callable[[], Any], seconds: float) -> None:
    """Wait until something is so."""
    begun = time.monotonic()
    while not what():
        assert time.monotonic() - begun < seconds, "it did not happen"
        time.sleep(0.5)


def trained(home: Path) -> tuple[str, str]:
    """What identifies the trained model: what it depends on, and its bytes."""
    (manifest,) = (home / "artifacts" / "house_prices" / "train").glob("*/manifest.json")
    return manifest.parent.name, read_json(manifest)["digest"]


def in_training(api: str, home: Path) -> str:
    """A flow run that is in training, and has left a checkpoint."""
    run = asked_for(api)
    until(lambda: checkpoints(home), 300)
    return run


def asked_for(api: str) -> str:
    """A flow run that waits for somebody to carry it out."""
    start = f"""
from prefect.deployments import run_deployment
print(run_deployment("house_prices/smoke", parameters={REQUEST!r}, timeout=0, _sync=True).id)
"""
    return said("-c", start, PREFECT_API_URL=api)


def checkpoints(home: Path) -> list[Path]:
    return list((home / "work" / "house_prices" / "train").rglob("checkpoint-*.npz"))


def undisturbed(home: Path) -> tuple[str, str]:
    """What the same training comes to without a server, and without anybody who cuts it short."""
    settings = [word for path, value in OVERRIDES.items() for word in ("--set", f"{path}={value}")]
    options = ["--variant", "final", "--profile", "smoke", "--data", "synthetic", *settings]
    said("-m", "headrace", "run", "house_prices", *options, HEADRACE_HOME=str(home))
    return trained(home)


def once_more(api: str, run: str) -> None:
    """Have a flow run carried out again, to its end."""
    ask(api, run, 'client.set_flow_run_state(run, Scheduled(message="once more"), force=True)')
    until(lambda: ask(api, run) in ("Completed", "Rejected", "Failed", "Crashed"), 900)
    assert ask(api, run) == "Completed"


def test_a_killed_run_is_marked_as_crashed_and_its_retry_ends_as_if_nothing_had_happened(
    api: str, work: Callable[[], subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    worker = work()
    run = in_training(api, tmp_path / "worker")
    kill(worker)
    assert ask(api, run) == "Running"

    # Meanwhile, the same undisturbed.
    expected = undisturbed(tmp_path / "undisturbed")
    until(lambda: ask(api, run) == "Crashed", SILENCE.total_seconds() + 60)
    work()
    once_more(api, run)

    assert "train: going on after epoch" in (tmp_path / "worker.log").read_text(errors="replace")
    assert trained(tmp_path / "worker") == expected


def test_a_cancelled_run_can_be_carried_out_again_and_goes_on_where_it_was(
    api: str, work: Callable[[], subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    work()
    run = in_training(api, tmp_path / "worker")
    ask(api, run, "client.set_flow_run_state(run, Cancelling())")
    until(lambda: ask(api, run) == "Cancelled", 120)
    assert not list((tmp_path / "worker" / "artifacts" / "house_prices" / "train").glob("*/manifest.json"))

    once_more(api, run)

    assert "train: going on after epoch" in (tmp_path / "worker.log").read_text(errors="replace")
    assert trained(tmp_path / "worker") == undisturbed(tmp_path / "undisturbed")


@pytest.fixture
def pod(api: str, tmp_path: Path) -> Iterator[Callable[[str], subprocess.Popen[bytes]]]:
    """Do what a pod of Kubernetes does for a run: one command, with the variables of the Job's template."""
    template = json.loads((PROJECT / "deploy" / "kubernetes" / "base-job-template.json").read_text())
    variables = template["job_configuration"]["env"] | {"HEADRACE_HOME": str(tmp_path / "pods")}
    started: list[subprocess.Popen[bytes]] = []

    def start(run: str) -> subprocess.Popen[bytes]:
        # As the worker does when it has made the Job.
        ask(api, run, "client.set_flow_run_state(run, Pending())")
        own = {"PREFECT_API_URL": api, "PREFECT__FLOW_RUN_ID": run, "PREFECT_HOME": str(tmp_path / "p")}
        words = [sys.executable, "-m", "prefect", "flow-run", "execute"]
        with (tmp_path / "pod.log").open("ab") as log:
            process = subprocess.Popen(words, cwd="/", env=os.environ | variables | own, stdout=log, stderr=log)
        started.append(process)
        return process

    try:
        yield start
    finally:
        for process in started:
            if process.poll() is None:
                kill(process)


def test_a_pod_that_is_told_to_end_puts_its_run_back_and_the_next_one_goes_on(
    api: str, pod: Callable[[str], subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    run = asked_for(api)
    first = pod(run)
    until(lambda: checkpoints(tmp_path / "pods"), 300)

    first.terminate()

    assert first.wait(60) == 0, "longer than the grace of a pod"
    assert ask(api, run) == "AwaitingRetry"
    assert pod(run).wait(900) == 0
    assert ask(api, run) == "Completed"
    assert "train: going on after epoch" in (tmp_path / "pod.log").read_text(errors="replace")
    assert trained(tmp_path / "pods") == undisturbed(tmp_path / "undisturbed")
