"""Classes: how often answers are right, and how well their probabilities can be trusted.

A score that lies outside of 0 to 1, or scores of classes that do not sum to 1, are no probabilities: then log loss,
Brier score and calibration are undefined. Precision, recall and F1 of several classes are the means over the classes
that occur among truth or answers, as in scikit-learn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, ClassVar, Literal

import numpy as np

from headrace.measuring import showing
from headrace.measuring.resampling import Array
from headrace.measuring.sums import Asked, Sums, auc, mean_defined, ratio
from headrace.measuring.tasks import Expected, Facts, Naive, Task, constant, mean

LEAST = 1e-7
"""The least probability that an answer is taken for, as in Keras' losses."""
BINS = 10
"""Into which confidence is cut to compare it with accuracy."""
SCORES = 100
"""Most classes of which all scores are kept, as the area under the curve needs them."""
_SUM = 0.01
"""How far probabilities may be from 1 together: half precision sums to 0.999."""


class Scored(Task):
    """Classes that are answered from a score on."""

    def as_scores(self, probability: Array) -> Array:
        """Probabilities as scores that answer by them: as they are, unless the threshold is none of probabilities."""
        threshold = self.how.threshold
        return probability if 0 < threshold < 1 else _scored(probability >= 0.5, threshold, probability)


