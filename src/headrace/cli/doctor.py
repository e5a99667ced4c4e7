"""`doctor`: what is wrong here, and how to mend it."""

from __future__ import annotations

import click

from headrace.artifacts import system_errors
from headrace.cli.shared import show_table
from headrace.errors import EXIT_OK, SystemTrouble


@click.command()
@click.option("--fix", is_flag=True, help="Mend what can be mended without losing anything.")
def doctor(fix: bool) -> int:
    """Look for what is wrong, and say how to mend it.

    Checks the environment, the home, the artifacts and the registry.
    """
    from headrace import doctoring

    with system_errors("mending"):
        findings = doctoring.examine(fix=fix)
    words = {"ok": "ok", "trouble": "TROUBLE", "fixed": "fixed", "note": "note"}
    show_table(
        ("check", "state", "what was found", "remedy"),
        [(f.check, words[f.state], f.found, f.remedy) for f in findings],
    )
    return SystemTrouble.exit_code if any(f.state == "trouble" for f in findings) else EXIT_OK
