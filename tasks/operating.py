"""The platform: everything that runs flows by itself (server, work pool, deployments, automations, worker).

`up` brings all of it to what the project's files say and keeps a worker; called again it changes only what differs.
`status` looks, `down` ends what `up` has started, and nothing else. The server itself is `tasks.server`'s.

Nothing here imports Prefect at the top: it reads its settings when it is imported, and `server` puts them in place.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.metadata
import logging
import os
import platform
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from headrace import jobs
from headrace.artifacts import locked, read_json, system_errors, write_json
from headrace.errors import SystemTrouble
from headrace.projects import root
from headrace.running import born
from tasks import server

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.responses import DeploymentResponse

    from tasks.automations import Deployment

log = logging.getLogger("headrace.platform")

DEPLOYED = "headrace_deployed"
"""The Prefect variable that says from which files the deployments on a server were made."""
READY_SECONDS = 1200.0
"""How long a platform in the background may take to be ready: a slow machine deploys all families in minutes."""
LAST_RUNS = 5
RAY = "ray"
"""The work queue of runs that send their trainings to a Ray cluster: served where `RAY_ADDRESS` names one."""


def up() -> None:
    """Serve everything until Ctrl-C or SIGTERM; if that is being done already, put right what differs and return.

    Raises:
        HeadraceError: The environment asks for what can't be, or a part did not start.
    """
    stopping = threading.Event()
    before = {
        number: signal.signal(number, lambda *_: stopping.set())
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }
    try:
        with _alone(server.folder() / "up.lock") as alone:
            # What was there before stays when this ends.
            started = not server.status()["runs"]
            url = server.ensure()
            try:
                changes = install(stopping)
                if alone:
                    _serve(url, stopping, started)
                elif not changes:
                    log.info("the platform is up already at %s, and nothing had to be changed", server.ui(url))
            finally:
                if alone and started:
                    server.stop()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def detach() -> None:
    """`up` in the background: returns when everything is there.

    Raises:
        HeadraceError: As `up`.
    """
    if _recorded():
        up()
        return
    with system_errors(f"starting the platform in {server.folder()}"):
        server.folder().mkdir(parents=True, exist_ok=True)
        with _log().open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "headrace", "platform", "up"],
                cwd=root(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
    deadline = time.monotonic() + READY_SECONDS
    while (_recorded() or {}).get("pid") != process.pid:
        code = process.poll()
        if code == 0:
            # Another `up` was a moment quicker.
            return
        if code is not None or time.monotonic() > deadline:
            server.end(process.pid, lambda: process.poll() is None)
            said = _log().read_text(errors="replace")
            trouble = SystemTrouble(
                "The platform did not start.",
                received=said.rpartition("headrace: error: ")[2].strip() or server.last_lines(said),
                remedy=f"see {_log()}",
            )
            # A wrong request is the caller's, not the machine's.
            trouble.exit_code = code or SystemTrouble.exit_code
            raise trouble
        time.sleep(0.1)
    log.info("the platform is up in the background (log: %s)", _log())


def down() -> list[str]:
    """End what `up` and the runs of this home have started: worker and the project's own server.

    Returns:
        What was ended. What the server has recorded is kept; one of the user's is left alone.
    """
    record, own = _recorded(), server.status()["pid"]
    if record:
        serving = record["pid"], record["born"]
        server.end(record["pid"], lambda: born(serving[0]) == serving[1])
    _end_orphan()
    server.stop()
    return (["worker"] if record else []) + (["server"] if own else [])


def status() -> dict[str, Any]:
    """Everything there is to know: the server, workers, deployments, the last runs, automations, and what is wrong.

    Returns:
        What `server.status` tells, and if the server runs: `version`, `workers`, `deployments`, `last_runs`,
        `automations`, `notified`. `problems` is empty if all is well.
    """
    found = server.status()
    if not found["runs"]:
        return found | {"problems": ["the server does not run: headrace platform up"]}
    server.connect()
    from prefect import get_client
    from prefect.exceptions import PrefectHTTPStatusError

    try:
        with get_client(sync_client=True) as client:
            found |= _told_by(client)
    except PrefectHTTPStatusError as error:
        if error.response.status_code not in (401, 403):
            raise
        return found | {"problems": [server.NEEDS_PASSWORD]}
    return found | {"problems": list(_problems(found))}


# ----------------------------------------------------------------------------------- what is on the server


def install(stopping: threading.Event) -> list[str]:
    """Bring pool, deployments and automations of the server in line with the project's files; tell what changed."""
    from prefect import get_client
    from prefect.client.schemas.actions import VariableCreate, VariableUpdate
    from prefect.exceptions import ObjectNotFound

    from tasks import automations

    changes = []
    with locked(server.folder() / "install.lock"), get_client(sync_client=True) as client:
        try:
            client.read_work_pool(server.POOL)
        except ObjectNotFound:
            run_prefect("work-pool", "create", server.POOL, "--type", "process")
            changes.append(f"work pool `{server.POOL}` created")
        changes += make_queues(client)
        digest, there = digest_of_files(), client.read_variable_by_name(DEPLOYED)
        if not there or there.value != digest or _missing(client):
            if stopping.is_set():
                return changes
            run_prefect("deploy", "--all")
            if there:
                client.update_variable(VariableUpdate(name=DEPLOYED, value=digest))
            else:
                client.create_variable(VariableCreate(name=DEPLOYED, value=digest))
            changes.append(f"{len(declared())} deployments registered")
        changes += automations.install(client, [one for one, _ in deployed(client)])
    for change in changes:
        log.info("%s", change)
    return changes


