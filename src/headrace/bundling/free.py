"""Models whose inputs no record holds: what turns a point of a latent space into an image, or plays a game.

They are tried on inputs that are drawn: numbers from the standard normal distribution, integers that are 0 or 1.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from headrace.records.inputs import Info
from headrace.spec import Feature

if TYPE_CHECKING:
    import keras

    from headrace.bundling.examples import Arrays


@dataclass(frozen=True)
class Drawn(Info):
    """What the records of such a model would be: its own inputs and outputs."""


def info(model: keras.Model, records: Info) -> Drawn | None:
    """The inputs and outputs of a model that does not take what records hold; None for one that does.

    Args:
        model: The model. What a subclassed model takes can't be seen: it takes records.
        records: What they hold.
    """
    given = list(getattr(model, "inputs", None) or [])
    held = list(records.named("input").values())
    if not given or _fit(given, held):
        return None
    names = list(getattr(model, "input_names", [])) or [tensor.name for tensor in given]
    features = {name: _feature(tensor, "input") for name, tensor in zip(names, given, strict=True)}
    targets = records.named("target")
    outputs = list(model.outputs)
    if len(targets) != len(outputs) or not _fit(outputs, list(targets.values())):
        targets = _answers(model)
    return Drawn(records.workload, records.source, records.data, features | targets, {}, {})


def answering(model: keras.Model, records: Info) -> Info:
    """The records as they are or, where none of their features is a target, with the model's answers as targets."""
    if records.named("target") or not getattr(model, "outputs", None):
        return records
    return replace(records, features={**records.features, **_answers(model)})


def _answers(model: keras.Model) -> dict[str, Feature]:
    import keras

    # What is stacked layer on layer does not say the names of its outputs.
    named = model if hasattr(model, "output_names") else keras.Model(model.inputs, model.outputs)
    features = (_feature(tensor, "target") for tensor in named.outputs)
    return dict(zip(named.output_names, features, strict=True))


def _fit(tensors: list[Any], features: list[Feature]) -> bool:
    """Whether each tensor has the shape of a feature of its own, in whatever order."""
    # Names may differ, or be in another order, where a model takes its inputs by position or by name.
    left = list(features)
    for tensor in tensors:
        fitting = next((f for f in left if _alike(tuple(tensor.shape[1:]), f.shape)), None)
        if fitting is None:
            return False
        left.remove(fitting)
    return True


def _alike(one: tuple[int | None, ...], other: tuple[int | None, ...]) -> bool:
    # A scalar feature may be taken as a vector of one.
    one, other = ((shape or (1,)) for shape in (one, other))
    return len(one) == len(other) and all(None in pair or pair[0] == pair[1] for pair in zip(one, other, strict=True))


def _feature(tensor: Any, role: Any) -> Feature:
    dtype = str(tensor.dtype)
    known = (
        dtype if dtype in ("float32", "int64", "uint8", "string") else "int64" if dtype.startswith("int") else "float32"
    )
    return Feature(shape=tuple(tensor.shape[1:]), dtype=known, role=role)


def examples(drawn: Drawn, count: int, seed: int = 0) -> tuple[Arrays, Arrays]:
    """Inputs that are drawn, as raw and as prepared ones, which are the same."""
    import numpy as np

    random = np.random.default_rng(seed)
    found: Arrays = {}
    for name, feature in drawn.named("input").items():
        shape = (count, *(length or 8 for length in feature.shape))
        if feature.dtype == "float32":
            found[name] = random.normal(size=shape).astype(np.float32)
        else:
            found[name] = random.integers(0, 2, shape).astype(feature.dtype)
    return found, found
