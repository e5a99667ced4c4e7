"""The first stage: the raw files of a source in one folder, real, of the user's own, or made up by its twin.

The folder holds the files, `data.json` (what they are and who vouches for their bytes) and `lineage.json` (the way they
took this time).
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from headrace import fingerprints, projects
from headrace.artifacts import Artifact, file_digest, home, read_json, write_json
from headrace.console import progress
from headrace.errors import ConfigError, Unavailable
from headrace.getting import archives
from headrace.getting.archives import stem
from headrace.getting.fetching import (
    Held,
    at_hand,
    bytes_in_force,
    copy_file,
    digest_in_force,
    digest_of,
    fetch,
    reachable,
)
from headrace.jobs import Job
from headrace.spec import File, Source, Twin
from headrace.stages import Room, stage

log = logging.getLogger(__name__)

TWIN_SEED = 0
"""One made-up data set for all training seeds: they are compared on the same examples."""
LATELY = 600.0
"""Seconds for which an origin that could not be reached is not asked again."""
PROBE = 1.5
"""Seconds that a look at the origin may take when everything else is skipped."""


def _route(job: Job) -> Literal["own", "files", "tfds", "made", "twin"]:
    """What a job's raw files are: the user's own, files to be fetched, a builder's, made by definition, or the twin's.

    Raises:
        ConfigError: The source does not have what is asked for.
    """
    source, name = job.origin, Path(job.source).name
    if job.source not in job.pipeline.sources:
        if job.data == "synthetic":
            raise ConfigError(
                f"{name} is data of your own, which has no synthetic twin.",
                expected="--data real or auto",
                received="--data synthetic",
                remedy="leave out --data synthetic, or --source to use the twin of the workload's own data",
            )
        return "own"
    has_real = bool(source.files or source.tfds or source.make)
    if job.data == "synthetic" or (job.data == "auto" and not has_real):
        if not source.stand_in:
            raise ConfigError(
                f"The source `{name}` has no synthetic twin.",
                expected="--data real" if has_real else f"`files`, `tfds` or a `twin` in {projects.file(job.workload)}",
                received=f"--data {job.data}",
            )
        return "twin"
    if not has_real:
        raise ConfigError(
            f"The source `{name}` has no real data.", expected="--data synthetic or auto", received="--data real"
        )
    _check_names(source, name)
    return "tfds" if source.tfds else "made" if source.make else "files"


def _check_names(source: Source, name: str) -> None:
    """See that no file of a source takes the place of another one."""
    names = [file.name for file in source.files] + [stem(file.name) for file in source.files if file.unpack]
    twice = sorted({each for each in names if names.count(each) > 1})
    if twice:
        raise ConfigError(
            f"The source `{name}` has two files (or unpacked archives) called {', '.join(twice)}.",
            expected="files of different names, since they lie in one folder",
            remedy="make two sources of them",
        )


def _facts(job: Job) -> dict[str, Any]:
    """What the raw files depend on; of the world outside, whose bytes would be used now."""
    route, source = _route(job), job.origin
    facts: dict[str, Any] = {"data": job.data, "source": Path(job.source).name}
    if route == "own":
        path = Path(job.source).expanduser()
        return facts | {"files": {path.name: _digest(path)[:20]}}
    if route == "files":
        facts["files"] = {file.name: bytes_in_force(file) for file in source.files}
        facts["pinned"] = {file.name: _pin(file) for file in source.files}
    if route == "tfds":
        facts["tfds"] = {"builder": source.tfds, **fingerprints.versions("tensorflow-datasets")}
    if route == "made" and source.make:
        facts["make"] = fingerprints.digest(fingerprints.function_code(source.make))[:20]
    if job.data != "real" and source.stand_in:
        facts["twin"] = fingerprints.digest(fingerprints.function_code(source.stand_in))[:20]
    return facts


def _pin(file: File) -> dict[str, Any]:
    """What the workload's file says of the bytes, without advice for people."""
    return file.model_dump(exclude={"hint"}, exclude_defaults=True)


