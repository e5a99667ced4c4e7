"""`predict` and `serve`: a published model answers for the rows of a file, or over HTTP."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import click

from headrace.cli.engines import engine_option
from headrace.cli.process import quiet_libraries
from headrace.cli.shared import Command, application, show_json, verbosity
from headrace.errors import EXIT_OK, ConfigError

MB = 2**20


def bundle_options(command: Command) -> Command:
    """Add what says which model is meant."""
    options = (
        click.argument("workload"),
        click.option(
            "--line", help="Line of the registry; default: the workload's own. `headrace registry list` names them."
        ),
        click.option(
            "--bundle",
            "folder",
            type=click.Path(path_type=Path),
            help="A folder with a SavedModel, in place of a version of the registry.",
        ),
        click.option("--no-log", is_flag=True, help="Keep nothing of inputs and answers for monitoring."),
        verbosity,
    )
    for option in reversed(options):
        command = option(command)
    return command


@click.command()
@bundle_options
@click.option(
    "--version", "wanted", default="blessed", show_default=True, help="Number, blessed, previous or an alias."
)
@click.option(
    "--input", "source", required=True, help="File or folder, as --source takes it; - for JSON lines on standard input."
)
@click.option("--output", type=click.Path(path_type=Path), help="File of answers; default: standard output.")
@click.option("--format", "form", type=click.Choice(("parquet", "jsonl")), help="Default: as the output's name ends.")
@click.option(
    "--keep", multiple=True, metavar="COLUMN", help="Copy a column of a table beside the answers; repeatable."
)
@click.option(
    "--batch-size", type=click.IntRange(1, 65536), default=256, show_default=True, help="Rows asked together."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object; needs --output.")
@engine_option("local", "prefect")
def predict(
    workload: str,
    line: str | None,
    folder: Path | None,
    no_log: bool,
    wanted: str,
    source: str,
    output: Path | None,
    form: str | None,
    keep: tuple[str, ...],
    batch_size: int,
    as_json: bool,
    engine: str,
) -> int:
    """Let a published model answer for every row of a file.

    Reads tables (CSV, Parquet), TFRecords, arrays, folders and archives of images or texts, JSON lines, and text files
    with an example on each line; targets need not be there. A row that can't be used is listed with its place and
    reason in OUTPUT.quarantine.jsonl (or on standard error), and the exit code is 3.

    \b
    headrace predict house_prices --input new.csv --output answers.parquet
    cat new.jsonl | headrace predict house_prices --input - > answers.jsonl
    """
    from headrace.serving import predicting

    if as_json and output is None:
        raise ConfigError("--json needs --output: standard output can't hold both.")
    bundle = _bundle(workload, line, folder, wanted)
    if engine == "prefect":
        if source == "-" or output is None or folder:
            raise ConfigError("A flow run reads a file and writes one, with a version of the registry.")
        asked: dict[str, Any] = {
            "workload": workload,
            "input": str(Path(source).absolute()),
            "output": str(output.absolute()),
        }
        asked |= {"version": wanted, "line": line, "format": form}
        others = {"keep": list(keep), "batch_size": batch_size, "log": not no_log}
        with quiet_libraries():
            told = application("flows").fan_out("predict", {**asked, **others})
        _show(predicting.Summary(**{name: told[name] for name in told if name != "exit_code"}), as_json)
        return EXIT_OK
    request = predicting.Request(
        bundle=bundle,
        source=None if source == "-" else Path(source),
        output=output,
        form=form,
        keep=keep,
        batch=batch_size,
        log=not no_log,
    )
    with _standard_output() as out, quiet_libraries():
        found = predicting.predict(request, out)
    _show(found, as_json, err=output is None)
    return found.exit_code


@click.command()
@bundle_options
@click.option(
    "--version",
    "wanted",
    multiple=True,
    default=("blessed",),
    show_default=True,
    help="Number, blessed, previous or an alias; repeatable, the first one answers where none is asked for.",
)
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Address to listen at; others than loopback can be reached by anybody.",
)
@click.option("--port", type=click.IntRange(0, 65535), default=8501, show_default=True, help="0 takes a free one.")
@click.option(
    "--max-body",
    type=click.FloatRange(min=0, min_open=True),
    default=16.0,
    show_default=True,
    help="Megabytes of a request, at most.",
)
@click.option(
    "--max-batch",
    type=click.IntRange(1, 65536),
    default=64,
    show_default=True,
    help="Examples that are asked together, at most.",
)
@click.option(
    "--max-wait",
    type=click.FloatRange(0, 10_000),
    default=0.0,
    show_default=True,
    help="Milliseconds that an idle model waits for more requests.",
)
@click.option(
    "--max-queue",
    type=click.IntRange(1),
    default=4096,
    show_default=True,
    help="Examples that may wait; more are refused with 429.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=30.0,
    show_default=True,
    help="Seconds for a request.",
)
@click.option(
    "--poll",
    type=click.FloatRange(min=0.05),
    default=1.0,
    show_default=True,
    help="Seconds between two looks at which version is blessed.",
)
@click.option(
    "--log-share",
    type=click.FloatRange(0, 1),
    default=1.0,
    show_default=True,
    help="Share of the requests that are kept for monitoring.",
)
@click.option(
    "--log-size",
    type=click.IntRange(1),
    default=1024,
    show_default=True,
    help="Megabytes of kept requests; the oldest go.",
)
def serve(
    workload: str,
    line: str | None,
    folder: Path | None,
    no_log: bool,
    wanted: tuple[str, ...],
    host: str,
    port: int,
    max_body: float,
    max_batch: int,
    max_wait: float,
    max_queue: int,
    timeout: float,
    poll: float,
    log_share: float,
    log_size: int,
) -> int:
    """Answer requests over HTTP, in the format of TensorFlow Serving's REST API, until Ctrl-C.

    When another version is blessed, it takes over, and no request is lost. What is asked and answered is kept in
    $HEADRACE_HOME/requests/LINE/DATE for `headrace monitor`.

    \b
    headrace serve house_prices
    curl -d '{"instances": [[0.1, …]]}' http://127.0.0.1:8501/v1/models/house_prices:predict
    """
    from headrace.serving import bundles, server

    server.installed()
    known = None if folder else bundles.known_line(workload, line)
    with server.listening(host, port) as taken, quiet_libraries():
        from headrace.serving.app import Service
        from headrace.serving.batching import Limits
        from headrace.serving.figures import Figures
        from headrace.serving.logs import Kept, RequestLog
        from headrace.serving.shelves import Shelf

        figures = Figures()
        limits = Limits(max_batch, max_wait / 1000, max_queue, timeout)
        shelf = Shelf(lambda name: _bundle(workload, line, folder, name), wanted, known, limits, figures.batch)
        service = Service(
            shelf,
            None if no_log or not log_share else RequestLog(shelf.name, Kept(log_share, log_size * MB)),
            most_bytes=int(max_body * MB),
            seconds=timeout,
            poll=poll,
            figures=figures,
        )
        titles = ", ".join(f"version {number}" for number in sorted(shelf.all))
        where = f"{server.address(taken)}/v1/models/{shelf.name}"
        server.serve(service, taken, lambda: click.echo(f"serving {shelf.name} {titles} at {where}", err=True))
    return EXIT_OK


def _bundle(workload: str, line: str | None, folder: Path | None, wanted: str) -> Any:
    from headrace.serving import bundles

    if folder and (line or wanted != bundles.BLESSED):
        raise ConfigError(
            "A folder has neither lines nor versions.", remedy="leave --line and --version out, or --bundle"
        )
    return bundles.in_folder(workload, folder) if folder else bundles.published(workload, wanted, line)


def _show(found: Any, as_json: bool, err: bool = False) -> None:
    if as_json:
        show_json(found.to_json())
    else:
        click.echo(found.in_words(), err=err)


@contextlib.contextmanager
def _standard_output() -> Iterator[IO[str]]:
    """Standard output as it is now, whatever libraries do to it meanwhile."""
    sys.stdout.flush()
    try:
        own = os.dup(sys.stdout.fileno())
    except (OSError, io.UnsupportedOperation):
        yield sys.stdout
        return
    with os.fdopen(own, "w", encoding="utf-8") as out:
        yield out