class Binary(Scored):
    """The score of one class against another: from the threshold on, class 1 is answered."""

    primary: ClassVar[str] = "accuracy"
    larger_is_better: ClassVar[frozenset[str]] = frozenset({"accuracy", "auc", "precision", "recall", "f1"})
    means: ClassVar[frozenset[str]] = frozenset({"accuracy", "log_loss", "brier"})
    learned_as: ClassVar[Literal["numbers", "classes", "labels"] | None] = "classes"

    @property
    def expected(self) -> str:
        """One number."""
        return "(examples, 1): the score of class 1"

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Whether it is one number."""
        return int(np.prod(shape)) == 1

    def facts(self, truth: Array, answers: Array) -> Facts:
        """Whether it is class 1, the score, and the logarithm of the probability that the truth was given."""
        true = (truth.reshape(len(truth)) == 1).astype(np.float64)
        score = answers.reshape(len(answers)).astype(np.float64)
        return {"truth": true, "score": score, "surprise": _surprise(np.where(true == 1, score, 1 - score))}

    def measure(self, facts: Facts, weights: Array) -> Mapping[str, Array]:
        """Accuracy, area under the ROC curve, precision, recall and F1 of class 1, log loss, Brier, calibration."""
        truth, score = facts["truth"] == 1, facts["score"]
        said = score >= self.how.threshold

        @cache
        def sums() -> Sums:
            return Sums(weights)

        @cache
        def counted() -> Any:
            return [weights @ which.astype(float) for which in (truth & said, said, truth)]

        probable = np.where(np.isfinite(facts["surprise"]), score, np.nan)
        return Asked(
            {
                "accuracy": lambda: mean((truth == said).astype(float), weights),
                "auc": lambda: auc(truth, score, sums()),
                "precision": lambda: ratio(counted()[0], counted()[1]),
                "recall": lambda: ratio(counted()[0], counted()[2]),
                "f1": lambda: ratio(2 * counted()[0], counted()[1] + counted()[2]),
                "log_loss": lambda: mean(facts["surprise"], weights),
                "brier": lambda: mean(np.square(probable - truth), weights),
                "calibration_error": lambda: _calibration_error(truth, probable, sums(), weights),
            }
        )

    def naive(self, learned: Array) -> Mapping[str, Naive]:
        """The class that is most frequent in the training split, with its share for a score; and drawn labels."""
        cases = learned.reshape(len(learned)) == 1
        share = np.array([cases.mean()])
        return {
            "majority class": constant(_scored(share >= 0.5, self.how.threshold, share)),
            "random labels": drawn(_scored(cases[:, None], self.how.threshold)),
        }

    def classes(self, facts: Facts) -> tuple[Array, Sequence[str]]:
        """The two classes."""
        names = self.target.classes if len(self.target.classes) == 2 else ("0", "1")
        return facts["truth"].astype(np.int64), names

    def chance(self, facts: Facts) -> Mapping[str, Expected]:
        """The accuracy of shuffled labels."""
        return {"accuracy": shuffled(facts["truth"].astype(np.int64))}

    def about(self, facts: Facts) -> Mapping[str, Any]:
        """Confusion, calibration, curves, the worst errors."""
        truth, names = self.classes(facts)
        score, threshold = facts["score"], self.how.threshold
        answer = (score >= threshold).astype(np.int64)
        proper = bool(np.isfinite(facts["surprise"]).all())
        confidence = np.where(answer == 1, score, 1 - score) if proper else None
        wrong = np.where(answer == truth, 0.0, np.abs(score - (truth if proper else threshold)))
        scores = np.stack([-score, score], axis=1)
        return {
            "threshold": threshold,
            "classes": list(names),
            "confusion": showing.confusion(truth, answer, 2),
            "calibration": showing.calibration(score, truth == 1, BINS) if proper else None,
            "roc": showing.roc(truth == 1, score),
            "precision_recall": showing.precision_recall(truth == 1, score),
            "per_class": showing.per_class(truth, answer, names, scores),
            "worst": showing.worst(wrong, [names[k] for k in truth], [names[k] for k in answer], confidence),
            "said": showing.of_two(truth == 1, answer == 1, names, threshold) + showing.by_chance(self.chance(facts)),
        }


class MultiClass(Task):
    """One of several classes, by the probability (or any score) of each."""

    primary: ClassVar[str] = "accuracy"
    larger_is_better: ClassVar[frozenset[str]] = frozenset(
        {"accuracy", "top_5_accuracy", "auc", "precision", "recall", "f1"}
    )
    means: ClassVar[frozenset[str]] = frozenset({"accuracy", "top_5_accuracy", "log_loss", "brier"})
    learned_as: ClassVar[Literal["numbers", "classes", "labels"] | None] = "classes"

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

    def size(self, numbers: Array) -> int:
        """How many classes there are, as far as the target or these numbers of classes tell."""
        if self.one_hot:
            return int(self.target.shape[-1] or 0)
        return max(len(self.target.classes), int(numbers.max()) + 1)

    def facts(self, truth: Array, answers: Array) -> Facts:
        """True and answered class, how surprising the truth was, and what else the metrics are made of.

        `behind`: how far the score of the truth lies behind that of the answer. `rank`: how many classes come before
        the truth. `confidence`: the probability of the answer. `scores`: of all classes, if these are few.
        """
        true, given = self.numbers(truth), answers.astype(np.float64)
        size = given.shape[1]
        inside = np.clip(true, 0, size - 1)
        known = true == inside
        each = np.arange(len(true))
        own = given[each, inside]
        proper = (given >= 0).all(axis=1) & (np.abs(given.sum(axis=1) - 1) <= _SUM)
        ahead = (given > own[:, None]) | ((given == own[:, None]) & (np.arange(size) < inside[:, None]))
        probability = np.where(proper, own * known, np.nan)
        found = {
            "truth": true,
            "answer": given.argmax(axis=1),
            "classes": np.full(len(true), size, np.int32),
            "rank": np.where(known, ahead.sum(axis=1), size).astype(np.int32),
            "behind": given.max(axis=1) - np.where(known, own, given.min(axis=1)),
            "confidence": np.where(proper, given.max(axis=1), np.nan),
            "surprise": _surprise(probability),
            "brier": np.where(proper, np.square(given).sum(axis=1) - 2 * own * known + 1, np.nan),
        }
        return found | ({"scores": answers} if size <= SCORES else {})

    def measure(self, facts: Facts, weights: Array) -> Mapping[str, Array]:
        """Accuracy, the means over classes of AUC (one class against the rest), precision, recall and F1, and so on.

        With more than ten classes also how often the truth is among the five with the highest scores.
        """
        truth, answer = facts["truth"].astype(np.int64), facts["answer"].astype(np.int64)
        right = truth == answer
        given = int(facts["classes"].max(initial=0))
        classes = max(given, int(truth.max(initial=0)) + 1)

        @cache
        def sums() -> Sums:
            return Sums(weights)

        @cache
        def counted() -> Any:
            cases, claims = (sums().by(numbers, classes) for numbers in (truth, answer))
            return sums().by(truth, classes, right), claims, cases

        def over_classes(part: Array, whole: Array) -> Array:
            """The mean over classes that occur; where there is no whole, the part counts as none of it."""
            _, claims, cases = counted()
            return mean_defined(np.where(claims + cases > 0, part / np.where(whole > 0, whole, 1), np.nan))

        def areas() -> Array:
            score = facts["scores"]
            return mean_defined(np.stack([auc(truth == k, score[:, k], sums()) for k in range(given)], axis=-1))

        ways = {
            "accuracy": lambda: mean(right.astype(float), weights),
            "top_5_accuracy": lambda: mean((facts["rank"] < 5).astype(float), weights),
            "auc": areas,
            "precision": lambda: over_classes(counted()[0], counted()[1]),
            "recall": lambda: over_classes(counted()[0], counted()[2]),
            "f1": lambda: over_classes(2 * counted()[0], counted()[1] + counted()[2]),
            "log_loss": lambda: mean(facts["surprise"], weights),
            "brier": lambda: mean(facts["brier"], weights),
            "calibration_error": lambda: _calibration_error(right, facts["confidence"], sums(), weights),
        }
        left_out = ["top_5_accuracy"] * (given <= 10) + ["auc"] * ("scores" not in facts)
        return Asked({name: way for name, way in ways.items() if name not in left_out})

    def naive(self, learned: Array) -> Mapping[str, Naive]:
        """The shares of the classes in the training split, so that the most frequent one is answered; drawn labels."""
        known = self.numbers(learned)
        size = self.size(known)
        return {
            "majority class": constant(np.bincount(known, minlength=size) / len(known)),
            "random labels": drawn(known, np.eye(size)),
        }

    def classes(self, facts: Facts) -> tuple[Array, Sequence[str]]:
        """The classes, by their names or numbers."""
        truth = facts["truth"].astype(np.int64)
        count = max(int(facts["classes"].max(initial=0)), int(truth.max(initial=0)) + 1)
        return truth, [*self.target.classes, *map(str, range(len(self.target.classes), count))]

    def chance(self, facts: Facts) -> Mapping[str, Expected]:
        """The accuracy of shuffled labels."""
        return {"accuracy": shuffled(facts["truth"].astype(np.int64))}

    def about(self, facts: Facts) -> Mapping[str, Any]:
        """Confusion, calibration, each class by itself, the worst errors."""
        truth, names = self.classes(facts)
        answer = facts["answer"].astype(np.int64)
        proper = bool(np.isfinite(facts["surprise"]).all())
        confidence = facts["confidence"] if proper else None
        wrong = np.where(truth == answer, 0.0, facts["behind"])
        table = showing.per_class(truth, answer, names, facts.get("scores"))
        return {
            "classes": list(names),
            "confusion": showing.confusion(truth, answer, len(names)) if len(names) <= SCORES else None,
            "calibration": showing.calibration(confidence, truth == answer, BINS) if confidence is not None else None,
            "per_class": table,
            "worst": showing.worst(wrong, [names[k] for k in truth], [names[k] for k in answer], confidence),
            "said": [
                *showing.of_many(truth, answer, names, table),
                *(showing.by_confidence(truth == answer, confidence) if confidence is not None else []),
                *showing.by_chance(self.chance(facts)),
            ],
        }


class MultiLabel(Scored):
    """Any of several labels, by the probability (or any score) of each: those from the threshold on are answered."""

    primary: ClassVar[str] = "f1"
    larger_is_better: ClassVar[frozenset[str]] = frozenset(
        {"accuracy", "exact_match", "auc", "precision", "recall", "f1"}
    )
    means: ClassVar[frozenset[str]] = frozenset({"accuracy", "exact_match", "log_loss", "brier"})
    learned_as: ClassVar[Literal["numbers", "classes", "labels"] | None] = "labels"

    @property
    def expected(self) -> str:
        """A number for each label."""
        return f"(examples, {self.target.size}): the probability of each label"

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Whether it is the shape of the target."""
        return shape == self.target.shape

    @property
    def labels(self) -> Sequence[str]:
        """Names of the labels, or their numbers."""
        size = self.target.size
        columns = [column.name for column in self.target.columns]
        return next((names for names in (self.target.classes, columns) if len(names) == size), [*map(str, range(size))])

    def facts(self, truth: Array, answers: Array) -> Facts:
        """Which labels there are, their scores, and the mean over labels of how surprising the truth was."""
        true = truth.reshape(len(truth), -1) == 1
        score = answers.reshape(len(answers), -1)
        given = np.where(true, score, 1 - score).astype(np.float64)
        return {"truth": true, "score": score, "surprise": _surprise(given).mean(axis=1)}

    def measure(self, facts: Facts, weights: Array) -> Mapping[str, Array]:
        """Accuracy label by label, exact matches, means over labels of AUC, precision, recall and F1, and so on."""
        truth, score = facts["truth"], facts["score"]
        said = score >= self.how.threshold

        @cache
        def sums() -> Sums:
            return Sums(weights)

        @cache
        def counted() -> Any:
            return [weights @ which.astype(np.float64) for which in (truth & said, said, truth)]

        def over_labels(part: Array, whole: Array) -> Array:
            _, claims, cases = counted()
            return mean_defined(np.where(claims + cases > 0, part / np.where(whole > 0, whole, 1), np.nan))

        def areas() -> Array:
            each = [auc(truth[:, k], score[:, k], sums()) for k in range(truth.shape[1])]
            return mean_defined(np.stack(each, axis=-1))

        def calibration() -> Array:
            whole = weights.sum(axis=-1)
            off = 0.0
            for low, inside in _binned(np.where(np.isfinite(facts["surprise"])[:, None], score, np.nan)):
                if low is None:
                    return np.full(whole.shape, np.nan)
                off = off + np.abs(weights @ ((truth - score.astype(np.float64)) * inside).sum(axis=1))
            return off / (whole * truth.shape[1])

        proper = np.isfinite(facts["surprise"])
        squares = np.where(proper, np.square(score.astype(np.float64) - truth).mean(axis=1), np.nan)
        return Asked(
            {
                "accuracy": lambda: mean((truth == said).mean(axis=1), weights),
                "exact_match": lambda: mean((truth == said).all(axis=1).astype(float), weights),
                "auc": areas,
                "precision": lambda: over_labels(counted()[0], counted()[1]),
                "recall": lambda: over_labels(counted()[0], counted()[2]),
                "f1": lambda: over_labels(2 * counted()[0], counted()[1] + counted()[2]),
                "log_loss": lambda: mean(facts["surprise"], weights),
                "brier": lambda: mean(squares, weights),
                "calibration_error": calibration,
            }
        )

    def naive(self, learned: Array) -> Mapping[str, Naive]:
        """Each label if most training examples have it, with its share for a score; the labels of drawn examples."""
        true = learned.reshape(len(learned), *self.target.shape) == 1
        share = true.mean(axis=0)
        return {
            "majority labels": constant(_scored(share >= 0.5, self.how.threshold, share)),
            "random labels": drawn(_scored(true, self.how.threshold)),
        }

    def about(self, facts: Facts) -> Mapping[str, Any]:
        """Each label by itself, calibration, the worst examples."""
        truth, score, names = facts["truth"], facts["score"].astype(np.float64), self.labels
        said = score >= self.how.threshold
        proper = bool(np.isfinite(facts["surprise"]).all())

        def listed(rows: Array) -> list[str]:
            return [", ".join(names[int(k)] for k in np.flatnonzero(row)) or "none" for row in rows]

        off = np.where((truth == said).all(axis=1), 0.0, np.abs(score - truth).mean(axis=1))
        return {
            "threshold": self.how.threshold,
            "classes": list(names),
            "calibration": showing.calibration(score.ravel(), truth.ravel(), BINS) if proper else None,
            "per_class": showing.per_label(truth, said, score, names),
            "worst": showing.worst(off, listed(truth), listed(said), None),
            "said": showing.of_labels(truth, said, names, self.how.threshold),
        }


