"""The command line. `--help`, `list`, `show`, `plan` and a run that skips every stage load neither TensorFlow nor
Prefect; both are imported by the stage or the flow that needs them.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import inspect
import json
import logging
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

import click

from headrace import __version__, projects
from headrace.artifacts import Artifact, home, read_json, system_errors
from headrace.errors import (
    EXIT_FAULT,
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_VERDICT,
    ConfigError,
    HeadraceError,
    SystemTrouble,
    unknown,
)
from headrace.fingerprints import leaves
from headrace.jobs import Job, parse_override, read_config, resolve

if TYPE_CHECKING:
    from headrace.spec import Pipeline, Source, Variant

log = logging.getLogger(__name__)

Command = TypeVar("Command", bound=Callable[..., Any])


# ----------------------------------------------------------------------------------------------- the process


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


def _set_level(_context: click.Context, option: click.Parameter, given: bool) -> None:
    if given:
        logging.getLogger("headrace").setLevel(logging.WARNING if option.name == "quiet" else logging.DEBUG)


def verbosity(command: Command) -> Command:
    """Add `-q` and `-v`, which stand after the command's name as well as before it."""
    quiet = click.option("-q", "--quiet", is_flag=True, expose_value=False, callback=_set_level, help="Warnings only.")
    verbose = click.option("-v", "--verbose", is_flag=True, expose_value=False, callback=_set_level, help="Details.")
    return quiet(verbose(command))


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


# -------------------------------------------------------------------------------------------------- printing


def show_table(columns: Sequence[str], rows: Sequence[Sequence[object]], right: Sequence[str] = ()) -> None:
    """Print a table; a terminal's width is kept, a file gets as much as it needs.

    Args:
        columns: The headings.
        rows: What stands below them; None is shown as nothing.
        right: The columns of numbers.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*("" if value is None else str(value) for value in row))
    console = Console(width=None if sys.stdout.isatty() else 240, highlight=False, markup=False)
    with console.capture() as text:
        console.print(table)
    click.echo("\n".join(line[1:].rstrip() for line in text.get().splitlines() if line.strip()) + "\n")


def show_json(value: Any) -> None:
    """Print one JSON object."""
    click.echo(json.dumps(value, indent=1, ensure_ascii=False, default=str))


def _number(value: object) -> str:
    return "undefined" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


# ------------------------------------------------------------------------------------------------- the group


class Commands(click.Group):
    """A group whose unknown commands are answered with the nearest names."""

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
        if not args[0].startswith("-") and args[0] not in self.commands:
            raise unknown("command", args[0], self.commands)
        return super().resolve_command(ctx, args)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
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

    HEADRACE_HOME says where everything is kept (default: .headrace in the project), HEADRACE_MIRROR (a folder or URL)
    where original files are looked for before their origin, HEADRACE_DEBUG=1 shows tracebacks and native messages.
    """


# ------------------------------------------------------------------------------------- what there is to run


@cli.command("list")
@click.option("--markdown", is_flag=True, help="Print the table of the README instead.")
@click.option("--write", is_flag=True, help="Bring the table in README.md up to date instead.")
def list_workloads(markdown: bool, write: bool) -> int:
    """List the workloads of the project."""
    if markdown or write:
        from headrace import cataloguing

        click.echo(f"wrote {cataloguing.write(projects.root())}" if write else cataloguing.table(projects.root()))
        return EXIT_OK
    pipelines: list[Pipeline] = []
    problems: list[HeadraceError] = []
    for name in projects.names():
        try:
            pipelines.append(projects.load(name))
        except HeadraceError as error:
            problems.append(error)
    rows = [(p.name, p.title, p.task, p.book, ", ".join(p.variants)) for p in pipelines]
    show_table(("workload", "title", "task", "book", "variants"), rows)
    # One broken file doesn't hide the others.
    for problem in problems:
        click.echo(f"headrace: error: {problem}", err=True)
    return problems[0].exit_code if problems else EXIT_OK


