"""What a kind of task is measured by.

A task makes `facts` of answers: some numbers of each example. Metrics are weighted sums over facts, so that answers can
be taken in batch by batch, and intervals, slices and paired comparisons cost a matrix product each.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

import numpy as np

from headrace.errors import ConfigError, nearest
from headrace.measuring.resampling import Array
from headrace.spec import Feature, TaskName, Tasks

Facts = Mapping[str, Array]
"""Name → numbers of each example (examples, …)."""

Naive = Callable[[Mapping[str, Array], int], Array]
"""Inputs of some examples by name, and how many there are → an answer to each (examples, *shape of an answer)."""


class Task(ABC):
    """How the answers for one target are measured.

    Args:
        target: The target, as records hold it.
    """

    primary: ClassVar[str]
    """The metric that decides where no promise names one."""
    larger_is_better: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, target: Feature) -> None:
        self.target = target

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
            Metric → (…); NaN where it is undefined.
        """

    @abstractmethod
    def naive(self, learned: Array) -> Mapping[str, Naive]:
        """Name → answers that need no model, as few as a reader will look at.

        Args:
            learned: The targets of the training split (examples, *shape).
        """

    def groups(self, examples: int) -> Array | None:
        """Number of the group that each example belongs to, where examples are not independent of each other."""
        return None


def of(name: TaskName, target: Feature) -> Task:
    """The task of this name for a target."""
    return _kind(name)(target)


def _kind(name: TaskName) -> type[Task]:
    from headrace.measuring.classification import Binary, MultiClass
    from headrace.measuring.regression import Regression

    kinds: dict[str, type[Task]] = {"regression": Regression, "binary": Binary, "multiclass": MultiClass}
    return kinds[name]


def usual(tasks: Tasks) -> tuple[str, frozenset[str]]:
    """The metric that decides where nobody names one, and those of which larger values are better."""
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
            self.named(target, metric) for target, task in tasks.items() for metric in task.larger_is_better
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

    def measure(self, facts: Facts, weights: Array | None = None) -> dict[str, Array]:
        """All metrics; each example counts once where no weights (…, examples) are given."""
        counted = np.ones(examples(facts)) if weights is None else weights
        found: dict[str, Array] = {}
        for target, task in self.tasks.items():
            own = {name.removeprefix(f"{target}/"): v for name, v in facts.items() if name.startswith(f"{target}/")}
            found |= {self.named(target, metric): value for metric, value in task.measure(own, counted).items()}
        return found

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
