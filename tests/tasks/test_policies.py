"""What all tasks share, shown on stages that do nothing, through a real temporary server."""

from __future__ import annotations

import contextvars
import logging
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from prefect import flow, get_client
from prefect.concurrency.sync import concurrency
from prefect.states import State
from prefect.utilities import math
from websockets.asyncio import connection

from headrace.artifacts import Artifact
from headrace.console import progress
from headrace.errors import DataError, HeadraceError, StageFailed, Unavailable
from headrace.jobs import Job
from headrace.running import Summary
from tasks import policies
from tasks.policies import ACCELERATOR, as_task, concluded, counted, flow_run_name, source_of
from tasks.server import await_records
from tests.conftest import JobFactory
from tests.harness import Server

pytestmark = pytest.mark.harness

Act = Callable[[], Any]


def nothing(job: Job, made: Artifact) -> None:
    """Show nothing."""


def staged(name: str, act: Act = lambda: None, *, state: str = "run", reason: str = "never made", **policy: Any) -> Any:
    """A task around a stage that calls `act`."""

    def stage(job: Job, *inputs: Any, **named: Any) -> Artifact:
        act()
        return Artifact(Path(name), f"digest of {name}", name, state, reason)

    stage.__name__ = name
    return as_task(stage, **{"shows": nothing, "timeout": 60.0, **policy})


def carried_out(act: Act) -> State[Any]:
    """The state of a flow run that does nothing but `act`, when all its task runs are recorded."""

    @flow(name="house_prices")
    def house_prices() -> Any:
        return act()

    with counted() as task_runs:
        state = house_prices(return_state=True)
    await_records(task_runs)
    return state


def flow_run_of(state: State[Any]) -> str:
    return str(state.state_details.flow_run_id)


def test_a_task_run_is_called_as_a_person_would_call_it(job: JobFactory, prefect_server: Server) -> None:
    def stages() -> None:
        staged("download", about=source_of)(job())
        staged("train")(job(), fold=2, folds=4)
        staged("train")(job())
        staged("cross_validate")(job())

    runs = prefect_server.task_runs(flow_run_of(carried_out(stages)))

    assert [run["name"] for run in runs] == ["download · boston", "train · fold 2 of 4", "train", "cross-validate"]
    assert set(runs[1]["tags"]) == {"headrace", "train"}


def test_a_skipped_stage_ends_as_cached_and_says_why(job: JobFactory, prefect_server: Server) -> None:
    def stages() -> None:
        staged("download", state="skipped", reason="nothing has changed")(job())
        staged("preprocess", reason="`train.epochs` 5 → 8")(job())

    states = [run["state"] for run in prefect_server.task_runs(flow_run_of(carried_out(stages)))]

    assert [(state["type"], state["name"], state["message"]) for state in states] == [
        ("COMPLETED", "Cached", "nothing has changed"),
        ("COMPLETED", "Completed", "`train.epochs` 5 → 8"),
    ]


def test_the_graph_shows_what_was_made_of_what_and_nothing_else(job: JobFactory, prefect_server: Server) -> None:
    def stages() -> None:
        records = staged("preprocess")(job())
        folds = [staged("train")(job(), records, fold=k, folds=2) for k in (1, 2)]
        staged("cross_validate")(job(), folds)

    runs = prefect_server.task_runs(flow_run_of(carried_out(stages)))

    names = {run["id"]: run["name"] for run in runs}
    inputs = [{names[given["id"]] for part in run["task_inputs"].values() for given in part} for run in runs]
    assert inputs == [set(), {"preprocess"}, {"preprocess"}, {"train · fold 1 of 2", "train · fold 2 of 2"}]


def test_what_computes_with_a_model_waits_for_a_place_where_places_are_limited(
    job: JobFactory, prefect_server: Server
) -> None:
    begun, trained = threading.Event(), threading.Event()
    download, train = staged("download", begun.set), staged("train", trained.set, accelerated=True)

    def stages() -> None:
        download(job())
        train(job())

    with get_client(sync_client=True) as client, ThreadPoolExecutor() as pool:
        client.create_concurrency_limit(ACCELERATOR, 1)
        try:
            with concurrency(f"tag:{ACCELERATOR}", timeout_seconds=30):
                waiting = pool.submit(contextvars.copy_context().run, carried_out, stages)
                assert begun.wait(30)
                assert not trained.wait(3)
            state = waiting.result(60)
        finally:
            client.delete_concurrency_limit_by_tag(ACCELERATOR)

    assert state.is_completed()
    assert trained.is_set()


