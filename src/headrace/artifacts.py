"""Finished folders: written aside, closed by a manifest, renamed into place; read only if the manifest holds.

```
$HEADRACE_HOME/                      default: .headrace in the project
├── cache/                           downloaded files, by digest; shared by all workloads
├── artifacts/<workload>/<stage>/<key>/   one finished folder per key, `manifest.json` written last
├── work/<workload>/<stage>/<key>/   what an unfinished stage keeps for its next attempt (checkpoints)
├── runs/<workload>/<run>/           run.json and report.html
└── registry/<line>/<version>/       published bundles
```
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from headrace.errors import StageFailed, SystemTrouble

MANIFEST = "manifest.json"
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NO_PERMISSION = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR}
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Artifact:
    """A finished folder: where it is and the digest of its content. Light to log, to pickle, to send elsewhere.

    `state` and `reason` tell how this run came by it; they are no part of its identity.
    """

    path: Path
    digest: str
    node: str = field(default="", compare=False)
    """The stage, with its fold if it has one: `train/fold 2`."""
    state: str = field(default="run", compare=False)
    """`run` or `skipped`; in a plan also `unknown`."""
    reason: str = field(default="", compare=False)
    seconds: float = field(default=0.0, compare=False)

    def json(self, name: str) -> Any:
        """The contents of one of its JSON files."""
        return json.loads((self.path / name).read_text())


def home() -> Path:
    """The folder that holds everything Headrace writes: `HEADRACE_HOME`, or `.headrace` in the project.

    Of a home on an object store (`headrace.storing.depots`) this is the folder in which this machine works: one for
    each URL in `HEADRACE_SCRATCH`, or in the user's cache.
    """
    from headrace.projects import root

    named, url = os.environ.get("HEADRACE_HOME"), home_url()
    if not url:
        return Path(named).expanduser().absolute() if named else root() / ".headrace"
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "headrace"
    scratch = Path(os.environ.get("HEADRACE_SCRATCH") or cache).expanduser().absolute()
    readable = re.sub(r"[^a-z0-9.]+", "-", url.lower()).strip("-")
    return scratch / f"{readable}-{hashlib.sha256(url.encode()).hexdigest()[:8]}"


def home_url() -> str | None:
    """The URL of a home on an object store; None if it is a folder."""
    named = os.environ.get("HEADRACE_HOME", "")
    return named.rstrip("/") if "://" in named else None


# ------------------------------------------------------------------------------------------------- writing


@contextlib.contextmanager
def system_errors(doing: str) -> Iterator[None]:
    """Turn a full disk or a missing permission into a message; every other error passes through."""
    try:
        yield
    except Exception as error:
        code = _system_code(error)
        variable = "HEADRACE_SCRATCH" if home_url() else "HEADRACE_HOME"
        if code in _NO_ROOM:
            raise SystemTrouble(
                f"No room left while {doing}.",
                received=os.strerror(code),
                remedy=f"free some space, or set {variable} to a folder on another disk; what was finished is kept",
            ) from error
        if code in _NO_PERMISSION:
            raise SystemTrouble(
                f"Not allowed to write while {doing}.",
                received=f"{os.strerror(code)}: {getattr(error, 'filename', None) or error}",
                remedy=f"make the folder writable, or set {variable} to one that is",
            ) from error
        raise


def _system_code(error: Exception) -> int:
    """The system's number for what went wrong; 0 if it has none. TensorFlow passes on its words only."""
    if isinstance(error, OSError):
        return error.errno or 0
    if type(error).__module__.startswith("tensorflow"):
        return next((code for code in (*_NO_ROOM, *_NO_PERMISSION) if os.strerror(code) in str(error)), 0)
    return 0


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that a reader finds the old or the new content, never a part, whatever happens."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file atomically, readable by people and equal bytes for equal values."""
    write_atomically(path, as_json(value))


def as_json(value: Any) -> bytes:
    """The contents of a JSON file as all of ours are written."""
    return (json.dumps(value, indent=1, ensure_ascii=False, default=str) + "\n").encode()


