"""One file over the network: how each kind of address is asked, how a download goes on where it broke off."""

from __future__ import annotations

import json
import logging
import os
import queue
import re
import socket
import stat
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import quote, urljoin, urlsplit

from headrace.artifacts import file_digest
from headrace.errors import ConfigError, DataError, Unavailable
from headrace.spec import File

if TYPE_CHECKING:
    import requests

log = logging.getLogger(__name__)

CONNECT, READ = 5.0, 30.0
"""Seconds to wait for a connection, and for the next bytes."""
CHUNK = 1 << 14
"""Bytes that are lost at most when a connection breaks."""
TRIES = 3
BACK_OFF = 1.0
"""Seconds before the second try; doubled for each one after it."""
KAGGLE = "https://www.kaggle.com"
DRIVE = "https://drive.usercontent.google.com/download"


@dataclass(frozen=True)
class Address:
    """Where and how a file is asked for."""

    url: str
    name: str
    """What the file is called here."""
    place: str
    """What people call its address; holds no credentials."""
    auth: tuple[str, str] | None = field(default=None, repr=False)
    means: Mapping[int, str] = field(default_factory=dict)
    """Status of an answer → what it means there, for people."""
    asks_back: bool = False
    """Whether it may ask a person to confirm, on a web page, before it gives a large file."""


@dataclass(frozen=True)
class Expected:
    """What a file must be, as far as that is known."""

    sha256: str | None
    size: int | None
    asked: str = "the file that was asked for"
    remedy: str = "try again; if the publisher changed the file, pin its new digest in the workload's file"

    def __str__(self) -> str:
        size = f"{self.size:,} bytes" if self.size else ""
        if not self.sha256:
            return size
        return f"sha256 {self.sha256}" + (f" ({size})" if size else "")

    def wrong(self, place: Path | str, received: str, length: int | None = None) -> DataError:
        """The error for other bytes than these."""
        return DataError(
            f"Wrong {'checksum' if self.sha256 else 'size'}: {place} is not {self.asked}.",
            expected=self,
            received=f"sha256 {received}" + (f" ({length:,} bytes)" if length is not None else ""),
            remedy=self.remedy,
        )


class Stopped(Exception):
    """Another file can't be had, or a person has had enough: this one is left as it is, for the next attempt."""


@dataclass
class Watch:
    """How far one file is, told by the thread that brings it to the one that shows it; and the word to stop."""

    stop: threading.Event = field(default_factory=threading.Event)
    size: int | None = None
    """Bytes; None: not known yet."""
    done: int = 0

    def advance(self, done: int, size: int | None = None) -> None:
        """Tell how many bytes are there by now, and of how many.

        Raises:
            Stopped: No more are wanted.
        """
        self.done, self.size = done, size or self.size
        self.pause(0)

    def pause(self, seconds: float) -> None:
        """Wait, unless the word to stop comes.

        Raises:
            Stopped: It has come.
        """
        if self.stop.wait(seconds):
            raise Stopped


# ------------------------------------------------------------------------------------------------ addresses


def address_of(file: File) -> Address:
    """How a file's origin is asked.

    Raises:
        ConfigError: Its URL is of no known kind.
        Unavailable: It can't be asked: only a person can fetch the file, or there are no credentials.
    """
    scheme, _, rest = file.url.partition(":")
    owner, _, path = rest.removeprefix("//").partition("/")
    if scheme in ("http", "https"):
        return Address(file.url, file.name, file.url)
    if scheme == "kaggle" and path:
        rules = f"{KAGGLE}/competitions/{owner}/rules"
        auth, source = _kaggle_credentials()
        return Address(
            f"{KAGGLE}/api/v1/competitions/data/download/{quote(owner)}/{quote(path, safe='')}",
            file.name,
            file.url,
            auth,
            {
                401: f"it does not know the user and the key of {source}",
                403: f"the rules of the competition must be accepted first, at {rules}",
                404: f"there is no competition `{owner}`, or no file `{path}` in it",
            },
        )
    if scheme == "gdrive" and path:
        return Address(f"{DRIVE}?id={quote(owner)}&export=download", file.name, file.url, asks_back=True)
    if scheme == "manual" and rest:
        raise Unavailable("only a person can fetch it")
    raise ConfigError(
        f"{file.url} is no address that a file can come from.",
        expected="https://…, kaggle://COMPETITION/FILE, gdrive://ID/FILE or manual:FILE",
    )


