"""Reading archives that nobody vouches for: zip, tar (also packed by gzip, bzip2 or xz) and single packed files.

What kind a file is, its content says, not its name. Members are read where they lie, always sorted by name, so that a
folder, an archive of it and the same folder packed anew give the same examples in the same order. Refused, with the
archive, the member and the reason: paths that lead out of the folder, links to elsewhere, devices, two members of one
name, encryption, more members or bytes than `Limits` allows (counted as they are unpacked, whatever the headers say),
and everything that is damaged or cut off. An archive within an archive is a file like any other.

A link to a file of the same archive is read as a copy of that file, so that nothing unpacked points anywhere; a link
to a folder of the archive is left out, since its files are there under their own names. So is what macOS adds
(`__MACOSX`, `.DS_Store`). Names that differ in their case only are different names.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
import os
import posixpath
import re
import shutil
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import lru_cache, partial
from pathlib import Path
from typing import IO, Any, BinaryIO, Protocol

from headrace.artifacts import home
from headrace.console import progress
from headrace.errors import DataError, nearest

CHUNK = 1 << 20


@dataclass(frozen=True)
class Limits:
    """What an archive may hold at most."""

    members: int = 2_000_000
    unpacked: int = 200 * 2**30
    """Bytes of all members together."""
    ratio: float = 250.0
    """Unpacked bytes for each packed one …"""
    exempt: int = 2**30
    """… beyond this many unpacked bytes."""

    def bytes_of(self, packed: int) -> int:
        """How many bytes may come out of an archive of this size."""
        return min(self.unpacked, max(self.exempt, int(self.ratio * packed)))


LIMITS = Limits()


@dataclass(frozen=True)
class Member:
    """A file in an archive, or in a folder; valid until the next one is asked for."""

    name: str
    """Its path within the archive, with `/` on every system."""
    open: Callable[[], BinaryIO] = field(repr=False, compare=False)
    """Open it for reading as a stream, which raises DataError where the archive is damaged."""

    def read(self) -> bytes:
        """All its bytes.

        Raises:
            DataError: It is damaged, or longer than the archive may be.
        """
        with self.open() as file:
            return file.read()


def members(path: Path, limits: Limits = LIMITS) -> Iterator[Member]:
    """The files in an archive, sorted by their paths, part by part; those below a folder if the path is one.

    A packed tar is unpacked into one nameless temporary file in the home first, since it can only be read from its
    beginning, and listed, once in a process (the last two archives are held); nothing else is written. What lies in a
    folder is taken as it is: links to files are followed, links to folders are not.

    Args:
        path: An archive, a single packed file (`x.csv.gz` has the one member `x.csv`), or a folder.
        limits: What it may hold at most.

    Raises:
        DataError: It is no archive, is damaged, or holds what is not allowed.
    """
    with contents(path, limits) as files:
        yield from files.values()


@contextlib.contextmanager
def contents(path: Path, limits: Limits = LIMITS) -> Iterator[dict[str, Member]]:
    """The same files by their paths, to be read in any order while the archive is open."""
    with _opened(path, limits) as files:
        yield {name: Member(name, file.open) for name, file in files.items()}


@contextlib.contextmanager
def opened(path: Path, name: str = "*", limits: Limits = LIMITS) -> Iterator[BinaryIO]:
    """Open one file of an archive or a folder as a stream: `with opened(glove, "*.100d.txt") as lines: …`.

    Args:
        path: As in `members`.
        name: Its path within the archive, or a pattern (`*.csv`) that fits no other one.
        limits: What it may hold at most.

    Raises:
        DataError: There is no such file, or several; or as in `members`.
    """
    with _opened(path, limits) as files:
        found = [name] if name in files else [known for known in files if fnmatchcase(known, name)]
        if len(found) != 1:
            shown = [*found[:8], *([f"and {len(found) - 8} more"] if len(found) > 8 else [])]
            raise DataError(
                f"{path.name} holds {len(found) or 'no'} file{'s' * (len(found) != 1)} `{name}`.",
                expected="exactly one",
                received=", ".join(shown) or nearest(name, list(files)[:50]),
            )
        with files[found[0]].open() as stream:
            yield stream


def extract(path: Path, folder: Path, limits: Limits = LIMITS) -> None:
    """Unpack an archive into a new folder, which appears whole or not at all.

    Args:
        path: An archive or a single packed file.
        folder: Where its members shall lie; must not exist.
        limits: What it may hold at most.

    Raises:
        DataError: As in `members`.
    """
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        with _opened(path, limits) as files, progress(f"unpack {path.name}", len(files)) as advance:
            for count, (name, file) in enumerate(files.items()):
                advance(count, name)
                target = part / name
                target.parent.mkdir(parents=True, exist_ok=True)
                with file.open() as source, target.open("xb") as out:
                    shutil.copyfileobj(source, out, CHUNK)
            advance(len(files), "files")
        part.rename(folder)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


# ------------------------------------------------------------------------------------------ what is in there

_PACKED: dict[bytes, Callable[[Path], Any]] = {
    b"\x1f\x8b": gzip.GzipFile,
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\x00": lzma.LZMAFile,
}
"""First bytes of a file that packs one stream → how it is unpacked."""
_TAR = re.compile(r"\.(tar|tgz|tbz2?|txz|tar\.(gz|bz2|xz))$", re.IGNORECASE)
_SUFFIX = re.compile(rf"({_TAR.pattern[:-1]}|\.(zip|gz|bz2|xz))$", re.IGNORECASE)
_BLOCK = 512
"""Bytes of a tar's header; one of zeros marks its end."""