def test_nothing_waits_where_no_limit_is_set(job: JobFactory, prefect_server: Server) -> None:
    state = carried_out(lambda: staged("train", accelerated=True)(job()) and None)

    assert state.is_completed()
    (run,) = prefect_server.task_runs(flow_run_of(state))
    assert set(run["tags"]) == {"headrace", "train", ACCELERATOR}


class Failing:
    """Fails a number of times, then works."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.calls = 0

    def __call__(self) -> None:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)


def test_data_that_cannot_be_reached_are_tried_again(job: JobFactory, harness: str) -> None:
    act = Failing(Unavailable("no way"), Unavailable("no way"))

    state = carried_out(lambda: staged("download", act, retry_delays=(0.01, 0.02))(job()))

    assert (state.is_completed(), act.calls) == (True, 3)


@pytest.mark.parametrize("error", [DataError("wrong checksum"), ValueError("a bug")])
def test_what_cannot_pass_by_itself_is_not_tried_again(job: JobFactory, harness: str, error: Exception) -> None:
    act = Failing(error)

    state = carried_out(lambda: staged("download", act, retry_delays=(0.01, 0.02))(job()))

    assert (state.is_failed(), act.calls) == (True, 1)


def test_an_error_reaches_the_caller_as_the_stage_raised_it(job: JobFactory, prefect_server: Server) -> None:
    error = StageFailed("the loss is gone", expected="a number", received="nan", remedy="a lower rate")

    state = carried_out(lambda: staged("train", Failing(error))(job()))

    assert state.result(raise_on_failure=False) is error
    (run,) = prefect_server.task_runs(flow_run_of(state))
    for told in (run["state"], state.model_dump()):
        assert "the loss is gone\n  expected: a number\n  received: nan" in told["message"]


class Kept(logging.Handler):
    """Keeps what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.fixture
def lines() -> Iterator[list[logging.LogRecord]]:
    """What Prefect logs about task runs."""
    logger, kept = logging.getLogger("prefect.task_runs"), Kept()
    logger.addHandler(kept)
    yield kept.records
    logger.removeHandler(kept)


@pytest.mark.parametrize(
    ("error", "traceback"), [(DataError("column RM is missing"), False), (ValueError("a bug"), True)]
)
def test_only_a_fault_of_the_program_is_logged_with_a_traceback(
    job: JobFactory, harness: str, lines: list[logging.LogRecord], error: Exception, traceback: bool
) -> None:
    carried_out(lambda: staged("train", Failing(error))(job()))

    assert any(line.exc_info for line in lines) == traceback
    assert any("Finished in state Failed" in line.getMessage() for line in lines)


def test_another_attempt_is_announced_by_the_problem_alone(
    job: JobFactory, harness: str, lines: list[logging.LogRecord]
) -> None:
    act = Failing(Unavailable("no way", expected="a file", received="nothing", remedy="a cable"))

    carried_out(lambda: staged("download", act, retry_delays=(0.01,))(job()) and None)

    (line,) = [line.getMessage() for line in lines if "Retry 1/1" in line.getMessage()]
    assert "'no way'" in line
    assert "a cable" not in line


def test_what_prefect_draws_by_lot_changes_nothing_that_a_stage_draws() -> None:
    random.seed(7)
    alone = [random.random() for _ in range(3)]

    random.seed(7)
    drawn = []
    for _ in range(3):
        drawn.append(random.random())
        math.poisson_interval(1.0)
        connection.random.getrandbits(32)

    assert drawn == alone


def test_a_stage_that_takes_too_long_is_given_up(job: JobFactory, harness: str) -> None:
    def act() -> None:
        for _ in range(1000):
            time.sleep(0.01)

    state = carried_out(lambda: staged("train", act, timeout=0.2)(job()))

    error = state.result(raise_on_failure=False)
    assert isinstance(error, StageFailed)
    assert str(error) == "train: Task run exceeded timeout of 0.2 second(s)"


