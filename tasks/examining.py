"""`examine` as a task: shows what was found of the data."""

from __future__ import annotations

from headrace.artifacts import Artifact
from headrace.examining import examine as stage
from headrace.jobs import Job
from headrace.showing.pages import DATA, EXAMINATION, picture
from tasks import showing
from tasks.policies import HOUR, as_task


def findings(job: Job, examination: Artifact) -> None:
    """One row for each finding, the gravest first; samples of images, if there are any; the place of the whole page."""
    found = examination.json(EXAMINATION)
    rows = [{key: finding[key] for key in ("severity", "check", "text")} for finding in found["findings"]]
    text = f"{showing.grid(rows)}\n\nMore on one page, which opens from disk:\n\n```\n{examination.path / DATA}\n```"
    for sheet in found["sheets"]:
        if sheet["kind"] == "images":
            path = examination.path / sheet["picture"]
            text += f"\n\n![samples of {sheet['title']}]({picture(path.read_bytes(), path.suffix)})"
    errors, warnings = (sum(row["severity"] == severity for row in rows) for severity in ("error", "warning"))
    showing.markdown(job, "data-findings", text, f"What was found of the data: {errors} errors, {warnings} warnings")


examine = as_task(stage, shows=findings, timeout=6 * HOUR)
