"""How some variants are trained in their own way; what that takes of Keras is imported when it is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headrace.engine.loops import Loop, Start


def from_scratch(start: Start) -> Loop:
    """Layers and updates of our own."""
    from pipelines.mnist.loops import FromScratch

    return FromScratch(start)


def by_hand(start: Start) -> Loop:
    """Every epoch goes through all examples in an order of its own."""
    from pipelines.mnist.loops import KerasBatches

    return KerasBatches(start)


def drawn(start: Start) -> Loop:
    """Batches drawn with replacement."""
    from pipelines.mnist.loops import DrawnBatches

    return DrawnBatches(start)


def own() -> Mapping[str, Any]:
    """What the settings may name beside what Keras has."""
    from pipelines.mnist.steps import RootMeanSquaredError

    return {"rmse": RootMeanSquaredError}
