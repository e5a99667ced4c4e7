"""Getting files, whole and verified or not at all: from the cache, by hand, else a mirror, else their origin.

The cache keeps a file under the digest of its bytes. `<home>/manual` holds what a person has fetched. A mirror is a
folder or a web address that holds files under their original names, at its top or up to two folders down, and may say
in `MANIFEST.json` (or `SHA256SUMS`) which bytes it means to hold: a file that was packed anew, with other bytes than
the origin's, is accepted on its mirror's word only. Of several files of one name the pinned one is meant, else the one
whose path has most in common with the end of the file's address, else the one that lies least deep.

Where no digest is pinned and no mirror vouches, the bytes that come first are trusted: their digest is kept in
`<home>/trusted.json` and holds from then on.
"""

from __future__ import annotations

import contextlib
import contextvars
import glob
import hashlib
import json
import logging
import os
import queue
import re
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from headrace.artifacts import file_digest, home, locked, read_json, write_json
from headrace.console import progress
from headrace.errors import DataError, Unavailable
from headrace.getting.origins import CONNECT, Address, Expected, Watch, address_of, body, reach, transfer
from headrace.spec import File

log = logging.getLogger(__name__)

AT_ONCE = 4
"""Files that are brought at the same time."""
TICK = 0.2
"""Seconds between two looks at how far they are."""
GRACE = 1.0
"""Seconds that the others are given to stop after the first failure; one that hangs for longer is left behind."""

Voucher = Literal["origin", "mirror", "nobody"]
"""On whose word bytes are what they should be; the origin's digest is pinned in the workload's file."""
Way = Literal["cache", "hand", "mirror", "origin"]


@dataclass(frozen=True)
class Held:
    """A verified file in the cache, and how it was come by."""

    path: Path
    vouched_by: Voucher
    way: Way
    place: str
    """Path or URL that it was taken from."""
    words: dict[str, Any] = field(default_factory=dict)
    """What the mirror's manifest says of it."""


@dataclass(frozen=True)
class Copy:
    """A file as a folder holds it, or as a mirror on the web says that it does."""

    way: Way
    place: Path | str
    within: str
    """Its path within the mirror."""
    sha256: str | None
    """None for a file on the web that no manifest lists."""
    size: int | None
    vouched_by: Voucher
    words: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Search:
    """Where a file can be had, after a look at everything near."""

    file: File
    held: Held | None = None
    copy: Copy | None = None
    address: Address | None = None
    reasons: tuple[str, ...] = ()
    """Why it can't be had from elsewhere."""


def fetch(files: Sequence[File]) -> list[Held]:
    """Have files in the cache, verified, several of them at the same time.

    What is wrong near at hand is told before anything is downloaded. The first failure stops the others; what they had
    received is kept for the next attempt.

    Raises:
        ConfigError: The address of a file is of no known kind.
        DataError: A mirror, a person or an origin gives other bytes than those that were pinned or trusted at first.
        Unavailable: A file is nowhere near, and its origin can't be reached, can't be asked or does not have it.
    """
    searches = [_search(file) for file in files]
    stuck = [search for search in searches if not (search.held or search.copy or search.address)]
    if stuck:
        raise _unavailable(stuck)
    missing = [search for search in searches if not search.held]
    brought = iter(_together(missing) if missing else [])
    return [search.held or next(brought) for search in searches]


def digest_in_force(file: File) -> str | None:
    """The digest of the bytes that would be used now; None if nothing near tells. Nothing is downloaded."""
    pinned = file.sha256 or _trusted(file).get("sha256")
    copy = None if pinned and _in_cache(pinned, file.name) else _near(file)[0]
    return copy.sha256 if copy else pinned


def bytes_in_force(file: File) -> str:
    """What a result depends on of a file: the beginning of its digest, and on whose word, if not the origin's.

    Nothing is downloaded: where nothing near holds the file, it is the pinned digest. An unpinned file's is not known
    before its first download, which must not change what depends on it: see `digest_in_force`.
    """
    if not file.sha256:
        return "as it came first"
    copy = None if _in_cache(file.sha256, file.name) else _near(file)[0]
    if copy is None or copy.sha256 is None or copy.vouched_by == "origin":
        return file.sha256[:20]
    return f"{copy.sha256[:20]}, vouched for by {'the mirror' if copy.vouched_by == 'mirror' else 'nobody'}"


def at_hand(file: File) -> bool:
    """Whether cache, mirror or a person hold a file, so that its origin is not needed."""
    pinned = file.sha256 or _trusted(file).get("sha256")
    return bool((pinned and _in_cache(pinned, file.name)) or _near(file)[0])