@cli.command()
@click.argument("workload")
def show(workload: str) -> None:
    """Show a workload's sources, settings, promises."""
    pipeline = projects.load(workload)
    click.echo(f"{pipeline.name}: {pipeline.title}\n{pipeline.book} · {pipeline.task}\nExpect: {pipeline.expect}\n")
    for name, source in pipeline.sources.items():
        default = " (default)" if name == pipeline.default_source else ""
        click.echo(f"Source {name}{default}: {source.title}")
        facts = {
            "files": ", ".join(file.name for file in source.files),
            "licence": source.licence,
            "homepage": source.homepage,
            "synthetic twin": "yes" if source.twin else "no",
            "NOTE": source.note,
        }
        for fact, value in facts.items():
            if value:
                click.echo(f"  {fact}: {value}")
        show_table(("feature", "role", "column", "what it is", "unit"), list(_columns(source)))
    for name, variant in pipeline.variants.items():
        default = " (default)" if name == pipeline.default_variant else ""
        click.echo(f"Variant {name}{default}: {variant.description}")
    settings = {name: _settings(pipeline, variant) for name, variant in pipeline.variants.items()}
    paths = dict.fromkeys(path for values in settings.values() for path in values)
    columns = ("setting", *pipeline.variants, "smoke")
    show_table(
        columns,
        [(path, *(values.get(path) for values in settings.values()), pipeline.smoke.get(path)) for path in paths],
        right=columns[1:],
    )
    promises = [
        (name, promise.metric, promise.on.replace("_", "-"), promise.bounds, promise.book, promise.source)
        for name, variant in pipeline.variants.items()
        for promise in variant.promises
    ]
    if promises:
        show_table(("variant", "promised", "on", "bounds", "book", "where"), promises, right=("book",))


def _columns(source: Source) -> Iterator[tuple[str, ...]]:
    """A row for each column of each feature, or for the feature itself where it has no columns."""
    for name, feature in source.features.items():
        for column in feature.columns:
            yield name, feature.role, column.name, column.description, column.unit
        if not feature.columns:
            yield name, feature.role, "", feature.description, feature.unit


def _settings(pipeline: Pipeline, variant: Variant) -> dict[str, str]:
    """Dotted path → value as it is written after `--set path=`; what the model takes by default included."""
    parameters = list(inspect.signature(pipeline.model).parameters.values())[1:]
    defaults = {
        parameter.name: parameter.default for parameter in parameters if parameter.default is not parameter.empty
    }
    tree = variant.model_dump(mode="json", exclude={"description", "promises"})
    tree["model"] = defaults | tree["model"]
    return {
        ".".join(path): value if isinstance(value, str) else json.dumps(value, default=str)
        for path, value in leaves(tree)
        if value != {}
    }


# ------------------------------------------------------------------------------------------------ requests


@dataclass(frozen=True)
class Request:
    """What the options of `plan` and `run` ask for, checked and completed."""

    job: Job
    overrides: dict[str, Any]

    @property
    def parameters(self) -> dict[str, Any]:
        """The parameters of the workload's flow."""
        job = self.job
        return {
            "variant": job.variant,
            "profile": job.profile,
            "data": job.data,
            "source": job.source,
            "seed": job.seed,
            "overrides": self.overrides,
        }


def request_options(command: Command) -> Command:
    """Add the workload and the options that say what to run."""
    options = (
        click.argument("workload"),
        click.option("--variant", help="One of the workload's variants; default: its first."),
        click.option("--profile", help="full (default), or smoke for a run of seconds."),
        click.option("--data", help="auto (default: real where it can be had, else the twin), real or synthetic."),
        click.option("--source", help="One of the workload's sources, or the path of a CSV or Parquet file."),
        click.option("--seed", help="Seed of everything random; default: 0."),
        click.option("--set", "settings", multiple=True, metavar="PATH=VALUE", help="Override a setting; repeatable."),
        click.option("--config", type=click.Path(path_type=Path), help="YAML file of options and settings."),
        click.option(
            "--engine",
            type=click.Choice(("local", "prefect")),
            default="local",
            show_default=True,
            help="Who carries the stages out: this process, or a Prefect flow run.",
        ),
        click.option("--json", "as_json", is_flag=True, help="Print one JSON object, also for a failure."),
        verbosity,
    )
    for option in reversed(options):
        command = option(command)
    return command