def read_json(path: Path) -> Any:
    """The value in a JSON file, or None where there is no such file or it can't be read as JSON."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock; the kernel lets go of it when the process ends, however it ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info("waiting for another process, which is at the same work (%s)", path)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def is_held(path: Path) -> bool:
    """Whether a process is at work under this lock, which must exist."""
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


# ----------------------------------------------------------------------------------------------- manifests


def file_digest(path: Path) -> str:
    """The sha256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def content_digest(files: dict[str, dict[str, Any]]) -> str:
    """The digest of a folder's content: names and bytes of all files that are not volatile."""
    lines = [f"{name}\0{entry['sha256']}" for name, entry in sorted(files.items()) if not entry.get("volatile")]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def close(folder: Path, facts: dict[str, Any], volatile: Sequence[str] = ()) -> dict[str, Any]:
    """Write the manifest that makes a folder finished.

    Args:
        folder: The folder with all its files in place.
        facts: What else the manifest says (stage, ingredients, times).
        volatile: Patterns of files that differ between equal runs (logs, times): verified, but no part of the digest.

    Returns:
        The manifest.
    """
    files: dict[str, dict[str, Any]] = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        name = path.relative_to(folder).as_posix()
        files[name] = {"size": path.stat().st_size, "sha256": file_digest(path)}
        if any(fnmatch(name, pattern) for pattern in volatile):
            files[name]["volatile"] = True
    manifest = {"digest": content_digest(files), **facts, "files": files}
    write_json(folder / MANIFEST, manifest)
    return manifest


def damage(folder: Path, manifest: dict[str, Any]) -> str | None:
    """What is wrong with a finished folder, compared with its manifest; None if nothing is."""
    for name, entry in manifest["files"].items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != entry["size"] or file_digest(path) != entry["sha256"]:
            return f"{name} was altered after it was finished"
    return None


# --------------------------------------------------------------------------------------------------- store


@dataclass(frozen=True)
class Place:
    """Where a stage's result belongs, given its key."""

    workload: str
    stage: str
    key: str

    @property
    def finished(self) -> Path:
        """The finished folder, if there is one."""
        return home() / "artifacts" / self.workload / self.stage / self.key

    @property
    def work(self) -> Path:
        """What an unfinished attempt keeps for the next one."""
        return home() / "work" / self.workload / self.stage / self.key

    def find(self) -> tuple[dict[str, Any] | None, str | None]:
        """The verified manifest, or None and what is wrong with the folder (None if there is no folder)."""
        if not self.finished.is_dir():
            return None, None
        manifest = read_json(self.finished / MANIFEST)
        try:
            if content_digest(manifest["files"]) == manifest["digest"]:
                trouble = damage(self.finished, manifest)
                return (None, trouble) if trouble else (manifest, None)
        except (KeyError, TypeError, AttributeError):
            pass  # JSON, but not as `close` writes it
        return None, f"{MANIFEST} is missing or damaged"

    def publish(self, output: Path) -> None:
        """Put a closed folder in place in one step; what stood there (damaged) goes."""
        self.finished.parent.mkdir(parents=True, exist_ok=True)
        if self.finished.exists():
            grave = output.with_name(output.name + ".replaced")
            os.replace(self.finished, grave)
            shutil.rmtree(grave, ignore_errors=True)
        os.replace(output, self.finished)


@contextlib.contextmanager
def room(place: Place) -> Iterator[tuple[Path, Path]]:
    """A fresh output folder and the scratch folder that outlives a killed attempt, for one attempt at a time.

    The output is removed on the way out unless it was moved into place; scratch stays until `done` is called.
    """
    with system_errors(f"preparing stage `{place.stage}` in {home()}"), locked(place.work.with_suffix(".lock")):
        output = place.work / "output"
        shutil.rmtree(output, ignore_errors=True)
        output.mkdir(parents=True)
        scratch = place.work / "scratch"
        scratch.mkdir(exist_ok=True)
        try:
            yield output, scratch
        finally:
            shutil.rmtree(output, ignore_errors=True)
            # An attempt that kept nothing for the next one leaves no empty folders behind.
            for folder in (scratch, place.work):
                with contextlib.suppress(OSError):
                    folder.rmdir()


def only(artifact: Artifact, name: str) -> Path:
    """The path of a file that an artifact must hold."""
    path = artifact.path / name
    if not path.exists():
        raise StageFailed(
            f"{artifact.node or 'An artifact'} holds no {name}.",
            received=", ".join(sorted(p.name for p in artifact.path.iterdir())),
            remedy="run `headrace doctor`",
        )
    return path
