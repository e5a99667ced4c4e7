"""Models that begin with weights learned elsewhere, and layers that keep theirs: `Train.weights`, `frozen`, `unfrozen`.

A layer is called by its path: the names of the layers that it lies in, with slashes between: `vgg16/block5_conv1`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace.artifacts import Artifact, only
from headrace.engine import backbones, borrowing
from headrace.errors import ConfigError, DataError, nearest
from headrace.spec import Train

if TYPE_CHECKING:
    import keras


def layers(model: keras.Layer, within: str = "") -> Iterator[tuple[str, keras.Layer]]:
    """Every layer of a model, and those inside of them, with their paths."""
    for layer in model._flatten_layers(include_self=False, recursive=False):
        path = f"{within}{layer.name}"
        yield path, layer
        yield from layers(layer, f"{path}/")


def freeze(model: keras.Model, settings: Train) -> None:
    """Keep the layers of a built model as they are that the settings name.

    Batch normalisation that is frozen works with the means and variances it has learned, in training as well, and
    stays so where a pattern of `unfrozen` names it: what it would learn from a few examples destroys the rest.

    Raises:
        ConfigError: A pattern fits no layer.
    """
    import keras

    found = dict(layers(model))
    patterns = {"frozen": settings.frozen, "unfrozen": settings.unfrozen}
    mistakes = [
        f"train.{name}: no layer is called `{pattern}`: {nearest(pattern, found)}"
        for name, given in patterns.items()
        for pattern in given
        if not any(_fits(path, [pattern]) for path in found)
    ]
    if mistakes:
        raise ConfigError("\n".join(mistakes))
    for path, layer in found.items():
        normalises = isinstance(layer, keras.layers.BatchNormalization)
        if not _fits(path, settings.frozen) or (_fits(path, settings.unfrozen) and not normalises):
            continue
        if any(True for _ in layers(layer)):
            # `trainable` of a layer is that of all within it, some of which may be left free.
            for variable in layer._trainable_variables:
                variable.trainable = False
        else:
            layer.trainable = False


def _fits(path: str, patterns: Sequence[str]) -> bool:
    """Whether a pattern fits the path, or that of a layer around it."""
    steps = path.split("/")
    around = ["/".join(steps[: depth + 1]) for depth in range(len(steps))]
    return any(fnmatchcase(whole, pattern) for whole in around for pattern in patterns)


def load(model: keras.Model, settings: Train, start: Artifact | None = None) -> dict[str, dict[str, str]]:
    """Give layers of a built model the weights that the settings name.

    Args:
        model: The model, as it was drawn.
        settings: Where weights come from.
        start: What `train` has made of the variant to begin with.

    Returns:
        What was loaded, as `borrowing.origins` tells it, and the digest of `start`.

    Raises:
        ConfigError: No layer has such a path, or a source can't be had.
        DataError: The weights are those of other layers, or damaged.
    """
    found: dict[str, Any] = {"": model, **dict(layers(model))}
    lost = [path for path in settings.weights if path not in found]
    if lost:
        raise ConfigError("\n".join(f"train.weights: no layer is called `{p}`: {nearest(p, found)}" for p in lost))
    loaded = borrowing.origins(settings)
    for path, source in settings.weights.items():
        kind, _, rest = source.partition(":")
        if kind == "imagenet":
            top = any(name == "predictions" for name, _ in layers(found[path]))
            backbones.load(found[path], borrowing.imagenet(path.rpartition("/")[2], top=top))
        elif kind == "file":
            if rest.endswith(".keras"):
                _copy(_model(borrowing.file(rest)), found[path], path, source)
            else:
                backbones.load(found[path], borrowing.file(rest))
        elif kind == "registry":
            _copy(_model(borrowing.published(loaded[path]["from"])), found[path], path, source)
        elif kind == "variant" and start:
            loaded[path] = {"from": source, "digest": f"content {start.digest}"}
            _copy(_model(only(start, "model.keras")), found[path], path, source)
    return loaded


def _model(path: Path) -> keras.Model:
    import keras

    try:
        return keras.saving.load_model(path, compile=False)
    except (TypeError, ValueError, OSError) as error:
        raise DataError(
            f"Keras can't load the model {path}.", received=str(error).strip().partition("\n")[0]
        ) from error


def _copy(whole: keras.Model, target: keras.Layer, path: str, source: str) -> None:
    """Copy the weights of the layer at the same path, or else of the only one of the same name."""
    if path:
        known: Mapping[str, keras.Layer] = dict(layers(whole))
        named = [layer for layer in known.values() if layer.name == target.name]
        if path not in known and len(named) != 1:
            raise ConfigError(f"train.weights: the model of {source} has no layer `{path}`: {nearest(path, known)}")
        whole = known.get(path) or named[0]
    theirs, ours = ([tuple(weight.shape) for weight in layer.weights] for layer in (whole, target))
    if theirs != ours:
        first = next(
            (k for k, (a, b) in enumerate(zip(theirs, ours, strict=False)) if a != b), min(len(theirs), len(ours))
        )
        raise DataError(
            f"The weights of {source} don't fit {f'the layer `{path}`' if path else 'the model'}.",
            expected=f"{len(ours)} arrays, the {first + 1}th of shape {ours[first] if first < len(ours) else 'none'}",
            received=f"{len(theirs)} arrays, that one {theirs[first] if first < len(theirs) else 'missing'}",
        )
    target.set_weights(whole.get_weights())