def reachable(file: File, seconds: float) -> bool:
    """Whether the origin of a file seems to be there."""
    try:
        reach(address_of(file).url, seconds)
    except Unavailable:
        return False
    return True


def place_by_hand(file: File) -> Path:
    """Where a person puts a file."""
    return home() / "manual" / _tail(file)


# ------------------------------------------------------------------------------------------- where it can be had


def _search(file: File) -> Search:
    trusted = _trusted(file)
    pinned = file.sha256 or trusted.get("sha256")
    if not file.sha256:
        by_hand = _by_hand(file)
        if by_hand and pinned and by_hand.sha256 != pinned:
            raise _expected(file, trusted).wrong(by_hand.place, str(by_hand.sha256), by_hand.size)
    cached = _in_cache(pinned, file.name) if pinned else None
    if cached:
        held = Held(cached, "origin" if file.sha256 else "nobody", "cache", str(cached))
        return Search(file, held)
    copy, missing = _near(file)
    if copy and copy.vouched_by == "nobody":
        expected = _expected(file, trusted)
        if copy.sha256 and copy.sha256 != (pinned or copy.sha256):
            raise _not_vouched(file, copy, expected)
        if copy.size and copy.size != (file.size or copy.size):
            raise replace(expected, sha256=None).wrong(copy.place, str(copy.sha256), copy.size)
    if copy and copy.vouched_by == "mirror" and file.sha256:
        kind = copy.words.get("kind", "without saying why they differ")
        log.info("%s: not the origin's bytes; the mirror vouches for them (%s)", file.name, kind)
    try:
        return Search(file, None, copy, address_of(file), ("it is not in the cache", missing))
    except Unavailable as error:
        return Search(file, None, copy, None, ("it is not in the cache", missing, error.problem))


def _near(file: File) -> tuple[Copy | None, str]:
    """The file as a person or the mirror holds it; None and why, if neither does."""
    by_hand = _by_hand(file)
    return (by_hand, "") if by_hand else _in_mirror(file)


def _by_hand(file: File) -> Copy | None:
    path = place_by_hand(file)
    if not path.is_file():
        return None
    sha256 = digest_of(path)
    voucher: Voucher = "origin" if sha256 == file.sha256 else "nobody"
    return Copy("hand", path, path.name, sha256, path.stat().st_size, voucher)


def _unavailable(searches: Sequence[Search]) -> Unavailable:
    """The error for files that can't be had, each with its reasons."""
    files = [search.file for search in searches]
    names = " and ".join(file.name for file in files)
    reasons = ["; ".join(filter(None, search.reasons)) for search in searches]
    if len(files) == 1:
        problem = f"{names} can't be had: {reasons[0]}."
    else:
        problem = f"{names} can't be had:" + "".join(
            f"\n  - {file.name}: {reason}" for file, reason in zip(files, reasons, strict=True)
        )
    hints = list(dict.fromkeys(file.hint for file in files if file.hint))
    by_hand = " and ".join(str(place_by_hand(file)) for file in files)
    network = ["connect to the network"] if any(search.address for search in searches) else []
    return Unavailable(
        problem,
        expected="; ".join(
            f"the file from {file.url}" + (f" (sha256 {file.sha256})" if file.sha256 else "") for file in files
        ),
        remedy="; or ".join(
            [
                *network,
                "; ".join([*hints, f"put what you fetched by hand at {by_hand}"]),
                "set HEADRACE_MIRROR to a folder that holds it under this name",
                "use made-up data: --data synthetic",
            ]
        ),
    )


# ---------------------------------------------------------------------------------------- bringing it to the cache


