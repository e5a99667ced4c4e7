"""`tune` as a task: shows the trials, and what the best settings have come to."""

from __future__ import annotations

from headrace.artifacts import Artifact
from headrace.jobs import Job
from headrace.showing.pages import number
from headrace.tuning import tune as stage
from tasks import showing
from tasks.policies import HOUR, as_task


def trials(job: Job, made: Artifact) -> None:
    """A row for each trial, and one for each of the best settings."""
    facts = made.json("tuning.json")
    rows = [
        {
            "trial": trial["trial"],
            **{path: number(value) for path, value in trial["values"].items()},
            "epochs": trial["trained_epochs"],
            facts["objective"]: trial["value"],
            "seconds": trial["seconds"],
            "problem": trial["problem"] or "",
        }
        for trial in facts["trials"]
    ]
    showing.table(job, f"tuning-{facts['tuning']}", rows, f"{facts['description']} Tuner: {facts['tuner']}.")
    tested = [
        {
            "": f"best {one['place']}",
            **{path: number(value) for path, value in one["values"].items()},
            "epochs": one["epochs"],
            **(one["metrics"] or {}),
            "problem": one["problem"] or "",
        }
        for one in facts["finalists"]
    ]
    if facts["ensemble"]:
        tested.append({"": "average of all", **facts["ensemble"]["metrics"]})
    text = f"### The best settings on the test split\n\n{showing.grid(tested)}"
    showing.markdown(job, f"tuning-{facts['tuning']}-best", text, "Chosen on held-out training examples, tested once")


tune = as_task(stage, shows=trials, timeout=HOUR)
