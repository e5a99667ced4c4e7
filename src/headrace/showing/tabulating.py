"""What a tuning and an ensemble have found, as tables: the same in a terminal and on a page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from headrace.showing.pages import number


@dataclass(frozen=True)
class Table:
    """Columns, and rows of as many cells; None is an empty cell."""

    columns: tuple[str, ...]
    rows: tuple[tuple[object, ...], ...]
    right: tuple[str, ...]
    """Columns of numbers."""


def of_tuning(found: Mapping[str, Any]) -> list[Table]:
    """The trials in their order, and the best of them as they were trained to the end and tested.

    Args:
        found: Contents of `tuning.json`.
    """
    paths, objective = list(found["space"]), found["objective"]
    trials = tuple(
        (
            one["trial"],
            *(number(one["values"][path]) for path in paths),
            one["trained_epochs"],
            _known(one["value"]),
            one["problem"],
        )
        for one in found["trials"]
    )
    metrics = tuple(dict.fromkeys(name for one in found["finalists"] for name in one["metrics"] or ()))
    ends = [
        (f"best {one['place']}", one["trial"], one["epochs"], *(_known((one["metrics"] or {}).get(m)) for m in metrics))
        for one in found["finalists"]
    ]
    if found["ensemble"]:
        ends.append(("average", None, None, *(number(found["ensemble"]["metrics"][name]) for name in metrics)))
    return [
        Table(("trial", *paths, "epochs", objective, ""), trials, ("trial", "epochs", objective)),
        Table(("on the test split", "trial", "epochs", *metrics), tuple(ends), ("trial", "epochs", *metrics)),
    ]


def of_ensemble(found: Mapping[str, Any]) -> list[Table]:
    """The average, and below it what each member does alone.

    Args:
        found: Contents of `ensemble.json`.
    """
    metrics = tuple(found["metrics"])
    average = ("average", None, *(number(found["metrics"][name]) for name in metrics))
    members = (
        (one["member"], f"{one['weight']:.3f}", *(number(one["metrics"][name]) for name in metrics))
        for one in found["members"]
    )
    return [Table((f"on the {found['split']} split", "weight", *metrics), (average, *members), ("weight", *metrics))]


def _known(value: float | None) -> str | None:
    return None if value is None else number(value)
