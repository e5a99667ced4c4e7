"""The flows of studies, tunings and ensembles, whole, through a real temporary server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import flows
from headrace.errors import ConfigError
from tests.harness import Server

pytestmark = [
    pytest.mark.harness,
    # Not ours: what TensorFlow warns of while it is imported and used in this process.
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning"),
]

SMALL = {
    "workload": "house_prices",
    "profile": "smoke",
    "data": "synthetic",
    # Tracing for XLA would take longer than these trainings.
    "overrides": {"train.epochs": 2, "train.jit_compile": False, "model.layers": 1},
}


@pytest.fixture(autouse=True)
def server(prefect_server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """The temporary server, as if the user had named it."""
    monkeypatch.setenv("PREFECT_API_URL", prefect_server.url)
    return prefect_server


def newest(server: Server) -> dict[str, Any]:
    """The newest run of a flow."""
    (run,) = server.ask("/flow_runs/filter", sort="START_TIME_DESC", limit=1)
    return run


def test_a_study_shows_every_cell_and_the_ranking_and_then_that_all_is_cached(server: Server) -> None:
    first = flows.fan_out("study", {**SMALL, "name": "capacity"})
    run = newest(server)
    made = server.task_runs(run["id"])
    shown = {artifact["key"]: artifact for artifact in server.artifacts(run["id"]) if artifact["key"]}

    assert (run["name"], run["state"]["name"]) == ("house_prices · capacity · smoke", "Completed")
    cells = [f"units {units}" for units in (4, 64, 256)]
    nodes = [(f"train · {c} · fold 1 of 2", f"train · {c} · fold 2 of 2", f"cross-validate · {c}") for c in cells]
    assert [task["name"] for task in made] == [
        "download · boston",
        "preprocess",
        *[name for names in nodes for name in names],
        "study · capacity",
    ]
    assert shown["house-prices-study-capacity"]["type"] == "table"
    assert "units 256" in shown["house-prices-study-capacity"]["data"]
    assert "data:image/png" in shown["house-prices-study-capacity-curves"]["data"]
    assert Path(first["report"]).name == "study.html"

    second = flows.fan_out("study", {**SMALL, "name": "capacity"})
    skipped = server.task_runs(newest(server)["id"])
    assert {task["state"]["name"] for task in skipped} == {"Cached"}
    assert second["study"] == first["study"]


def test_a_tuning_shows_its_trials_and_the_best(server: Server) -> None:
    found = flows.fan_out("tune", {**SMALL, "name": "width"})
    run = newest(server)
    names = [task["name"] for task in server.task_runs(run["id"])]
    shown = {artifact["key"]: artifact for artifact in server.artifacts(run["id"]) if artifact["key"]}

    assert names[2:6] == [f"train · trial {number}" for number in (1, 2, 3, 4)]
    assert names[6:9] == ["train · best 1 · epochs", "train · best 1", "evaluate · best 1"]
    assert names[-2:] == ["ensemble · width", "tune · width"]
    assert shown["house-prices-tuning-width"]["type"] == "table"
    assert "average of all" in shown["house-prices-tuning-width-best"]["data"]
    assert len(found["tuning"]["trials"]) == 4


def test_a_request_that_cannot_be_carried_out_fails_with_the_nearest_name(server: Server) -> None:
    with pytest.raises(ConfigError, match="did you mean `capacity`"):
        flows.fan_out("study", {**SMALL, "name": "capacities"})
    assert newest(server)["state"]["name"] == "Failed"


def test_an_ensemble_shows_every_member_and_their_average(server: Server) -> None:
    found = flows.fan_out("ensemble", {**SMALL, "name": "widths"})
    run = newest(server)
    names = [task["name"] for task in server.task_runs(run["id"])]

    assert (run["name"], run["state"]["type"]) == ("house_prices · widths · smoke", "COMPLETED")
    assert names[:2] == ["download · boston", "preprocess"]
    assert [name for name in names if name.startswith("train")] == [
        f"train · {member}" for member in ("narrow", "book", "wide")
    ]
    assert names[-1] == "ensemble · widths"
    assert set(found["metrics"]) >= {"mae", "rmse"}


@pytest.mark.slow
def test_cells_can_be_trained_by_the_nodes_of_a_cluster(server: Server) -> None:
    """Of this machine alone, which Ray makes one of."""
    on_nodes = flows.fan_out("study", {**SMALL, "name": "capacity", "at_once": 2, "cluster": True})

    state = newest(server)["state"]["name"]
    again = flows.fan_out("study", {**SMALL, "name": "capacity"})

    assert state == "Completed"
    assert {stage["state"] for stage in on_nodes["stages"]} == {"run"}
    # What the nodes have made is what this process would make: nothing is left to be done.
    assert {stage["state"] for stage in again["stages"]} == {"skipped"}
