"""The flow of house prices, whole, through a real temporary server."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import flows
from headrace.artifacts import Artifact
from headrace.errors import ConfigError, DataError
from headrace.jobs import Job
from tests.harness import Server

pytestmark = pytest.mark.harness

SMOKE = {"variant": "kfold_100", "profile": "smoke", "data": "synthetic"}
NAMES = [
    "download · boston",
    "preprocess",
    "examine",
    "train · fold 1 of 2",
    "train · fold 2 of 2",
    "cross-validate",
    "train",
    "evaluate",
    "export",
    "publish",
    "monitor",
    "report",
]
KEYS = {
    "house-prices-data": "table",
    "house-prices-statistics": "table",
    "house-prices-data-findings": "markdown",
    "house-prices-curve-fold-1": "markdown",
    "house-prices-curve-fold-2": "markdown",
    "house-prices-cross-validation": "markdown",
    "house-prices-curve": "markdown",
    "house-prices-evaluation": "markdown",
    "house-prices-parity": "table",
    "house-prices-verdict": "markdown",
    "house-prices-drift": "table",
    "house-prices-report": "markdown",
}


@pytest.fixture(autouse=True)
def server(prefect_server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """The temporary server, as if the user had named it."""
    monkeypatch.setenv("PREFECT_API_URL", prefect_server.url)
    return prefect_server


def newest(server: Server) -> dict[str, Any]:
    """The newest run of the flow."""
    (run,) = server.ask("/flow_runs/filter", sort="START_TIME_DESC", limit=1)
    return run


# Not ours: what TensorFlow and its converters warn of while they are imported and used in this process.
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_a_run_shows_every_stage_and_the_next_one_that_all_are_cached(server: Server) -> None:
    first = flows.run("house_prices", SMOKE)
    run = newest(server)
    made = server.task_runs(run["id"])
    shown = {artifact["key"]: artifact for artifact in server.artifacts(run["id"])}

    assert (run["name"], run["state"]["name"]) == ("house_prices · kfold_100 · smoke", "Completed")
    assert [task["name"] for task in made] == NAMES
    assert {task["state"]["name"] for task in made} == {"Completed"}
    assert {key: artifact["type"] for key, artifact in shown.items() if key} == KEYS
    assert max(len(str(artifact["data"])) for artifact in shown.values()) < 150_000
    assert f"Verdict: {first['verdict']}" in shown["house-prices-verdict"]["data"]
    assert "data:image/png" in shown["house-prices-cross-validation"]["data"]
    assert Path(first["report"]).is_file()

    second = flows.run("house_prices", SMOKE)
    again = newest(server)
    skipped = server.task_runs(again["id"])

    assert again["id"] != run["id"]
    assert [task["name"] for task in skipped] == NAMES
    assert {task["state"]["name"] for task in skipped} == {"Cached"}
    assert {a["key"]: a["type"] for a in server.artifacts(again["id"]) if a["key"]} == KEYS
    assert second["metrics"] == first["metrics"]
    assert {stage["state"] for stage in second["stages"]} == {"skipped"}


@pytest.mark.parametrize(
    ("workload", "parameters", "message"),
    [
        ("house_price", {}, "did you mean `house_prices`"),
        ("house_prices", {"variant": "kfold"}, "there is no `kfold`"),
        ("house_prices", {"overrides": {"train.epoch": 3}}, "`epochs`"),
    ],
)
def test_a_request_that_cannot_be_carried_out_makes_no_run(
    server: Server, workload: str, parameters: dict[str, Any], message: str
) -> None:
    before = server.ask("/flow_runs/count")

    with pytest.raises(ConfigError, match=message):
        flows.run(workload, parameters)

    assert server.ask("/flow_runs/count") == before


def test_a_failed_stage_fails_the_run_with_its_message_and_reaches_the_caller(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows import house_prices
    from tasks.policies import as_task

    error = DataError("Column `RM` is missing.", expected="13 columns", received=12)

    def download(job: Job) -> Artifact:
        raise error

    failing = replace(house_prices.STAGES, download=as_task(download, shows=lambda job, made: None, timeout=60))
    monkeypatch.setattr(house_prices, "STAGES", failing)

    with pytest.raises(DataError) as raised:
        flows.run("house_prices", SMOKE)

    run = newest(server)
    (task,) = server.task_runs(run["id"])
    assert raised.value is error
    assert (run["state"]["name"], task["state"]["name"]) == ("Failed", "Failed")
    for state in (run["state"], task["state"]):
        assert "Column `RM` is missing.\n  expected: 13 columns" in state["message"]


def test_a_rejected_model_fails_the_run_but_the_caller_gets_the_summary(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows import house_prices

    gates = [{"gate": "baseline", "passed": False, "reason": "worse than the median"}]
    summary = {"verdict": "fail", "metrics": {"mae": 9.0}, "gates": gates}
    monkeypatch.setattr(house_prices, "execute", lambda job, stages, engine: summary)

    assert flows.run("house_prices", SMOKE) == summary
    assert newest(server)["state"]["name"] == "Rejected"
    assert newest(server)["state"]["message"] == "The verdict is fail: baseline: worse than the median"
