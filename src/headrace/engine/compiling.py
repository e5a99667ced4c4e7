"""From the names in a spec to the losses, metrics, optimizers and schedules of Keras, or of the workload itself."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from headrace.errors import ConfigError, nearest
from headrace.spec import Named, Train

if TYPE_CHECKING:
    import keras

AS_KERAS_READS = ("accuracy", "acc", "crossentropy", "ce")
"""Metrics whose meaning Keras takes from the shape of the model's output."""


def compile_model(
    model: keras.Model,
    settings: Train,
    custom: Mapping[str, Any],
    own: Callable[..., None] | None = None,
    *,
    weighted: bool = True,
) -> None:
    """Compile a model by what the settings say.

    Args:
        model: A Keras model; in the scope of its strategy.
        settings: Optimizer, schedule, losses and metrics by their names.
        custom: What the workload calls by names of its own.
        own: The workload's own way to compile, in place of all that.
        weighted: Let metrics weigh the examples. Our own step gives them the weight of a row that fills up a batch,
            which is zero; a model with a step of its own gives them the weights of the examples.

    Raises:
        ConfigError: Names or arguments are wrong; the message tells all of them.
    """
    if own:
        own(model, settings)
        return
    mistakes: list[str] = []
    found = _Resolver(custom, mistakes)
    optimizer = found.optimizer(settings)
    loss = found.losses(settings.loss)
    metrics = found.metrics(settings.metrics)
    if settings.loss_weights and isinstance(loss, dict):
        unknown = [output for output in settings.loss_weights if output not in loss]
        mistakes += [f"train.loss_weights: `{output}` has no loss: {nearest(output, loss)}" for output in unknown]
    if mistakes:
        raise ConfigError(
            "The training settings can't be carried out:\n" + "\n".join(f"  - {line}" for line in mistakes),
            remedy="see train.* in `headrace show`, and `custom` in the workload's file for losses of your own",
        )
    model.compile(
        optimizer=optimizer,
        loss=loss,
        # Keras wants a weight for each output, or none at all.
        loss_weights={**dict.fromkeys(loss, 1.0), **settings.loss_weights} if isinstance(loss, dict) else None,
        **{"weighted_metrics" if weighted else "metrics": metrics},
    )


@contextmanager
def precision(policy: str) -> Iterator[None]:
    """Build models of this dtype policy."""
    import keras

    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


SHORT = {
    "mse": "mean_squared_error",
    "mae": "mean_absolute_error",
    "mape": "mean_absolute_percentage_error",
    "msle": "mean_squared_logarithmic_error",
    "rmse": "root_mean_squared_error",
    "bce": "binary_crossentropy",
    "kld": "kl_divergence",
}
"""Short names that are taken beside those of Keras' functions and classes."""


