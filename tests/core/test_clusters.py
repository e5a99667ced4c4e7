"""Ray as the engine: the same results as without, errors as they are, and a lost node costs an attempt only."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from headrace import chain, recording
from headrace.artifacts import Artifact, home, write_json
from headrace.chain import Stages
from headrace.console import shown_by
from headrace.describing import summaries
from headrace.describing.summaries import summarise
from headrace.errors import ConfigError, SystemTrouble
from headrace.jobs import Job, resolve
from headrace.placing import clusters
from headrace.placing.clusters import _room, nodes
from headrace.placing.dividing import divided
from headrace.placing.spreading import Share, at_once
from headrace.readers.batches import batches
from headrace.stages import Room, stage
from tests.core.conftest import Result
from tests.core.kinds import EVERY, everything
from tests.core.making import parts_of
from tests.core.test_spreading import answering, tell

ROOT = Path(__file__).resolve().parents[2]
IMPORTABLE = os.pathsep.join(map(str, (ROOT / "src", ROOT)))
"""Where nodes find what is tested, and `tests`."""
JOB = resolve("house_prices")


@stage(facts=lambda job: {"seed": job.seed})
def count(job: Job, room: Room, *, to: int, before: Artifact | None = None, trouble: str = "") -> None:
    """Counts, a tenth of a second for each number, and goes on where the attempt before was cut short."""
    if trouble == "refuse":
        raise ConfigError("Refused.", remedy="ask for something else")
    done = room.scratch / "count.json"
    begun = json.loads(done.read_text())["at"] if done.exists() else 0
    for number in range(begun, to):
        write_json(done, {"at": number + 1})
        if trouble == "die" and number == to // 2 and not begun:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.1)
    write_json(room.output / "count.json", {"from": begun, "to": to, "pid": os.getpid()})


def test_ray_that_is_not_installed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(SystemTrouble, match="Ray is not installed") as told, nodes(1, Share()):
        pass
    assert "headrace[ray]" in str(told.value)


class TestRoom:
    def ray(self, *resources: dict[str, float]) -> Any:
        listed = [{"Alive": True, "Resources": each} for each in resources]
        return SimpleNamespace(nodes=lambda: [*listed, {"Alive": False, "Resources": {"CPU": 99.0}}])

    def test_is_counted_node_by_node(self) -> None:
        # Three processors on one node and three on another have room for two trainings of two, not for three.
        assert _room(self.ray({"CPU": 3.0}, {"CPU": 3.0}), Share(cpus=2)) == 2
        assert _room(self.ray({"CPU": 8.0, "GPU": 1.0}, {"CPU": 8.0}), Share(gpus=0.5)) == 2

    def test_that_no_node_has_is_told_with_what_they_have(self) -> None:
        with pytest.raises(ConfigError, match=r"2 times 4 CPU, 1 GPU(.|\n)*4 CPU, 1 GPU; 2 CPU, 0 GPU(.|\n)*--cpus"):
            _room(self.ray({"CPU": 4.0, "GPU": 1.0}, {"CPU": 2.0}), Share(cpus=4, gpus=1, workers=2))


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two nodes, each with one processor, on this machine."""
    from ray.cluster_utils import Cluster

    found = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    found.add_node(num_cpus=1)
    yield found
    found.shutdown()


