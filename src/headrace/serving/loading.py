"""A SavedModel in memory: its signatures, and answers to arrays."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace.bundling.assets import declared_inputs
from headrace.errors import DataError
from headrace.spec import Feature

if TYPE_CHECKING:
    import numpy as np

    Arrays = Mapping[str, np.ndarray[Any, Any]]

log = logging.getLogger(__name__)

DEFAULT = "serving_default"


@dataclass(frozen=True)
class Tensor:
    """What an input takes or an output gives."""

    dtype: str
    """As NumPy calls it, or `string`."""
    shape: tuple[int | None, ...] | None
    """Examples first; None in it is any length, None for all of it any shape."""

    @property
    def batched(self) -> bool:
        """Whether the first dimension is that of any number of examples."""
        return bool(self.shape) and self.shape is not None and self.shape[0] is None

    def __str__(self) -> str:
        shape = "any shape" if self.shape is None else str(list(self.shape[1:] if self.batched else self.shape))
        return f"{self.dtype} {shape.replace('None', 'any')}"


@dataclass(frozen=True)
class Signature:
    """Inputs and outputs by name."""

    inputs: Mapping[str, Tensor]
    outputs: Mapping[str, Tensor]

    @property
    def batched(self) -> bool:
        """Whether any number of examples can be asked together, each of which is answered by itself."""
        return all(tensor.batched for tensor in (*self.inputs.values(), *self.outputs.values()))

    @property
    def steady(self) -> bool:
        """Whether an example takes as long as any other: it is of one size, and no text."""
        sizes = [size for one in self.inputs.values() for size in (one.shape or (None, None))[1:]]
        return self.batched and None not in sizes and all(one.dtype != "string" for one in self.inputs.values())

    def __str__(self) -> str:
        return ", ".join(f"{name} ({tensor})" for name, tensor in self.inputs.items())


class Loaded:
    """A SavedModel, ready to be asked; safe to be called from one thread at a time.

    Args:
        path: Its folder.

    Raises:
        DataError: It can't be loaded.
    """

    def __init__(self, path: Path) -> None:
        import tensorflow as tf

        self.path = path
        try:
            # The signatures do not keep alive what they belong to.
            self._model = tf.saved_model.load(str(path))
        except Exception as error:
            raise DataError(f"The SavedModel in {path} can't be loaded.", received=first_line(error)) from error
        self._calls = {name: call for name, call in self._model.signatures.items() if not name.startswith("__")}
        self.signatures = {name: _signature(call) for name, call in self._calls.items()}
        if not self.signatures:
            raise DataError(f"The SavedModel in {path} has no signature.", expected=f"`{DEFAULT}`")

    @property
    def default(self) -> Signature:
        """What is asked where nothing else is said: `serving_default`, or the only one there is."""
        return self.signatures[self.default_name]

    @property
    def default_name(self) -> str:
        """Its name."""
        return DEFAULT if DEFAULT in self.signatures else next(iter(self.signatures))

    def ask(self, inputs: Arrays, signature: str | None = None) -> dict[str, np.ndarray[Any, Any]]:
        """Answers by output name.

        Args:
            inputs: An array for each input of the signature, of its type (objects of `bytes` for strings).
            signature: Its name; default: the usual one.
        """
        import tensorflow as tf

        name = signature or self.default_name
        specs = self.signatures[name].inputs
        given = {key: tf.constant(values, specs[key].dtype) for key, values in inputs.items()}
        return {key: tensor.numpy() for key, tensor in self._calls[name](**given).items()}

    def warm_up(self) -> None:
        """Ask once, with zeros or empty strings: the first call of a graph is slow, and should be nobody's."""
        import numpy as np

        for name, signature in self.signatures.items():
            zeros = {
                key: np.full(
                    [length or 1 for length in tensor.shape or ()],
                    *((b"", object) if tensor.dtype == "string" else (0, tensor.dtype)),
                )
                for key, tensor in signature.inputs.items()
            }
            try:
                self.ask(zeros, name)
            except Exception:  # zeros may be no example: the first request will be slow, and that is all
                log.debug("%s: signature `%s` can't be warmed up with zeros", self.path, name)

    @cached_property
    def definitions(self) -> dict[str, Any]:
        """The signatures as the file holds them, in protobuf's JSON: the metadata that TensorFlow Serving tells."""
        from google.protobuf.json_format import MessageToDict
        from tensorflow.core.protobuf import saved_model_pb2

        saved = saved_model_pb2.SavedModel.FromString((self.path / "saved_model.pb").read_bytes())
        found = next(graph for graph in saved.meta_graphs if "serve" in graph.meta_info_def.tags)
        return {
            name: MessageToDict(entry, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
            for name, entry in sorted(found.signature_def.items())
            if not name.startswith("__")
        }

    def features(self, declared: Mapping[str, Feature]) -> dict[str, Feature]:
        """The inputs as they are declared, where that fits the signature; else as the signature has them."""
        inputs = self.default.inputs
        # What is served may take other inputs than the model was trained on, and says so itself.
        own = declared_inputs(self.path, self.default_name)
        own = own or {name: feature for name, feature in declared.items() if feature.role == "input"}
        if set(own) == set(inputs) and all(_fits(own[name], tensor) for name, tensor in inputs.items()):
            return {name: own[name] for name in inputs}
        return {name: _feature(tensor) for name, tensor in inputs.items()}


def _signature(call: Any) -> Signature:
    given = call.structured_input_signature[1]
    return Signature(
        {name: _tensor(given[name]) for name in sorted(given)},
        {name: _tensor(spec) for name, spec in sorted(call.structured_outputs.items())},
    )


def _tensor(spec: Any) -> Tensor:
    shape = None if spec.shape.rank is None else tuple(spec.shape.as_list())
    return Tensor(spec.dtype.name, shape)


def _fits(feature: Feature, tensor: Tensor) -> bool:
    return feature.dtype == tensor.dtype and tensor.shape is not None and tensor.shape[1:] == feature.shape


def _feature(tensor: Tensor) -> Feature:
    """An input of which nothing is declared; of types that no feature has, the nearest one."""
    shape = tuple((tensor.shape or (None,))[1:])
    if None in shape[1:]:
        shape = (None, *(length or 1 for length in shape[1:]))
    kinds: dict[str, Any] = {"string": "string", "uint8": "uint8", "bool": "int64"}
    whole = tensor.dtype.startswith(("int", "uint"))
    return Feature(shape=shape, dtype=kinds.get(tensor.dtype, "int64" if whole else "float32"))


def size(tensor: Tensor) -> int:
    """Values of one example, as far as that is known."""
    return math.prod(length or 1 for length in (tensor.shape or ())[1:])


def first_line(error: BaseException) -> str:
    """What an error says, without the rest of the story: TensorFlow adds the graph's."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    about = ("Graph execution error", "Detected at node", "<stack traces", "[[")
    told = next((line for line in lines if not line.startswith(about)), "")
    return f"{type(error).__name__}: {told}"[:300]