def _together(searches: Sequence[Search]) -> list[Held]:
    """Bring files, a few at the same time; the progress of all of them is shown as one."""
    stop = threading.Event()
    watches = [Watch(stop, search.copy.size if search.copy else search.file.size) for search in searches]
    waiting = queue.SimpleQueue[int]()
    outcomes = queue.SimpleQueue[tuple[int, Held | BaseException]]()
    for number in range(len(searches)):
        waiting.put(number)

    def work() -> None:
        with contextlib.suppress(queue.Empty):
            while not stop.is_set():
                number = waiting.get_nowait()
                try:
                    outcomes.put((number, _bring(searches[number], watches[number])))
                except BaseException as error:  # raised again by the thread that waits for it
                    outcomes.put((number, error))

    # Daemons, since a server that is silent can hold one for half a minute after nobody wants its file any more.
    threads = [
        threading.Thread(target=contextvars.copy_context().run, args=(work,), daemon=True)
        for _ in range(min(AT_ONCE, len(searches)))
    ]
    sizes = [watch.size for watch in watches]
    # In bytes, if all sizes are known from the beginning; else in files, and parts of files as soon as theirs is known.
    kilobytes = sum(size or 0 for size in sizes) / 1000 if all(sizes) else None
    title = searches[0].file.name if len(searches) == 1 else "download"
    held: dict[int, Held] = {}
    try:
        with progress(title, kilobytes or len(searches)) as advance:
            for thread in threads:
                thread.start()
            while len(held) < len(searches):
                with contextlib.suppress(queue.Empty):
                    number, outcome = outcomes.get(timeout=TICK)
                    if isinstance(outcome, BaseException):
                        raise outcome
                    held[number] = outcome
                received = sum(watch.done for watch in watches)
                if kilobytes:
                    advance(min(received / 1000, kilobytes), "kB")
                else:
                    parts = sum(min(1.0, watch.done / watch.size) if watch.size else 0.0 for watch in watches)
                    advance(parts, f"{'files' if len(searches) > 1 else 'file'}, {received / 1e6:,.1f} MB")
    finally:
        stop.set()
        deadline = time.monotonic() + GRACE
        for thread in threads:
            if thread.is_alive():
                thread.join(max(0.0, deadline - time.monotonic()))
    return [held[number] for number in range(len(searches))]


def _bring(search: Search, watch: Watch) -> Held:
    """Bring one file to the cache, from the copy that is near or from its origin."""
    file, copy, reasons = search.file, search.copy, search.reasons
    if copy:
        try:
            path = _take(file, copy, watch)
            return Held(path, copy.vouched_by, copy.way, str(copy.place), copy.words)
        except Unavailable as error:
            reasons = (reasons[0], f"the mirror: {error.problem}", *reasons[2:])
    if search.address:
        try:
            path = _take(file, search.address, watch)
            return Held(path, "origin" if file.sha256 else "nobody", "origin", file.url)
        except Unavailable as error:
            reasons = (*reasons, error.problem)
    raise _unavailable([replace(search, reasons=reasons)])


def _take(file: File, source: Copy | Address, watch: Watch) -> Path:
    """Bring a file into the cache, which never shows a part of it."""
    copy = source if isinstance(source, Copy) else None
    expected = _expected(file, _trusted(file))
    if copy and copy.vouched_by == "mirror":
        expected = replace(expected, sha256=copy.sha256, size=copy.size)
    elif copy and copy.sha256:
        expected = replace(expected, sha256=copy.sha256)
    folder = _cached(expected.sha256, file.name).parent if expected.sha256 else _unnamed(file)
    part = folder / f".{file.name}.part"
    with locked(folder / f".{file.name}.lock"):
        watch.pause(0)
        # Another process may have brought it, or told its digest, while this one waited for the lock.
        if not expected.sha256:
            expected = _expected(file, _trusted(file))
        kept = _cached(expected.sha256, file.name) if expected.sha256 else None
        if not (kept and _in_cache(kept.parent.name, file.name)):
            if kept:
                kept.unlink(missing_ok=True)
            received = _receive(file, source, part, expected, watch)
            kept = _cached(received, file.name)
            kept.parent.mkdir(exist_ok=True)
            # Artifacts are hard links to it: an edit by mistake would reach them all.
            part.chmod(0o444)
            os.replace(part, kept)
        if not file.sha256 and not (copy and copy.vouched_by == "mirror"):
            _trust(file, kept.parent.name, kept.stat().st_size, source)
    if folder != kept.parent:
        shutil.rmtree(folder, ignore_errors=True)
    watch.done = watch.size = kept.stat().st_size
    return kept


def _receive(file: File, source: Copy | Address, part: Path, expected: Expected, watch: Watch) -> str:
    """Fill `part` from a folder or over the network; its digest."""
    if isinstance(source, Copy) and isinstance(source.place, Path):
        copy_file(source.place, part)
        received = file_digest(part)
        if received != expected.sha256:
            part.unlink()
            raise replace(expected, asked="what it was a moment ago").wrong(source.place, received)
        return received
    address = Address(str(source.place), file.name, str(source.place)) if isinstance(source, Copy) else source
    return transfer(address, part, expected, watch)


