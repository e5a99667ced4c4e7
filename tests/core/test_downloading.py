"""Raw files come from cache, mirror, origin or twin: whole, verified, and with the way they took written down."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import socket
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headrace import downloading, projects
from headrace.artifacts import Artifact
from headrace.downloading import download
from headrace.errors import ConfigError, DataError, SystemTrouble, Unavailable
from headrace.getting import fetching, origins
from headrace.jobs import Job
from headrace.spec import File, Pipeline
from tests.core.serving import Web, serving

JobFactory = Callable[..., Job]
NAME = "boston_housing.npz"


def packed(seed: int = 0, rows: int = 40) -> bytes:
    """An archive in the format of the Boston file."""
    random = np.random.default_rng(seed)
    out = io.BytesIO()
    np.savez(out, x=random.random((rows, 13)), y=random.random(rows))
    return out.getvalue()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


BYTES = packed()
OTHERS = packed(seed=1)
"""Sound data, but not what was pinned."""


@pytest.fixture
def web() -> Iterator[Web]:
    """A web server on this machine."""
    with serving() as server:
        yield server


@pytest.fixture
def origin(web: Web) -> Web:
    """The server that the workload's file comes from, with the file."""
    web.files[f"/{NAME}"] = BYTES
    return web


@pytest.fixture
def offline() -> str:
    """An address where nobody listens."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{unused.getsockname()[1]}"


Pin = Callable[..., Pipeline]


@pytest.fixture
def pin(monkeypatch: pytest.MonkeyPatch) -> Pin:
    """Let the house prices come from somewhere else; state only what differs."""
    pipeline = projects.load("house_prices")

    def make(url: str, size: int | None = None, data: bytes = BYTES, **changes: Any) -> Pipeline:
        files = (File(url=f"{url}/{NAME}", sha256=sha256(data), size=size),)
        boston = pipeline.sources["boston"].model_copy(update={"files": files, **changes})
        made = pipeline.model_copy(update={"sources": {"boston": boston}})
        monkeypatch.setattr(projects, "load", lambda name: made)
        return made

    return make


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A mirror in a folder, empty."""
    folder = tmp_path / "mirror"
    folder.mkdir()
    monkeypatch.setenv("HEADRACE_MIRROR", str(folder))
    return folder


def mirrored(folder: Path, data: bytes = BYTES, *, listed: bytes | None = None, **words: Any) -> Path:
    """Put a file into a mirror, and list some bytes in its manifest."""
    path = folder / "boston_housing" / NAME
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    if listed is not None:
        entry = {"file": f"boston_housing/{NAME}", "bytes": len(listed), "sha256": sha256(listed), **words}
        (folder / "MANIFEST.json").write_text(json.dumps([entry]))
    return path


def bytes_of(artifact: Artifact) -> bytes:
    return (artifact.path / NAME).read_bytes()


def voucher(artifact: Artifact) -> str:
    return artifact.json("data.json")["files"][NAME]["vouched_by"]


def way(artifact: Artifact) -> str:
    return artifact.json("lineage.json")["files"][NAME]["way"]


def left_behind(home: Path) -> list[str]:
    """Everything in the home but locks, the note on what can't be reached, and what is finished and verified."""
    finished = {p.parent for p in home.glob("artifacts/*/*/*/manifest.json")}
    cached = {p for p in home.glob("cache/*/*") if p.is_file() and sha256(p.read_bytes()) == p.parent.name}
    return sorted(
        str(path.relative_to(home))
        for path in home.rglob("*")
        if path.is_file()
        and path.suffix != ".lock"
        and path.name != "unreachable.json"
        and path.parent.name != "index"
        and not (finished & set(path.parents) or path in cached)
    )


@pytest.fixture(autouse=True)
def _impatient_and_without_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(origins, "BACK_OFF", 0.01)
    monkeypatch.setattr(origins, "CHUNK", 100)


