"""`plan`, `run` and `report`: what a run would do, do it, look at what it came to."""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import click

from headrace import projects
from headrace.artifacts import system_errors
from headrace.cli.engines import Spread, carried_out_by, spread_options
from headrace.cli.process import quiet_libraries
from headrace.cli.shared import Command, application, newest, number, request, request_options, show_json, show_table
from headrace.errors import ConfigError

log = logging.getLogger(__name__)


def waiver_options(command: Command) -> Command:
    """Add the options by which a person lets gates fail; they become settings, `publish.waivers.GATE`."""

    @functools.wraps(command)
    def with_waivers(
        *, waive: Sequence[str], by: str | None, reason: str | None, settings: Sequence[str], **others: Any
    ) -> Any:
        return command(settings=(*settings, *_waivers(waive, by, reason)), **others)

    options = (
        click.option(
            "--waive", multiple=True, metavar="GATE", help="Let this gate fail; repeatable. Needs --by and --reason."
        ),
        click.option("--by", metavar="NAME", help="Who answers for the waiver."),
        click.option("--reason", metavar="TEXT", help="Why; it is recorded with the figures, and on the model card."),
    )
    for option in reversed(options):
        with_waivers = option(with_waivers)
    return cast(Command, with_waivers)


def _waivers(gates: Sequence[str], by: str | None, reason: str | None) -> list[str]:
    if not gates and (by or reason):
        raise ConfigError("--by and --reason say nothing without a gate.", expected="--waive GATE")
    if "parity" in gates:
        raise ConfigError(
            "The gate `parity` can't be waived: what would be served is not the model that was measured.",
            remedy="leave the format that fails out of export.formats, or set export.tolerance",
        )
    said = json.dumps({"by": by or "", "reason": reason or ""}, ensure_ascii=False)
    return [f"publish.waivers.{gate}={said}" for gate in gates]


@click.command()
@request_options
@waiver_options
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
@spread_options
@waiver_options
@click.option("--write", "into_docs", is_flag=True, help="Write what was measured into docs/ and the README, too.")
def run(workload: str, engine: str, as_json: bool, spread: Spread, into_docs: bool, **options: Any) -> int:
    """Run a workload from download to report.

    What is already made is skipped. What the gates decide, and what a waiver is: docs/registry.md.

    \b
    headrace run house_prices
    headrace run house_prices --variant kfold_100 --seed 3 --set train.epochs=50
    headrace run house_prices --waive promise --by "Ada Lovelace" --reason "known, see issue 12"
    """
    from headrace import running
    from headrace.chain import standard
    from headrace.upkeep import cataloguing

    asked = request(workload, **options)
    if into_docs:
        cataloguing.writable(asked.job, asked.overrides)
    end_dead_runs()
    with quiet_libraries():
        if engine == "prefect":
            summary = application("flows").run(workload, asked.parameters)
        else:
            # Folds are all of a run that can be done at the same time.
            several = spread if asked.job.settings.cross_validation else replace(spread, jobs=1)
            with carried_out_by(engine, several) as (stages, limit):
                summary = running.execute(asked.job, stages, partial(standard, limit=limit), engine)
    if as_json:
        show_json(summary)
    else:
        show_summary(summary)
    if into_docs and summary["data"] != "real":
        log.warning("nothing is written into the documents: the data are made up")
    elif into_docs:
        for path in cataloguing.record_run(projects.root(), asked.job, _evaluation(summary)):
            click.echo(f"wrote {path}", err=True)
    return running.exit_code(summary)


def _evaluation(summary: Mapping[str, Any]) -> dict[str, Any]:
    """What the run's model was measured to be."""
    return dict(json.loads((Path(summary["artifacts"]["evaluate"]) / "evaluation.json").read_text()))


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
    intervals = _evaluation(summary)["intervals"]
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
    from headrace.judging.verdicts import in_words

    if gates:
        show_table(("gate", "result", "because"), [(g["gate"], in_words(g), g["reason"]) for g in gates])


@click.command()
@click.argument("workload", required=False)
@click.option("--all", "over_all", is_flag=True, help="The page over all runs, of all workloads.")
@click.option("--open", "in_browser", is_flag=True, help="Open it in a browser.")
def report(workload: str | None, over_all: bool, in_browser: bool) -> None:
    """Print the path of the newest run's report.

    \b
    headrace report house_prices --open
    headrace report --all --open
    """
    from headrace.showing import overview

    if over_all and workload:
        raise ConfigError("The page over all runs is that of all workloads.", remedy="leave out the workload, or --all")
    if over_all:
        with system_errors(f"writing {overview.path()}"):
            page = overview.refresh()
    else:
        page = Path(newest(workload, lambda record: Path(record["report"]).is_file())["report"])
    click.echo(str(page))
    if in_browser:
        click.launch(page.as_uri())
