"""Stages in processes of their own, on request: what they held of memory is free after each, and no crash is a hang.

With `HEADRACE_ISOLATE=1` in the environment (which is what `headrace run --isolate` sets), every stage that computes
with TensorFlow is carried out by a child: forked from a server that has TensorFlow loaded already, or spawned where
there is no such thing (and with `HEADRACE_ISOLATE=spawn`). The child is given the path of a request, a small JSON file,
and answers in lines of JSON: log records, progress, and at the end the artifact it has made, or the error.
"""

from __future__ import annotations

import contextlib
import faulthandler
import importlib
import json
import logging
import multiprocessing
import os
import re
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace import errors
from headrace.artifacts import Artifact, system_errors, write_json
from headrace.console import shown_by
from headrace.errors import ConfigError, HeadraceError, StageFailed
from headrace.jobs import Job
from headrace.placing.telling import Listener, Teller, Told
from headrace.spec import Spec

if TYPE_CHECKING:
    from headrace.stages import Stage

log = logging.getLogger(__name__)

VARIABLE = "HEADRACE_ISOLATE"
PRELOADED = ("tensorflow", "keras", "headrace.placing.isolating")
PROGRESS_SECONDS = 0.1
"""How often progress is told at most."""
LOOK_SECONDS = 0.5
"""How often the memory of a child is looked at."""

_UNKNOWN = 255
"""The exit code of a child whose fork server has died, though the child may live."""


def method() -> str | None:
    """How processes of stages begin, `forkserver` or `spawn`; None if stages shall run where they are called.

    Raises:
        ConfigError: HEADRACE_ISOLATE asks for something else.
    """
    asked = os.environ.get(VARIABLE, "")
    known = [name for name in ("forkserver", "spawn") if name in multiprocessing.get_all_start_methods()]
    if asked in ("", "0"):
        return None
    if asked == "1":
        return known[0]
    if asked in known:
        return asked
    raise ConfigError(f"{VARIABLE} can't be `{asked}`.", expected=f"1, 0, {' or '.join(known)}")


@contextlib.contextmanager
def isolated() -> Iterator[None]:
    """Ask for it in this context, of this process and of those that it starts."""
    before = os.environ.get(VARIABLE)
    if before in (None, "", "0"):
        os.environ[VARIABLE] = "1"
    try:
        yield
    finally:
        os.environ.pop(VARIABLE, None)
        if before is not None:
            os.environ[VARIABLE] = before


# ------------------------------------------------------------------------------------------- in the caller


def carried_out(stage: Stage[Any], job: Job, node: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Artifact:
    """Call a stage in a child that ends with it.

    Args:
        stage: The stage, to be found by its module and name.
        job: The job.
        node: What the call is called, for messages.
        args: Its arguments: artifacts (or lists of them), specs and plain values.
        kwargs: Those with a name.

    Returns:
        What the stage returns.

    Raises:
        HeadraceError: What the stage raises.
        StageFailed: The child was killed, or ended without an answer. What it kept for another attempt is there.
    """
    doing = f"starting a process for stage `{node}`"
    with system_errors(doing), tempfile.TemporaryDirectory(prefix="headrace-", ignore_cleanup_errors=True) as folder:
        request = Path(folder) / "request.json"
        asked = {
            "stage": f"{stage.__module__}:{stage.name}",
            "job": job.model_dump(mode="json"),
            "args": _plain(args),
            "kwargs": _plain(kwargs),
        }
        write_json(request, asked)
        child, answers = _started(request)
        try:
            last, peak = _heard(child, answers)
            child.join()
        finally:
            # After Ctrl-C nobody waits for what it is doing: its checkpoints are there for the next attempt.
            child.kill()
            child.join()
            if child.exitcode == _UNKNOWN:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child.pid, signal.SIGKILL)
            answers.close()
        if last is None:
            error = _ended(node, child.exitcode, peak, request.with_name("stack.txt"))
            error.add_note(f"in stage {node} of {job.title}")
            raise error
    if last["says"] == "failed":
        raise _error(last) from _ChildTraceback(last["traceback"])
    return Artifact(**{**last["artifact"], "path": Path(last["artifact"]["path"])})


def _started(request: Path) -> tuple[Any, Connection]:
    """A child at work on a request, and what it says."""
    level = logging.getLogger("headrace").getEffectiveLevel()
    # The server was started with the environment, and the working directory, of some earlier time.
    environment = {name: value for name, value in os.environ.items() if name != VARIABLE}
    ways = ["spawn"] if method() == "spawn" else ["forkserver", "spawn"]
    for way in ways:
        context: Any = multiprocessing.get_context(way)
        if way == "forkserver":
            context.set_forkserver_preload(list(PRELOADED))
        answers, end = context.Pipe(duplex=False)
        child = context.Process(target=_serve, args=(str(request), end, environment, level))
        try:
            child.start()
            break
        except (EOFError, ConnectionError) as error:
            if way == ways[-1]:
                raise
            log.warning("no process can be forked (%s); one is spawned, which takes longer", type(error).__name__)
        finally:
            end.close()
    return child, answers


def _heard(child: Any, answers: Connection) -> tuple[Told | None, int]:
    """Pass on what a child says, until it ends.

    Returns:
        Its last word, if it had any, and the most memory it was seen to hold, in bytes.
    """
    last: Told | None = None
    peak = 0
    with contextlib.closing(Listener()) as listener:
        while True:
            ready = wait([answers, child.sentinel], LOOK_SECONDS)
            peak = max(peak, _peak(child.pid))
            if answers not in ready and child.sentinel not in ready:
                continue
            # A child that has ended may have left something to be read.
            if answers not in ready and not answers.poll():
                return last, peak
            try:
                told = json.loads(answers.recv_bytes())
            except (EOFError, ConnectionError):
                return last, peak
            if told["says"] == "log":
                record = logging.makeLogRecord(told["record"])
                logger = logging.getLogger(record.name)
                if logger.isEnabledFor(record.levelno):
                    logger.handle(record)
            elif not listener.hear(told):
                last = told


