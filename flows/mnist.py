"""Handwritten digits: from download to report.

Written by `headrace sync` from pipelines/mnist/__init__.py.

python -m flows.mnist [--profile smoke …]
prefect deployment run mnist/weekly
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from prefect import flow
from pydantic import Field

from headrace.jobs import Data, Profile, resolve
from headrace.running import Summary, execute
from tasks.policies import concluded, flow_run_name
from tasks.stages import STAGES


@flow(name="mnist", flow_run_name=flow_run_name, persist_result=False)
def mnist(
    variant: Literal[
        "mlp",
        "from_scratch",
        "noise",
        "zeros",
        "random_labels",
        "lr_1",
        "lr_001",
        "logistic",
        "mlp_96",
        "workflow_fit",
        "workflow_metric",
        "workflow_callbacks",
        "workflow_loop",
        "workflow_step",
        "workflow_compiled_step",
        "convnet",
        "convnet_no_pooling",
        "mlp_subclassed",
        "mlp_50_sequential",
        "mlp_50_functional",
        "cnn_subclassed",
        "mlp_256",
        "cnn_64",
        "rnn",
    ] = "mlp",
    profile: Profile = "full",
    data: Data = "auto",
    source: str | None = None,
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0,
    overrides: dict[str, Any] | None = None,
) -> Summary:
    """Handwritten digits.

    Args:
        variant: Which configuration of the workload; `headrace show` describes them.
        profile: The whole training, or a few seconds of it.
        data: The real data, the synthetic twin, or whichever can be had.
        source: `mnist`, `noise`, `zeros` or `random_labels`, or the path of data of one's own; default: that of the
            variant.
        seed: Seed of everything random.
        overrides: Path of a setting → value, as in `{"train.epochs": 8}`.
    """
    job = resolve("mnist", variant=variant, profile=profile, data=data, source=source, seed=seed, overrides=overrides)
    return concluded(execute(job, STAGES, engine="prefect"))


if __name__ == "__main__":
    import sys

    from headrace.__main__ import main

    sys.exit(main(["run", "mnist", "--engine", "prefect", *sys.argv[1:]]))