def make_queues(client: SyncPrefectClient) -> list[str]:
    """Make the work queues that are missing; one that a person has paused or limited stays so."""
    missing = sorted(queues() - {queue.name for queue in client.read_work_queues(server.POOL)})
    for name in missing:
        client.create_work_queue(name, work_pool_name=server.POOL)
    return [f"work queue `{name}` created" for name in missing]


def digest_of_files() -> str:
    """What the deployments follow from: `prefect.yaml`, the flows, the types in their forms, and where they lie."""
    paths = [root() / "prefect.yaml", *sorted((root() / "flows").glob("*.py")), Path(jobs.__file__)]
    parts = [str(root()), importlib.metadata.version("prefect"), *(path.read_text() for path in paths)]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:20]


def declared() -> list[str]:
    """The deployments in `prefect.yaml`, as `flow/name`."""
    return sorted(f"{one['entrypoint'].rpartition(':')[2]}/{one['name']}" for one in _entries())


def queues() -> set[str]:
    """The work queues that the deployments in `prefect.yaml` are in."""
    return {one["work_pool"].get("work_queue_name", "default") for one in _entries()}


def _entries() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = yaml.safe_load((root() / "prefect.yaml").read_text())["deployments"]
    return found


def deployed(client: SyncPrefectClient) -> list[tuple[Deployment, DeploymentResponse]]:
    """The project's deployments on the server."""
    from tasks import automations

    flows = {flow.id: flow.name for flow in _all(client.read_flows)}
    found = [(automations.known(one, flows), one) for one in _all(client.read_deployments)]
    wanted = set(declared())
    return [(known, one) for known, one in found if known.name in wanted and one.work_pool_name == server.POOL]


def _missing(client: SyncPrefectClient) -> list[str]:
    return sorted(set(declared()) - {known.name for known, _ in deployed(client)})


def _all(read: Callable[..., list[Any]]) -> list[Any]:
    """All objects of a kind: the server gives 200 of them at once."""
    found: list[Any] = []
    while page := read(limit=200, offset=len(found)):
        found += page
    return found


