"""`platform`: the project's own Prefect server."""

from __future__ import annotations

import click

from headrace.cli.groups import Commands
from headrace.cli.shared import application


@click.group(cls=Commands)
def platform() -> None:
    """Start, stop or look at the Prefect server.

    It is the project's own, keeps the runs of `--engine prefect`, and runs the deployments.
    """


@platform.command()
def up() -> None:
    """Serve everything until Ctrl-C: server, work pool, all deployments, and a worker."""
    application("tasks.server").up()


@platform.command()
def down() -> None:
    """Stop the server; what it has recorded is kept."""
    click.echo("stopped" if application("tasks.server").down() else "there was nothing to stop")


@platform.command()
def status() -> None:
    """Tell whether the server runs, and where."""
    found = application("tasks.server").status()
    click.echo(f"running at {found['ui']}" if found["runs"] else "not running")
    for name in ("pid", "log"):
        if found[name]:
            click.echo(f"  {name}: {found[name]}")
