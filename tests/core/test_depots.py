"""A home on an object store: what one machine finished another skips, what it left another goes on with."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from headrace import running
from headrace.artifacts import Artifact, home, read_json, write_json
from headrace.chain import Stages
from headrace.errors import ConfigError, StageFailed, SystemTrouble
from headrace.jobs import Job, resolve
from headrace.placing.clusters import nodes
from headrace.placing.spreading import Share
from headrace.stages import Room, stage
from headrace.storing import buckets, depots
from tests.conftest import PROJECT
from tests.core.conftest import forget_stores
from tests.core.test_resuming import outcome, start
from tests.core.trainables import records

ran: list[str] = []
begun_at: list[int] = []
Machine = Callable[[str], Path]


@stage(material=True)
def quarry(job: Job, room: Room, *, blocks: int = 3) -> None:
    """Blocks of stone, which only `carve` looks at."""
    ran.append(room.node)
    for number in range(blocks):
        (room.output / "stones").mkdir(exist_ok=True)
        (room.output / "stones" / f"{number}.txt").write_text(str(number))


@stage(volatile=("chips.log",), resumes=True)
def carve(job: Job, room: Room, stones: Artifact, *, to: int = 1, pause: float = 0.0, fail: bool = False) -> None:
    """A figure, cut by cut: it goes on where an attempt before was."""
    ran.append(room.node)
    done = room.scratch / "cuts.json"
    begun = (read_json(done) or {"at": 0})["at"]
    begun_at.append(begun)
    for number in range(begun, to):
        write_json(done, {"at": number + 1})
        time.sleep(pause)
    if fail:
        raise StageFailed("The stone broke.")
    found = sorted(path.read_text() for path in (stones.path / "stones").iterdir())
    write_json(room.output / "figure.json", {"stones": found, "to": to})
    (room.output / "chips.log").write_text(f"{begun} {time.time_ns()}")


JOB = resolve("house_prices")


@pytest.fixture(autouse=True)
def nothing_ran() -> None:
    ran.clear()
    begun_at.clear()


@pytest.fixture
def machine(bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Be a machine: all of them have the same bucket, each a folder of its own."""

    def be(name: str) -> Path:
        monkeypatch.setenv("HEADRACE_HOME", f"{bucket}/home")
        monkeypatch.setenv("HEADRACE_SCRATCH", str(tmp_path / name))
        return home()

    return be


def figure(**options: Any) -> Artifact:
    return carve(JOB, quarry(JOB), **options)


def objects(bucket: Any, below: str = "home") -> list[str]:
    """The names of all objects, without the digests that they begin with."""
    import fsspec

    store = fsspec.filesystem("s3")
    store.invalidate_cache()
    return sorted(path.partition("/")[2] for path in store.find(f"{bucket}/{below}".removeprefix("s3://")))