# ------------------------------------------------------------------------------------------------- shared


def drawn(labels: Array, answers: Array | None = None) -> Naive:
    """The label of a training example drawn at random, by a seed of its own.

    Args:
        labels: What is drawn from (examples, …).
        answers: The answer for each label, where labels are numbers; default: the label itself.
    """
    random = np.random.default_rng(20_260)

    def answer(inputs: Mapping[str, Array], count: int) -> Array:
        found = labels[(random.random(count) * len(labels)).astype(np.int64)]
        return (found if answers is None else answers[found]).astype(np.float64)

    return answer


def shuffled(truth: Array) -> Expected:
    """The accuracy of true labels (examples,) in a drawn order: mean, and the 95 % of all orders in the middle."""
    counts = np.unique(truth, return_counts=True)[1].astype(np.float64)
    examples = counts.sum()
    mean_hits = float(np.square(counts).sum() / examples)
    if examples < 2:
        return Expected(1.0, [1.0, 1.0])
    # Pairs of places that both keep their class: of one class, and of two.
    squares = np.square(counts)
    pairs = np.square(counts * (counts - 1)).sum() + squares.sum() ** 2 - np.square(squares).sum()
    variance = max(pairs / (examples * (examples - 1)) + mean_hits - mean_hits**2, 0.0)
    reach = 1.96 * variance**0.5
    return Expected(mean_hits / examples, [float((mean_hits + side * reach) / examples) for side in (-1, 1)])


