"""How soon the command line answers, against the import of TensorFlow alone, each as a whole process.

The run and the plan are those of a workload in which every stage is finished already.

Run: python -m benchmarks.start [--repeats 5]
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time

from benchmarks.keeping import keep

REQUEST = ("house_prices", "--variant", "kfold_100", "--profile", "smoke", "--data", "synthetic")
COMMANDS = {
    "import tensorflow": ["-c", "import tensorflow"],
    "headrace --help": ["-m", "headrace", "--help"],
    "headrace list": ["-m", "headrace", "list"],
    "headrace plan": ["-m", "headrace", "plan", *REQUEST],
    "headrace run, all skipped": ["-m", "headrace", "run", *REQUEST],
}


def seconds(arguments: list[str]) -> float:
    begun = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
    return time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["HEADRACE_HOME"] = folder
        seconds(COMMANDS["headrace run, all skipped"])
        times: dict[str, list[float]] = {name: [] for name in COMMANDS}
        for _ in range(options.repeats):
            for name, arguments in COMMANDS.items():
                times[name].append(seconds(arguments))
    medians = {name: statistics.median(values) for name, values in times.items()}
    result = {
        "what": "seconds of whole processes, median (smallest to largest)",
        "seconds": {
            name: f"{medians[name]:.2f} ({min(values):.2f} to {max(values):.2f})" for name, values in times.items()
        },
        "as a share of importing TensorFlow": {
            name: round(value / medians["import tensorflow"], 2) for name, value in medians.items()
        },
        "repeats": options.repeats,
    }
    keep("start", result, "tensorflow", "pydantic", "click")


if __name__ == "__main__":
    main()
