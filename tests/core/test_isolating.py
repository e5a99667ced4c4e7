"""Stages in processes of their own: the same results, errors and progress; and no death of a process is a hang."""

from __future__ import annotations

import ctypes
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import pytest

from headrace import errors
from headrace.artifacts import Artifact
from headrace.console import Advance, progress, shown_by
from headrace.errors import ConfigError, DataError, StageFailed, Unavailable
from headrace.jobs import resolve
from headrace.placing import isolating
from headrace.placing.isolating import isolated
from headrace.spec import Promise
from headrace.stages import Room, stage

ROOT = Path(__file__).resolve().parents[2]

log = logging.getLogger("headrace.baking")


class Late(Unavailable):
    """One that is known to this module only."""


@stage(tensorflow=True, volatile=("process",))
def bake(job: Any, room: Room, *, how: str, flour: Any = None) -> None:
    """A stage that does what it is told to."""
    (room.output / "process").write_text(f"{os.getpid()} {os.environ.get(isolating.VARIABLE)}")
    (room.output / "bread").write_text(f"{flour} {os.environ.get('FLOUR')}")
    begun = room.scratch / "begun"
    match how:
        case "slowly":
            if not begun.exists():
                begun.write_text(str(os.getpid()))
                time.sleep(600)
            begun.unlink()
        case "refused":
            raise DataError("Weevils.", expected="flour", remedy="sieve it")
        case "late":
            raise Late("Not yet.")
        case "stumbling":
            raise LookupError("no oven")
        case "killed":
            held = bytearray(200_000_000)
            held[::4096] = b"x" * len(held[::4096])
            time.sleep(1.5 * isolating.LOOK_SECONDS)
            os.kill(os.getpid(), signal.SIGKILL)
        case "crashing":
            ctypes.string_at(0)
        case "orphaned":
            Path(os.environ["FLOUR"]).write_text(str(os.getpid()))
            os.kill(os.getppid(), signal.SIGKILL)
            time.sleep(600)
        case "left":
            os._exit(3)
        case "told":
            log.warning("%d loaves", 3)
            log.debug("not asked for")
            with progress("oven", 4) as outer, progress("loaf", None) as inner:
                outer(1, "warm")
                inner(0.5, "rising")
                outer(2, "hot")
                outer(4, "done")


@stage()
def shelve(job: Any, room: Room) -> None:
    """A stage without TensorFlow."""
    (room.output / "process").write_text(str(os.getpid()))


def stop_server() -> None:
    """End the fork server, so that the next child begins another one."""
    forkserver._forkserver._stop()  # type: ignore[attr-defined]


