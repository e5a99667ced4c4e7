"""Several at once: the same results as one after the other, and no process left behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path

import pytest

from headrace.artifacts import Artifact
from headrace.console import Advance, Meter, progress, shown_by
from headrace.errors import ConfigError, SystemTrouble
from headrace.jobs import Job, resolve
from headrace.placing.spreading import at_once, workers
from headrace.stages import Room, stage

ROOT = Path(__file__).resolve().parents[2]

WORD: ContextVar[str] = ContextVar("word", default="none")


@stage(facts=lambda job: {"seed": job.seed})
def tell(job: Job, room: Room, *, words: str) -> None:
    """Writes down which process it was."""
    if words == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if words == "refuse":
        raise ConfigError("Refused.", remedy="ask for something else")
    if words.startswith("/"):
        with progress(f"seed {job.seed}", 2) as advance:
            advance(1, "half")
            wait_for(Path(words))
    (room.output / "process").write_text(f"{os.getpid()} {words}")


def answering(seen: Path, told: list[str]) -> Meter:
    """A meter by which a stage learns that its progress was seen: a file appears."""

    @contextlib.contextmanager
    def meter(title: str, total: float | None) -> Iterator[Advance]:
        def advance(done: float, words: str) -> None:
            told.append(f"{title}: {done} of {total} {words}")
            seen.touch()

        yield advance
        told.append(f"{title} ended")

    return meter


def wait_for(path: Path) -> None:
    until = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < until, f"{path} did not appear"
        time.sleep(0.01)


class TestThreads:
    def test_keep_the_order_and_the_context(self) -> None:
        WORD.set("given")
        together = threading.Barrier(3, timeout=30)

        def call(number: int) -> tuple[int, str]:
            together.wait()  # all three are at it at the same time, or never
            return number, WORD.get()

        found = at_once([lambda number=number: call(number) for number in range(3)], 3)
        assert found == [(0, "given"), (1, "given"), (2, "given")]

    def test_are_none_for_one_at_a_time(self) -> None:
        assert at_once([threading.get_ident] * 2, 1) == [threading.get_ident()] * 2

    def test_raise_the_first_failure_and_begin_no_more(self) -> None:
        begun: list[int] = []

        def fail() -> None:
            raise ConfigError("no")

        def slow(number: int) -> None:
            begun.append(number)
            time.sleep(0.05)

        with pytest.raises(ConfigError):
            at_once([fail, *[lambda number=number: slow(number) for number in range(100)]], 2)
        assert len(begun) < 50


class TestWorkers:
    """Real processes; `tests` can be imported there, as the root of the project is on the path."""

    @pytest.fixture(autouse=True)
    def importable(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.syspath_prepend(ROOT)

    def test_make_what_the_stage_would_and_are_asked_only_for_what_is_new(self) -> None:
        job = resolve("house_prices")
        with workers(2) as elsewhere:
            made = elsewhere(tell)(job, words="hello")
            again = elsewhere(tell)(job, words="hello")
        process, words = (made.path / "process").read_text().split()
        assert (int(process) != os.getpid(), words) == (True, "hello")
        assert (made.state, again.state, made.digest) == ("run", "skipped", again.digest)
        assert tell(job, words="hello").state == "skipped"
        with pytest.raises(ProcessLookupError):
            os.kill(int(process), 0)

    def test_show_their_progress_where_they_were_asked_while_they_work(self, tmp_path: Path) -> None:
        told: list[str] = []
        with shown_by(answering(tmp_path / "seen", told)), workers(2) as elsewhere:
            elsewhere(tell)(resolve("house_prices"), words=str(tmp_path / "seen"))
        assert told == ["seed 0: 1 of 2 half", "seed 0 ended"]

    def test_pass_errors_on_and_tell_of_a_death(self) -> None:
        with workers(2) as elsewhere, pytest.raises(ConfigError, match="ask for something else"):
            elsewhere(tell)(resolve("house_prices"), words="refuse")
        with workers(2) as elsewhere, pytest.raises(SystemTrouble, match="ended without a word, perhaps that of tell"):
            elsewhere(tell)(resolve("house_prices"), words="die")

    def test_do_not_outlive_who_asked_for_them(self, tmp_path: Path) -> None:
        script = tmp_path / "asks.py"
        script.write_text(
            f"import os, signal, sys; sys.path[:0] = [{str(ROOT)!r}]\n"
            "from headrace.jobs import resolve\n"
            "from headrace.placing.spreading import workers\n"
            "from tests.core.test_spreading import tell\n"
            "if __name__ == '__main__':\n"
            "    with workers(2) as elsewhere:\n"
            "        made = elsewhere(tell)(resolve('house_prices'), words='x')\n"
            "        print((made.path / 'process').read_text(), flush=True)\n"
            "        os.kill(os.getpid(), signal.SIGKILL)\n"
        )
        done = subprocess.run([sys.executable, script], check=False, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == -9, done.stderr
        process = int(done.stdout.split()[0])
        until = time.monotonic() + 20
        while Path(f"/proc/{process}").exists() and time.monotonic() < until:
            time.sleep(0.05)
        assert not Path(f"/proc/{process}").exists()


def test_one_at_a_time_needs_no_process() -> None:
    with workers(1) as elsewhere:
        made: Artifact = elsewhere(tell)(resolve("house_prices"), words="here")
    assert (made.path / "process").read_text() == f"{os.getpid()} here"
