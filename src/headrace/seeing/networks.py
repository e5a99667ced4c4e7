"""A network whose layers can be listened to, however it is built: a list or a graph of layers, others inside of it."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from headrace.engine.transferring import layers as layers_of
from headrace.errors import ConfigError, nearest

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

Kind = Literal["convolution", "pooling", "other"]

SIDE = 224
"""Height and width of the images of a network that takes any."""


@dataclass(frozen=True)
class Seen:
    """A layer that is called when a network answers."""

    path: str
    """The names of the layers that it lies in, and its own, with slashes between."""
    shape: tuple[int, ...]
    """Of what it answers to one image: (height, width, channels) of a map."""
    kind: Kind

    @property
    def is_map(self) -> bool:
        """Whether its answers still have places in the image."""
        return len(self.shape) == 3 and self.shape[0] * self.shape[1] > 1


class Network:
    """A Keras model that takes one image, as it answers when it serves: nothing that acts in training is active.

    Images are tensors (batch, height, width, channels) of float32, also for a model that takes whole numbers: gradients
    reach them.

    Args:
        model: A model of layers: `Sequential` or functional, with others inside of it if need be.
        name: What it is called in messages.
        span: The least and the largest value of a pixel; default: 0 and 255 of whole numbers, 0 and 1 of others.

    Raises:
        ConfigError: It does not take one image, or has no convolution.
    """

    def __init__(self, model: keras.Model, name: str, span: tuple[float, float] | None = None) -> None:
        import tensorflow as tf

        self.name = name
        given = _image(model, name)
        whole = tf.as_dtype(given.dtype).is_integer
        self.span = span or ((0.0, 255.0) if whole else (0.0, 1.0))
        height, width, self.channels = given.shape[1:]
        self.any_size = height is None or width is None
        self.size = (int(height or SIDE), int(width or SIDE))
        self.model = _of_floats(model, given) if whole else model
        found = dict(layers_of(self.model))
        self._leaves = {path: layer for path, layer in found.items() if not any(True for _ in layers_of(layer))}
        answer, heard = self.heard(self.blank(), self._leaves)
        if not isinstance(answer, tf.Tensor):
            raise ConfigError(
                f"{name} gives several answers at once: only networks with one can be interpreted.",
                received=f"{len(answer)} outputs",
            )
        self.answers = tuple(int(length) for length in answer.shape[1:])
        """Shape of the answer to one image."""
        self.layers = {
            path: Seen(path, tuple(int(length) for length in values.shape[1:]), _kind(self._leaves[path]))
            for path, values in heard.items()
        }
        """Path of a layer → what is known of it, in the order in which they are called."""
        if not self.maps("convolution"):
            raise ConfigError(
                f"{name} has no convolution to be looked into.",
                expected="layers such as Conv2D, SeparableConv2D, DepthwiseConv2D or Conv2DTranspose",
                received=", ".join(self.layers) or "no layer",
            )

    def blank(self, count: int = 1) -> tf.Tensor:
        """Images of the least value."""
        import tensorflow as tf

        return tf.fill((count, *self.size, self.channels), self.span[0])

    def maps(self, *kinds: Kind) -> list[Seen]:
        """The layers of these kinds whose answers have places in the image; of all kinds if none is named."""
        return [seen for seen in self.layers.values() if seen.is_map and (not kinds or seen.kind in kinds)]

    def layer(self, path: str) -> keras.Layer:
        """The layer at a path.

        Raises:
            ConfigError: There is none.
        """
        return self._leaves[self.known(path).path]

    def known(self, path: str) -> Seen:
        """What is known of the layer at a path, or of the only one of this name.

        Raises:
            ConfigError: There is none, with the nearest paths.
        """
        named = [seen for seen in self.layers.values() if seen.path.rpartition("/")[2] == path]
        found = self.layers.get(path) or (named[0] if len(named) == 1 else None)
        if found is None:
            raise ConfigError(f"{self.name} has no layer `{path}`: {nearest(path, self.layers)}")
        return found

    def heard(self, images: tf.Tensor, paths: Iterable[str]) -> tuple[Any, dict[str, tf.Tensor]]:
        """What the network answers, and what some of its layers do on the way.

        Args:
            images: (batch, height, width, channels), float32.
            paths: Of layers. What they answer to a tape is part of the computation of the answer.

        Returns:
            The answers (batch, …), and path → (batch, …) in the order in which the layers are called; of a layer that
            is called more than once, its first answer.
        """
        with _listening({path: self._leaves[path] for path in paths}) as seen:
            answer = self.model(images, training=False)
        return answer, seen


def _image(model: keras.Model, name: str) -> Any:
    """The only input of a model, which must be an image."""
    inputs = getattr(model, "inputs", None)
    if not inputs:
        raise ConfigError(
            f"{name} can't be looked into: it is no list or graph of layers.",
            expected="a Sequential or functional model",
            received=type(model).__name__,
            remedy="let `keep` of its workload save it as a graph of layers",
        )
    shapes = {tensor.name: tuple(tensor.shape[1:]) for tensor in inputs}
    (shape, *others) = shapes.values()
    if others or len(shape) != 3 or shape[2] not in (1, 3, 4):
        raise ConfigError(
            f"{name} takes no image.",
            expected="one input of shape (height, width, channels), with 1, 3 or 4 channels",
            received=", ".join(f"{key} {value}" for key, value in shapes.items()),
        )
    return inputs[0]


def _of_floats(model: keras.Model, given: Any) -> keras.Model:
    """The same layers on an input of numbers with fractions: through whole numbers no gradient passes."""
    import keras

    again = keras.Input(given.shape[1:], dtype="float32", name=given.name)
    # As the model is called: with the image itself, in a list, or by its name.
    inputs = [again] if isinstance(model, keras.Sequential) else keras.tree.map_structure(lambda _: again, model.input)
    made: keras.Model = keras.models.clone_model(model, input_tensors=inputs, clone_function=lambda layer: layer)
    return made


def _kind(layer: keras.Layer) -> Kind:
    from keras import layers

    convolutions = (layers.Conv2D, layers.SeparableConv2D, layers.DepthwiseConv2D, layers.Conv2DTranspose)
    if isinstance(layer, convolutions):
        return "convolution"
    pools: tuple[type[keras.Layer], ...] = (layers.MaxPooling2D, layers.AveragePooling2D)
    return "pooling" if isinstance(layer, pools) else "other"


@contextmanager
def _listening(layers: Mapping[str, keras.Layer]) -> Iterator[dict[str, Any]]:
    """Keep the first answer of each of these layers while something is computed with them."""
    seen: dict[str, Any] = {}

    def listening(path: str, call: Any) -> Any:
        @functools.wraps(call)
        def heard(*args: Any, **kwargs: Any) -> Any:
            answer = call(*args, **kwargs)
            seen.setdefault(path, answer)
            return answer

        return heard

    try:
        for path, layer in layers.items():
            # Past Keras' own bookkeeping of attributes, which is for weights and layers.
            object.__setattr__(layer, "call", listening(path, layer.call))
        yield seen
    finally:
        for layer in layers.values():
            layer.__dict__.pop("call", None)


@contextmanager
def unbent(layer: keras.Layer) -> Iterator[None]:
    """Leave out what a layer applies at its end (softmax, relu) while something is computed with it.

    Where that is flat, such as relu below zero or a softmax that is sure, hardly any gradient passes.
    """
    import keras

    if isinstance(layer, keras.layers.Activation | keras.layers.Softmax | keras.layers.ReLU):
        object.__setattr__(layer, "call", lambda inputs, *args, **kwargs: inputs)
        try:
            yield
        finally:
            layer.__dict__.pop("call", None)
        return
    bent = layer.__dict__.get("activation")
    if bent is None:
        yield
        return
    object.__setattr__(layer, "activation", keras.activations.linear)
    try:
        yield
    finally:
        object.__setattr__(layer, "activation", bent)