@pytest.fixture(scope="module", autouse=True)
def light() -> Iterator[None]:
    """A fork server without TensorFlow, which these stages don't need; none is left after the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT)
        patch.setattr(isolating, "PRELOADED", ("headrace.placing.isolating",))
        stop_server()
        yield
    stop_server()


def baked(how: str = "well", **arguments: Any) -> Artifact:
    with isolated():
        return bake(resolve("house_prices"), how=how, **arguments)


def process(made: Artifact) -> int:
    return int((made.path / "process").read_text().split()[0])


def await_(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not condition() and time.monotonic() < until:
        time.sleep(0.02)
    assert condition()


class TestAChild:
    def test_makes_what_the_caller_would_in_the_environment_of_now(
        self, headrace_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        baked("first")  # the fork server knows the environment of this moment
        monkeypatch.setenv("FLOUR", "rye")
        made = baked(flour=Promise(metric="mae", at_most=3.0))
        found = bake(resolve("house_prices"), how="well", flour=Promise(metric="mae", at_most=3.0))
        assert (made.state, found.state, found) == ("run", "skipped", made)

        monkeypatch.setenv("HEADRACE_HOME", str(tmp_path / "other"))
        plain = bake(resolve("house_prices"), how="well", flour=Promise(metric="mae", at_most=3.0))
        assert (plain.digest, plain.path.name) == (made.digest, made.path.name)
        assert (process(plain), process(made) != os.getpid()) == (os.getpid(), True)
        # It does not start a child in its turn.
        assert (made.path / "process").read_text().endswith(" None")

    def test_is_not_started_for_what_is_skipped_or_needs_no_tensorflow(self, monkeypatch: pytest.MonkeyPatch) -> None:
        made = baked()

        def none(*_: Any) -> Any:
            raise AssertionError

        monkeypatch.setattr(isolating, "carried_out", none)
        with isolated():
            assert bake(resolve("house_prices"), how="well") == made
            assert process(shelve(resolve("house_prices"))) == os.getpid()

    def test_is_given_artifacts_in_lists_and_by_name(self) -> None:
        loaf = baked()
        asked = [loaf, [loaf, "x"], {"a": loaf, "b": None}, Promise(metric="mae", at_least=1.0), 3]
        travelled = isolating._whole(json.loads(json.dumps(isolating._plain(asked))))
        assert travelled == asked
        assert (travelled[0].node, travelled[0].path) == (loaf.node, loaf.path)

    def test_passes_on_what_it_says(self, caplog: pytest.LogCaptureFixture) -> None:
        heard: list[Any] = []

        @contextmanager
        def meter(title: str, total: float | None) -> Iterator[Advance]:
            heard.append((title, total))
            yield lambda done, words: heard.append((title, done, words))
            heard.append((title, "ends"))

        with shown_by(meter), caplog.at_level(logging.INFO, "headrace"):
            baked("told")
        assert [record.getMessage() for record in caplog.records if record.name == "headrace.baking"] == ["3 loaves"]
        assert heard[:2] == [("oven", 4), ("loaf", None)]
        assert {("oven", 1, "warm"), ("loaf", 0.5, "rising"), ("oven", 4, "done")} <= set(heard)
        assert [one for one in heard if "ends" in one] == [("loaf", "ends"), ("oven", "ends")]

    def test_may_be_spawned(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(isolating.VARIABLE, "spawn")
        with isolated():
            assert isolating.method() == "spawn"
            assert process(bake(resolve("house_prices"), how="well")) != os.getpid()

    def test_is_spawned_if_none_can_be_forked(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        (tmp_path / "dying.py").write_text("raise SystemExit\n")
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        monkeypatch.setattr(isolating, "PRELOADED", ("dying",))
        stop_server()
        assert process(baked()) != os.getpid()
        assert "one is spawned" in caplog.text


class TestAnError:
    def test_is_raised_as_it_was(self) -> None:
        with pytest.raises(DataError) as caught:
            baked("refused")
        expected = DataError("Weevils.", expected="flour", remedy="sieve it")
        assert (type(caught.value), str(caught.value), caught.value.problem) == (DataError, str(expected), "Weevils.")
        assert caught.value.__notes__ == ["in stage bake of house_prices · final"]
        assert 'raise DataError("Weevils."' in str(caught.value.__cause__)

    def test_of_a_workloads_own_kind_is_the_kind_that_it_is_of(self) -> None:
        with pytest.raises(Unavailable) as caught:
            baked("late")
        assert (type(caught.value), caught.value.exit_code) == (Unavailable, errors.Unavailable.exit_code)

    def test_that_nobody_foresaw_keeps_its_name(self) -> None:
        with pytest.raises(Exception, match="no oven") as caught:
            baked("stumbling")
        assert type(caught.value).__name__ == "LookupError"
        assert not isinstance(caught.value, errors.HeadraceError)


class TestADeath:
    @pytest.mark.parametrize(
        ("how", "told"),
        [
            ("killed", r"killed by SIGKILL; perhaps out of memory.*\n.*at least 0\.\d GB; the machine has"),
            ("crashing", r"crashed in native code, by SIGSEGV.*\n.*string_at(.*\n)*.*HEADRACE_DEBUG"),
            ("left", "ended with exit code 3 and no answer"),
        ],
    )
    def test_is_a_failed_stage(self, how: str, told: str) -> None:
        with pytest.raises(StageFailed, match=told) as caught:
            baked(how)
        assert caught.value.exit_code == 5
        assert caught.value.__notes__ == ["in stage bake of house_prices · final"]

    def test_of_the_fork_server_is_that_of_its_child(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("FLOUR", str(tmp_path / "flour"))
        with pytest.raises(StageFailed, match="no answer"):
            baked("orphaned")
        child = int((tmp_path / "flour").read_text())
        await_(lambda: not Path(f"/proc/{child}").exists())
        assert process(baked()) != child

    def test_leaves_what_was_kept_and_no_lock(self, headrace_home: Path) -> None:
        """The child is killed from outside; the next attempt, without a child, goes on."""
        script = running()
        os.kill(child_of(headrace_home), signal.SIGKILL)
        _, told = script.communicate(timeout=120)
        assert "killed by SIGKILL" in told
        goes_on()

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
    def test_of_the_caller_is_that_of_the_child(self, number: signal.Signals, headrace_home: Path) -> None:
        script = running()
        child = child_of(headrace_home)
        script.send_signal(number)
        script.communicate(timeout=120)
        await_(lambda: not Path(f"/proc/{child}").exists())
        goes_on()


def running() -> subprocess.Popen[str]:
    """A process that has a child bake slowly."""
    script = (
        # A shell in the background hands on that Ctrl-C is ignored.
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from headrace.placing import isolating\n"
        "from tests.core.test_isolating import baked\n"
        "isolating.PRELOADED = ('headrace.placing.isolating',)\n"
        "baked('slowly')\n"
    )
    return subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stderr=subprocess.PIPE, text=True)


def child_of(home: Path) -> int:
    """The process that has begun to bake."""
    found: list[Path] = []

    def begun() -> bool:
        found[:] = [path for path in home.rglob("scratch/begun") if path.read_text()]
        return bool(found)

    await_(begun)
    return int(found[0].read_text())


def goes_on() -> None:
    made = bake(resolve("house_prices"), how="slowly")
    assert (made.state, process(made)) == ("run", os.getpid())


class TestAsking:
    @pytest.mark.parametrize(("value", "expected"), [("", None), ("0", None), ("1", "forkserver"), ("spawn", "spawn")])
    def test_by_the_environment(self, value: str, expected: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(isolating.VARIABLE, value)
        assert isolating.method() == expected

    def test_for_what_does_not_exist(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(isolating.VARIABLE, "fork")
        with pytest.raises(ConfigError, match="HEADRACE_ISOLATE can't be `fork`"):
            baked()

    def test_by_the_command_line_lasts_as_long_as_the_command(
        self, headrace: Callable[..., Any], standing_in: Callable[..., None]
    ) -> None:
        seen: list[str | None] = []

        @stage()
        def download(job: Any, room: Room) -> None:
            seen.append(isolating.method())
            raise ConfigError("That is all.")

        standing_in(download=download)
        headrace("run", "tiny", "--isolate")
        headrace("run", "tiny")
        assert (seen, isolating.method()) == (["forkserver", None], None)


@pytest.mark.slow
def test_a_training_in_children_gives_equal_bytes_and_no_tensorflow_here(
    headrace_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = (
        "import sys\n"
        "from headrace.chain import Stages, prepared\n"
        "from headrace.jobs import resolve\n"
        "job, stages = resolve('house_prices', profile='smoke', data='synthetic'), Stages.plain()\n"
        "before = prepared(job, stages)\n"
        "model = stages.train(job, before[-1])\n"
        "made = [*before, model, stages.evaluate(job, before[-1], model)]\n"
        "print('loaded', [name for name in ('tensorflow', 'keras') if name in sys.modules])\n"
        "print('made', [artifact.digest for artifact in made])\n"
    )

    def told(home: Path, isolate: str) -> list[str]:
        environment = {**os.environ, "HEADRACE_HOME": str(home), isolating.VARIABLE: isolate}
        done = subprocess.run(
            [sys.executable, "-c", script], cwd=ROOT, env=environment, check=True, capture_output=True, text=True
        )
        return [line for line in done.stdout.splitlines() if line.startswith(("loaded ", "made "))]

    plain, alone = told(tmp_path / "plain", "0"), told(tmp_path / "alone", "1")
    assert plain == ["loaded ['tensorflow', 'keras']", plain[1]]
    assert alone == ["loaded []", plain[1]]