def request(workload: str, settings: Sequence[str], config: Path | None, **options: Any) -> Request:
    """Join configuration file and command line, which wins.

    Raises:
        ConfigError: Something is wrong; the message names every mistake that can be seen.
    """
    mistakes: list[ConfigError] = []
    chosen: dict[str, Any] = {}
    overrides: dict[str, Any] = {}
    if config:
        try:
            chosen, overrides = read_config(config)
        except ConfigError as error:
            mistakes.append(error)
    for text in settings:
        try:
            path, value = parse_override(text)
            overrides[path] = value
        except ConfigError as error:
            mistakes.append(error)
    chosen |= {name: value for name, value in options.items() if value is not None}
    seed = chosen.get("seed", 0)
    # What is no number is passed on: `resolve` tells it together with the other mistakes.
    chosen["seed"] = int(seed) if isinstance(seed, str) and seed.isdecimal() else seed
    try:
        job = resolve(workload, **chosen, overrides=overrides)
    except ConfigError as error:
        raise _all_of([*mistakes, error]) from None
    if mistakes:
        raise _all_of(mistakes)
    return Request(job, overrides)


def _all_of(mistakes: list[ConfigError]) -> ConfigError:
    return mistakes[0] if len(mistakes) == 1 else ConfigError("\n".join(str(mistake) for mistake in mistakes))


# -------------------------------------------------------------------------------------------- plan and run


@cli.command()
@request_options
def plan(workload: str, engine: str, as_json: bool, **options: Any) -> None:
    """Tell what `run` would do, and why.

    Takes the same options as `run`, and changes nothing.
    """
    from headrace.chain import Stages, standard

    job = request(workload, **options).job
    nodes = [
        {"node": node.node, "state": "skip" if node.state == "skipped" else node.state, "reason": node.reason}
        for node in standard(job, Stages.planned())
    ]
    if as_json:
        show_json(
            {
                **job.model_dump(mode="json", exclude={"settings"}),
                "title": job.title,
                "engine": engine,
                "stages": nodes,
            }
        )
        return
    click.echo(job.title)
    show_table(("stage", "would", "because"), [tuple(node.values()) for node in nodes])


@cli.command()
@request_options
def run(workload: str, engine: str, as_json: bool, **options: Any) -> int:
    """Run a workload from download to report.

    What is already made is skipped.

    \b
    headrace run house_prices
    headrace run house_prices --variant kfold_100 --seed 3 --set train.epochs=50
    """
    from headrace import running

    asked = request(workload, **options)
    for record in running.dead_runs():
        with system_errors("ending a dead run"):
            running.bury(record)
        log.warning("run %s had ended without a word; it is now marked as crashed", record.parent.name)
    with quiet_libraries():
        if engine == "prefect":
            summary = _application("flows").run(workload, asked.parameters)
        else:
            from headrace.chain import Stages

            summary = running.execute(asked.job, Stages.plain())
    if as_json:
        show_json(summary)
    else:
        show_summary(summary)
    return running.exit_code(summary)


def show_summary(summary: dict[str, Any]) -> None:
    """What a run came to, for people."""
    click.echo(summary["title"])
    if summary["data"] == "synthetic":
        click.echo("SYNTHETIC DATA: made up by the workload's twin; nothing here says how good the model is.")
    stages = [(s["node"], s["state"], f"{s['seconds']:.1f}", s["reason"]) for s in summary["stages"]]
    show_table(("stage", "state", "seconds", "because"), stages, right=("seconds",))
    evaluation = read_json(Path(summary["artifacts"]["evaluate"]) / "evaluation.json") or {}
    intervals = evaluation.get("intervals", {})
    metrics = [
        (name, _number(value), " to ".join(_number(bound) for bound in intervals.get(name) or ()))
        for name, value in summary["metrics"].items()
    ]
    show_table(("metric", "test", "interval"), metrics, right=("test",))
    words = {True: "passed", False: "FAILED", None: "not judged"}
    show_table(("gate", "result", "because"), [(g["gate"], words[g["passed"]], g["reason"]) for g in summary["gates"]])
    version = f"version {summary['version']}" if summary["version"] else "nothing published"
    click.echo(f"verdict: {summary['verdict']} · {version} · {summary['seconds']:.1f} s\nreport: {summary['report']}")


def _application(name: str) -> ModuleType:
    """A module of the project's application, which may need Prefect.

    Raises:
        SystemTrouble: Prefect is not installed.
    """
    if str(projects.root()) not in sys.path:
        sys.path.insert(0, str(projects.root()))
    if not importlib.util.find_spec("prefect"):
        raise SystemTrouble(
            "Prefect is not installed here.",
            remedy='`make setup` in a checkout, `pip install "headrace[prefect]"` elsewhere; or use --engine local',
        )
    return importlib.import_module(name)