def _told_by(client: SyncPrefectClient) -> dict[str, Any]:
    from prefect.client.schemas.sorting import FlowRunSort
    from prefect.exceptions import ObjectNotFound

    from tasks import automations

    deployments = deployed(client)
    names = {one.id: known.name for known, one in deployments}
    try:
        workers = client.read_workers_for_work_pool(server.POOL)
    except ObjectNotFound:
        workers = []
    installed = automations.installed(client)
    block = automations.block(client)
    wanted = {one.name for one in automations.definitions([known for known, _ in deployments], block)}
    digest = client.read_variable_by_name(DEPLOYED)
    runs = client.read_flow_runs(sort=FlowRunSort.EXPECTED_START_TIME_DESC, flow_run_filter=_begun(), limit=LAST_RUNS)
    return {
        "version": client.api_version(),
        "workers": [
            {"name": one.name, "alive": _alive(one), "last_heard_of": one.last_heartbeat_time} for one in workers
        ],
        "deployments": {
            "there": len(deployments),
            "missing": _missing(client),
            "paused": sorted(names[one.id] for _, one in deployments if one.paused),
            "current": bool(digest and digest.value == digest_of_files()),
        },
        "queues": list(_queues(client)),
        "last_runs": [
            {
                "name": run.name,
                "deployment": names.get(run.deployment_id) if run.deployment_id else None,
                "state": run.state_name,
                "at": run.start_time or run.expected_start_time,
            }
            for run in runs
        ],
        "automations": {
            "there": sorted(name for name in installed if installed[name].enabled),
            "switched_off": sorted(name for name in installed if not installed[name].enabled),
            "missing": sorted(wanted - installed.keys()),
        },
        "notified": block is not None,
    }


def _queues(client: SyncPrefectClient) -> Iterator[dict[str, Any]]:
    """The work queues of the pool: whether somebody serves each, and how many runs wait beyond their time."""
    from prefect.client.schemas.filters import (
        FlowRunFilter,
        FlowRunFilterState,
        FlowRunFilterStateName,
        WorkQueueFilter,
        WorkQueueFilterId,
    )
    from prefect.exceptions import ObjectNotFound

    late = FlowRunFilter(state=FlowRunFilterState(name=FlowRunFilterStateName(any_=["Late"])))
    try:
        found = client.read_work_queues(server.POOL)
    except ObjectNotFound:
        return
    for queue in found:
        here = WorkQueueFilter(id=WorkQueueFilterId(any_=[queue.id]))
        yield {
            "name": queue.name,
            "paused": queue.is_paused,
            "served": queue.status == "READY",
            "late": client.count_flow_runs(flow_run_filter=late, work_queue_filter=here),
        }


def _begun() -> Any:
    """Runs that are not merely scheduled."""
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterState, FlowRunFilterStateType
    from prefect.client.schemas.objects import StateType

    begun = [one for one in StateType if one is not StateType.SCHEDULED]
    return FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=begun)))


def _alive(worker: Any) -> bool:
    """Whether a worker can be counted on; of that on this machine, its process says so before its silence does."""
    if worker.name == platform.node() and not server.user_server() and not _recorded():
        return False
    return bool(worker.status == "ONLINE")


def _problems(found: dict[str, Any]) -> Iterator[str]:
    """What a person should do something about."""
    if not any(worker["alive"] for worker in found["workers"]):
        yield "no worker is alive, so nothing is run: headrace platform up"
    else:
        for queue in found["queues"]:
            if queue["late"] and not queue["served"] and not queue["paused"]:
                start = f"prefect worker start --pool {server.POOL} --work-queue {queue['name']}"
                yield (
                    f"nobody serves work queue `{queue['name']}`, in which runs wait ({queue['late']}): {start}"
                    + (", with RAY_ADDRESS set" if queue["name"] == RAY else "")
                )
    missing = found["deployments"]["missing"]
    if missing:
        yield f"deployments are missing ({', '.join(missing)}): headrace platform up"
    elif not found["deployments"]["current"]:
        yield "prefect.yaml or a flow has changed since it was deployed: headrace platform up"
    if found["automations"]["missing"]:
        yield f"automations are missing ({', '.join(found['automations']['missing'])}): headrace platform up"


