"""`ensemble` as a task: shows the average beside its members."""

from __future__ import annotations

from headrace.artifacts import Artifact
from headrace.ensembling import ensemble as stage
from headrace.jobs import Job
from tasks import showing
from tasks.policies import HOUR, as_task


def members(job: Job, made: Artifact) -> None:
    """A row for the average and one for each member."""
    facts = made.json("ensemble.json")
    rows = [{"member": "average", "weight": None, **facts["metrics"]}]
    rows += [{"member": m["member"], "weight": m["weight"], **m["metrics"]} for m in facts["members"]]
    words = f"The average ({facts['weights']} weights) and its members on the test split"
    showing.table(job, f"ensemble-{facts['ensemble']}", rows, words)


ensemble = as_task(stage, shows=members, timeout=6 * HOUR)
