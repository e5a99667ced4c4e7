"""A trained model, loaded and asked by the names of features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from headrace import projects
from headrace.artifacts import Artifact, only, read_json
from headrace.errors import StageFailed

if TYPE_CHECKING:
    import keras


def load(model: Artifact, name: str = "model") -> keras.Model:
    """The model that `train` has saved, or another one that `keep` has put beside it; not compiled.

    Raises:
        StageFailed: Keras can't build it again from its file.
    """
    import keras

    path = only(model, f"{name}.keras")
    facts = read_json(model.path / "training.json") or {}
    own = projects.load(facts["workload"]).objects if facts.get("custom") else {}
    try:
        return keras.saving.load_model(path, compile=False, custom_objects=dict(own))
    except (TypeError, ValueError) as error:
        raise StageFailed(
            f"Keras can't load the trained model {path}.",
            received=str(error).partition("\n")[0],
            remedy="name your own layers and functions in `custom` of the workload's file",
        ) from error


def answer(model: keras.Model, inputs: Mapping[str, Any], targets: Sequence[str]) -> dict[str, Any]:
    """What the model answers when it serves: nothing that acts in training only is active.

    Args:
        model: A model as a workload's `model` function gives it.
        inputs: Name of an input feature → tensor or array (examples, *shape), as records hold it.
        targets: Names of the targets, in the order of the model's outputs.

    Returns:
        Name of a target → tensor (examples, *shape).
    """
    # As in training: the tensor itself where there is only one.
    outputs = model(inputs if len(inputs) > 1 else next(iter(inputs.values())), training=False)
    if isinstance(outputs, Mapping):
        return {name: outputs[name] for name in targets}
    return dict(zip(targets, outputs if isinstance(outputs, list | tuple) else [outputs], strict=True))
