"""`study` as a task: shows the ranking as a table, and the curves of all cells."""

from __future__ import annotations

from headrace.artifacts import Artifact
from headrace.jobs import Job
from headrace.showing.pages import number
from headrace.studying import study as stage
from tasks import showing
from tasks.policies import HOUR, as_task


def ranking(job: Job, made: Artifact) -> None:
    """A row for each cell, the best on top, and the findings."""
    facts = made.json("study.json")
    rows = [
        {
            "rank": cell["rank"],
            "cell": cell["cell"],
            **{path: number(value) for path, value in cell["settings"].items()},
            facts["metric"]: cell["value"],
            "interval": " to ".join(map(number, cell["interval"] or ())),
            "parameters": cell["parameters"],
            "seconds": cell["seconds"],
            "problem": cell["problem"] or "",
        }
        for cell in facts["cells"]
    ]
    showing.table(job, f"study-{facts['study']}", rows, f"{facts['description']} {facts['basis']}")
    curves: dict[str, list[float]] = {cell["cell"]: next(iter(cell["curves"].values()), []) for cell in facts["cells"]}
    words = {True: "holds", False: "**does not hold**", None: "not judged"}
    found = [f"- {words[one['passed']]}: {one['reason']}" for one in facts["findings"]]
    text = f"### Best: {facts['best']}\n\n" + "\n".join(found)
    text += "\n\n" + showing.chart(curves, title=facts["cells"][0]["curve"] or facts["metric"])
    showing.markdown(job, f"study-{facts['study']}-curves", text, "The curves of all cells over each other")


study = as_task(stage, shows=ranking, timeout=HOUR)
