"""A line, two clouds of points, three switches: from download to report.

Written by `headrace sync` from pipelines/first_models/__init__.py.

python -m flows.first_models [--profile smoke …]
prefect deployment run first_models/weekly
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from prefect import flow
from pydantic import Field

from headrace.jobs import Data, Profile, resolve
from headrace.running import Summary, execute
from tasks.policies import concluded, flow_run_name
from tasks.stages import STAGES


@flow(name="first_models", flow_run_name=flow_run_name, persist_result=False)
def first_models(
    variant: Literal[
        "classifier", "classifier_keras", "classifier_held_out", "line", "switches", "branches"
    ] = "classifier",
    profile: Profile = "full",
    data: Data = "auto",
    source: str | None = None,
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0,
    overrides: dict[str, Any] | None = None,
) -> Summary:
    """A line, two clouds of points, three switches.

    Args:
        variant: Which configuration of the workload; `headrace show` describes them.
        profile: The whole training, or a few seconds of it.
        data: The real data, the synthetic twin, or whichever can be had.
        source: `points`, `line` or `switches`, or the path of data of one's own; default: that of the variant.
        seed: Seed of everything random.
        overrides: Path of a setting → value, as in `{"train.epochs": 8}`.
    """
    job = resolve(
        "first_models", variant=variant, profile=profile, data=data, source=source, seed=seed, overrides=overrides
    )
    return concluded(execute(job, STAGES, engine="prefect"))


if __name__ == "__main__":
    import sys

    from headrace.__main__ import main

    sys.exit(main(["run", "first_models", "--engine", "prefect", *sys.argv[1:]]))
