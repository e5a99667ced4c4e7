"""One run: the chain from first stage to last, with a folder that says what happened, also when it ends badly."""

from __future__ import annotations

import contextlib
import os
import platform
import secrets
import time
from pathlib import Path
from typing import Any

from headrace.artifacts import Artifact, home, read_json, system_errors, write_json
from headrace.chain import Order, Stages, standard
from headrace.errors import EXIT_OK, EXIT_VERDICT, HeadraceError
from headrace.jobs import Job

Summary = dict[str, Any]
"""What a run came to, as one JSON object: the same for people's tools, Prefect and `--json`."""


def execute(job: Job, stages: Stages, order: Order = standard, engine: str = "local") -> Summary:
    """Carry a job out and keep its record in `runs/<workload>/<run>/run.json`.

    Args:
        job: What to run.
        stages: Who carries the stages out.
        order: The order of the stages.
        engine: Name of the engine, for the record.

    Returns:
        The summary: workload, variant, data, seed, verdict, metrics, stages, artifact paths and report path.

    Raises:
        HeadraceError: A stage failed; the record says which and why.
    """
    started = time.time()
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime(started))
    folder = home() / "runs" / job.workload / f"{stamp}-{secrets.token_hex(3)}"
    record: Summary = {
        "run": folder.name,
        "state": "running",
        "workload": job.workload,
        "title": job.title,
        "variant": job.variant,
        "profile": job.profile,
        "source": job.source,
        "data": job.data,
        "seed": job.seed,
        "engine": engine,
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
        "process": {"host": platform.node(), "pid": os.getpid(), "born": born(os.getpid())},
        "settings": job.settings.model_dump(mode="json"),
    }
    with system_errors(f"starting a run in {home()}"):
        write_json(folder / "run.json", record)
    try:
        made = order(job, stages)
    except BaseException as error:
        record["state"] = "failed" if isinstance(error, Exception) else "interrupted"
        record["error"] = str(error) if isinstance(error, HeadraceError) else f"{type(error).__name__}: {error}"
        record["seconds"] = round(time.time() - started, 2)
        # A disk that failed the stage can't keep the record either; the error itself is what matters.
        with contextlib.suppress(OSError):
            write_json(folder / "run.json", record)
        raise
    record |= summary(made)
    record["state"] = "completed"
    record["seconds"] = round(time.time() - started, 2)
    with system_errors(f"finishing a run in {home()}"):
        write_json(folder / "run.json", record)
    return record


def summary(made: list[Artifact]) -> Summary:
    """What the artifacts of a run say of it: data, verdict, metrics, version, stages, paths."""
    at = {artifact.node: artifact for artifact in made}
    publication = at["publish"].json("publication.json")
    evaluation = at["evaluate"].json("evaluation.json")
    return {
        "data": at["preprocess"].json("info.json")["data"],
        "verdict": publication["verdict"],
        "gates": publication["gates"],
        "metrics": evaluation["metrics"],
        "version": publication["version"],
        "stages": [
            {"node": a.node, "state": a.state, "reason": a.reason, "seconds": a.seconds, "path": str(a.path)}
            for a in made
        ],
        "artifacts": {a.node: str(a.path) for a in made},
        "report": str(at["report"].path / "report.html"),
    }


def exit_code(record: Summary) -> int:
    """0 if the verdict is good or nothing was judged, 1 if it is *fail*."""
    return EXIT_VERDICT if record["verdict"] == "fail" else EXIT_OK


# ------------------------------------------------------------------------------------------------ dead runs


def born(pid: int) -> str | None:
    """When a process was started, in ticks since boot: with the id, it names one process for good."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return None


def dead_runs() -> list[Path]:
    """Records of runs on this machine that say *running* though their process is gone."""
    found = []
    for path in sorted((home() / "runs").glob("*/*/run.json")):
        record = read_json(path)
        if not record or record.get("state") != "running":
            continue
        process = record["process"]
        if process["host"] == platform.node() and born(process["pid"]) != process["born"]:
            found.append(path)
    return found


def bury(path: Path) -> None:
    """Mark a dead run as crashed."""
    record = read_json(path)
    write_json(
        path, {**record, "state": "crashed", "error": "the process ended without a word (killed, or out of memory)"}
    )
