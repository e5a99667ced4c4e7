"""What the server does by itself: installed once, brought up to date by name, and does what it promises."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any
from uuid import UUID, uuid4

import pytest
import yaml
from prefect import flow, get_client
from prefect.client.orchestration import SyncPrefectClient
from prefect.events.actions import CallWebhook, DoNothing
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.states import Completed, Crashed, Failed, State

from headrace.errors import ConfigError
from tasks import automations
from tasks.automations import Deployment, block, definitions, install, installed
from tests.conftest import PROJECT

pytestmark = pytest.mark.harness


@pytest.fixture
def client(harness: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[SyncPrefectClient]:
    """The server's client; in the end no automation is left, and no webhook."""
    monkeypatch.delenv("HEADRACE_WEBHOOK", raising=False)
    with get_client(sync_client=True) as client:
        yield client
        for one in client.read_automations():
            client.delete_automation(one.id)
        if there := block(client):
            client.delete_block_document(there)


def deployed(*names: str) -> list[Deployment]:
    return [Deployment(UUID(int=number), name) for number, name in enumerate(names, start=1)]


HOUSES, DIGITS, SMOKE = deployed("house_prices/nightly", "mnist/weekly", "mnist/smoke")


def names(client: SyncPrefectClient) -> list[str]:
    return sorted(name.removeprefix("headrace: ") for name in installed(client))


def test_what_is_installed_follows_from_when_deployments_run(client: SyncPrefectClient) -> None:
    install(client, [HOUSES, DIGITS, SMOKE])

    assert names(client) == [
        "no successful house_prices/nightly for 3 days",
        "no successful mnist/weekly for 15 days",
        "pause what fails every time (nightly)",
        "pause what fails every time (weekly)",
        "runs that have died",
    ]


def test_a_second_time_changes_nothing(client: SyncPrefectClient) -> None:
    first = install(client, [HOUSES, DIGITS])
    before = client.read_automations()

    assert len(first) == 5
    assert install(client, [HOUSES, DIGITS]) == []
    assert client.read_automations() == before


