"""Convert and try an export as a stranger would: run by `exporting` as a script that knows no project, nor Headrace.

    python -I serving_check.py PLAN

The plan is a JSON file:

    {"examples": NPZ, "representative": NPZ or null, "lengths": {input: the input that holds its lengths},
     "zipped": whether to tell how small files become, "steps": [
        {"do": "check", "format": …, "path": …, "inputs": "raw" or "prepared", "batch": null or 1},
        {"do": "ask", "format": "saved_model", "path": …, "signatures": [names]},
        {"do": "convert", "format": …, "path": of a SavedModel, "target": where the file belongs}]}

Written into the current directory, step by step, so that a crash spares what was found before:

- `findings.json`: "<do> <format>" → {"problem": null or the cause, …}; of a check with sizes, milliseconds and memory
- `<format>.npz`: answers by output: `together/` and `again/` (all examples at once, twice), `alone/` (one at a time)
- `signature-<name>.npz`: the same of a signature that is no model's own answer

Each format is loaded by its own runtime only: TensorFlow is not imported to try TFLite, nor the other way round.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import re
import resource
import sys
import time
import traceback
import zlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

Arrays = dict[str, Any]
Ask = Callable[[Arrays], Arrays]
"""Input name → array (examples, *shape) to output name → array."""

ALONE = 32
"""Examples that are also asked one at a time."""
ALONE_OF_A_SIGNATURE = 4
"""The same of a signature that makes something, which takes its time."""
CALLS, SECONDS = 100, 1.0
"""Single examples whose times are taken: at most so many, or for so long."""
ZIPPED = 4 * 2**20
"""Bytes up to which a format is zipped to see how small it becomes, whether that was asked for or not."""
OPSET = 17
"""Of ONNX."""


# ------------------------------------------------------------------------------------- recorded examples


def packed(prefix: str, arrays: Mapping[str, Any]) -> Arrays:
    """Arrays as an .npz can hold them; `unpacked` is the opposite.

    Strings lie there as bytes one after the other with the position where each ends: NumPy's own arrays of strings
    lose trailing zero bytes, and its arrays of objects are pickles.
    """
    import numpy as np

    found: Arrays = {}
    for name, values in arrays.items():
        if values.dtype.kind not in "OSU":
            found[f"{prefix}/{name}"] = values
            continue
        flat = [value.encode() if isinstance(value, str) else bytes(value) for value in values.reshape(-1)]
        found[f"{prefix}/{name}/bytes"] = np.frombuffer(b"".join(flat), np.uint8)
        found[f"{prefix}/{name}/ends"] = np.cumsum([len(value) for value in flat], dtype=np.int64)
        found[f"{prefix}/{name}/shape"] = np.asarray(values.shape, np.int64)
    return found


def unpacked(stored: Mapping[str, Any], prefix: str) -> Arrays:
    """The arrays that `packed` has put under a prefix of an .npz."""
    import numpy as np

    found = {}
    for key in stored:
        place, _, name = key.partition("/")
        if place == prefix and "/" not in name:
            found[name] = stored[key]
        elif place == prefix and name.endswith("/bytes"):
            name = name.removesuffix("/bytes")
            data, ends = stored[key].tobytes(), stored[f"{prefix}/{name}/ends"]
            begins = np.concatenate([[0], ends])[:-1]
            values = np.empty(len(ends), object)
            values[:] = [data[begin:end] for begin, end in zip(begins, ends, strict=True)]
            found[name] = values.reshape(stored[f"{prefix}/{name}/shape"])
    return found


def read(path: str, prefix: str) -> Arrays:
    """The arrays under a prefix of an .npz file."""
    import numpy as np

    with np.load(path, allow_pickle=False) as file:
        return unpacked({name: file[name] for name in file.files}, prefix)


# ---------------------------------------------------------------------------------------------- runtimes


@functools.cache
def _loaded(path: Path) -> Any:
    """A SavedModel, all of whose assets must be there."""
    import tensorflow as tf
    from tensorflow.core.protobuf import saved_model_pb2

    described = saved_model_pb2.SavedModel.FromString((path / "saved_model.pb").read_bytes())
    named = {asset.filename for graph in described.meta_graphs for asset in graph.asset_file_def}
    missing = sorted(name for name in named if not (path / "assets" / name).is_file())
    if missing:
        raise FileNotFoundError(f"its asset {missing[0]} is missing")
    return tf.saved_model.load(str(path))


def saved_model(path: Path, signature: str | None = None) -> Ask:
    """A signature of a SavedModel; default: that of the model's own answer."""
    import tensorflow as tf

    loaded = _loaded(path)
    serve = loaded.signatures[signature or ("answer" if "answer" in loaded.signatures else "serving_default")]

    def ask(inputs: Arrays) -> Arrays:
        # `loaded` must live as long as its signature is called.
        assert loaded is not None  # noqa: S101
        answers = serve(**{name: tf.constant(values) for name, values in inputs.items()})
        return {name: values.numpy() for name, values in answers.items()}

    return ask


