"""Ray as the engine: the nodes of a cluster train, and help with data; they share this machine's home and code.

A node needs the same Python environment, the project under the same path, and `HEADRACE_HOME` on storage that all of
them see: a folder under one path, or an object store, from which it fetches what a stage reads. What a stage makes, and
what an attempt that was cut short has left for the next one, lies in that home, so that a node may die at any time: Ray
carries the stage out again elsewhere, from its last checkpoint. Data that are divided
(`headrace.placing.dividing`) are sent to the nodes part by part, and nothing of that is kept there.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import socket
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, cast

from headrace import projects
from headrace.artifacts import Artifact, home, home_url
from headrace.errors import ConfigError, Deserted, HeadraceError, SystemTrouble
from headrace.placing.dividing import PROCESSORS, Helpers, helped_by, in_turn
from headrace.placing.dividing import Work as Divided
from headrace.placing.spreading import (
    Elsewhere,
    Share,
    Work,
    begin,
    carry_out,
    elsewhere,
)
from headrace.placing.telling import LISTEN_SECONDS, Say, Told, listening
from headrace.stages import artifacts_of
from headrace.storing.depots import at_hand

if TYPE_CHECKING:
    from types import ModuleType

log = logging.getLogger(__name__)

RETRIES = 10
"""How often a stage whose node was lost is begun anew: each attempt goes on from the checkpoint of the one before."""
PARTS = 2
"""Parts of the data that are sent out for each that can be worked on: one is there when another is done."""
HANDED_ON = ("HEADRACE_", "TF_", "KERAS_", "AWS_ENDPOINT_URL", "AWS_REGION", "AWS_DEFAULT_REGION")
"""Variables of the environment that hold on the nodes, too; credentials are not among them."""
OWN = "HEADRACE_SCRATCH"
"""The one that each node has of its own."""


@contextlib.contextmanager
def nodes(limit: int | None, share: Share) -> Iterator[tuple[Elsewhere, int]]:
    """Have the nodes of a Ray cluster carry stages out, and help with data in the stages that are carried out here.

    The cluster is that of `RAY_ADDRESS`, else one that `ray start` has begun on this machine, else one of this machine
    alone, which ends with the context.

    Args:
        limit: Stages at the same time; None: as many as the cluster has room for.
        share: What each asks for.

    Yields:
        Function from a stage to one that runs on a node unless there is nothing to do, and how many of them run at the
        same time.

    Raises:
        ConfigError: The cluster does not have what a stage asks for.
        SystemTrouble: Ray is not installed, or its cluster can't be reached.
    """
    ray = _ray()
    _connect(ray)
    try:
        room = _room(ray, share)
        remote = ray.remote(num_cpus=share.cpus, num_gpus=share.gpus, max_retries=RETRIES)(_on_node)
        told = ray.util.queue.Queue(actor_options={"num_cpus": 0})

        def submit(work: Work) -> Artifact:
            with _told(ray, work.node), exchange.line() as line:
                several = share.workers > 1 and work.name == "train"
                say = partial(_say, told, line)
                answer = _together(ray, share, work, say) if several else ray.get(remote.remote(work, say))
            return cast(Artifact, at_hand(_made(answer)))

        def receive() -> list[tuple[int, Told]]:
            time.sleep(LISTEN_SECONDS)
            return cast(list[tuple[int, Told]], told.get_nowait_batch(told.size()))

        with listening(receive) as exchange, helped_by(_helpers(ray, share)):
            yield (lambda stage: elsewhere(stage, submit)), min(limit or room, room)
    finally:
        # Ends what is still going on, also after Ctrl-C; checkpoints are there for the next attempt.
        ray.shutdown()


def _ray() -> ModuleType:
    # Read when Ray is imported: nothing is told to anybody.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
        import ray.util.queue
    except ImportError as error:
        raise SystemTrouble(
            "Ray is not installed here.",
            remedy='`pip install "headrace[ray]"`; or use --engine local, with --jobs for several trainings at a time',
        ) from error
    return ray


def _connect(ray: ModuleType) -> None:
    variables = {name: value for name, value in os.environ.items() if name.startswith(HANDED_ON) and name != OWN}
    variables |= {"HEADRACE_HOME": home_url() or str(home()), "PYTHONPATH": os.pathsep.join(_importable())}
    try:
        ray.init(
            runtime_env={"env_vars": variables},
            log_to_driver=False,
            logging_level=logging.ERROR,
            include_dashboard=False if "RAY_ADDRESS" not in os.environ else None,
        )
    except Exception as error:
        # Of a node that does not come up in time Ray has no class of its own.
        raise SystemTrouble(
            "The Ray cluster can't be reached.",
            received=f"{type(error).__name__}: {error}".splitlines()[0],
            remedy="see `ray status`; RAY_ADDRESS names the cluster, and without it this machine is one",
        ) from error


def _importable() -> list[str]:
    """Where modules are found here beside what is installed: the project, and what was on the path already."""
    given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    return list(dict.fromkeys([str(projects.root()), *filter(None, given)]))


def _room(ray: ModuleType, share: Share) -> int:
    """How many stages fit into the cluster at the same time."""
    wanted = {name: amount for name, amount in (("CPU", share.cpus), ("GPU", share.gpus)) if amount}
    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    processes = sum(min(int(node.get(name, 0) / amount) for name, amount in wanted.items()) for node in alive)
    if processes < share.workers:
        asked = ", ".join(f"{amount:g} {name}" for name, amount in wanted.items())
        raise ConfigError(
            "The Ray cluster does not have what a training asks for.",
            expected=f"{share.workers} times {asked}" if share.workers > 1 else asked,
            received="; ".join(f"{node.get('CPU', 0):g} CPU, {node.get('GPU', 0):g} GPU" for node in alive),
            remedy="ask for less by --cpus, --gpus and --workers, or add nodes",
        )
    return processes // share.workers


Answer = tuple[Any, HeadraceError | None]
"""What was made, or why it could not be; an error of ours is an answer, for Ray would wrap it."""


def _made(answer: Answer) -> Any:
    made, error = answer
    if error:
        raise error
    return made


@contextlib.contextmanager
def _told(ray: ModuleType, what: str) -> Iterator[None]:
    """Tell in our words that the cluster could not do something."""
    try:
        yield
    except ray.exceptions.RayTaskError as failed:
        # A fault of the program, as it would be here; what Ray adds is the place on the node.
        raise failed.cause from failed
    except ray.exceptions.RayError as lost:
        raise SystemTrouble(
            f"The Ray cluster has lost {what}.",
            received=f"{type(lost).__name__}: {lost}".splitlines()[0],
            remedy="see `ray status`; the same command goes on where it was cut short",
        ) from lost


def _say(told: Any, line: int, message: Told) -> None:
    """Tell progress from a node; a training goes on where nobody hears of it."""
    with contextlib.suppress(Exception):
        told.actor.put_nowait.remote((line, message))


def _on_node(work: Work, say: Say, own: str | None = None) -> Answer:
    """Carry a stage out on a node, in a home of its own if one is named."""
    begin()
    try:
        work = replace(work, args=at_hand(work.args), kwargs=at_hand(work.kwargs))
        if own:
            os.environ["HEADRACE_HOME"] = own
        missing = [artifact for artifact in artifacts_of(work.arguments) if not artifact.path.is_dir()]
        if missing:
            raise SystemTrouble(
                f"Node {os.uname().nodename} of the Ray cluster does not see what was made before.",
                expected=f"{missing[0].path}, as on the machine that asked",
                remedy="set HEADRACE_HOME to a folder that all nodes share under one path, or to an object store",
            )
        return carry_out(work, say), None
    except HeadraceError as error:
        return None, error


# -------------------------------------------------------------------------------------------------- parts of the data


def _helpers(ray: ModuleType, share: Share) -> Helpers:
    """The nodes, each of them with as many parts at a time as it has processors for.

    A part asks for the processors of a training and for no accelerator, as TensorFlow prepares data without.
    """
    at_once = _room(ray, Share(cpus=share.cpus))
    threads = str(math.ceil(share.cpus))
    # A process of these variables is none that trains: there they would change how sums are rounded.
    alone = dict.fromkeys(("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", PROCESSORS), threads)
    remote = ray.remote(num_cpus=share.cpus, max_retries=RETRIES, runtime_env={"env_vars": alone})(_on_part)
    put = lru_cache(maxsize=1)(ray.put)

    def helpers(work: Divided, parts: Iterable[list[Any]]) -> Iterator[tuple[Iterable[Any], float]]:
        def submit(part: list[Any]) -> Callable[[], tuple[Iterable[Any], float]]:
            # In a list, so that a worker gets the name of it only, and may have it already.
            reference = remote.remote([put(work)], part)

            def wait() -> tuple[Iterable[Any], float]:
                with _told(ray, "a part of the data"):
                    answer = ray.get(reference)
                return cast(tuple[Iterable[Any], float], _made(answer))

            return wait

        return in_turn(submit, parts, PARTS * at_once)

    return helpers


def _on_part(known: list[Any], part: list[Any]) -> Answer:
    """Do work on a part of the data: its results, and how long it took."""
    try:
        work = _work(known[0])
        begun = time.perf_counter()
        return (list(work(part)), time.perf_counter() - begun), None
    except HeadraceError as error:
        return None, error


@lru_cache(maxsize=1)
def _work(reference: Any) -> Divided:
    """Work that was put into the object store; the process keeps it, and what the work has built for itself."""
    import ray

    begin()
    return cast(Divided, ray.get(reference))


# ----------------------------------------------------------------------------------- several workers of one training


class _Member:
    """A worker of a training, in a process that has computed nothing yet."""

    def address(self) -> str:
        """Where the others reach it."""
        import ray

        with socket.socket() as free:
            free.bind(("", 0))
            return f"{ray.util.get_node_ip_address()}:{free.getsockname()[1]}"

    def carry_out(self, work: Work, say: Say, number: int, addresses: list[str]) -> Answer:
        """Train as one of several; the first one's artifact is the result, the others' copies are thrown away."""
        os.environ["TF_CONFIG"] = json.dumps(
            {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": number}}
        )
        if number == 0:
            return _on_node(work, say)
        with tempfile.TemporaryDirectory() as own:
            return _on_node(work, lambda _: None, own)


def _together(ray: ModuleType, share: Share, work: Work, say: Say) -> Answer:
    """Train on several workers; where one of them is lost, all begin again, from the first one's last checkpoint."""
    bundle = {name: amount for name, amount in (("CPU", share.cpus), ("GPU", share.gpus)) if amount}
    for _ in range(RETRIES):
        # All of them or none: half a training would wait for the other half, and the other one for it.
        group = ray.util.placement_group([bundle] * share.workers)
        placed = ray.util.scheduling_strategies.PlacementGroupSchedulingStrategy(group)
        member = ray.remote(num_cpus=share.cpus, num_gpus=share.gpus, scheduling_strategy=placed)(_Member)
        members = [member.remote() for _ in range(share.workers)]
        try:
            addresses = ray.get([each.address.remote() for each in members])
            return _first(ray, [each.carry_out.remote(work, say, k, addresses) for k, each in enumerate(members)])
        except (ray.exceptions.RayActorError, Deserted) as lost:
            log.warning("%s: a worker was lost, all begin again: %s", work.node, str(lost).splitlines()[0])
        finally:
            for each in members:
                ray.kill(each)
            ray.util.remove_placement_group(group)
    raise SystemTrouble(
        f"Workers of {work.node} were lost {RETRIES} times.",
        remedy="see `ray status`; the same command goes on where it was cut short",
    )


def _first(ray: ModuleType, references: list[Any]) -> Answer:
    """The answer of the first worker, once all have answered.

    Raises:
        Deserted: One of them has lost the others.
        RayActorError: One of them is gone.
    """
    pending = references
    while pending:
        done, pending = ray.wait(pending)
        for _, error in ray.get(done):
            if isinstance(error, Deserted):
                raise error
            if error:
                return None, error
    found: Answer = ray.get(references[0])
    return found