def test_a_definition_that_has_changed_is_updated_and_one_that_was_switched_off_stays_off(
    client: SyncPrefectClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(client, [DIGITS])
    name = "headrace: runs that have died"
    before = installed(client)[name]
    client.pause_automation(before.id)
    monkeypatch.setattr(automations, "SILENCE", timedelta(seconds=77))

    assert install(client, [DIGITS]) == [f"automation `{name}` updated"]
    after = installed(client)[name]
    assert (after.id, after.enabled, after.trigger.within) == (before.id, False, timedelta(seconds=77))
    assert install(client, [DIGITS]) == []


def test_what_no_deployment_needs_any_more_is_removed_and_that_of_others_never(client: SyncPrefectClient) -> None:
    others = AutomationCore(name="somebody's", trigger=EventTrigger(expect={"x"}), actions=[DoNothing()])
    kept = client.create_automation(others)
    install(client, [HOUSES, DIGITS])

    changes = install(client, [DIGITS])

    assert "automation `headrace: no successful house_prices/nightly for 3 days` removed" in changes
    assert "no successful house_prices/nightly for 3 days" not in names(client)
    assert client.read_automation(kept).name == "somebody's"  # type: ignore[union-attr]


def test_a_run_has_died_only_when_many_signs_of_life_are_missing() -> None:
    dead = next(definitions([DIGITS], None)).trigger

    assert isinstance(dead, EventTrigger)
    assert dead.posture is Posture.Proactive
    assert dead.within >= 3 * timedelta(seconds=automations.HEARTBEAT)


def test_every_worker_lets_runs_give_signs_of_life_as_often_as_is_expected() -> None:
    definitions = yaml.safe_load((PROJECT / "prefect.yaml").read_text())["definitions"]

    environment = definitions["pool"]["job_variables"]["env"]
    assert environment["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"] == str(automations.HEARTBEAT)


def test_runs_of_other_projects_on_the_server_are_left_alone() -> None:
    ours = {f"prefect.deployment.{one.id}" for one in (HOUSES, DIGITS, SMOKE)}

    for automation in definitions([HOUSES, DIGITS, SMOKE], uuid4()):
        related = automation.trigger.match_related.root  # type: ignore[union-attr]
        assert related["prefect.resource.role"] == "deployment"
        assert set(related["prefect.resource.id"]) <= ours
        assert related["prefect.resource.id"]


# -------------------------------------------------------------------------------------------------- webhook


def test_nobody_is_told_of_failures_unless_an_address_is_given(
    client: SyncPrefectClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(client, [DIGITS])
    assert block(client) is None
    assert "tell of failures" not in names(client)

    monkeypatch.setenv("HEADRACE_WEBHOOK", "https://example.org/secret")
    assert "webhook `headrace-failures` installed" in install(client, [DIGITS])

    assert "tell of failures" in names(client)
    silent = installed(client)["headrace: no successful mnist/weekly for 15 days"]
    assert isinstance(silent.actions[0], CallWebhook)
    assert install(client, [DIGITS]) == []


def test_an_address_stays_when_it_is_not_given_again_and_can_be_changed(
    client: SyncPrefectClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADRACE_WEBHOOK", "https://example.org/first")
    install(client, [DIGITS])
    monkeypatch.delenv("HEADRACE_WEBHOOK")
    assert install(client, [DIGITS]) == []

    monkeypatch.setenv("HEADRACE_WEBHOOK", "https://example.org/second")

    assert install(client, [DIGITS]) == ["webhook `headrace-failures` updated"]


def test_what_is_no_address_is_refused_without_being_repeated(
    client: SyncPrefectClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADRACE_WEBHOOK", "hooks.example.org/token-of-mine")

    with pytest.raises(ConfigError, match="HEADRACE_WEBHOOK is no address") as caught:
        install(client, [DIGITS])
    assert "token-of-mine" not in str(caught.value)


# ------------------------------------------------------------------------------------------- what they do


@flow(name="mnist")
def mnist() -> None:
    """Never run."""


@pytest.fixture
def weekly(client: SyncPrefectClient) -> Deployment:
    """A weekly deployment on the server."""
    id = client.create_deployment(client.create_flow(mnist), f"weekly-{uuid4().hex[:6]}")
    return Deployment(id, "mnist/weekly")


@pytest.fixture
def told() -> Iterator[list[Any]]:
    """What a webhook is told; its address is that of this machine."""
    heard: list[Any] = []

    class Ear(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            heard.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    ear = HTTPServer(("127.0.0.1", 0), Ear)
    threading.Thread(target=ear.serve_forever, daemon=True).start()
    heard.append(f"http://127.0.0.1:{ear.server_port}/")
    yield heard
    ear.shutdown()
    ear.server_close()


def ended(client: SyncPrefectClient, deployment: Deployment, state: State[Any]) -> None:
    """Let a run of a deployment end."""
    run = client.create_flow_run_from_deployment(deployment.id)
    client.set_flow_run_state(run.id, state, force=True)


def eventually(what: Callable[[], bool]) -> bool:
    until = time.monotonic() + 30
    while not what() and time.monotonic() < until:
        time.sleep(0.2)
    return what()


def test_a_deployment_that_fails_again_and_again_is_paused(client: SyncPrefectClient, weekly: Deployment) -> None:
    install(client, [weekly])
    # The server reads new automations in its own time.
    time.sleep(2)

    for state in (Failed(name="Rejected"), Completed(), Crashed()):
        ended(client, weekly, state)
    time.sleep(2)
    assert not client.read_deployment(weekly.id).paused

    ended(client, weekly, Failed())
    assert eventually(lambda: client.read_deployment(weekly.id).paused)


def test_a_failure_is_told_with_its_reason(
    client: SyncPrefectClient, weekly: Deployment, told: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADRACE_WEBHOOK", told.pop())
    install(client, [weekly])
    time.sleep(2)

    ended(client, weekly, Completed(message="fine"))
    ended(client, weekly, Failed(name="Rejected", message='The verdict is "fail": mae 3.46'))

    assert eventually(lambda: bool(told))
    (message,) = told
    assert message["text"].startswith("mnist · ")
    assert message["text"].strip().endswith('Rejected. The verdict is "fail": mae 3.46')
