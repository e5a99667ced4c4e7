"""Layers that Keras lacks: transformers that can write step by step, and what turns tokens into bags and sequences.

Transformers (Vaswani et al., 2017) are as Chollet builds them in chapters 11 and 12:

    x = PositionalEmbedding(length=600, vocabulary=20_000, width=256)(tokens)
    x = TransformerEncoder(width=256, inner=32, heads=2)(x)

Shapes are written (batch, steps, width). Masks are True where something is: those of Keras arrive by themselves, as
they do at an LSTM, and a sequence that is masked as a whole gives finite numbers.

A workload whose models have such layers says so, so that they can be loaded again: `custom=layers_of_transformers`, a
function that returns `headrace.layers.LAYERS`.

**Writing step by step.** What a decoder answers at a step depends on earlier steps only, so that their keys and values
can be kept:

    held = decoder.cache(batch, length)                  # of each decoder
    known = decoder.remember(encoded)                    # of each decoder that has a source
    x = embedding(tokens[:, at : at + 1], first=at)      # (batch, 1, width)
    x, held = decoder.step(x, at, held, known, mask)     # the answer of the whole run at step `at`

`held` and `known` are single tensors, the batch first: a beam search picks rows with `tf.gather`. Several steps may be
given at once, such as those of a prompt.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import keras
from keras import ops

if TYPE_CHECKING:
    import tensorflow as tf

Shape = tuple[int | None, ...]
Memory = Literal["source", "itself", "none"]
"""What the second attention of a decoder looks at: another sequence (translation); the decoder's own inputs, those that
come later left out (Chollet's text generation, which gives a decoder made for translation its own inputs as the
source); or there is no second attention, as in GPT."""


@keras.saving.register_keras_serializable(package="headrace")
class PositionalEmbedding(keras.layers.Layer):
    """Tokens as vectors, to which a vector of their position is added; both are learned (Chollet 11.4.4).

    Args:
        length: Positions that are told apart: the longest sequence.
        vocabulary: Tokens that are told apart.
        width: Of the vectors.
        mask_zero: Token 0 only fills up: layers that know masks leave it out.

    (length + vocabulary) * width parameters.
    """

    def __init__(self, length: int, vocabulary: int, width: int, *, mask_zero: bool = True, **given: Any) -> None:
        super().__init__(**given)
        self.length, self.vocabulary, self.width, self.mask_zero = length, vocabulary, width, mask_zero
        self.tokens = keras.layers.Embedding(vocabulary, width, dtype=self.dtype_policy, name="tokens")
        self.positions = keras.layers.Embedding(length, width, dtype=self.dtype_policy, name="positions")
        self.supports_masking = True

    def build(self, inputs_shape: Shape) -> None:
        """Create the weights."""
        self.tokens.build(inputs_shape)
        self.positions.build((self.length,))

    def call(self, inputs: tf.Tensor, first: int | tf.Tensor = 0) -> tf.Tensor:
        """Tokens (batch, steps), the first of which stands at position `first`, → (batch, steps, width)."""
        return self.tokens(inputs) + self.positions(first + ops.arange(ops.shape(inputs)[1]))

    def compute_mask(self, inputs: tf.Tensor, previous: Any = None) -> tf.Tensor | None:
        """Where a token is (batch, steps)."""
        return ops.not_equal(inputs, 0) if self.mask_zero else None

    def compute_output_shape(self, inputs_shape: Shape) -> Shape:
        """(batch, steps) → (batch, steps, width)."""
        return (*inputs_shape, self.width)

    def get_config(self) -> dict[str, Any]:
        """What it takes to build it again."""
        own = {name: getattr(self, name) for name in ("length", "vocabulary", "width", "mask_zero")}
        return {**super().get_config(), **own}


@keras.saving.register_keras_serializable(package="headrace")
class Attention(keras.layers.Layer):
    """Several heads of attention, like `keras.layers.MultiHeadAttention`; but keys and values can be kept.

    Args:
        heads: How many.
        size: Width of the queries, keys and values of each head.

    4 * width * heads * size + 3 * heads * size + width parameters.
    """

    def __init__(self, heads: int, size: int, **given: Any) -> None:
        super().__init__(**given)
        self.heads, self.size = heads, size
        self.query, self.key, self.value = (
            self._projection("btw,whs->bths", (None, heads, size), "hs", name) for name in ("query", "key", "value")
        )
        self.answer: keras.layers.EinsumDense = None
        self.supports_masking = True

    def _projection(self, equation: str, shape: Shape, bias: str, name: str) -> keras.layers.EinsumDense:
        """Weights as Keras draws them for its own attention."""
        layer = keras.layers.EinsumDense(
            equation, output_shape=shape, bias_axes=bias, dtype=self.dtype_policy, name=name
        )
        # Each step is treated by itself.
        layer.supports_masking = True
        return layer

    def build(self, inputs_shape: Shape, memory_shape: Shape | None = None) -> None:
        """Create the weights for inputs of this shape (batch, steps, width), and a memory of that one."""
        self.query.build(inputs_shape)
        self.key.build(memory_shape or inputs_shape)
        self.value.build(memory_shape or inputs_shape)
        self.answer = self._projection("bths,hsw->btw", (None, inputs_shape[-1]), "w", "answer")
        self.answer.build((*inputs_shape[:2], self.heads, self.size))

    def call(self, inputs: tf.Tensor, memory: tf.Tensor, allowed: tf.Tensor | None = None) -> tf.Tensor:
        """Look from each step of the inputs at a memory.

        Args:
            inputs: (batch, steps, width).
            memory: (batch, steps of the memory, width of the memory).
            allowed: Where to look, (batch or 1, 1, steps or 1, steps of the memory), booleans; default: everywhere.

        Returns:
            (batch, steps, width).
        """
        return self._look(inputs, self.key(memory), self.value(memory), allowed)

    def remember(self, memory: tf.Tensor) -> tf.Tensor:
        """The keys and values of a memory (batch, steps, width): (batch, 2, steps, heads, size)."""
        return ops.stack([self.key(memory), self.value(memory)], axis=1)

    def look(self, inputs: tf.Tensor, known: tf.Tensor, allowed: tf.Tensor | None = None) -> tf.Tensor:
        """As `call`, with the keys and values that `remember` gave."""
        return self._look(inputs, known[:, 0], known[:, 1], allowed)

    def _look(self, inputs: tf.Tensor, keys: tf.Tensor, values: tf.Tensor, allowed: tf.Tensor | None) -> tf.Tensor:
        return self.answer(ops.dot_product_attention(self.query(inputs), keys, values, mask=allowed))

    def get_config(self) -> dict[str, Any]:
        """What it takes to build it again."""
        return {**super().get_config(), "heads": self.heads, "size": self.size}


class _Block(keras.layers.Layer):
    """What encoder and decoder have in common.

    Args:
        width: Of the vectors that go in and come out.
        inner: Units of the dense layer between them.
        heads: Of each attention.
        size: Width of each head; default: `width`, as in the book (Vaswani et al. take `width` / `heads`).
    """

    def __init__(self, width: int, inner: int, heads: int, *, size: int | None = None, **given: Any) -> None:
        super().__init__(**given)
        self.width, self.inner, self.heads, self.size = width, inner, heads, size or width
        self.hidden = keras.layers.Dense(inner, activation="relu", dtype=self.dtype_policy, name="hidden")
        self.dense = keras.layers.Dense(width, dtype=self.dtype_policy, name="dense")
        self.supports_masking = True

    def _norms(self, count: int) -> list[keras.layers.LayerNormalization]:
        return [keras.layers.LayerNormalization(dtype=self.dtype_policy, name=f"norm_{k}") for k in range(count)]

    def _build(self, attentions: list[Attention], norms: list[Any], memory: Shape | None) -> None:
        shape = (None, None, self.width)
        for attention, other in zip(attentions, (None, memory), strict=False):
            attention.build(shape, other)
        for norm in norms:
            norm.build(shape)
        self.hidden.build(shape)
        self.dense.build((None, None, self.inner))

    def compute_mask(self, inputs: tf.Tensor, previous: tf.Tensor | None = None) -> tf.Tensor | None:
        """That of the inputs."""
        return previous

    def get_config(self) -> dict[str, Any]:
        """What it takes to build it again."""
        own = {name: getattr(self, name) for name in ("width", "inner", "heads", "size")}
        return {**super().get_config(), **own}


@keras.saving.register_keras_serializable(package="headrace")
class TransformerEncoder(_Block):
    """Attention to all steps and a dense layer, each added to what went in and normalised (Chollet 11.4.3)."""

    def __init__(self, width: int, inner: int, heads: int, *, size: int | None = None, **given: Any) -> None:
        super().__init__(width, inner, heads, size=size, **given)
        self.attention = Attention(heads, self.size, dtype=self.dtype_policy, name="attention")
        self.norms = self._norms(2)

    def build(self, inputs_shape: Shape) -> None:
        """Create the weights."""
        self._build([self.attention], self.norms, None)

    def compute_output_shape(self, inputs_shape: Shape) -> Shape:
        """That of the inputs."""
        return inputs_shape

    def call(self, inputs: tf.Tensor, mask: tf.Tensor | None = None) -> tf.Tensor:
        """(batch, steps, width), with a mask (batch, steps) → the same shape."""
        allowed = None if mask is None else mask[:, None, None, :]
        x = self.norms[0](inputs + self.attention(inputs, inputs, allowed))
        return self.norms[1](x + self.dense(self.hidden(x)))


@keras.saving.register_keras_serializable(package="headrace")
class TransformerDecoder(_Block):
    """Attention to this and earlier steps, attention to a source, and a dense layer (Chollet 11.5.3).

    Each is added to what went in and normalised. A mask of the inputs hides their padding from later steps; a mask of
    the source hides that of the source, whatever its length.

    Args:
        width: Of the vectors that go in and come out.
        inner: Units of the dense layer.
        heads: Of each attention.
        memory: What the second attention looks at.
        size: Width of each head; default: `width`, as in the book.
    """

    def __init__(
        self,
        width: int,
        inner: int,
        heads: int,
        *,
        memory: Memory = "source",
        size: int | None = None,
        **given: Any,
    ) -> None:
        super().__init__(width, inner, heads, size=size, **given)
        self.memory = memory
        self.attention = Attention(heads, self.size, dtype=self.dtype_policy, name="attention")
        self.second = None if memory == "none" else Attention(heads, self.size, dtype=self.dtype_policy, name="second")
        self.norms = self._norms(2 if memory == "none" else 3)

    def build(self, inputs_shape: Shape, memory_shape: Shape | None = None) -> None:
        """Create the weights, for a source of that shape."""
        self._build([self.attention, *([self.second] if self.second else [])], self.norms, memory_shape)

    def compute_output_shape(self, inputs_shape: Shape, memory_shape: Shape | None = None) -> Shape:
        """That of the inputs."""
        return inputs_shape

    def call(
        self,
        inputs: tf.Tensor,
        memory: tf.Tensor | None = None,
        inputs_mask: tf.Tensor | None = None,
        memory_mask: tf.Tensor | None = None,
        mask: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """Answer at all steps at once.

        Args:
            inputs: (batch, steps, width).
            memory: The encoded source (batch, steps of the source, width of the source), where `memory="source"`.
            inputs_mask: Where the inputs are no padding (batch, steps).
            memory_mask: Where the source is none (batch, steps of the source).
            mask: `inputs_mask` by the name under which Keras gives it to a layer with one input.

        Returns:
            (batch, steps, width).
        """
        self._check(memory)
        there = inputs_mask if inputs_mask is not None else mask
        allowed = _earlier(0, ops.shape(inputs)[1], ops.shape(inputs)[1])
        if there is not None:
            allowed = ops.logical_and(allowed, there[:, None, None, :])
        x = self.norms[0](inputs + self.attention(inputs, inputs, allowed))
        if self.second and memory is not None:
            source = None if memory_mask is None else memory_mask[:, None, None, :]
            x = self.norms[1](x + self.second(x, memory, source))
        elif self.second:
            x = self.norms[1](x + self.second(x, inputs, allowed))
        return self.norms[-1](x + self.dense(self.hidden(x)))

    def cache(self, batch: int | tf.Tensor, length: int | tf.Tensor) -> tf.Tensor:
        """Room for what is kept of so many steps: (batch, 2 or 4, length, heads, size), zeros."""
        kept = 4 if self.memory == "itself" else 2
        return ops.zeros((batch, kept, length, self.heads, self.size), self.compute_dtype)

    def remember(self, memory: tf.Tensor) -> tf.Tensor:
        """What is kept of a source (batch, source steps, width): (batch, 2, source steps, heads, size)."""
        if self.memory != "source" or self.second is None:
            raise ValueError(f'A decoder with memory="{self.memory}" has no source to remember.')
        return self.second.remember(memory)

    def step(
        self,
        inputs: tf.Tensor,
        at: int | tf.Tensor,
        cache: tf.Tensor,
        known: tf.Tensor | None = None,
        memory_mask: tf.Tensor | None = None,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Answer at the next steps, all earlier ones being in the cache.

        Args:
            inputs: Those of the steps from `at` on, (batch, steps, width); mostly a single step.
            at: How many steps came before; `at` and the steps given are no more than the cache has room for.
            cache: What `cache` gave at the beginning, and this method since.
            known: What `remember` gave, where `memory="source"`.
            memory_mask: Where the source is no padding (batch, steps of the source).

        Returns:
            What `call` answers at these steps, (batch, steps, width); and the cache with them.
        """
        self._check(known)
        new = self.attention.remember(inputs)
        if self.second and self.memory == "itself":
            new = ops.concatenate([new, self.second.remember(inputs)], axis=1)
        cache = _written(cache, new, at)
        allowed = _earlier(at, ops.shape(inputs)[1], ops.shape(cache)[2])
        x = self.norms[0](inputs + self.attention.look(inputs, cache[:, :2], allowed))
        if self.second and known is not None:
            source = None if memory_mask is None else memory_mask[:, None, None, :]
            x = self.norms[1](x + self.second.look(x, known, source))
        elif self.second:
            x = self.norms[1](x + self.second.look(x, cache[:, 2:], allowed))
        return self.norms[-1](x + self.dense(self.hidden(x))), cache

    def _check(self, memory: Any) -> None:
        if (memory is None) == (self.memory == "source"):
            given = "was given none" if memory is None else "was given one"
            raise ValueError(f'A decoder with memory="{self.memory}" {given}: only "source" takes a source.')

    def get_config(self) -> dict[str, Any]:
        """What it takes to build it again."""
        return {**super().get_config(), "memory": self.memory}


