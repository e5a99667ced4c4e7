"""Where the versions of the registry stand: in a folder of this machine, or on an object store.

A folder is the better place: a version is made aside and renamed into place, and a lock of the kernel's keeps writers
apart. An object store has neither renames nor locks. There the manifest, written last, is what makes a version one, and
a number is claimed before anything is uploaded under it, so that two machines never fill the same version; processes
that share a home still wait for each other. What is no version yet is passed over by everything here.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import random
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from headrace.artifacts import (
    MANIFEST,
    as_json,
    close,
    content_digest,
    damage,
    home,
    home_url,
    locked,
    read_json,
    write_atomically,
)
from headrace.errors import SystemTrouble
from headrace.storing.buckets import CHUNK, download, forget_listings, is_url, reached, replace, upload, within

Contents = Mapping[str, Path | bytes]
"""Name in a version ("variables", "assets.extra/model.keras") → a file, a folder, or the bytes."""

STALE = 24 * 3600
"""Seconds after which an upload that is not finished is taken for one that was killed."""

_DRAFT, _GRAVE = ".publishing-", ".removing-"
_CLAIMS, _CLAIM = "claims", re.compile(r"([0-9]+)-[0-9a-f]+")


def store() -> Store:
    """The place that `HEADRACE_REGISTRY` names: a folder, or a URL (`gs://`, `s3://`; `file://` for a mounted bucket).

    Default: `registry` in the home, which may be on an object store itself.

    Raises:
        SystemTrouble: The object store can't be reached.
    """
    named = os.environ.get("HEADRACE_REGISTRY")
    if named and not is_url(named):
        return Store(Path(named).expanduser().absolute())
    if not named and not home_url():
        return Store(home() / "registry")
    return Bucket(reached(named or f"{home_url()}/registry"))


@dataclass(frozen=True)
class Store:
    """Versions in a folder of this machine."""

    root: Path

    def folder(self, line: str, version: int | None = None) -> Path:
        """The folder of a line, or of one of its versions."""
        return self.root / line if version is None else self.root / line / str(version)

    def lines(self) -> list[str]:
        """The lines that have versions, sorted."""
        return sorted(path.name for path in within(self.root) if self.versions(path.name))

    def versions(self, line: str) -> list[int]:
        """The versions of a line, ascending; empty if there is no such line."""
        return sorted(int(p.name) for p in within(self.folder(line)) if p.name.isdecimal() and p.is_dir())

    @contextlib.contextmanager
    def alone(self, line: str = "") -> Iterator[None]:
        """Keep all other writers of a line (or of what all lines share) away.

        What was left behind by those who were killed goes.
        """
        place = self.folder(line) if line else self.root
        with locked(place / ".lock"):
            for left in (*place.glob(f"{_DRAFT}*"), *place.glob(f"{_GRAVE}*")):
                shutil.rmtree(left, ignore_errors=True)
            yield

    def add(self, line: str, contents: Contents, facts: Mapping[str, Any], least: int) -> int:
        """Add a version, whole or not at all. For those who are `alone`.

        Args:
            line: Name of the line.
            contents: What stands in the version.
            facts: What its manifest says beside files and digest.
            least: The smallest number that it may get.
        """
        place = self.folder(line)
        version = max([least, *(number + 1 for number in self.versions(line))])
        draft = Path(tempfile.mkdtemp(prefix=_DRAFT, dir=place))
        try:
            for name, content in contents.items():
                _put(draft / name, content)
            close(draft, {**facts, "version": version})
            draft.chmod(0o755)
            _flush(draft)
            draft.rename(place / str(version))
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        _flush_one(place)
        return version

    def remove(self, line: str, version: int) -> None:
        """Take a version away: it is there as a whole, or not at all. For those who are `alone`."""
        grave = Path(tempfile.mkdtemp(prefix=_GRAVE, dir=self.folder(line)))
        self.folder(line, version).rename(grave / str(version))
        shutil.rmtree(grave)

    def write(self, path: Path, data: bytes) -> None:
        """Replace a file: a reader finds the old or the new content."""
        write_atomically(path, data)

    def manifest(self, line: str, version: int) -> dict[str, Any]:
        """What a version says of itself; empty if it can't be read."""
        return read_json(self.folder(line, version) / MANIFEST) or {}

    def trouble(self, line: str, version: int) -> str | None:
        """What is wrong with a version, compared with its manifest; None if nothing is."""
        if version not in self.versions(line):
            return "its folder is gone"
        manifest = self.manifest(line, version)
        if "files" not in manifest or content_digest(manifest["files"]) != manifest.get("digest"):
            return f"{MANIFEST} is missing or damaged"
        return self._damage(self.folder(line, version), manifest)

    def held(self, line: str, version: int) -> Path:
        """A folder of this machine with the files of a version."""
        return self.folder(line, version)

    def unfinished(self, line: str) -> list[Path]:
        """What publishers that were killed have left; here the next one cleans up."""
        return []

    def _damage(self, place: Path, manifest: dict[str, Any]) -> str | None:
        return damage(place, manifest)