def _peak(pid: int) -> int:
    """The most memory that a process has held so far, in bytes; 0 where that can't be known."""
    try:
        found = re.search(r"^VmHWM:\s*(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    except OSError:
        return 0
    return 1024 * int(found[1]) if found else 0


def _ended(node: str, code: int, peak: int, stack: Path) -> StageFailed:
    """The error for a child that gave no answer."""
    held = []
    if peak:
        whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        held = [f"it held at least {peak / 1e9:.1f} GB; the machine has {whole / 1e9:.1f} GB"]
    with contextlib.suppress(OSError):
        held += [line.strip() for line in stack.read_text().splitlines() if line.startswith("  File")][:3]
    again = "the same command goes on where this one stopped"
    if code == -signal.SIGKILL:
        how = "was killed by SIGKILL; perhaps out of memory"
        again += "; a smaller train.batch_size, or fewer processes at once, need less memory"
    elif code < 0:
        how = f"was ended by {_signal(-code)}"
        if -code in (signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGILL, signal.SIGFPE):
            how = f"crashed in native code, by {_signal(-code)}"
            again += "; HEADRACE_DEBUG=1 shows what native code says"
    else:
        how = f"ended with exit code {code} and no answer"
    return StageFailed(f"The process of stage {node} {how}.", received="; ".join(held) or None, remedy=again)


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


class _ChildTraceback(Exception):
    """Where an error was raised, in the words of the child."""


def _error(told: Told) -> Exception:
    """The error that was raised in the child: ours as it was, another one by its name and words."""
    error: Exception
    if told["ours"]:
        error = getattr(errors, told["ours"])(told["text"])
        error.problem = told["problem"]  # type: ignore[attr-defined]
    else:
        # Its class may be one of TensorFlow's, which this process has not loaded.
        error = type(told["name"], (Exception,), {})(told["text"])
    for note in told["notes"]:
        error.add_note(note)
    return error


# ------------------------------------------------------------------------------------------- what travels


def _plain(value: Any) -> Any:
    """An argument as JSON."""
    if isinstance(value, Artifact):
        return {"artifact": {**asdict(value), "path": str(value.path)}}
    if isinstance(value, Spec):
        return {"spec": f"{type(value).__module__}:{type(value).__qualname__}", "value": value.model_dump(mode="json")}
    if isinstance(value, Mapping):
        return {"items": {key: _plain(item) for key, item in value.items()}}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _whole(value: Any) -> Any:
    """The argument that `_plain` made JSON of."""
    if isinstance(value, list):
        return [_whole(item) for item in value]
    match value:
        case {"artifact": facts}:
            return Artifact(**{**facts, "path": Path(facts["path"])})
        case {"spec": kind, "value": settings}:
            return _named(kind).model_validate(settings)
        case {"items": items}:
            return {key: _whole(item) for key, item in items.items()}
    return value


def _named(place: str) -> Any:
    """What "module:name" stands for."""
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)


# -------------------------------------------------------------------------------------------- in the child


def _serve(path: str, answers: Connection, environment: dict[str, str], level: int) -> None:
    """Carry out a request."""
    end_with_caller()
    os.environ.clear()
    os.environ.update(environment)
    speak = _Voice(answers)
    # The main module of the caller, which is imported here too, may have set up some of its own.
    logging.getLogger().handlers = [speak]
    logging.getLogger("headrace").setLevel(level)
    stack = Path(path).with_name("stack.txt").open("w")
    faulthandler.enable(stack, all_threads=False)
    asked = json.loads(Path(path).read_text())
    try:
        stage, job = _named(asked["stage"]), Job.model_validate(asked["job"])
        with shown_by(Teller(lambda told: speak.say(**told), PROGRESS_SECONDS)):
            made: Artifact = stage(job, *_whole(asked["args"]), **_whole(asked["kwargs"]))
    except Exception as error:
        ours = next((kind.__name__ for kind in type(error).__mro__ if vars(errors).get(kind.__name__) is kind), None)
        speak.say(
            "failed",
            ours=ours,
            name=type(error).__name__,
            text=str(error),
            problem=error.problem if isinstance(error, HeadraceError) else None,
            notes=getattr(error, "__notes__", []),
            traceback="".join(traceback.format_exception(error)),
        )
    else:
        speak.say("made", artifact={**asdict(made), "path": str(made.path)})
    # What threads of TensorFlow are still at does not matter any more.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def end_with_caller() -> None:
    """Let a child end when its caller does, however that ends; and leave Ctrl-C to the caller."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    caller = multiprocessing.parent_process()

    def watch() -> None:
        if caller:
            caller.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


class _Voice(logging.Handler):
    """Says things to the caller: log records, progress, and how it ended."""

    def __init__(self, answers: Connection) -> None:
        super().__init__()
        self._answers = answers
        self._one_at_a_time = threading.Lock()

    def say(self, says: str, **more: Any) -> None:
        """Say one thing."""
        line = json.dumps({"says": says, **more}, default=float).encode()
        with self._one_at_a_time:
            self._answers.send_bytes(line)

    def emit(self, record: logging.LogRecord) -> None:
        """Pass a log record on, its text complete."""
        kept = ("name", "levelno", "levelname", "created", "msecs", "pathname", "filename", "lineno", "funcName")
        fields = {name: getattr(record, name) for name in kept}
        try:
            self.say("log", record={**fields, "msg": self.format(record), "process": record.process})
        except OSError:
            self.handleError(record)