class TestOrder:
    def test_the_origin_gives_the_file_whole_and_verified(self, origin: Web, pin: Pin, job: JobFactory) -> None:
        pin(origin.url, size=len(BYTES))
        raw = download(job(data="real"))

        assert bytes_of(raw) == BYTES
        assert raw.json("data.json") == {
            "data": "real",
            "source": "boston",
            "files": {NAME: {"sha256": sha256(BYTES), "size": len(BYTES), "vouched_by": "origin"}},
        }
        lineage = raw.json("lineage.json")["files"][NAME]
        assert lineage["way"] == "origin"
        assert lineage["place"] == f"{origin.url}/{NAME}"
        assert lineage["pinned"] == {"url": f"{origin.url}/{NAME}", "sha256": sha256(BYTES), "size": len(BYTES)}

    def test_a_mirror_is_asked_before_the_origin(self, origin: Web, pin: Pin, job: JobFactory, folder: Path) -> None:
        pin(origin.url)
        mirrored(folder)
        raw = download(job(data="real"))

        assert (bytes_of(raw), way(raw), voucher(raw)) == (BYTES, "mirror", "origin")
        assert origin.asked == []

    def test_the_cache_is_asked_before_the_mirror(self, origin: Web, pin: Pin, job: JobFactory, folder: Path) -> None:
        pin(origin.url)
        download(job(data="real"))
        mirrored(folder, OTHERS)
        raw = download(job(data="auto"))

        assert (bytes_of(raw), way(raw), voucher(raw)) == (BYTES, "cache", "origin")
        assert len(origin.gets(f"/{NAME}")) == 1

    def test_a_mirror_may_hold_the_file_at_its_top(self, offline: str, pin: Pin, job: JobFactory, folder: Path) -> None:
        pin(offline)
        (folder / NAME).write_bytes(BYTES)
        assert bytes_of(download(job(data="real"))) == BYTES

    def test_a_mirror_without_the_file_leads_to_the_origin(
        self, origin: Web, pin: Pin, job: JobFactory, folder: Path
    ) -> None:
        pin(origin.url)
        (folder / "MANIFEST.json").write_text("no JSON")
        assert way(download(job(data="real"))) == "origin"

    def test_a_damaged_file_in_the_cache_is_fetched_again(
        self, origin: Web, pin: Pin, job: JobFactory, headrace_home: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        pin(origin.url)
        download(job(data="real"))
        (cached,) = headrace_home.glob(f"cache/*/{NAME}")
        cached.unlink()
        cached.write_bytes(BYTES[:-1] + b"!")
        raw = download(job(data="auto"))

        assert (bytes_of(raw), way(raw), cached.read_bytes()) == (BYTES, "origin", BYTES)
        assert f"{NAME} in the cache is damaged" in caplog.text

    def test_a_damaged_file_in_the_cache_is_dropped_even_if_it_can_not_be_fetched_again(
        self, offline: str, pin: Pin, job: JobFactory, headrace_home: Path
    ) -> None:
        pin(offline)
        cached = headrace_home / "cache" / sha256(BYTES) / NAME
        cached.parent.mkdir(parents=True)
        cached.write_bytes(BYTES[:-1])
        with pytest.raises(Unavailable, match="it is not in the cache"):
            download(job(data="real"))
        assert not cached.exists()

    def test_what_is_linked_to_the_cache_can_not_be_edited_by_mistake(
        self, origin: Web, pin: Pin, job: JobFactory
    ) -> None:
        pin(origin.url)
        assert (download(job(data="real")).path / NAME).stat().st_mode & 0o222 == 0

    def test_a_second_run_asks_nobody(self, origin: Web, pin: Pin, job: JobFactory) -> None:
        pin(origin.url)
        made = download(job(data="real"))
        asked = len(origin.asked)
        found = download(job(data="real", seed=3))

        assert (found.state, found.digest) == ("skipped", made.digest)
        assert len(origin.asked) == asked

    def test_two_at_once_download_it_once(self, origin: Web, pin: Pin, job: JobFactory) -> None:
        pin(origin.url)
        origin.pause = 0.2
        made: list[Artifact] = []
        jobs = [job(data="real"), job(data="auto")]
        threads = [threading.Thread(target=lambda asked=asked: made.append(download(asked))) for asked in jobs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert [bytes_of(raw) for raw in made] == [BYTES, BYTES]
        assert len(origin.gets(f"/{NAME}")) == 1


class TestMirror:
    def test_vouches_for_its_own_bytes_in_its_manifest(
        self, offline: str, pin: Pin, job: JobFactory, folder: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level("INFO")
        pin(offline)
        path = mirrored(folder, OTHERS, listed=OTHERS, kind="packed anew", source=[{"path": "housing.data"}])
        raw = download(job(data="real"))

        assert (bytes_of(raw), voucher(raw)) == (OTHERS, "mirror")
        lineage = raw.json("lineage.json")["files"][NAME]
        assert lineage["place"] == str(path)
        assert lineage["kind"] == "packed anew"
        assert lineage["source"] == [{"path": "housing.data"}]
        assert f"{NAME}: not the origin's bytes; the mirror vouches for them (packed anew)" in caplog.text

    def test_vouches_in_a_list_of_checksums_too(self, offline: str, pin: Pin, job: JobFactory, folder: Path) -> None:
        pin(offline)
        mirrored(folder, OTHERS)
        (folder / "SHA256SUMS").write_text(f"# ours\n{sha256(OTHERS)}  ./boston_housing/{NAME}\n")
        assert voucher(download(job(data="real"))) == "mirror"

    def test_does_not_make_its_bytes_the_origins(
        self, origin: Web, pin: Pin, job: JobFactory, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The cache holds them under their own digest."""
        pin(origin.url)
        mirrored(folder, OTHERS, listed=OTHERS)
        download(job(data="real"))
        monkeypatch.delenv("HEADRACE_MIRROR")
        raw = download(job(data="real"))

        assert (bytes_of(raw), voucher(raw), way(raw)) == (BYTES, "origin", "origin")

    def test_bytes_that_nobody_vouches_for_are_a_wrong_checksum(
        self, origin: Web, pin: Pin, job: JobFactory, folder: Path, headrace_home: Path
    ) -> None:
        pin(origin.url)
        path = mirrored(folder, OTHERS, listed=b"others still")
        with pytest.raises(DataError) as caught:
            download(job(data="auto"))

        assert str(caught.value) == (
            f"Wrong checksum: {path} is not the file that was asked for.\n"
            f"  expected: sha256 {sha256(BYTES)}, or {sha256(b'others still')} (12 bytes) as the mirror lists it\n"
            f"  received: sha256 {sha256(OTHERS)} ({len(OTHERS):,} bytes)\n"
            "  to go on: put a sound copy there; "
            "if these bytes are meant, list their size and sha256 in its MANIFEST.json"
        )
        assert not isinstance(caught.value, Unavailable)
        assert (left_behind(headrace_home), origin.asked) == ([], [])

    def test_a_wrong_size_in_the_manifest_vouches_for_nothing(
        self, offline: str, pin: Pin, job: JobFactory, folder: Path
    ) -> None:
        pin(offline)
        mirrored(folder, OTHERS, listed=OTHERS, bytes=len(OTHERS) + 1)
        with pytest.raises(DataError, match="Wrong checksum"):
            download(job(data="real"))

    def test_a_digest_in_the_manifest_must_be_one(
        self, web: Web, offline: str, pin: Pin, job: JobFactory, monkeypatch: pytest.MonkeyPatch, headrace_home: Path
    ) -> None:
        """It names a folder of the cache."""
        pin(offline)
        web.files[f"/{NAME}"] = OTHERS
        web.files["/MANIFEST.json"] = json.dumps([{"file": NAME, "sha256": "../../elsewhere"}]).encode()
        monkeypatch.setenv("HEADRACE_MIRROR", web.url)
        with pytest.raises(DataError, match="Wrong checksum"):
            download(job(data="real"))
        assert not (headrace_home.parent / "elsewhere").exists()

    def test_files_of_one_name_are_told_apart_by_the_pinned_digest(
        self, offline: str, pin: Pin, job: JobFactory, folder: Path
    ) -> None:
        pin(offline)
        (folder / "another").mkdir()
        (folder / "another" / NAME).write_bytes(OTHERS)
        mirrored(folder, BYTES)
        assert bytes_of(download(job(data="real"))) == BYTES

    def test_files_of_one_name_that_nothing_tells_apart_are_refused(
        self, offline: str, pin: Pin, job: JobFactory, folder: Path
    ) -> None:
        """Whichever was meant, the other one could be another data set altogether."""
        pin(offline)
        (folder / "another").mkdir()
        (folder / "another" / NAME).write_bytes(packed(seed=2))
        mirrored(folder, OTHERS, listed=OTHERS)
        with pytest.raises(DataError, match=f"The mirror holds several files {NAME}"):
            download(job(data="real"))

    def test_that_does_not_exist_is_named(
        self, offline: str, pin: Pin, job: JobFactory, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pin(offline)
        monkeypatch.setenv("HEADRACE_MIRROR", "/nowhere")
        with pytest.raises(Unavailable, match="the mirror: /nowhere is no folder"):
            download(job(data="real"))

    def test_a_later_one_changes_nothing_once_the_origins_file_is_there(
        self, origin: Web, pin: Pin, job: JobFactory, folder: Path
    ) -> None:
        pin(origin.url)
        download(job(data="real"))
        mirrored(folder, OTHERS, listed=OTHERS)
        assert download.plan(job(data="real")).state == "skipped"

    def test_a_changed_byte_is_noticed_and_named(self, offline: str, pin: Pin, job: JobFactory, folder: Path) -> None:
        pin(offline)
        mirrored(folder, OTHERS, listed=OTHERS)
        first = download(job(data="real"))
        assert download.plan(job(data="real")).state == "skipped"

        changed = packed(seed=2)
        mirrored(folder, changed, listed=changed)
        planned = download.plan(job(data="real"))
        before, after = sha256(OTHERS)[:20], sha256(changed)[:20]
        assert planned.reason == (
            f'`files.{NAME}` "{before}, vouched for by the mirror" → "{after}, vouched for by the mirror"'
        )
        second = download(job(data="real"))
        assert bytes_of(second) == changed
        assert bytes_of(first) == OTHERS

    def test_a_changed_byte_that_is_not_listed_is_a_wrong_checksum(
        self, offline: str, pin: Pin, job: JobFactory, folder: Path
    ) -> None:
        pin(offline)
        path = mirrored(folder, OTHERS, listed=OTHERS)
        download(job(data="real"))
        path.write_bytes(OTHERS[:-1] + b"!")

        assert "vouched for by nobody" in download.plan(job(data="real")).reason
        with pytest.raises(DataError, match="Wrong checksum"):
            download(job(data="real"))

    @pytest.mark.parametrize("share", [0.5, 0.95])
    def test_may_vouch_for_a_truncated_archive_but_it_is_not_read(
        self, offline: str, pin: Pin, job: JobFactory, folder: Path, share: float
    ) -> None:
        pipeline = pin(offline)
        part = BYTES[: int(len(BYTES) * share)]
        mirrored(folder, part, listed=part)
        raw = download(job(data="real"))
        with pytest.raises(DataError, match=f"{NAME} can't be read: it is truncated or damaged"):
            pipeline.sources["boston"].read(raw.path)


class TestMirrorOnTheWeb:
    @pytest.fixture(autouse=True)
    def _is_set(self, web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HEADRACE_MIRROR", web.url)

    @pytest.mark.parametrize("path", [f"boston_housing/{NAME}", NAME])
    def test_gives_what_its_manifest_lists(self, web: Web, offline: str, pin: Pin, job: JobFactory, path: str) -> None:
        pin(offline)
        web.files[f"/{path}"] = OTHERS
        entry = {"file": path, "bytes": len(OTHERS), "sha256": sha256(OTHERS), "kind": "packed anew"}
        web.files["/MANIFEST.json"] = json.dumps([entry]).encode()
        raw = download(job(data="real"))

        assert (bytes_of(raw), voucher(raw), way(raw)) == (OTHERS, "mirror", "mirror")
        assert raw.json("lineage.json")["files"][NAME]["kind"] == "packed anew"
        assert download(job(data="real")).state == "skipped"

    def test_without_a_manifest_must_give_the_pinned_bytes(
        self, web: Web, offline: str, pin: Pin, job: JobFactory
    ) -> None:
        pin(offline)
        web.files[f"/{NAME}"] = OTHERS
        with pytest.raises(DataError, match=f"Wrong checksum: {web.url}/{NAME}"):
            download(job(data="real"))
        web.files[f"/{NAME}"] = BYTES
        assert voucher(download(job(data="real"))) == "origin"

    def test_that_does_not_deliver_leads_to_the_origin(self, web: Web, pin: Pin, job: JobFactory) -> None:
        pin(f"{web.url}/origin")
        web.files[f"/origin/{NAME}"] = BYTES
        web.files["/MANIFEST.json"] = json.dumps([{"file": NAME, "sha256": sha256(BYTES)}]).encode()
        raw = download(job(data="real"))
        assert (way(raw), web.gets(f"/{NAME}")) == ("origin", [None])

    def test_that_is_down_is_named(
        self, offline: str, pin: Pin, job: JobFactory, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pin(offline)
        monkeypatch.setenv("HEADRACE_MIRROR", offline)
        with pytest.raises(Unavailable, match=r"the mirror: 127\.0\.0\.1: Connection refused"):
            download(job(data="real"))


class TestOrigin:
    def test_a_missing_file_is_asked_for_once(self, web: Web, pin: Pin, job: JobFactory, headrace_home: Path) -> None:
        pin(web.url)
        with pytest.raises(Unavailable, match=f"answers 404 Not Found for {web.url}"):
            download(job(data="real"))
        assert (web.gets(f"/{NAME}"), left_behind(headrace_home)) == ([None], [])

    def test_a_broken_connection_is_resumed_where_it_broke(self, origin: Web, pin: Pin, job: JobFactory) -> None:
        pin(origin.url)
        origin.faults = ["break 1000", "break 500"]
        raw = download(job(data="real"))

        assert origin.gets(f"/{NAME}") == [None, "bytes=1000-", "bytes=1500-"]
        assert bytes_of(raw) == BYTES

    @pytest.mark.parametrize("fault", ["unknown break 1000", "chunked break 1000"])
    def test_a_broken_connection_is_noticed_though_no_length_was_announced(
        self, origin: Web, pin: Pin, job: JobFactory, fault: str
    ) -> None:
        pin(origin.url, size=len(BYTES) if fault.startswith("unknown") else None)
        origin.faults = [fault]
        assert bytes_of(download(job(data="real"))) == BYTES
        assert origin.gets(f"/{NAME}") == [None, "bytes=1000-"]

    def test_a_later_run_goes_on_where_an_earlier_one_gave_up(
        self, origin: Web, pin: Pin, job: JobFactory, headrace_home: Path
    ) -> None:
        pin(origin.url)
        origin.faults = ["break 1000", "break 500", "break 100"]
        with pytest.raises(Unavailable, match=f"broke off after 1,600 of {len(BYTES):,} bytes"):
            download(job(data="real"))
        assert [Path(p).name for p in left_behind(headrace_home)] == [f".{NAME}.part"]

        assert bytes_of(download(job(data="real"))) == BYTES
        assert origin.gets(f"/{NAME}")[-1] == "bytes=1600-"
        assert left_behind(headrace_home) == []

    def test_a_server_that_knows_no_ranges_starts_again(self, origin: Web, pin: Pin, job: JobFactory) -> None:
        pin(origin.url)
        origin.ranges = False
        origin.faults = ["break 1000"]
        assert bytes_of(download(job(data="real"))) == BYTES

    def test_a_server_that_answers_another_range_is_asked_for_the_whole(
        self, origin: Web, pin: Pin, job: JobFactory
    ) -> None:
        pin(origin.url)
        origin.faults = ["break 1000", "range"]
        assert bytes_of(download(job(data="real"))) == BYTES
        assert origin.gets(f"/{NAME}") == [None, "bytes=1000-", None]

    def test_a_part_that_does_not_fit_is_dropped(
        self, origin: Web, pin: Pin, job: JobFactory, headrace_home: Path
    ) -> None:
        pin(origin.url)
        part = headrace_home / "cache" / sha256(BYTES) / f".{NAME}.part"
        part.parent.mkdir(parents=True)
        part.write_bytes(b"something else")
        assert bytes_of(download(job(data="real"))) == BYTES
        assert origin.gets(f"/{NAME}") == ["bytes=14-", None]

    def test_a_part_that_is_too_long_is_dropped(
        self, origin: Web, pin: Pin, job: JobFactory, headrace_home: Path
    ) -> None:
        pin(origin.url)
        part = headrace_home / "cache" / sha256(BYTES) / f".{NAME}.part"
        part.parent.mkdir(parents=True)
        part.write_bytes(BYTES)
        assert bytes_of(download(job(data="real"))) == BYTES

    def test_a_passing_trouble_of_the_server_is_waited_out(
        self, origin: Web, pin: Pin, job: JobFactory, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level("INFO")
        pin(origin.url)
        origin.faults = [503, 500]
        assert bytes_of(download(job(data="real"))) == BYTES
        assert "127.0.0.1 answers 503 Service Unavailable; trying again in 0.01 s" in caplog.text
        assert "127.0.0.1 answers 500 Internal Server Error; trying again in 0.02 s" in caplog.text

    def test_a_lasting_trouble_of_the_server_ends_after_three_tries(
        self, origin: Web, pin: Pin, job: JobFactory, headrace_home: Path
    ) -> None:
        pin(origin.url)
        origin.faults = [503, 503, 503]
        with pytest.raises(Unavailable, match="answers 503 Service Unavailable"):
            download(job(data="real"))
        assert (len(origin.gets(f"/{NAME}")), left_behind(headrace_home)) == (3, [])

    def test_a_length_that_is_never_reached_is_not_taken_for_the_file(
        self, origin: Web, pin: Pin, job: JobFactory
    ) -> None:
        pin(origin.url)
        origin.ranges = False
        origin.faults = ["long", "long", "long"]
        with pytest.raises(Unavailable, match=f"broke off after {len(BYTES):,} of {len(BYTES) + 50:,} bytes"):
            download(job(data="real"))

    def test_a_length_that_is_too_short_is_a_wrong_checksum(self, origin: Web, pin: Pin, job: JobFactory) -> None:
        pin(origin.url)
        origin.faults = ["short"]
        with pytest.raises(DataError, match="Wrong checksum"):
            download(job(data="real"))

    def test_a_file_of_unknown_length_is_taken(self, origin: Web, pin: Pin, job: JobFactory) -> None:
        pin(origin.url)
        origin.faults = ["unknown"]
        assert bytes_of(download(job(data="real"))) == BYTES

    def test_a_wrong_checksum_is_final(self, origin: Web, pin: Pin, job: JobFactory, headrace_home: Path) -> None:
        pin(origin.url, size=len(BYTES))
        origin.files[f"/{NAME}"] = OTHERS
        with pytest.raises(DataError) as caught:
            download(job(data="auto"))

        assert not isinstance(caught.value, Unavailable)
        assert str(caught.value) == (
            f"Wrong checksum: {origin.url}/{NAME} is not the file that was asked for.\n"
            f"  expected: sha256 {sha256(BYTES)} ({len(BYTES):,} bytes)\n"
            f"  received: sha256 {sha256(OTHERS)} ({len(OTHERS):,} bytes)\n"
            "  to go on: try again; if the publisher changed the file, pin its new digest in the workload's file"
        )
        assert (origin.gets(f"/{NAME}"), left_behind(headrace_home)) == ([None], [])

    def test_a_size_that_differs_from_the_pinned_one_is_refused(self, origin: Web, pin: Pin, job: JobFactory) -> None:
        pin(origin.url, size=len(BYTES) - 1)
        with pytest.raises(DataError, match=f"expected: sha256 {sha256(BYTES)} .{len(BYTES) - 1:,} bytes"):
            download(job(data="real"))

    def test_a_full_disk_is_told_and_left_as_it_was(
        self, origin: Web, pin: Pin, job: JobFactory, headrace_home: Path, full_disk: Callable[[], None]
    ) -> None:
        large = packed(rows=1000)
        origin.files[f"/{NAME}"] = large
        pin(origin.url, data=large)
        full_disk()
        with pytest.raises(SystemTrouble, match="No room left"):
            download(job(data="auto"))
        assert left_behind(headrace_home) == []


class TestOffline:
    @pytest.fixture(autouse=True)
    def _no_waiting(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def never(watch: origins.Watch, seconds: float) -> None:
            assert not seconds, f"waited {seconds} s for a host that is not there"

        monkeypatch.setattr(origins.Watch, "pause", never)

    def test_it_is_said_what_is_missing_where_it_would_come_from_and_how_to_go_on(
        self, pin: Pin, job: JobFactory, headrace_home: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def unknown(address: tuple[str, int], timeout: float) -> None:
            raise socket.gaierror(-2, "Name or service not known")

        monkeypatch.setattr(origins.socket, "create_connection", unknown)
        pin("https://example.org/data")
        with pytest.raises(Unavailable) as caught:
            download(job(data="real"))

        assert str(caught.value) == (
            f"{NAME} can't be had: it is not in the cache; no mirror is set (HEADRACE_MIRROR); "
            "example.org: Name or service not known.\n"
            f"  expected: the file from https://example.org/data/{NAME} (sha256 {sha256(BYTES)})\n"
            f"  to go on: connect to the network; or put what you fetched by hand at {headrace_home}/manual/{NAME}; or "
            "set HEADRACE_MIRROR to a folder that holds it under this name; or use made-up data: --data synthetic"
        )
        assert left_behind(headrace_home) == []

    def test_a_refused_connection_is_told_at_once(self, offline: str, pin: Pin, job: JobFactory) -> None:
        pin(offline)
        with pytest.raises(Unavailable, match=r"127\.0\.0\.1: Connection refused"):
            download(job(data="real"))

    def test_a_name_service_that_says_nothing_is_not_waited_for(
        self, pin: Pin, job: JobFactory, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        silence = threading.Event()
        monkeypatch.setattr(origins.socket, "getaddrinfo", lambda *address, **options: silence.wait(30))
        monkeypatch.setattr(origins, "CONNECT", 0.1)
        pin("https://example.org")
        begun = time.monotonic()
        with pytest.raises(Unavailable, match=r"example\.org gives no answer within 0\.1 s"):
            download(job(data="real"))
        silence.set()
        assert time.monotonic() - begun < 2

    def test_a_mirror_that_lacks_the_file_is_named(self, offline: str, pin: Pin, job: JobFactory, folder: Path) -> None:
        pin(offline)
        with pytest.raises(Unavailable, match=f"it is not in the mirror {folder}"):
            download(job(data="real"))

    def test_the_proxy_is_what_must_be_reached(self, web: Web, offline: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("no_proxy")
        monkeypatch.setenv("http_proxy", offline.removeprefix("http://"))
        with pytest.raises(Unavailable, match="Connection refused"):
            origins.reach("http://example.org", 1)
        monkeypatch.setenv("http_proxy", web.url)
        origins.reach("http://example.org", 1)


class TestAuto:
    def test_falls_back_to_the_twin_and_says_so(
        self, offline: str, pin: Pin, job: JobFactory, caplog: pytest.LogCaptureFixture
    ) -> None:
        pin(offline)
        raw = download(job(data="auto"))

        assert raw.json("data.json")["data"] == "synthetic"
        assert (voucher(raw), way(raw)) == ("twin", "twin")
        (said,) = [record for record in caplog.records if record.levelname == "WARNING"]
        lines = said.getMessage().splitlines()
        assert lines[0].startswith("THE DATA OF THIS RUN ARE MADE UP by the synthetic twin of `boston`")
        assert lines[1].startswith(f"  why: {NAME} can't be had: it is not in the cache; no mirror is set")
        assert lines[2] == (
            "  for the real data: connect to the network, or set HEADRACE_MIRROR to a folder that holds " + NAME
        )
        assert len(lines) == 3

    def test_makes_up_the_same_as_when_asked_to(self, offline: str, pin: Pin, job: JobFactory) -> None:
        pin(offline)
        assert download(job(data="auto")).digest == download(job(data="synthetic")).digest

    def test_uses_the_real_data_where_they_can_be_had(self, origin: Web, pin: Pin, job: JobFactory) -> None:
        pin(origin.url)
        assert download(job(data="auto")).json("data.json")["data"] == "real"

    @pytest.mark.parametrize("data", [BYTES, OTHERS], ids=["the origin's bytes", "its own"])
    def test_goes_back_to_the_real_data_when_a_mirror_appears(
        self, offline: str, pin: Pin, job: JobFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: bytes
    ) -> None:
        pin(offline)
        download(job(data="auto"))
        assert download(job(data="auto")).state == "skipped"

        folder = tmp_path / "mirror"
        folder.mkdir()
        mirrored(folder, data, listed=data)
        monkeypatch.setenv("HEADRACE_MIRROR", str(folder))
        planned = download.plan(job(data="auto"))
        assert planned.state == "run"
        assert planned.reason == (
            "made before, but the real data can be had now"
            if data == BYTES
            else f'`files.{NAME}` "{sha256(BYTES)[:20]}" → "{sha256(OTHERS)[:20]}, vouched for by the mirror"'
        )
        raw = download(job(data="auto"))
        assert (raw.json("data.json")["data"], bytes_of(raw)) == ("real", data)

    def test_goes_back_to_the_real_data_when_another_run_has_cached_them(
        self, origin: Web, pin: Pin, job: JobFactory
    ) -> None:
        pin(origin.url)
        origin.faults = [404]
        assert voucher(download(job(data="auto"))) == "twin"
        download(job(data="real"))
        assert voucher(download(job(data="auto"))) == "origin"

    def test_asks_the_origin_again_only_after_a_while(
        self, origin: Web, pin: Pin, job: JobFactory, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pin(origin.url)
        origin.faults = [404]
        download(job(data="auto"))
        assert download(job(data="auto")).state == "skipped"
        assert len(origin.asked) == 1

        monkeypatch.setattr(downloading, "LATELY", 0.0)
        raw = download(job(data="auto"))
        assert (raw.reason, voucher(raw)) == ("made before, but the real data can be had now", "origin")

    def test_an_origin_that_is_still_away_is_noted_anew(
        self, offline: str, pin: Pin, job: JobFactory, headrace_home: Path
    ) -> None:
        pin(offline)
        download(job(data="auto"))
        note = headrace_home / "cache" / "unreachable.json"
        note.write_text(json.dumps({f"{offline}/{NAME}": time.time() - 601}))
        assert download(job(data="auto")).state == "skipped"
        assert time.time() - json.loads(note.read_text())[f"{offline}/{NAME}"] < 60

    def test_a_clock_that_was_put_back_does_not_silence_the_question_for_ever(
        self, origin: Web, pin: Pin, job: JobFactory, headrace_home: Path
    ) -> None:
        pin(origin.url)
        origin.faults = [404]
        download(job(data="auto"))
        note = headrace_home / "cache" / "unreachable.json"
        note.write_text(json.dumps({f"{origin.url}/{NAME}": time.time() + 1e6}))
        assert download.plan(job(data="auto")).state == "run"

    def test_real_data_stand_without_cache_and_network(
        self, origin: Web, pin: Pin, job: JobFactory, headrace_home: Path
    ) -> None:
        pin(origin.url)
        download(job(data="auto"))
        (cached,) = headrace_home.glob(f"cache/*/{NAME}")
        cached.unlink()
        origin.faults = [404, 404]
        assert download(job(data="auto")).state == "skipped"

    def test_made_up_data_that_were_asked_for_stand_whatever_can_be_had(
        self, origin: Web, pin: Pin, job: JobFactory
    ) -> None:
        pin(origin.url)
        download(job(data="synthetic"))
        assert download(job(data="synthetic")).state == "skipped"
        assert origin.asked == []

    def test_without_a_twin_nothing_takes_the_place_of_the_real_data(
        self, offline: str, pin: Pin, job: JobFactory
    ) -> None:
        pin(offline, twin=None)
        with pytest.raises(Unavailable):
            download(job(data="auto"))


class TestTwin:
    def test_does_not_depend_on_the_seed_of_training(self, job: JobFactory, tmp_path: Path) -> None:
        first = download(job(seed=5))
        twin = job().origin.twin
        assert twin
        twin(tmp_path, 0)
        assert bytes_of(first) == (tmp_path / NAME).read_bytes()
        assert download(job(seed=1)).path == first.path

    def test_its_code_counts_only_where_it_may_be_called(self, job: JobFactory) -> None:
        facts = {data: downloading._facts(job(data=data)) for data in ("synthetic", "auto", "real")}
        assert [data for data, known in facts.items() if "twin" in known] == ["synthetic", "auto"]
        assert [data for data, known in facts.items() if "files" in known] == ["auto", "real"]

    def test_writes_what_the_source_reads(self, job: JobFactory) -> None:
        raw = download(job())
        splits = job().origin.read(raw.path)
        assert [sum(batch.num_rows for batch in splits[split]) for split in ("train", "test")] == [404, 102]

    def test_is_missing_where_a_source_has_none(self, offline: str, pin: Pin, job: JobFactory) -> None:
        pin(offline, twin=None)
        with pytest.raises(ConfigError, match="The source `boston` has no synthetic twin") as caught:
            download(job(data="synthetic"))
        assert "expected: --data real" in str(caught.value)

    def test_may_be_all_that_a_source_has(
        self, offline: str, pin: Pin, job: JobFactory, caplog: pytest.LogCaptureFixture
    ) -> None:
        pin(offline, files=())
        assert download(job(data="auto")).json("data.json")["data"] == "synthetic"
        assert caplog.text == ""
        with pytest.raises(ConfigError, match="The source `boston` has no real data"):
            download(job(data="real"))

    def test_a_source_with_neither_files_nor_twin_is_refused(self, offline: str, pin: Pin, job: JobFactory) -> None:
        pin(offline, files=(), twin=None)
        with pytest.raises(ConfigError, match=r"expected: `files`, `tfds` or a `twin` in pipelines/house_prices\.py"):
            download(job(data="auto"))


class TestUnpinned:
    @pytest.fixture
    def unpinned(self, origin: Web, pin: Pin) -> Web:
        """The server of a file whose digest nobody gives."""
        pin(origin.url, files=(File(url=f"{origin.url}/{NAME}", hint="ask the librarian"),))
        return origin

    def test_files_are_skipped_once_they_are_there(self, unpinned: Web, job: JobFactory) -> None:
        assert download.plan(job(data="real")).state == "run"
        raw = download(job(data="real"))
        assert (bytes_of(raw), voucher(raw)) == (BYTES, "nobody")
        assert raw.json("lineage.json")["files"][NAME]["pinned"] == {"url": f"{unpinned.url}/{NAME}"}
        assert download.plan(job(data="real")).state == "skipped"
        assert download(job(data="real")).digest == raw.digest

    def test_files_are_taken_again_if_other_bytes_are_in_force(
        self, unpinned: Web, job: JobFactory, folder: Path, headrace_home: Path
    ) -> None:
        download(job(data="real"))
        mirrored(folder, OTHERS, listed=OTHERS)
        assert download.plan(job(data="real")).state == "skipped"
        next(headrace_home.glob(f"cache/*/{NAME}")).unlink()
        planned = download.plan(job(data="real"))
        assert planned.reason == f"made before, but {NAME} had other bytes than those in force now"
        raw = download(job(data="real"))
        assert (bytes_of(raw), voucher(raw)) == (OTHERS, "mirror")

    def test_files_stand_though_cache_and_trust_are_gone(
        self, unpinned: Web, job: JobFactory, headrace_home: Path
    ) -> None:
        download(job(data="real"))
        next(headrace_home.glob(f"cache/*/{NAME}")).unlink()
        (headrace_home / "trusted.json").unlink()
        assert download.plan(job(data="real")).state == "skipped"

    def test_advice_for_people_changes_nothing(self, unpinned: Web, pin: Pin, job: JobFactory) -> None:
        download(job(data="real"))
        pin(unpinned.url, files=(File(url=f"{unpinned.url}/{NAME}", hint="ask somebody else"),))
        assert download.plan(job(data="real")).state == "skipped"

    def test_files_that_only_a_person_can_fetch_give_way_to_the_twin(
        self, pin: Pin, job: JobFactory, headrace_home: Path, offline: str
    ) -> None:
        pin(offline, files=(File(url=f"manual:{NAME}"),))
        assert voucher(download(job(data="auto"))) == "twin"
        assert download.plan(job(data="auto")).state == "skipped"
        (headrace_home / "manual").mkdir()
        (headrace_home / "manual" / NAME).write_bytes(BYTES)
        assert download.plan(job(data="auto")).reason == "made before, but the real data can be had now"
        raw = download(job(data="auto"))
        assert (way(raw), voucher(raw), bytes_of(raw)) == ("hand", "nobody", BYTES)


class TestUnpacking:
    ARCHIVE = "flowers.tar.gz"

    @pytest.fixture
    def packed_source(self, web: Web, pin: Pin) -> Callable[[bytes], None]:
        """Let the source be an archive with these bytes, to be unpacked."""

        def make(data: bytes) -> None:
            web.files[f"/{self.ARCHIVE}"] = data
            pin(web.url, files=(File(url=f"{web.url}/{self.ARCHIVE}", sha256=sha256(data), unpack=True),))

        return make

    def tar(self, name: str) -> bytes:
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w:gz") as archive:
            info = tarfile.TarInfo(name)
            info.size = 5
            archive.addfile(info, io.BytesIO(b"daisy"))
        return out.getvalue()

    def test_happens_into_a_folder_beside_the_archive(
        self, packed_source: Callable[[bytes], None], job: JobFactory
    ) -> None:
        packed_source(self.tar("daisy/1.jpg"))
        raw = download(job(data="real"))
        assert (raw.path / "flowers" / "daisy" / "1.jpg").read_bytes() == b"daisy"
        assert (raw.path / self.ARCHIVE).is_file()
        assert list(raw.json("data.json")["files"]) == [self.ARCHIVE]

    @pytest.mark.parametrize("data", ["auto", "real"])
    def test_of_a_hostile_archive_is_refused_and_leaves_nothing(
        self, packed_source: Callable[[bytes], None], job: JobFactory, headrace_home: Path, data: str
    ) -> None:
        packed_source(self.tar("../../../evil"))
        with pytest.raises(DataError, match="leads out of the folder"):
            download(job(data=data))
        assert not list(headrace_home.rglob("evil"))
        assert left_behind(headrace_home) == []

    def test_takes_no_other_files_place(self, pin: Pin, job: JobFactory, offline: str) -> None:
        pin(offline, files=(File(url="manual:a.zip", unpack=True), File(url="manual:a.tgz", unpack=True)))
        with pytest.raises(ConfigError, match=r"two files \(or unpacked archives\) called a"):
            download(job(data="real"))
        pin(offline, files=(File(url="manual:labelled/a.csv"), File(url="manual:skewed/a.csv")))
        with pytest.raises(ConfigError, match=r"called a\.csv"):
            download.plan(job(data="auto"))


class TestOwnTable:
    @pytest.fixture
    def table(self, tmp_path: Path, job: JobFactory) -> Path:
        """A table with all columns of the Boston data, 20 rows."""
        names = [column.name for feature in job().origin.features.values() for column in feature.columns]
        path = tmp_path / "mine" / "houses.csv"
        path.parent.mkdir()
        rows = np.random.default_rng(0).random((20, len(names)))
        path.write_text("\n".join(",".join(map(str, row)) for row in [names, *rows.tolist()]) + "\n")
        return path

    @pytest.mark.parametrize("data", ["auto", "real"])
    def test_is_copied_in_and_read(self, job: JobFactory, table: Path, data: str) -> None:
        mine = job(data=data, source=str(table))
        raw = download(mine)

        assert (raw.path / "houses.csv").read_bytes() == table.read_bytes()
        found = raw.json("data.json")
        assert (found["data"], found["source"]) == ("real", "houses.csv")
        assert found["files"]["houses.csv"]["vouched_by"] == "user"
        assert raw.json("lineage.json")["files"]["houses.csv"] == {"way": "user", "place": str(table)}
        splits = mine.origin.read(raw.path)
        assert [sum(batch.num_rows for batch in splits[split]) for split in ("train", "test")] == [16, 4]

    def test_a_changed_cell_is_noticed_and_the_old_copy_stays(self, job: JobFactory, table: Path) -> None:
        mine = job(data="auto", source=str(table))
        before = table.read_bytes()
        first = download(mine)
        assert download(mine).state == "skipped"
        with table.open("r+b") as file:
            file.seek(-2, 2)
            file.write(b"7")

        planned = download.plan(mine)
        assert planned.reason == f'`files.houses.csv` "{sha256(before)[:20]}" → "{sha256(table.read_bytes())[:20]}"'
        assert download(mine).digest != first.digest
        assert (first.path / "houses.csv").read_bytes() == before

    def test_has_no_twin(self, job: JobFactory, table: Path) -> None:
        with pytest.raises(ConfigError, match=r"houses\.csv is data of your own, which has no synthetic twin"):
            download(job(data="synthetic", source=str(table)))

    def test_may_be_a_folder(self, job: JobFactory, table: Path) -> None:
        mine = job(data="real", source=str(table.parent))
        raw = download(mine)

        assert (raw.path / "mine" / "houses.csv").read_bytes() == table.read_bytes()
        entry = raw.json("data.json")["files"]["mine"]
        assert (entry["size"], entry["vouched_by"]) == (table.stat().st_size, "user")
        assert raw.json("lineage.json")["files"]["mine"] == {"way": "user", "place": str(table.parent)}
        assert download(mine).state == "skipped"
        (table.parent / "more.csv").write_bytes(table.read_bytes())
        assert download.plan(mine).reason.startswith("`files.mine`")

    def test_that_is_gone_by_now_is_named(self, job: JobFactory, table: Path) -> None:
        mine = job(data="auto", source=str(table))
        table.unlink()
        with pytest.raises(ConfigError, match=r"There is no file .*houses\.csv"):
            download(mine)

    def test_that_may_not_be_read_is_told_without_a_traceback(
        self, job: JobFactory, table: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def forbidden(path: Path) -> str:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))

        monkeypatch.setattr(fetching, "file_digest", forbidden)
        with pytest.raises(DataError, match=r"houses\.csv can't be read\.\n  received: Permission denied"):
            download(job(data="auto", source=str(table)))


@pytest.mark.real_data
def test_the_mirrors_boston_file_is_the_one_that_keras_splits(mirror: Path, job: JobFactory) -> None:
    from headrace.readers.batches import to_arrays

    asked = job(data="real")
    raw = download(asked)
    splits = {split: list(parts) for split, parts in asked.origin.read(raw.path).items()}
    features = asked.origin.features

    assert voucher(raw) == "mirror"
    assert {split: sum(b.num_rows for b in parts) for split, parts in splits.items()} == {"train": 404, "test": 102}
    first = to_arrays(splits["train"][0], features)["price"][:10, 0]
    np.testing.assert_allclose(first, [15.2, 42.3, 50.0, 21.1, 17.7, 18.5, 11.3, 15.6, 15.6, 14.4], rtol=1e-6)


def test_what_is_skipped_needs_neither_numpy_nor_requests(job: JobFactory) -> None:
    download(job())
    code = (
        "import sys; from headrace.jobs import resolve; from headrace.downloading import download;"
        "state = download(resolve('house_prices', profile='smoke', data='synthetic')).state;"
        "print(state, *{'numpy', 'pyarrow', 'requests', 'tensorflow'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("skipped\n", "")
