"""`report` as a task: shows where the report of the run lies (a browser opens no file from a page of the server)."""

from __future__ import annotations

from headrace.artifacts import Artifact
from headrace.jobs import Job
from headrace.reporting import report as stage
from tasks import showing
from tasks.policies import HOUR, as_task


def place(job: Job, report: Artifact) -> None:
    """The path of the report, and the command that opens it."""
    text = (
        f"The report of {job.title}, in one file that opens from disk:\n\n```\n{report.path / 'report.html'}\n```\n\n"
        f"`headrace report {job.workload} --open` opens the newest one."
    )
    showing.markdown(job, "report", text, "Where the report of the run lies")


report = as_task(stage, shows=place, timeout=HOUR)