class _Resolver:
    """Finds what names mean, and keeps a list of those that mean nothing."""

    def __init__(self, custom: Mapping[str, Any], mistakes: list[str]) -> None:
        self._custom = custom
        self._mistakes = mistakes

    def optimizer(self, settings: Train) -> Any:
        """The optimizer, with its learning rate or schedule."""
        import keras

        name, arguments = _parts(settings.optimizer)
        if settings.learning_rate is not None or settings.schedule:
            if "learning_rate" in arguments:
                self._mistakes.append("train.optimizer: the learning rate is given twice")
            arguments["learning_rate"] = self._schedule(settings) if settings.schedule else settings.learning_rate
        base = keras.optimizers.Optimizer
        known = {key.replace("_", ""): item for key, item in _classes(keras.optimizers, base).items()}
        return self._made("train.optimizer", name.lower().replace("_", ""), name, arguments, known, base)

    def _schedule(self, settings: Train) -> Any:
        import keras

        schedules = keras.optimizers.schedules
        known = _classes(schedules, schedules.LearningRateSchedule)
        name, arguments = _parts(settings.schedule or "")
        found = {**known, **self._custom}.get(_key(name))
        begins = "initial_learning_rate"
        if settings.learning_rate is not None and inspect.isclass(found) and begins in _parameters(found):
            arguments.setdefault(begins, settings.learning_rate)
        return self._made("train.schedule", _key(name), name, arguments, known)

    def losses(self, given: Named | None) -> Any:
        """The loss, or one for each output."""
        if isinstance(given, dict) and "name" not in given:
            return {output: self._loss(f"train.loss.{output}", named) for output, named in given.items()}
        return None if given is None else self._loss("train.loss", given)

    def _loss(self, path: str, given: Named) -> Any:
        import keras

        name, arguments = _parts(given)
        functions = _functions(keras.losses)
        key = _key(SHORT.get(name, name))
        if key in functions and not arguments and name not in self._custom:
            return key
        return self._made(path, key, name, arguments, {**functions, **_classes(keras.losses, keras.losses.Loss)})

    def metrics(self, given: Any) -> Any:
        """The metrics, or those of each output."""
        if isinstance(given, Mapping):
            return {
                output: [self._metric(f"train.metrics.{output}", named) for named in some]
                for output, some in given.items()
            }
        return [self._metric("train.metrics", named) for named in given]

    def _metric(self, path: str, given: Named) -> Any:
        import keras

        name, arguments = _parts(given)
        functions, classes = _functions(keras.metrics), _classes(keras.metrics, keras.metrics.Metric)
        key = _key(SHORT.get(name, name))
        if name not in self._custom and not arguments and (name in AS_KERAS_READS or key in functions):
            # A short name is also the one under which Keras reports it.
            return name if name in SHORT or name in AS_KERAS_READS else key
        if inspect.isclass(self._custom.get(name, classes.get(key))):
            # Keras would number the second one of a process: `auc_1`.
            arguments.setdefault("name", name if name in SHORT else key)
        return self._made(path, key, name, arguments, {**functions, **classes})

    def _made(
        self, path: str, key: str, name: str, arguments: dict[str, Any], known: Mapping[str, Any], base: Any = None
    ) -> Any:
        """An object of the class that the name means; None and a mistake if that can't be."""
        found = self._custom.get(name, known.get(key))
        if found is None:
            names = [*known, *self._custom, *(short for short, long in SHORT.items() if long in known)]
            self._mistakes.append(f"{path}: there is no `{name}`: {nearest(name, names)}")
            return None
        if not inspect.isclass(found):
            if arguments:
                self._mistakes.append(f"{path}: `{name}` is a function, it takes no arguments")
            return found
        takes = {**_parameters(found), **(_parameters(base) if base else {})}
        wrong = [argument for argument in arguments if argument not in takes]
        self._mistakes += [f"{path}: `{name}` takes no `{word}`: {nearest(word, takes)}" for word in wrong]
        if wrong:
            return None
        try:
            return found(**arguments)
        except Exception as error:
            self._mistakes.append(f"{path}: `{name}` can't be made: {str(error).splitlines()[0]}")
            return None


def _parts(given: Named) -> tuple[str, dict[str, Any]]:
    """The name and the arguments."""
    if isinstance(given, str):
        return given, {}
    arguments = dict(given)
    return str(arguments.pop("name")), arguments


def _key(name: str) -> str:
    """`F1Score` and `f1_score` are one name."""
    words = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", words).lower().replace("io_u", "iou")


def _classes(module: Any, base: type) -> dict[str, Any]:
    """The classes of a Keras module by their names in lower case."""
    return {
        _key(name): item
        for name, item in vars(module).items()
        if inspect.isclass(item) and issubclass(item, base) and item is not base
    }


def _functions(module: Any) -> dict[str, Any]:
    """The losses that Keras keeps as functions."""
    return {
        name: item
        for name, item in vars(module).items()
        if inspect.isfunction(item) and name not in ("get", "serialize", "deserialize")
    }


def _parameters(item: Any) -> dict[str, Any]:
    """The arguments that a class takes, those of its parents included where it passes them on."""
    found: dict[str, Any] = {}
    for owner in inspect.getmro(item):
        if "__init__" in vars(owner):
            parameters = inspect.signature(vars(owner)["__init__"]).parameters
            named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
            found |= {name: parameter for name, parameter in parameters.items() if parameter.kind in named}
            if all(parameter.kind is not inspect.Parameter.VAR_KEYWORD for parameter in parameters.values()):
                break
    found.pop("self", None)
    return found