def _surprise(probability: Array) -> Array:
    """−log of the probability of what is true; NaN for what is none."""
    inside = (probability >= 0) & (probability <= 1)
    return np.where(inside, -np.log(np.clip(probability, LEAST, 1)), np.nan)


def _scored(said: Array, threshold: float, score: Array | None = None) -> Array:
    """Scores that answer this at this threshold: those given where they do, or else 1 and 0 or what lies beyond."""
    plain = said.astype(np.float64)
    beyond = np.where(said, max(1.0, threshold), min(0.0, threshold - 1))
    found = plain if score is None else np.where((score >= threshold) == said, score, plain)
    return np.where((found >= threshold) == said, found, beyond)


def _calibration_error(right: Array, confidence: Array, sums: Sums, weights: Array) -> Array:
    """How far confidence is from accuracy, on average over ten bins of confidence; NaN if it is no probability."""
    whole = weights.sum(axis=-1)
    if not np.isfinite(confidence).all():
        return np.full(whole.shape, np.nan)
    off = sums.by(showing.binned(confidence, BINS), BINS, right - confidence)
    return np.abs(off).sum(axis=-1) / whole


def _binned(score: Array) -> Any:
    """Number of each bin with what lies in it; None if the scores are no probabilities."""
    if not np.isfinite(score).all():
        return [(None, score)]
    where = showing.binned(score, BINS)
    return [(number, where == number) for number in range(BINS)]
