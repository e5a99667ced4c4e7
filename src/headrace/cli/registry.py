"""`registry`: published versions, and the way back."""

from __future__ import annotations

import click

from headrace.cli.groups import Commands
from headrace.cli.shared import number, show_json, show_table


@click.group(cls=Commands)
def registry() -> None:
    """Look at published versions, or go back."""


@registry.command("list")
def list_lines() -> None:
    """List the lines with their versions."""
    from headrace import registry as published

    rows = [
        (line, published.blessed(line) or "none", ", ".join(map(str, reversed(published.versions(line)))))
        for line in published.lines()
    ]
    if rows:
        show_table(("line", "blessed", "versions"), rows)
    else:
        click.echo("nothing is published yet")


@registry.command("show")
@click.argument("line")
@click.argument("version", type=int, required=False)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, with evaluation, lineage and parity.")
def show_version(line: str, version: int | None, as_json: bool) -> None:
    """Show a version of a line; without a number the blessed one, or else the newest."""
    from headrace import registry as published

    found = published.show(line, version)
    if as_json:
        show_json(found)
        return
    standing = [name for name in ("blessed", "previous") if found[name]]
    click.echo(f"{line} version {found['version']}{f' ({standing[0]})' if standing else ''}")
    for name in ("made", "path", "bundle"):
        click.echo(f"  {name}: {found.get(name)}")
    for name, value in (found.get("evaluation") or {}).get("metrics", {}).items():
        click.echo(f"  {name}: {number(value)}")


@registry.command()
@click.argument("line")
def rollback(line: str) -> None:
    """Serve the version that was blessed before; a second rollback takes the first one back."""
    from headrace import registry as published

    before, now = published.rollback(line)
    click.echo(f"{line}: version {now} is blessed again, in place of {before}")
