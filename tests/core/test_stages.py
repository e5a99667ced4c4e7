"""What every stage shares: skipped if nothing changed, else run with the reason; nothing half-written is ever read."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from headrace.artifacts import Artifact, home
from headrace.errors import StageFailed, SystemTrouble
from headrace.jobs import Job, resolve
from headrace.stages import Room, Stage, stage

ran: list[str] = []


@pytest.fixture(autouse=True)
def nothing_ran() -> None:
    ran.clear()


@stage(functions=("read",))
def gather(job: Job, room: Room) -> None:
    """What the workload's `read` gives."""
    ran.append(room.node)
    (room.output / "flour.txt").write_text(str(job.origin.read(Path())["train"]))


@stage(settings=("train",), functions=("preprocess",), versions=("click",), volatile=("oven.log",))
def bake(job: Job, room: Room, flour: Artifact, *, fold: int | None = None) -> None:
    """A loaf of this flour."""
    ran.append(room.node)
    (room.output / "bread.txt").write_text((flour.path / "flour.txt").read_text() * job.settings.train.epochs)
    (room.output / "oven.log").write_text(str(time.time_ns()))


@stage(functions=("custom",))
def taste(job: Job, room: Room) -> None:
    """What a model says that has layers of the workload's own."""
    ran.append(room.node)


def tiny(**overrides: Any) -> Job:
    """A job of the workload `tiny`."""
    return resolve("tiny", overrides=overrides)


def both(job: Job | None = None) -> tuple[Artifact, Artifact]:
    """Gather and bake."""
    job = job or tiny()
    flour = gather(job)
    return flour, bake(job, flour)


pytestmark = pytest.mark.usefixtures("project")


class TestSkipping:
    def test_runs_again_what_loads_a_layer_of_the_workload_s_own_that_was_changed(self, edit: Any) -> None:
        edit("FACTOR = 2\n", "FACTOR = 2\n\n\ndef quern():\n    return {'stone': 1}\n")
        edit('name="tiny"', 'name="tiny", custom=quern')
        taste(tiny())
        assert taste(tiny()).state == "skipped"
        edit("{'stone': 1}", "{'stone': 2}")
        again = taste(tiny())
        assert (again.state, ran) == ("run", ["taste", "taste"])
        assert "`quern`" in again.reason

    def test_runs_what_was_never_made(self) -> None:
        flour, bread = both()
        assert ran == ["gather", "bake"]
        assert (flour.state, flour.reason) == ("run", "never made for this selection")
        assert (bread.path / "bread.txt").read_text() == "[2]" * 5

    def test_skips_what_is_already_made(self) -> None:
        first, second = both(), both()
        assert ran == ["gather", "bake"]
        assert second == first
        assert {(a.state, a.reason) for a in second} == {("skipped", "nothing it depends on has changed")}
        assert [a.seconds for a in second] == [a.seconds for a in first]

    def test_reruns_for_a_changed_setting_and_names_it(self) -> None:
        both()
        _, bread = both(tiny(**{"train.epochs": 8}))
        assert ran == ["gather", "bake", "bake"]
        assert bread.reason == "`train.epochs` 5 → 8"

    def test_does_not_rerun_for_a_setting_that_the_stage_does_not_use(self) -> None:
        both()
        both(tiny(**{"export.examples": 3, "model.units": 9}))
        assert ran == ["gather", "bake"]

    def test_keeps_both_results_of_two_settings(self) -> None:
        both()
        both(tiny(**{"train.epochs": 8}))
        both()
        both(tiny(**{"train.epochs": 8}))
        assert ran == ["gather", "bake", "bake"]

    def test_reruns_for_a_changed_line_of_the_function_that_the_stage_calls(self, edit: Any) -> None:
        both()
        edit("return lambda batch: batch", "return lambda batch: -batch")
        _, bread = both()
        assert ran == ["gather", "bake", "bake"]
        assert bread.reason == "`preprocess` in pipelines/tiny.py was changed"

    def test_does_not_rerun_for_a_docstring(self, edit: Any) -> None:
        both()
        edit('"""Nothing to learn."""', '"""Nothing at all to learn."""')
        both()
        assert ran == ["gather", "bake"]

    def test_reruns_what_depends_on_a_changed_result_and_names_it(self, edit: Any) -> None:
        both()
        edit("FACTOR = 2", "FACTOR = 3")
        flour, bread = both()
        assert ran == ["gather", "bake", "gather", "bake"]
        assert flour.reason == "`FACTOR` in pipelines/tiny.py was changed"
        assert bread.reason == "gather changed"

    def test_stops_where_a_rerun_gives_equal_bytes(self, edit: Any) -> None:
        both()
        edit("FACTOR = 2", "FACTOR = 1 + 1")
        flour, bread = both()
        assert (flour.state, bread.state) == ("run", "skipped")

    def test_names_three_changes_and_counts_the_others(self) -> None:
        both()
        changed = {"train.epochs": 1, "train.batch_size": 1, "train.loss": "mae", "train.shuffle": False}
        _, bread = both(tiny(**changed))
        assert bread.reason.count(";") == 2
        assert bread.reason.endswith("and 1 more")

    def test_asks_the_world_whether_a_result_still_stands(self) -> None:
        troubles: list[str | None] = [None, "the shop is closed"]

        @stage(stands=lambda artifact: troubles[0])
        def sell(job: Job, room: Room) -> None:
            ran.append("sell")
            (room.output / "receipt").write_text("1")

        sell(tiny())
        sell(tiny())
        troubles.reverse()
        again = sell(tiny())
        assert ran == ["sell", "sell"]
        assert again.reason == "made before, but the shop is closed"

    def test_counts_facts_that_are_no_settings(self) -> None:
        facts = {"weather": "dry"}

        @stage(facts=lambda job: facts)
        def sow(job: Job, room: Room) -> None:
            (room.output / "field").write_text("1")

        sow(tiny())
        facts["weather"] = "wet"
        assert sow(tiny()).reason == '`weather` "dry" → "wet"'


