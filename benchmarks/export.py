"""Size, latency and agreement of every format of the MNIST convnet (or of another workload's model).

Trains the model, exports it in all formats, and takes the figures that `export` itself has measured: one example at a
time, each format in a fresh process with nothing but its own runtime. Latencies of different formats come from one run,
so that they can be compared with each other. A second export of the same model, pruned and clustered before it is
quantised, shows what that costs and saves once the files are zipped.

Run: python -m benchmarks.export [--workload mnist --variant convnet] [--profile full] [--data real]
"""

from __future__ import annotations

import argparse
import time
from typing import Any, get_args

from benchmarks.keeping import keep
from headrace.artifacts import Artifact
from headrace.chain import Stages, trained
from headrace.jobs import Job, resolve
from headrace.spec import Format

FIGURES = (
    *("bytes", "zipped_bytes", "milliseconds", "milliseconds_p95", "milliseconds_loading", "peak_bytes"),
    *("relative_difference", "agreement", "metric", "metric_loss", "problem", "remark"),
)
COMPRESSED = {"export.prune": 0.5, "export.cluster": 32}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workload", default="mnist")
    parser.add_argument("--variant", default="convnet")
    parser.add_argument("--profile", default="full")
    parser.add_argument("--data", default="real")
    parser.add_argument("--examples", type=int, default=1000)
    options = parser.parse_args()
    # What is measured must not be refused: the figures say what a format is worth.
    every = {
        "export.formats": list(get_args(Format)),
        "export.examples": options.examples,
        "export.max_metric_loss": 1.0,
        "export.min_agreement": 0.0,
    }
    asked = {"variant": options.variant, "profile": options.profile, "data": options.data}
    found = {}
    for name, more in (("as trained", {}), ("half of it pruned, 32 weights in each kernel", COMPRESSED)):
        job = resolve(options.workload, **asked, overrides={**every, **more})
        begun = time.perf_counter()
        bundle = exported(job)
        found[name] = figures(bundle) | {"seconds": round(time.perf_counter() - begun, 1)}
    figures_of = {"workload": options.workload, **asked, "examples": options.examples, "models": found}
    keep("export", figures_of, "tensorflow", "keras", "ai-edge-litert", "onnxruntime")


def exported(job: Job) -> Artifact:
    """The bundle of a job's model, which is trained unless it stands."""
    stages = Stages.plain()
    raw = stages.download(job)
    records = stages.preprocess(job, raw)
    return stages.export(job, raw, records, trained(job, stages, records)[-1])


def figures(bundle: Artifact) -> dict[str, Any]:
    """What the export has measured of each format."""
    parity = bundle.json("parity.json")
    return {
        "formats": {name: {figure: entry[figure] for figure in FIGURES} for name, entry in parity["formats"].items()},
        "compression": parity["compression"],
    }


if __name__ == "__main__":
    main()
