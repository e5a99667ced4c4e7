"""The first stage: the raw files of a source in one folder, real, of the user's own, or made up by its twin.

The folder holds the files, `data.json` (what they are and who vouches for their bytes) and `lineage.json` (the way they
took this time).
"""

from __future__ import annotations

import contextlib
import logging
import time
from pathlib import Path
from typing import Any, Literal

from headrace import fingerprints
from headrace.artifacts import Artifact, file_digest, home, read_json, write_json
from headrace.errors import ConfigError, Unavailable
from headrace.fetching import at_hand, bytes_in_force, copy_file, digest_of, obtain, reach
from headrace.jobs import Job
from headrace.spec import File, Twin
from headrace.stages import Room, stage

log = logging.getLogger(__name__)

TWIN_SEED = 0
"""One made-up data set for all training seeds: they are compared on the same examples."""
LATELY = 600.0
"""Seconds for which an origin that could not be reached is not asked again."""
PROBE = 1.5
"""Seconds that a look at the origin may take when everything else is skipped."""


def _route(job: Job) -> Literal["table", "files", "twin"]:
    """What a job's raw files are: the user's table, files to be fetched, or the twin's.

    Raises:
        ConfigError: The source does not have what is asked for.
    """
    source, name = job.origin, Path(job.source).name
    if job.source not in job.pipeline.sources:
        if job.data == "synthetic":
            raise ConfigError(
                f"{name} is a table of your own, which has no synthetic twin.",
                expected="--data real or auto",
                received="--data synthetic",
                remedy="leave out --data synthetic, or --source to use the twin of the workload's own data",
            )
        return "table"
    if job.data == "synthetic" or (job.data == "auto" and not source.files):
        if not source.twin:
            raise ConfigError(
                f"The source `{name}` has no synthetic twin.",
                expected="--data real" if source.files else f"`files` or a `twin` in pipelines/{job.workload}.py",
                received=f"--data {job.data}",
            )
        return "twin"
    if not source.files:
        raise ConfigError(
            f"The source `{name}` has no real data.", expected="--data synthetic or auto", received="--data real"
        )
    return "files"


def _facts(job: Job) -> dict[str, Any]:
    """What the raw files depend on; of the world outside, whose bytes would be used now."""
    route, source = _route(job), job.origin
    facts: dict[str, Any] = {"data": job.data, "source": Path(job.source).name}
    if route == "table":
        table = Path(job.source).expanduser()
        return facts | {"files": {table.name: digest_of(table)[:20]}}
    if route == "files":
        facts["files"] = {file.name: bytes_in_force(file) for file in source.files}
        facts["pinned"] = {file.name: file.model_dump() for file in source.files}
    if job.data != "real" and source.twin:
        facts["twin"] = fingerprints.digest(fingerprints.function_code(source.twin))[:20]
    return facts


def _stands(artifact: Artifact) -> str | None:
    """Whether made-up data that took the place of real ones still have to."""
    lineage = read_json(artifact.path / "lineage.json") or {}
    wanted = [File.model_validate(file) for file in lineage.get("wanted", [])]
    missing = [file for file in wanted if not at_hand(file)]
    if wanted and not all(_reachable(file.url) for file in missing):
        return None
    return "the real data can be had now" if wanted else None


@stage(facts=_facts, stands=_stands, volatile=("lineage.json",))
def download(job: Job, room: Room) -> None:
    """Bring the raw files of the job's source.

    Real files come from the cache, else the mirror, else their origin, and are verified. With `--data auto`, where they
    can't be had at all, the source's twin makes files up, and says so.

    Raises:
        ConfigError: The source has no twin, or no real data, and they are asked for.
        DataError: A file has the wrong bytes.
        Unavailable: The real files can't be had, and no twin may take their place.
    """
    route, source = _route(job), job.origin
    if route == "table":
        _copy_table(job, room)
    elif route == "twin" and source.twin:
        _make_up(job, room, source.twin)
    else:
        try:
            _fetch(job, room, source.files)
        except Unavailable as error:
            if job.data == "real" or not source.twin:
                raise
            for file in source.files:
                _note(file.url)
            names = ", ".join(file.name for file in source.files)
            log.warning(
                "THE DATA OF THIS RUN ARE MADE UP by the synthetic twin of `%s`; nothing is judged by them.\n"
                "  why: %s\n"
                "  for the real data: connect to the network, or set HEADRACE_MIRROR to a folder that holds %s",
                *(job.source, error.problem, names),
            )
            _make_up(job, room, source.twin, wanted=source.files, reason=error.problem)


def _fetch(job: Job, room: Room, files: tuple[File, ...]) -> None:
    # All of them first, so that nothing lies in the folder if one can't be had.
    held = {file: obtain(file) for file in files}
    for file, had in held.items():
        copy_file(had.path, room.output / file.name, link=True)
    ways = {
        file.name: {
            "way": had.way,
            "place": had.place,
            **{key: had.words[key] for key in ("kind", "source") if key in had.words},
            "pinned": file.model_dump(),
        }
        for file, had in held.items()
    }
    _describe(job, room, "real", {file.name: had.vouched_by for file, had in held.items()}, ways)


def _copy_table(job: Job, room: Room) -> None:
    # A copy, not a link: the user goes on working with the file.
    table = Path(job.source).expanduser().absolute()
    copy_file(table, room.output / table.name)
    _describe(job, room, "real", {table.name: "user"}, {table.name: {"way": "user", "place": str(table)}})


def _make_up(job: Job, room: Room, twin: Twin, *, wanted: tuple[File, ...] = (), reason: str = "") -> None:
    """Let the twin write its files; `wanted` are the real ones whose place they take."""
    twin(room.output, TWIN_SEED)
    names = [path.relative_to(room.output).as_posix() for path in sorted(room.output.rglob("*")) if path.is_file()]
    way = {"way": "twin", "place": f"{getattr(twin, '__name__', 'twin')}(…, seed={TWIN_SEED})"}
    instead = {"wanted": [file.model_dump() for file in wanted], "reason": reason} if wanted else {}
    _describe(job, room, "synthetic", dict.fromkeys(names, "twin"), dict.fromkeys(names, way), **instead)


def _describe(
    job: Job,
    room: Room,
    data: Literal["real", "synthetic"],
    vouched_by: dict[str, str],
    ways: dict[str, dict[str, Any]],
    **more: Any,
) -> None:
    """Write `data.json` and `lineage.json` for the files that are in the folder."""
    files = {
        name: {
            "sha256": file_digest(room.output / name),
            "size": (room.output / name).stat().st_size,
            "vouched_by": voucher,
        }
        for name, voucher in vouched_by.items()
    }
    write_json(room.output / "data.json", {"data": data, "source": Path(job.source).name, "files": files})
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    write_json(room.output / "lineage.json", {"asked": job.data, "time": now, "files": ways, **more})


# ------------------------------------------------------------------------------------- what can be reached


def _reachable(url: str) -> bool:
    """Whether an origin seems to be there; one that was not there lately is not asked again."""
    asked = (read_json(_notes()) or {}).get(url, 0.0)
    if 0 <= time.time() - asked < LATELY:
        return False
    try:
        reach(url, PROBE)
    except Unavailable:
        _note(url)
        return False
    return True


def _note(url: str) -> None:
    """Keep in mind that an origin could not be reached now."""
    # Only a help to be quick: a home that can't be written is told by whoever has something to write.
    with contextlib.suppress(OSError):
        write_json(_notes(), {**(read_json(_notes()) or {}), url: time.time()})


def _notes() -> Path:
    return home() / "cache" / "unreachable.json"
