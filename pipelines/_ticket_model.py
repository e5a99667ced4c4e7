"""The ticket model as classes, for the variants of `ticket_routing` that are written so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras


class Ends(keras.layers.Layer):
    """Priority and department, out of the layer that both share.

    Args:
        departments: How many there are.
    """

    def __init__(self, departments: int, **given: Any) -> None:
        super().__init__(**given)
        self.departments = departments
        self.priority = keras.layers.Dense(1, activation="sigmoid", name="priority")
        self.department = keras.layers.Dense(departments, activation="softmax", name="department")

    def build(self, shape: tuple[int | None, ...]) -> None:
        """Create the weights for inputs of this shape."""
        self.priority.build(shape)
        self.department.build(shape)
        self.built = True

    def call(self, x: keras.KerasTensor) -> dict[str, keras.KerasTensor]:
        """(batch, units) → both answers by name."""
        return {"priority": self.priority(x), "department": self.department(x)}

    def get_config(self) -> dict[str, Any]:
        """What it takes to build it again."""
        return {**super().get_config(), "departments": self.departments}


class TicketModel(keras.Model):
    """All of it.

    Args:
        departments: How many there are.
        sizes: Name of each input → its length.
    """

    def __init__(self, departments: int, sizes: Mapping[str, int], **given: Any) -> None:
        super().__init__(**given)
        self.departments, self.sizes = departments, dict(sizes)
        self.hidden = keras.layers.Dense(64, activation="relu")
        self.ends = Ends(departments)
        self.hidden.build((None, sum(self.sizes.values())))
        self.ends.build((None, 64))
        self.built = True

    def call(self, inputs: Mapping[str, keras.KerasTensor]) -> dict[str, keras.KerasTensor]:
        """Bags of words by name (batch, size) → both answers by name."""
        joined = keras.ops.concatenate([keras.ops.cast(inputs[name], "float32") for name in self.sizes], axis=-1)
        return self.ends(self.hidden(joined))

    def get_config(self) -> dict[str, Any]:
        """What it takes to build it again."""
        return {**super().get_config(), "departments": self.departments, "sizes": self.sizes}
