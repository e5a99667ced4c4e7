"""One command line as a process: what is logged, what goes to standard output, and the exit code of every failure."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from headrace.artifacts import home
from headrace.cli.groups import cli
from headrace.errors import EXIT_FAULT, EXIT_INTERRUPTED, EXIT_OK, HeadraceError


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out one command line and return its exit code; no error leaves it as a traceback.

    Args:
        arguments: The words after `headrace`; default: those of this process.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    # TensorFlow reads this when it is imported; 3 keeps its own errors and drops its remarks.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with _logging():
        try:
            return int(cli.main(words, prog_name="headrace", standalone_mode=False) or EXIT_OK)
        except click.exceptions.NoArgsIsHelpError as error:
            click.echo(error.format_message())
            return error.exit_code
        except click.Abort:
            return _fail(words, "interrupted; the same command goes on where this one stopped", EXIT_INTERRUPTED)
        except click.ClickException as error:
            context = error.ctx if isinstance(error, click.UsageError) else None
            usage = f"\n  to go on: `{context.command_path} --help`" if context else ""
            return _fail(words, f"error: {error.format_message()}{usage}", error.exit_code)
        except HeadraceError as error:
            if os.environ.get("HEADRACE_DEBUG"):
                traceback.print_exc()
            notes = "".join(f"\n  ({note})" for note in getattr(error, "__notes__", ()))
            return _fail(words, f"error: {error}{notes}", error.exit_code)
        except Exception as error:
            return _fail(words, f"error: {_unexpected(error)}", EXIT_FAULT)


def _fail(words: list[str], message: str, code: int) -> int:
    """Tell what went wrong on standard error and, if JSON was asked for, on standard output."""
    click.echo(f"headrace: {message}", err=True)
    # Not asked of click: the arguments may be what could not be parsed.
    if "--json" in words:
        state = "interrupted" if code == EXIT_INTERRUPTED else "failed"
        click.echo(json.dumps({"state": state, "error": message.removeprefix("error: "), "exit_code": code}))
    return code


def _unexpected(error: Exception) -> str:
    """One line about a fault of the program; the traceback goes to a file, or to the terminal when debugging."""
    line = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}"
    if os.environ.get("HEADRACE_DEBUG"):
        traceback.print_exc()
        return line
    name = time.strftime("%Y%m%d-%H%M%S") + f"-{os.getpid()}.txt"
    for folder in (_logs, lambda: Path(tempfile.gettempdir())):
        with contextlib.suppress(OSError, HeadraceError):
            path = folder() / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(traceback.format_exception(error)))
            return f"{line}\n  not foreseen; the traceback is in {path}"
    return f"{line}\n  not foreseen; HEADRACE_DEBUG=1 shows the traceback"


def _logs() -> Path:
    return home() / "logs"


class _StandardError(logging.Handler):
    """Writes to whatever standard error is at the time: a progress bar takes its place while it is shown."""

    def emit(self, record: logging.LogRecord) -> None:
        click.echo(self.format(record), err=True)


@contextlib.contextmanager
def _logging() -> Iterator[None]:
    """Show what the core reports, from INFO on, until the command ends."""
    logger, handler = logging.getLogger("headrace"), _StandardError()
    handler.setFormatter(logging.Formatter("%(asctime)s  %(message)s", "%H:%M:%S"))
    level, propagate = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate


@contextlib.contextmanager
def quiet_libraries() -> Iterator[None]:
    """Keep standard output for the result: what Python prints meanwhile goes to standard error.

    What native code writes past Python (TensorFlow's "I0000 00:00:17…" lines) goes to `logs/native.log` in the home,
    unless HEADRACE_DEBUG is set. A native crash therefore leaves its last words there.
    """
    with contextlib.ExitStack() as stack:
        if not os.environ.get("HEADRACE_DEBUG"):
            with contextlib.suppress(OSError):
                stack.enter_context(_native_output_to(_logs() / "native.log"))
        stack.enter_context(contextlib.redirect_stdout(sys.stderr))
        yield


@contextlib.contextmanager
def _native_output_to(path: Path) -> Iterator[None]:
    """Point the file descriptors 1 and 2 to a file; Python's own standard error stays where it was."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and path.stat().st_size > 1_000_000:
        path.unlink()
    sys.stdout.flush()
    sys.stderr.flush()
    kept = os.dup(1), os.dup(2)
    before = sys.stderr
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        if _descriptor(sys.stderr) == 2:
            sys.stderr = os.fdopen(os.dup(2), "w", buffering=1, encoding=before.encoding, errors="backslashreplace")
        os.dup2(file, 1)
        os.dup2(file, 2)
        yield
    finally:
        sys.stderr.flush()
        os.dup2(kept[0], 1)
        os.dup2(kept[1], 2)
        sys.stderr = before
        for descriptor in (*kept, file):
            os.close(descriptor)


def _descriptor(stream: Any) -> int | None:
    try:
        return int(stream.fileno())
    except (OSError, ValueError):
        return None