def stem(name: str) -> str:
    """A file name without the endings of archives: `train` for `train.tar.gz`."""
    return _SUFFIX.sub("", name)


@dataclass(frozen=True)
class _File:
    """A file in an archive: the size that its header declares (None: nowhere said), and how it is opened."""

    size: int | None
    open: Callable[[], BinaryIO]


@contextlib.contextmanager
def _opened(path: Path, limits: Limits) -> Iterator[dict[str, _File]]:
    """The files of an archive or a folder by their paths, in order; checked as far as headers go."""
    with contextlib.ExitStack() as stack:
        if path.is_dir():
            files = _in_folder(path)
        else:
            try:
                archive = _Archive(path, limits, path.stat().st_size)
                packed = stack.enter_context(path.open("rb"))
            except OSError as error:
                raise DataError(f"{path} can't be read.", received=error.strerror) from error
            with archive.damage():
                _list(archive, packed, stack)
            files = archive.checked()
        yield {name: files[name] for name in sorted(files, key=_parts) if not _is_litter(name)}


def _list(archive: _Archive, packed: BinaryIO, stack: contextlib.ExitStack) -> None:
    """Find out what kind of archive it is, and list its files."""
    head = packed.read(_BLOCK)
    packed.seek(0)
    unpack = next((unpack for magic, unpack in _PACKED.items() if head.startswith(magic)), None)
    if unpack:
        with unpack(archive.path) as stream:
            head = stream.read(_BLOCK)
        if _is_tar(head, archive.path.name):
            state = os.fstat(packed.fileno())
            held = _unpacked(archive.path, archive.limits, unpack, state.st_ino, state.st_mtime_ns, state.st_size)
            archive.files, archive.links = held.files, held.links
        else:
            name = stem(archive.path.name)
            archive.files[name] = archive.file(name, None, partial(unpack, archive.path))
    elif head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        _list_zip(archive, packed, stack)
    elif head and _is_tar(head, archive.path.name):
        _list_tar(archive, packed)
    else:
        raise DataError(
            f"{archive.path.name} is no archive that can be read.",
            expected="zip, tar, tar.gz, tar.bz2, tar.xz, or a single file packed by gzip, bzip2 or xz",
            received=f"a file that begins with {head[:16]!r}" if head else "an empty file",
            remedy="get a sound copy of it",
        )


def _in_folder(folder: Path) -> dict[str, _File]:
    found = [Path(parent, name) for parent, _, names in os.walk(folder) for name in names]
    return {file.relative_to(folder).as_posix(): _File(None, partial(_read, file)) for file in found if file.is_file()}


def _read(path: Path) -> BinaryIO:
    return path.open("rb")


def _parts(name: str) -> list[str]:
    return name.split("/")


def _is_litter(name: str) -> bool:
    """Whether macOS has added it."""
    parts = _parts(name)
    return (parts[0] == "__MACOSX" and len(parts) > 1) or parts[-1] == ".DS_Store"


