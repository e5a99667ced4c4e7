"""What is in `deploy/kubernetes/`: runs become Jobs that a cluster accepts, from an image that holds what they need.

There is no cluster here: Prefect's own code renders the template, and `batch_v1` holds the rules of the API.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatch
from importlib import resources
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import yaml
from prefect import get_client
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import FlowRun, WorkPool
from prefect.utilities.slugify import slugify
from prefect.utilities.templating import find_placeholders
from prefect.workers.base import BaseJobConfiguration
from pydantic import ConfigDict, ValidationError

from tests.conftest import PROJECT
from tests.flows.batch_v1 import Job, amount, job

FOLDER = PROJECT / "deploy" / "kubernetes"
TEMPLATE: dict[str, Any] = json.loads((FOLDER / "base-job-template.json").read_text())
HERE: dict[str, Any] = yaml.safe_load((PROJECT / "prefect.yaml").read_text())
THERE: dict[str, Any] = yaml.safe_load((FOLDER / "prefect.yaml").read_text())
POOL = "headrace-kubernetes"
METADATA = resources.files("prefect.server.api") / "collections_data" / "views" / "aggregate-worker-metadata.json"
KNOWN: dict[str, Any] = json.loads(METADATA.read_text())["prefect-kubernetes"]["kubernetes"]
"""What the worker for Kubernetes says of itself; it need not be installed for that."""


class Configuration(BaseJobConfiguration):
    """What that worker reads of a rendered template; it takes nothing else."""

    model_config = ConfigDict(extra="forbid")

    namespace: str
    job_manifest: dict[str, Any]
    pod_watch_timeout_seconds: int
    stream_output: bool

    def manifest(self) -> dict[str, Any]:
        """The Job as the worker sends it: variables as a list, the command in words, a name, Prefect's labels."""
        manifest: dict[str, Any] = json.loads(json.dumps(self.job_manifest))
        container = manifest["spec"]["template"]["spec"]["containers"][0]
        container["env"] = [{"name": name, "value": value} for name, value in self.env.items()]
        container["args"] = str(self.command).split()
        metadata = manifest["metadata"]
        if metadata["generateName"] == "-":
            metadata["generateName"] = slugify(str(self.name), max_length=45) + "-"
        return manifest


def accepted(template: dict[str, Any] = TEMPLATE, **values: Any) -> Job:
    """The Job that a run with these job variables becomes.

    Raises:
        ValidationError: Kubernetes would refuse it.
    """
    # A client would be asked for blocks and variables of the server only; the template names none.
    configuration = asyncio.run(Configuration.from_template_and_values(template, values, client=object()))
    configuration.prepare_for_flow_run(FlowRun(flow_id=uuid4(), name="house_prices · final · smoke"))
    return job(configuration.manifest())


def variables_of(made: Job) -> dict[str, str]:
    return {variable.name: variable.value for variable in made.spec.template.spec.containers[0].env}


# ------------------------------------------------------------------------------------------------ deployments


def test_the_deployments_are_those_of_the_project_in_another_pool_with_the_project_in_the_image() -> None:
    moved = [{**one, "work_pool": {**one["work_pool"], "name": POOL}} for one in HERE["deployments"]]

    assert THERE["deployments"] == moved
    (step,) = THERE["pull"]
    assert step == {"prefect.deployments.steps.set_working_directory": {"directory": last("WORKDIR")}}


@pytest.mark.parametrize("deployment", THERE["deployments"], ids=lambda one: f"{one['entrypoint']}/{one['name']}")
def test_a_run_of_every_deployment_becomes_a_job_that_kubernetes_accepts(deployment: dict[str, Any]) -> None:
    made = accepted(**deployment["work_pool"]["job_variables"])

    assert made.spec.backoff_limit == 0, "whether a run is tried again is for Prefect to say"
    assert made.spec.template.spec.containers[0].args == ["prefect", "flow-run", "execute"]
    assert {
        "HEADRACE_HOME": "/var/lib/headrace",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "PREFECT_FLOW_RUN_EXECUTE_SIGTERM_BEHAVIOR": "reschedule",
    }.items() <= variables_of(made).items()
    assert "PREFECT__FLOW_RUN_ID" in variables_of(made)


# --------------------------------------------------------------------------------------------------- template


def test_every_variable_is_used_and_every_placeholder_is_a_variable() -> None:
    used = {placeholder.name for placeholder in find_placeholders(TEMPLATE["job_configuration"])}

    assert used - {"env"} == set(TEMPLATE["variables"]["properties"]) - {"env"}
    assert all({"title", "description", "type"} <= set(one) for one in TEMPLATE["variables"]["properties"].values())


