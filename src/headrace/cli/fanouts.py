"""`study`, `tune` and `ensemble`: many trainings of one workload, compared, searched or averaged."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from headrace import projects
from headrace.cli.engines import Spread, carried_out_by, spread_options
from headrace.cli.process import quiet_libraries
from headrace.cli.runs import end_dead_runs, show_gates
from headrace.cli.shared import Command, application, asked, number, request_options, show_json, show_table
from headrace.console import shown_by
from headrace.errors import ConfigError
from headrace.showing.tabulating import of_ensemble, of_tuning

if TYPE_CHECKING:
    from headrace.chain import Order


def fan_out_options(command: Command) -> Command:
    """Add the name, and how to carry it out, to the options of a request."""
    options = (
        request_options,
        click.argument("name", required=False),
        spread_options,
        click.option("--plan", "planned", is_flag=True, help="Tell what would be done, and change nothing."),
        click.option("--write", "into_docs", is_flag=True, help="Write the result into docs/ and the README, too."),
    )
    for option in reversed(options):
        command = option(command)
    return command


seeds = click.option("--seeds", type=click.IntRange(min=1), help="How often to train each configuration.")


@click.command()
@fan_out_options
@seeds
def study(workload: str, name: str | None, seeds: int | None, **options: Any) -> int:
    """Compare configurations: train all, rank them.

    \b
    headrace study house_prices capacity --seeds 3
    headrace study house_prices capacity --profile smoke --data synthetic --plan
    """
    from headrace import chain, studying

    chosen = _only(workload, "studies", name)

    def make(**request: Any) -> studying.Plan:
        return studying.plan(workload, chosen, seeds=seeds, **request)

    return _carry_out("study", make, chain.studied, {"name": chosen, "seeds": seeds}, workload, **options)


@click.command()
@fan_out_options
def tune(workload: str, name: str | None, **options: Any) -> int:
    """Search for the best settings, and train them.

    With --jobs N, N trials are proposed before the result of the first is known. A tuner that learns from results
    (bayesian, hyperband) may then propose others than with one job.

    \b
    headrace tune house_prices width
    """
    from headrace import chain, tuning

    chosen = _only(workload, "tunings", name)

    def make(**request: Any) -> tuning.Plan:
        return tuning.plan(workload, chosen, **request)

    return _carry_out("tune", make, chain.tuned, {"name": chosen}, workload, **options)


@click.command()
@fan_out_options
@seeds
@click.option("--members", help="Variants to be averaged: a,b,c; instead of a name.")
@click.option("--weights", type=click.Choice(("equal", "searched")), help="Default: as the ensemble says.")
def ensemble(
    workload: str, name: str | None, members: str | None, weights: str | None, seeds: int | None, **options: Any
) -> int:
    """Average the answers of several models.

    \b
    headrace ensemble house_prices widths
    headrace ensemble house_prices --members final,kfold_100 --seeds 3
    """
    from headrace import chain, ensembling

    chosen = None if members else _only(workload, "ensembles", name)
    listed = [member.strip() for member in (members or "").split(",") if member.strip()]

    def make(**request: Any) -> ensembling.Plan:
        return ensembling.plan(workload, chosen, members=listed, weights=weights, seeds=seeds, **request)

    given = {"name": chosen, "members": listed or None, "weights": weights, "seeds": seeds}
    return _carry_out("ensemble", make, chain.averaged, given, workload, **options)


def _only(workload: str, kind: str, name: str | None) -> str:
    """The name that was given, or the only one that there is."""
    names = list(getattr(projects.load(workload), kind))
    if name is None and len(names) != 1:
        raise ConfigError(
            f"{workload} has {len(names) or 'no'} {kind}.",
            expected=f"the name of one: {', '.join(names)}"
            if names
            else f"`{kind}={{…}}` in {projects.file(workload)}",
        )
    return name or names[0]


def _carry_out(
    kind: str,
    make: Callable[..., Any],
    ordered: Callable[[Any, int], Order],
    parameters: dict[str, Any],
    workload: str,
    *,
    into_docs: bool,
    engine: str,
    as_json: bool,
    spread: Spread,
    planned: bool,
    settings: tuple[str, ...],
    config: Path | None,
    **options: Any,
) -> int:
    """Plan or run a fan-out, and show what it came to."""
    from headrace import running
    from headrace.chain import Stages

    requests: list[dict[str, Any]] = []

    def remembered(**request: Any) -> Any:
        requests.append(request)
        return make(**request)

    plan = asked(remembered, settings, config, **options)
    if planned:
        # Only an oracle loads a library that talks.
        quietly = quiet_libraries() if kind == "tune" else nullcontext()
        with quietly, shown_by(lambda *_: nullcontext(lambda *_: None)):
            made = ordered(plan, 1)(plan.job, Stages.planned())
        nodes = [(a.node, "skip" if a.state == "skipped" else a.state, a.reason) for a in made]
        if as_json:
            rows = [dict(zip(("node", "state", "reason"), node, strict=True)) for node in nodes]
            show_json({"workload": workload, "title": plan.job.title, "stages": rows})
        else:
            click.echo(plan.job.title)
            show_table(("stage", "would", "because"), nodes)
        return 0
    end_dead_runs()
    with quiet_libraries():
        if engine == "prefect":
            given = {"workload": workload, **parameters, "at_once": spread.jobs or 1, **requests[0]}
            summary = application("flows").fan_out(kind, given)
        else:
            with carried_out_by(engine, spread) as (stages, limit):
                order = ordered(plan, limit)
                summary = running.execute(plan.job, stages, order, engine, told=running.fan_out_summary)
    if as_json:
        show_json(summary)
    else:
        show_fan_out(summary)
    if into_docs:
        from headrace.upkeep import cataloguing

        asked_for = {**{name: value for name, value in parameters.items() if name != "name"}, **options}
        words = _command(kind, workload, parameters["name"], asked_for, settings)
        found = next(summary[name] for name in ("study", "tuning", "ensemble") if name in summary)
        for path in cataloguing.record(projects.root(), kind, found, words):
            click.echo(f"wrote {path}", err=True)
    return running.exit_code(summary)


def _command(kind: str, workload: str, name: str | None, options: Mapping[str, Any], settings: Sequence[str]) -> str:
    """The command line by which somebody else gets the same result."""
    words = [f"headrace {kind}", workload, *([name] if name else [])]
    for option, value in options.items():
        if value is not None:
            words.append(f"--{option} {','.join(value) if isinstance(value, list) else value}")
    return " ".join([*words, *(f"--set {setting}" for setting in settings)])


def show_fan_out(summary: Mapping[str, Any]) -> None:
    """What a study, a tuning or an ensemble came to, for people."""
    if summary["data"] == "synthetic":
        click.echo("SYNTHETIC DATA: made up by the workload's twin; nothing here says how good a model is.")
    made = sum(stage["state"] == "run" for stage in summary["stages"])
    click.echo(f"{summary['title']}: {made} nodes run, {len(summary['stages']) - made} skipped")
    if "study" in summary:
        _show_study(summary["study"])
    else:
        tables = of_tuning(summary["tuning"]) if "tuning" in summary else of_ensemble(summary["ensemble"])
        for table in tables:
            show_table(table.columns, table.rows, table.right)
    show_gates(summary["gates"])
    click.echo(f"verdict: {summary['verdict']} · {summary['seconds']:.1f} s\nreport: {summary['report']}")


def _show_study(found: Mapping[str, Any]) -> None:
    measure = found["measure"]
    rows = [
        (
            cell["rank"],
            cell["cell"],
            None if cell["value"] is None else number(cell["value"]),
            " to ".join(map(number, cell["interval"] or ())),
            f"{cell['parameters']:,}" if cell["parameters"] else None,
            f"{cell['seconds']:.1f}",
            cell["problem"],
        )
        for cell in found["cells"]
    ]
    columns = ("rank", "cell", measure, "interval", "parameters", "seconds", "")
    show_table(columns, rows, right=("rank", measure, "parameters", "seconds"))
    click.echo(found["basis"])