@dataclass
class _Archive:
    """An archive that is being listed, and how its troubles are told."""

    path: Path
    limits: Limits
    size: int
    files: dict[str, _File] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    """Path of a link → path of what it stands for."""

    def refused(self, reason: str, member: str = "", remedy: str = "get a sound copy of it") -> DataError:
        """The error for an archive, or a member of it, that is not to be used."""
        where = f"{self.path.name}, member {member!r}" if member else self.path.name
        return DataError(f"The archive can't be used: {where}: {reason}.", remedy=remedy)

    @contextlib.contextmanager
    def damage(self, member: str = "") -> Iterator[None]:
        """Tell what goes wrong while unpacking as damage of the archive."""
        try:
            yield
        except NotImplementedError as error:
            raise self.refused(f"it is packed in a way that can't be read ({error})", member) from error
        except (EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, tarfile.TarError, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:  # the disk, not the archive
                raise
            raise self.refused(f"it is damaged or cut off ({error})", member) from error

    def within(self, count: int, member: str = "") -> None:
        """See that so many unpacked bytes are not too many."""
        allowed = self.limits.bytes_of(self.size)
        if count > allowed:
            raise self.refused(
                f"it unpacks to more than {allowed:,} bytes",
                member,
                remedy="if it can be trusted, read it with wider limits: see headrace.getting.archives.Limits",
            )

    def name(self, raw: str) -> str:
        """The path of a member, which must lie within the archive; "" for its root."""
        if raw.startswith("/") or re.match(r"[A-Za-z]:[/\\]", raw):
            raise self.refused("its path is absolute", raw)
        parts = [part for part in _parts(raw) if part not in ("", ".")]
        if ".." in parts:
            raise self.refused("its path leads out of the folder", raw)
        return "/".join(parts)

    def new(self, raw: str) -> str:
        """The path of a file or a link, which must be that of no other one."""
        name = self.name(raw)
        if not name or name in self.files or name in self.links:
            raise self.refused("there are two members of this name", name or raw)
        if len(self.files) + len(self.links) >= self.limits.members:
            raise self.refused(f"it holds more than {self.limits.members:,} files")
        return name

    def file(self, name: str, size: int | None, source: Callable[[], _Source]) -> _File:
        """A file that is read through the checks."""

        def opener() -> BinaryIO:
            with self.damage(name):
                stream = _Stream(self, name, source(), size)
            return io.BufferedReader(stream, min(size or CHUNK, CHUNK) or 1)

        return _File(size, opener)

    def link(self, name: str, target: str, *, from_root: bool = False) -> str:
        """The path of what a link stands for."""
        path = posixpath.normpath(target if from_root else posixpath.join(posixpath.dirname(name), target))
        if target.startswith("/") or path == ".." or path.startswith("../"):
            raise self.refused(f"it is a link out of the folder, to {target!r}", name)
        return path

    def checked(self) -> dict[str, _File]:
        """All files, those included that links stand for."""
        taken = self.files.keys() | self.links.keys()
        folders = {"/".join(parts[:k]) for parts in map(_parts, taken) for k in range(1, len(parts))}
        if folders & taken:
            raise self.refused("it is a file as well as a folder", min(folders & taken))
        found = dict(self.files)
        for name, target in self.links.items():
            seen = {name}
            while target in self.links and target not in seen:
                seen.add(target)
                target = self.links[target]
            if target in self.files:
                found[name] = self.files[target]
            elif target not in folders and target != ".":
                raise self.refused(f"it is a link to {target!r}, which is no file of the archive", name)
        self.within(sum(file.size or 0 for file in found.values()))
        return found


class _Source(Protocol):
    """What bytes are read from."""

    def read(self, count: int, /) -> bytes: ...

    def close(self) -> None: ...


class _Stream(io.RawIOBase):
    """A member as it is unpacked: it is as long as its header says, or as an archive may be, and damage is told."""

    def __init__(self, archive: _Archive, member: str, source: _Source, size: int | None) -> None:
        self._archive, self._member, self._source, self._size = archive, member, source, size
        self._count = 0

    def readable(self) -> bool:
        """Yes."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Unpack as much as fits, or as there is."""
        data = self._next(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def readall(self) -> bytes:
        """Unpack the rest."""
        return b"".join(iter(lambda: self._next(CHUNK), b""))

    def close(self) -> None:
        """Close it and what it is unpacked from."""
        self._source.close()
        super().close()

    def _next(self, count: int) -> bytes:
        with self._archive.damage(self._member):
            data = self._source.read(count)
        self._count += len(data)
        if self._size is None:
            self._archive.within(self._count, self._member)
        elif self._count > self._size or (not data and self._count < self._size):
            raise self._archive.refused(
                f"it is damaged: {self._count:,} bytes instead of the {self._size:,} that its header declares",
                self._member,
            )
        return data


# ------------------------------------------------------------------------------------------- kinds of archives


def _list_zip(archive: _Archive, packed: BinaryIO, stack: contextlib.ExitStack) -> None:
    reader = stack.enter_context(zipfile.ZipFile(packed))
    for info in reader.infolist():
        # Some packers write the separators of another system.
        raw = info.filename.replace("\\", "/")
        mode = info.external_attr >> 16
        if info.is_dir() or raw.endswith("/"):
            archive.name(raw)
            continue
        name = archive.new(raw)
        if info.flag_bits & 1:
            raise archive.refused("it is encrypted", name)
        if stat.S_ISLNK(mode):
            with archive.damage(name), reader.open(info) as target:
                archive.links[name] = archive.link(name, os.fsdecode(target.read(4096)))
        elif stat.S_IFMT(mode) in (0, stat.S_IFREG):
            archive.files[name] = archive.file(name, info.file_size, partial(reader.open, info))
        else:
            raise archive.refused("it is no file but a device or a pipe", name)


@lru_cache(maxsize=2)
def _unpacked(path: Path, limits: Limits, unpack: Callable[[Path], Any], *_state: int) -> _Archive:
    """A packed tar, unpacked and listed once for all who read it in this process.

    Args:
        path: Of the archive.
        limits: What it may hold at most.
        unpack: How.
        _state: Its number, time and size: another archive of the same path is not the same.
    """
    archive = _Archive(path, limits, path.stat().st_size)
    with unpack(path) as stream:
        _list_tar(archive, _spooled(archive, stream))
    return archive


def _list_tar(archive: _Archive, packed: IO[bytes]) -> None:
    reader = tarfile.open(fileobj=packed, mode="r:")  # noqa: SIM115 (closing it would close nothing)
    for info in reader:
        raw = _readable(info.name)
        if info.isdir():
            archive.name(raw)
            continue
        name = archive.new(raw)
        if info.issym() or info.islnk():
            archive.links[name] = archive.link(name, _readable(info.linkname), from_root=info.islnk())
        elif info.isreg():
            part = partial(_Part, packed, info.offset_data, info.size)
            archive.files[name] = archive.file(
                name, info.size, partial(_extracted, reader, info) if info.issparse() else part
            )
        else:
            raise archive.refused("it is no file but a device or a pipe", name)
    # A header that can't be read ends the list without a word, as does the end of the file.
    packed.seek(reader.offset)
    end = packed.read(_BLOCK)
    if end.count(0) < _BLOCK:
        what = "a damaged header" if end else "the end of the file"
        raise archive.refused(
            f"it is damaged or cut off ({what} at byte {reader.offset:,}, after {len(archive.files):,} files)"
        )


class _Part:
    """A piece of a file, of which several may be read at the same time."""

    def __init__(self, file: IO[bytes], start: int, size: int) -> None:
        self._file, self._at, self._end = file, start, start + size

    def read(self, count: int, /) -> bytes:
        """As many of the next bytes, or what is left of them."""
        data = os.pread(self._file.fileno(), min(count, self._end - self._at), self._at)
        self._at += len(data)
        return data

    def close(self) -> None:
        """The file stays open."""


def _extracted(reader: tarfile.TarFile, info: tarfile.TarInfo) -> IO[bytes]:
    source = reader.extractfile(info)
    if source is None:
        raise tarfile.ReadError("no file")
    return source


def _spooled(archive: _Archive, stream: IO[bytes]) -> IO[bytes]:
    """An unpacked tar in a nameless file, which is gone when nobody holds it, however the process ends."""
    scratch = home() / "work"
    scratch.mkdir(parents=True, exist_ok=True)
    spool = tempfile.TemporaryFile(dir=scratch)  # noqa: SIM115 (open as long as something refers to it)
    count = 0
    while data := stream.read(CHUNK):
        count += len(data)
        archive.within(count)
        spool.write(data)
    spool.seek(0)
    return spool


def _is_tar(head: bytes, name: str) -> bool:
    """Whether a file begins with a header of a tar, or claims to be one."""
    try:
        tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape")
    except tarfile.TarError:
        return bool(_TAR.search(name))
    return True


def _readable(name: str) -> str:
    """A name that is no UTF-8, as old archives hold them, in Latin-1."""
    return os.fsencode(name).decode("latin-1") if re.search("[\udc80-\udcff]", name) else name
