"""What comes next in a text: how often it is guessed, and how surprising it was."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import ClassVar

import numpy as np

from headrace.measuring.classification import LEAST
from headrace.measuring.resampling import Array
from headrace.measuring.sums import ratio
from headrace.measuring.tasks import Facts, Naive, Task, constant


class LanguageModel(Task):
    """The next token at each step of a text, by the score of every token of the vocabulary.

    The target is the text moved on by a step (steps,), where the token `evaluate.padding` does not count; or the one
    token that follows, a scalar. Scores that are no probabilities (rows that don't sum to 1) are taken for logits.

    Accuracy and perplexity are those of all tokens together: a long text counts more than a short one.

    Examples that are windows of one text overlap, or stand next to each other: with `evaluate.block` intervals draw so
    many neighbours together.
    """

    primary: ClassVar[str] = "perplexity"
    larger_is_better: ClassVar[frozenset[str]] = frozenset({"accuracy"})

    @property
    def expected(self) -> str:
        """A number for each token of the vocabulary, at each step."""
        size = len(self.target.classes) or "vocabulary"
        return f"({', '.join(map(str, ('examples', *self._steps, size)))}): the probability of each token"

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Whether it has the target's steps, with a score for each token."""
        known = len(self.target.classes) or (shape[-1] if shape else 0)
        return len(shape) == 1 + len(self._steps) and shape[:-1] == self._steps and shape[-1] == known > 1

    @property
    def _steps(self) -> tuple[int, ...]:
        """The shape of a target; a vector of one is a scalar."""
        return () if self.target.shape in ((), (1,)) else tuple(length or 0 for length in self.target.shape)

    def counted(self, truth: Array) -> Array:
        """The steps that are to be guessed (examples, steps), bool."""
        true = truth.reshape(len(truth), -1)
        if not self._steps or self.how.padding is None:
            return np.ones(true.shape, bool)
        return np.asarray(true != self.how.padding)

    def facts(self, truth: Array, answers: Array) -> Facts:
        """Of each example: tokens that count, those that are guessed, and the sum of their surprises (in nats)."""
        true, counts = truth.reshape(len(truth), -1).astype(np.int64), self.counted(truth)
        scores = _once(answers).reshape(len(_once(answers)), -1, answers.shape[-1])
        right = scores.argmax(axis=-1) == true
        return {
            "counted": counts.sum(axis=1).astype(np.float64),
            "correct": (right & counts).sum(axis=1).astype(np.float64),
            "surprise": np.where(counts, -_log_probabilities(scores, true), 0).sum(axis=1),
        }

    def measure(self, facts: Facts, weights: Array) -> Mapping[str, Array]:
        """The share of tokens that are guessed, and the exponential of their mean surprise."""
        counted, correct, surprise = (weights @ facts[name] for name in ("counted", "correct", "surprise"))
        return {"accuracy": ratio(correct, counted), "perplexity": np.exp(ratio(surprise, counted))}

    def learned(self, targets: Iterable[Array]) -> Array:
        """How often each token is to be guessed in the training split (vocabulary,)."""
        total = np.zeros(len(self.target.classes), np.int64)
        for part in targets:
            found = np.bincount(part.reshape(len(part), -1)[self.counted(part)].astype(np.int64), minlength=len(total))
            found[: len(total)] += total
            total = found
        return total

    def naive(self, learned: Array) -> Mapping[str, Naive]:
        """Always how often each token occurs in the training split, so that the most frequent one is guessed.

        Every token counts as seen once more, or one that is new in the test split would be infinitely surprising.
        """
        frequencies = (learned + 1) / (learned + 1).sum()
        return {"token frequencies": constant(np.broadcast_to(frequencies, (*self._steps, len(frequencies))))}

    def groups(self, examples: int) -> Array | None:
        """Blocks of `evaluate.block` neighbouring examples; none where each example is a text of its own."""
        return np.arange(examples) // self.how.block if self.how.block else None


def _once(answers: Array) -> Array:
    """A view in which what was repeated by broadcasting stands once: the same answer need not be looked at again."""
    return answers[tuple(slice(0, 1) if stride == 0 else slice(None) for stride in answers.strides[:-1])]


def _log_probabilities(scores: Array, true: Array) -> Array:
    """The logarithm of the probability that each true token was given, as if tokens beyond the vocabulary had none.

    Args:
        scores: Probabilities or logits (examples or 1, steps or 1, vocabulary).
        true: Numbers of tokens (examples, steps).
    """
    inside = np.clip(true, 0, scores.shape[-1] - 1)
    given = scores[np.arange(len(true) if len(scores) > 1 else 1)[:, None], _places(scores, true), inside]
    given = given.astype(np.float64)
    sums = scores.sum(axis=-1, dtype=np.float64)
    if scores.min(initial=0) < 0 or np.abs(sums - 1).max(initial=0) > 0.02:
        top = scores.max(axis=-1, keepdims=True)
        whole = np.log(np.exp(scores - top, dtype=np.float32).sum(axis=-1, dtype=np.float64)) + top[..., 0]
        logarithm = np.asarray(given - whole)
    else:
        logarithm = np.log(np.clip(given, LEAST, 1))
    return np.where(true == inside, np.maximum(logarithm, np.log(LEAST)), np.log(LEAST))


def _places(scores: Array, true: Array) -> Array:
    """Which of the scores' steps belongs to each step of the truth."""
    return np.arange(true.shape[1]) if scores.shape[1] > 1 else np.zeros(1, np.int64)