def test_the_worker_for_kubernetes_knows_what_it_is_told() -> None:
    told, known = TEMPLATE["job_configuration"], KNOWN["default_base_job_configuration"]["job_configuration"]

    assert set(told) <= set(known)
    for path in ("apiVersion",), ("kind",), ("spec", "template", "spec", "restartPolicy"):
        assert at(told["job_manifest"], path) == at(known["job_manifest"], path)
    demanded = at(known["job_manifest"], ("spec", "template", "spec"))
    for name in ("parallelism", "completions"):
        assert at(told["job_manifest"], ("spec", "template", "spec", name)) == demanded[name]
    (container,) = at(told["job_manifest"], ("spec", "template", "spec", "containers"))
    assert container["name"] == demanded["containers"][0]["name"]


def at(value: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        value = value[key]
    return value


def test_a_pod_gets_what_is_asked_for_and_no_accelerator_unless_it_is() -> None:
    plain = accepted().spec.template.spec.containers[0].resources
    values = {"cpu_request": "500m", "cpu_limit": "4", "memory_request": "2Gi", "memory_limit": "3G", "gpus": 2}
    asked = accepted(**values).spec.template.spec.containers[0].resources

    assert plain.limits == {"memory": "8Gi"}
    assert asked.requests == {"cpu": "500m", "memory": "2Gi"}
    assert asked.limits == {"cpu": "4", "memory": "3G", "nvidia.com/gpu": 2}


def test_a_home_may_be_a_volume_of_the_cluster_or_an_object_store() -> None:
    claim = accepted(home="/var/lib/headrace/team").spec.template.spec
    nothing = {"name": "home", "emptyDir": {}}
    store = accepted(home="s3://bucket/headrace", home_volume=nothing)

    assert claim.volumes[0].persistent_volume_claim.claim_name == "headrace"
    assert variables_of(store)["HEADRACE_HOME"] == "s3://bucket/headrace"
    assert store.spec.template.spec.volumes[0].empty_dir is not None


def test_places_secrets_and_variables_are_handed_on() -> None:
    made = accepted(
        image="registry.example.org/headrace:7",
        namespace="ml",
        service_account_name="trainer",
        secret="store.keys",
        env={"HEADRACE_MIRROR": "/var/lib/headrace/mirror"},
        node_selector={"cloud.example.org/gpu": "a100"},
        tolerations=[{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
        labels={"team": "vision"},
        grace_seconds=90,
        finished_job_ttl=0,
    )
    pod = made.spec.template.spec

    assert (made.metadata.namespace, made.metadata.labels["team"]) == ("ml", "vision")
    assert (pod.containers[0].image, pod.service_account_name) == ("registry.example.org/headrace:7", "trainer")
    assert pod.containers[0].env_from[0].secret_ref.name == "store.keys"
    assert variables_of(made)["HEADRACE_MIRROR"] == "/var/lib/headrace/mirror"
    assert variables_of(made)["PREFECT_FLOW_RUN_EXECUTE_SIGTERM_BEHAVIOR"] == "reschedule"
    assert (pod.node_selector, pod.tolerations[0].key) == ({"cloud.example.org/gpu": "a100"}, "nvidia.com/gpu")
    assert (pod.termination_grace_period_seconds, made.spec.ttl_seconds_after_finished) == (90, 0)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"namespace": "Team A"}, "namespace"),
        ({"image": ""}, "image"),
        ({"memory_request": "9Gi"}, "memory: the request 9Gi is above the limit 8Gi"),
        ({"memory_limit": "8 GB"}, "is no quantity"),
        ({"gpus": "1.5"}, "whole numbers"),
        ({"secret": "Keys"}, "name"),
        ({"grace_seconds": "60"}, "terminationGracePeriodSeconds"),
        ({"home_volume": {"name": "data", "emptyDir": {}}}, "do not hold the mounts"),
        ({"home_volume": {"name": "home"}}, "one source"),
        ({"home_volume": {"name": "home", "persistentVolumeClaims": {}}}, "persistentVolumeClaims"),
        ({"tolerations": [{"key": "a", "operator": "Exists", "value": "b"}]}, "compared with no value"),
    ],
)
def test_what_kubernetes_would_refuse_is_refused_by_the_rules_of_these_tests(
    values: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValidationError, match=re.escape(words)):
        accepted(**values)


@pytest.mark.parametrize(
    ("quantity", "number"), [("500m", "0.5"), ("4Gi", "4294967296"), ("2e3", "2000"), (3, "3"), ("1.5k", "1500")]
)
def test_quantities_are_read_as_kubernetes_reads_them(quantity: str | int, number: str) -> None:
    assert str(amount(quantity).normalize().__format__("f")) == number


# ---------------------------------------------------------------------------------------- on a real server


