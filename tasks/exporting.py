"""`export` as a task: shows how closely each format agrees with the Keras model."""

from __future__ import annotations

from headrace.artifacts import Artifact
from headrace.exporting import export as stage
from headrace.jobs import Job
from headrace.showing.pages import size
from tasks import showing
from tasks.policies import HOUR, as_task


def parity(job: Job, bundle: Artifact) -> None:
    """One row for each format, those that could not be made included."""
    facts = bundle.json("parity.json")
    rows = [
        {
            "format": name,
            "agrees": "yes" if entry["passed"] else "no",
            "largest difference": entry["max_difference"],
            "as a share of the output": entry["relative_difference"],
            "size": size(entry["bytes"]),
            "milliseconds": entry["milliseconds"],
            "can't be made because": entry["problem"],
        }
        for name, entry in facts["formats"].items()
    ]
    showing.table(job, "parity", rows, facts["gate"]["reason"])


export = as_task(stage, shows=parity, timeout=2 * HOUR)
