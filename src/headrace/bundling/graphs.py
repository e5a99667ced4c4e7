"""The graphs that serve a model: from raw inputs as a whole, or its numeric core from what preprocessing gives."""

from __future__ import annotations

import functools
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from headrace.bundling.examples import received, served
from headrace.bundling.signatures import Signature, beside, traced
from headrace.errors import StageFailed
from headrace.spec import Feature

if TYPE_CHECKING:
    import keras

    from headrace.records.inputs import Batch, Info

Inputs = Literal["raw", "prepared"]
"""`raw`: features as the source gives them. `prepared`: inputs as records hold them, after `preprocess`."""

_BEYOND = (
    *("String", "StaticRegex", "Regex", "Unicode", "AsString", "Substr", "ReduceJoin", "Base64"),
    *("LookupTable", "HashTable", "MutableHashTable", "AnonymousHashTable", "Decode", "ParseExample"),
    *("Random", "StatelessRandom", "StatelessTruncated", "StatelessParameterized", "Multinomial"),
)
"""How the names of operations begin that only TensorFlow has: those of text, tables, files and chance."""


@dataclass(frozen=True)
class Graph:
    """A function that is ready to be saved, with all that it reads."""

    module: Any
    """A `tf.Module`; its `serve` is the function."""
    features: Mapping[str, Feature]
    """Its inputs, by name."""
    others: Mapping[str, Any] = field(default_factory=dict)
    """What else is asked by a name of its own: signature → function, which the module holds, too."""

    @property
    def signatures(self) -> dict[str, Any]:
        """Name → function, of everything that a SavedModel of it can be asked."""
        return {beside(self.others): self.module.serve, **self.others}

    @property
    def operations(self) -> frozenset[str]:
        """The names of all operations in it."""
        graph = self.module.serve.graph.as_graph_def()
        nodes = [graph.node, *(function.node_def for function in graph.library.function)]
        return frozenset(node.op for some in nodes for node in some)

    def beyond(self, lite: bool) -> list[str]:
        """What other runtimes than TensorFlow's lack: inputs of strings, and operations.

        Args:
            lite: Whether it is TFLite's runtime, which knows no ragged tensors either.
        """
        strings = [f"the input `{name}` of strings" for name, f in self.features.items() if f.dtype == "string"]
        lacking = (*_BEYOND, "Ragged") if lite else _BEYOND
        return strings + sorted(name for name in self.operations if name.startswith(lacking))

    @property
    def loops(self) -> bool:
        """Whether steps are gone through one by one: TFLite needs to know the number of examples then."""
        return "TensorListReserve" in self.operations


def graph(
    prepare: Callable[[Batch], Batch] | None,
    given: Mapping[str, Feature],
    model: keras.Model,
    info: Info,
    *,
    batch: int | None = None,
    unrolled: bool = False,
) -> Graph:
    """The graph that answers by target name.

    Args:
        prepare: The workload's preprocessing, which the inputs go through; none for those that have been through it.
        given: The features that are the inputs.
        model: The model.
        info: What records are.
        batch: How many examples a batch has; default: any number.
        unrolled: Whether recurrent layers are written out step by step.
    """
    import tensorflow as tf

    from headrace.models import answer

    names, targets = list(info.named("input")), list(info.named("target"))

    def serve(inputs: dict[str, Any]) -> dict[str, Any]:
        # Without preprocessing the inputs are padded as they come, which is what the model was trained on.
        ready = prepare(received(inputs, given)) if prepare else inputs
        return answer(model, {name: _dense(ready[name]) for name in names}, targets)

    features = served(given) if prepare else dict(given)
    signature = {
        name: tf.TensorSpec((batch, *feature.shape), tf.as_dtype(feature.dtype), name=name)
        for name, feature in features.items()
    }
    # Not by `keras.export.ExportArchive`: it stores every weight twice, the second time in an order of chance.
    module = tf.Module()
    with _unrolled(model, unrolled):
        module.serve = tf.function(serve, input_signature=[signature], autograph=False).get_concrete_function()
    module.weights = [variable.value for variable in model.variables]
    _hold(module, [module.serve], [prepare, model])
    return Graph(module, features)


def _hold(module: Any, functions: Sequence[Any], roots: Sequence[Any]) -> None:
    """Let a module hold what functions read besides its weights: what nothing leads to can't be saved."""
    known = {id(weight) for weight in module.weights}
    others: list[Any] = []
    for function in functions:
        # It comes as a set, and names may repeat: the order is that of its use in the graph.
        order = {id(outside): place for place, (outside, _) in enumerate(function.graph.captures)}
        new = [variable for variable in function.graph.variables if id(variable) not in known]
        others += sorted(new, key=lambda variable: (order.get(id(variable.handle), len(order)), variable.name))
        known |= {id(variable) for variable in new}
    module.others = others
    held = list(getattr(module, "resources", ()))
    module.resources = held + [one for one in resources(roots) if not any(one is other for other in held)]


