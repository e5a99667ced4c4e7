"""From nothing to a model that is watched, with a real server, a real worker and real events.

A deployment run publishes; data that have drifted make `monitor` tell of it; the trigger in `prefect.yaml` starts the
retrain, whose verdict decides; a bad model that is forced is rolled back.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headrace import registry, watching
from headrace.jobs import Job, resolve
from headrace.readers.batches import to_arrays
from tasks.server import FEW_WRITES
from tests.core.serving_models import prices, save_prices

PROJECT = Path(__file__).resolve().parents[2]
LINE = "house_prices-own_houses-smoke"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning"),
]


class Platform:
    """A server, a pool, a worker, the deployments that are wanted; all ended with the test."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self._folder, self._url = folder, f"http://127.0.0.1:{port}/api"
        self._env = os.environ | FEW_WRITES
        self._env |= {
            "PREFECT_HOME": str(folder / "prefect"),
            "PREFECT_API_URL": self._url,
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_WORKER_QUERY_SECONDS": "1",
            "DO_NOT_TRACK": "1",
        }
        self._processes: list[subprocess.Popen[bytes]] = []
        self._start("server", "start", "--port", str(port))
        self._wait(lambda: self._answers("health"), 120, "the server")

    def _start(self, *words: str) -> None:
        with (self._folder / f"{words[0]}.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "prefect", *words],
                cwd=PROJECT,
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # A worker ends by Ctrl-C, which is ignored by whatever a shell has put into the background.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )
        self._processes.append(process)

    def end(self) -> None:
        for process in reversed(self._processes):
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(60)
            process.kill()

    def prefect(self, *words: str) -> str:
        call = [sys.executable, "-m", "prefect", "--no-prompt", *words]
        done = subprocess.run(call, cwd=PROJECT, env=self._env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def work(self) -> None:
        self.prefect("work-pool", "create", "headrace", "--type", "process")
        self.prefect("deploy", "--name", "house_prices/on-drift", "--name", "monitor/hourly")
        self._start("worker", "start", "--pool", "headrace", "--limit", "1")

    def ask(self, path: str, **question: Any) -> Any:
        request = urllib.request.Request(
            f"{self._url}/{path}", json.dumps(question).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def _answers(self, path: str) -> bool:
        try:
            with urllib.request.urlopen(f"{self._url}/{path}", timeout=5):
                return True
        except OSError:
            return False

    def _wait(self, done: Any, seconds: float, what: str) -> Any:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if found := done():
                return found
            time.sleep(0.5)
        raise AssertionError(f"waited {seconds:.0f} s for {what}\n{self._logs()}")

    def _logs(self) -> str:
        return "\n".join(log.read_text()[-3000:] for log in sorted(self._folder.glob("*.log")))

    def runs(self, flow: str) -> list[dict[str, Any]]:
        """All runs of a flow that no schedule has planned, the first one first."""
        found = self.ask("flow_runs/filter", sort="EXPECTED_START_TIME_ASC", flows={"name": {"any_": [flow]}})
        return [run for run in found if not run["auto_scheduled"]]

    def ended(self, flow: str, number: int) -> dict[str, Any]:
        """The run of this number, once it has ended."""

        def done() -> dict[str, Any] | None:
            runs = self.runs(flow)
            over = len(runs) >= number and runs[number - 1]["state_type"] in ("COMPLETED", "FAILED", "CRASHED")
            return runs[number - 1] if over else None

        run: dict[str, Any] = self._wait(done, 240, f"run {number} of {flow}")
        return run

    def run(self, deployment: str, **parameters: Any) -> dict[str, Any]:
        """Run a deployment and wait for its end."""
        flow = deployment.partition("/")[0]
        number = len(self.runs(flow)) + 1
        given = [word for name, value in parameters.items() for word in ("--param", f"{name}={json.dumps(value)}")]
        self.prefect("deployment", "run", deployment, *given)
        return self.ended(flow, number)

    def events(self, name: str, count: int) -> list[dict[str, Any]]:
        """All events of this name, once there are so many: they are written down a moment after a run has ended."""

        def found() -> list[dict[str, Any]]:
            return list(self.ask("events/filter", filter={"event": {"name": [name]}})["events"])

        self._wait(lambda: len(found()) >= count, 60, f"{count} events {name}")
        return found()


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    made = Platform(tmp_path)
    try:
        made.work()
        yield made
    finally:
        made.end()


def houses(job: Job, path: Path, seed: int, tax: float = 1.0) -> Path:
    """A table of the twin's houses with prices, taxes multiplied."""
    raw = path.parent.with_name(f"raw-{seed}")
    raw.mkdir()
    assert job.origin.twin
    job.origin.twin(raw, seed)
    features = job.origin.features
    parts = [to_arrays(batch, features) for split in job.origin.read(raw).values() for batch in split]
    values, sold = (np.concatenate([np.asarray(part[name]) for part in parts]) for name in ("features", "price"))
    names = [column.name for column in features["features"].columns]
    values = values.copy()
    values[:, names.index("TAX")] *= tax
    table = np.column_stack([values, sold])
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join([",".join([*names, "MEDV"]), *(",".join(map(str, row)) for row in table)]) + "\n")
    return path


def force_a_bad_model(folder: Path) -> int:
    """Bless a model that says of itself what the good one could say, and was never trained."""
    good = registry.folder(LINE, registry.blessed(LINE))
    saved = save_prices(folder / "bad", prices(1))
    contents: dict[str, Path | bytes] = {path.name: path for path in saved.iterdir()}
    contents |= {f"{registry.EXTRA}/{path.name}": path for path in (good / registry.EXTRA).iterdir()}
    version = registry.publish(LINE, contents, bundle="bad")
    registry.bless(LINE, version)
    return version


def test_drift_leads_to_a_retrain_and_a_bad_model_back_to_the_good_one(platform: Platform, tmp_path: Path) -> None:
    job = resolve("house_prices", profile="smoke", data="synthetic")
    data = tmp_path / "houses"
    houses(job, data / "first.csv", seed=1)

    # 1. A deployment run, through the worker, to a blessed version.
    first = platform.run("house_prices/on-drift", profile="smoke", data="auto", source=str(data))
    assert first["state_name"] == "Completed", first["state"]["message"]
    assert (registry.versions(LINE), registry.blessed(LINE)) == ([1], 1)
    asked = {"workload": "house_prices", "line": LINE}

    # 2. Data like those of the training: nothing is told, nothing starts.
    like = platform.run("monitor/hourly", **asked, input=str(data))
    assert like["state_name"] == "Completed"
    assert "no drift" in like["state"]["message"]

    # 3. Drift: an event, a retrain on what lies there now, and a verdict.
    drifted = houses(job, data / "second.csv", seed=2, tax=1.5)
    seen = platform.run("monitor/hourly", **asked, input=str(drifted))
    assert seen["state_name"] == "Completed", seen["state"]["message"]
    assert "drifted: TAX" in seen["state"]["message"]
    (event,) = platform.events(watching.DRIFTED, 1)
    assert event["payload"]["columns"].keys() == {"TAX"}
    retrain = platform.ended("house_prices", 2)
    assert retrain["parameters"]["source"] == str(data)
    assert (retrain["parameters"]["profile"], retrain["parameters"]["variant"]) == ("smoke", job.variant)
    assert retrain["created_by"]["type"] == "AUTOMATION"
    published = {"Completed": [1, 2], "Rejected": [1]}
    assert registry.versions(LINE) == published[retrain["state_name"]], retrain["state"]["message"]
    assert registry.blessed(LINE) == registry.versions(LINE)[-1]

    # 4. The same again, for the version that did not know it: an event, and within the cool-down no retrain.
    platform.run("monitor/hourly", **asked, input=str(drifted), version="1")
    assert len(platform.events(watching.DRIFTED, 2)) == 2
    time.sleep(10)
    assert len(platform.runs("house_prices")) == 2

    # 5. A bad model, forced: the way back.
    good = registry.blessed(LINE)
    bad = force_a_bad_model(tmp_path)
    back = platform.run("monitor/hourly", **asked, input=str(data))
    assert back["state_name"] == "Completed", back["state"]["message"]
    assert (registry.blessed(LINE), registry.pointed(LINE, "previous")) == (good, bad)
    (event,) = platform.events(watching.ROLLED_BACK, 1)
    assert (event["payload"]["version"], event["payload"]["now"]) == (bad, good)
