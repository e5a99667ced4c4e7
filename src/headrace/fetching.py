"""Getting one pinned file, whole and verified or not at all: from the cache, else a mirror, else its origin.

The cache keeps a file under the digest of its bytes. A mirror is a folder or a web address that holds files under their
original names, directly or one folder down, and may say in `MANIFEST.json` (or `SHA256SUMS`) which bytes it means to
hold: a file that was packed anew, with other bytes than the origin's, is accepted on its mirror's word only.
"""

from __future__ import annotations

import contextlib
import glob
import json
import logging
import os
import queue
import re
import shutil
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from headrace.artifacts import file_digest, home, locked
from headrace.console import progress
from headrace.errors import DataError, Unavailable
from headrace.spec import File

log = logging.getLogger(__name__)

CONNECT, READ = 5.0, 30.0
"""Seconds to wait for a connection, and for the next bytes."""
CHUNK = 1 << 14
"""Bytes that are lost at most when a connection breaks."""
TRIES = 3
BACK_OFF = 1.0
"""Seconds before the second try; doubled for each one after it."""

Voucher = Literal["origin", "mirror", "nobody"]
"""On whose word bytes are what they should be; the origin's digest is pinned in the workload's file."""


@dataclass(frozen=True)
class Held:
    """A verified file in the cache, and how it was come by."""

    path: Path
    vouched_by: Voucher
    way: Literal["cache", "mirror", "origin"]
    place: str
    """Path or URL that it was taken from."""
    words: dict[str, Any] = field(default_factory=dict)
    """What the mirror's manifest says of it."""


@dataclass(frozen=True)
class Copy:
    """A file as a mirror holds it (a folder), or says that it holds it (a web address)."""

    place: Path | str
    sha256: str
    size: int | None
    vouched_by: Voucher
    words: dict[str, Any] = field(default_factory=dict)


def obtain(file: File) -> Held:
    """Have a file in the cache, verified.

    Raises:
        DataError: A mirror or the origin gives other bytes than those that were pinned, and nobody vouches for them.
        Unavailable: It is in no cache and no mirror, and the origin can't be reached or does not have it.
    """
    cached = _in_cache(file.sha256, file.name)
    if cached:
        return Held(cached, "origin", "cache", str(cached))
    copy, missing = in_mirror(file)
    reasons = ["it is not in the cache", missing]
    if copy:
        if copy.vouched_by == "nobody":
            raise _wrong(copy.place, copy.sha256, copy.size, _acceptable(file, copy.words))
        if copy.vouched_by == "mirror":
            kind = copy.words.get("kind", "without saying why they differ")
            log.info("%s: not the origin's bytes; the mirror vouches for them (%s)", file.name, kind)
        try:
            path = _take(copy.place, file.name, copy.sha256, copy.size)
            return Held(path, copy.vouched_by, "mirror", str(copy.place), copy.words)
        except Unavailable as error:
            reasons[-1] = f"the mirror: {error.problem}"
    try:
        return Held(_take(file.url, file.name, file.sha256, file.size), "origin", "origin", file.url)
    except Unavailable as error:
        raise Unavailable(
            f"{file.name} can't be had: {'; '.join([*reasons, error.problem])}.",
            expected=f"the file from {file.url} (sha256 {file.sha256})",
            remedy=(
                f"connect to the network; or put {file.name} under this name into a folder, and set HEADRACE_MIRROR to "
                "that folder; or use made-up data: --data synthetic"
            ),
        ) from error


def bytes_in_force(file: File) -> str:
    """The beginning of the digest of the bytes that would be used now, and on whose word, if not the origin's.

    Nothing is downloaded: where neither cache nor mirror hold the file, it is the pinned digest.
    """
    copy = None if _in_cache(file.sha256, file.name) else in_mirror(file)[0]
    if copy is None or copy.vouched_by == "origin":
        return file.sha256[:20]
    return f"{copy.sha256[:20]}, vouched for by {'the mirror' if copy.vouched_by == 'mirror' else 'nobody'}"


def at_hand(file: File) -> bool:
    """Whether cache or mirror hold a file, so that its origin is not needed."""
    return bool(_in_cache(file.sha256, file.name) or in_mirror(file)[0])


# -------------------------------------------------------------------------------------------------- cache


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


