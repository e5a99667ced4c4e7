"""Ray as the engine: trainings are carried out by the nodes of a cluster, which share this machine's home and code.

A node needs the same Python environment, the project under the same path, and `HEADRACE_HOME` on storage that all of
them see. What a stage makes, and what an attempt that was cut short has left for the next one, lies in that home, so
that a node may die at any time: Ray carries the stage out again elsewhere, from its last checkpoint.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from headrace import projects
from headrace.artifacts import Artifact, home
from headrace.errors import ConfigError, HeadraceError, SystemTrouble
from headrace.spreading import Elsewhere, Work, begin, carry_out, elsewhere
from headrace.stages import artifacts_of

if TYPE_CHECKING:
    from types import ModuleType

log = logging.getLogger(__name__)

RETRIES = 10
"""How often a stage whose node was lost is begun anew: each attempt goes on from the checkpoint of the one before."""
HANDED_ON = ("HEADRACE_", "TF_", "KERAS_")
"""Variables of the environment that hold on the nodes, too."""


@contextlib.contextmanager
def nodes(limit: int | None, cpus: float = 1, gpus: float = 0) -> Iterator[tuple[Elsewhere, int]]:
    """Have the nodes of a Ray cluster carry stages out.

    The cluster is that of `RAY_ADDRESS`, else one that `ray start` has begun on this machine, else one of this machine
    alone, which ends with the context.

    Args:
        limit: Stages at the same time; None: as many as the cluster has room for.
        cpus: Processors that a stage asks for.
        gpus: Accelerators that a stage asks for.

    Yields:
        Function from a stage to one that runs on a node unless there is nothing to do, and how many of them run at the
        same time.

    Raises:
        ConfigError: No node of the cluster has what a stage asks for.
        SystemTrouble: Ray is not installed, or its cluster can't be reached.
    """
    ray = _ray()
    _connect(ray)
    try:
        room = _room(ray, cpus, gpus)
        remote = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=RETRIES)(_on_node)

        def submit(work: Work) -> Artifact:
            return _result(ray, remote.remote(work), work)

        yield (lambda stage: elsewhere(stage, submit)), min(limit or room, room)
    finally:
        # Ends what is still going on, also after Ctrl-C; checkpoints are there for the next attempt.
        ray.shutdown()


def _ray() -> ModuleType:
    # Read when Ray is imported: nothing is told to anybody.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise SystemTrouble(
            "Ray is not installed here.",
            remedy='`pip install "headrace[ray]"`; or use --engine local, with --jobs for several trainings at a time',
        ) from error
    return ray


def _connect(ray: ModuleType) -> None:
    variables = {name: value for name, value in os.environ.items() if name.startswith(HANDED_ON)}
    variables |= {"HEADRACE_HOME": str(home()), "PYTHONPATH": os.pathsep.join(_importable())}
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


def _room(ray: ModuleType, cpus: float, gpus: float) -> int:
    """How many stages fit into the cluster at the same time."""
    wanted = {name: amount for name, amount in (("CPU", cpus), ("GPU", gpus)) if amount}
    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    room = sum(min(int(node.get(name, 0) / amount) for name, amount in wanted.items()) for node in alive)
    if not room:
        raise ConfigError(
            "No node of the Ray cluster has what a training asks for.",
            expected=", ".join(f"{amount:g} {name}" for name, amount in wanted.items()),
            received="; ".join(f"{node.get('CPU', 0):g} CPU, {node.get('GPU', 0):g} GPU" for node in alive),
            remedy="ask for less by --cpus and --gpus, or add nodes",
        )
    return room


def _result(ray: ModuleType, reference: Any, work: Work) -> Artifact:
    try:
        made, error = ray.get(reference)
    except ray.exceptions.RayError as lost:
        raise SystemTrouble(
            f"The Ray cluster has lost {work.node}.",
            received=f"{type(lost).__name__}: {lost}".splitlines()[0],
            remedy="see `ray status`; the same command goes on where it was cut short",
        ) from lost
    if error:
        raise error
    found: Artifact = made
    return found


def _on_node(work: Work) -> tuple[Artifact | None, HeadraceError | None]:
    """Carry a stage out on a node; an error of ours is an answer, for Ray would wrap it and try again."""
    begin()
    try:
        missing = [artifact for artifact in artifacts_of(work.arguments) if not artifact.path.is_dir()]
        if missing:
            raise SystemTrouble(
                f"Node {os.uname().nodename} of the Ray cluster does not see what was made before.",
                expected=f"{missing[0].path}, as on the machine that asked",
                remedy="set HEADRACE_HOME to a folder that all nodes share under one path",
            )
        return carry_out(work), None
    except HeadraceError as error:
        return None, error
