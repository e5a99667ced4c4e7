"""What is served where it isn't what was trained: an answer made of a model, such as a text that is generated with it.

A workload's `serve` gets a `Given` and returns signatures by name:

    def serve(given):
        def write(inputs):
            return {"text": generate(given.models["model"], inputs["prompt"], inputs["seed"])}

        return {"serving_default": Signature(write, {"prompt": TEXT, "seed": SEED})}

All of them go into one SavedModel. `serving_default` takes the place of the model's own answer, which then is the
signature `answer`.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from headrace.errors import StageFailed, nearest
from headrace.serving_check import cause
from headrace.spec import Feature

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

    from headrace.bundling.examples import Array, Arrays
    from headrace.records.inputs import Batch
    from headrace.spec import Variant

DEFAULT = "serving_default"
"""The signature that is asked where none is named."""
ANSWER = "answer"
"""The signature of the model's own answer, where `serving_default` is something else."""
SEED = "seed"
"""The input that numbers what is drawn at random."""
TRIED = 32
"""Examples on which a signature is tried, at most: to make an answer may take a hundred times as long as to judge."""


@dataclass(frozen=True)
class Given:
    """What a workload's `serve` is given."""

    models: Mapping[str, keras.Model]
    """`model`, and whatever `keep` has saved beside it."""
    prepare: Callable[[Batch], Batch]
    """The workload's preprocessing: raw features → features of records."""
    statistics: Any
    """Of the training split, as `preprocess` gets them."""
    learned: Mapping[str, Any] | None
    """What `learn` gave, as `preprocess` gets it; None without one."""
    features: Mapping[str, Feature]
    """Of the records."""
    settings: Variant
    """With everything that was asked for."""


@dataclass(frozen=True)
class Signature:
    """One way of asking a SavedModel."""

    call: Callable[[dict[str, tf.Tensor]], dict[str, tf.Tensor]]
    """A graph: inputs (batch, *shape) by name → outputs by name, the examples along the first dimension of each. What
    draws at random takes a `seed` (int64, one for each example) and uses stateless operations."""
    inputs: Mapping[str, Feature]
    """What it takes, as a request holds it: strings, numbers. What is one value for each example has shape ()."""
    examples: Mapping[str, Array] | None = None
    """On what it is tried before it is published: input → values (examples, *shape). Default: the raw test examples of
    these names; a `seed` that is not among them counts from 0."""


def signatures(make: Callable[[Given], Mapping[str, Signature]], given: Given, workload: str) -> dict[str, Signature]:
    """What a workload's `serve` returns, if it is what it should be.

    Raises:
        StageFailed: It fails, or returns something else.
    """
    try:
        found = dict(make(given))
    except StageFailed:
        raise
    except Exception as error:  # the workload's own, of any kind
        raise StageFailed(f"`serve` of {workload} fails.", received=cause(error)) from error
    wrong = [name for name, signature in found.items() if not isinstance(signature, Signature) or not signature.inputs]
    if wrong or not found:
        raise StageFailed(
            f"`serve` of {workload} must return signatures by name.",
            expected="headrace.bundling.signatures.Signature, with inputs",
            received=f"`{wrong[0]}`: {type(found[wrong[0]]).__name__}" if wrong else "nothing",
        )
    if ANSWER in found:
        raise StageFailed(
            f"`serve` of {workload} calls a signature `{ANSWER}`, which is the model's own answer.",
            remedy="call it something else",
        )
    return found