@pytest.fixture
def client(harness: str, tmp_path: Path) -> Iterator[SyncPrefectClient]:
    """A server with the pool and some of the deployments, made by the commands of the documentation."""
    environment = os.environ | {"PREFECT_API_URL": harness, "PREFECT_HOME": str(tmp_path / "prefect")}

    def run(*words: str) -> None:
        command = [sys.executable, "-m", "prefect", "--no-prompt", *words]
        done = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    run(
        "work-pool",
        "create",
        POOL,
        "--type",
        "kubernetes",
        "--base-job-template",
        str(FOLDER / "base-job-template.json"),
    )
    with get_client(sync_client=True) as client:
        try:
            run(
                "deploy",
                "--prefect-file",
                str(FOLDER / "prefect.yaml"),
                "--name",
                "house_prices/nightly",
                "--name",
                "study/ray",
            )
            yield client
        finally:
            client.delete_work_pool(POOL)


@pytest.mark.harness
def test_a_server_takes_pool_and_deployments_and_its_template_gives_the_job(client: SyncPrefectClient) -> None:
    pool: WorkPool = client.read_work_pool(POOL)
    deployments = {one.name: one for one in client.read_deployments() if one.work_pool_name == POOL}

    assert pool.type == "kubernetes"
    assert pool.base_job_template["variables"] == TEMPLATE["variables"]
    assert sorted(deployments) == ["nightly", "ray"]
    assert deployments["ray"].work_queue_name == "ray"
    assert deployments["nightly"].pull_steps == THERE["pull"]
    made = accepted(pool.base_job_template, **deployments["nightly"].job_variables)
    assert variables_of(made)["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"] == "30"
    assert made.metadata.generate_name == "house-prices-final-smoke-"


# ------------------------------------------------------------------------------------------------------ image


def instructions() -> list[tuple[str, str]]:
    """The Containerfile's instructions, each with its words in one line."""
    lines = [line for line in (FOLDER / "Containerfile").read_text().splitlines() if not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [(line.split()[0], line.partition(" ")[2]) for line in joined.splitlines() if line]


def last(instruction: str) -> str:
    return [words for name, words in instructions() if name == instruction][-1]


def copied() -> list[str]:
    """What the image has from the project."""
    found = [words.split()[:-1] for name, words in instructions() if name == "COPY" and "--from" not in words]
    return sorted({path for paths in found for path in paths})


def test_the_image_has_a_python_that_the_project_supports_and_installs_the_lock_by_its_hashes() -> None:
    base = dict(instructions())["ARG"].partition("=")[2]
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    installs = [words for name, words in instructions() if name == "RUN" and "install" in words]

    assert base == f"python:{project['requires-python'].partition(',')[0].removeprefix('>=')}-slim"
    assert {words for name, words in instructions() if name == "FROM"} == {"${PYTHON} AS environment", "${PYTHON}"}
    commands = [command for words in installs for command in words.split("&&") if "pip install" in command]
    assert len(commands) == 2
    assert all("--require-hashes" in command for command in commands)
    assert "--constraint requirements.lock" in commands[1]
    assert "--compile-bytecode" in commands[1]


def test_runs_are_not_root_and_can_write_to_their_home_alone() -> None:
    user = last("USER").partition(":")[0]
    pod = TEMPLATE["job_configuration"]["job_manifest"]["spec"]["template"]["spec"]

    assert user.isdecimal()
    assert int(user) > 0
    assert pod["securityContext"]["fsGroup"] == int(user)
    assert any(f"useradd --uid {user} " in words for name, words in instructions() if name == "RUN")
    assert [name for name, _ in instructions()][-2:] == ["USER", "CMD"], "all else belongs to root"
    home = TEMPLATE["variables"]["properties"]["home"]["default"]
    assert f"HEADRACE_HOME={home}" in last("ENV")
    assert pod["containers"][0]["volumeMounts"] == [{"name": "home", "mountPath": home}]


def test_what_the_image_takes_of_the_project_exists_and_is_all_that_is_sent_to_the_engine() -> None:
    ignored = (PROJECT / ".dockerignore").read_text().splitlines()
    let_through = sorted(line[1:] for line in ignored if line.startswith("!"))

    assert [path for path in copied() if not (PROJECT / path).exists()] == []
    assert ignored[1] == "*"
    assert let_through == copied()
    assert any(fnmatch("src/__pycache__", line) for line in ignored[2:])


def test_nothing_that_a_run_needs_is_missing_in_the_image() -> None:
    entrypoints = {one["entrypoint"].partition("/")[0] for one in THERE["deployments"]}
    own = {path.name for path in PROJECT.iterdir() if (path / "__init__.py").exists()} & {"flows", "tasks", "pipelines"}

    assert entrypoints | own | {"src", "requirements.lock"} <= set(copied())
    folder = last("WORKDIR")
    assert f"PYTHONPATH={folder}/src:{folder}" in last("ENV")
