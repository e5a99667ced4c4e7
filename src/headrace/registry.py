"""The registry: numbered versions of exported bundles, in the layout that TensorFlow Serving reads.

```
$HEADRACE_HOME/registry/<line>/
├── 1/, 2/ …            saved_model.pb, variables/, assets.extra/ (other formats, model card, lineage), manifest.json
└── pointers.json       {"blessed": 2, "previous": 1}
```

A version is copied aside, flushed to the disk and renamed into place under a lock: whenever a publisher is killed, the
line holds whole versions only. A server is pointed at the folder of a line, or at the blessed version.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from headrace.artifacts import (
    MANIFEST,
    close,
    content_digest,
    damage,
    home,
    locked,
    read_json,
    system_errors,
    write_json,
)
from headrace.errors import ConfigError, nearest, unknown

POINTERS = "pointers.json"
EXTRA = "assets.extra"
"""The folder of a SavedModel that TensorFlow leaves to others."""

_DRAFT = ".publishing-"


def folder(line: str, version: int | None = None) -> Path:
    """The folder of a line, or of one of its versions."""
    path = home() / "registry" / line
    return path if version is None else path / str(version)


def lines() -> list[str]:
    """The lines that have versions, sorted."""
    root = home() / "registry"
    return sorted(path.name for path in root.iterdir() if versions(path.name)) if root.is_dir() else []


def versions(line: str) -> list[int]:
    """The versions of a line, ascending; empty if there is no such line."""
    path = folder(line)
    return sorted(int(p.name) for p in path.iterdir() if p.name.isdecimal() and p.is_dir()) if path.is_dir() else []


def blessed(line: str) -> int | None:
    """The version that is to be served, if there is one."""
    return pointed(line, "blessed")


def pointed(line: str, pointer: str) -> int | None:
    """The version that a pointer, `blessed` or `previous`, stands at, if there is one."""
    return _pointers(line)[pointer]


def find(line: str, bundle: str) -> int | None:
    """The newest whole version that was made of this bundle."""
    for version in reversed(versions(line)):
        if _manifest(line, version).get("bundle") == bundle and not _trouble(line, version):
            return version
    return None


def publish(line: str, contents: Mapping[str, Path | bytes], *, bundle: str) -> int:
    """Add a version, whole or not at all.

    Args:
        line: Name of the line; it is begun if there is none.
        contents: Name in the version ("variables", "assets.extra/model.keras") → a file, a folder, or the bytes.
        bundle: Digest of the bundle. One bundle makes one version: if the line has it already, that is the answer.

    Returns:
        The number of the version.

    Raises:
        SystemTrouble: The disk is full, or the registry can't be written.
    """
    with system_errors(f"publishing to {folder(line)}"), _alone(line) as place:
        known = find(line, bundle)
        if known is not None:
            return known
        # A number that pointers still mention is not given to something else, even if its folder was deleted.
        version = max([0, *versions(line), *(number for number in _pointers(line).values() if number)]) + 1
        draft = Path(tempfile.mkdtemp(prefix=_DRAFT, dir=place))
        try:
            for name, content in contents.items():
                _put(draft / name, content)
            made = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            close(draft, {"line": line, "version": version, "bundle": bundle, "made": made})
            draft.chmod(0o755)
            _flush(draft)
            draft.rename(place / str(version))
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        _flush_one(place)
    return version


def bless(line: str, version: int) -> None:
    """Make a version the one to be served; the one before stays ready for a rollback.

    Raises:
        ConfigError: There is no such version.
    """
    _must_exist(line, version)
    with system_errors(f"blessing a version of {line}"), _alone(line):
        before = _pointers(line)
        if before["blessed"] != version:
            _point(line, version, before["blessed"])


def rollback(line: str) -> tuple[int, int]:
    """Serve the previous version again; a second rollback takes the first one back.

    Returns:
        The version blessed until now, and the one blessed from now on.

    Raises:
        ConfigError: There is no such line, no previous version, or its folder is gone or damaged.
    """
    if line not in lines():
        raise unknown("line in the registry", line, lines())
    with system_errors(f"rolling {line} back"), _alone(line):
        pointers = _pointers(line)
        now, previous = pointers["blessed"], pointers["previous"]
        if now is None or previous is None:
            raise ConfigError(
                f"{line} can't be rolled back: no version was blessed before the present one.",
                received=f"blessed: {now or 'none'}, previous: none; versions: {versions(line)}",
            )
        trouble = _trouble(line, previous)
        if trouble:
            raise ConfigError(
                f"{line} can't be rolled back to version {previous}: {trouble}.",
                remedy=f"bless another one of its versions: {versions(line)}",
            )
        _point(line, previous, now)
    return now, previous


def show(line: str, version: int | None = None) -> dict[str, Any]:
    """What is known of a version.

    Args:
        line: Name of the line.
        version: Its number; default: the blessed one, or else the newest.

    Returns:
        line, version, path, blessed and previous (bool), made, bundle, digest, files, and the contents of the JSON
        files in `assets.extra` by their names: evaluation, lineage, parity, statistics.

    Raises:
        ConfigError: There is no such line or version.
    """
    if line not in lines():
        raise unknown("line in the registry", line, lines())
    pointers = _pointers(line)
    if version is None:
        version = pointers["blessed"] or versions(line)[-1]
    _must_exist(line, version)
    path = folder(line, version)
    return {
        "line": line,
        "version": version,
        "path": str(path),
        **{name: number == version for name, number in pointers.items()},
        **_manifest(line, version),
        **{extra.stem: read_json(extra) for extra in sorted((path / EXTRA).glob("*.json"))},
    }


def verify(line: str) -> dict[int, str]:
    """What is wrong with the versions of a line: missing or altered files, and pointers to versions that are gone."""
    pointed = {number for number in _pointers(line).values() if number is not None}
    found = {version: _trouble(line, version) for version in sorted({*versions(line), *pointed})}
    return {version: trouble for version, trouble in found.items() if trouble}


def trouble(line: str, version: int, bundle: str) -> str | None:
    """Why a version is no longer what was published from this bundle; None if it is."""
    if version not in versions(line):
        return f"version {version} is no longer in the registry"
    if _manifest(line, version).get("bundle") != bundle:
        return f"version {version} in the registry is another bundle by now"
    damaged = _trouble(line, version)
    return damaged and f"version {version} in the registry is damaged: {damaged}"


# ------------------------------------------------------------------------------------------------- details


@contextmanager
def _alone(line: str) -> Iterator[Path]:
    """The folder of a line, with nobody else writing to it and nothing left behind by those who were killed."""
    place = folder(line)
    with locked(place / ".lock"):
        for draft in place.glob(f"{_DRAFT}*"):
            shutil.rmtree(draft, ignore_errors=True)
        yield place


def _pointers(line: str) -> dict[str, int | None]:
    found = read_json(folder(line) / POINTERS) or {}
    return {"blessed": found.get("blessed"), "previous": found.get("previous")}


def _point(line: str, version: int, previous: int | None) -> None:
    write_json(folder(line) / POINTERS, {"blessed": version, "previous": previous})


def _must_exist(line: str, version: int) -> None:
    if version not in versions(line):
        known = [str(number) for number in versions(line)]
        raise ConfigError(f"{line} has no version {version}: {nearest(str(version), known)}")


def _manifest(line: str, version: int) -> dict[str, Any]:
    return read_json(folder(line, version) / MANIFEST) or {}


def _trouble(line: str, version: int) -> str | None:
    """What is wrong with a version, compared with its manifest."""
    if version not in versions(line):
        return "its folder is gone"
    manifest = _manifest(line, version)
    if "files" not in manifest or content_digest(manifest["files"]) != manifest.get("digest"):
        return f"{MANIFEST} is missing or damaged"
    return damage(folder(line, version), manifest)


def _put(target: Path, content: Path | bytes) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        target.write_bytes(content)
    elif content.is_dir():
        shutil.copytree(content, target, copy_function=shutil.copyfile)
    else:
        shutil.copyfile(content, target)


def _flush(path: Path) -> None:
    """Bring a folder and all in it to the disk: after a power cut, too, a version is whole or absent."""
    for inner in path.rglob("*"):
        _flush_one(inner)
    _flush_one(path)


def _flush_one(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
