"""`monitor`: have the data of a file moved away from those that a model was trained on?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from headrace.artifacts import Artifact
from headrace.cli.process import quiet_libraries
from headrace.cli.shared import newest, number, show_json, show_table, verbosity
from headrace.errors import EXIT_OK, EXIT_VERDICT
from headrace.jobs import Job


@click.command()
@click.argument("workload")
@click.option(
    "--input",
    "path",
    required=True,
    type=click.Path(path_type=Path),
    help="New data, as --source takes them; targets optional.",
)
@click.option("--variant", help="Compare with the newest run of this variant; default: of any.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@verbosity
def monitor(workload: str, path: Path, variant: str | None, as_json: bool) -> int:
    """Look for drift in a file of new data.

    It is held against the training data of the newest run; the exit code is 1 if the data have drifted.
    """
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


def show_drift(found: dict[str, Any], title: str) -> None:
    """How far each column has moved, for people."""
    click.echo(title)
    rows = [
        (
            c["column"],
            "DRIFTED" if c["drifted"] else "",
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
