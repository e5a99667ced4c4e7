"""`cross_validate` as a task: shows the curves of the folds over each other, with their mean."""

from __future__ import annotations

from headrace.artifacts import Artifact
from headrace.cross_validating import cross_validate as stage
from headrace.jobs import Job
from headrace.showing.pages import number
from tasks import showing
from tasks.policies import MINUTE, as_task


def folds(job: Job, chosen: Artifact) -> None:
    """The metric of each fold in each epoch, their mean, and the epoch that the final fit may be advised to end at."""
    facts = chosen.json("cross_validation.json")
    metric, best = facts["metric"], facts["best_epoch"]
    columns = [name for name in ("repeat", "fold", "last", "best") if name in facts["folds"][0]]
    curves = {" ".join(f"{name} {fold[name]}" for name in columns[:-2]): fold["curve"] for fold in facts["folds"]}
    between = f" ({' to '.join(map(number, facts['interval']))})" if facts["interval"] else ""
    text = (
        f"### {metric}: {facts['mean']:.4g}{between} on average after the last epoch\n\n"
        + showing.grid([{name: fold[name] for name in columns} for fold in facts["folds"]])
        + f"\n\nThe smoothed mean is best in epoch {best}.\n\n"
        + showing.chart(curves, title=f"{metric} in each epoch", bold={"mean": facts["curve"]}, mark=best)
    )
    showing.markdown(job, "cross-validation", text, "The folds over each other")


cross_validate = as_task(stage, shows=folds, timeout=10 * MINUTE)
