"""What may be wrong with an installation and its home, and how to mend it."""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement

from headrace import projects, registry, running
from headrace.artifacts import Place, home, home_url, is_held, locked, read_json
from headrace.errors import HeadraceError
from headrace.storing import depots

LEAST_ROOM = 2e9
"""Bytes that a home should have free: data, records, checkpoints and bundles of a few workloads."""

PINNED_BECAUSE = {
    "fastapi": "later ones answer Prefect's own calls with 422, or stop its server from starting",
    "sqlalchemy": "with 2.1 schedules silently never fire",
    "keras": "training relies on the measured behaviour of one minor version",
}
"""Bounds that look arbitrary and are not."""


@dataclass(frozen=True)
class Finding:
    """The outcome of one check."""

    check: str
    state: Literal["ok", "note", "trouble", "fixed"]
    found: str
    remedy: str = ""


Check = Callable[[bool], Iterable[Finding]]


def examine(*, fix: bool = False) -> list[Finding]:
    """Check everything.

    Args:
        fix: Mend what can be mended without losing anything that can't be made again.
    """
    return [finding for check in CHECKS.values() for finding in check(fix)]


# ------------------------------------------------------------------------------------------- installation


def _python(_fix: bool) -> Iterator[Finding]:
    wanted = importlib.metadata.metadata("headrace")["Requires-Python"]
    version = ".".join(map(str, sys.version_info[:3]))
    if Requirement(f"python{wanted}").specifier.contains(version):
        yield Finding("python", "ok", version)
    else:
        yield Finding("python", "trouble", f"{version}; Headrace needs {wanted}", "make setup PYTHON=python3.11")


def _requirements(_fix: bool) -> Iterator[Finding]:
    """What Headrace itself asks for: bounds that must hold wherever it is installed."""
    problems = []
    for text in importlib.metadata.requires("headrace") or []:
        requirement = Requirement(text)
        # What only an extra asks for may be absent, but not of the wrong version.
        optional = "extra" in str(requirement.marker)
        if requirement.marker and not requirement.marker.evaluate({"extra": "prefect"}):
            continue
        version = _installed(requirement.name)
        why = PINNED_BECAUSE.get(requirement.name)
        if version is None and not optional:
            problems.append(f"{requirement.name} is not installed")
        elif version is not None and not requirement.specifier.contains(version, prereleases=True):
            reason = f" ({why})" if why else ""
            problems.append(f"{requirement.name} {version}, but {requirement.specifier} is needed{reason}")
    yield from _listed("requirements", problems, "all met", "make setup")


def _lock(_fix: bool) -> Iterator[Finding]:
    """What is installed beside what the checkout has locked."""
    path = projects.root() / "requirements.lock"
    if not path.is_file():
        yield Finding("lock", "ok", "not in a checkout: nothing is locked")
        return
    problems = []
    pins = re.findall(r"^([\w.-]+==[^\s;\\]+)\s*(;[^\\\n]*)?", path.read_text(), re.MULTILINE)
    requirements = [Requirement(pin + marker) for pin, marker in pins]
    requirements = [item for item in requirements if item.marker is None or item.marker.evaluate()]
    for requirement in requirements:
        version = _installed(requirement.name)
        if version is None:
            problems.append(f"{requirement.name} is not installed")
        elif not requirement.specifier.contains(version, prereleases=True):
            problems.append(f"{requirement.name} {version} instead of {str(requirement.specifier).removeprefix('==')}")
    yield from _listed("lock", problems, f"{len(requirements)} packages as locked", "make setup")