def _written(cache: tf.Tensor, new: tf.Tensor, at: int | tf.Tensor) -> tf.Tensor:
    """The cache with new steps from `at` on."""
    import tensorflow as tf

    first = tf.cast(at, tf.int32)
    # Not by `keras.ops.slice_update`, for which XLA compiles a program at every new number of examples.
    return tf.raw_ops.TensorStridedSliceUpdate(
        input=cache,
        begin=[0, 0, first],
        end=[0, 0, first + tf.shape(new)[2]],
        strides=[1, 1, 1],
        value=new,
        begin_mask=0b011,
        end_mask=0b011,
    )


def _earlier(first: int | tf.Tensor, steps: int | tf.Tensor, length: int | tf.Tensor) -> tf.Tensor:
    """Which of `length` steps are no later than each of `steps` ones from `first` on: (1, 1, steps, length)."""
    return (ops.arange(length)[None, :] <= first + ops.arange(steps)[:, None])[None, None]


# ---------------------------------------------------------------------------------------- tokens


@keras.saving.register_keras_serializable(package="headrace")
class TokenBag(keras.layers.Layer):
    """Which tokens stand in a text, or how often, whatever their order (Chollet 11.3.2).

    Args:
        size: Positions of the bag: token 1 (an unknown word) has the first one, and counts for all from `size` + 1 on.
        mode: 1 for each token that is there; how often it is; or that times a weight (`headrace.texts.Vocabulary`).
    """

    def __init__(self, size: int, mode: Literal["multi_hot", "count", "tf_idf"] = "multi_hot", **given: Any) -> None:
        super().__init__(**given)
        self.size, self.mode = size, mode
        self.weight: Any = None

    def build(self, inputs_shape: Shape) -> None:
        """Create the weights of tokens, which are not trained."""
        if self.mode == "tf_idf":
            self.weight = self.add_weight(shape=(self.size,), initializer="ones", trainable=False, name="weight")

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Tokens (batch, steps), filled up with zeros, → (batch, size)."""
        from headrace.texts import UNKNOWN, counts

        found = ops.cast(counts(inputs, self.size + 1, UNKNOWN)[:, 1:], self.compute_dtype)
        if self.mode == "multi_hot":
            return ops.minimum(found, 1)
        return found if self.weight is None else found * self.weight

    def compute_output_shape(self, inputs_shape: Shape) -> Shape:
        """(batch, steps) → (batch, size)."""
        return (inputs_shape[0], self.size)

    def get_config(self) -> dict[str, Any]:
        """What it takes to build it again."""
        return {**super().get_config(), "size": self.size, "mode": self.mode}


@keras.saving.register_keras_serializable(package="headrace")
class FixedLength(keras.layers.Layer):
    """The first tokens of each text, filled up with zeros at the end.

    Args:
        length: How many.
        vocabulary: Tokens from this number on become unknown words.
    """

    def __init__(self, length: int, vocabulary: int, **given: Any) -> None:
        super().__init__(**given)
        self.length, self.vocabulary = length, vocabulary

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Tokens (batch, steps) → (batch, length)."""
        from headrace.texts import UNKNOWN

        first = inputs[:, : self.length]
        first = ops.where(first < self.vocabulary, first, ops.cast(UNKNOWN, first.dtype))
        filled = ops.pad(first, [[0, 0], [0, self.length - ops.shape(first)[1]]])
        # With the number of texts, where it is known: TFLite needs it to go through steps.
        return ops.reshape(filled, (ops.shape(inputs)[0], self.length))

    def compute_output_shape(self, inputs_shape: Shape) -> Shape:
        """(batch, steps) → (batch, length)."""
        return (inputs_shape[0], self.length)

    def compute_output_spec(self, inputs: Any) -> Any:
        """As the tokens, which are whole numbers."""
        return keras.KerasTensor(self.compute_output_shape(inputs.shape), dtype=inputs.dtype)

    def get_config(self) -> dict[str, Any]:
        """What it takes to build it again."""
        return {**super().get_config(), "length": self.length, "vocabulary": self.vocabulary}