def copy_file(source: Path, target: Path, *, link: bool = False) -> None:
    """Copy a file, or make a hard link where that is allowed and possible; no part of it stays if that fails."""
    if link:
        with contextlib.suppress(OSError):
            os.link(source, target)
            return
    try:
        shutil.copyfile(source, target)
    except OSError:
        target.unlink(missing_ok=True)
        raise


def digest_of(path: Path) -> str:
    """The digest of a file that is not ours.

    Raises:
        DataError: It is missing or can't be read.
    """
    try:
        return file_digest(path)
    except OSError as error:
        raise DataError(f"{path} can't be read.", received=error.strerror) from error


# --------------------------------------------------------------------------------------------- cache and trust


def _in_cache(sha256: str, name: str) -> Path | None:
    """The cached file, if its bytes are still those of its digest."""
    path = _cached(sha256, name)
    try:
        if file_digest(path) == sha256:
            return path
    except OSError:
        return None
    log.warning("%s in the cache is damaged, and counts as missing", name)
    return None


def _cached(sha256: str, name: str) -> Path:
    return home() / "cache" / sha256 / name


def _unnamed(file: File) -> Path:
    """Where a file is received whose digest nobody knows yet."""
    return home() / "cache" / f"first-{hashlib.sha256(file.url.encode()).hexdigest()[:20]}"


def _trust_file() -> Path:
    return home() / "trusted.json"


def _trusted(file: File) -> dict[str, Any]:
    """What is known of the first download of a file that is not pinned; empty before it."""
    return {} if file.sha256 else _all_trusted().get(file.url, {})


def _all_trusted() -> dict[str, Any]:
    path = _trust_file()
    known = read_json(path) if path.exists() else {}
    if not isinstance(known, dict):
        raise DataError(
            f"{path} can't be read, so that nobody knows which bytes were trusted at first.",
            expected="JSON as Headrace has written it",
            remedy="restore it, or remove it to trust what comes next",
        )
    return known


def _trust(file: File, sha256: str, size: int, source: Copy | Address) -> None:
    """Keep the digest of a first download; another process may have been faster."""
    with locked(home() / "cache" / ".trusted.lock"):
        known = _all_trusted()
        first = known.get(file.url)
        if not first:
            today = time.strftime("%Y-%m-%d", time.gmtime())
            entry = {"sha256": sha256, "size": size, "from": str(source.place), "on": today}
            write_json(_trust_file(), {**known, file.url: entry})
        elif first["sha256"] != sha256:
            raise _expected(file, first).wrong(source.place, sha256, size)


def _expected(file: File, trusted: dict[str, Any]) -> Expected:
    """What a file must be: as pinned, else as it came first."""
    if not trusted:
        return Expected(file.sha256, file.size)
    return Expected(
        trusted["sha256"],
        file.size or trusted["size"],
        asked=f"what it was when it came first (on {trusted['on']}, from {trusted['from']})",
        remedy=(
            f"put the old bytes there; or, if the new ones are meant, remove the entry {file.url} from "
            f"{_trust_file()}, or pin their digest in the workload's file"
        ),
    )


def _not_vouched(file: File, copy: Copy, expected: Expected) -> DataError:
    """The error for bytes in a folder or a mirror that are neither those expected nor listed in its manifest."""
    if file.sha256 and copy.way == "hand":
        expected = replace(expected, remedy="put a sound copy there, or remove it")
    elif file.sha256:
        remedy = "put a sound copy there; if these bytes are meant, list their size and sha256 in its MANIFEST.json"
        expected = replace(expected, remedy=remedy)
    words = copy.words
    if not words:
        return expected.wrong(copy.place, str(copy.sha256), copy.size)
    listed = f"{words['sha256']} ({words.get('bytes', '?')} bytes) as the mirror lists it"
    return DataError(
        f"Wrong checksum: {copy.place} is not {expected.asked}.",
        expected=f"sha256 {expected.sha256}, or {listed}",
        received=f"sha256 {copy.sha256} ({copy.size:,} bytes)",
        remedy=expected.remedy,
    )


# ------------------------------------------------------------------------------------------------- mirror


