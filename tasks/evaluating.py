"""`evaluate` as a task: shows the metrics beside the naive baselines and the promises beside the book's figures."""

from __future__ import annotations

from headrace.artifacts import Artifact
from headrace.evaluating import evaluate as stage
from headrace.jobs import Job
from headrace.showing.pages import number
from tasks import showing
from tasks.policies import HOUR, as_task


def metrics(job: Job, evaluation: Artifact) -> None:
    """Metrics with their intervals, baselines and promises."""
    facts = evaluation.json("evaluation.json")
    measured = [
        {
            "metric": name,
            "value": value,
            "interval": " to ".join(number(bound) for bound in facts["intervals"].get(name) or ()),
            **{f"{which} baseline": values.get(name) for which, values in facts["baselines"].items()},
        }
        for name, value in facts["metrics"].items()
    ]
    promised = [
        {
            "promise": f"{promise['metric']} {promise['bounds']}",
            "on": promise["on"].replace("_", "-"),
            "value": promise["value"],
            "book": promise["book"],
            "where": promise["source"],
        }
        for promise in facts["promises"]
    ]
    text = f"### {facts['examples']:,} examples of the {facts['split']} split\n\n{showing.grid(measured)}"
    if promised:
        text += f"\n\n### Promises\n\n{showing.grid(promised)}"
    showing.markdown(job, "evaluation", text, "How good the model is on examples that it has never seen")


evaluate = as_task(stage, shows=metrics, timeout=6 * HOUR, accelerated=True)