class TestTheHome:
    def test_is_worked_in_by_a_folder_for_each_url(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HEADRACE_SCRATCH", str(tmp_path))
        found = set()
        for url in ("s3://bucket/a", "s3://bucket/a/", "s3://bucket-a", "gs://bucket/a"):
            monkeypatch.setenv("HEADRACE_HOME", url)
            found.add(home())
        assert len(found) == 3
        assert {path.parent for path in found} == {tmp_path}

    def test_has_its_registry_on_the_same_store(self, machine: Machine, bucket: Any) -> None:
        from headrace import registry

        machine("a")
        assert str(registry.folder("houses")) == f"{bucket}/home/registry/houses"

    @pytest.mark.parametrize("url", ["ftp://host/home", "s3://", "http://host/home"])
    def test_of_a_kind_that_is_not_known_is_told(self, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HEADRACE_HOME", url)
        with pytest.raises(ConfigError, match=r"(?s)is no object store.*s3://…, gs://…, file://…"):
            quarry(JOB)


class TestFinishedFolders:
    def test_are_skipped_by_another_machine_with_the_same_bytes(self, machine: Machine) -> None:
        machine("a")
        made = figure()
        there = machine("b")
        again = figure()
        assert ran == ["quarry", "carve"]
        assert (again.state, again.digest) == ("skipped", made.digest)
        assert again.path.is_relative_to(there)
        assert again.json("figure.json") == {"stones": ["0", "1", "2"], "to": 1}
        assert (again.path / "chips.log").read_bytes() == (made.path / "chips.log").read_bytes()

    def test_lie_in_the_bucket_under_their_digests_and_are_closed_by_a_manifest(
        self, machine: Machine, bucket: Any
    ) -> None:
        machine("a")
        made = figure()
        place = f"home/artifacts/house_prices/carve/{made.path.name}"
        names = [name.removeprefix(place) for name in objects(bucket, place)]
        assert sorted(Path(name).name for name in names) == ["chips.log", "figure.json", "manifest.json"]
        manifest = json.loads((bucket / place / "manifest.json").read_text())
        assert manifest == read_json(made.path / "manifest.json")
        assert f"/{manifest['files']['figure.json']['sha256'][:16]}/figure.json" in names

    def test_that_only_stages_read_are_fetched_when_one_of_them_runs(self, machine: Machine) -> None:
        machine("a")
        figure()
        machine("b")
        figure()
        assert not quarry(JOB).path.exists()
        again = figure(to=2)
        assert quarry(JOB).path.is_dir()
        assert (ran, again.json("figure.json")["stones"]) == (["quarry", "carve", "carve"], ["0", "1", "2"])

    def test_are_planned_by_their_manifest_alone(self, machine: Machine) -> None:
        machine("a")
        stones, made = quarry(JOB), figure()
        there = machine("b")
        planned = carve.plan(JOB, stones)
        assert (planned.state, planned.digest) == ("skipped", made.digest)
        assert not there.exists()
        assert carve.plan(JOB, stones, to=9).state == "run"

    def test_of_which_an_object_is_gone_or_altered_are_made_anew(self, machine: Machine, bucket: Any) -> None:
        machine("a")
        made = figure()
        for number, harm in enumerate((lambda path: path.unlink(), lambda path: path.write_bytes(b"other"))):
            (damaged,) = (bucket / "home" / "artifacts" / "house_prices" / "carve" / made.path.name).glob(
                "*/figure.json"
            )
            harm(damaged)
            machine(f"b{number}")
            again = figure()
            assert (again.state, again.digest) == ("run", made.digest)
            assert "made before, but figure.json" in again.reason
            assert str(bucket) in again.reason
        machine("c")
        assert figure().state == "skipped"

    def test_that_a_stage_wants_to_read_and_that_are_damaged_are_made_by_the_same_command(
        self, machine: Machine, bucket: Any
    ) -> None:
        machine("a")
        stones = quarry(JOB)
        place = bucket / "home" / "artifacts" / "house_prices" / "quarry" / stones.path.name
        next(iter(place.glob("*/stones/1.txt"))).write_bytes(b"other")
        machine("b")
        with pytest.raises(SystemTrouble, match=r"(?s)quarry can't be fetched.*1.txt was altered.*makes it anew"):
            figure()
        assert figure().state == "run"
        assert ran == ["quarry", "quarry", "carve"]

    def test_whose_upload_was_cut_short_are_none_there_and_are_uploaded_by_the_next_run(
        self, machine: Machine, bucket: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The store takes two objects and is gone."""
        machine("a")
        upload, taken = buckets.upload, []

        def failing(given: Any, target: Path) -> dict[str, Any]:
            if len(taken) == 2:
                raise ConnectionResetError("gone")
            taken.append(target)
            return upload(given, target)

        with monkeypatch.context() as patch:
            patch.setattr(buckets, "upload", failing)
            patch.setattr(buckets, "AT_ONCE", 1)
            with pytest.raises(SystemTrouble, match=r"(?s)can't be brought to .*gone.*same command uploads it"):
                quarry(JOB)
        assert len(objects(bucket)) == 2
        machine("b")
        assert quarry.plan(JOB).state == "run"
        machine("a")
        planned = quarry.plan(JOB)
        assert (planned.state, "not yet brought to s3://" in planned.reason) == ("run", True)
        assert quarry(JOB).state == "skipped"
        machine("b")
        assert (quarry(JOB).state, ran) == ("skipped", ["quarry"])

    def test_are_whole_for_a_third_machine_where_two_finish_the_same_at_once(
        self, machine: Machine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """No lock holds over machines; of `chips.log`, which differs, the store has one of the two."""
        conclude = depots._conclude

        def meanwhile(target: Path, manifest: dict[str, Any]) -> None:
            """The second machine begins and ends between the first one's files and its manifest."""
            monkeypatch.setattr(depots, "_conclude", conclude)
            machine("b")
            figure()
            machine("a")
            conclude(target, manifest)

        machine("a")
        stones = quarry(JOB)
        monkeypatch.setattr(depots, "_conclude", meanwhile)
        made = carve(JOB, stones)
        assert ran == ["quarry", "carve", "carve"]
        machine("c")
        again = figure()
        assert (again.state, again.digest) == ("skipped", made.digest)
        assert (again.path / "chips.log").read_bytes() == (made.path / "chips.log").read_bytes()


def test_a_mounted_bucket_does_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_HOME", f"file://{tmp_path / 'mounted'}")
    monkeypatch.setenv(depots.VARIABLE, "0.05")
    found = []
    for name in "ab":
        monkeypatch.setenv("HEADRACE_SCRATCH", str(tmp_path / name))
        found.append(figure(to=4, pause=0.1))
    assert ([one.state for one in found], found[0].digest == found[1].digest) == (["run", "skipped"], True)
    assert len(list((tmp_path / "mounted").rglob("manifest.json"))) == 2


def test_the_record_of_a_run_is_uploaded_when_it_has_ended(
    machine: Machine, bucket: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def order(job: Job, stages: Any) -> list[Artifact]:
        raise StageFailed("The stone broke.")

    machine("a")
    with pytest.raises(StageFailed):
        running.execute(JOB, Stages.plain(), order)
    (name,) = objects(bucket, "home/runs")
    said = json.loads((bucket / name).read_bytes())
    assert (said["state"], said["error"]) == ("failed", "The stone broke.")
    assert said == read_json(home() / name.removeprefix("home/"))

    monkeypatch.setattr(buckets, "upload", lambda *_: (_ for _ in ()).throw(ConnectionResetError("gone")))
    with pytest.raises(StageFailed):
        running.execute(JOB, Stages.plain(), order)
    assert "The record of a run can't be brought to s3://" in caplog.text


class TestUnfinishedStages:
    @pytest.fixture(autouse=True)
    def often(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(depots.VARIABLE, "0.05")

    def broken(self, to: int) -> None:
        with pytest.raises(StageFailed):
            figure(to=to, pause=0.1, fail=True)

    def test_go_on_at_another_machine_where_they_were(self, machine: Machine, bucket: Any) -> None:
        machine("a")
        self.broken(10)
        at = json.loads(kept(bucket).read_bytes())["at"]
        machine("b")
        self.broken(10)
        assert begun_at == [0, at]
        assert at > 3

    def test_begin_with_what_is_newer(self, machine: Machine) -> None:
        """The same machine again, whose own scratch folder is ahead of what it could upload."""
        here = machine("a")
        self.broken(6)
        (cuts,) = here.glob("work/*/carve/*/scratch/cuts.json")
        write_json(cuts, {"at": 77})
        self.broken(6)
        assert begun_at == [0, 77]

    def test_begin_anew_where_what_was_kept_is_damaged(
        self, machine: Machine, bucket: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        machine("a")
        self.broken(6)
        kept(bucket).write_bytes(b"{}")
        machine("b")
        self.broken(6)
        assert begun_at == [0, 0]
        assert "is damaged: beginning anew" in caplog.text

    def test_leave_nothing_behind_when_they_are_finished(self, machine: Machine, bucket: Any) -> None:
        here = machine("a")
        figure(to=6, pause=0.1)
        assert objects(bucket, "home/work") == []
        assert not list(here.glob("work/*/*/*/"))

    def test_are_not_held_up_by_a_store_that_is_gone(
        self, machine: Machine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        machine("a")
        stones = quarry(JOB)

        def gone(*_: Any) -> None:
            raise ConnectionResetError("gone")

        with monkeypatch.context() as patch:
            patch.setattr(buckets, "upload", gone)
            with pytest.raises(SystemTrouble, match="it is finished on this machine"):
                carve(JOB, stones, to=6, pause=0.05)
        assert caplog.text.count("checkpoints can't be brought") == 1
        assert (carve(JOB, stones, to=6, pause=0.05).state, ran) == ("skipped", ["quarry", "carve"])

    def test_ask_for_an_interval_that_is_one(self, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
        machine("a")
        monkeypatch.setenv(depots.VARIABLE, "often")
        with pytest.raises(ConfigError, match="HEADRACE_UPLOAD_SECONDS can't be `often`"):
            figure()


def kept(bucket: Any) -> Path:
    """The file that was kept of the one stage that is unfinished."""
    for thread in threading.enumerate():
        if thread.name.startswith("uploads of"):
            thread.join()
    (name,) = (name for name in objects(bucket, "home/work") if name.endswith("cuts.json"))
    found: Path = bucket / name
    return found


class TestMoments:
    """What is uploaded of a folder that goes on changing."""

    def test_are_those_of_files_that_belong_together(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Both files are replaced while the first one is taken and the second one not yet."""
        folder, link, numbers = tmp_path / "scratch", os.link, iter((1, 2))

        def write(number: int) -> None:
            for name in ("a", "b"):
                write_json(folder / name, number)

        def linked(path: Path, target: Path) -> None:
            link(path, target)
            if path.name == "a":
                for number in numbers:
                    write(number)
                    break

        write(0)
        monkeypatch.setattr(os, "link", linked)
        assert depots._linked(folder, tmp_path / "moment")
        assert [read_json(tmp_path / "moment" / name) for name in ("a", "b")] == [2, 2]

    def test_are_none_of_a_folder_that_never_comes_to_rest(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write_json(tmp_path / "scratch" / "a", 0)
        monkeypatch.setattr(os, "link", lambda *_: write_json(tmp_path / "scratch" / "a", 0))
        assert not depots._linked(tmp_path / "scratch", tmp_path / "moment")

    def test_are_uploaded_only_where_they_differ_and_what_is_no_longer_named_goes(
        self, bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder, target = tmp_path / "scratch", bucket / "work"
        write_json(folder / "a.json", 1)
        write_json(folder / "b.json", 2)
        (folder / ".c.json.part").write_text("half")
        carrier, uploads, upload = depots._Carrier(folder, target), [], buckets.upload
        monkeypatch.setattr(buckets, "upload", lambda *given: uploads.append(given[1].name) or upload(*given))
        carrier.carry()
        carrier.carry()
        assert sorted(uploads) == ["a.json", "b.json"]
        write_json(folder / "b.json", 3)
        carrier.carry()
        assert sorted(uploads) == ["a.json", "b.json", "b.json"]
        assert sorted(Path(name).name for name in objects(bucket, "work")) == ["a.json", "b.json", "manifest.json"]
        assert [path.name for path in tmp_path.iterdir()] == ["scratch"]


@pytest.mark.slow
def test_a_training_that_is_killed_with_its_machine_goes_on_at_another_one_to_the_same_bytes(
    machine: Machine, tmp_path: Path, bucket: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGKILL of a real process; the second one finds nothing of the first but what lies in the bucket."""
    records("dense", tmp_path / "records")
    monkeypatch.setenv(depots.VARIABLE, "0.2")
    settings = {"epochs": 600, "steps_per_execution": 100, "early_stopping": None}

    def begin(name: str, home: str = f"{bucket}/home") -> subprocess.Popen[str]:
        machine(name)
        return start("dense", home, tmp_path / "records", settings)

    def kept_there() -> str:
        buckets.forget_listings(bucket)
        return "".join(path.read_text() for path in (bucket / "home" / "work" / "dense").glob("train/*/manifest.json"))

    first = begin("a")
    while first.poll() is None and "checkpoint" not in kept_there():
        time.sleep(0.05)
    first.kill()
    first.communicate()
    shutil.rmtree(tmp_path / "a")
    digest, resumed = outcome(begin("b"))
    assert first.returncode == -signal.SIGKILL
    assert resumed > (0, 0)
    assert objects(bucket, "home/work") == []
    undisturbed, from_the_start = outcome(begin("c", str(tmp_path / "undisturbed")))
    assert from_the_start == (0, 0)
    assert digest == undisturbed


@pytest.mark.slow
def test_nodes_of_a_cluster_need_no_shared_folder(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The node fetches what it reads, and the driver what the node made."""
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("PYTHONPATH", f"{PROJECT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    there = machine("node")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        here = machine("driver")
        monkeypatch.setenv("RAY_ADDRESS", cluster.address)
        stones = quarry(JOB)
        with nodes(None, Share()) as (elsewhere, _):
            made = elsewhere(carve)(JOB, stones, to=3)
    finally:
        cluster.shutdown()
    assert (made.state, made.path.is_relative_to(here)) == ("run", True)
    assert made.json("figure.json") == {"stones": ["0", "1", "2"], "to": 3}
    assert (there / "artifacts/house_prices/quarry" / stones.path.name / "manifest.json").exists()
    assert carve(JOB, stones, to=3).state == "skipped"
    assert ran == ["quarry"]


class TestTroubles:
    def test_a_bucket_that_is_not_there_is_told_and_not_made(
        self, bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HEADRACE_SCRATCH", str(tmp_path))
        monkeypatch.setenv("HEADRACE_HOME", "s3://no-such-bucket/home")
        for _ in range(2):
            with pytest.raises(SystemTrouble, match=r"(?s)can't be reached.*no bucket `no-such-bucket`"):
                quarry(JOB)
        assert ran == []

    def test_a_bucket_that_is_gone_meanwhile_is_told_and_not_made_anew(self, machine: Machine, bucket: Any) -> None:
        import boto3

        client, name = boto3.client("s3"), str(bucket).removeprefix("s3://")
        machine("a")
        assert quarry.plan(JOB).state == "run"
        client.delete_bucket(Bucket=name)
        with pytest.raises(SystemTrouble, match=r"(?s)can't be brought.*make the bucket, or name another one"):
            quarry(JOB)
        assert name not in [one["Name"] for one in client.list_buckets()["Buckets"]]

    def test_a_client_that_is_not_installed_is_told(self, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
        import sys

        machine("a")
        forget_stores()
        monkeypatch.setitem(sys.modules, "s3fs", None)
        with pytest.raises(SystemTrouble, match=r'(?s)can\'t be reached.*pip install "headrace\[s3\]"') as told:
            quarry(JOB)
        assert told.value.exit_code == 4

    def test_credentials_that_are_missing_are_told(
        self, machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        machine("a")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.delenv(name)
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
        monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
        forget_stores()
        with pytest.raises(SystemTrouble, match=r"(?s)can't be reached.*AWS_PROFILE, or AWS_ACCESS_KEY_ID"):
            quarry(JOB)

    def test_a_folder_that_can_not_be_written_is_told_with_its_own_variable(
        self, machine: Machine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        machine("a")
        quarry(JOB)
        figure()
        monkeypatch.setenv("HEADRACE_SCRATCH", "/sys/headrace")
        with pytest.raises(SystemTrouble, match=r"(?s)Not allowed to write while fetching.*HEADRACE_SCRATCH"):
            figure()

    def test_a_store_that_does_not_answer_is_told(self, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
        machine("a")
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        forget_stores()
        with pytest.raises(SystemTrouble, match=r"(?s)can't be reached.*Connect.*AWS_ENDPOINT_URL"):
            running.execute(JOB, Stages.plain())
        assert not home().exists()
