"""Answers as columns of a table: numbers as they are, and of classes the name and its probability."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from headrace.serving.bundles import Target

if TYPE_CHECKING:
    Array = np.ndarray[Any, Any]

LIKELY = 0.5
"""From which score on a class is answered, where each is answered by itself."""


def columns(outputs: Mapping[str, Array], targets: Mapping[str, Target]) -> dict[str, pa.Array]:
    """The columns of some answers.

    | the output `y` answers | columns |
    | --- | --- |
    | a number | `y` |
    | anything else | `y`: a list (of lists) of numbers or strings |
    | one of two classes | `y`: the score of the second; `y_label`, `y_probability`: the answer and its probability |
    | one of several classes | `y`: the score of each; `y_label`, `y_probability` |
    | any of several classes | `y`: the score of each; `y_labels`: those that are answered |

    Args:
        outputs: Output → values (examples, …).
        targets: What each of them answers, as far as that is known.
    """
    found: dict[str, pa.Array] = {}
    for name, values in outputs.items():
        if values.ndim == 2 and values.shape[1] == 1:
            values = values[:, 0]
        found[name] = nested(values)
        target = targets.get(name, Target(""))
        if target.task == "binary" and values.ndim == 1 and values.dtype.kind == "f":
            found |= _of_two(name, values, target.classes or ("0", "1"))
        elif target.task == "multiclass" and values.ndim == 2 and _named(target.classes, values):
            found |= _of_several(name, values, target.classes or tuple(map(str, range(values.shape[1]))))
        elif target.task == "multilabel" and values.ndim == 2 and len(target.classes) == values.shape[1]:
            chosen = [[target.classes[i] for i in np.flatnonzero(row >= LIKELY)] for row in values]
            found[f"{name}_labels"] = pa.array(chosen, pa.list_(pa.string()))
    return found


def _named(classes: tuple[str, ...], values: Array) -> bool:
    return values.dtype.kind == "f" and len(classes) in (0, values.shape[1])


def _of_two(name: str, score: Array, classes: tuple[str, ...]) -> dict[str, pa.Array]:
    second = score >= LIKELY
    names = np.array(classes, object)
    return {
        f"{name}_label": pa.array(names[second.astype(int)], pa.string()),
        f"{name}_probability": pa.array(np.where(second, score, 1 - score)),
    }


def _of_several(name: str, scores: Array, classes: tuple[str, ...]) -> dict[str, pa.Array]:
    """A score that is no probability is made one as a softmax makes it: a model may answer logits."""
    answer = scores.argmax(axis=1)
    shares = (scores >= -1e-6).all() and np.allclose(scores.sum(axis=1), 1, atol=1e-3)
    if not shares:
        powers = np.exp(scores - scores.max(axis=1, keepdims=True))
        scores = powers / powers.sum(axis=1, keepdims=True)
    return {
        f"{name}_label": pa.array(np.array(classes, object)[answer], pa.string()),
        f"{name}_probability": pa.array(scores[np.arange(len(answer)), answer]),
    }


def nested(values: Array) -> pa.Array:
    """An array (examples, …) as a column, lists within lists."""
    flat = np.ascontiguousarray(values).reshape(-1)
    if values.dtype == object:
        column = _strings(flat)
    else:
        column = pa.array(flat if flat.dtype != np.float16 else flat.astype(np.float32))
    for length in reversed(values.shape[1:]):
        # Not of fixed length: a later batch may have another one.
        ends = np.arange(len(column) // max(length, 1) + 1, dtype=np.int32) * length
        column = pa.ListArray.from_arrays(pa.array(ends), column)
    return column


def _strings(flat: Array) -> pa.Array:
    """Text where all of it is, else bytes."""
    column = pa.array(flat, pa.binary())
    try:
        return column.cast(pa.string())
    except pa.ArrowInvalid:
        return column