def with_signatures(made: Graph, given: Mapping[str, Signature], models: Mapping[str, Any]) -> Graph:
    """A graph together with what a workload serves besides, or in its place.

    Args:
        made: The graph of the model's own answer.
        given: The signatures by name.
        models: The models by name.
    """
    functions = {name: traced(name, signature) for name, signature in given.items()}
    made.module.functions = dict(functions)
    # Several models may share a layer.
    made.module.weights = list({id(v.value): v.value for model in models.values() for v in model.variables}.values())
    calls = [signature.call for signature in given.values()]
    _hold(made.module, [made.module.serve, *functions.values()], [*models.values(), *calls])
    return replace(made, others=functions)


def _dense(values: Any) -> Any:
    import tensorflow as tf

    return values.to_tensor() if isinstance(values, tf.RaggedTensor) else values


@contextmanager
def _unrolled(model: keras.Model, wanted: bool) -> Iterator[None]:
    """Let recurrent layers write out their steps while the model is traced."""
    import keras

    layers = [layer for layer in model._flatten_layers() if isinstance(layer, keras.layers.RNN)] if wanted else []
    before = [layer.unroll for layer in layers]
    for layer in layers:
        layer.unroll = True
    try:
        yield
    finally:
        for layer, was in zip(layers, before, strict=True):
            layer.unroll = was


def save(made: Graph, path: Path, assets: Sequence[Path] = ()) -> None:
    """Write a SavedModel with the signature `serving_default`, and others where there are some.

    Args:
        made: The graph.
        path: Where.
        assets: Files that are copied into its folder `assets`.

    Raises:
        StageFailed: It reads something that `preprocess` keeps where it can't be found.
    """
    import tensorflow as tf

    made.module.files = [tf.saved_model.Asset(str(file)) for file in assets]
    try:
        tf.saved_model.save(made.module, str(path), signatures=made.signatures)
    except AssertionError as error:
        # What TensorFlow says of a table or a variable that no attribute leads to.
        if "untracked" not in str(error):
            raise
        raise StageFailed(
            "The preprocessing reads a table or a variable that can't be saved with it.",
            received=str(error).partition("\n")[0][:200],
            remedy="let the function that `preprocess` returns refer to it (or to its layer) by a variable",
        ) from error


# --------------------------------------------------------------------------- what a function refers to


def reached(roots: Sequence[Any]) -> Iterator[Any]:
    """Everything that functions refer to, in an order that follows from their code: themselves, then what they hold.

    Goes through closures, defaults, what is named of their own module, methods, partial functions, containers, and
    the attributes of objects, those of Keras layers excepted: a layer gives its inner layers.
    """
    import keras
    import tensorflow as tf

    seen: set[int] = set()
    waiting = list(reversed(roots))
    kept = []
    while waiting:
        value = waiting.pop()
        if value is None or id(value) in seen or isinstance(value, _PLAIN):
            continue
        seen.add(id(value))
        # A value that lived no longer would leave its number to another.
        kept.append(value)
        yield value
        inner: list[Any] = []
        if isinstance(value, types.FunctionType):
            inner = _of_function(value)
        elif isinstance(value, types.MethodType):
            inner = [value.__func__, value.__self__]
        elif isinstance(value, functools.partial):
            inner = [value.func, *value.args, *value.keywords.values()]
        elif isinstance(value, keras.layers.Layer):
            layers = list(value._flatten_layers(include_self=False, recursive=True))
            inner = [*layers, *(held for held in vars(value).values() if isinstance(held, _resource()))]
        elif isinstance(value, Mapping):
            inner = list(value.values())
        elif isinstance(value, list | tuple | set | frozenset):
            inner = list(value)
        elif isinstance(value, tf.Module) or type(value).__module__.partition(".")[0] not in ("tensorflow", "numpy"):
            inner = [getattr(value, "python_function", None), *getattr(value, "__dict__", {}).values()]
        else:
            inner = [getattr(value, "python_function", None)]
        waiting += reversed(inner)


_PLAIN = (str, bytes, int, float, complex, type, types.ModuleType)


def _of_function(function: types.FunctionType) -> list[Any]:
    held = []
    for cell in function.__closure__ or ():
        try:
            held.append(cell.cell_contents)
        except ValueError:  # not filled yet
            continue
    code = function.__code__
    own = [function.__globals__.get(name) for name in code.co_names]
    # Of functions those of the same file only: the rest is libraries.
    own = [v for v in own if not isinstance(v, types.FunctionType) or v.__module__ == function.__module__]
    return [*held, *(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values(), *own]


def _resource() -> Any:
    import tensorflow as tf

    return (tf.saved_model.experimental.TrackableResource, tf.Variable)


def resources(roots: Sequence[Any]) -> Iterator[Any]:
    """The tables and the like that functions refer to, without variables, which a graph knows itself."""
    import tensorflow as tf

    for value in reached(roots):
        if isinstance(value, tf.saved_model.experimental.TrackableResource):
            yield value
