"""`download` as a task: tried again if nothing can be reached; a wrong checksum is final."""

from __future__ import annotations

from headrace.artifacts import Artifact
from headrace.downloading import download as stage
from headrace.jobs import Job
from headrace.showing.pages import size
from tasks import showing
from tasks.policies import HOUR, as_task, source_of


def files(job: Job, raw: Artifact) -> None:
    """Which files the run stands on, and who vouches for them."""
    facts = raw.json("data.json")
    title = f"{facts['source']}: {facts['data']} data"
    if facts["data"] == "synthetic":
        title += ", made up by the workload's twin: nothing here says how good the model is"
    rows = [
        {"file": name, "size": size(entry["size"]), "vouched by": entry["vouched_by"], "sha256": entry["sha256"]}
        for name, entry in facts["files"].items()
    ]
    showing.table(job, "data", rows, title)


download = as_task(stage, shows=files, timeout=6 * HOUR, retry_delays=(5, 30), about=source_of)
