"""The flow over all workloads, through a real temporary server, with flows that compute nothing."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest
from prefect import flow
from prefect.states import Failed

import flows
import flows.nightly
from headrace.errors import ConfigError, DataError, HeadraceError
from headrace.spec import Deploy
from tasks.policies import Rejected
from tests.harness import Server

pytestmark = pytest.mark.harness


@pytest.fixture(autouse=True)
def server(prefect_server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """The temporary server, as if the user had named it."""
    monkeypatch.setenv("PREFECT_API_URL", prefect_server.url)
    return prefect_server


@pytest.fixture(autouse=True)
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Three workloads: one that passes, one whose verdict is *fail*, one that has no data; and what they were asked."""
    given: list[dict[str, Any]] = []

    @flow(name="good")
    def good(variant: str, profile: str, data: str, seed: int) -> Any:
        given.append({"variant": variant, "profile": profile, "data": data, "seed": seed})
        return {"verdict": "pass", "metrics": {"mae": 2.5}}

    @flow(name="poor")
    def poor(variant: str, profile: str, data: str, seed: int) -> Any:
        rejected = Rejected("The verdict is fail: baseline")
        rejected.summary = {"verdict": "fail", "metrics": {"accuracy": 0.1}}
        return Failed(name="Rejected", message="no", data=rejected)

    @flow(name="lost")
    def lost(variant: str, profile: str, data: str, seed: int) -> Any:
        raise DataError("There are no data.")

    made = {"good": good, "lost": lost, "poor": poor}
    for name, one in made.items():
        monkeypatch.setitem(sys.modules, f"flows.{name}", SimpleNamespace(**{name: one}))
    workload = SimpleNamespace(deploy=Deploy(variant="large", smoke="small"), default_variant="first")
    known = SimpleNamespace(names=lambda: ["broken", *made], load=lambda name: dict.fromkeys(made, workload)[name])
    monkeypatch.setattr(flows.nightly, "projects", known)
    return given


def test_a_failure_of_one_does_not_end_the_others_and_all_stand_in_one_table(server: Server) -> None:
    with pytest.raises(HeadraceError, match="1 of 4 workloads ended well; not: broken, lost, poor"):
        flows.fan_out("nightly", {"profile": "full"})
    (run,) = server.ask("/flow_runs/filter", sort="START_TIME_DESC", limit=1, flows={"name": {"any_": ["nightly"]}})
    assert run["state"]["name"] == "Incomplete"
    assert run["name"] == "full · 4 workloads"
    (shown,) = [artifact for artifact in server.artifacts(run["id"]) if artifact["key"]]
    assert shown["key"] == "nightly-full"
    for told in ("mae 2.5", "accuracy 0.1", "There are no data.", "KeyError", '"verdict": "fail"'):
        assert told in shown["data"], shown["data"]


def test_all_is_well_if_all_chosen_ones_ended_well(asked: list[dict[str, Any]]) -> None:
    found = flows.fan_out("nightly", {"workloads": ["good"], "data": "synthetic", "seed": 3})
    assert found["words"] == "1 of 1 workloads ended well"
    assert asked == [{"variant": "small", "profile": "smoke", "data": "synthetic", "seed": 3}]
    flows.fan_out("nightly", {"workloads": ["good"], "profile": "full"})
    assert asked[-1]["variant"] == "large"


def test_an_unknown_workload_is_refused_before_anything_runs(asked: list[dict[str, Any]]) -> None:
    with pytest.raises(ConfigError, match="There is no workload `god`: did you mean `good`"):
        flows.fan_out("nightly", {"workloads": ["good", "god"]})
    assert asked == []
