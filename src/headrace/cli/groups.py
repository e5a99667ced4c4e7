"""The commands by name. The module of a command is imported when the command is asked for, or listed."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from typing import Any

import click

from headrace import __version__
from headrace.cli.shared import verbosity
from headrace.errors import EXIT_OK, unknown

COMMANDS = {
    "data": "data:data",
    "doctor": "doctor:doctor",
    "ensemble": "fanouts:ensemble",
    "interpret": "interpret:interpret",
    "list": "workloads:list_workloads",
    "monitor": "monitor:monitor",
    "new": "workloads:new",
    "plan": "runs:plan",
    "platform": "platform:platform",
    "predict": "serving:predict",
    "registry": "registry:registry",
    "report": "runs:report",
    "run": "runs:run",
    "serve": "serving:serve",
    "show": "workloads:show",
    "study": "fanouts:study",
    "sync": "workloads:sync",
    "tune": "fanouts:tune",
}
"""Name of a command → the module of this package that holds it, and its function."""


class Commands(click.Group):
    """A group whose commands are imported when they are needed, and unknown ones answered with the nearest names.

    Args:
        lazily: Name of a command → "module:function" in this package; beside those that are added to the group.
        others: What `click.Group` takes.
    """

    def __init__(self, *args: Any, lazily: Mapping[str, str] | None = None, **others: Any) -> None:
        super().__init__(*args, **others)
        self._lazily = lazily or {}

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of all commands, sorted."""
        return sorted({*self.commands, *self._lazily})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of this name, or None."""
        if cmd_name in self._lazily and cmd_name not in self.commands:
            module, _, function = self._lazily[cmd_name].partition(":")
            self.add_command(getattr(importlib.import_module(f"headrace.cli.{module}"), function), cmd_name)
        return super().get_command(ctx, cmd_name)

    def invoke(self, ctx: click.Context) -> Any:
        """Carry out a command; a reader that has seen enough (`| head`) is no failure, as it would be to click."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            # Python would complain when it flushes the pipe at the end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            return EXIT_OK

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find a command by name.

        Raises:
            ConfigError: There is none of this name.
        """
        if not args[0].startswith("-") and args[0] not in self.list_commands(ctx):
            raise unknown("command", args[0], self.list_commands(ctx))
        return super().resolve_command(ctx, args)


@click.group(cls=Commands, lazily=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="headrace")
@verbosity
def cli() -> None:
    """Declarative training pipelines for TensorFlow, from download to monitoring.

    \b
    Exit codes:
      0  done, and the verdict is good or there was nothing to judge
      1  done, and the verdict is "fail"
      2  the request can't be carried out as it is written
      3  the data are missing or not what was declared
      4  the machine refuses: no room, no permission, a broken installation
      5  a stage failed
      70  a fault of the program; 130  interrupted

    With --json exactly one JSON object is printed on standard output, everything else on standard error. If the
    command fails, the object is {"state": "failed", "error": "…", "exit_code": n}.

    HEADRACE_HOME says where everything is kept (default: .headrace in the project; machines share s3://bucket/prefix,
    see docs/scale.md), HEADRACE_MIRROR (a folder or URL) where original files are looked for before their origin,
    HEADRACE_DEBUG=1 shows tracebacks and native messages, HEADRACE_ISOLATE=1 carries out each stage in a process of its
    own (as --isolate does).
    """