def test_what_cannot_be_shown_costs_no_run(job: JobFactory, harness: str, caplog: pytest.LogCaptureFixture) -> None:
    def shows(job: Job, made: Artifact) -> None:
        raise OSError("no font")

    state = carried_out(lambda: staged("evaluate", shows=shows)(job()) and None)

    assert state.is_completed()
    assert "what evaluate has made can't be shown: OSError: no font" in caplog.text


def test_the_log_lines_of_the_core_are_in_the_logs_of_the_run(job: JobFactory, prefect_server: Server) -> None:
    def act() -> None:
        logging.getLogger("headrace.somewhere").info("404 examples read")

    state = carried_out(lambda: staged("preprocess", act)(job()) and None)

    (run,) = prefect_server.task_runs(flow_run_of(state))
    wanted = {"task_run_id": {"any_": [run["id"]]}}
    until = time.monotonic() + 30
    while not (logs := [log["message"] for log in prefect_server.ask("/logs/filter", logs=wanted)]):
        assert time.monotonic() < until
        time.sleep(0.1)
    assert logs.count("404 examples read") == 1


def test_long_work_shows_its_progress(job: JobFactory, prefect_server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policies, "PROGRESS_SECONDS", 0.0)

    def act() -> None:
        with progress("train/fold 1", 4) as advance:
            advance(1, "loss 8")
            advance(2, "loss 4")

    (shown,) = prefect_server.artifacts(flow_run_of(carried_out(lambda: staged("train", act)(job()) and None)))

    assert (shown["type"], shown["data"], shown["description"]) == ("progress", 100.0, "train/fold 1: done")


def test_short_work_shows_no_progress(job: JobFactory, prefect_server: Server) -> None:
    def act() -> None:
        with progress("train/fold 1", 4) as advance:
            advance(4, "loss 4")

    assert prefect_server.artifacts(flow_run_of(carried_out(lambda: staged("train", act)(job()) and None))) == []


# --------------------------------------------------------------------------------------------- flow runs


def summary(verdict: str) -> Summary:
    return {
        "verdict": verdict,
        "metrics": {"mae": 3.4567},
        "gates": [
            {"gate": "promise", "passed": verdict != "fail", "reason": "mae 3.46, promised at most 3"},
            {"gate": "parity", "passed": True, "reason": "the same numbers"},
        ],
    }


def test_a_good_verdict_completes_the_flow_run(harness: str) -> None:
    state = carried_out(lambda: concluded(summary("pass")))

    assert (state.name, state.message) == ("Completed", "verdict: pass (mae 3.457)")
    assert state.result() == summary("pass")


def test_a_bad_verdict_rejects_the_model_and_fails_the_flow_run(harness: str) -> None:
    state = carried_out(lambda: concluded(summary("fail")))

    assert (state.name, state.is_failed()) == ("Rejected", True)
    assert state.message == "The verdict is fail: promise: mae 3.46, promised at most 3"
    rejected = state.result(raise_on_failure=False)
    assert isinstance(rejected, HeadraceError)
    assert (rejected.exit_code, rejected.summary) == (1, summary("fail"))  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("verdict", "policy", "name"),
    [
        ("fail", {"on_fail": "go on"}, "Completed"),
        ("not judged", {}, "Completed"),
        ("not judged", {"on_not_judged": "fail"}, "Rejected"),
    ],
)
def test_what_a_verdict_makes_of_a_flow_run_is_policy(
    harness: str, verdict: str, policy: dict[str, str], name: str
) -> None:
    told = summary(verdict) | {"settings": {"publish": policy}}

    state = carried_out(lambda: concluded(told))

    assert state.name == name
    assert f"verdict: {verdict}" in state.message or f"The verdict is {verdict}" in state.message


def test_a_flow_run_is_called_as_the_job(harness: str) -> None:
    names: list[str] = []

    @flow(name="house_prices", flow_run_name=lambda: names.append(flow_run_name()) or names[-1])
    def house_prices(variant: str, profile: str, source: str, seed: int) -> None: ...

    house_prices("kfold_100", "smoke", "boston", 0)
    house_prices("final", "full", "california", 3)

    assert names == ["house_prices · kfold_100 · smoke", "house_prices · final · california · seed 3"]