def _in_mirror(file: File) -> tuple[Copy | None, str]:
    """The file in the mirror that HEADRACE_MIRROR names; None and why, if it is not there.

    Raises:
        DataError: The mirror holds several files of that name, and nothing tells which one is meant; or it can't be
            read.
    """
    named = os.environ.get("HEADRACE_MIRROR", "")
    if not named:
        return None, "no mirror is set (HEADRACE_MIRROR)"
    on_web = named.startswith(("http://", "https://"))
    try:
        copies = _on_web(named.rstrip("/"), file) if on_web else _in_folder(Path(named).expanduser(), file)
    except Unavailable as error:
        return None, f"the mirror: {error.problem}"
    except OSError as error:
        return None, f"the mirror {named}: {error.strerror}"
    exact = [copy for copy in copies if copy.vouched_by == "origin"]
    if exact or not copies:
        return next(iter(exact), None), f"it is not in the mirror {named}"
    best = max(_likeness(file, copy) for copy in copies)
    meant = [copy for copy in copies if _likeness(file, copy) == best]
    if len(meant) > 1:
        raise DataError(
            f"The mirror holds several files {file.name}, none of them with the pinned bytes.",
            expected=f"sha256 {file.sha256}" if file.sha256 else f"one that is the end of {file.url}",
            received=", ".join(str(copy.place) for copy in meant),
            remedy="leave only the one that is meant, or set HEADRACE_MIRROR to its folder",
        )
    return meant[0], ""


def _likeness(file: File, copy: Copy) -> tuple[int, int]:
    """How much a copy looks like the file that is meant: parts that its path and the file's address end in; depth."""
    parts, wanted = copy.within.split("/")[::-1], re.split("[/:#]", file.url)[::-1]
    alike = [a == b for a, b in zip(parts, wanted, strict=False)]
    return (alike.index(False) if False in alike else len(alike)), -len(parts)


def _tail(file: File) -> str:
    """The path in which a file's place in a mirror ends: its name, or the whole of `manual:labelled/data.csv`."""
    return file.url.removeprefix("manual:") if file.url.startswith("manual:") else file.name


def _in_folder(folder: Path, file: File) -> list[Copy]:
    if not folder.is_dir():
        raise Unavailable(f"{folder} is no folder")
    tail = glob.escape(_tail(file))
    found = [path for depth in ("", "*/", "*/*/") for path in sorted(folder.glob(f"{depth}{tail}"))]
    words_of = {words["file"]: words for words in _manifest(lambda name: _bytes(folder / name))}
    copies = []
    for path in filter(Path.is_file, found):
        within = path.relative_to(folder).as_posix()
        words = words_of.get(within, {})
        sha256, size = digest_of(path), path.stat().st_size
        vouched_by: Voucher = "nobody"
        if sha256 == file.sha256:
            vouched_by = "origin"
        elif words.get("sha256") == sha256 and words.get("bytes", size) == size:
            vouched_by = "mirror"
        copies.append(Copy("mirror", path, within, sha256, size, vouched_by, words))
    return copies


def _on_web(url: str, file: File) -> list[Copy]:
    reach(url, CONNECT)
    tail = _tail(file)
    listed = [
        words for words in _manifest(lambda name: body(f"{url}/{name}")) if f"/{words['file']}".endswith(f"/{tail}")
    ]
    copies = []
    for words in listed:
        sha256 = words["sha256"]
        vouched_by: Voucher = "origin" if sha256 == file.sha256 else "mirror"
        copies.append(
            Copy("mirror", f"{url}/{words['file']}", words["file"], sha256, words.get("bytes"), vouched_by, words)
        )
    if not copies and body(f"{url}/{tail}", only_ask=True) is not None:
        # Not listed, so that nothing but the pin says what it must be.
        vouched_by = "origin" if file.sha256 else "nobody"
        copies.append(Copy("mirror", f"{url}/{tail}", tail, file.sha256, file.size, vouched_by))
    return copies


def _manifest(read: Callable[[str], bytes | None]) -> list[dict[str, Any]]:
    """What a mirror says of its files: mappings with at least `file` (its path) and `sha256`."""
    text = read("MANIFEST.json")
    if text is not None:
        try:
            listed = json.loads(text)
        except ValueError:
            listed = []
    else:
        lines = (read("SHA256SUMS") or b"").decode(errors="replace").splitlines()
        pairs = [line.split(maxsplit=1) for line in lines if len(line.split()) > 1]
        listed = [{"sha256": sha256, "file": name.lstrip("*").removeprefix("./")} for sha256, name in pairs]
    return [entry for entry in listed if _is_entry(entry)] if isinstance(listed, list) else []


def _is_entry(entry: Any) -> bool:
    """Whether a part of a manifest is what it should be; above all its digest, which becomes the name of a folder."""
    return (
        isinstance(entry, dict)
        and isinstance(entry.get("file"), str)
        and isinstance(entry.get("bytes", 0), int)
        and bool(re.fullmatch("[0-9a-f]{64}", str(entry.get("sha256"))))
    )


def _bytes(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None
