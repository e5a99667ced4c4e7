"""What a kind of task is measured by.

A task makes `facts` of answers: some numbers of each example. Metrics are weighted sums over facts, so that answers can
be taken in batch by batch, and intervals, slices and paired comparisons cost a matrix product each.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np

from headrace.errors import ConfigError, nearest
from headrace.measuring.resampling import Array
from headrace.measuring.sums import Asked
from headrace.spec import Evaluate, Feature, TaskName, Tasks

Facts = Mapping[str, Array]
"""Name → numbers of each example (examples, …)."""

Naive = Callable[[Mapping[str, Array], int], Array]
"""Inputs of some examples by name, and how many there are → an answer to each (examples, *shape of an answer)."""


class Expected(NamedTuple):
    """What a metric comes to by chance."""

    value: float
    interval: list[float]
    """In 95 of 100 cases."""


class Task(ABC):
    """How the answers for one target are measured.

    Args:
        target: The target, as records hold it.
        how: What the task leaves to choose.
    """

    primary: ClassVar[str]
    """The metric that decides where no promise names one."""
    larger_is_better: ClassVar[frozenset[str]] = frozenset()
    means: ClassVar[frozenset[str]] = frozenset()
    """Metrics that are means over examples: those that make sense for the examples of one class."""
    learned_as: ClassVar[Literal["numbers", "classes", "labels"] | None] = None
    """What a plain learner takes the target for; None: there is none to compare with."""

    def __init__(self, target: Feature, how: Evaluate = Evaluate()) -> None:  # noqa: B008 (it is frozen)
        self.target, self.how = target, how

    @property
    def rising(self) -> frozenset[str]:
        """The metrics of this target of which larger values are better: of some tasks there is one for each class."""
        return self.larger_is_better

    @property
    @abstractmethod
    def expected(self) -> str:
        """The shape of the answers in words: "(examples, 10): the probability of each class"."""

    @abstractmethod
    def fits(self, shape: tuple[int, ...]) -> bool:
        """Whether an answer to one example may have this shape."""

    @abstractmethod
    def facts(self, truth: Array, answers: Array) -> Facts:
        """What metrics are made of.

        Args:
            truth: The target of some examples, as records hold it.
            answers: What a model answers to them, of a shape that `fits`.
        """

    @abstractmethod
    def measure(self, facts: Facts, weights: Array) -> Mapping[str, Array]:
        """The metrics.

        Args:
            facts: Of all examples.
            weights: How often each example counts (…, examples).

        Returns:
            Metric → (…); NaN where it is undefined. Its values may be worked out when they are asked for.
        """

    def learned(self, targets: Iterable[Array]) -> Any:
        """What `naive` needs of the training split's targets, batch by batch; default: all of them as one array."""
        return np.concatenate(list(targets))

    @abstractmethod
    def naive(self, learned: Any) -> Mapping[str, Naive]:
        """Name → answers that need no model, as few as a reader will look at.

        Args:
            learned: What `learned` gave; if not said otherwise, the targets of the training split (examples, *shape).
        """

    def beside(self, naive: Mapping[str, Facts]) -> Facts:
        """Further facts, in which the model is compared with naive answers; none for most tasks.

        Args:
            naive: Name → the facts of that answer to the same examples.
        """
        return {}

    def about(self, facts: Facts) -> Mapping[str, Any]:
        """What else is worth telling of the answers, as JSON values; it stands with the target in `outputs`.

        The keys that reports know: `classes`, `confusion`, `calibration`, `roc`, `precision_recall`, `worst`,
        `per_class` and `said` (see `headrace.measuring.showing`).
        """
        return {}

    def classes(self, facts: Facts) -> tuple[Array, Sequence[str]] | None:
        """Number of the true class of each example (examples,), and the classes' names; None if there are none."""
        return None

    def chance(self, facts: Facts) -> Mapping[str, Expected]:
        """What metrics come to if the answers are the true ones in a drawn order."""
        return {}

    def groups(self, examples: int) -> Array | None:
        """Number of the group that each example belongs to, where examples are not independent of each other."""
        return None


def of(name: TaskName, target: Feature, how: Evaluate = Evaluate()) -> Task:  # noqa: B008 (it is frozen)
    """The task of this name for a target."""
    return _kind(name)(target, how)


def _kind(name: TaskName) -> type[Task]:
    from headrace.measuring.classification import Binary, MultiClass, MultiLabel
    from headrace.measuring.forecasting import Forecasting
    from headrace.measuring.language import LanguageModel
    from headrace.measuring.regression import Regression
    from headrace.measuring.segmentation import Segmentation
    from headrace.measuring.sequences import Sequence2Sequence

    kinds: dict[str, type[Task]] = {
        "regression": Regression,
        "binary": Binary,
        "multiclass": MultiClass,
        "multilabel": MultiLabel,
        "segmentation": Segmentation,
        "forecasting": Forecasting,
        "language_model": LanguageModel,
        "sequence": Sequence2Sequence,
    }
    if name not in kinds:
        raise ConfigError(
            f"The task of a single target can't be `{name}`.",
            expected=", ".join(kinds),
            remedy="set `task` to own, and let `measure` look at all of it",
        )
    return kinds[name]


