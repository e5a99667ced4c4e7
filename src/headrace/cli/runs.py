"""`plan`, `run` and `report`: what a run would do, do it, look at what it came to."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from headrace.artifacts import read_json, system_errors
from headrace.cli.process import quiet_libraries
from headrace.cli.shared import application, newest, number, request, request_options, show_json, show_table

log = logging.getLogger(__name__)


@click.command()
@request_options
def plan(workload: str, engine: str, as_json: bool, **options: Any) -> None:
    """Tell what `run` would do, and why.

    Takes the same options as `run`, and changes nothing.
    """
    from headrace.chain import Stages, standard

    job = request(workload, **options).job
    nodes = [
        {"node": node.node, "state": "skip" if node.state == "skipped" else node.state, "reason": node.reason}
        for node in standard(job, Stages.planned())
    ]
    if as_json:
        show_json(
            {
                **job.model_dump(mode="json", exclude={"settings"}),
                "title": job.title,
                "engine": engine,
                "stages": nodes,
            }
        )
        return
    click.echo(job.title)
    show_table(("stage", "would", "because"), [tuple(node.values()) for node in nodes])


@click.command()
@request_options
def run(workload: str, engine: str, as_json: bool, **options: Any) -> int:
    """Run a workload from download to report.

    What is already made is skipped.

    \b
    headrace run house_prices
    headrace run house_prices --variant kfold_100 --seed 3 --set train.epochs=50
    """
    from headrace import running

    asked = request(workload, **options)
    end_dead_runs()
    with quiet_libraries():
        if engine == "prefect":
            summary = application("flows").run(workload, asked.parameters)
        else:
            from headrace.chain import Stages

            summary = running.execute(asked.job, Stages.plain())
    if as_json:
        show_json(summary)
    else:
        show_summary(summary)
    return running.exit_code(summary)


def end_dead_runs() -> None:
    """Mark runs as crashed whose process is gone."""
    from headrace import running

    for record in running.dead_runs():
        with system_errors("ending a dead run"):
            running.bury(record)
        log.warning("run %s had ended without a word; it is now marked as crashed", record.parent.name)


def show_summary(summary: dict[str, Any]) -> None:
    """What a run came to, for people."""
    click.echo(summary["title"])
    if summary["data"] == "synthetic":
        click.echo("SYNTHETIC DATA: made up by the workload's twin; nothing here says how good the model is.")
    stages = [(s["node"], s["state"], f"{s['seconds']:.1f}", s["reason"]) for s in summary["stages"]]
    show_table(("stage", "state", "seconds", "because"), stages, right=("seconds",))
    evaluation = read_json(Path(summary["artifacts"]["evaluate"]) / "evaluation.json") or {}
    intervals = evaluation.get("intervals", {})
    metrics = [
        (name, number(value), " to ".join(number(bound) for bound in intervals.get(name) or ()))
        for name, value in summary["metrics"].items()
    ]
    show_table(("metric", "test", "interval"), metrics, right=("test",))
    show_gates(summary["gates"])
    version = f"version {summary['version']}" if summary["version"] else "nothing published"
    click.echo(f"verdict: {summary['verdict']} · {version} · {summary['seconds']:.1f} s\nreport: {summary['report']}")


def show_gates(gates: Sequence[Mapping[str, Any]]) -> None:
    """Each gate with its result and the reason."""
    words = {True: "passed", False: "FAILED", None: "not judged"}
    if gates:
        show_table(("gate", "result", "because"), [(g["gate"], words[g["passed"]], g["reason"]) for g in gates])


@click.command()
@click.argument("workload", required=False)
@click.option("--open", "in_browser", is_flag=True, help="Open it in a browser.")
def report(workload: str | None, in_browser: bool) -> None:
    """Print the path of the newest run's report."""
    record = newest(workload, lambda record: Path(record["report"]).is_file())
    click.echo(record["report"])
    if in_browser:
        click.launch(Path(record["report"]).as_uri())
