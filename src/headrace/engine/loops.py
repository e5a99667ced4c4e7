"""Training written by hand, for what no Keras model does by itself: environments, inputs that are optimised, lessons.

A workload's `loop` returns a `Loop`; the engine does the rest: checkpoints and exact resume, the journal, progress, the
time budget, early stopping, the guard against a loss that is no number.

```python
class FromScratch(Loop):
    def __init__(self, start: Start) -> None:
        self.model, self.rate, self.seed = start.model, start.settings.learning_rate or 1e-3, start.seed
        self.x, self.y = start.train.inputs["image"], start.train.targets["digit"]
        self.steps = len(self.x) // 128

    def advance(self, step: int) -> dict[str, float]:
        rows = self.batch(step)     # a function of seed and step, so that any step can be taken up again
        ...
        return {"loss": float(loss)}
```
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.engine.callbacks import Watchers, rate
from headrace.engine.epochs import Advance
from headrace.engine.feeding import Split
from headrace.errors import StageFailed
from headrace.spec import Feature, Train

if TYPE_CHECKING:
    import keras

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Start:
    """What a hand-written loop is given."""

    model: keras.Model
    """What the workload's `model` function returns, with initial weights of the seed."""
    train: Split
    """The examples to learn from."""
    held: Split | None
    """The examples to watch, if any are held out."""
    features: Mapping[str, Feature]
    """The features of the records."""
    settings: Train
    seed: int
    records: Path | None = None
    """The finished folder of the records."""

    @property
    def notes(self) -> Mapping[str, Any]:
        """What a model never sees of the training split, in stored order: name of a note → values (examples, *shape).

        Read when asked for; those that are held out are among them.
        """
        from headrace.records.inputs import arrays

        named = {name for name, feature in self.features.items() if feature.role == "note"}
        if self.records is None or not named:
            return {}
        return {name: values for name, values in arrays(self.records, "train").items() if name in named}