# ---------------------------------------------------------------------------------------------- the worker


def _serve(url: str, stopping: threading.Event, started: bool) -> None:
    """Keep a worker until told to stop, or until there is no server any more."""
    if stopping.is_set():
        return
    _end_orphan()
    from tasks.automations import HEARTBEAT

    telling = {"PREFECT_WORKER_QUERY_SECONDS": "2", "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT)}
    # One run at a time: two trainings would only share the cores (or fight for the accelerator's memory).
    words = ["worker", "start", "--pool", server.POOL, "--name", platform.node(), "--limit", "1"]
    # A worker that is told of no queue serves all of them.
    words += [word for queue in served() for word in ("--work-queue", queue)]
    worker = subprocess.Popen(
        [sys.executable, "-m", "prefect", *words],
        cwd=root(),
        env=os.environ | telling,
        stdin=subprocess.DEVNULL,
        # Ctrl-C in a terminal reaches this process only, which then ends the worker in order.
        start_new_session=True,
    )
    try:
        until = time.monotonic() + server.START_SECONDS
        while not _registered() and worker.poll() is None and not stopping.wait(0.5) and time.monotonic() < until:
            pass
        record = {"pid": os.getpid(), "born": born(os.getpid()), "server": started}
        write_json(_file(), record | {"worker": {"pid": worker.pid, "born": born(worker.pid)}})
        log.info("all deployments are at %s; Ctrl-C (or `headrace platform down`) stops them", server.ui(url))
        while not stopping.wait(1.0) and worker.poll() is None and _stays(url):
            pass
        code = worker.poll()
    finally:
        server.end(worker.pid, lambda: worker.poll() is None)
        _file().unlink(missing_ok=True)
        if server.status()["runs"]:
            server.bury_the_dead(others=not server.user_server() and not _registered(others=True))
    if code is not None:
        raise SystemTrouble("The Prefect worker has ended by itself.", received=f"exit code {code}")


def served() -> list[str]:
    """The work queues that the worker of this machine serves: `ray` only where a cluster is at hand."""
    return sorted(queues() if os.environ.get("RAY_ADDRESS") else queues() - {RAY})


def _registered(*, others: bool = False) -> bool:
    """Whether the server knows the worker of this machine (or of another one) as alive."""
    from prefect import get_client

    with get_client(sync_client=True) as client:
        workers = client.read_workers_for_work_pool(server.POOL)
    return any(one.status == "ONLINE" and (one.name != platform.node()) == others for one in workers)


def _stays(url: str) -> bool:
    """Whether nobody has stopped the project's own server; that of a user is the user's business."""
    return bool(server.user_server()) or server.is_own(url)


def _recorded() -> dict[str, Any] | None:
    """What `platform.json` says of the `up` that is at work: its process, its worker's, and who started the server."""
    record = read_json(_file())
    return record if record and born(record["pid"]) == record["born"] else None


def _end_orphan() -> None:
    """End a worker whose `up` was killed: nobody else would."""
    record = read_json(_file())
    if record and not _recorded():
        worker = record["worker"]
        if born(worker["pid"]) == worker["born"]:
            server.end(worker["pid"], lambda: born(worker["pid"]) == worker["born"])
        _file().unlink(missing_ok=True)


def _file() -> Path:
    return server.folder() / "platform.json"


def _log() -> Path:
    return server.folder() / "platform.log"


def run_prefect(*words: str) -> None:
    """Run one command of Prefect's in the project's folder."""
    done = subprocess.run(
        [sys.executable, "-m", "prefect", "--no-prompt", *words],
        cwd=root(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemTrouble(f"`prefect {' '.join(words)}` failed.", received=server.last_lines(done.stdout))


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[bool]:
    """Hold a lock, if nobody else does; whether this is so."""
    with system_errors(f"starting the platform in {path.parent}"):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("w")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
