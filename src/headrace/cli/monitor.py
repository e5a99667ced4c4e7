"""`monitor`: have the data moved away from those that a model was trained on, and is it still as good?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from headrace.artifacts import Artifact
from headrace.cli.engines import engine_option
from headrace.cli.process import quiet_libraries
from headrace.cli.shared import application, newest, number, show_json, show_table, verbosity
from headrace.errors import EXIT_OK, EXIT_VERDICT, ConfigError
from headrace.jobs import Job


@click.command()
@click.argument("workload")
@click.option(
    "--input",
    "path",
    type=click.Path(path_type=Path),
    help="New data, as --source takes them; targets optional. Default: the requests that serve and predict have kept, "
    "since the last look.",
)
@click.option("--line", help="Line of the registry; default: the workload's own.")
@click.option("--version", "wanted", help="Number, blessed, previous or an alias; default: blessed.")
@click.option("--variant", help="Compare with the newest run of this variant, in place of a published version.")
@click.option(
    "--rollback", is_flag=True, help="Serve the previous version again, if this one has decayed and that not."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@engine_option("local", "prefect")
@verbosity
def monitor(
    workload: str,
    path: Path | None,
    line: str | None,
    wanted: str | None,
    variant: str | None,
    rollback: bool,
    as_json: bool,
    engine: str,
) -> int:
    """Hold new data against a published model, or a run.

    Told are: columns whose values have moved away from the training data, answers that have moved, and, where the
    targets are there, whether the metric has fallen since the evaluation. The blessed version is watched; where nothing
    is published, the newest run. The exit code is 1 if something has drifted or decayed.

    \b
    headrace monitor house_prices --input new.csv
    headrace monitor house_prices                       # what was asked of the server since the last look
    headrace monitor house_prices --input labelled.csv --rollback
    """
    from headrace import registry

    if variant and (line or wanted or rollback or engine == "prefect"):
        raise ConfigError("A run is no published version.", remedy="leave out --variant, or the other options")
    if engine == "prefect":
        asked = {"workload": workload, "input": path and str(path.absolute()), "line": line, "version": wanted}
        with quiet_libraries():
            (found,) = application("flows").fan_out("monitor", {**asked, "least_rows": 1, "rollback": rollback})[
                "looks"
            ]
        return _told(found, as_json)
    if path and not (line or wanted or rollback) and (variant or not registry.versions(workload)):
        return _beside_a_run(workload, path, variant, as_json)
    with quiet_libraries():
        from headrace import watching

        model = watching.watched(workload, wanted or "blessed", line)
        looked = watching.look(model, path)
        if looked:
            looked["rolled_back_to"] = watching.roll_back(looked) if rollback else None
    return _told(looked or {"line": model.line, "version": model.version, "rows": 0}, as_json)


def _beside_a_run(workload: str, path: Path, variant: str | None, as_json: bool) -> int:
    record = newest(
        workload,
        lambda record: (
            variant in (None, record["variant"])
            and all(Path(record["artifacts"].get(node, "-")).is_dir() for node in ("preprocess", "export"))
        ),
    )
    job = Job.model_validate({name: record[name] for name in Job.model_fields if name in record})
    records, bundle = (Artifact(Path(record["artifacts"][node]), "", node) for node in ("preprocess", "export"))
    with quiet_libraries():
        from headrace import monitoring

        found = monitoring.check_file(job, path, records, bundle)
    if as_json:
        show_json({"workload": workload, "run": record["run"], "input": str(path), **found})
    else:
        show_drift(found, f"{path} beside the training data of run {record['run']}")
        click.echo(monitoring.in_words(found))
    return EXIT_VERDICT if found["drifted"] else EXIT_OK


def _told(found: dict[str, Any], as_json: bool) -> int:
    from headrace import watching

    if not found["rows"]:
        if as_json:
            show_json({**found, "drifted": False})
        else:
            click.echo(f"nothing was asked of {found['line']} since the last look")
        return EXIT_OK
    decayed = bool(found["decay"] and found["decay"]["decayed"])
    if as_json:
        show_json(found)
    else:
        title = f"{found['input']} beside {found['line']} version {found['version']}"
        show_drift({**found, "columns": [*found["columns"], *found["answers"]]}, title)
        click.echo(watching.in_words(found))
        if found["rolled_back_to"]:
            click.echo(f"{found['line']}: version {found['rolled_back_to']} is blessed again")
        elif decayed and found["decay"]["rollback"]:
            click.echo(f"to go back to version {found['decay']['previous']['version']}: the same with --rollback")
    return EXIT_VERDICT if found["drifted"] or decayed else EXIT_OK


def show_drift(found: dict[str, Any], title: str) -> None:
    """How far each column has moved, for people."""
    click.echo(title)
    rows = [
        (
            c["column"],
            f"DRIFTED: {', '.join(c['because'])}" if c["drifted"] else "",
            number(c["distance"]),
            number(c["threshold"]),
            f"{number(c['reference']['mean'])} ± {number(c['reference']['std'])}",
            f"{number(c['current']['mean'])} ± {number(c['current']['std'])}",
        )
        for c in found["columns"]
    ]
    columns = ("column", "", "distance", "threshold", "trained on", "now")
    show_table(columns, rows, right=columns[2:])
    for anomaly in found["anomalies"]:
        click.echo(f"{anomaly['severity']}: {anomaly['text']}")
    if found["metric"]:
        metric = found["metric"]
        click.echo(f"{metric['metric']} {number(metric['value'])} on {metric['rows']} rows with targets")
