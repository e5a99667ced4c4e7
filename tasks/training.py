"""`train` as a task: shows the learning curve, of a fold or of the final fit."""

from __future__ import annotations

from headrace.artifacts import Artifact
from headrace.jobs import Job
from headrace.training import train as stage
from tasks import showing
from tasks.policies import HOUR, as_task


def curve(job: Job, model: Artifact) -> None:
    """The metrics of each epoch, one chart for each metric, training and held-out examples in one."""
    history = model.json("history.json")
    metrics = history["metrics"]
    charts = [
        showing.chart(
            {"training": values, "held out": metrics.get(f"val_{name}", [])},
            title=f"{name} in each epoch",
        )
        for name, values in metrics.items()
        if not name.startswith("val_")
    ]
    last = showing.grid([{"metric": name, "after the last epoch": values[-1]} for name, values in metrics.items()])
    stopped = f", ended by {history['stopped']}" if history["stopped"] else ""
    fold = model.node.partition("/")[2].replace("/", " ")
    text = f"### {fold or 'Final fit'}: {history['epochs']} epochs{stopped}\n\n{last}\n\n" + "\n\n".join(charts)
    showing.markdown(job, f"curve-{fold}" if fold else "curve", text, "How the loss and the metrics went")


train = as_task(stage, shows=curve, timeout=72 * HOUR, accelerated=True)