class TestDamage:
    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            (lambda path: (path / "bread.txt").write_text("mouldy"), "bread.txt was altered after it was finished"),
            (lambda path: (path / "bread.txt").unlink(), "bread.txt is missing"),
            (lambda path: (path / "manifest.json").unlink(), "manifest.json is missing or damaged"),
        ],
    )
    def test_is_noticed_and_made_good(self, change: Callable[[Path], None], reason: str) -> None:
        _, bread = both()
        change(bread.path)
        _, again = both()
        assert ran == ["gather", "bake", "bake"]
        assert again.reason == f"made before, but {reason}"
        assert (again.path / "bread.txt").read_text() == "[2]" * 5
        assert again == bread

    def test_of_the_note_about_the_last_time_only_loses_the_reason(self) -> None:
        both()
        for path in (home() / "artifacts" / "tiny" / "index").iterdir():
            path.write_text('{"key": ')
        _, bread = both(tiny(**{"train.epochs": 8}))
        assert bread.reason == "never made for this selection"

    def test_by_removal_of_the_folder_is_told(self) -> None:
        import shutil

        flour, _ = both()
        shutil.rmtree(flour.path)
        assert gather(tiny()).reason == f"its folder {flour.path.name} is gone"


class TestPlanning:
    def test_says_the_same_as_a_run_and_changes_nothing(self, edit: Any) -> None:
        flour, bread = both()
        before = sorted(home().rglob("*"))
        assert gather.plan(tiny()) == flour
        assert gather.plan(tiny()).state == "skipped"
        planned = bake.plan(tiny(**{"train.epochs": 8}), flour)
        assert (planned.state, planned.reason, planned.digest) == ("run", "`train.epochs` 5 → 8", "")
        assert sorted(home().rglob("*")) == before
        assert bread.digest

    def test_touches_no_disk_where_nothing_was_made(self) -> None:
        assert gather.plan(tiny()).state == "run"
        assert not home().exists()

    def test_can_not_know_what_follows_a_run(self) -> None:
        flour = gather.plan(tiny())
        bread = bake.plan(tiny(), flour)
        assert (bread.state, bread.digest) == ("unknown", "")
        assert bread.reason.startswith("after gather")


class TestFolds:
    def test_are_nodes_of_their_own(self) -> None:
        flour = gather(tiny())
        folds = [bake(tiny(), flour, fold=k) for k in (1, 2)]
        assert [fold.node for fold in folds] == ["bake/fold 1", "bake/fold 2"]
        assert len({fold.path for fold in folds}) == 2
        assert bake(tiny(), flour, fold=2).state == "skipped"

    def test_given_as_a_list_are_inputs(self) -> None:
        @stage()
        def taste(job: Job, room: Room, loaves: list[Artifact]) -> None:
            (room.output / "words").write_text(" ".join(loaf.node for loaf in loaves))

        flour = gather(tiny())
        folds = [bake(tiny(), flour, fold=k) for k in (1, 2)]
        taste(tiny(), folds)
        assert taste(tiny(), folds).state == "skipped"
        assert taste(tiny(), folds[:1]).state == "run"


