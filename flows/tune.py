"""A tuning of any workload: trials proposed by KerasTuner, the best settings trained to the end and tested.

python -m flows.tune WORKLOAD NAME [--jobs 2 --profile smoke …]
prefect deployment run tune/default --param workload=house_prices --param name=width
"""

from __future__ import annotations

from typing import Annotated, Any

from prefect import flow
from pydantic import Field

from headrace import tuning
from headrace.chain import tuned
from headrace.jobs import Data, Profile
from headrace.placing.spreading import Share, crew
from headrace.running import Summary, execute, fan_out_summary
from tasks.policies import concluded, fan_out_name
from tasks.stages import for_fan_outs


@flow(name="tune", flow_run_name=fan_out_name, persist_result=False)
def tune(
    workload: str,
    name: str,
    at_once: Annotated[int, Field(ge=1, le=256)] = 1,
    cluster: bool = False,
    variant: str | None = None,
    profile: Profile = "full",
    data: Data = "auto",
    source: str | None = None,
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0,
    overrides: dict[str, Any] | None = None,
) -> Summary:
    """Search for the best settings of a workload, and train them.

    Args:
        workload: The workload.
        name: One of its tunings.
        at_once: Trials to propose and train at the same time, each in a process of its own.
        cluster: On the nodes of the Ray cluster that the worker's RAY_ADDRESS names, at most `at_once` of them.
        variant: What the trials start from; default: as the tuning says.
        profile: The whole search, or a few trials of a few seconds.
        data: The real data, the synthetic twin, or whichever can be had.
        source: One of the workload's sources, or the path of a file of your own; default: its first.
        seed: Seed of the proposals and of the trainings.
        overrides: Path of a setting → value, for every trial, as in `{"train.epochs": 8}`.
    """
    request: dict[str, Any] = {
        "variant": variant,
        "profile": profile,
        "data": data,
        "source": source,
        "overrides": overrides,
    }
    plan = tuning.plan(workload, name, seed=seed, **request)
    with crew(at_once, Share() if cluster else None) as (elsewhere, limit):
        stages = for_fan_outs(elsewhere, limit)
        return concluded(execute(plan.job, stages, tuned(plan, limit), "prefect", fan_out_summary))


if __name__ == "__main__":
    import sys

    from headrace.__main__ import main

    sys.exit(main(["tune", *sys.argv[1:], "--engine", "prefect"]))