def tflite(path: Path) -> Ask:
    """The signature of a TFLite file, run by LiteRT alone."""
    from ai_edge_litert.interpreter import Interpreter

    # What only TensorFlow can run (Flex) is no TFLite to those who have LiteRT alone.
    run = Interpreter(model_path=str(path)).get_signature_runner("serving_default")
    return lambda inputs: dict(run(**inputs))


def onnx(path: Path) -> Ask:
    """An ONNX file, run by ONNX Runtime."""
    session = _optional("onnxruntime").InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda inputs: dict(zip(names, session.run(names, inputs), strict=True))


RUNTIMES: dict[str, Callable[[Path], Ask]] = {
    "saved_model": saved_model,
    "tflite": tflite,
    "tflite_dynamic": tflite,
    "tflite_float16": tflite,
    "tflite_int8": tflite,
    "onnx": onnx,
}


class Missing(Exception):
    """A package that this format needs is not installed."""


def _optional(package: str) -> Any:
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise Missing(f"{package} is not installed: pip install headrace[onnx]") from error


# -------------------------------------------------------------------------------------------- converters


def to_tflite(path: Path, form: str, representative: Arrays | None) -> tuple[bytes, str | None]:
    """A SavedModel as TFLite, and a remark.

    Args:
        path: The SavedModel.
        form: `tflite`, or what follows: `tflite_dynamic`, `tflite_float16`, `tflite_int8`.
        representative: Examples by which int8 finds the range of every tensor.
    """
    import tensorflow as tf

    operations = tf.lite.OpsSet
    converter = tf.lite.TFLiteConverter.from_saved_model(str(path), signature_keys=["serving_default"])
    converter.target_spec.supported_ops = [operations.TFLITE_BUILTINS]
    if form != "tflite":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if form == "tflite_float16":
        converter.target_spec.supported_types = [tf.float16]
    if form != "tflite_int8":
        return converter.convert(), None
    given = representative or {}
    count = len(next(iter(given.values())))
    converter.representative_dataset = lambda: (
        {name: values[i : i + 1] for name, values in given.items()} for i in range(count)
    )
    converter.target_spec.supported_ops = [operations.TFLITE_BUILTINS_INT8]
    try:
        return converter.convert(), None
    except Exception as error:  # any of the converter's own kinds
        converter.target_spec.supported_ops = [operations.TFLITE_BUILTINS_INT8, operations.TFLITE_BUILTINS]
        return converter.convert(), f"some operations stay in float32, since int8 lacks them ({cause(error)})"


def to_onnx(path: Path) -> bytes:
    """A SavedModel as ONNX."""
    import tensorflow as tf

    _optional("onnxruntime")
    tf2onnx = _optional("tf2onnx")
    _patch()
    loaded = tf.saved_model.load(str(path))
    serve = loaded.signatures["serving_default"]
    specs = serve.structured_input_signature[1]
    # Its arguments must have an order, and its inputs then get the names of their specs.
    function = tf.function(lambda *given: serve(**dict(zip(specs, given, strict=True))), autograph=False)
    made, _ = tf2onnx.convert.from_function(function, list(specs.values()), opset=OPSET)
    # Its inputs are called "unk__12" along the first axis, after a counter of the process.
    for value in (*made.graph.input, *made.graph.output):
        for dimension in value.type.tensor_type.shape.dim[:1]:
            if dimension.dim_param:
                dimension.dim_param = "batch"
    return made.SerializeToString(deterministic=True)


def _patch() -> None:
    """Teach tf2onnx NumPy 2, as Keras does for its own export."""
    try:
        importlib.import_module("keras.src.export.tf2onnx_lib").patch_tf2onnx()
    except (ImportError, AttributeError):
        return