def usual(tasks: Tasks) -> tuple[str, frozenset[str]]:
    """The metric that decides where nobody names one, and those of which larger values are better.

    Of a task of a workload's own nobody knows beforehand: an empty name, and none.
    """
    if tasks == "own":
        return "", frozenset()
    if isinstance(tasks, str):
        return _kind(tasks).primary, _kind(tasks).larger_is_better
    many = len(tasks) > 1
    named = {target: f"{target}_" * many for target in tasks}
    first = next(iter(tasks))
    larger = {named[target] + metric for target, task in tasks.items() for metric in _kind(task).larger_is_better}
    return named[first] + _kind(tasks[first]).primary, frozenset(larger)


def mean(values: Array, weights: Array) -> Array:
    """The weighted mean over examples.

    Args:
        values: (examples, *shape)
        weights: (…, examples)

    Returns:
        (…, *shape)
    """
    total = weights.sum(axis=-1)
    sums = np.tensordot(weights, values, axes=1)
    return sums / total.reshape(total.shape + (1,) * (sums.ndim - total.ndim))


class Measures:
    """The tasks of all targets as one. With several targets a metric is called `<target>_<metric>`.

    Args:
        tasks: Name of a target → its task; the first decides where no promise names a metric.
    """

    def __init__(self, tasks: Mapping[str, Task]) -> None:
        self.tasks = tasks
        first = next(iter(tasks))
        self.primary = self.named(first, tasks[first].primary)
        self.larger_is_better = frozenset(
            self.named(target, metric) for target, task in tasks.items() for metric in task.rising
        )

    def named(self, target: str, metric: str) -> str:
        """What a metric of a target is called."""
        return f"{target}_{metric}" if len(self.tasks) > 1 else metric

    def target_of(self, metric: str) -> str:
        """The target that a metric is of."""
        matching = [target for target in self.tasks if metric.startswith(f"{target}_")]
        return max(matching, key=len, default=next(iter(self.tasks)))

    def facts(self, truths: Mapping[str, Array], answers: Mapping[str, Array]) -> Facts:
        """What the metrics of all targets are made of: "<target>/<fact>" → numbers of each example."""
        return {
            f"{target}/{fact}": values
            for target, task in self.tasks.items()
            for fact, values in task.facts(truths[target], answers[target]).items()
        }

    def of(self, target: str, facts: Facts) -> Facts:
        """The facts of one target, by the names that its task gave them."""
        return {name.removeprefix(f"{target}/"): v for name, v in facts.items() if name.startswith(f"{target}/")}

    def measure(self, facts: Facts, weights: Array | None = None) -> Mapping[str, Array]:
        """All metrics; each example counts once where no weights (…, examples) are given."""
        counted = np.ones(examples(facts)) if weights is None else weights
        ways: dict[str, Callable[[], Array]] = {}
        for target, task in self.tasks.items():
            found = task.measure(self.of(target, facts), counted)
            ways |= {self.named(target, metric): partial(found.__getitem__, metric) for metric in found}
        return Asked(ways)

    def beside(
        self, facts: Facts, naive: Mapping[str, Mapping[str, Facts]]
    ) -> tuple[dict[str, Any], dict[str, dict[str, Facts]]]:
        """The facts of the model, and those of naive answers, with what compares them: see `Task.beside`.

        Args:
            facts: "<target>/<fact>" → numbers of each example.
            naive: Name → target → fact → numbers of each example.
        """
        ours, theirs = dict(facts), {name: dict(found) for name, found in naive.items()}
        for target, task in self.tasks.items():
            known = {name: found[target] for name, found in naive.items() if target in found}
            further = task.beside(known)
            ours |= {f"{target}/{fact}": values for fact, values in further.items()}
            for name, found in known.items():
                theirs[name][target] = {**found, **further}
        return ours, theirs

    def gain(self, metric: str, ours: Any, theirs: Any) -> Any:
        """By how much our values of a metric are better than theirs."""
        return ours - theirs if metric in self.larger_is_better else theirs - ours

    def groups(self, count: int) -> Array | None:
        """Number of the group that each of so many examples belongs to, if they are not independent of each other."""
        return next(iter(self.tasks.values())).groups(count)

    def known(self, metric: str, metrics: Iterable[str]) -> str:
        """The metric, if it is one of those that were measured.

        Raises:
            ConfigError: It is not.
        """
        if metric not in metrics:
            raise ConfigError(f"There is no metric `{metric}`: {nearest(metric, metrics)}")
        return metric


def examples(facts: Facts) -> int:
    """How many examples the facts are of."""
    return len(next(iter(facts.values())))


def joined(parts: Iterable[Facts]) -> dict[str, Array]:
    """The facts of several batches, one after the other."""
    parts = list(parts)
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def constant(answer: Array) -> Naive:
    """Always the same answer."""
    return lambda inputs, count: np.broadcast_to(answer, (count, *np.shape(answer)))