def _digest(path: Path) -> str:
    """The digest of a file of the user's own, or of everything in a folder."""
    if not path.is_dir():
        return digest_of(path)
    return fingerprints.digest({file.relative_to(path).as_posix(): digest_of(file) for file in _files(path)})


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _stands(artifact: Artifact) -> str | None:
    """Why what was made with this key before must be made again, if it must.

    Made-up data stand as long as the real ones, whose place they took, can't be had; files that the key does not pin
    as long as their bytes are those that would be used now.
    """
    lineage = read_json(artifact.path / "lineage.json") or {}
    wanted = [File.model_validate(file) for file in lineage.get("wanted", [])]
    if wanted and all(_reachable(file) for file in wanted if not at_hand(file)):
        return "the real data can be had now"
    made_of = artifact.json("data.json")["files"]
    for name, way in lineage.get("files", {}).items():
        file = File.model_validate(way.get("pinned", {"url": ""}))
        if file.url and (not file.sha256 or "tfds" in lineage):
            now = digest_in_force(file)
            if now not in (None, made_of[name]["sha256"]):
                return f"{name} had other bytes than those in force now"
    return None


@stage(facts=_facts, stands=_stands, volatile=("lineage.json",), tensorflow=True, material=True)
def download(job: Job, room: Room) -> None:
    """Bring the raw files of the job's source.

    Real files come from the cache or by hand, else the mirror, else their origin, and are verified; TFDS makes records
    of them where the source is one of its builders. With `--data auto`, where they can't be had at all, the source's
    twin makes files up, and says so.

    Raises:
        ConfigError: The source has no twin, or no real data, and they are asked for.
        DataError: A file has the wrong bytes, or an archive can't be unpacked safely.
        Unavailable: The real files can't be had, and no twin may take their place.
    """
    route, source = _route(job), job.origin
    wanted = list(source.files)
    if route == "own":
        _copy_own(job, room)
    elif route == "twin" and source.stand_in:
        _make_up(job, room, source.stand_in)
    elif source.make:
        _make(job, room, source.make)
    else:
        try:
            if source.tfds:
                _prepare(job, room, source.tfds, wanted)
            else:
                _fetch(job, room, wanted)
        except Unavailable as error:
            if job.data == "real" or not source.twin:
                raise
            for file in wanted:
                _note(file.url)
            names = ", ".join(file.name for file in wanted) or f"what TFDS needs for {source.tfds}"
            log.warning(
                "THE DATA OF THIS RUN ARE MADE UP by the synthetic twin of `%s`; nothing is judged by them.\n"
                "  why: %s\n"
                "  for the real data: connect to the network, or set HEADRACE_MIRROR to a folder that holds %s",
                *(job.source, error.problem, names),
            )
            _make_up(job, room, source.twin, wanted=wanted, reason=error.problem)


def _fetch(job: Job, room: Room, files: Sequence[File]) -> None:
    # All of them first, so that nothing lies in the folder if one can't be had.
    held = dict(zip(files, fetch(files), strict=True))
    for file, had in held.items():
        copy_file(had.path, room.output / file.name, link=True)
        if file.unpack:
            archives.extract(had.path, room.output / stem(file.name))
    ways = {file.name: _way(file, had) for file, had in held.items()}
    _describe(job, room, "real", {file.name: had.vouched_by for file, had in held.items()}, ways)


def _way(file: File, had: Held) -> dict[str, Any]:
    """How a file was come by, for the lineage."""
    words: dict[str, Any] = {key: had.words[key] for key in ("kind", "source") if key in had.words}
    return {"way": had.way, "place": had.place, **words, "pinned": _pin(file)}