def convert(step: Mapping[str, Any], plan: Mapping[str, Any]) -> dict[str, Any]:
    """Write one format, whole or not at all."""
    form, remark = step["format"], None
    if form == "onnx":
        data = to_onnx(Path(step["path"]))
    else:
        kind = step["inputs"]
        representative = read(plan["representative"], kind) if form == "tflite_int8" else None
        data, remark = to_tflite(Path(step["path"]), form, representative)
    draft = Path(f"{form}.draft")
    draft.write_bytes(data)
    draft.replace(step["target"])
    return {"problem": None, "remark": remark}


# ------------------------------------------------------------------------------------------------ trying


def check(step: Mapping[str, Any], plan: Mapping[str, Any]) -> dict[str, Any]:
    """Load one format and ask it in every way that a server would; its answers go to `<format>.npz`."""
    path = Path(step["path"])
    inputs = read(plan["examples"], step["inputs"])
    begun = time.perf_counter()
    ask = RUNTIMES[step["format"]](path)
    loading = time.perf_counter() - begun
    examples = len(next(iter(inputs.values())))
    singles = [_cut(inputs, i, plan["lengths"]) for i in range(examples if step["batch"] else min(ALONE, examples))]

    def all_of_them() -> Arrays:
        """The answers to all examples, one by one if the format takes no more at once."""
        return joined(ask(one) for one in singles) if step["batch"] else ask(inputs)

    # The first call of each shape is slower than those that a server answers all day: it doesn't count.
    together, alone = all_of_them(), joined(ask(one) for one in singles[:ALONE])
    begun = time.perf_counter()
    again = all_of_them()
    seconds = time.perf_counter() - begun
    times = latencies(ask, singles[:ALONE])
    keep(step["format"], together=together, again=again, alone=alone)
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    size = sum(file.stat().st_size for file in files)
    return {
        "problem": None,
        "bytes": size,
        "zipped_bytes": sum(map(zipped, files)) if plan.get("zipped") or size <= ZIPPED else None,
        "milliseconds": round(percentile(times, 0.5) * 1000, 4),
        "milliseconds_p95": round(percentile(times, 0.95) * 1000, 4),
        "milliseconds_together": round(seconds * 1000, 4),
        "milliseconds_loading": round(loading * 1000, 1),
        "peak_bytes": peak(),
        "accepts_wrong_types": wrongly_accepted(ask, singles[0]),
    }


def keep(name: str, **answers: Arrays) -> None:
    """Write answers, by the way in which they were asked for."""
    import numpy as np

    np.savez(f"{name}.npz", **{key: values for way in answers for key, values in packed(way, answers[way]).items()})


def ask_signatures(step: Mapping[str, Any], plan: Mapping[str, Any]) -> dict[str, Any]:
    """Ask a SavedModel by signatures other than its model's own answer; their answers go to `signature-<name>.npz`."""
    found = {}
    for name in step["signatures"]:
        try:
            found[name] = _asked(name, Path(step["path"]), read(plan["examples"], f"{name}:inputs"))
        except Exception as error:  # whatever it is, it is this signature's problem
            found[name] = {"problem": cause(error)}
    return {"problem": None, "signatures": found}


def _asked(name: str, path: Path, inputs: Arrays) -> dict[str, Any]:
    ask = saved_model(path, name)
    rows = len(next(iter(inputs.values())))
    singles = [_cut(inputs, row, {}) for row in range(min(ALONE_OF_A_SIGNATURE, rows))]
    # The first call of each shape is slower than those that a server answers all day: it doesn't count.
    together, again, alone = ask(inputs), ask(inputs), [ask(singles[0])]
    times = []
    for one in singles:
        begun = time.perf_counter()
        alone.append(ask(one))
        times.append(time.perf_counter() - begun)
    keep(f"signature-{name}", together=together, again=again, alone=joined(alone[1:]))
    return {
        "problem": None,
        "milliseconds": round(percentile(sorted(times), 0.5) * 1000, 4),
        "accepts_wrong_types": wrongly_accepted(ask, singles[0]),
    }


def _cut(inputs: Arrays, row: int, lengths: Mapping[str, str]) -> Arrays:
    """One example, without what was filled up to the length of others."""
    one = {name: values[row : row + 1] for name, values in inputs.items()}
    for name, length in lengths.items():
        if length in one:
            one[name] = one[name][:, : int(one[length][0])]
    return one