def _installed(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _bytecode(_fix: bool) -> Iterator[Finding]:
    """Without bytecode every `import tensorflow` compiles thousands of modules."""
    slow = []
    for package in ("tensorflow", "keras"):
        found = importlib.util.find_spec(package)
        if found and found.origin and not Path(importlib.util.cache_from_source(found.origin)).is_file():
            slow.append(package)
    if slow:
        site = Path(importlib.metadata.distribution("keras").locate_file(""))  # type: ignore[arg-type]
        found_text = f"{' and '.join(slow)} not compiled: each start takes some 9 s instead of 3"
        remedy = f"unset PYTHONDONTWRITEBYTECODE; {sys.executable} -m compileall -q -j 0 {site}"
        yield Finding("bytecode", "trouble", found_text, remedy)
    else:
        yield Finding("bytecode", "ok", "compiled")


# --------------------------------------------------------------------------------------------------- home


def _home(_fix: bool) -> Iterator[Finding]:
    folder = home()
    place = next(path for path in (folder, *folder.parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        remedy = "make it writable, or set HEADRACE_HOME to a folder that is"
        yield Finding("home", "trouble", f"{folder} can't be written: {error.strerror}", remedy)
        return
    free = shutil.disk_usage(place).free
    words = f"{folder}, {free / 1e9:.1f} GB free"
    if free < LEAST_ROOM:
        yield Finding("home", "trouble", words, "free some space, or set HEADRACE_HOME to a folder on another disk")
    else:
        yield Finding("home", "ok", words)
    url = home_url()
    if url:
        try:
            depots.depot()
            yield Finding("home", "ok", f"{url} answers; the folder is what this machine works in")
        except HeadraceError as error:
            yield _told("home", error)


def _told(check: str, error: HeadraceError) -> Finding:
    """The finding for an error: its first line, and how to go on."""
    return Finding(check, "trouble", error.problem, str(error).partition("to go on: ")[2])


def _mirror(_fix: bool) -> Iterator[Finding]:
    named = os.environ.get("HEADRACE_MIRROR")
    if not named:
        yield Finding("mirror", "ok", "none set; files come from the cache or their origin")
    elif "://" in named:
        yield _mirror_at(named)
    else:
        try:
            with os.scandir(Path(named).expanduser()) as entries:
                count = sum(1 for _ in entries)
            yield Finding("mirror", "ok", f"{named}, {count} entries")
        except OSError as error:
            remedy = "set HEADRACE_MIRROR to a folder (or URL) that holds the original files, or unset it"
            yield Finding("mirror", "trouble", f"{named} can't be read: {error.strerror}", remedy)


def _mirror_at(url: str) -> Finding:
    import requests

    try:
        # Whatever it answers, it is there: a mirror need not list its files.
        requests.head(url, timeout=5, allow_redirects=True)
    except requests.RequestException as error:
        return Finding("mirror", "trouble", f"{url} can't be reached: {type(error).__name__}", "see HEADRACE_MIRROR")
    return Finding("mirror", "ok", f"{url} answers")


def _dead_runs(fix: bool) -> Iterator[Finding]:
    dead = running.dead_runs()
    for path in dead:
        run = f"{path.parent.parent.name}/{path.parent.name}"
        if fix:
            running.bury(path)
            yield Finding("runs", "fixed", f"{run} is now marked as crashed")
        else:
            yield Finding("runs", "trouble", f"{run} says it is running, but its process is gone", "--fix")
    if not dead:
        yield Finding("runs", "ok", "none is dead")


def _artifacts(fix: bool) -> Iterator[Finding]:
    """Finished folders beside their manifests; one that is damaged is removed, so that it is made again."""
    sound = damaged = 0
    for place in _places("artifacts"):
        manifest, trouble = place.find()
        if manifest:
            sound += 1
            continue
        damaged += 1
        name = f"{place.workload}/{place.stage}/{place.key}"
        if not fix:
            remedy = "--fix removes it; the next run makes it again (and would notice by itself)"
            yield Finding("artifacts", "trouble", f"{name}: {trouble}", remedy)
        elif _remove(place):
            yield Finding("artifacts", "fixed", f"{name} is removed ({trouble}); the next run makes it again")
    if not damaged:
        yield Finding("artifacts", "ok", f"{sound} folders, all whole")


def _remove(place: Place) -> bool:
    """Remove a damaged folder, unless another process is making it good meanwhile."""
    with locked(place.work.with_suffix(".lock")):
        if place.find()[0]:
            return False
        shutil.rmtree(place.finished)
    return True


def _unfinished(fix: bool) -> Iterator[Finding]:
    """What killed attempts have left: checkpoints are wanted by the next attempt, half-written output by nobody."""
    found = 0
    for place in _places("work"):
        lock = place.work.with_suffix(".lock")
        if lock.is_file() and is_held(lock):
            continue
        found += 1
        half = place.work / "output"
        name = f"{place.workload}/{place.stage}/{place.key}"
        if half.is_dir() and fix:
            with locked(lock):
                shutil.rmtree(half, ignore_errors=True)
                with contextlib.suppress(OSError):
                    place.work.rmdir()
            yield Finding("unfinished", "fixed", f"{name}: half-written output is removed")
        elif half.is_dir():
            yield Finding("unfinished", "trouble", f"{name}: half-written output of a killed attempt", "--fix")
        if (place.work / "scratch").is_dir():
            remedy = f"the same command goes on there; else remove {place.work}"
            yield Finding("unfinished", "note", f"{name} was begun and not finished", remedy)
    if not found:
        yield Finding("unfinished", "ok", "nothing")


def _places(below: str) -> Iterator[Place]:
    """Where stages have put something."""
    for path in sorted((home() / below).glob("*/*/*/")):
        yield Place(path.parent.parent.name, path.parent.name, path.name)


def _registry(_fix: bool) -> Iterator[Finding]:
    try:
        lines = registry.lines()
    except HeadraceError as error:
        yield _told("registry", error)
        return
    whole = True
    for line in lines:
        for version, trouble in registry.verify(line).items():
            whole = False
            remedy = f"don't serve it: `headrace registry rollback {line}`, or publish anew and remove its folder"
            yield Finding("registry", "trouble", f"{line} version {version}: {trouble}", remedy)
    if whole:
        yield Finding("registry", "ok", f"{len(lines)} lines, all versions whole")


def _server(fix: bool) -> Iterator[Finding]:
    """The note about a Prefect server that was killed."""
    path = home() / "prefect" / "server.json"
    server = read_json(path)
    if not server:
        yield Finding("server", "ok", "not running")
    elif running.born(server["pid"]) == server["born"]:
        yield Finding("server", "ok", f"running at {server['url']}")
    elif fix:
        path.unlink()
        yield Finding("server", "fixed", "the note about a server whose process is gone is removed")
    else:
        yield Finding("server", "note", "its process is gone; the next run with --engine prefect starts one", "--fix")


def _listed(check: str, problems: list[str], fine: str, remedy: str) -> Iterator[Finding]:
    """One finding for a list of problems, cut where it gets long."""
    if problems:
        more = f", and {len(problems) - 5} more" if len(problems) > 5 else ""
        yield Finding(check, "trouble", "; ".join(problems[:5]) + more, remedy)
    else:
        yield Finding(check, "ok", fine)


CHECKS: dict[str, Check] = {
    "python": _python,
    "requirements": _requirements,
    "lock": _lock,
    "bytecode": _bytecode,
    "home": _home,
    "mirror": _mirror,
    "runs": _dead_runs,
    "artifacts": _artifacts,
    "unfinished": _unfinished,
    "registry": _registry,
    "server": _server,
}
