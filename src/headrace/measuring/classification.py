"""Classes: how often answers are right, and how well their probabilities can be trusted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from headrace.measuring.resampling import Array
from headrace.measuring.tasks import Facts, Naive, Task, constant, mean

LEAST = 1e-7
"""The least probability that an answer is taken for, as in Keras' losses."""


class Binary(Task):
    """The score of one class against another: 0.5 and more answers the class 1."""

    primary: ClassVar[str] = "accuracy"
    larger_is_better: ClassVar[frozenset[str]] = frozenset({"accuracy", "auc", "precision", "recall", "f1"})

    @property
    def expected(self) -> str:
        """One number."""
        return "(examples, 1): the score of class 1"

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Whether it is one number."""
        return int(np.prod(shape)) == 1

    def facts(self, truth: Array, answers: Array) -> Facts:
        """Truth, score, and the logarithm of the probability that the truth was given."""
        true = truth.reshape(len(truth)).astype(np.float64)
        score = answers.reshape(len(answers)).astype(np.float64)
        given = np.clip(np.where(true == 1, score, 1 - score), LEAST, 1)
        return {"truth": true, "score": score, "surprise": -np.log(given)}

    def measure(self, facts: Facts, weights: Array) -> Mapping[str, Array]:
        """Accuracy, area under the ROC curve, precision, recall, F1 and logarithmic loss."""
        truth, score = facts["truth"] == 1, facts["score"]
        said = score >= 0.5
        hits, claims, cases = (weights @ which.astype(float) for which in (truth & said, said, truth))
        return {
            "accuracy": mean((truth == said).astype(float), weights),
            "auc": auc(truth, score, weights),
            "precision": ratio(hits, claims),
            "recall": ratio(hits, cases),
            "f1": ratio(2 * hits, claims + cases),
            "log_loss": mean(facts["surprise"], weights),
        }

    def naive(self, learned: Array) -> Mapping[str, Naive]:
        """Always the class that is most frequent in the training split, with its share for a score."""
        return {"majority class": constant(np.array([learned.astype(np.float64).mean()]))}


class MultiClass(Task):
    """One of several classes, by the probability (or any score) of each."""

    primary: ClassVar[str] = "accuracy"
    larger_is_better: ClassVar[frozenset[str]] = frozenset({"accuracy", "f1"})

    @property
    def expected(self) -> str:
        """A number for each class."""
        return f"(examples, {len(self.target.classes) or 'classes'}): the probability of each class"

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Whether it is a vector, with a number for each class where these are known."""
        known = len(self.target.classes) or (self.target.shape[-1] if self.one_hot else None)
        return len(shape) == 1 and shape[0] > 1 and known in (None, shape[0])

    @property
    def one_hot(self) -> bool:
        """Whether the target is a vector with a 1 at the place of the class, and no number of a class."""
        return bool(self.target.shape) and self.target.shape[-1] not in (None, 1)

    def numbers(self, truth: Array) -> Array:
        """Numbers of classes (examples,), of a target as records hold it."""
        return truth.argmax(axis=-1) if self.one_hot else truth.reshape(len(truth)).astype(np.int64)

    def facts(self, truth: Array, answers: Array) -> Facts:
        """True and answered class, the answer's probability, and how surprising the truth was."""
        true, given = self.numbers(truth), answers.astype(np.float64)
        inside = np.clip(true, 0, given.shape[1] - 1)
        probability = np.clip(given[np.arange(len(true)), inside] * (true == inside), LEAST, 1)
        return {
            "truth": true,
            "answer": given.argmax(axis=1),
            "confidence": given.max(axis=1),
            "surprise": -np.log(probability),
        }

    def measure(self, facts: Facts, weights: Array) -> Mapping[str, Array]:
        """Accuracy, the mean of all classes' F1, and logarithmic loss."""
        truth, answer = facts["truth"].astype(np.int64), facts["answer"].astype(np.int64)
        classes = int(max(truth.max(initial=0), answer.max(initial=0))) + 1
        chosen = [np.eye(classes)[values] for values in (truth, answer)]
        cases, claims = (weights @ values for values in chosen)
        hits = weights @ (chosen[0] * chosen[1])
        return {
            "accuracy": mean((truth == answer).astype(float), weights),
            "f1": _mean_defined(ratio(2 * hits, cases + claims)),
            "log_loss": mean(facts["surprise"], weights),
        }

    def naive(self, learned: Array) -> Mapping[str, Naive]:
        """Always the shares of the classes in the training split, so that the most frequent one is answered."""
        known = self.numbers(learned)
        size = self.target.shape[-1] if self.one_hot else max(len(self.target.classes), int(known.max()) + 1)
        return {"majority class": constant(np.bincount(known, minlength=size or 0) / len(known))}


def auc(truth: Array, score: Array, weights: Array) -> Array:
    """The area under the ROC curve: how often a case of the class scores above one that is none; ties count half.

    Args:
        truth: Whether an example is a case (examples,).
        score: (examples,)
        weights: (…, examples)

    Returns:
        (…); NaN where there are no cases, or nothing else.
    """
    order = np.argsort(score, kind="stable")
    cases, others = (weights[..., order] * side for side in (truth[order], ~truth[order]))
    # The weight of others below each example, and of those that score the same.
    _, ties = np.unique(score[order], return_inverse=True)
    starts = np.searchsorted(ties, np.arange(ties[-1] + 1)) if len(ties) else np.zeros(0, int)
    tied = np.add.reduceat(others, starts, axis=-1)
    below = np.cumsum(tied, axis=-1) - tied
    won = (np.add.reduceat(cases, starts, axis=-1) * (below + tied / 2)).sum(axis=-1)
    return ratio(won, cases.sum(axis=-1) * others.sum(axis=-1))


def ratio(part: Array, whole: Array) -> Array:
    """Part of a whole; NaN where there is none."""
    return np.where(whole > 0, part / np.where(whole > 0, whole, 1), np.nan)


def _mean_defined(values: Array) -> Array:
    """The mean over the last axis of what is defined; NaN where nothing is."""
    defined = np.isfinite(values)
    return ratio(np.where(defined, values, 0).sum(axis=-1), defined.sum(axis=-1))
