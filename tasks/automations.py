"""What the Prefect server does by itself: the automations that `headrace platform up` installs, all defined here.

They belong to the project's deployments and to nothing else. An automation is known by its name, which begins with
`PREFIX`; whatever has another name is somebody else's and is never touched. One that a person has switched off stays
off.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID

from prefect.blocks.webhook import Webhook
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ActionTypes, CallWebhook, ChangeFlowRunState, DoNothing, PauseDeployment
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.exceptions import ObjectNotFound
from pydantic import SecretStr

from headrace.errors import ConfigError

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.responses import DeploymentResponse

PREFIX = "headrace: "
WEBHOOK = "HEADRACE_WEBHOOK"
"""The variable that names the address to be told of failures. It is kept on the server only, as a secret block."""
BLOCK = "headrace-failures"

HEARTBEAT = 30
"""Seconds between two signs of life of a flow run, as the workers are told (`PREFECT_FLOWS_HEARTBEAT_FREQUENCY`)."""
SILENCE = timedelta(seconds=4 * HEARTBEAT)
"""After so long without a sign of life a run is over: its process, its worker or its machine is gone."""

PATIENCE = {"nightly": timedelta(days=3), "weekly": timedelta(days=15)}
"""Name of a deployment → within which time one of its runs must have succeeded: two misses, and then some."""
FAILURES = 3
SPELL = {"nightly": timedelta(days=4), "weekly": timedelta(days=22)}
"""Name of a deployment → the time in which it is paused if `FAILURES` of its runs fail: that many in a row."""

RUNS = {"prefect.resource.id": "prefect.flow-run.*"}
FAILED_RUNS = RUNS | {"prefect.state-type": ["FAILED", "CRASHED"]}
"""Whatever the state is called: *Rejected*, *TimedOut* and the like are failures too."""


@dataclass(frozen=True)
class Deployment:
    """What the automations need to know of a deployment."""

    id: UUID
    name: str
    """With its flow: `mnist/weekly`."""

    @property
    def when(self) -> str:
        """Its own name, which says when it runs."""
        return self.name.rpartition("/")[2]


def definitions(deployments: Sequence[Deployment], webhook: UUID | None) -> Iterator[AutomationCore]:
    """Every automation of the project.

    Args:
        deployments: The project's, as the server knows them.
        webhook: The block to be called; None to tell nobody.
    """
    yield _automation(
        "runs that have died",
        f"A run that gives no sign of life for {SILENCE.seconds} s is marked as crashed; a retry goes on from its last "
        "checkpoint.",
        EventTrigger(
            posture=Posture.Proactive,
            match=RUNS,
            match_related=_of(deployments),
            for_each={"prefect.resource.id"},
            after={"prefect.flow-run.heartbeat"},
            # Another sign of life, or any other state.
            expect={"prefect.flow-run.*"},
            within=SILENCE,
        ),
        ChangeFlowRunState(state=StateType.CRASHED, message=f"No sign of life for {SILENCE.seconds} s."),
    )
    if webhook:
        yield _automation(
            "tell of failures",
            "A run that fails, is rejected or crashes is told to the webhook.",
            EventTrigger(match=FAILED_RUNS, match_related=_of(deployments), expect={"prefect.flow-run.*"}),
            CallWebhook(
                block_document_id=webhook,
                payload='{"text": {{ (flow.name ~ " · " ~ flow_run.name ~ ": " ~ flow_run.state.name ~ ". " ~ '
                'flow_run.state.message ~ " " ~ ((flow_run | ui_url) or "")) | tojson }}}',
            ),
        )
    for when, spell in SPELL.items():
        scheduled = [one for one in deployments if one.when == when]
        if scheduled:
            yield _automation(
                f"pause what fails every time ({when})",
                f"A {when} deployment of which {FAILURES} runs fail within {spell.days} days is paused; resume it when "
                "the cause is mended.",
                EventTrigger(
                    match=FAILED_RUNS,
                    match_related=_of(scheduled),
                    for_each={"related:deployment:prefect.resource.id"},
                    expect={"prefect.flow-run.*"},
                    threshold=FAILURES,
                    within=spell,
                ),
                PauseDeployment(source="inferred"),
            )
    for one in sorted(deployments, key=lambda one: one.name):
        if patience := PATIENCE.get(one.when):
            yield _automation(
                f"no successful {one.name} for {patience.days} days",
                "Fires if none of its runs has been completed; it then stands in the event feed"
                + (" and is told to the webhook." if webhook else "."),
                EventTrigger(
                    posture=Posture.Proactive,
                    match=RUNS,
                    match_related=_of([one]),
                    expect={"prefect.flow-run.Completed"},
                    within=patience,
                ),
                CallWebhook(block_document_id=webhook, payload='{"text": {{ automation.name | tojson }}}')
                if webhook
                else DoNothing(),
            )


def _automation(name: str, description: str, trigger: EventTrigger, action: ActionTypes) -> AutomationCore:
    return AutomationCore(name=PREFIX + name, description=description, trigger=trigger, actions=[action])


def _of(deployments: Sequence[Deployment]) -> dict[str, str | list[str]]:
    """What the events of runs of these deployments are related to."""
    return {
        "prefect.resource.role": "deployment",
        "prefect.resource.id": sorted(f"prefect.deployment.{one.id}" for one in deployments),
    }


# ------------------------------------------------------------------------------------------------ installing


def install(client: SyncPrefectClient, deployments: Sequence[Deployment]) -> list[str]:
    """Bring the server's automations in line with `definitions`.

    Returns:
        What was changed, in words; nothing if all was as it should be.

    Raises:
        ConfigError: HEADRACE_WEBHOOK is no address.
    """
    webhook, changes = _webhook(client)
    there = installed(client)
    wanted = {one.name: one for one in definitions(deployments, webhook)}
    for name, automation in wanted.items():
        if name not in there:
            client.create_automation(automation)
            changes.append(f"automation `{name}` installed")
        elif _essence(automation) != _essence(there[name]):
            # In full, because the client sends only what has been set; the owner is what the server refuses.
            complete = automation.model_dump(exclude={"owner_resource"}) | {"enabled": there[name].enabled}
            client.update_automation(there[name].id, AutomationCore.model_validate(complete))
            changes.append(f"automation `{name}` updated")
    for name in there.keys() - wanted.keys():
        client.delete_automation(there[name].id)
        changes.append(f"automation `{name}` removed")
    return changes


def installed(client: SyncPrefectClient) -> dict[str, Any]:
    """The project's automations on the server, by name."""
    found: list[Any] = []
    while page := client.read_automations(limit=200, offset=len(found)):
        found += page
    return {one.name: one for one in found if one.name.startswith(PREFIX)}