class Loop:
    """Steps that are done one by one.

    A subclass sets `model` and `steps`, and creates every variable when it is made.
    """

    model: Any = None
    """The Keras model to be saved, or None."""
    finished: bool = False
    """Set where nothing is left to be done: the training ends with the epoch."""
    steps: int = 1
    """Steps of an epoch; `train.epochs` says how many epochs there are."""

    def advance(self, step: int) -> Mapping[str, float]:
        """Do one step.

        Args:
            step: Its number, counted from 0 over all epochs.

        Returns:
            Metrics: their means over an epoch make its row. `loss` must stay a finite number.
        """
        raise NotImplementedError

    def watch(self) -> Mapping[str, float]:
        """Metrics that are measured at the end of each epoch, beside the means of those of its steps."""
        return {}

    def gathered(self) -> Mapping[str, Array]:
        """Examples that the training has come by itself, games played for instance, by the names of features.

        They are kept as records in `gathered/`, and `--source` takes that folder.
        """
        return {}

    def results(self) -> Mapping[str, Any]:
        """Arrays that are results themselves, such as an image that was optimised; kept in `results.npz`."""
        return {}

    def state(self) -> Mapping[str, Any]:
        """Everything that the next step depends on: arrays, or what JSON can say.

        Here: the variables of all models, layers, optimizers and metrics among the attributes, and the states of
        NumPy's generators. What a subclass keeps besides (a replay memory, an environment) it adds, and takes out again
        in `restore`.
        """
        variables = {f"variable {i}": variable.numpy() for i, variable in enumerate(self._variables())}
        randoms = {f"random {i}": random.bit_generator.state for i, random in enumerate(self._randoms())}
        return {**variables, **randoms}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Put back what `state` gave."""
        variables = list(self._variables())
        kept = sum(name.startswith("variable ") for name in state)
        if len(variables) != kept:
            raise StageFailed(
                f"{type(self).__name__} can't go on from its checkpoint.",
                expected=f"{kept} variables",
                received=len(variables),
                remedy="create every variable when the loop is made: `optimizer.build(model.trainable_variables)`",
            )
        for i, variable in enumerate(variables):
            variable.assign(state[f"variable {i}"])
        for i, random in enumerate(self._randoms()):
            random.bit_generator.state = state[f"random {i}"]

    def _variables(self) -> Iterator[Any]:
        import keras
        import tensorflow as tf

        seen = set()
        for item in self._attributes():
            found = [item] if isinstance(item, tf.Variable | keras.Variable) else []
            if isinstance(item, keras.Layer | keras.optimizers.Optimizer | keras.metrics.Metric):
                found = item.variables
            if isinstance(item, keras.random.SeedGenerator | tf.random.Generator):
                found = [item.state]
            for variable in found:
                if id(variable) not in seen:
                    seen.add(id(variable))
                    yield variable

    def _randoms(self) -> Iterator[np.random.Generator]:
        return (item for item in self._attributes() if isinstance(item, np.random.Generator))

    def _attributes(self) -> Iterator[Any]:
        for value in vars(self).values():
            yield from value if isinstance(value, list | tuple) else [value]


class ByHand:
    """A hand-written loop as the engine drives it."""

    def __init__(self, loop: Loop, settings: Train) -> None:
        import keras

        self.loop = loop
        self.per_epoch = loop.steps
        self.names: list[str] = []
        self._optimizers = [item for item in loop._attributes() if isinstance(item, keras.optimizers.Optimizer)]
        self.watchers = Watchers(settings, loop.model.weights if loop.model is not None else [], self._optimizers)
        self._sums: Array = np.zeros(0)

    @property
    def losses(self) -> list[int]:
        """Which columns must be finite numbers."""
        return [i for i, name in enumerate(self.names) if name.endswith("loss")]

    @property
    def stopped(self) -> bool:
        """Whether early stopping has ended the training, or the loop itself."""
        return self.watchers.stopped or self.loop.finished

    def finals(self) -> dict[str, list[Array]]:
        """What the training leaves of the model's variables, if there is a model (see `Watchers.finals`)."""
        return self.watchers.finals(self.loop.model.variables) if self.loop.model is not None else {}

    def state(self) -> list[Array]:
        """Everything as arrays; what is none of its own accord travels in the first one, as JSON."""
        state = self.loop.state()
        arrays = {name: value for name, value in state.items() if isinstance(value, np.ndarray | np.generic)}
        rest = {name: value for name, value in state.items() if name not in arrays}
        note = json.dumps({"arrays": list(arrays), "rest": rest, "names": self.names}, default=_plain).encode()
        watched = [variable.numpy() for variable in self.watchers.variables]
        return [np.frombuffer(note, np.uint8), self._sums, *watched, *map(np.asarray, arrays.values())]

    def restore(self, state: list[Array]) -> None:
        """Put a state back."""
        note = json.loads(state[0].tobytes())
        self._sums, self.names = state[1].copy(), note["names"]
        variables = self.watchers.variables
        for variable, value in zip(variables, state[2:], strict=False):
            variable.assign(value)
        arrays = state[2 + len(variables) :]
        self.loop.restore({**note["rest"], **dict(zip(note["arrays"], arrays, strict=True))})

    def advance(self, epoch: int, step: int, steps: int) -> Advance:
        """Do some steps, at most to the end of the epoch."""
        steps = min(steps, self.per_epoch - step)
        for number in range(step, step + steps):
            metrics = self.loop.advance(epoch * self.per_epoch + number)
            values = np.array([float(value) for value in metrics.values()])
            self.names = list(metrics)
            self._sums = values if number == 0 else self._sums + values
            if not np.isfinite(self._sums[self.losses]).all():
                steps = number - step + 1
                break
        row = (self._sums / (step + steps)).astype(np.float32)
        if step + steps < self.per_epoch:
            return Advance(np.zeros((0, len(self.names)), np.float32), steps, row)
        watched = self.loop.watch()
        self.names, row = [*self.names, *watched], np.append(row, np.array([*watched.values()], np.float32))
        self.watchers.check(self.names)
        if np.isfinite(row[self.losses]).all():
            self.watchers.watch(dict(zip(self.names, row, strict=True)), epoch + 1)
        return Advance(row[None], steps, None)

    def lower_rate(self, factor: float) -> None:
        """Multiply the learning rate of every optimizer among the loop's attributes."""
        for optimizer in self._optimizers:
            learning_rate = rate(optimizer)
            learning_rate.assign(learning_rate.value * factor)


def _plain(value: Any) -> Any:
    """Numbers and arrays of NumPy inside of what JSON says."""
    return value.tolist()