def _kaggle_credentials() -> tuple[tuple[str, str], str]:
    """User and key of a Kaggle account, and where they were found."""
    user, key = os.environ.get("KAGGLE_USERNAME"), os.environ.get("KAGGLE_KEY")
    if user and key:
        return (user, key), "KAGGLE_USERNAME and KAGGLE_KEY"
    path = Path("~/.kaggle/kaggle.json").expanduser()
    try:
        known = json.loads(path.read_text())
        found = str(known["username"]), str(known["key"])
        if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            log.warning("others on this machine can read the key in %s: chmod 600 %s", path, path)
    except FileNotFoundError:
        raise Unavailable(
            f"Kaggle gives files to accounts only, and neither KAGGLE_USERNAME and KAGGLE_KEY nor {path} are there"
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Unavailable(f'{path} does not hold {{"username": …, "key": …}}') from error
    return found, str(path)


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


def body(url: str, *, only_ask: bool = False) -> bytes | None:
    """What a web address holds (nothing yet, if it is only asked for); None if it does not exist.

    Raises:
        Unavailable: Nobody answers.
    """
    import requests

    try:
        with requests.request("HEAD" if only_ask else "GET", url, timeout=(CONNECT, READ)) as response:
            return response.content if response.ok else None
    except requests.RequestException as error:
        raise Unavailable(_in_words(url, error)) from error


# ------------------------------------------------------------------------------------------------- transfer


def transfer(address: Address, part: Path, expected: Expected, watch: Watch) -> str:
    """Download a file to `part`, going on where an earlier attempt broke off.

    A part that broke off is kept for the next attempt; one with the wrong bytes is removed.

    Returns:
        The digest of what was received.

    Raises:
        DataError: The server gives other bytes than the pinned ones: final, since it would give them again.
        Unavailable: The server can't be reached, does not have the file, or breaks off each time.
        Stopped: No more is wanted.
    """
    import requests

    # Before any try: a host that is not there now will not be there in two seconds either.
    reach(address.url, CONNECT)
    trouble = ""
    for attempt in range(TRIES):
        if attempt:
            pause = BACK_OFF * 2 ** (attempt - 1)
            log.info("%s; trying again in %g s", trouble, pause)
            watch.pause(pause)
        try:
            with requests.Session() as session:
                resumed, trouble = _receive(session, address, part, expected, watch)
        except requests.RequestException as error:
            trouble = _in_words(address.url, error)
        if trouble:
            continue
        received, length = file_digest(part), part.stat().st_size
        _mark(part).unlink(missing_ok=True)
        if received == (expected.sha256 or received) and length == (expected.size or length):
            return received
        part.unlink()
        if not resumed:
            raise expected.wrong(address.place, received, length)
        trouble = f"{address.name}: the rest does not fit what an earlier attempt had left"
    raise Unavailable(trouble)


def _receive(
    session: requests.Session, address: Address, part: Path, expected: Expected, watch: Watch
) -> tuple[bool, str]:
    """One attempt: whether it went on where an earlier one broke off, and the passing trouble that it met, if any."""
    host = urlsplit(address.url).hostname
    begun = part.stat().st_size if part.exists() else 0
    # As it is stored, not packed for the way: sizes and digests are those of the file.
    headers = {"Accept-Encoding": "identity"}
    if begun and not expected.sha256:
        # Nothing but the server's own mark tells whether the rest belongs to what is there.
        begun *= _mark(part).exists()
        headers |= {"If-Range": _mark(part).read_text()} if begun else {}
    if begun:
        headers["Range"] = f"bytes={begun}-"
    with _answer(session, address, headers) as response:
        status = f"{host} answers {response.status_code} {response.reason}"
        resumed = bool(begun) and response.status_code == 206
        if response.status_code == 416 or (
            resumed and not response.headers.get("Content-Range", "").startswith(f"bytes {begun}-")
        ):
            part.unlink(missing_ok=True)
            return False, status
        if response.status_code >= 500 or response.status_code in (408, 429):
            return False, status
        if not response.ok:
            meaning = address.means.get(response.status_code)
            raise Unavailable(f"{status}: {meaning}" if meaning else f"{status} for {address.place}")
        if urlsplit(response.url).path.endswith(f"/{address.name}.zip"):
            raise Unavailable(f"{host} gives it packed only, as {address.name}.zip, which a person must unpack")
        # A server may take the packing of the file itself for one that is for the way.
        packed = response.headers.get("Content-Encoding", "identity") != "identity"
        packed = packed and not address.name.endswith(("gz", "bz2", "xz"))
        if packed and resumed:
            part.unlink()
            return False, f"{host} packs what it sends, and can't go on where it broke off"
        announced = response.headers.get("Content-Length", "")
        total = int(announced) + begun * resumed if announced.isdigit() and not packed else expected.size
        if expected.size and total != expected.size:
            part.unlink(missing_ok=True)
            raise DataError(
                f"Wrong size: {address.place} is not {expected.asked}.",
                expected=expected,
                received=f"{total:,} bytes, as {host} announces",
                remedy=expected.remedy,
            )
        if not expected.sha256:
            mark = response.headers.get("ETag", "") or response.headers.get("Last-Modified", "")
            _mark(part).unlink(missing_ok=True)
            if mark and not mark.startswith("W/"):
                _mark(part).write_text(mark)
        # A page of a portal, or of an error, has no digest that would give it away.
        checked = not resumed and (address.asks_back or not expected.sha256)
        try:
            with part.open("ab" if resumed else "wb") as out:
                trouble = _write(response, address, out, watch, total=total, packed=packed, checked=checked)
        except (OSError, Unavailable):
            # The disk, not the network: a full one is not to stay full of what can't be finished.
            part.unlink(missing_ok=True)
            raise
    length = part.stat().st_size
    if trouble or (total and length < total):
        return resumed, f"{host} {trouble or 'broke off'} after {length:,}{f' of {total:,}' if total else ''} bytes"
    return resumed, ""


def _write(
    response: requests.Response,
    address: Address,
    out: BinaryIO,
    watch: Watch,
    *,
    total: int | None,
    packed: bool,
    checked: bool,
) -> str:
    """Write what comes; what the connection did instead of ending well, if it did."""
    import urllib3

    chunks = response.raw.stream(CHUNK, decode_content=packed)
    while True:
        watch.advance(out.tell(), total)
        try:
            chunk = next(chunks, None)
        except urllib3.exceptions.ReadTimeoutError:
            return f"sent nothing for {READ:g} s"
        except urllib3.exceptions.HTTPError:
            return "broke off"
        if chunk is None:
            return ""
        watch.pause(0)
        if checked and _is_page(chunk) and not address.name.endswith((".html", ".htm")):
            raise _page_instead(address, chunk)
        checked = False
        out.write(chunk)


def _mark(part: Path) -> Path:
    """Where the server's own mark of the bytes in a part is kept (its ETag)."""
    return part.with_name(f"{part.name}.mark")


def _in_words(url: str, error: BaseException) -> str:
    """Why a connection failed, as the innermost error has it: "example.org: Connection refused"."""
    while error.__context__:
        error = error.__context__
    return f"{urlsplit(url).hostname}: {getattr(error, 'strerror', None) or str(error) or type(error).__name__}"


# ------------------------------------------------------------------------------- pages instead of the file


class _Page(HTMLParser):
    """What matters in a web page: its title, and the form by which a download is confirmed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.title = ""
        self.action: str | None = None
        self.fields: dict[str, str] = {}
        self._in_title = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note the form and what it would send."""
        given = {name: value or "" for name, value in attrs}
        self._in_title = tag == "title"
        if tag == "form":
            self.action = given.get("action", "")
        elif tag == "input" and self.action is not None and given.get("name"):
            self.fields[given["name"]] = given.get("value", "")

    def handle_endtag(self, tag: str) -> None:
        """Note the end of the title."""
        self._in_title = False

    def handle_data(self, data: str) -> None:
        """Note the title."""
        self.title += data if self._in_title else ""


def _answer(session: requests.Session, address: Address, headers: Mapping[str, str]) -> requests.Response:
    """The answer that brings the file, after a confirmation where one is wanted."""
    # Pages know nothing of ranges; what needs no confirmation is small enough to come again from its beginning.
    first = {name: value for name, value in headers.items() if name != "Range"} if address.asks_back else headers
    response = session.get(address.url, auth=address.auth, stream=True, timeout=(CONNECT, READ), headers=first)
    if not (address.asks_back and response.ok and response.headers.get("Content-Type", "").startswith("text/html")):
        return response
    with response:
        text: bytes = next(response.iter_content(1 << 20), b"")
    page = _Page(text.decode(errors="replace"))
    if not page.action or "confirm" not in page.fields:
        raise _page_instead(address, text)
    confirmed = urljoin(response.url, page.action)
    return session.get(confirmed, params=page.fields, stream=True, timeout=(CONNECT, READ), headers=headers)


def _is_page(first: bytes) -> bool:
    return bool(re.match(rb"(\xef\xbb\xbf)?\s*(<!doctype html|<html)", first, re.IGNORECASE))


def _page_instead(address: Address, text: bytes) -> Unavailable:
    title = " ".join(_Page(text.decode(errors="replace")).title.split())
    host = urlsplit(address.url).hostname
    return Unavailable(
        f"{host} gives a web page instead of the file" + (f', with the title "{title}"' if title else "")
    )
