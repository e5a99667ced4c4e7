"""Load an export as a stranger would: run by `exporting` as a script, in a fresh interpreter that knows no project.

    python -I serving_check.py SAVED_MODEL EXAMPLES FORMAT…

Converts the SavedModel where a format asks for it, feeds each format the recorded examples (`EXAMPLES`, an .npz with
`input/<name>`), and writes into the current directory, format by format, so that a crash spares what was found before:

- `findings.json`: format → {"problem": null or the cause, "bytes", "milliseconds", "milliseconds_together"}
- `<format>.npz`: `together/<output>`, `again/<output>` (all examples at once, twice), `alone/<output>` (one at a time)
- `model.tflite`
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Arrays = dict[str, Any]
Ask = Callable[[Arrays], Arrays]
"""Input name → array (examples, *shape) to output name → array."""

ALONE = 32
"""Examples that are also asked one at a time."""


def saved_model(path: Path) -> tuple[Ask, int]:
    """The serving signature of a SavedModel, and the bytes of its files."""
    import tensorflow as tf

    loaded = tf.saved_model.load(str(path))
    serve = loaded.signatures["serving_default"]

    def ask(inputs: Arrays) -> Arrays:
        # `loaded` must live as long as its signature is called.
        assert loaded is not None  # noqa: S101
        answers = serve(**{name: tf.constant(values) for name, values in inputs.items()})
        return {name: values.numpy() for name, values in answers.items()}

    return ask, sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def tflite(path: Path) -> tuple[Ask, int]:
    """The same signature converted to TFLite's own operations, run by LiteRT, and the bytes of its file."""
    import tensorflow as tf
    from ai_edge_litert.interpreter import Interpreter

    converter = tf.lite.TFLiteConverter.from_saved_model(str(path), signature_keys=["serving_default"])
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    target = Path("model.tflite")
    target.write_bytes(converter.convert())
    ask = Interpreter(model_path=str(target)).get_signature_runner("serving_default")
    return lambda inputs: ask(**inputs), target.stat().st_size


FORMATS = {"saved_model": saved_model, "tflite": tflite}


def examine(name: str, path: Path, inputs: Arrays) -> dict[str, Any]:
    """Load one format and ask it; its answers go to `<format>.npz`."""
    import numpy as np

    ask, size = FORMATS[name](path)
    examples = len(next(iter(inputs.values())))
    ones = [{key: values[i : i + 1] for key, values in inputs.items()} for i in range(min(ALONE, examples))]
    # The first call of each shape is slower than those that a server answers all day: it doesn't count.
    together, alone = ask(inputs), [ask(one) for one in ones]
    again, seconds = timed(ask, inputs)
    milliseconds = [timed(ask, one)[1] * 1000 for one in ones]
    answers = {f"together/{key}": values for key, values in together.items()}
    answers |= {f"again/{key}": values for key, values in again.items()}
    answers |= {f"alone/{key}": np.concatenate([one[key] for one in alone]) for key in together}
    np.savez(f"{name}.npz", **answers)
    return {
        "problem": None,
        "bytes": size,
        "milliseconds": round(statistics.median(milliseconds), 4),
        "milliseconds_together": round(seconds * 1000, 4),
    }


def timed(ask: Ask, inputs: Arrays) -> tuple[Arrays, float]:
    """The answers and the seconds they took."""
    begun = time.perf_counter()
    answers = ask(inputs)
    return answers, time.perf_counter() - begun


def cause(error: Exception) -> str:
    """Why a format can't be made, in one line: a converter's message may have hundreds."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    unsupported = [line for line in lines if line.startswith(("TF Select ops:", "Custom ops:"))]
    if unsupported:
        return f"it has operations that the format lacks ({'; '.join(unsupported)})"
    return f"{type(error).__name__}: {lines[0] if lines else 'no reason given'}"[:300]


def main(path: str, examples: str, *formats: str) -> None:
    """Examine each format and write down what was found."""
    import numpy as np

    with np.load(examples, allow_pickle=False) as file:
        inputs = {name.removeprefix("input/"): file[name] for name in file.files if name.startswith("input/")}
    findings = {}
    for name in formats:
        try:
            findings[name] = examine(name, Path(path), inputs)
        except Exception as error:  # whatever it is, it is this format's problem
            findings[name] = {"problem": cause(error)}
        draft = Path("findings.json.draft")
        draft.write_text(json.dumps(findings))
        draft.replace("findings.json")


if __name__ == "__main__":
    main(*sys.argv[1:])