@keras.saving.register_keras_serializable(package="headrace")
class LargestOfSteps(keras.layers.Layer):
    """The largest value of each position over all steps that are no padding; `GlobalMaxPooling1D` knows no masks."""

    def call(self, inputs: tf.Tensor, mask: tf.Tensor | None = None) -> tf.Tensor:
        """(batch, steps, width), with a mask (batch, steps) → (batch, width); zeros where all is padding."""
        if mask is None:
            return ops.max(inputs, axis=1)
        there = ops.expand_dims(mask, -1)
        lowest = ops.min(inputs, axis=1, keepdims=True)
        found = ops.max(ops.where(there, inputs, lowest), axis=1)
        return ops.where(ops.any(there, axis=1), found, ops.zeros_like(found))

    def compute_mask(self, inputs: tf.Tensor, previous: Any = None) -> None:
        """None: there are no steps any more."""

    def compute_output_shape(self, inputs_shape: Shape) -> Shape:
        """(batch, steps, width) → (batch, width)."""
        return (inputs_shape[0], inputs_shape[-1])


@keras.saving.register_keras_serializable(package="headrace")
class LookedUpLSTMCell(keras.layers.Layer):
    """An LSTM cell whose inputs have been multiplied by its kernel already.

    For vectors with a single 1 that product is a row of the kernel: `keras.layers.Embedding(tokens, 4 * units)` looks
    it up, where Keras' LSTM would multiply 20,000 numbers, nearly all of them 0, at every step.

    Args:
        units: Of what it gives.
    """

    def __init__(self, units: int, **given: Any) -> None:
        super().__init__(**given)
        self.units = self.output_size = units
        self.state_size = [units, units]

    def build(self, inputs_shape: Shape) -> None:
        """Create the weights, drawn as Keras draws those of its LSTM: what to forget begins with a bias of 1."""
        units = self.units
        self.recurrent_kernel = self.add_weight(
            shape=(units, 4 * units), initializer="orthogonal", name="recurrent_kernel"
        )
        self.bias = self.add_weight(shape=(4 * units,), initializer=self._first_bias, name="bias")

    def _first_bias(self, shape: Shape, dtype: Any = None) -> tf.Tensor:
        ones, others = ops.ones(self.units, dtype), ops.zeros(self.units, dtype)
        return ops.concatenate([others, ones, others, others])

    def call(self, inputs: tf.Tensor, states: list[tf.Tensor], training: bool = False) -> Any:
        """Rows of the kernel (batch, 4 * units) and the last answer and state → the next ones (batch, units)."""
        last, kept = states
        gates = inputs + ops.matmul(last, self.recurrent_kernel) + self.bias
        enter, stay, new, leave = ops.split(gates, 4, axis=-1)
        kept = ops.sigmoid(stay) * kept + ops.sigmoid(enter) * ops.tanh(new)
        answer = ops.sigmoid(leave) * ops.tanh(kept)
        return answer, [answer, kept]

    def get_config(self) -> dict[str, Any]:
        """What it takes to build it again."""
        return {**super().get_config(), "units": self.units}


LAYERS = {
    layer.__name__: layer
    for layer in (
        *(PositionalEmbedding, TransformerEncoder, TransformerDecoder, Attention),
        *(TokenBag, FixedLength, LargestOfSteps, LookedUpLSTMCell),
    )
}
"""By their names, as `custom` of a workload and Keras' loading want them."""
