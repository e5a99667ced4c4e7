"""`monitor` as a task: shows how far each column has drifted from the training split."""

from __future__ import annotations

from headrace.artifacts import Artifact
from headrace.jobs import Job
from headrace.monitoring import monitor as stage
from tasks import showing
from tasks.policies import HOUR, as_task


def drift(job: Job, found: Artifact) -> None:
    """One row for each column, the most drifted first."""
    facts = found.json("drift.json")
    columns = sorted(facts["columns"], key=lambda column: (column["drifted"], column["distance"]), reverse=True)
    rows = [
        {
            "feature": column["feature"],
            "column": column["column"],
            "drifted": "yes" if column["drifted"] else "no",
            "distance": column["distance"],
            "threshold": column["threshold"],
            "mean then": column["reference"]["mean"],
            "mean now": column["current"]["mean"],
        }
        for column in columns
    ]
    drifted = sum(column["drifted"] for column in facts["columns"])
    showing.table(job, "drift", rows, f"{drifted} of {len(rows)} columns have drifted; {facts['rows']:,} rows")


monitor = as_task(stage, shows=drift, timeout=HOUR)
