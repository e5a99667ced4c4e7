"""`platform`: the project's own Prefect server, and everything that runs flows by itself."""

from __future__ import annotations

import os
from typing import Any

import click

from headrace.cli.groups import Commands
from headrace.cli.shared import application, show_json
from headrace.errors import EXIT_OK, SystemTrouble

HOST = "PREFECT_SERVER_API_HOST"
PORT = "PREFECT_SERVER_API_PORT"
DATABASE = "PREFECT_SERVER_DATABASE_CONNECTION_URL"
WEBHOOK = "HEADRACE_WEBHOOK"


@click.group(cls=Commands)
def platform() -> None:
    """Start, stop or look at everything that runs flows by itself.

    A Prefect server of the project's own (or the one in PREFECT_API_URL), the work pool, all deployments, the
    automations, and a worker.
    """


@platform.command()
@click.option("-b", "--background", is_flag=True, help="Return when everything is there; `down` ends it.")
@click.option("--host", help=f"Where the server listens; default: this machine only. Or {HOST}.")
@click.option("--port", type=click.IntRange(1, 65535), help=f"Its port; default: a free one. Or {PORT}.")
@click.option(
    "--database", metavar="URL", help=f"postgresql://user:password@host/name; default: SQLite. Or {DATABASE}."
)
@click.option("--webhook", metavar="URL", help=f"Is told of failures, as JSON with `text`. Or {WEBHOOK}.")
def up(background: bool, **options: Any) -> None:
    """Serve everything until Ctrl-C, or in the background.

    Where it is up already, what differs from the project's files is put right, and nothing else is touched.

    A server that other machines can reach (--host) needs a user and a password: PREFECT_API_AUTH_STRING=user:password,
    here and wherever a client or a worker runs. Nothing of it is written to a file.
    """
    names = {"host": HOST, "port": PORT, "database": DATABASE, "webhook": WEBHOOK}
    # As if they had been there before: every process that is started reads them from its environment.
    os.environ.update({names[option]: str(value) for option, value in options.items() if value is not None})
    operating = application("tasks.operating")
    (operating.detach if background else operating.up)()


@platform.command()
def down() -> None:
    """End the worker and the project's own server; what is recorded is kept."""
    ended = application("tasks.operating").down()
    click.echo(f"stopped: {', '.join(ended)}" if ended else "there was nothing to stop")


@platform.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, also for a failure.")
def status(as_json: bool) -> int:
    """Tell what runs, what has run, and what is wrong; the exit code is 0 only if all is well."""
    found = application("tasks.operating").status()
    if as_json:
        show_json(found)
    else:
        click.echo("\n".join(_in_words(found)))
    return SystemTrouble.exit_code if found["problems"] else EXIT_OK


def _in_words(found: dict[str, Any]) -> list[str]:
    """A line for each part of the platform."""
    lines = [("server", found["ui"] if found["runs"] else "not running")]
    if "version" in found:
        deployments, automations = found["deployments"], found["automations"]
        lines += [
            ("", f"Prefect {found['version']}" + (f", {found['database']}" if found["database"] else "")),
            ("workers", [f"{one['name']}: {'alive' if one['alive'] else 'silent'}" for one in found["workers"]]),
            ("queues", [_queue(**one) for one in found["queues"]]),
            ("deployments", deployments["there"]),
            ("paused", deployments["paused"]),
            ("automations", len(automations["there"])),
            ("switched off", automations["switched_off"]),
            ("failures", "told to the webhook" if found["notified"] else f"told to nobody; --webhook or {WEBHOOK}"),
            ("last runs", [f"{run['at']:%Y-%m-%d %H:%M}  {run['state']}: {run['name']}" for run in found["last_runs"]]),
        ]
    lines += [("pid", found["pid"]), ("log", found["log"]), ("PROBLEM", found["problems"])]
    return [
        f"{'' if place else name:<13}{text}"
        for name, told in lines
        if told is not None
        for place, text in enumerate(told if isinstance(told, list) else [told])
    ]


def _queue(name: str, paused: bool, served: bool, late: int) -> str:
    """What is to be said of a work queue."""
    state = "paused" if paused else "served" if served else "served by nobody"
    return f"{name}: {state}" + (f", {late} late" if late else "")