def joined(parts: Iterable[Arrays]) -> Arrays:
    """The answers to several batches, one after the other; shorter ones filled up with zeros."""
    import numpy as np

    parts = list(parts)
    found = {}
    for key in parts[0]:
        longest = np.max([part[key].shape[1:] for part in parts], axis=0).astype(int)
        found[key] = np.concatenate(
            [
                np.pad(
                    part[key],
                    [(0, 0), *((0, most - size) for most, size in zip(longest, part[key].shape[1:], strict=True))],
                    constant_values=b"" if part[key].dtype == object else 0,
                )
                for part in parts
            ]
        )
    return found


def latencies(ask: Ask, singles: list[Arrays]) -> list[float]:
    """Seconds that single examples take, ascending."""
    times: list[float] = []
    begun = time.perf_counter()
    while len(times) < len(singles) or (len(times) < CALLS and time.perf_counter() - begun < SECONDS):
        now = time.perf_counter()
        ask(singles[len(times) % len(singles)])
        times.append(time.perf_counter() - now)
    return sorted(times)


def percentile(ascending: list[float], share: float) -> float:
    """The value that this share of them does not exceed."""
    return ascending[min(int(share * len(ascending)), len(ascending) - 1)]


def zipped(file: Path) -> int:
    """The bytes of a file under gzip's own compression."""
    return len(zlib.compress(file.read_bytes(), 6))


def peak() -> int:
    """The most memory that this process has held, in bytes."""
    try:
        # Not `getrusage`, which begins with what the parent held.
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def wrongly_accepted(ask: Ask, one: Arrays) -> list[str]:
    """The inputs for which values of another type are not refused."""
    import numpy as np

    accepted = []
    for name, values in one.items():
        wrong = np.zeros(values.shape, np.float32 if values.dtype.kind in "OSui" else np.int32)
        try:
            ask({**one, name: wrong})
        except Exception:
            # Whatever it is, it is a refusal.
            continue
        accepted.append(name)
    return accepted


def cause(error: Exception) -> str:
    """Why a format can't be made, in one line: a converter's message may have hundreds."""
    if isinstance(error, Missing):
        return str(error)
    lines = [line.strip() for line in re.sub(r"\x1b\[\d*m", "", str(error)).splitlines() if line.strip()]
    # What Keras puts before the message of a layer.
    lines = lines[1:] if lines[1:] and lines[0].startswith("Exception encountered when calling") else lines
    unsupported = [line for line in lines if line.startswith(("TF Select ops:", "Custom ops:"))]
    if unsupported:
        return f"it has operations that the format lacks ({'; '.join(unsupported)})"
    return f"{type(error).__name__}: {lines[0] if lines else 'no reason given'}"[:300]


def main(path: str) -> None:
    """Carry out a plan, step by step."""
    plan = json.loads(Path(path).read_text())
    findings = {}
    for step in plan["steps"]:
        try:
            found = {"convert": convert, "check": check, "ask": ask_signatures}[step["do"]](step, plan)
        except Exception as error:  # whatever it is, it is this format's problem
            found = {"problem": cause(error)}
        findings[f"{step['do']} {step['format']}"] = found
        draft = Path("findings.json.draft")
        draft.write_text(json.dumps(findings))
        draft.replace("findings.json")


def nursery() -> None:
    """Import TensorFlow once, then fork for each plan that is asked for: a line for each folder, and two in return."""
    tf = importlib.import_module("tensorflow")
    tf.lite.TFLiteConverter  # noqa: B018 (imported when it is first looked at)
    for line in sys.stdin:
        folder = json.loads(line)
        child = os.fork()
        if not child:
            # Nothing of this process may be told twice, or by the child.
            nothing = os.open(os.devnull, os.O_RDWR)
            errors = os.open(os.path.join(folder, "errors.txt"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            for taken, place in ((nothing, 0), (nothing, 1), (errors, 2)):
                os.dup2(taken, place)
            code = 1
            try:
                os.chdir(folder)
                main("plan.json")
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(code)
        print(json.dumps({"child": child}), flush=True)
        _, status = os.waitpid(child, 0)
        print(json.dumps({"code": os.waitstatus_to_exitcode(status)}), flush=True)


if __name__ == "__main__":
    nursery() if sys.argv[1:] == ["--nursery"] else main(*sys.argv[1:])
