"""`prefect.yaml`, flows and workloads fit each other: Prefect itself would notice only when a run fails."""

from __future__ import annotations

import importlib
import importlib.metadata
import inspect
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import yaml
from prefect import Flow
from prefect.events.schemas.deployment_triggers import DeploymentTriggerTypes
from prefect.events.schemas.events import Resource
from prefect.flows import load_flow_from_entrypoint
from pydantic import TypeAdapter

import flows
from headrace import ensembling, projects, studying, tuning, watching
from headrace.jobs import resolve

PROJECT = Path(__file__).resolve().parents[2]
DEPLOYMENTS: list[dict[str, Any]] = yaml.safe_load((PROJECT / "prefect.yaml").read_text())["deployments"]
WORKLOADS = projects.names()
FLOWS = [*WORKLOADS, *flows.FAN_OUTS, *flows.OVER_ALL]

each_deployment = pytest.mark.parametrize(
    "deployment", DEPLOYMENTS, ids=[f"{d['entrypoint'].partition(':')[2]}/{d['name']}" for d in DEPLOYMENTS]
)
each_workload = pytest.mark.parametrize("workload", WORKLOADS)
each_flow = pytest.mark.parametrize("name", [*FLOWS, *flows.OTHERS])


@pytest.fixture(autouse=True)
def as_prefect_loads_files(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """From the project's folder; the folders that Prefect puts first on the path do not stay there."""
    monkeypatch.chdir(PROJECT)
    monkeypatch.setattr(sys, "path", list(sys.path))
    modules = set(sys.modules)
    yield
    for name in set(sys.modules) - modules:
        if name in (*FLOWS, *flows.OTHERS) or name.startswith("__prefect_loader"):
            del sys.modules[name]


def flow_of(name: str) -> Flow[..., Any]:
    return getattr(importlib.import_module(f"flows.{name}"), name)


def test_every_workload_has_a_flow_and_every_flow_a_workload() -> None:
    assert flows.names() == WORKLOADS


def test_every_flow_has_deployments_and_every_deployment_a_flow() -> None:
    assert {deployment["entrypoint"] for deployment in DEPLOYMENTS} == {f"flows/{name}.py:{name}" for name in FLOWS}


def test_deployments_of_one_flow_have_names_of_their_own() -> None:
    names = [(deployment["entrypoint"], deployment["name"]) for deployment in DEPLOYMENTS]

    assert len(set(names)) == len(names)


@each_deployment
def test_an_entrypoint_loads_as_it_is_and_not_as_a_placeholder(deployment: dict[str, Any]) -> None:
    path, _, name = deployment["entrypoint"].partition(":")

    flow = load_flow_from_entrypoint(deployment["entrypoint"], use_placeholder_flow=False)

    assert (Path(path).stem, flow.fn.__name__, flow.name) == (name, name, name)


@each_deployment
def test_the_parameters_of_a_deployment_are_accepted(deployment: dict[str, Any]) -> None:
    name = deployment["entrypoint"].partition(":")[2]
    flow, given = flow_of(name), deployment.get("parameters", {})

    assert set(given) <= set(inspect.signature(flow).parameters)
    complete = {name: p.default for name, p in inspect.signature(flow).parameters.items()} | given
    accepted = flow.validate_parameters(complete)
    if name in flows.OVER_ALL:
        assert set(given.values()) <= {"smoke", "synthetic"}
    elif name in flows.FAN_OUTS:
        del accepted["at_once"], accepted["cluster"]
        plans = {"study": studying.plan, "tune": tuning.plan, "ensemble": ensembling.plan}
        plans[name](**{key: value for key, value in accepted.items() if value is not None})
    else:
        resolve(name, **accepted)


@each_deployment
def test_a_deployment_waits_its_turn_in_the_projects_pool_and_names_no_machine(deployment: dict[str, Any]) -> None:
    assert deployment["work_pool"]["name"] == "headrace"
    assert deployment["concurrency_limit"] == {"limit": 1, "collision_strategy": "ENQUEUE"}
    assert deployment["description"].strip()
    assert "pull" not in deployment
    for schedule in deployment.get("schedules", []):
        assert schedule["timezone"]


def test_no_two_deployments_start_at_the_same_time() -> None:
    times = [schedule["cron"] for deployment in DEPLOYMENTS for schedule in deployment.get("schedules", [])]
    minutes = [cron.split()[0] for cron in times if cron.split()[1] == "*"]

    assert len(set(times)) == len(times)
    assert not {cron.split()[0] for cron in times if cron.split()[1] != "*"} & set(minutes)


@each_workload
def test_what_monitor_says_of_drift_starts_the_retrain_of_this_workload_alone(workload: str) -> None:
    (deployment,) = [
        d for d in DEPLOYMENTS if d["entrypoint"] == f"flows/{workload}.py:{workload}" and d["name"] == "on-drift"
    ]
    (spec,) = deployment["triggers"]
    trigger = TypeAdapter(DeploymentTriggerTypes).validate_python(spec)

    def covers(event: str, about: str) -> bool:
        seen = Resource({"prefect.resource.id": about})
        return event in trigger.expect and trigger.match.matches(seen)

    assert covers(watching.DRIFTED, watching.resource(workload))
    assert not covers(watching.ROLLED_BACK, watching.resource(workload))
    assert not covers(watching.DRIFTED, watching.resource("another"))
    assert (trigger.posture.value, trigger.threshold) == ("Reactive", 1)
    assert trigger.within >= timedelta(hours=1), "a cool-down"
    assert set(trigger.parameters or {}) <= set(inspect.signature(flow_of(workload)).parameters)


@each_workload
def test_a_flow_asks_for_what_a_request_to_its_workload_may_hold(workload: str) -> None:
    parameters = inspect.signature(flow_of(workload)).parameters
    expected = [name for name in inspect.signature(resolve).parameters if name != "workload"]

    assert list(parameters) == expected


@each_workload
def test_a_flow_offers_the_variants_of_its_workload_and_has_its_defaults(workload: str) -> None:
    flow, pipeline = flow_of(workload), projects.load(workload)
    defaults = {name: p.default for name, p in inspect.signature(flow).parameters.items()}

    assert list(get_args(get_type_hints(flow.fn)["variant"])) == list(pipeline.variants)
    assert resolve(workload, **defaults) == resolve(workload)


@each_workload
def test_a_flow_takes_the_source_of_each_variant_where_none_is_named(workload: str) -> None:
    defaults = {name: p.default for name, p in inspect.signature(flow_of(workload)).parameters.items()}

    for variant in projects.load(workload).variants:
        assert resolve(workload, **defaults | {"variant": variant}) == resolve(workload, variant=variant)


@each_flow
def test_the_form_of_a_flow_explains_every_parameter(name: str) -> None:
    schema = flow_of(name).parameters.model_dump()

    assert [name for name, entry in schema["properties"].items() if not entry.get("description")] == []


@pytest.mark.parametrize("folder", ["flows", "tasks", "pipelines"])
def test_no_file_shadows_a_module_of_python_or_of_a_package(folder: str) -> None:
    stems = {path.stem for path in (PROJECT / folder).glob("[!_]*.py")}
    taken = set(sys.stdlib_module_names) | set(importlib.metadata.packages_distributions())

    assert stems & taken == set()


@each_flow
def test_importing_a_flow_loads_no_tensorflow(name: str) -> None:
    code = f"import sys, flows.{name}; print(*{{'tensorflow', 'keras', 'pyarrow', 'numpy'}} & set(sys.modules))"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == ""


@each_workload
def test_a_flow_started_by_hand_refuses_what_it_does_not_know_and_starts_nothing(
    workload: str, headrace_home: Path
) -> None:
    words = ["-m", f"flows.{workload}", "--variant", "nonsense", "--seed", "-1"]

    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False)

    assert done.returncode == 2
    assert "there is no `nonsense`" in done.stderr
    assert "seed: expected a whole number" in done.stderr
    assert not (headrace_home / "prefect" / "server.json").exists()