def tried_on(name: str, signature: Signature, raw: Arrays) -> Arrays:
    """The examples on which a signature is tried: its own, or the raw ones that are recorded anyway.

    Raises:
        StageFailed: There are none.
    """
    import numpy as np

    own = dict(signature.examples or {})
    rows = min([TRIED, *(len(values) for values in (own or raw).values())])
    found: Arrays = {}
    for key, feature in signature.inputs.items():
        if key in own or (key in raw and not own):
            values = np.asarray(own[key] if key in own else raw[key])[:rows]
            # NumPy's own strings lose zeros at their ends, and TensorFlow takes bytes.
            found[key] = _bytes(values) if feature.dtype == "string" else values.astype(feature.dtype)
        elif key == SEED and feature.dtype == "int64" and not feature.shape:
            found[key] = np.arange(rows)
        else:
            raise StageFailed(
                f"The signature `{name}` can't be tried: there are no examples of its input `{key}`.",
                received=nearest(key, own or raw),
                remedy="give some in `examples`",
            )
    return found


def _bytes(values: Array) -> Array:
    import numpy as np

    found = np.empty(values.shape, object)
    found.reshape(-1)[:] = [value.encode() if isinstance(value, str) else bytes(value) for value in values.flat]
    return found


def expected(name: str, signature: Signature, inputs: Arrays) -> Arrays:
    """What a signature answers here, without being a graph: what it does only once, while it is traced, then shows.

    Raises:
        StageFailed: It fails, or gives something else than a row for each example.
    """
    import tensorflow as tf

    try:
        answers = signature.call({key: tf.constant(values) for key, values in inputs.items()})
        found = {key: values.numpy() for key, values in answers.items()}
    except Exception as error:  # the workload's own, of any kind
        raise StageFailed(f"The signature `{name}` fails.", received=cause(error)) from error
    rows = len(next(iter(inputs.values())))
    odd = [key for key, values in found.items() if values.shape[:1] != (rows,)]
    if odd or not found:
        raise StageFailed(
            f"The signature `{name}` must give a row for each example.",
            expected=f"shape ({rows}, …)",
            received=f"`{odd[0]}` of shape {found[odd[0]].shape}" if odd else "nothing",
        )
    return found


def traced(name: str, signature: Signature) -> Any:
    """A signature as a graph, for batches of any size.

    Raises:
        StageFailed: It can't be made one.
    """
    import tensorflow as tf

    specs = {
        key: tf.TensorSpec((None, *feature.shape), tf.as_dtype(feature.dtype), name=key)
        for key, feature in signature.inputs.items()
    }
    try:
        serve = tf.function(partial(_called, signature.call), input_signature=[specs], autograph=False)
        return serve.get_concrete_function()
    except Exception as error:  # the workload's own, of any kind
        raise StageFailed(
            f"The signature `{name}` can't be made a graph.",
            received=cause(error),
            remedy="use TensorFlow's operations (`tf.while_loop` for steps); only the number of examples may be open",
        ) from error


def _called(call: Callable[..., Any], inputs: dict[str, Any]) -> dict[str, Any]:
    import tensorflow as tf

    # A server tells by the first dimension whether requests can be asked together.
    return {
        key: tf.ensure_shape(values, (None, *values.shape[1:])) if values.shape.rank else values
        for key, values in call(inputs).items()
    }


def shapes(features: Mapping[str, Feature]) -> dict[str, Any]:
    """What tensors features are, as `bundle.json` tells it."""
    return {name: {"dtype": feature.dtype, "shape": list(feature.shape)} for name, feature in features.items()}


def described(inputs: Mapping[str, Feature], outputs: Arrays) -> dict[str, Any]:
    """A signature as `bundle.json` tells it."""
    return {
        "inputs": shapes(inputs),
        "outputs": {
            name: {"dtype": "string" if values.dtype == object else str(values.dtype), "shape": list(values.shape[1:])}
            for name, values in outputs.items()
        },
    }


def beside(others: Container[str]) -> str:
    """What the signature of the model's own answer is called beside others."""
    return ANSWER if DEFAULT in others else DEFAULT


def own_answer(names: Container[str]) -> str:
    """Of the signatures of a SavedModel the one of the model's own answer, which can be held against a target."""
    return ANSWER if ANSWER in names else DEFAULT
