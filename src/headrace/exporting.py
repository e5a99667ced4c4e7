"""Export a trained model for serving, and prove on recorded examples that each format answers as Keras does."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace import serving_check
from headrace.artifacts import Artifact, only, read_json, write_json
from headrace.errors import StageFailed
from headrace.jobs import Job
from headrace.spec import Feature
from headrace.stages import Room, stage

if TYPE_CHECKING:
    import keras
    import numpy as np
    import pyarrow as pa

    from headrace.records.inputs import Info

    Arrays = dict[str, np.ndarray[Any, Any]]

log = logging.getLogger(__name__)

TIMEOUT = 300.0
"""Seconds after which the check of the formats is given up."""


@stage(
    settings=("export", "preprocess"),
    functions=("preprocess", "read"),
    versions=("tensorflow", "keras", "ai-edge-litert"),
    # TensorFlow numbers the functions of a graph anew each time; the weights, and the graph as TFLite, are the same.
    volatile=("saved_model/saved_model.pb", "saved_model/fingerprint.pb", "parity.json"),
    facts=lambda job: {"signature": _signature(job.origin.named("input"))},
    tensorflow=True,
)
def export(job: Job, room: Room, raw: Artifact, records: Artifact, model: Artifact) -> None:
    """Write the bundle: a SavedModel that takes raw features, what is converted from it, and how well they agree.

    Writes `saved_model/`, `model.keras`, `model.tflite`, `examples.npz` (`input/<name>`: raw test examples,
    `output/<name>`: the Keras model's answers to their records), `parity.json` (what was measured) and `bundle.json`
    (signature, formats and the gate, without measured times).

    The expected answers come from the records that `preprocess` wrote, the others from raw examples through the
    exported graph: agreement means that training and serving prepare their inputs alike.

    Args:
        job: The job; its settings name formats and tolerance.
        room: Where to work.
        raw: Output of `download`.
        records: Output of `preprocess`, with the statistics that go into the graph.
        model: Output of `train`.

    Raises:
        StageFailed: Raw data and records don't correspond, or Keras can't load the model.
    """
    import numpy as np

    from headrace.models import answer, load
    from headrace.preprocessing import raw_batches
    from headrace.records.inputs import arrays, read_info

    settings = job.settings.export
    info = read_info(records.path)
    prepared = arrays(records.path, "test")
    examples = recorded(raw_batches(job, raw.path, "test"), job.origin.named("input"), settings.examples)
    count = len(next(iter(examples.values())))
    if count != min(settings.examples, info.examples["test"]):
        raise StageFailed(
            "The raw test examples are not those of the records.",
            expected=f"{min(settings.examples, info.examples['test'])} examples",
            received=f"{count} examples",
            remedy=f"`read` in pipelines/{job.workload}.py must give the same examples in the same order each time",
        )
    loaded = load(model)
    inputs = {name: prepared[name][:count] for name in info.named("input")}
    expected = {name: values.numpy() for name, values in answer(loaded, inputs, list(info.named("target"))).items()}
    written: dict[str, Any] = {f"input/{name}": values for name, values in examples.items()}
    written |= {f"output/{name}": values for name, values in expected.items()}
    np.savez(room.output / "examples.npz", **written)
    shutil.copyfile(only(model, "model.keras"), room.output / "model.keras")
    if (model.path / "weights.json").is_file():
        shutil.copyfile(model.path / "weights.json", room.output / "weights.json")
    write_saved_model(job, records, info, loaded, room.output / "saved_model")

    # Whatever was asked for: the registry serves the SavedModel, and the other formats are converted from it.
    formats = list(dict.fromkeys(["saved_model", *settings.formats]))
    found = _examine(room, formats, expected, settings.tolerance)
    gate = _gate(found, count, settings.tolerance)
    write_json(room.output / "parity.json", {"formats": found, "gate": gate})
    write_json(
        room.output / "bundle.json",
        {
            "signature": {
                "inputs": _signature(job.origin.named("input")),
                "outputs": {
                    name: {"dtype": str(values.dtype), "shape": list(values.shape[1:])}
                    for name, values in expected.items()
                },
            },
            "formats": ["keras", *(name for name, entry in found.items() if not entry["problem"])],
            "gate": gate,
        },
    )
    log.info("%s", gate["reason"])


def recorded(batches: Iterable[pa.RecordBatch], features: Mapping[str, Feature], count: int | None = None) -> Arrays:
    """The first examples of a split as arrays (examples, *shape); all of them if no count is given."""
    from headrace.ragged import dense
    from headrace.readers.batches import whole

    def first() -> Iterator[pa.RecordBatch]:
        rows = 0
        for batch in batches:
            yield batch if count is None else batch.slice(0, count - rows)
            rows += batch.num_rows
            if count is not None and rows >= count:
                return

    return {name: dense(values) for name, values in whole(first(), features).items()}


def _signature(features: Mapping[str, Feature]) -> dict[str, Any]:
    return {name: {"dtype": feature.dtype, "shape": list(feature.shape)} for name, feature in features.items()}


def write_saved_model(job: Job, records: Artifact, info: Info, model: keras.Model, path: Path) -> None:
    """Write a SavedModel whose `serving_default` takes raw inputs by name, (batch, *shape), and answers by target."""
    import tensorflow as tf

    from headrace.models import answer
    from headrace.preprocessing import learned_function

    prepare = learned_function(job, records)
    targets = list(info.named("target"))

    def serve(batch: dict[str, Any]) -> dict[str, Any]:
        ready = prepare(batch)
        return answer(model, {name: ready[name] for name in info.named("input")}, targets)

    signature = {
        name: tf.TensorSpec((None, *feature.shape), tf.as_dtype(feature.dtype), name=name)
        for name, feature in job.origin.named("input").items()
    }
    # Not by `keras.export.ExportArchive`: it stores every weight twice, the second time in an order of chance.
    module = tf.Module()
    module.serve = tf.function(serve, input_signature=[signature], autograph=False).get_concrete_function()
    module.weights = [variable.value for variable in model.variables]
    own = {id(weight) for weight in module.weights}
    # What the graph reads besides comes as a set: in an order of its own, so that equal models give equal bytes.
    module.others = sorted((v for v in module.serve.graph.variables if id(v) not in own), key=lambda v: v.name)
    tf.saved_model.save(module, str(path), signatures={"serving_default": module.serve})


# -------------------------------------------------------------------------------------------------- parity


def _examine(room: Room, formats: Sequence[str], expected: Arrays, tolerance: float) -> dict[str, dict[str, Any]]:
    """Load and ask every format in a fresh process, and compare; a format that was made goes to the output."""
    # A folder of its own for each attempt: the child of one that was killed may still be writing.
    folder = Path(tempfile.mkdtemp(prefix="check-", dir=room.scratch))
    end = _run_child(folder, room.output, formats)
    findings = read_json(folder / "findings.json") or {}
    unreached = [name for name in formats if name not in findings]
    for name in unreached:
        cause = "" if name == unreached[0] else f"not tried, since {unreached[0]} ended the check: "
        findings[name] = {"problem": f"{cause}{end}"}
    found = {}
    for name in formats:
        found[name] = {
            "passed": False,
            "problem": None,
            "repeatable": None,
            "max_difference": None,
            "relative_difference": None,
            "mean_difference": None,
            "bytes": None,
            "milliseconds": None,
            **findings[name],
        }
        if not found[name]["problem"]:
            found[name] |= _compared(folder / f"{name}.npz", expected, tolerance)
    if not found.get("tflite", {"problem": True})["problem"]:
        shutil.move(folder / "model.tflite", room.output / "model.tflite")
    shutil.rmtree(folder, ignore_errors=True)
    return found


def _run_child(folder: Path, output: Path, formats: Sequence[str]) -> str:
    """Run the check in a fresh interpreter; how it ended, in words that matter if it left something out."""
    command = [sys.executable, "-I", serving_check.__file__]
    command += [str(output / "saved_model"), str(output / "examples.npz"), *formats]
    # The accelerator's memory may be this process's own, and a server's answers must not depend on it.
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "2"}
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"the check did not finish within {TIMEOUT:g} seconds"
    if not done.returncode:
        return "the check left it out"
    how = f"exit code {done.returncode}" if done.returncode > 0 else signal.Signals(-done.returncode).name
    last = [line.strip() for line in done.stderr.decode(errors="replace").splitlines() if line.strip()][-3:]
    return f"the check ended with {how}" + (f": {' / '.join(last)}"[:600] if last else "")


def _compared(answers: Path, expected: Arrays, tolerance: float) -> dict[str, Any]:
    """Differences between the answers of a format and the expected ones, over all outputs."""
    import numpy as np

    with np.load(answers, allow_pickle=False) as file:
        given = {name: file[name] for name in file.files}
    for name, values in expected.items():
        got = given.get(f"together/{name}")
        if got is None or got.shape != values.shape:
            shape = "none" if got is None else f"shape {got.shape}"
            return {"problem": f"the answers for `{name}` should have shape {values.shape}, and have {shape}"}
    repeatable = all(
        np.array_equal(given[f"together/{name}"], given[f"again/{name}"], equal_nan=True) for name in expected
    )
    largest = total = scale = 0.0
    for name, values in expected.items():
        differences = [
            np.abs(given[f"{way}/{name}"].astype(np.float64) - values[: len(given[f"{way}/{name}"])])
            for way in ("together", "again", "alone")
        ]
        # NaN is the largest difference there is, and must not get lost on the way.
        largest = float(np.max([largest, *(difference.max() for difference in differences)]))
        total += float(differences[0].mean())
        scale = max(scale, float(np.abs(values).max()))
    relative = largest / (scale or 1.0)
    return {
        "passed": repeatable and relative <= tolerance,
        "repeatable": repeatable,
        "max_difference": _finite(largest),
        "relative_difference": _finite(relative),
        "mean_difference": _finite(total / len(expected)),
    }


def _finite(value: float) -> float | None:
    """As JSON, which has neither NaN nor infinity."""
    return value if abs(value) < float("inf") else None


def _gate(found: Mapping[str, Mapping[str, Any]], examples: int, tolerance: float) -> dict[str, Any]:
    """Passed if the SavedModel was made and no format that was made differs; what can't be made is said, not hidden."""
    figures, notes = [], []
    for name, entry in found.items():
        if entry["problem"]:
            notes.append(f"{name} can't be made: {entry['problem']}")
            continue
        relative = entry["relative_difference"]
        figures.append(f"{name} {'infinite' if relative is None else f'{relative:.1e}'}")
        if not entry["repeatable"]:
            notes.append(f"{name} gives two answers to the same examples: something random is left in it")
    measured = (
        f"largest difference from the Keras model on {examples} test examples, as a share of the largest output: "
        f"{', '.join(figures)} (allowed: {tolerance:g})"
    )
    passed = found["saved_model"]["passed"] and all(entry["passed"] or entry["problem"] for entry in found.values())
    return {"gate": "parity", "passed": passed, "reason": "; ".join([measured] * bool(figures) + notes)}
