"""What Prefect costs: a whole run with a server against one without, deploying everything, and starting a run.

The two engines take turns, each run a process of its own in an empty home, with a server that is there already. What
the stages of a run take is what its record says, from the first one to the last; a whole process imports Prefect, too,
and waits until the server has written everything down.

Run: python -m benchmarks.platform [--repeats 5]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from typing import Any

from benchmarks.keeping import keep
from tasks import operating, server

RUN = ("-m", "headrace", "run", "house_prices", "--variant", "final", "--data", "synthetic")
LIMITS = {"more for the stages of a run": 3.0, "all deployments": 60.0, "from request to running": 15.0}
"""Seconds that are promised."""


def whole_run(engine: str) -> tuple[float, float]:
    """The seconds of a run from nothing: as a person waits for it, and of its stages."""
    with tempfile.TemporaryDirectory() as home:
        begun = time.perf_counter()
        environment = os.environ | {"HEADRACE_HOME": home}
        words = [sys.executable, *RUN, "--json", "--engine", engine]
        done = subprocess.run(words, env=environment, check=False, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{' '.join(words)} ended with {done.returncode}:\n{done.stderr}")
        return time.perf_counter() - begun, json.loads(done.stdout)["seconds"]


def start_of_a_run() -> float:
    """The seconds from the request to a flow run that is at work."""
    from prefect import get_client
    from prefect.deployments import run_deployment

    begun = time.perf_counter()
    run: Any = run_deployment("house_prices/smoke", timeout=0)
    with get_client(sync_client=True) as client:
        while not (state := client.read_flow_run(run.id).state) or not state.is_running():
            time.sleep(0.1)
        taken = time.perf_counter() - begun
        while not (state := client.read_flow_run(run.id).state) or not state.is_final():
            time.sleep(0.5)
    return taken


def measured(repeats: int) -> dict[str, list[float]]:
    """All times, with a platform of its own."""
    server.ensure()
    try:
        # What is compiled and cached by the first run of all is nobody's.
        for engine in ("local", "prefect"):
            whole_run(engine)
        times: dict[str, list[float]] = {}
        for _ in range(repeats):
            for engine in ("local", "prefect"):
                waited, ran = whole_run(engine)
                times.setdefault(f"{engine}, a whole process", []).append(waited)
                times.setdefault(f"{engine}, the stages", []).append(ran)
        begun = time.perf_counter()
        operating.install(threading.Event())
        times["all deployments"] = [time.perf_counter() - begun]
        serving = subprocess.Popen(
            [sys.executable, "-m", "headrace", "platform", "up"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            while not operating.status().get("workers"):
                time.sleep(1)
            times["from request to running"] = [start_of_a_run() for _ in range(repeats)]
        finally:
            serving.terminate()
            serving.wait()
    finally:
        server.stop()
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        os.environ["HEADRACE_HOME"] = home
        times = measured(options.repeats)
    medians = {name: statistics.median(values) for name, values in times.items()}
    found = {name: medians[name] for name in LIMITS if name in medians}
    found["more for the stages of a run"] = medians["prefect, the stages"] - medians["local, the stages"]
    result = {
        "what": "seconds, median (smallest to largest); a run is house_prices, final, on its twin, as a whole process",
        "seconds": {
            name: f"{medians[name]:.2f} ({min(values):.2f} to {max(values):.2f})" for name, values in times.items()
        },
        "held": {
            name: f"{found[name]:.2f} of at most {limit:g}: {'yes' if found[name] <= limit else 'NO'}"
            for name, limit in LIMITS.items()
        },
        "deployments": len(operating.declared()),
        "repeats": options.repeats,
    }
    keep("platform", result, "prefect", "fastapi", "sqlalchemy", "tensorflow")


if __name__ == "__main__":
    main()