def _prepare(job: Job, room: Room, name: str, wanted: list[File]) -> None:
    """Let TFDS make its records; `wanted` becomes the files that its builder asks for."""
    from headrace.getting.tfds_source import prepare

    held: dict[str, tuple[File, Held]] = {}

    def bring(files: Sequence[File]) -> list[Held]:
        wanted.extend(file for file in files if file not in wanted)
        found = fetch(files)
        for file, had in zip(files, found, strict=True):
            # Builders have several files of one name from different addresses.
            held[file.url if file.name in held and held[file.name][0] != file else file.name] = file, had
        return found

    full_name = prepare(name, room.output, room.scratch, bring)
    # What was downloaded does not lie in the folder: TFDS has made records of it.
    files = {
        name: {"sha256": had.path.parent.name, "size": had.path.stat().st_size, "vouched_by": had.vouched_by}
        for name, (_, had) in held.items()
    }
    _write(job, room, "real", files, {name: _way(*pair) for name, pair in held.items()}, tfds=full_name)


def _copy_own(job: Job, room: Room) -> None:
    # A copy, not a link: the user goes on working with the file.
    path = Path(job.source).expanduser().absolute()
    way = {path.name: {"way": "user", "place": str(path)}}
    if not path.is_dir():
        copy_file(path, room.output / path.name)
        _describe(job, room, "real", {path.name: "user"}, way)
        return
    with progress(f"copy {path.name}", len(_files(path))) as advance:
        for count, file in enumerate(_files(path), start=1):
            target = room.output / path.name / file.relative_to(path)
            target.parent.mkdir(parents=True, exist_ok=True)
            copy_file(file, target)
            advance(count, "files")
    copied = room.output / path.name
    size = sum(file.stat().st_size for file in _files(copied))
    _write(job, room, "real", {path.name: {"sha256": _digest(copied), "size": size, "vouched_by": "user"}}, way)


def _make(job: Job, room: Room, make: Twin) -> None:
    """Write the files of a source whose data are made by definition."""
    make(room.output, TWIN_SEED)
    _describe_made(job, room, "real", "workload", f"{make.__name__}(…, seed={TWIN_SEED})")


def _make_up(job: Job, room: Room, twin: Twin, *, wanted: Sequence[File] = (), reason: str = "") -> None:
    """Let the twin write its files; `wanted` are the real ones whose place they take."""
    twin(room.output, TWIN_SEED)
    instead = {"wanted": [_pin(file) for file in wanted], "reason": reason} if reason else {}
    _describe_made(job, room, "synthetic", "twin", f"{twin.__name__}(…, seed={TWIN_SEED})", **instead)


def _describe_made(
    job: Job, room: Room, data: Literal["real", "synthetic"], voucher: str, place: str, **more: Any
) -> None:
    """Describe all files of the folder, which one function of the workload has written."""
    names = [path.relative_to(room.output).as_posix() for path in sorted(room.output.rglob("*")) if path.is_file()]
    way = {"way": voucher, "place": place}
    _describe(job, room, data, dict.fromkeys(names, voucher), dict.fromkeys(names, way), **more)


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
    _write(job, room, data, files, ways, **more)


def _write(
    job: Job,
    room: Room,
    data: Literal["real", "synthetic"],
    files: dict[str, dict[str, Any]],
    ways: dict[str, dict[str, Any]],
    **more: Any,
) -> None:
    """Write `data.json` (the digest, size and voucher of each file) and `lineage.json`."""
    write_json(room.output / "data.json", {"data": data, "source": Path(job.source).name, "files": files})
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    write_json(room.output / "lineage.json", {"asked": job.data, "time": now, "files": ways, **more})


# ------------------------------------------------------------------------------------- what can be reached


def _reachable(file: File) -> bool:
    """Whether the origin of a file seems to be there; one that was not there lately is not asked again."""
    asked = (read_json(_notes()) or {}).get(file.url, 0.0)
    if 0 <= time.time() - asked < LATELY:
        return False
    if reachable(file, PROBE):
        return True
    _note(file.url)
    return False


def _note(url: str) -> None:
    """Keep in mind that an origin could not be reached now."""
    # Only a help to be quick: a home that can't be written is told by whoever has something to write.
    with contextlib.suppress(OSError):
        write_json(_notes(), {**(read_json(_notes()) or {}), url: time.time()})


def _notes() -> Path:
    return home() / "cache" / "unreachable.json"
