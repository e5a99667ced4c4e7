"""Files come at the same time, from wherever they can be had; what nobody pins is trusted once; servers may fail."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import os
import socket
import threading
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from headrace.console import Advance, shown_by
from headrace.errors import ConfigError, DataError, Unavailable
from headrace.getting import fetching, origins
from headrace.getting.fetching import at_hand, bytes_in_force, digest_in_force, fetch
from headrace.spec import File
from tests.core.serving import Web, serving

DATA = bytes(range(256)) * 8
OTHERS = DATA[::-1]


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def web() -> Iterator[Web]:
    """A web server on this machine."""
    with serving() as server:
        yield server


@pytest.fixture
def offline() -> str:
    """An address where nobody listens."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{unused.getsockname()[1]}"


@pytest.fixture(autouse=True)
def _impatient_and_without_accounts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    for name in ("KAGGLE_USERNAME", "KAGGLE_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(origins, "BACK_OFF", 0.01)
    monkeypatch.setattr(origins, "CHUNK", 100)
    monkeypatch.setattr(fetching, "TICK", 0.01)
    monkeypatch.setattr(fetching, "GRACE", 0.05)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A mirror in a folder, empty."""
    folder = tmp_path / "mirror"
    folder.mkdir()
    monkeypatch.setenv("HEADRACE_MIRROR", str(folder))
    return folder


def put(path: Path, data: bytes = DATA) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def by_hand(home: Path, name: str, data: bytes = DATA) -> Path:
    return put(home / "manual" / name, data)


def listed(folder: Path, name: str, data: bytes) -> None:
    """A file in a mirror that vouches for it."""
    put(folder / name, data)
    entry = {"file": name, "bytes": len(data), "sha256": sha256(data), "kind": "a sample"}
    (folder / "MANIFEST.json").write_text(json.dumps([entry]))


def forget(home: Path) -> None:
    """Empty the cache."""
    for path in (home / "cache").glob("*/*"):
        if path.is_file():
            path.unlink()


def left_behind(home: Path) -> list[str]:
    """What lies in the home and is neither a lock, nor verified, nor what was trusted."""
    return sorted(
        path.name
        for path in home.rglob("*")
        if path.is_file()
        and path.suffix != ".lock"
        and path.name != "trusted.json"
        and path.parent.name != "manual"
        and sha256(path.read_bytes()) != path.parent.name
    )


def several(web: Web, count: int = 3, **changes: Any) -> list[File]:
    """Files that a server has, all different, without pins unless they are given."""
    for number in range(count):
        web.files[f"/{number}.bin"] = DATA[number:]
    return [File(url=f"{web.url}/{number}.bin", **changes) for number in range(count)]


def failure(*files: File) -> str:
    with pytest.raises(Unavailable) as caught:
        fetch(files)
    return str(caught.value)


def refusal(*files: File) -> str:
    with pytest.raises(DataError) as caught:
        fetch(files)
    assert not isinstance(caught.value, Unavailable)
    return str(caught.value)


class Meter:
    """What would have been shown."""

    def __init__(self, trip: float | None = None) -> None:
        self.title, self.total, self.trip = "", 0.0, trip
        self.shown: list[tuple[float, str]] = []

    @contextlib.contextmanager
    def __call__(self, title: str, total: float | None) -> Iterator[Advance]:
        self.title, self.total = title, total or 0.0

        def advance(done: float, words: str) -> None:
            self.shown.append((done, words))
            if self.trip is not None and done >= self.trip:
                raise KeyboardInterrupt

        yield advance


class TestSeveralFiles:
    def test_come_in_the_order_in_which_they_were_asked_for(self, web: Web) -> None:
        held = fetch(several(web, 9))
        assert [had.path.name for had in held] == [f"{number}.bin" for number in range(9)]
        assert [had.path.read_bytes() for had in held] == [DATA[number:] for number in range(9)]

    def test_come_at_the_same_time(self, web: Web) -> None:
        """None of them ends before all of them have begun."""
        web.meet = threading.Barrier(3, timeout=20).wait
        assert len(fetch(several(web, 3))) == 3

    def test_are_no_more_than_a_few_at_a_time(self, web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(fetching, "AT_ONCE", 2)
        files, lock = several(web, 12), threading.Lock()
        now, most = 0, 0

        def meet() -> None:
            nonlocal now, most
            with lock:
                now += 1
                most = max(most, now)
            threading.Event().wait(0.01)
            with lock:
                now -= 1

        web.meet = meet
        fetch(files)
        assert most == 2

    def test_show_one_progress_in_bytes_if_all_sizes_are_pinned(self, web: Web) -> None:
        files = [file.model_copy(update={"size": len(DATA) - k}) for k, file in enumerate(several(web))]
        meter = Meter()
        with shown_by(meter):
            fetch(files)
        done = [done for done, _ in meter.shown]
        assert (meter.title, meter.total) == ("download", (3 * len(DATA) - 3) / 1000)
        assert done == sorted(done)
        assert meter.shown[-1] == (meter.total, "kB")

    def test_show_one_progress_in_files_if_a_size_is_not_known(self, web: Web) -> None:
        meter = Meter()
        with shown_by(meter):
            fetch(several(web))
        done = [done for done, _ in meter.shown]
        assert (meter.title, meter.total) == ("download", 3)
        assert done == sorted(done)
        assert meter.shown[-1] == (3, "files, 0.0 MB")

    def test_that_are_there_are_not_shown(self, web: Web) -> None:
        files = several(web)
        fetch(files)
        meter = Meter()
        with shown_by(meter):
            assert {had.way for had in fetch(files)} == {"cache"}
        assert meter.shown == []

    def test_stop_at_the_first_failure_and_go_on_next_time(
        self, web: Web, headrace_home: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """One is in the middle of its body, and silent, when the other one is found missing."""
        files = [*several(web, 1, sha256=sha256(DATA)), File(url=f"{web.url}/missing.bin")]
        web.faults = ["stall 1000"]
        begun = threading.Event()
        receive = origins._write

        def write(*arguments: Any, **options: Any) -> str:
            begun.set()
            return receive(*arguments, **options)

        monkeypatch.setattr(origins, "_write", write)
        transfer = fetching.transfer

        def in_turn(address: origins.Address, *arguments: Any) -> str:
            if address.name == "missing.bin":
                begun.wait(10)
                threading.Event().wait(0.2)
            return transfer(address, *arguments)

        monkeypatch.setattr(fetching, "transfer", in_turn)
        assert "missing.bin can't be had" in failure(*files)
        assert not web.patience.is_set()
        assert left_behind(headrace_home) == [".0.bin.part"]
        assert not list(headrace_home.rglob("0.bin"))

        web.patience.set()
        web.files["/missing.bin"] = OTHERS
        assert [had.path.read_bytes() for had in fetch(files)] == [DATA, OTHERS]
        assert web.gets("/0.bin")[-1].startswith("bytes=")  # type: ignore[union-attr]

    def test_are_left_to_be_resumed_by_an_interruption(self, web: Web, headrace_home: Path) -> None:
        file = File(url=f"{web.url}/0.bin", sha256=sha256(DATA), size=len(DATA))
        web.files["/0.bin"] = DATA
        web.meet = web.patience.wait
        with shown_by(Meter(trip=1.0)), pytest.raises(KeyboardInterrupt):
            fetch([file])
        assert left_behind(headrace_home) == [".0.bin.part"]
        web.patience.set()
        assert fetch([file])[0].path.read_bytes() == DATA
        assert web.gets("/0.bin") == [None, "bytes=1000-"]

    def test_are_not_begun_if_one_can_not_be_had_anyway(self, web: Web) -> None:
        said = failure(*several(web, 2), File(url="manual:celeba.zip"), File(url="kaggle://dogs-vs-cats/train.zip"))
        assert "celeba.zip and train.zip can't be had:\n  - celeba.zip: it is not in the cache; " in said
        assert "\n  - train.zip: it is not in the cache; " in said
        assert web.asked == []

    def test_are_not_begun_if_one_of_them_is_wrong_near_at_hand(self, web: Web, folder: Path) -> None:
        put(folder / "1.bin", OTHERS)
        files = several(web, 2, sha256=sha256(DATA[1:]))
        assert "Wrong checksum" in refusal(files[0].model_copy(update={"sha256": sha256(DATA)}), files[1])
        assert web.asked == []


class TestWhatNobodyPins:
    @pytest.fixture
    def file(self, web: Web) -> File:
        """A file that a server has, of which nothing is known."""
        web.files["/data.csv"] = DATA
        return File(url=f"{web.url}/data.csv")

    def test_is_trusted_when_it_comes_first(self, file: File, headrace_home: Path) -> None:
        (held,) = fetch([file])
        assert (held.path.read_bytes(), held.vouched_by, held.way) == (DATA, "nobody", "origin")
        known = json.loads((headrace_home / "trusted.json").read_text())[file.url]
        assert (known["sha256"], known["size"], known["from"]) == (sha256(DATA), len(DATA), file.url)
        assert left_behind(headrace_home) == []

    def test_stays_what_it_was(self, web: Web, file: File, headrace_home: Path) -> None:
        assert (digest_in_force(file), at_hand(file)) == (None, False)
        before = bytes_in_force(file)
        fetch([file])
        assert (digest_in_force(file), at_hand(file), bytes_in_force(file)) == (sha256(DATA), True, before)
        (again,) = fetch([file])
        assert (again.way, again.vouched_by, len(web.gets("/data.csv"))) == ("cache", "nobody", 1)

    def test_must_be_the_same_when_it_comes_again(self, web: Web, file: File, headrace_home: Path) -> None:
        fetch([file])
        forget(headrace_home)
        web.files["/data.csv"] = OTHERS
        said = refusal(file)
        assert f"Wrong checksum: {file.url} is not what it was when it came first (on 2" in said
        assert f"expected: sha256 {sha256(DATA)} (2,048 bytes)" in said
        assert f"received: sha256 {sha256(OTHERS)} (2,048 bytes)" in said
        assert f"if the new ones are meant, remove the entry {file.url} from {headrace_home}/trusted.json" in said
        assert left_behind(headrace_home) == []

        (headrace_home / "trusted.json").write_text("{}")
        assert fetch([file])[0].path.read_bytes() == OTHERS

    def test_is_asked_for_again_by_its_digest(self, file: File, headrace_home: Path) -> None:
        fetch([file])
        forget(headrace_home)
        assert not at_hand(file)
        assert (fetch([file])[0].path.read_bytes(), digest_in_force(file)) == (DATA, sha256(DATA))

    def test_must_have_the_size_that_is_pinned(self, file: File, headrace_home: Path) -> None:
        said = refusal(file.model_copy(update={"size": 99}))
        assert f"Wrong size: {file.url} is not the file that was asked for" in said
        assert "expected: 99 bytes" in said
        assert "received: 2,048 bytes, as 127.0.0.1 announces" in said
        assert left_behind(headrace_home) == []
        assert not (headrace_home / "trusted.json").exists()

    def test_is_refused_if_it_is_a_page(self, web: Web, file: File, headrace_home: Path) -> None:
        web.files["/data.csv"] = b"\n<!DOCTYPE html><title>Sign in\n here</title>"
        assert '127.0.0.1 gives a web page instead of the file, with the title "Sign in here"' in failure(file)
        assert left_behind(headrace_home) == []
        assert not (headrace_home / "trusted.json").exists()

    def test_may_be_a_page_if_it_is_called_one(self, web: Web) -> None:
        web.files["/index.html"] = b"<html></html>"
        assert fetch([File(url=f"{web.url}/index.html")])[0].path.read_bytes() == b"<html></html>"

    def test_starts_again_if_nothing_tells_that_the_rest_belongs_to_it(self, web: Web, file: File) -> None:
        web.faults = ["break 1000"]
        fetch([file])
        assert web.gets("/data.csv") == [None, None]

    def test_goes_on_if_the_server_says_that_it_is_the_same(self, web: Web, file: File, headrace_home: Path) -> None:
        web.tags["/data.csv"] = '"one"'
        web.faults = ["break 1000"]
        assert fetch([file])[0].path.read_bytes() == DATA
        assert web.gets("/data.csv") == [None, "bytes=1000-"]
        assert left_behind(headrace_home) == []

    def test_is_never_put_together_from_two_versions(self, web: Web, file: File) -> None:
        web.tags["/data.csv"] = '"one"'
        web.faults = ["break 1000", "break 0", "break 0"]
        failure(file)
        web.tags["/data.csv"], web.files["/data.csv"] = '"two"', OTHERS
        assert fetch([file])[0].path.read_bytes() == OTHERS

    def test_stands_on_the_word_of_a_mirror_that_lists_it(
        self, offline: str, folder: Path, headrace_home: Path
    ) -> None:
        file = File(url=f"{offline}/data.csv")
        listed(folder, "set/data.csv", DATA)
        (held,) = fetch([file])
        assert (held.vouched_by, held.way, held.words["kind"]) == ("mirror", "mirror", "a sample")
        assert not (headrace_home / "trusted.json").exists()
        listed(folder, "set/data.csv", OTHERS)
        assert digest_in_force(file) == sha256(OTHERS)
        assert fetch([file])[0].path.read_bytes() == OTHERS

    def test_is_trusted_from_a_mirror_that_does_not_list_it(self, offline: str, folder: Path, web: Web) -> None:
        file = File(url=f"{offline}/data.csv")
        path = put(folder / "data.csv")
        (held,) = fetch([file])
        assert (held.vouched_by, held.way) == ("nobody", "mirror")
        forget(Path(os.environ["HEADRACE_HOME"]))
        path.write_bytes(OTHERS)
        assert f"Wrong checksum: {path} is not what it was when it came first" in refusal(file)

    def test_may_come_from_a_mirror_on_the_web(
        self, web: Web, offline: str, monkeypatch: pytest.MonkeyPatch, headrace_home: Path
    ) -> None:
        web.files["/data.csv"] = DATA
        monkeypatch.setenv("HEADRACE_MIRROR", web.url)
        file = File(url=f"{offline}/data.csv")
        (held,) = fetch([file])
        assert (held.vouched_by, held.way, digest_in_force(file)) == ("nobody", "mirror", sha256(DATA))

    def test_that_a_person_replaced_is_told_though_the_old_is_cached(self, headrace_home: Path) -> None:
        file = File(url="manual:data.csv")
        path = by_hand(headrace_home, "data.csv")
        fetch([file])
        path.write_bytes(OTHERS)
        assert f"{path} is not what it was when it came first" in refusal(file)

    def test_is_downloaded_once_by_two_at_once(self, web: Web, file: File) -> None:
        web.pause = 0.1
        held: list[fetching.Held] = []
        threads = [threading.Thread(target=lambda: held.extend(fetch([file]))) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [had.path.read_bytes() for had in held] == [DATA, DATA]
        assert len(web.gets("/data.csv")) == 1

    def test_is_what_another_process_took_in_the_meantime(
        self, web: Web, file: File, headrace_home: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        transfer = fetching.transfer

        def overtaken(*arguments: Any) -> str:
            (headrace_home / "trusted.json").write_text(
                json.dumps({file.url: {"sha256": sha256(OTHERS), "size": 2048, "from": "elsewhere", "on": "today"}})
            )
            return transfer(*arguments)

        monkeypatch.setattr(fetching, "transfer", overtaken)
        assert "is not what it was when it came first (on today, from elsewhere)" in refusal(file)

    def test_is_not_taken_anew_because_the_list_is_damaged(self, file: File, headrace_home: Path) -> None:
        fetch([file])
        (headrace_home / "trusted.json").write_text("{")
        assert "trusted.json can't be read" in refusal(file)


class TestByHand:
    def test_a_file_is_taken_from_the_home(self, offline: str, headrace_home: Path) -> None:
        path = by_hand(headrace_home, "train.zip")
        for file in (
            File(url=f"{offline}/a/train.zip", sha256=sha256(DATA)),
            File(url="kaggle://dogs-vs-cats/train.zip"),
            File(url="gdrive://0B7EVK8r/train.zip"),
            File(url="manual:train.zip"),
        ):
            assert at_hand(file)
            (held,) = fetch([file])
            assert (held.path.read_bytes(), held.way, held.place) == (DATA, "hand", str(path))
            assert held.vouched_by == ("origin" if file.sha256 else "nobody")

    def test_a_pinned_file_must_be_the_pinned_one(self, web: Web, headrace_home: Path) -> None:
        by_hand(headrace_home, "0.bin", OTHERS)
        said = refusal(*several(web, 1, sha256=sha256(DATA)))
        assert "manual/0.bin is not the file that was asked for" in said
        assert "put a sound copy there, or remove it" in said
        assert web.asked == []

    def test_a_missing_file_is_told_with_its_place_and_the_way_to_it(self, headrace_home: Path) -> None:
        file = File(url="manual:celeba/img_align_celeba.zip", hint="agree to the terms at https://example.org/celeba")
        assert failure(file) == (
            "img_align_celeba.zip can't be had: it is not in the cache; no mirror is set (HEADRACE_MIRROR); only a "
            "person can fetch it.\n"
            "  expected: the file from manual:celeba/img_align_celeba.zip\n"
            "  to go on: agree to the terms at https://example.org/celeba; put what you fetched by hand at "
            f"{headrace_home}/manual/celeba/img_align_celeba.zip; or set HEADRACE_MIRROR to a folder that holds it "
            "under this name; or use made-up data: --data synthetic"
        )
        by_hand(headrace_home, "celeba/img_align_celeba.zip")
        assert fetch([file])[0].path.name == "img_align_celeba.zip"

    def test_an_address_of_no_known_kind_is_refused(self) -> None:
        with pytest.raises(ConfigError, match="s3://bucket/a is no address that a file can come from"):
            fetch([File(url="s3://bucket/a")])


class TestMirror:
    def test_may_hold_files_two_folders_down(self, folder: Path, offline: str) -> None:
        put(folder / "penguin" / "labelled" / "data.csv")
        assert fetch([File(url=f"{offline}/data.csv")])[0].path.read_bytes() == DATA

    def test_tells_files_of_one_name_apart_by_a_longer_path(self, folder: Path) -> None:
        put(folder / "penguin" / "labelled" / "data.csv")
        put(folder / "penguin" / "skewed" / "data.csv", OTHERS)
        held = fetch([File(url="manual:labelled/data.csv"), File(url="manual:skewed/data.csv")])
        assert [had.path.read_bytes() for had in held] == [DATA, OTHERS]

    def test_does_not_give_another_file_for_a_path_that_is_asked_for(self, folder: Path) -> None:
        put(folder / "penguin" / "skewed" / "data.csv", OTHERS)
        assert "it is not in the mirror" in failure(File(url="manual:labelled/data.csv"))

    def test_prefers_what_the_address_ends_in(self, folder: Path, offline: str) -> None:
        put(folder / "labelled" / "data.csv")
        put(folder / "skewed" / "data.csv", OTHERS)
        assert fetch([File(url=f"{offline}/v1/skewed/data.csv")])[0].path.read_bytes() == OTHERS

    def test_prefers_what_lies_less_deep(self, folder: Path, offline: str) -> None:
        put(folder / "titanic" / "test.csv")
        put(folder / "examples" / "titanic" / "test.csv", OTHERS)
        assert fetch([File(url=f"{offline}/test.csv")])[0].path.read_bytes() == DATA

    def test_prefers_the_pinned_bytes_to_all_that(self, folder: Path, offline: str) -> None:
        put(folder / "data.csv", OTHERS)
        put(folder / "a" / "b" / "data.csv")
        assert fetch([File(url=f"{offline}/data.csv", sha256=sha256(DATA))])[0].vouched_by == "origin"

    def test_does_not_guess(self, folder: Path, offline: str) -> None:
        put(folder / "a" / "data.csv")
        put(folder / "b" / "data.csv", OTHERS)
        assert "holds several files data.csv" in refusal(File(url=f"{offline}/data.csv"))

    def test_on_the_web_lists_files_two_folders_down(self, web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
        names = {"penguin/labelled/data.csv": DATA, "penguin/skewed/data.csv": OTHERS}
        web.files = {f"/{name}": data for name, data in names.items()}
        manifest = [{"file": name, "sha256": sha256(data)} for name, data in names.items()]
        web.files["/MANIFEST.json"] = json.dumps(manifest).encode()
        monkeypatch.setenv("HEADRACE_MIRROR", web.url)
        (held,) = fetch([File(url="manual:skewed/data.csv")])
        assert (held.path.read_bytes(), held.vouched_by) == (OTHERS, "mirror")


class TestKaggle:
    FILE = File(url="kaggle://dogs-vs-cats/train.zip", hint="log in to Kaggle")
    PATH = "/api/v1/competitions/data/download/dogs-vs-cats/train.zip"

    @pytest.fixture
    def kaggle(self, web: Web, monkeypatch: pytest.MonkeyPatch) -> Web:
        """A server that looks like Kaggle, for a user who has credentials."""
        monkeypatch.setattr(origins, "KAGGLE", web.url)
        monkeypatch.setenv("KAGGLE_USERNAME", "ada")
        monkeypatch.setenv("KAGGLE_KEY", "s3cret")
        web.files[self.PATH] = DATA
        return web

    def test_is_asked_with_the_credentials_of_the_environment(self, kaggle: Web) -> None:
        (held,) = fetch([self.FILE])
        assert (held.path.read_bytes(), held.way, held.place) == (DATA, "origin", self.FILE.url)
        assert kaggle.headers[0]["Authorization"] == f"Basic {b64encode(b'ada:s3cret').decode()}"

    def test_is_asked_with_those_of_its_own_file(
        self, kaggle: Web, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.delenv("KAGGLE_KEY")
        path = Path("~/.kaggle/kaggle.json").expanduser()
        put(path, json.dumps({"username": "grace", "key": "k3y"}).encode()).chmod(0o600)
        fetch([self.FILE])
        assert kaggle.headers[0]["Authorization"] == f"Basic {b64encode(b'grace:k3y').decode()}"
        assert caplog.text == ""

    def test_warns_if_others_can_read_the_key(
        self, kaggle: Web, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.delenv("KAGGLE_KEY")
        path = Path("~/.kaggle/kaggle.json").expanduser()
        put(path, json.dumps({"username": "grace", "key": "k3y"}).encode()).chmod(0o644)
        fetch([self.FILE])
        assert f"chmod 600 {path}" in caplog.text
        assert "k3y" not in caplog.text

    def test_credentials_do_not_follow_a_redirect_to_another_host(self, kaggle: Web) -> None:
        with serving() as storage:
            storage.files["/signed"] = DATA
            kaggle.redirects[self.PATH] = f"{storage.url}/signed"
            assert fetch([self.FILE])[0].path.read_bytes() == DATA
            assert "Authorization" in kaggle.headers[0]
            assert "Authorization" not in storage.headers[0]

    @pytest.mark.parametrize(
        ("status", "said"),
        [
            (401, "answers 401 Unauthorized: it does not know the user and the key of KAGGLE_USERNAME and KAGGLE_KEY"),
            (403, "the rules of the competition must be accepted first, at {url}/competitions/dogs-vs-cats/rules"),
            (404, "there is no competition `dogs-vs-cats`, or no file `train.zip` in it"),
        ],
    )
    def test_refusals_are_explained(self, kaggle: Web, status: int, said: str) -> None:
        kaggle.faults = [status]
        message = failure(self.FILE)
        assert said.format(url=kaggle.url) in message
        assert "to go on: connect to the network; or log in to Kaggle; put what you fetched by hand at" in message
        assert "s3cret" not in message
        assert len(kaggle.asked) == 1

    @pytest.mark.parametrize("text", [None, "{", "{}", "[]"])
    def test_without_credentials_nobody_is_asked(
        self, kaggle: Web, monkeypatch: pytest.MonkeyPatch, text: str | None
    ) -> None:
        monkeypatch.delenv("KAGGLE_KEY")
        if text is not None:
            put(Path("~/.kaggle/kaggle.json").expanduser(), text.encode())
        message = failure(self.FILE)
        assert "kaggle.json" in message
        assert "KAGGLE_USERNAME" in message or "does not hold" in message
        assert "to go on: log in to Kaggle; put what you fetched by hand at" in message
        assert kaggle.asked == []
        assert not fetching.reachable(self.FILE, 1)

    def test_a_file_in_a_folder_is_one_name(self, kaggle: Web) -> None:
        kaggle.files["/api/v1/competitions/data/download/whales/data%2Ftrain.csv"] = DATA
        assert fetch([File(url="kaggle://whales/data/train.csv")])[0].path.name == "train.csv"

    def test_a_file_that_kaggle_has_packed_is_not_taken_for_itself(self, kaggle: Web) -> None:
        path = "/api/v1/competitions/data/download/titanic/train.csv"
        kaggle.redirects[path] = f"{kaggle.url}/storage/train.csv.zip"
        kaggle.files["/storage/train.csv.zip"] = DATA
        assert "gives it packed only, as train.csv.zip" in failure(File(url="kaggle://titanic/train.csv"))


class TestGoogleDrive:
    FILE = File(url="gdrive://0B7EVK8r/celeba.zip")
    PATH = "/download?id=0B7EVK8r&export=download"
    FORM = (
        "<!DOCTYPE html><html><head><title>Google Drive - Virus scan warning</title></head><body>"
        '<form id="download-form" action="{action}" method="get"><input type="submit" value="Download anyway"/>'
        '<input type="hidden" name="id" value="0B7EVK8r"><input type="hidden" name="confirm" value="t">'
        '<input type="hidden" name="uuid" value="a&amp;b"></form></body></html>'
    )

    @pytest.fixture
    def drive(self, web: Web, monkeypatch: pytest.MonkeyPatch) -> Web:
        """A server that looks like Google Drive."""
        monkeypatch.setattr(origins, "DRIVE", f"{web.url}/download")
        return web

    def test_gives_a_small_file_at_once(self, drive: Web) -> None:
        drive.files[self.PATH] = DATA
        assert fetch([self.FILE])[0].path.read_bytes() == DATA

    def test_gives_a_large_one_after_a_confirmation(self, drive: Web) -> None:
        drive.pages[self.PATH] = self.FORM.format(action="/confirmed")
        drive.files["/confirmed?id=0B7EVK8r&confirm=t&uuid=a%26b"] = DATA
        assert fetch([self.FILE])[0].path.read_bytes() == DATA

    def test_goes_on_after_a_confirmation_where_it_broke_off(self, drive: Web) -> None:
        drive.pages[self.PATH] = self.FORM.format(action="/confirmed")
        drive.files["/confirmed?id=0B7EVK8r&confirm=t&uuid=a%26b"] = DATA
        drive.faults = ["", "break 1000"]
        file = self.FILE.model_copy(update={"sha256": sha256(DATA)})
        assert fetch([file])[0].path.read_bytes() == DATA
        assert drive.asked[-1][2] == "bytes=1000-"

    @pytest.mark.parametrize("digest", [None, sha256(DATA)])
    @pytest.mark.parametrize("confirmed", [True, False])
    def test_a_page_is_not_taken_for_the_file(
        self, drive: Web, headrace_home: Path, digest: str | None, confirmed: bool
    ) -> None:
        quota = "<!DOCTYPE html><html><head><title>Google Drive - Quota exceeded</title></head></html>"
        drive.pages[self.PATH] = self.FORM.format(action="/confirmed") if confirmed else quota
        drive.pages["/confirmed?id=0B7EVK8r&confirm=t&uuid=a%26b"] = quota
        message = failure(self.FILE.model_copy(update={"sha256": digest}))
        assert 'gives a web page instead of the file, with the title "Google Drive - Quota exceeded"' in message
        assert f"put what you fetched by hand at {headrace_home}/manual/celeba.zip" in message
        assert left_behind(headrace_home) == []


class TestFaultsOfServers:
    """Those that tests/core/test_downloading.py does not hold already."""

    @pytest.fixture
    def file(self, web: Web) -> File:
        """A pinned file that a server has."""
        (file,) = several(web, 1, sha256=sha256(DATA))
        return file

    @pytest.fixture(autouse=True)
    def _soon(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(origins, "READ", 0.1)

    def test_that_never_answer_are_given_up(self, web: Web, file: File) -> None:
        web.faults = ["hang"] * 3
        assert "127.0.0.1: timed out" in failure(file)
        assert len(web.asked) == origins.TRIES

    def test_that_fall_silent_are_asked_for_the_rest(self, web: Web, file: File) -> None:
        web.faults = ["stall 1000", "stall 500"]
        assert fetch([file])[0].path.read_bytes() == DATA
        assert web.gets("/0.bin") == [None, "bytes=1000-", "bytes=1500-"]

    def test_that_fall_silent_each_time_are_given_up(self, web: Web, file: File, headrace_home: Path) -> None:
        web.faults = ["stall 1000", "stall 0", "stall 0"]
        assert "127.0.0.1 sent nothing for 0.1 s after 1,000 of 2,048 bytes" in failure(file)
        assert left_behind(headrace_home) == [".0.bin.part"]

    def test_that_announce_another_length_than_the_pinned_one_are_refused_before_the_download(
        self, web: Web, file: File, headrace_home: Path
    ) -> None:
        web.faults = ["long"]
        web.meet = web.patience.wait  # the second half never comes
        said = refusal(file.model_copy(update={"size": len(DATA)}))
        assert f"expected: sha256 {sha256(DATA)} (2,048 bytes)" in said
        assert "received: 2,098 bytes, as 127.0.0.1 announces" in said
        assert (len(web.asked), left_behind(headrace_home)) == (1, [])

    def test_that_lead_elsewhere_are_followed(self, web: Web, file: File) -> None:
        web.redirects["/0.bin"] = f"{web.url}/there"
        web.files["/there"] = DATA
        assert fetch([file])[0].path.read_bytes() == DATA

    def test_that_lead_in_a_circle_are_given_up(self, web: Web, file: File) -> None:
        web.redirects["/0.bin"] = file.url
        assert "Exceeded 30 redirects" in failure(file)

    @pytest.mark.parametrize("size", [None, len(DATA)])
    def test_that_pack_what_they_send_are_understood(self, web: Web, file: File, size: int | None) -> None:
        web.faults = ["gzip"]
        assert fetch([file.model_copy(update={"size": size})])[0].path.read_bytes() == DATA

    def test_that_pack_the_rest_of_what_broke_off_are_asked_for_the_whole(self, web: Web, file: File) -> None:
        web.faults = ["break 1000", "gzip"]
        assert fetch([file])[0].path.read_bytes() == DATA
        assert web.gets("/0.bin") == [None, "bytes=1000-", None]

    def test_that_take_the_packing_of_the_file_for_their_own_are_understood(self, web: Web) -> None:
        packed = gzip.compress(DATA)
        web.files["/0.tar.gz"] = packed
        web.faults = ["called gzip"]
        file = File(url=f"{web.url}/0.tar.gz", sha256=sha256(packed), size=len(packed))
        assert fetch([file])[0].path.read_bytes() == packed

    def test_that_recover_are_waited_for(self, web: Web, file: File) -> None:
        web.faults = [500, 429]
        assert fetch([file])[0].path.read_bytes() == DATA