# ------------------------------------------------------------------------------------------ after the run


@cli.command()
@click.argument("workload", required=False)
@click.option("--open", "in_browser", is_flag=True, help="Open it in a browser.")
def report(workload: str | None, in_browser: bool) -> None:
    """Print the path of the newest run's report."""
    record = newest(workload, lambda record: Path(record["report"]).is_file())
    click.echo(record["report"])
    if in_browser:
        click.launch(Path(record["report"]).as_uri())


def newest(workload: str | None, fits: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """The record of the newest completed run that fits, of one workload or of all.

    Raises:
        ConfigError: There is no such workload, or no such run.
    """
    if workload and workload not in projects.names():
        raise unknown("workload", workload, projects.names())
    paths = sorted((home() / "runs").glob(f"{workload or '*'}/*/run.json"), key=lambda path: path.parent.name)
    for path in reversed(paths):
        record = read_json(path)
        if record and record["state"] == "completed" and fits(record):
            return dict(record)
    raise ConfigError(
        f"There is no finished run{f' of {workload}' if workload else ''} to look at.",
        received=f"{len(paths)} runs, none that is completed and still has its files" if paths else "no run",
        remedy=f"headrace run {workload or 'WORKLOAD'}",
    )


@cli.command()
@click.argument("workload")
@click.option(
    "--input", "path", required=True, type=click.Path(path_type=Path), help="CSV or Parquet; targets optional."
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
            and all(Path(record["artifacts"][node]).is_dir() for node in ("preprocess", "export"))
        ),
    )
    job = Job.model_validate({name: record[name] for name in Job.model_fields})
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
            _number(c["distance"]),
            _number(c["threshold"]),
            f"{_number(c['reference']['mean'])} ± {_number(c['reference']['std'])}",
            f"{_number(c['current']['mean'])} ± {_number(c['current']['std'])}",
        )
        for c in found["columns"]
    ]
    columns = ("column", "", "distance", "threshold", "trained on", "now")
    show_table(columns, rows, right=columns[2:])
    for anomaly in found["anomalies"]:
        click.echo(f"{anomaly['severity']}: {anomaly['text']}")
    if found["metric"]:
        metric = found["metric"]
        click.echo(f"{metric['metric']} {_number(metric['value'])} on {metric['rows']} rows with targets")


@cli.command()
@click.argument("name")
def new(name: str) -> None:
    """Write a new workload, complete and ready to run.

    Writes pipelines/NAME.py, which is yours to change, flows/NAME.py, and a deployment in prefect.yaml.
    """
    from headrace import scaffolding

    for path in scaffolding.scaffold(name, projects.root()):
        click.echo(f"wrote {path}")
    click.echo(f"try it:  headrace run {name} --profile smoke --data synthetic\nthen:    grep -rn 'TODO({name})' .")


@cli.command()
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


# ------------------------------------------------------------------------------------- registry, platform


@cli.group(cls=Commands)
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
        click.echo(f"  {name}: {_number(value)}")


@registry.command()
@click.argument("line")
def rollback(line: str) -> None:
    """Serve the version that was blessed before; a second rollback takes the first one back."""
    from headrace import registry as published

    before, now = published.rollback(line)
    click.echo(f"{line}: version {now} is blessed again, in place of {before}")


@cli.group(cls=Commands)
def platform() -> None:
    """Start, stop or look at the Prefect server.

    It is the project's own, keeps the runs of `--engine prefect`, and runs the deployments.
    """


@platform.command()
def up() -> None:
    """Serve everything until Ctrl-C: server, work pool, all deployments, and a worker."""
    _application("tasks.server").up()


@platform.command()
def down() -> None:
    """Stop the server; what it has recorded is kept."""
    click.echo("stopped" if _application("tasks.server").down() else "there was nothing to stop")


@platform.command()
def status() -> None:
    """Tell whether the server runs, and where."""
    found = _application("tasks.server").status()
    click.echo(f"running at {found['ui']}" if found["runs"] else "not running")
    for name in ("pid", "log"):
        if found[name]:
            click.echo(f"  {name}: {found[name]}")


if __name__ == "__main__":
    sys.exit(main())
