"""Finished folders: closed by a manifest, read only if it holds, put in place in one step."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from headrace import projects
from headrace.artifacts import (
    MANIFEST,
    Artifact,
    Place,
    close,
    home,
    locked,
    only,
    read_json,
    room,
    system_errors,
    write_atomically,
    write_json,
)
from headrace.errors import StageFailed, SystemTrouble

PLACE = Place("tiny", "bake", "0123456789abcdef0123")


def finish(place: Place = PLACE, files: dict[str, str] | None = None, volatile: tuple[str, ...] = ()) -> str:
    """Make a finished folder and return its digest."""
    with room(place) as (output, _):
        for name, text in (files or {"bread.txt": "good"}).items():
            (output / name).parent.mkdir(parents=True, exist_ok=True)
            (output / name).write_text(text)
        digest = close(output, {"seconds": 1.0}, volatile)["digest"]
        place.publish(output)
    return str(digest)


class TestHome:
    def test_is_the_folder_named_in_the_environment(self, headrace_home: Path) -> None:
        assert home() == headrace_home

    def test_is_in_the_project_by_default(self, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("HEADRACE_HOME")
        (project / "deep" / "down").mkdir(parents=True)
        monkeypatch.chdir(project / "deep" / "down")
        projects.root.cache_clear()
        assert home() == project / ".headrace"


class TestAtomicFiles:
    def test_hold_the_old_content_or_the_new(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = tmp_path / "a.json"
        write_json(path, {"old": True})

        def broken(_descriptor: int) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, "fsync", broken)
        with pytest.raises(OSError, match="No space left"):
            write_json(path, {"new": True})
        assert read_json(path) == {"old": True}
        assert [p.name for p in tmp_path.iterdir()] == ["a.json"]

    def test_are_equal_bytes_for_equal_values(self, tmp_path: Path) -> None:
        for name in ("a", "b"):
            write_json(tmp_path / name, {"x": [1.5, "é"]})
        assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()

    def test_can_be_read_by_everyone(self, tmp_path: Path) -> None:
        write_atomically(tmp_path / "a", b"")
        assert (tmp_path / "a").stat().st_mode & 0o777 == 0o644

    @pytest.mark.parametrize("text", [None, "", '{"a": '])
    def test_read_as_nothing_where_they_are_missing_or_cut_off(self, tmp_path: Path, text: str | None) -> None:
        if text is not None:
            (tmp_path / "a").write_text(text)
        assert read_json(tmp_path / "a") is None


class TestManifests:
    def test_find_a_finished_folder(self) -> None:
        digest = finish()
        manifest, trouble = PLACE.find()
        assert trouble is None
        assert manifest is not None
        assert manifest["digest"] == digest
        assert manifest["files"]["bread.txt"]["size"] == 4

    def test_find_nothing_where_nothing_was_made(self) -> None:
        assert PLACE.find() == (None, None)

    @pytest.mark.parametrize(
        ("change", "trouble"),
        [
            (lambda folder: (folder / "bread.txt").write_text("baad"), "bread.txt was altered after it was finished"),
            (lambda folder: (folder / "bread.txt").write_text("longer"), "bread.txt was altered after it was finished"),
            (lambda folder: (folder / "bread.txt").unlink(), "bread.txt is missing"),
            (lambda folder: (folder / MANIFEST).unlink(), "manifest.json is missing or damaged"),
            (lambda folder: (folder / MANIFEST).write_text('{"digest": '), "manifest.json is missing or damaged"),
            (lambda folder: (folder / MANIFEST).write_text("[]"), "manifest.json is missing or damaged"),
            (lambda folder: (folder / MANIFEST).write_text("{}"), "manifest.json is missing or damaged"),
        ],
        ids=["altered", "longer", "missing", "no manifest", "cut off", "a list", "empty"],
    )
    def test_tell_what_is_wrong_with_a_folder(self, change: object, trouble: str) -> None:
        finish()
        change(PLACE.finished)  # type: ignore[operator]
        assert PLACE.find() == (None, trouble)

    def test_notice_a_digest_that_was_altered_in_themselves(self) -> None:
        finish()
        manifest = json.loads((PLACE.finished / MANIFEST).read_text())
        (PLACE.finished / MANIFEST).write_text(json.dumps({**manifest, "digest": "0" * 64}))
        assert PLACE.find() == (None, "manifest.json is missing or damaged")

    def test_leave_volatile_files_out_of_the_digest_but_verify_them(self) -> None:
        first = finish(files={"model": "w", "logs/a.log": "10:00"}, volatile=("logs/*",))
        second = finish(files={"model": "w", "logs/a.log": "11:00"}, volatile=("logs/*",))
        assert first == second
        (PLACE.finished / "logs/a.log").unlink()
        assert PLACE.find() == (None, "logs/a.log is missing")

    def test_have_a_digest_of_names_and_bytes(self) -> None:
        digests = {finish(files=files) for files in ({"a": "x"}, {"b": "x"}, {"a": "y"}, {"a": "x", "b": ""})}
        assert len(digests) == 4


def burn(*, checkpoint: bool) -> None:
    """An attempt that fails half-way."""
    with room(PLACE) as (output, scratch):
        (output / "half").write_text("half")
        if checkpoint:
            (scratch / "checkpoint").write_text("epoch 3")
        raise ValueError("burnt")


class TestRooms:
    def test_replace_a_damaged_folder_in_one_step(self) -> None:
        finish()
        (PLACE.finished / "bread.txt").write_text("bad")
        finish(files={"bread.txt": "new"})
        assert (PLACE.finished / "bread.txt").read_text() == "new"
        assert [p.name for p in PLACE.finished.parent.iterdir()] == [PLACE.key]

    def test_leave_nothing_of_a_failed_attempt_that_kept_nothing(self) -> None:
        with pytest.raises(ValueError, match="burnt"):
            burn(checkpoint=False)
        assert not PLACE.finished.exists()
        assert not PLACE.work.exists()

    def test_keep_the_scratch_of_a_failed_attempt_for_the_next_one(self) -> None:
        with pytest.raises(ValueError, match="burnt"):
            burn(checkpoint=True)
        with room(PLACE) as (output, scratch):
            assert (scratch / "checkpoint").read_text() == "epoch 3"
            assert list(output.iterdir()) == []

    def test_keep_the_scratch_of_a_killed_process_and_not_its_output(self) -> None:
        script = (
            "import os, signal\n"
            "from headrace.artifacts import Place, room\n"
            f"with room({PLACE!r}) as (output, scratch):\n"
            "    (output / 'half').write_text('half')\n"
            "    (scratch / 'checkpoint').write_text('epoch 3')\n"
            "    os.kill(os.getpid(), signal.SIGKILL)\n"
        )
        assert subprocess.run([sys.executable, "-c", script], check=False).returncode == -9
        assert not PLACE.finished.exists()
        with room(PLACE) as (output, scratch):
            assert list(output.iterdir()) == []
            assert (scratch / "checkpoint").read_text() == "epoch 3"


class TestLocks:
    def test_let_one_in_at_a_time_and_say_who_waits(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        inside, events = threading.Event(), []

        def second() -> None:
            inside.wait()
            with locked(tmp_path / "lock"):
                events.append("second in")

        thread = threading.Thread(target=second)
        thread.start()
        with caplog.at_level("INFO", logger="headrace"), locked(tmp_path / "lock"):
            inside.set()
            while "waiting for another process" not in caplog.text:
                time.sleep(0.01)
            events.append("first out")
        thread.join()
        assert events == ["first out", "second in"]

    def test_are_freed_by_the_death_of_their_holder(self, tmp_path: Path) -> None:
        script = (
            "import os, signal\n"
            "from pathlib import Path\n"
            "from headrace.artifacts import locked\n"
            f"with locked(Path({str(tmp_path / 'lock')!r})):\n"
            "    os.kill(os.getpid(), signal.SIGKILL)\n"
        )
        assert subprocess.run([sys.executable, "-c", script], check=False).returncode == -9
        with locked(tmp_path / "lock"):
            pass


class TestSystemErrors:
    @pytest.mark.parametrize(
        ("code", "words"),
        [
            (errno.ENOSPC, "No room left while baking"),
            (errno.EDQUOT, "No room left while baking"),
            (errno.EACCES, "Not allowed to write while baking"),
            (errno.EROFS, "Not allowed to write while baking"),
        ],
    )
    def test_are_told_with_a_remedy(self, code: int, words: str) -> None:
        with pytest.raises(SystemTrouble, match=words) as caught, system_errors("baking"):
            raise OSError(code, os.strerror(code), "/disk/file")
        assert "HEADRACE_HOME" in str(caught.value)

    def test_pass_others_through(self) -> None:
        with pytest.raises(FileNotFoundError), system_errors("baking"):
            raise FileNotFoundError(errno.ENOENT, "no such file", "x")

    def test_tell_a_home_that_is_a_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "file").write_text("")
        monkeypatch.setenv("HEADRACE_HOME", str(tmp_path / "file"))
        with pytest.raises(SystemTrouble, match="Not allowed to write"), room(PLACE):
            pass


def test_a_file_that_an_artifact_lacks_is_told_with_those_it_has(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("")
    artifact = Artifact(tmp_path, "0", "bake")
    assert only(artifact, "a.txt") == tmp_path / "a.txt"
    with pytest.raises(StageFailed, match=r"bake holds no b\.txt.\n  received: a\.txt"):
        only(artifact, "b.txt")


def test_two_artifacts_with_the_same_content_are_equal_however_they_came_about(tmp_path: Path) -> None:
    assert Artifact(tmp_path, "0", "bake", "run", "new") == Artifact(tmp_path, "0", "bake", "skipped", "known")


def test_a_full_disk_that_tensorflow_meets_is_told_like_any_other(
    tmp_path: Path, full_disk: Callable[[], None]
) -> None:
    import tensorflow as tf

    writer = tf.io.TFRecordWriter(str(tmp_path / "records"))
    writer.write(b"x" * 100_000)
    full_disk()

    with pytest.raises(SystemTrouble, match="No room left while writing"), system_errors("writing"):
        writer.close()
