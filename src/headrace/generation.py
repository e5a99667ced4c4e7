"""Texts that a model writes, inside TensorFlow's graph: the next token is drawn, and asked for the one after it.

    manner = Manner(temperature, top_k, top_p, seed)              # a value for each text (batch,)
    tokens = written(step, cache, prompt, prompt_lengths, lengths, manner)

Each text depends on its own prompt, manner and seed only: not on what else is in the batch, and its first tokens not on
how many are asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from headrace.spec import Feature
from headrace.texts import PADDING, UNKNOWN

if TYPE_CHECKING:
    import tensorflow as tf

    Step = Callable[[tf.Tensor, tf.Tensor, Any], tuple[tf.Tensor, Any]]

ASKED = {
    "prompt": Feature(dtype="string", content="text", description="how the text begins"),
    "temperature": Feature(description="0: always the likeliest token; 1: as likely as the model says; above: wilder"),
    "top_k": Feature(dtype="int64", description="only so many of the likeliest tokens; 0: all"),
    "top_p": Feature(description="only the likeliest tokens that have this probability together; 1: all"),
    "length": Feature(dtype="int64", description="tokens to be written"),
    "seed": Feature(dtype="int64", description="numbers what is drawn: the same seed, the same text"),
}
"""What a signature that writes texts takes."""

COOLEST = 1e-3
"""Temperatures below this are taken for 0."""


class Manner(NamedTuple):
    """How tokens are drawn: tensors, a value for each text (batch,). See `ASKED` for what they mean."""

    temperature: Any
    top_k: Any
    top_p: Any
    seed: Any

    @classmethod
    def asked(cls, inputs: dict[str, tf.Tensor]) -> Manner:
        """As a request says."""
        return cls(*(inputs[name] for name in ("temperature", "top_k", "top_p", "seed")))

    @classmethod
    def of(cls, temperatures: Sequence[float], seed: int, top_k: int = 0, top_p: float = 1.0) -> Manner:
        """A text at each of some temperatures."""
        import tensorflow as tf

        count = len(temperatures)
        return cls(
            tf.constant(temperatures, tf.float32),
            tf.fill([count], tf.constant(top_k, tf.int64)),
            tf.fill([count], tf.constant(top_p, tf.float32)),
            tf.fill([count], tf.constant(seed, tf.int64)),
        )


NEVER = (PADDING, UNKNOWN)
"""Tokens that no text holds."""


def scores(probabilities: tf.Tensor, known: int) -> tf.Tensor:
    """Logits of probabilities (batch, vocabulary), with `NEVER` out of the question, and tokens that are not known.

    Args:
        probabilities: What a model answers.
        known: Tokens that are known, `NEVER` among them: a model may have room for more.
    """
    import tensorflow as tf

    numbers = tf.range(tf.shape(probabilities)[1])
    never = tf.reduce_any(numbers[:, None] == tf.constant(NEVER), axis=1) | (numbers >= known)
    return tf.where(never, _NEVER, tf.math.log(tf.maximum(tf.cast(probabilities, tf.float32), _LEAST)))


_LEAST = 1e-30


def uniforms(seed: tf.Tensor, count: tf.Tensor | int) -> tf.Tensor:
    """Random numbers from 0 to below 1: seeds (batch,) → (batch, count), where more of them begin with the same."""
    import tensorflow as tf

    def of_one(number: tf.Tensor) -> tf.Tensor:
        key = tf.stack([number, tf.zeros_like(number)])
        return tf.random.stateless_uniform([count], key, dtype=tf.float64, alg="philox")

    return tf.map_fn(of_one, tf.cast(seed, tf.int64), fn_output_signature=tf.TensorSpec((None,), tf.float64))


def likeliest(scores: tf.Tensor, manner: Manner) -> tuple[tf.Tensor, tf.Tensor]:
    """The tokens in the order of their probability, and how likely each is to be drawn.

    The temperature divides the scores first. Of what `top_k` then leaves, `top_p` keeps as few as have that probability
    together, but always the first one.

    Args:
        scores: Logits (batch, vocabulary); -inf for what must not be drawn.
        manner: How.

    Returns:
        Numbers of tokens (batch, vocabulary), of two that are equally likely the smaller one first; and probabilities
        in the same order, float64, that sum to 1.
    """
    import tensorflow as tf

    scores = tf.cast(scores, tf.float64)
    temperature, top_p = (tf.cast(values, tf.float64)[:, None] for values in (manner.temperature, manner.top_p))
    order = tf.argsort(scores, direction="DESCENDING", stable=True)
    sharpened = tf.gather(scores, order, batch_dims=1) / tf.maximum(temperature, COOLEST)
    ranks = tf.range(tf.shape(scores)[1], dtype=tf.int64)[None]
    most = tf.cast(manner.top_k, tf.int64)[:, None]
    kept = (ranks == 0) | ((temperature >= COOLEST) & ((most <= 0) | (ranks < most)))
    probabilities = tf.nn.softmax(tf.where(kept, sharpened, _NEVER))
    before = tf.cumsum(probabilities, axis=1, exclusive=True)
    kept &= (ranks == 0) | (before < top_p)
    return order, tf.nn.softmax(tf.where(kept, sharpened, _NEVER))


_NEVER = float("-inf")


def chosen(scores: tf.Tensor, manner: Manner, uniform: tf.Tensor) -> tf.Tensor:
    """The next token of each text.

    Args:
        scores: Logits (batch, vocabulary).
        manner: How.
        uniform: Random numbers from 0 to below 1 (batch,): where they fall among the probabilities laid side by side.

    Returns:
        Numbers of tokens (batch,), int32.
    """
    import tensorflow as tf

    order, probabilities = likeliest(scores, manner)
    ends = tf.cumsum(probabilities, axis=1)
    # Of probabilities that sum to a little less than 1 the last one that is not 0 takes what is left.
    place = tf.math.count_nonzero(ends <= (uniform * ends[:, -1])[:, None], axis=1, dtype=tf.int32)
    last = tf.math.count_nonzero(probabilities, axis=1, dtype=tf.int32) - 1
    return tf.gather(order, tf.minimum(place, last), batch_dims=1)


def written(
    step: Step,
    kept: Any,
    prompt: tf.Tensor,
    prompt_lengths: tf.Tensor,
    lengths: tf.Tensor,
    manner: Manner,
) -> tf.RaggedTensor:
    """Write on, token by token. Prompts are read in the same way, so that `step` never sees more than one position.

    Args:
        step: Tokens (batch,), their position (a scalar), and what is kept of earlier ones → the scores of the tokens
            that may follow (batch, vocabulary), and what is kept from then on: tensors of the same shapes.
        kept: What there is before the first token, as `step` gives it.
        prompt: Tokens (batch, at least 1), int32.
        prompt_lengths: How many of them there are, at least 1 (batch,).
        lengths: How many are to be written (batch,).
        manner: How.

    Returns:
        The tokens that were written, without the prompt.
    """
    import tensorflow as tf

    prompt_lengths, lengths = tf.cast(prompt_lengths, tf.int32), tf.cast(lengths, tf.int32)
    ends = prompt_lengths + lengths
    steps = tf.maximum(tf.reduce_max(ends), tf.shape(prompt)[1])
    text = tf.pad(tf.cast(prompt, tf.int32), [[0, 0], [0, steps - tf.shape(prompt)[1]]])
    random = uniforms(manner.seed, tf.maximum(tf.reduce_max(lengths), 1))
    places = tf.range(steps)[None]

    def advance(at: tf.Tensor, text: tf.Tensor, kept: Any) -> Any:
        scores, held = step(tf.gather(text, at, axis=1), at, kept)
        number = tf.clip_by_value(at + 1 - prompt_lengths, 0, tf.shape(random)[1] - 1)
        token = chosen(scores, manner, tf.gather(random, number, batch_dims=1))
        new = (places == at + 1) & (places >= prompt_lengths[:, None])
        held = tf.nest.map_structure(lambda now, before: tf.ensure_shape(now, before.shape), held, kept)
        return at + 1, tf.where(new, token[:, None], text), held

    _, text, _ = tf.while_loop(
        lambda at, *_: at + 1 < tf.reduce_max(ends),
        advance,
        (tf.constant(0), text, kept),
        shape_invariants=(
            tf.TensorShape([]),
            tf.TensorShape([prompt.shape[0], None]),
            tf.nest.map_structure(lambda tensor: tensor.shape, kept),
        ),
    )
    return tf.ragged.boolean_mask(text, (places >= prompt_lengths[:, None]) & (places < ends[:, None]))
