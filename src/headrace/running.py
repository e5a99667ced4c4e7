"""One run: the chain from first stage to last, with a folder that says what happened, also when it ends badly."""

from __future__ import annotations

import contextlib
import os
import platform
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from headrace.artifacts import Artifact, home, read_json, system_errors, write_json
from headrace.chain import Order, Stages, standard
from headrace.errors import EXIT_OK, EXIT_VERDICT, HeadraceError
from headrace.jobs import Job
from headrace.showing import overview
from headrace.spec import Publish
from headrace.storing.depots import depot, keep_record

Summary = dict[str, Any]
"""What a run came to, as one JSON object: the same for people's tools, Prefect and `--json`."""


def execute(
    job: Job,
    stages: Stages,
    order: Order = standard,
    engine: str = "local",
    told: Callable[[list[Artifact]], Summary] | None = None,
) -> Summary:
    """Carry a job out and keep its record in `runs/<workload>/<run>/run.json`.

    Args:
        job: What to run.
        stages: Who carries the stages out.
        order: The order of the stages.
        engine: Name of the engine, for the record.
        told: What the artifacts say of the run; default: `summary`.

    Returns:
        The summary: workload, variant, data, seed, verdict, metrics, stages, artifact paths and report path.

    Raises:
        HeadraceError: A stage failed; the record says which and why.
    """
    depot()  # a store that can't be reached is told before anything is begun
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
        "cell": job.cell,
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
            overview.keep_up()
            keep_record(folder / "run.json")
        raise
    record |= (told or summary)(made)
    record["state"] = "completed"
    record["seconds"] = round(time.time() - started, 2)
    with system_errors(f"finishing a run in {home()}"):
        write_json(folder / "run.json", record)
    keep_record(folder / "run.json")
    # A run that made nothing anew has nothing to tell, and answers at once.
    if any(artifact.state == "run" for artifact in made):
        overview.keep_up()
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
        "waivers": publication.get("waivers", []),
        "metrics": evaluation["metrics"],
        "version": publication["version"],
        **_listed(made),
        "report": str(at["report"].path / "report.html"),
    }


def fan_out_summary(made: list[Artifact]) -> Summary:
    """What the artifacts of a study, a tuning or an ensemble say of it: as `summary`, with what was found whole.

    Its metrics are those of the best cell, of the best settings' model, or of the average.
    """
    from headrace import studying, tuning

    last = made[-1]
    kind = last.node.partition("/")[0]
    name = {"study": "study", "tune": "tuning", "ensemble": "ensemble"}[kind]
    found = last.json(f"{name}.json")
    if kind == "study":
        metrics, gates = {found["measure"]: found["cells"][0]["value"]}, studying.gates(found)
    elif kind == "tune":
        metrics = next((one["metrics"] for one in found["finalists"] if one["metrics"]), {})
        gates = tuning.gates(found)
    else:
        metrics, gates = found["metrics"], []
    judged = [gate["passed"] for gate in gates if gate["passed"] is not None]
    return {
        "data": found["data"],
        "verdict": ("pass" if all(judged) else "fail") if judged else "not judged",
        "gates": gates,
        "metrics": metrics,
        "version": None,
        name: found,
        **_listed(made),
        "report": str(last.path / f"{name}.html"),
    }


def _listed(made: list[Artifact]) -> Summary:
    """The nodes of a run, and where their folders are."""
    return {
        "stages": [
            {"node": a.node, "state": a.state, "reason": a.reason, "seconds": a.seconds, "path": str(a.path)}
            for a in made
        ],
        "artifacts": {a.node: str(a.path) for a in made},
    }


def refused(record: Summary) -> bool:
    """Whether the verdict makes a failure of a run in which everything else went well (`Publish.on_fail` …)."""
    policy = Publish.model_validate((record.get("settings") or {}).get("publish") or {})
    follows = {"fail": policy.on_fail, "not judged": policy.on_not_judged}
    return follows.get(record["verdict"]) == "fail"


def exit_code(record: Summary) -> int:
    """1 if the verdict makes a failure of the run, else 0."""
    return EXIT_VERDICT if refused(record) else EXIT_OK


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