@pytest.mark.slow
class TestNodes:
    @pytest.fixture(autouse=True)
    def joined(self, cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("RAY_ADDRESS", cluster.address)
        monkeypatch.setenv("PYTHONPATH", IMPORTABLE)

    def test_make_what_the_stage_would_and_are_asked_only_for_what_is_new(self) -> None:
        with nodes(None, Share()) as (elsewhere, limit):
            made = elsewhere(count)(JOB, to=1)
            again = elsewhere(count)(JOB, to=1)
        assert limit == 2
        assert made.json("count.json")["pid"] != os.getpid()
        assert (made.state, again.state, made.digest) == ("run", "skipped", again.digest)

    def test_show_their_progress_where_they_were_asked_while_they_work(self, tmp_path: Path) -> None:
        told: list[str] = []
        with shown_by(answering(tmp_path / "seen", told)), nodes(None, Share()) as (elsewhere, _):
            elsewhere(tell)(JOB, words=str(tmp_path / "seen"))
        assert told == ["seed 0: 1 of 2 half", "seed 0 ended"]

    def test_give_errors_back_as_they_are(self) -> None:
        with nodes(None, Share()) as (elsewhere, _), pytest.raises(ConfigError, match="ask for something else"):
            elsewhere(count)(JOB, to=1, trouble="refuse")

    def test_that_do_not_see_the_home_say_so(self, tmp_path: Path) -> None:
        gone = Artifact(tmp_path / "gone", "0" * 64, "preprocess")
        with (
            nodes(None, Share()) as (elsewhere, _),
            pytest.raises(SystemTrouble, match="does not see what was made before"),
        ):
            elsewhere(count)(JOB, to=1, before=gone)

    def test_whose_process_is_killed_go_on_where_it_was(self) -> None:
        with nodes(None, Share()) as (elsewhere, _):
            made = elsewhere(count)(JOB, to=10, trouble="die")
        assert made.json("count.json")["from"] == 6

    def test_that_are_lost_cost_an_attempt_only(self, cluster: Any) -> None:
        lost = cluster.add_node(num_cpus=1)
        cluster.wait_for_nodes()
        begun = time.monotonic()

        def lose() -> Artifact:
            while len(list((home() / "work").rglob("count.json"))) < 3:
                time.sleep(0.1)
            cluster.remove_node(lost, allow_graceful=False)
            return Artifact(Path(), "", "lost")

        with nodes(None, Share()) as (elsewhere, limit):
            assert limit == 3
            calls = [lambda to=to: elsewhere(count)(JOB, to=to) for to in (150, 151, 152)]
            *made, _ = at_once([*calls, lose], 4)
        counted = [one.json("count.json") for one in made]
        assert [one["to"] for one in counted] == [150, 151, 152]
        assert sum(one["from"] > 0 for one in counted) == 1
        assert time.monotonic() - begun < 120

    def test_give_a_study_the_numbers_of_one_machine(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, headrace: Callable[..., Result]
    ) -> None:
        """18 cells, and the folds of a run."""

        def told(engine: str, *words: str) -> dict[str, Any]:
            monkeypatch.setenv("HEADRACE_HOME", str(tmp_path / engine))
            found = headrace(*words, "--profile", "smoke", "--data", "synthetic", "--engine", engine, "--json")
            return dict(found.json)

        study, folds = ("study", "mnist", "mlp_grid"), ("run", "house_prices", "--variant", "kfold_100")
        cells = [
            {cell["cell"]: cell["value"] for cell in told(engine, *study)["study"]["cells"]}
            for engine in ("ray", "local")
        ]
        assert len(cells[0]) == 18
        assert cells[0] == cells[1]
        ray, local = (told(engine, *folds) for engine in ("ray", "local"))
        assert (ray["engine"], ray["metrics"], ray["verdict"]) == ("ray", local["metrics"], local["verdict"])

    def test_train_one_model_together_with_the_updates_of_one_process(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, headrace: Callable[..., Result]
    ) -> None:
        def learned(*words: str) -> list[float]:
            monkeypatch.setenv("HEADRACE_HOME", str(tmp_path / words[-1]))
            done = headrace("run", "house_prices", "--profile", "smoke", "--data", "synthetic", "--json", *words)
            (history,) = (tmp_path / words[-1]).glob("artifacts/house_prices/train/*/history.json")
            assert done.json["state"] == "completed"
            return list(json.loads(history.read_text())["metrics"]["loss"])

        together = learned("--set", "train.strategy=multi_worker", "--workers", "2", "--engine", "ray")
        assert together == pytest.approx(learned("--engine", "local"), rel=1e-4)

    def test_of_which_one_is_lost_in_training_begin_again_together(
        self, cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """By a kill -9 of the process that is not the first."""
        import ray

        settings = {"train.strategy": "multi_worker", "train.epochs": 150}
        job = resolve("house_prices", profile="smoke", data="synthetic", overrides=settings)
        records = chain.prepared(job, Stages.plain())[-1]
        train = Stages.plain().train
        cut: list[int] = []

        def cut_short() -> Artifact:
            while not list((home() / "work").rglob("checkpoint-*.npz")):
                time.sleep(0.05)
            cut.append(kill_one())
            return records

        with nodes(None, Share(workers=2)) as (elsewhere, _):
            made, _ = at_once([lambda: elsewhere(train)(job, records), cut_short], 2)
        assert cut
        assert made.json("training.json")["resumed_from_epoch"] > 0
        monkeypatch.setenv("HEADRACE_HOME", str(tmp_path / "undisturbed"))
        with nodes(None, Share(workers=2)) as (elsewhere, _):
            expected = elsewhere(train)(job, records)
        assert made.digest == expected.digest
        assert not ray.is_initialized()


PREPARED = {"house_prices": 5_000, "cats_vs_dogs": 500_000, "imdb_reviews": 20_000}
"""A table, photographs, and texts of which a vocabulary is learned; bytes of a part, so that there are several."""


def few_examples(patch: pytest.MonkeyPatch) -> None:
    """Make parts of a few examples."""
    parts_of(1, patch)
    patch.setattr(recording, "PORTION", 5_000)
    patch.setattr(recording, "READ", 5_000)
    patch.setattr(summaries, "ROWS", 20)


def prepared(home: Path, raw: dict[str, Artifact], patch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Digests of what `preprocess` makes in a home where there is nothing yet; statistics of every kind of feature."""
    patch.setenv("HEADRACE_HOME", str(home))
    jobs = {name: resolve(name, profile="smoke", data="synthetic") for name in PREPARED}
    for name in PREPARED:
        raw.setdefault(name, Stages.plain().download(jobs[name]))
    made = {}
    for name, size in PREPARED.items():
        parts_of(size, patch)
        made[name] = Stages.plain().preprocess(jobs[name], raw[name])
    assert {one.state for one in made.values()} == {"run"}
    parts_of(1, patch)
    statistics = summarise(batches(everything(200), 7), EVERY)
    return {**{name: one.digest for name, one in made.items()}, "statistics": statistics.to_json()}


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Artifact], dict[str, Any]]:
    """Raw data, and what one machine prepares of them."""
    raw: dict[str, Artifact] = {}
    with pytest.MonkeyPatch.context() as patch:
        few_examples(patch)
        return raw, prepared(tmp_path_factory.mktemp("alone"), raw, patch)


def worked_on(folder: Path, trouble: str, pieces: Iterable[int]) -> Iterator[tuple[int, int, int]]:
    """Notes what is worked on; gives it back with the process and the threads of TensorFlow."""
    for piece in pieces:
        with (folder / f"{piece}.txt").open("a") as noted:
            noted.write(f"{os.getpid()}\n")
        if piece == 3 and trouble == "refuse":
            raise ConfigError("Refused.", remedy="ask for something else")
        if piece == 3 and trouble == "break":
            raise ValueError("a bug")
        if piece == 3 and trouble == "die" and len((folder / "3.txt").read_text().splitlines()) == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        yield piece, os.getpid(), int(os.environ.get("TF_NUM_INTRAOP_THREADS", 0))


@pytest.mark.slow
class TestParts:
    @pytest.fixture(autouse=True)
    def small(self, monkeypatch: pytest.MonkeyPatch) -> None:
        few_examples(monkeypatch)
        monkeypatch.setenv("PYTHONPATH", IMPORTABLE)

    @pytest.mark.parametrize("count", [1, 2, 4])
    def test_give_the_bytes_of_one_machine(
        self,
        count: int,
        alone: tuple[dict[str, Artifact], dict[str, Any]],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        from ray.cluster_utils import Cluster

        raw, expected = alone
        sent: list[int] = []
        real = clusters.in_turn

        def in_turn(submit: Callable[[Any], Any], parts: Iterable[Any], ahead: int) -> Iterator[Any]:
            return real(lambda part: sent.append(ahead) or submit(part), parts, ahead)

        monkeypatch.setattr(clusters, "in_turn", in_turn)
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
        try:
            for _ in range(count - 1):
                cluster.add_node(num_cpus=1)
            monkeypatch.setenv("RAY_ADDRESS", cluster.address)
            with nodes(None, Share()):
                found = prepared(tmp_path, raw, monkeypatch)
        finally:
            cluster.shutdown()
        assert found == expected
        # Parts of two splits of each workload at least, and of the statistics, two of them ahead for each node.
        assert len(sent) >= 2 * len(PREPARED) + 1
        assert set(sent) == {2 * count}

    def test_have_the_threads_that_were_asked_for(self, tmp_path: Path, cluster: Any, monkeypatch: Any) -> None:
        monkeypatch.setenv("RAY_ADDRESS", cluster.address)
        with nodes(None, Share(cpus=0.5)):
            found = list(divided(partial(worked_on, tmp_path, ""), range(6), lambda _: 1))
        assert [piece for piece, *_ in found] == list(range(6))
        here, *there = found
        assert here[1] == os.getpid()
        assert {threads for *_, threads in there} == {1}
        assert os.getpid() not in {process for _, process, _ in there}

    def test_whose_process_is_killed_are_worked_on_again(self, tmp_path: Path, cluster: Any, monkeypatch: Any) -> None:
        monkeypatch.setenv("RAY_ADDRESS", cluster.address)
        with nodes(None, Share()):
            found = list(divided(partial(worked_on, tmp_path, "die"), range(8), lambda _: 1))
        assert [piece for piece, *_ in found] == list(range(8))
        attempts = [len((tmp_path / f"{piece}.txt").read_text().splitlines()) for piece in range(8)]
        assert attempts == [1, 1, 1, 2, 1, 1, 1, 1]

    def test_give_errors_back_as_they_are_after_the_results_before(
        self, tmp_path: Path, cluster: Any, monkeypatch: Any
    ) -> None:
        monkeypatch.setenv("RAY_ADDRESS", cluster.address)
        with nodes(None, Share()):
            found = divided(partial(worked_on, tmp_path, "refuse"), range(8), lambda _: 1)
            assert [next(found)[0] for _ in range(3)] == [0, 1, 2]
            with pytest.raises(ConfigError, match="ask for something else"):
                next(found)
            with pytest.raises(ValueError, match="a bug"):
                list(divided(partial(worked_on, tmp_path, "break"), range(8), lambda _: 1))


def kill_one() -> int:
    """Kill the worker of a training whose home is not the shared one."""
    for path in Path("/proc").glob("[0-9]*"):
        try:
            told, environment = ((path / name).read_bytes() for name in ("cmdline", "environ"))
            opened = [os.readlink(file) for file in (path / "fd").iterdir()]
        except OSError:
            continue
        ours = told.startswith(b"ray::_Member") and f"HEADRACE_HOME={home()}".encode() in environment.split(b"\0")
        # The first one holds the lock of the stage.
        if ours and not any(file.startswith(str(home())) for file in opened):
            os.kill(int(path.name), signal.SIGKILL)
            return int(path.name)
    raise AssertionError("no other worker was found")