def block(client: SyncPrefectClient) -> UUID | None:
    """The webhook that is told of failures; None if nobody is."""
    try:
        return client.read_block_document_by_name(BLOCK, "webhook").id
    except ObjectNotFound:
        return None


def known(deployment: DeploymentResponse, flows: Mapping[UUID, str]) -> Deployment:
    """A deployment as the automations need it.

    Args:
        deployment: As the server tells it.
        flows: The names of flows, by id.
    """
    return Deployment(deployment.id, f"{flows[deployment.flow_id]}/{deployment.name}")


def _essence(automation: AutomationCore) -> dict[str, Any]:
    """What makes an automation what it is: not its ids, nor whether somebody has switched it off."""
    kept = {"description", "trigger", "actions"}
    return AutomationCore.model_validate(automation.model_dump()).model_dump(mode="json", include=kept)


def _webhook(client: SyncPrefectClient) -> tuple[UUID | None, list[str]]:
    """The block that holds the address to be told of failures, and what had to be changed.

    An address that was given once stays: the next `up` may be called without it.
    """
    url = os.environ.get(WEBHOOK)
    there = block(client)
    if not url:
        return there, []
    if not url.startswith(("http://", "https://")):
        raise ConfigError(f"{WEBHOOK} is no address.", expected="https://…", received=url.partition("/")[0])
    if there and cast(Webhook, Webhook.load(BLOCK)).url.get_secret_value() == url:
        return there, []
    wanted = Webhook(url=SecretStr(url), headers={"Content-Type": "application/json"})
    saved = cast(UUID, wanted.save(BLOCK, overwrite=True))
    return saved, [f"webhook `{BLOCK}` {'updated' if there else 'installed'}"]
