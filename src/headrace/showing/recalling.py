"""Examples of the test split by their position, as people can look at them: raw where that is possible."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from headrace.artifacts import Artifact
from headrace.errors import DataError
from headrace.jobs import Job
from headrace.spec import Feature

if TYPE_CHECKING:
    from headrace.looking.sheets import Shown

SPLIT = "test"
RAW_BYTES = 256 * 2**20
"""Up to this size of a split its raw examples are looked for; of larger ones the records are shown, which can be had
by their position."""


@dataclass(frozen=True)
class Recalled:
    """Some examples."""

    features: Mapping[str, Feature] = field(default_factory=dict)
    arrays: Mapping[str, Any] = field(default_factory=dict)
    """Feature → values (examples, …); and the examples' positions."""
    problem: str = ""
    """Why there are none."""

    def shown(self) -> dict[int, Shown]:
        """Position → the example as people can look at it."""
        from headrace.looking.sheets import one_by_one

        return {one.row: one for one in one_by_one(dict(self.arrays), self.features)} if self.arrays else {}


def recalled(job: Job, raw: Artifact | None, records: Artifact, rows: Sequence[int]) -> Recalled:
    """The examples at some positions of the test split.

    Raw examples are taken where there are as many of them as records, which then stand in the same order; else the
    records, which are what preprocessing made of them.

    Args:
        job: Names the source.
        raw: Output of `download`, if it is at hand.
        records: Output of `preprocess`.
        rows: The positions.
    """
    from headrace.records.inputs import read_info

    wanted = sorted(set(rows))
    if not wanted:
        return Recalled()
    try:
        info = read_info(records.path)
        small = info.splits[SPLIT].bytes <= RAW_BYTES
        found = _raw(job, raw, records, wanted, info.examples[SPLIT]) if raw and small else None
        return found or of_records(records, wanted)
    except DataError as error:
        return Recalled(problem=error.problem)


def _raw(job: Job, raw: Artifact, records: Artifact, rows: Sequence[int], examples: int) -> Recalled | None:
    """The raw examples, or None if they are not those of the records."""
    import numpy as np

    from headrace.looking.sampling import ROW
    from headrace.preprocessing import raw_batches, raw_windows
    from headrace.ragged import joined
    from headrace.readers.batches import to_arrays

    if job.settings.windows:
        cut = raw_windows(job, raw.path, SPLIT)
        if len(next(iter(cut.values()))) != examples:
            return None
        notes = job.origin.named("note")
        found = {name: np.asarray(values[np.array(rows)]) for name, values in cut.items()}
        return Recalled(readable(records, {**job.inputs, **notes}), {**found, ROW: np.array(rows)})
    parts, before = [], 0
    for batch in raw_batches(job, raw.path, SPLIT):
        here = [row - before for row in rows if before <= row < before + batch.num_rows]
        if here:
            parts.append(to_arrays(batch.take(here), job.origin.features))
        before += batch.num_rows
    if before != examples or not parts:
        return None
    arrays: dict[str, Any] = {name: joined([part[name] for part in parts]) for name in parts[0]}
    return Recalled(readable(records, job.origin.features), {**arrays, ROW: np.array(rows)})


def of_records(records: Artifact, rows: Sequence[int]) -> Recalled:
    """The records at some positions of the test split.

    Raises:
        DataError: There are no such records, or they are damaged.
    """
    import numpy as np

    from headrace.looking.sampling import ROW
    from headrace.ragged import from_tensor
    from headrace.records.inputs import at, read_info

    info = read_info(records.path)
    places = np.array(sorted(set(rows)))
    places = places[places < info.examples[SPLIT]]
    batch = at(records.path, SPLIT, places)
    arrays: dict[str, Any] = {name: from_tensor(values) for name, values in batch.items()}
    return Recalled(readable(records, info.features), {**arrays, ROW: places})


def readable(records: Artifact, features: Mapping[str, Feature]) -> dict[str, Feature]:
    """The features, with the words that tokens stand for in place of names that they have not."""
    names = tuple(vocabulary(records))
    return {
        # What has classes counts as a category, unless it says what it is.
        name: feature.model_copy(update={"classes": names, "content": "tokens"})
        if names and feature.kind == "tokens" and not feature.classes
        else feature
        for name, feature in features.items()
    }


def vocabulary(records: Artifact) -> list[str]:
    """The words that the numbers of tokens stand for: those of the source, or those that were learned; else none."""
    import numpy as np

    from headrace.preprocessing import LEARNED, words

    known = words(records)
    path = records.path / LEARNED
    if known or not path.is_file():
        return known
    with np.load(path, allow_pickle=False) as file:
        lists = [file[name] for name in file.files]
    # What was learned may be anything; a list of words is a vocabulary if it is the only one.
    lists = [values for values in lists if values.ndim == 1 and values.dtype.kind in "US" and len(values)]
    if len(lists) != 1:
        return []
    return [word.decode(errors="replace") if isinstance(word, bytes) else word for word in lists[0].tolist()]
