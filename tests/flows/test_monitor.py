"""The flow that watches published models, through a real temporary server."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import flows
import flows.monitor
from headrace import registry, watching
from headrace.__main__ import main
from headrace.errors import ConfigError, HeadraceError
from headrace.jobs import Job
from tests.core.making import twin
from tests.core.test_watching import LINE, House
from tests.harness import Server

pytestmark = [
    pytest.mark.harness,
    # Not ours: what TensorFlow warns of while it is imported and used in this process.
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning"),
]

ASKED = {"workload": "house_prices", "line": LINE}


@pytest.fixture
def house(job: Callable[..., Job], tmp_path: Path) -> House:
    found = job()
    return House(found, twin(found, tmp_path / "raw"), tmp_path)


@pytest.fixture(autouse=True)
def server(prefect_server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """The temporary server, as if the user had named it."""
    monkeypatch.setenv("PREFECT_API_URL", prefect_server.url)
    return prefect_server


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What was told to those who listen."""
    told: list[dict[str, Any]] = []
    monkeypatch.setattr(flows.monitor, "emit_event", lambda event, **others: told.append({"event": event, **others}))
    return told


def newest(server: Server) -> dict[str, Any]:
    """The newest run of a flow."""
    (run,) = server.ask("/flow_runs/filter", sort="START_TIME_DESC", limit=1)
    return run


def test_drift_is_told_to_those_who_listen_and_is_no_failure(
    server: Server, house: House, events: list[dict[str, Any]]
) -> None:
    house.publish(22)
    flows.fan_out("monitor", {**ASKED, "input": str(house.sold())})
    assert events == []

    found = flows.fan_out("monitor", {**ASKED, "input": str(house.sold(tax=10))})
    run = newest(server)
    assert (run["name"], run["state"]["name"]) == (f"house_prices · {LINE} · sold.csv", "Completed")
    assert "drifted: TAX" in run["state"]["message"]
    assert found["looks"][0]["drifted"]
    (event,) = events
    assert event["event"] == "headrace.drift.detected"
    assert event["resource"]["prefect.resource.id"] == "headrace.workload.house_prices"
    wanted = {"variant": "final", "profile": "smoke", "data": "synthetic", "source": "boston", "line": LINE}
    assert wanted.items() <= event["payload"].items()
    assert (list(event["payload"]["columns"]), event["payload"]["version"], event["payload"]["rows"]) == (
        ["TAX"],
        1,
        300,
    )
    shown = {artifact["key"]: artifact["data"] for artifact in server.artifacts(run["id"])}
    key = "house-prices-synthetic-smoke-watched"
    assert shown.keys() == {key, f"{key}-columns"}
    assert "Drifted" in shown[key]
    assert shown[f"{key}-columns"].index("TAX") < shown[f"{key}-columns"].index("CRIM")


def test_a_model_that_has_decayed_is_rolled_back_unless_it_is_not_to_be(
    server: Server, house: House, events: list[dict[str, Any]]
) -> None:
    house.publish(22)
    house.publish(40)
    asked = {**ASKED, "input": str(house.sold())}
    flows.fan_out("monitor", {**asked, "rollback": False})
    assert (registry.blessed(LINE), events) == (2, [])

    flows.fan_out("monitor", asked)
    assert registry.blessed(LINE) == 1
    (event,) = events
    assert event["event"] == watching.ROLLED_BACK
    assert (event["payload"]["version"], event["payload"]["now"]) == (2, 1)


def test_everything_that_is_served_is_looked_at_and_one_trouble_does_not_end_the_others(
    server: Server, house: House, events: list[dict[str, Any]]
) -> None:
    assert flows.fan_out("monitor", {})["looks"] == []
    assert newest(server)["state"]["message"] == "no requests are kept, nothing to look at"

    house.publish(22)
    house.ask(99, 22, version=1)
    assert flows.fan_out("monitor", {})["looks"] == [
        {"workload": "house_prices", "line": LINE, "version": 1, "rows": 0}
    ]
    house.ask(50, 22, version=1, seed=1, tax=10)
    (found,) = flows.fan_out("monitor", {"false_alarms": 0.001})["looks"]
    assert (found["rows"], found["drifted"], len(events)) == (149, True, 1)

    house.ask(150, 22, version=1, seed=2)
    (registry.folder(LINE, 1) / "saved_model.pb").write_text("")
    with pytest.raises(HeadraceError, match="1 of 1 lines can't be watched"):
        flows.fan_out("monitor", {})
    assert newest(server)["state"]["name"] == "Incomplete"


def test_the_command_line_tells_what_the_flow_has_found(
    house: House, events: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    house.publish(22)
    words = ["monitor", "house_prices", "--line", LINE, "--engine", "prefect", "--json"]
    assert main([*words, "--input", str(house.sold(tax=10))]) == 1
    assert json.loads(capsys.readouterr().out)["drifted"]
    assert len(events) == 1


def test_new_data_of_nobody_are_refused() -> None:
    with pytest.raises(ConfigError, match="those of a workload"):
        flows.fan_out("monitor", {"input": "new.csv"})
