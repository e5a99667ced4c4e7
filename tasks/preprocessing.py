"""`preprocess` as a task: shows the statistics of the training split."""

from __future__ import annotations

from headrace.artifacts import Artifact
from headrace.jobs import Job
from headrace.preprocessing import preprocess as stage
from tasks import showing
from tasks.policies import HOUR, as_task


def statistics(job: Job, records: Artifact) -> None:
    """One row for each column of the raw training split."""
    from headrace.describing.summaries import Statistics

    rows = [
        {
            "feature": feature,
            "column": column,
            "count": facts.count.flat[position],
            "missing": facts.missing.flat[position],
            **(
                {"mean": facts.mean.flat[position], "std": facts.std.flat[position]}
                | {"minimum": facts.minimum.flat[position], "maximum": facts.maximum.flat[position]}
                if facts.mean.size
                else {"distinct": facts.unique}
            ),
        }
        for feature, facts in Statistics.from_json(records.json("statistics.json")).items()
        for position, column in enumerate(facts.names)
    ]
    examples = {split: entry["examples"] for split, entry in records.json("info.json")["splits"].items()}
    counts = ", ".join(f"{count:,} {split}" for split, count in examples.items())
    showing.table(job, "statistics", rows, f"The raw training split, column by column. Examples: {counts}")


preprocess = as_task(stage, shows=statistics, timeout=6 * HOUR)
