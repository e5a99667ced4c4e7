"""Order and schedule: one literal `@flow` for each workload, in a file of the workload's name.

Rules of this folder:

- A file, its flow, its deployments in `prefect.yaml` and the workload have one name. `study`, `tune`,
  `ensemble`, `predict`, `interpretation`, `monitor` and `nightly` serve all workloads.
- The flow is written out (`@flow def name(…)`), never made by a function: people find it, and so does `prefect deploy`.
- Its parameters are flat and typed: Prefect makes the form from them, and refuses what does not fit before anything
  runs.
- A file may be executed twice, under two names, with this folder first on the path of modules: so absolute imports
  only, nothing registered at import, no TensorFlow, and no name that a module of Python or of a package has.
- Nothing here is imported by tasks, workloads or the core.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace.errors import unknown
from headrace.jobs import resolve

if TYPE_CHECKING:
    from headrace.running import Summary

log = logging.getLogger("headrace.flows")


FAN_OUTS = ("ensemble", "study", "tune")
"""Flows that serve every workload: many trainings, compared or searched."""
OVER_ALL = ("monitor", "nightly")
"""Flows over all workloads, by schedule."""
OTHERS = ("interpretation", "predict")
"""Flows that train nothing. They have no deployment of their own: what they work on is said when they are run."""


def names() -> list[str]:
    """The workloads that have a flow, sorted."""
    serving_all = FAN_OUTS + OVER_ALL + OTHERS
    return sorted(path.stem for path in Path(__file__).parent.glob("[!_]*.py") if path.stem not in serving_all)


def run(workload: str, parameters: Mapping[str, Any]) -> Summary:
    """Run the flow of a workload in this process, against the project's server (or the one in PREFECT_API_URL).

    Args:
        workload: Name of the workload.
        parameters: Parameters of its flow; None means the flow's own default.

    Returns:
        The summary of the run, also if its verdict is *fail*.

    Raises:
        ConfigError: There is no such flow, or the request can't be carried out; nothing was started.
        HeadraceError: A stage failed.
    """
    given = {name: value for name, value in parameters.items() if value is not None}
    resolve(workload, **given)
    if workload not in names():
        raise unknown("flow of the workload", workload, names())
    return _run(workload, given)


def fan_out(kind: str, parameters: Mapping[str, Any]) -> Summary:
    """Run one of the flows that serve every workload, as `run` does that of a workload.

    Args:
        kind: One of FAN_OUTS, OVER_ALL or OTHERS.
        parameters: Parameters of the flow, checked by the caller; None means the flow's own default.

    Raises:
        HeadraceError: A stage failed.
    """
    return _run(kind, {name: value for name, value in parameters.items() if value is not None})


def _run(name: str, given: Mapping[str, Any]) -> Summary:
    # Prefect reads its environment when it is imported.
    from tasks import server

    server.ensure()

    from tasks.policies import Rejected, counted

    flow = getattr(importlib.import_module(f"flows.{name}"), name)
    with counted() as task_runs:
        state = flow(**given, return_state=True)
    server.await_records(task_runs)
    outcome = state.result(raise_on_failure=False)
    if isinstance(outcome, Rejected):
        return outcome.summary
    if isinstance(outcome, BaseException):
        raise outcome
    return outcome