def _take(place: Path | str, name: str, sha256: str, size: int | None) -> Path:
    """Bring a file into the cache, which never shows a part of it."""
    kept = _cached(sha256, name)
    part = kept.with_name(f".{name}.part")
    with locked(kept.with_name(f".{name}.lock")):
        # Another process may have brought it while this one waited for the lock.
        if _in_cache(sha256, name):
            return kept
        kept.unlink(missing_ok=True)
        if isinstance(place, str):
            transfer(place, part, sha256, size)
        else:
            copy_file(place, part)
            received = file_digest(part)
            if received != sha256:
                part.unlink()
                raise _wrong(place, received, None, f"sha256 {sha256}, as it was a moment ago")
        # Artifacts are hard links to it: an edit by mistake would reach them all.
        part.chmod(0o444)
        os.replace(part, kept)
    return kept


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


# ------------------------------------------------------------------------------------------------- mirror


def in_mirror(file: File) -> tuple[Copy | None, str]:
    """The file in the mirror that HEADRACE_MIRROR names; None and why, if it is not there.

    Raises:
        DataError: The mirror holds several files of that name, none of them the pinned one; or it can't be read.
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
    if not exact and len(copies) > 1:
        raise DataError(
            f"The mirror holds several files {file.name}, none of them with the pinned bytes.",
            expected=f"sha256 {file.sha256}",
            received=", ".join(str(copy.place) for copy in copies),
            remedy="leave only the one that is meant, or set HEADRACE_MIRROR to its folder",
        )
    return next(iter(exact or copies), None), f"it is not in the mirror {named}"


def _in_folder(folder: Path, file: File) -> list[Copy]:
    if not folder.is_dir():
        raise Unavailable(f"{folder} is no folder")
    found = [folder / file.name, *sorted(folder.glob(f"*/{glob.escape(file.name)}"))]
    words_of = {words["file"]: words for words in _manifest(lambda name: _bytes(folder / name))}
    copies = []
    for path in filter(Path.is_file, found):
        words = words_of.get(path.relative_to(folder).as_posix(), {})
        sha256, size = digest_of(path), path.stat().st_size
        vouched_by: Voucher = "nobody"
        if sha256 == file.sha256:
            vouched_by = "origin"
        elif words.get("sha256") == sha256 and words.get("bytes", size) == size:
            vouched_by = "mirror"
        copies.append(Copy(path, sha256, size, vouched_by, words))
    return copies


def _on_web(url: str, file: File) -> list[Copy]:
    reach(url, CONNECT)
    listed = [words for words in _manifest(lambda name: _body(f"{url}/{name}")) if _base(words["file"]) == file.name]
    copies = []
    for words in listed:
        sha256 = words["sha256"]
        vouched_by: Voucher = "origin" if sha256 == file.sha256 else "mirror"
        copies.append(Copy(f"{url}/{words['file']}", sha256, words.get("bytes"), vouched_by, words))
    if not copies and _body(f"{url}/{file.name}", only_ask=True) is not None:
        # Not listed, so that nothing but the pin says what it must be.
        copies.append(Copy(f"{url}/{file.name}", file.sha256, file.size, "origin"))
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


def _body(url: str, *, only_ask: bool = False) -> bytes | None:
    """What a web address holds (nothing yet, if it is only asked for); None if it does not exist."""
    import requests

    try:
        with requests.request("HEAD" if only_ask else "GET", url, timeout=(CONNECT, READ)) as response:
            return response.content if response.ok else None
    except requests.RequestException as error:
        raise Unavailable(_in_words(url, error)) from error


def _base(name: str) -> str:
    return name.rsplit("/", 1)[-1]


# ----------------------------------------------------------------------------------------------- transfer


def reach(url: str, seconds: float) -> None:
    """See whether anybody listens where a URL leads, or at the proxy on the way there.

    Raises:
        Unavailable: Nobody does, or not in time; the problem says why, in a few words.
    """
    from requests.utils import get_environ_proxies, select_proxy

    host = urlsplit(url).hostname
    outcome: queue.SimpleQueue[Exception | None] = queue.SimpleQueue()

    def connect() -> None:
        try:
            first = select_proxy(url, get_environ_proxies(url)) or url
            way = urlsplit(first if "://" in first else f"http://{first}")
            address = (way.hostname or "", way.port or {"https": 443}.get(way.scheme, 80))
            socket.create_connection(address, timeout=seconds).close()
            outcome.put(None)
        except Exception as error:  # also those of a malformed address
            outcome.put(error)

    # In a thread, since no timeout covers the name service: without a network it can take half a minute to say no.
    threading.Thread(target=connect, daemon=True).start()
    try:
        error = outcome.get(timeout=seconds)
    except queue.Empty:
        raise Unavailable(f"{host} gives no answer within {seconds:g} s") from None
    if error:
        raise Unavailable(_in_words(url, error)) from error


def transfer(url: str, part: Path, sha256: str, size: int | None) -> None:
    """Download a file to `part`, going on where an earlier attempt broke off.

    A part that broke off is kept for the next attempt; one with the wrong bytes is removed.

    Raises:
        DataError: The server gives other bytes than the pinned ones: final, since it would give them again.
        Unavailable: The server can't be reached, does not have the file, or breaks off each time.
    """
    import requests

    # Before any try: a host that is not there now will not be there in two seconds either.
    reach(url, CONNECT)
    trouble = ""
    for attempt in range(TRIES):
        if attempt:
            pause = BACK_OFF * 2 ** (attempt - 1)
            log.info("%s; trying again in %g s", trouble, pause)
            time.sleep(pause)
        try:
            resumed, trouble = _receive(url, part, size)
        except requests.RequestException as error:
            trouble = _in_words(url, error)
        if trouble:
            continue
        received, length = file_digest(part), part.stat().st_size
        if received == sha256 and length == (size or length):
            return
        part.unlink()
        if not resumed:
            raise _wrong(url, received, length, f"sha256 {sha256}" + (f" ({size:,} bytes)" if size else ""))
        trouble = f"{_base(url)}: the rest does not fit what an earlier attempt had left"
    raise Unavailable(trouble)


def _receive(url: str, part: Path, size: int | None) -> tuple[bool, str]:
    """One attempt: whether it went on where an earlier one broke off, and the passing trouble that it met, if any."""
    import requests

    host = urlsplit(url).hostname
    begun = part.stat().st_size if part.exists() else 0
    # As it is stored, not packed for the way: sizes and digests are those of the file.
    headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={begun}-"} if begun else {})}
    with requests.get(url, stream=True, timeout=(CONNECT, READ), headers=headers) as response:
        status = f"{host} answers {response.status_code} {response.reason}"
        resumed = response.status_code == 206
        if response.status_code == 416 or (
            resumed and not response.headers.get("Content-Range", "").startswith(f"bytes {begun}-")
        ):
            part.unlink(missing_ok=True)
            return False, status
        if response.status_code >= 500 or response.status_code in (408, 429):
            return False, status
        if not response.ok:
            raise Unavailable(f"{status} for {url}")
        announced = response.headers.get("Content-Length", "")
        total = int(announced) + begun * resumed if announced.isdigit() else size
        shown = progress(_base(url), total / 1000) if total else contextlib.nullcontext(lambda _done, _words: None)
        broken = False
        try:
            with part.open("ab" if resumed else "wb") as out, shown as advance:
                for chunk in response.iter_content(CHUNK):
                    out.write(chunk)
                    advance(out.tell() / 1000, "kB")
        except requests.RequestException:
            broken = True
        except OSError:
            # The disk, not the network: a full one is not to stay full of what can't be finished.
            part.unlink(missing_ok=True)
            raise
    length = part.stat().st_size
    if broken or (total and length < total):
        return resumed, f"{host} broke off after {length:,}{f' of {total:,}' if total else ''} bytes"
    return resumed, ""


def _in_words(url: str, error: BaseException) -> str:
    """Why a connection failed, as the innermost error has it: "example.org: Connection refused"."""
    while error.__context__:
        error = error.__context__
    return f"{urlsplit(url).hostname}: {getattr(error, 'strerror', None) or str(error) or type(error).__name__}"


def _acceptable(file: File, words: dict[str, Any]) -> str:
    pinned = f"sha256 {file.sha256}"
    listed = f", or {words['sha256']} ({words.get('bytes', '?')} bytes) as the mirror lists it" if words else ""
    return pinned + listed


def _wrong(place: Path | str, received: str, size: int | None, expected: str) -> DataError:
    if isinstance(place, str):
        remedy = "try again; if the publisher changed the file, pin its new digest in the workload's file"
    else:
        remedy = "put a sound copy there; if these bytes are meant, list their size and sha256 in its MANIFEST.json"
    return DataError(
        f"Wrong checksum: {place} is not the file that was asked for.",
        expected=expected,
        received=f"sha256 {received}" + (f" ({size:,} bytes)" if size else ""),
        remedy=remedy,
    )
