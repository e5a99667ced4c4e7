"""The form of each flow in the browser: typed fields with bounds and help; what does not fit starts no run."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any

import pytest
from prefect import Flow, get_client
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterId
from prefect.exceptions import PrefectHTTPStatusError

import flows

FLOWS = [*flows.names(), *flows.FAN_OUTS, *flows.OVER_ALL, *flows.OTHERS]
TYPES = {"string", "integer", "number", "boolean", "object", "array", "null"}

each_flow = pytest.mark.parametrize("name", FLOWS)


def flow_of(name: str) -> Flow[..., Any]:
    return getattr(importlib.import_module(f"flows.{name}"), name)


def fields(name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every parameter with each type that it may have, as the form knows it."""
    schema = flow_of(name).parameters.model_dump()
    for parameter, entry in schema["properties"].items():
        for choice in entry.get("anyOf", [entry]):
            yield parameter, choice


@each_flow
def test_every_field_has_a_type_or_a_choice(name: str) -> None:
    assert [parameter for parameter, entry in fields(name) if entry.get("type") not in TYPES] == []


@each_flow
def test_every_number_has_a_bound(name: str) -> None:
    numbers = {parameter: entry for parameter, entry in fields(name) if entry.get("type") in ("integer", "number")}

    assert [
        parameter
        for parameter, entry in numbers.items()
        if not {"minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum"} & set(entry)
    ] == []


@pytest.mark.parametrize("name", flows.names())
def test_variant_profile_and_data_are_chosen_from_a_list(name: str) -> None:
    choices = {parameter: entry.get("enum") or [entry.get("const")] for parameter, entry in fields(name)}

    assert set(choices["profile"]) == {"full", "smoke"}
    assert set(choices["data"]) == {"auto", "real", "synthetic"}
    assert all(isinstance(variant, str) for variant in choices["variant"])


@each_flow
def test_help_is_a_sentence_and_needs_no_knowledge_of_the_code(name: str) -> None:
    schema = flow_of(name).parameters.model_dump()

    for parameter, entry in schema["properties"].items():
        assert entry["description"].rstrip().endswith("."), parameter
        assert len(entry["description"]) < 250, parameter


@pytest.fixture
def client(harness: str) -> Iterator[SyncPrefectClient]:
    """The server's client."""
    with get_client(sync_client=True) as client:
        yield client


@pytest.mark.harness
@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"seed": -1}, "seed"),
        ({"seed": "seven"}, "seed"),
        ({"seed": 2**31}, "seed"),
        ({"variant": "nonsense"}, "variant"),
        ({"profile": "quick"}, "profile"),
        ({"data": "made up"}, "data"),
        ({"overrides": ["train.epochs"]}, "overrides"),
    ],
)
def test_what_does_not_fit_the_form_is_refused_before_there_is_a_run(
    client: SyncPrefectClient, parameters: dict[str, Any], words: str
) -> None:
    houses = flow_of("house_prices")
    deployment = client.create_deployment(
        client.create_flow(houses),
        "smoke",
        parameter_openapi_schema=houses.parameters.model_dump(),
        enforce_parameter_schema=True,
    )

    with pytest.raises(PrefectHTTPStatusError) as refused:
        client.create_flow_run_from_deployment(deployment, parameters=parameters)

    assert words in refused.value.response.text
    of_deployment = DeploymentFilter(id=DeploymentFilterId(any_=[deployment]))
    assert client.read_flow_runs(deployment_filter=of_deployment) == []
    assert client.create_flow_run_from_deployment(deployment, parameters={"seed": 7})
    client.delete_deployment(deployment)
