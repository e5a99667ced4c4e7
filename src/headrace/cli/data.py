"""`data`: what the examples of a workload look like, whether a file of new ones fits, and the schema that says so."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from headrace import projects
from headrace.artifacts import Artifact, system_errors, write_atomically
from headrace.cli.groups import Commands
from headrace.cli.process import quiet_libraries
from headrace.cli.shared import browser_at_hand, number, options, request, show_json, show_table
from headrace.errors import ConfigError, unknown
from headrace.jobs import Job

BLOCKS = "▁▂▃▄▅▆▇█"
COLUMNS = 30
"""Columns of a feature that are printed; the page shows more."""
VALUES = 5
"""Most frequent values that are printed."""

which = options("workload", "variant", "data", "source", "json", "verbosity")
"""Add the workload, and the options that say which of its data."""


class _Data(Commands):
    """A group that takes what is none of its commands for the name of a workload: `headrace data house_prices`."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find a command by name.

        Raises:
            ConfigError: There is neither a command nor a workload of this name.
        """
        if args[0].startswith("-") or args[0] in self.list_commands(ctx):
            return super().resolve_command(ctx, args)
        if args[0] not in projects.names():
            raise unknown("workload", args[0], [*projects.names(), *self.list_commands(ctx)])
        return "", show, args


@click.group(cls=_Data, subcommand_metavar="WORKLOAD [OPTIONS] | COMMAND [ARGS]...")
def data() -> None:
    """Look at a workload's data, or hold a file against their schema.

    \b
    headrace data house_prices                       statistics, findings, and a page with samples
    headrace data house_prices --help                its options
    headrace data validate house_prices --input new.csv
    headrace data schema house_prices --write        for review
    """


@click.command()
@which
@click.option("--no-open", is_flag=True, help="Don't open the page in a browser.")
def show(workload: str, as_json: bool, no_open: bool, **chosen: Any) -> None:
    """Show what the examples of a workload look like, and what is remarkable about them.

    Downloads and preprocesses them first, if that is not done. The page with samples, duplicates, drift and schema is
    opened in a browser, where there is one.
    """
    from headrace.showing.pages import DATA, EXAMINATION

    job = request(workload, (), None, **chosen).job
    with quiet_libraries():
        _, _, examination = _examined(job)
    found, page = examination.json(EXAMINATION), examination.path / DATA
    if as_json:
        show_json({**found, "page": str(page)})
        return
    click.echo(f"{found['title']}\n{job.workload} · source {found['source']}")
    if found["data"] == "synthetic":
        click.echo("SYNTHETIC DATA: made up by the workload's twin; the real ones may be different.")
    show_splits(found)
    columns = ("feature", "column", "kind", "missing", "mean", "std", "min", "max", "distribution, or most frequent")
    show_table(columns, [row for feature in found["features"] for row in _rows(feature)], right=columns[3:8])
    for finding in found["findings"]:
        click.echo(f"{finding['severity']}: {finding['text']}")
    if not found["findings"]:
        click.echo("nothing remarkable was found")
    click.echo(f"page: {page}")
    if not no_open and browser_at_hand():
        click.launch(page.as_uri())


def _prepared(job: Job) -> list[Artifact]:
    """Raw data and records, made now if they are not there."""
    from headrace.chain import Stages, prepared

    return prepared(job, Stages.plain())


def _examined(job: Job) -> list[Artifact]:
    """Raw data, records and what was found of them, made now if they are not there."""
    from headrace.chain import Stages

    raw, records = _prepared(job)
    return [raw, records, Stages.plain().examine(job, raw, records)]


def show_splits(found: Mapping[str, Any]) -> None:
    """How many examples each split has, and of which classes."""
    target = found["target"]
    if not target or not target["is_class"]:
        rows = [(split, f"{entry['examples']:,}") for split, entry in found["splits"].items()]
        show_table(("split", "examples"), rows, right=("examples",))
        return
    columns = ("split", "examples", f"classes of {target['name']}", "majority answer")
    table = []
    for split, entry in found["splits"].items():
        shown = ", ".join(f"{row['label']} {row[split]:,}" for row in target["classes"][:VALUES])
        more = f" and {len(target['classes']) - VALUES} more" if len(target["classes"]) > VALUES else ""
        table.append((split, f"{entry['examples']:,}", shown + more, f"{target['majority'][split]:.1%}"))
    show_table(columns, table, right=("examples", "majority answer"))


def _rows(feature: Mapping[str, Any]) -> Iterator[tuple[object, ...]]:
    """A row for each column of a feature and for each thing that was measured of it."""
    listed = [*feature["columns"][:COLUMNS], *feature["measures"]]
    tops = [_top(tally) for tally in feature["tallies"] if tally["top"]]
    for position, column in enumerate(listed):
        numbers = [
            None if column[name] is None else number(column[name]) for name in ("mean", "std", "minimum", "maximum")
        ]
        yield (
            feature["name"] if not position else "",
            column["name"] if column["name"] != feature["name"] else "",
            f"{feature['role']} {feature['kind']}" if not position else "",
            f"{column['missing_share']:.1%}" if column["missing"] else "",
            *numbers,
            bars(column["bars"]) if column["bars"] else tops.pop(0) if tops else "",
        )
    for top in tops:
        yield "", "", "", "", "", "", "", "", top
    hidden = len(feature["columns"]) + feature["more"] - len(feature["columns"][:COLUMNS])
    if hidden:
        yield "", f"and {hidden} more", "", "", "", "", "", "", ""


def _top(tally: Mapping[str, Any]) -> str:
    """The most frequent values with their counts."""
    shown = ", ".join(f"{value} ({count:,})" for value, count in tally["top"][:VALUES])
    of = "" if tally["of"] == "values" else f"{tally['of']}: "
    return f"{of}{shown}{' …' if tally['unique'] > VALUES else ''}"


def bars(heights: Sequence[float]) -> str:
    """A histogram as one line of text, half as wide; a blank where there is nothing at all."""
    pairs = [max(heights[i : i + 2]) for i in range(0, len(heights), 2)]
    return "".join(BLOCKS[min(int(height * len(BLOCKS)), len(BLOCKS) - 1)] if height else " " for height in pairs)


@data.command()
@which
@click.option(
    "--input", "path", required=True, type=click.Path(path_type=Path), help="CSV or Parquet; targets optional."
)
@click.option(
    "--schema",
    "rules",
    type=click.Path(path_type=Path),
    help="Another schema than the workload's, as TensorFlow Data Validation writes it.",
)
@click.option("--environment", help="One of the schema's; default: what the columns of the file suggest.")
def validate(
    workload: str, path: Path, rules: Path | None, environment: str | None, as_json: bool, **chosen: Any
) -> int:
    """Hold a file of new examples against the schema of a workload's data.

    Tells what is wrong, row by row where it can. The exit code is 3 if there are errors.
    """
    from headrace.validation import validating

    job = request(workload, (), None, **chosen).job
    with quiet_libraries():
        if rules:
            findings = validating.validate_table(path, rules, environment=environment)
        else:
            findings = validating.validate(job, path, _finished_records(job), environment=environment)
    if as_json:
        show_json({"workload": workload, **findings.to_json()})
    else:
        click.echo("\n".join(findings.in_words()))
    return findings.exit_code


def _finished_records(job: Job) -> Path | None:
    """The records of these data, if they were made; nothing is made now."""
    from headrace.chain import Stages, prepared

    records = prepared(job, Stages.planned())[-1]
    return records.path if records.digest else None


@data.command()
@which
@click.option("--write", is_flag=True, help="Put it into pipelines/schemas/ for review; it then holds for every run.")
@click.option("--force", is_flag=True, help="Replace a schema that is there already, or write that of made-up data.")
def schema(workload: str, write: bool, force: bool, as_json: bool, **chosen: Any) -> None:
    """Print the schema that is inferred from the training split, or put it where it can be reviewed.

    A schema that is there already is not replaced, but compared.
    """
    from headrace.validation.schema import reviewed_path

    job = request(workload, (), None, **chosen).job
    with quiet_libraries():
        _, records = _prepared(job)
    inferred = (records.path / "schema.pbtxt").read_text(encoding="utf-8")
    path = reviewed_path(job)
    before = path.read_text(encoding="utf-8") if path.is_file() else None
    changes = "".join(
        difflib.unified_diff(
            (before or "").splitlines(keepends=True), inferred.splitlines(keepends=True), str(path.name), "inferred"
        )
    )
    if write and inferred != before:
        _allowed(path, before is not None, records.json("info.json")["data"] == "synthetic", force, changes)
        with system_errors(f"writing {path}"):
            write_atomically(path, inferred.encode())
    if as_json:
        show_json({"schema": inferred, "path": str(path), "written": write, "changes": changes if before else None})
    elif write:
        if before is not None and changes:
            click.echo(changes)
        click.echo(f"wrote {path}: look through it, and commit it" if changes else f"{path} says the same already")
    else:
        click.echo(inferred, nl=False)


def _allowed(path: Path, exists: bool, synthetic: bool, force: bool, changes: str) -> None:
    """Refuse to overwrite what a person may have written, or to hold real data against made-up ones.

    Raises:
        ConfigError: It is one of these, and was not forced.
    """
    if exists and not force:
        raise ConfigError(
            f"{path.name} is there already, and differs:\n{changes.rstrip()}",
            remedy="change it by hand, or replace it with --force",
        )
    if synthetic and not force:
        raise ConfigError(
            f"The data of {path.stem} are made up by the twin: the real ones would be held against their schema.",
            remedy="--data real; or --force",
        )