class Bucket(Store):
    """Versions on an object store, by `etils.epath`."""

    def versions(self, line: str) -> list[int]:
        """The versions of a line that are uploaded to the end, ascending."""
        return [number for number in super().versions(line) if (self.folder(line, number) / MANIFEST).exists()]

    @contextlib.contextmanager
    def alone(self, line: str = "") -> Iterator[None]:
        """Keep other processes with this home away; other machines are kept away from a version, not from pointers."""
        where = hashlib.sha256(f"{self.root}/{line}".encode()).hexdigest()[:16]
        with locked(home() / "locks" / f"registry-{where}"):
            forget_listings(self.root)
            yield

    def add(self, line: str, contents: Contents, facts: Mapping[str, Any], least: int) -> int:
        """Upload a version; its manifest comes last."""
        version, claim = self._claimed(line, least)
        place = self.folder(line, version)
        files = {name: upload(given, place / name) for name, given in _files(contents)}
        manifest = {"digest": content_digest(files), **facts, "version": version, "files": files}
        self.write(place / MANIFEST, as_json(manifest))
        claim.unlink()
        return version

    def remove(self, line: str, version: int) -> None:
        """Take a version away, its manifest first, without which nobody takes it for one."""
        place = self.folder(line, version)
        (place / MANIFEST).unlink(missing_ok=True)
        cast(Any, place).rmtree()

    def write(self, path: Path, data: bytes) -> None:
        """Replace an object, which a store does in one step."""
        replace(path, data)

    def held(self, line: str, version: int) -> Path:
        """A copy of a version in the cache, fetched if it is not there or no longer whole.

        Raises:
            SystemTrouble: What came is not what was published.
        """
        place, manifest = self.folder(line, version), self.manifest(line, version)
        copy = home() / "cache" / "registry" / manifest["digest"]
        with locked(copy.with_name(f"{copy.name}.lock")):
            if copy.is_dir() and not damage(copy, manifest):
                return copy
            shutil.rmtree(copy, ignore_errors=True)
            draft = copy.with_name(f"{copy.name}.draft")
            shutil.rmtree(draft, ignore_errors=True)
            for name in (*manifest["files"], MANIFEST):
                download(place / name, draft / name)
            wrong = damage(draft, manifest)
            if wrong:
                shutil.rmtree(draft)
                raise SystemTrouble(f"Version {version} of {line} can't be fetched from {place}.", received=wrong)
            draft.rename(copy)
        return copy

    def unfinished(self, line: str) -> list[Path]:
        """Uploads that were begun more than a day ago and not finished, and their claims."""
        old: list[Path] = []
        for number, claim in self._claims(line):
            said = read_json(claim) or {}
            if time.time() - said.get("time", 0) > STALE:
                place = self.folder(line, number)
                old += [place] * (number not in self.versions(line) and place.is_dir()) + [claim]
        return old

    def _damage(self, place: Path, manifest: dict[str, Any]) -> str | None:
        for name, entry in manifest["files"].items():
            path = place / name
            if not path.exists():
                return f"{name} is missing"
            with path.open("rb") as file:
                digest = hashlib.sha256()
                for chunk in iter(lambda: file.read(CHUNK), b""):
                    digest.update(chunk)
            if digest.hexdigest() != entry["sha256"]:
                return f"{name} was altered after it was finished"
        return None

    def _claimed(self, line: str, least: int) -> tuple[int, Path]:
        """A number that nobody else fills, and the claim to it.

        Two that claim the same number at the same time see each other's claims, whichever comes first, and both draw
        back: a claim holds only if it stands alone.
        """
        while True:
            forget_listings(self.root)
            taken = [int(path.name) for path in within(self.folder(line)) if path.name.isdecimal()]
            taken += [number for number, _ in self._claims(line)]
            version = max([least, *(number + 1 for number in taken)])
            claim = self.folder(line) / _CLAIMS / f"{version}-{secrets.token_hex(8)}"
            said = {"host": platform.node(), "pid": os.getpid(), "time": round(time.time())}
            self.write(claim, json.dumps(said).encode())
            forget_listings(self.root)
            others = [path for number, path in self._claims(line) if number == version and path.name != claim.name]
            if not others and not self.folder(line, version).exists():
                return version, claim
            claim.unlink()
            time.sleep(random.uniform(0.05, 0.5))

    def _claims(self, line: str) -> list[tuple[int, Path]]:
        """The numbers that are claimed, and the claims."""
        found = [(_CLAIM.fullmatch(path.name), path) for path in within(self.folder(line) / _CLAIMS)]
        return [(int(match[1]), path) for match, path in found if match]


def _files(contents: Contents) -> Iterator[tuple[str, Path | bytes]]:
    """Every single file: its name in the version, and where it is."""
    for name, content in contents.items():
        if isinstance(content, bytes) or not content.is_dir():
            yield name, content
            continue
        for path in sorted(content.rglob("*")):
            if path.is_file():
                yield f"{name}/{path.relative_to(content).as_posix()}", path


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