class TestDigests:
    def test_do_not_see_volatile_files(self) -> None:
        _, first = both()
        (first.path / "bread.txt").unlink()
        _, second = both()
        assert first.digest == second.digest
        assert ran.count("bake") == 2


def failing(error: BaseException) -> Stage[[]]:
    """A stage that writes half of its work and fails the first time."""
    failed: list[BaseException] = []

    @stage()
    def knead(job: Job, room: Room) -> None:
        (room.output / "half").write_text("half")
        (room.scratch / "progress").write_text("half")
        if not failed:
            failed.append(error)
            raise error
        assert (room.scratch / "progress").read_text() == "half"
        (room.output / "whole").write_text("whole")

    return knead


class TestFailure:
    @pytest.mark.parametrize("error", [StageFailed("too wet"), ValueError("too wet"), KeyboardInterrupt("too wet")])
    def test_leaves_nothing_finished_and_keeps_what_the_next_attempt_needs(self, error: BaseException) -> None:
        knead = failing(error)
        with pytest.raises(type(error), match="too wet"):
            knead(tiny())
        assert not list((home() / "artifacts").rglob("*"))
        assert knead.plan(tiny()).state == "run"
        made = knead(tiny())
        assert (made.path / "whole").exists()
        assert not list((home() / "work").rglob("progress"))

    def test_says_in_which_stage(self) -> None:
        with pytest.raises(StageFailed) as caught:
            failing(StageFailed("too wet"))(tiny())
        assert caught.value.__notes__ == ["in stage knead of tiny · plain"]

    def test_of_a_full_disk_is_told_and_harms_nothing(self, full_disk: Callable[[], None]) -> None:
        @stage()
        def pour(job: Job, room: Room) -> None:
            (room.output / "sea").write_bytes(bytes(1_000_000))

        flour, _ = both()
        full_disk()
        with pytest.raises(SystemTrouble, match=r"No room left while running stage `pour`"):
            pour(tiny())
        assert gather(tiny()) == flour
        assert not list(home().rglob("sea"))

    def test_of_a_home_that_can_not_be_written_is_told(self, monkeypatch: pytest.MonkeyPatch) -> None:
        # Not a matter of permission bits, which bind no administrator: the kernel lets nobody make folders there.
        monkeypatch.setenv("HEADRACE_HOME", "/sys/headrace")
        with pytest.raises(SystemTrouble, match="Not allowed to write while preparing stage `gather`") as caught:
            gather(tiny())
        assert "HEADRACE_HOME" in str(caught.value)


class TestProcesses:
    def test_two_at_once_make_a_result_once(self) -> None:
        gate = threading.Barrier(2)
        made: list[Artifact] = []

        @stage()
        def brew(job: Job, room: Room) -> None:
            ran.append("brew")
            time.sleep(0.2)
            (room.output / "beer").write_text("1")

        def work() -> None:
            job = tiny()
            gate.wait()
            made.append(brew(job))

        threads = [threading.Thread(target=work) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert ran == ["brew"]
        assert sorted(artifact.state for artifact in made) == ["run", "skipped"]
        assert made[0] == made[1]

    def test_killed_in_a_stage_leaves_nothing_that_is_read(self, project: Path) -> None:
        script = project / "killed.py"
        script.write_text(
            "import os, signal, sys\n"
            "from headrace.jobs import resolve\n"
            "from headrace.stages import stage\n"
            "@stage()\n"
            "def knead(job, room):\n"
            "    (room.output / 'half').write_text('half')\n"
            "    (room.scratch / 'progress').write_text('x')\n"
            "    if len(sys.argv) > 1:\n"
            "        os.kill(os.getpid(), signal.SIGKILL)\n"
            "    print([p.name for p in room.output.iterdir()], [p.name for p in room.scratch.iterdir()])\n"
            "print(knead(resolve('tiny')).state)\n"
        )
        killed = subprocess.run([sys.executable, script, "die"], check=False, capture_output=True)
        assert killed.returncode == -9
        assert not list((home() / "artifacts").rglob("half"))
        again = subprocess.run([sys.executable, script], check=True, capture_output=True, text=True)
        assert again.stdout.splitlines() == ["['half'] ['progress']", "run"]


def test_the_manifest_says_what_the_result_depends_on() -> None:
    _, bread = both()
    manifest = json.loads((bread.path / "manifest.json").read_text())
    assert manifest["node"] == "bake"
    assert manifest["ingredients"]["settings"]["train"]["epochs"] == 5
    assert manifest["ingredients"]["inputs"].keys() == {"gather"}
    assert manifest["ingredients"]["versions"].keys() == {"click"}
    assert manifest["files"]["oven.log"]["volatile"]
