"""`publish` as a task: shows the verdict, gate by gate, and the version in the registry."""

from __future__ import annotations

from headrace.artifacts import Artifact
from headrace.jobs import Job
from headrace.judging.verdicts import in_words
from headrace.publishing import publish as stage
from tasks import showing
from tasks.policies import HOUR, as_task


def verdict(job: Job, publication: Artifact) -> None:
    """The verdict with the result of every gate."""
    facts = publication.json("publication.json")
    gates = [{"gate": g["gate"], "result": in_words(g), "because": g["reason"]} for g in facts["gates"]]
    version = f"Version {facts['version']} of {facts['line']}" if facts["version"] else "Nothing published"
    blessed = ", blessed" if facts["blessed"] else ""
    text = f"## Verdict: {facts['verdict']}\n\n{showing.grid(gates)}\n\n{version}{blessed}: {facts['reason']}"
    showing.markdown(job, "verdict", text, "Whether the model may go to production, and why")


publish = as_task(stage, shows=verdict, timeout=HOUR)
