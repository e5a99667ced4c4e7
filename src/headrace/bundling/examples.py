"""Examples as they are sent to a server, and how they are kept: recorded with a bundle, fed to every format.

A feature whose length differs from example to example is sent as two inputs: `<name>`, filled up with zeros (or empty
strings) to the longest of the batch, and `<name>_length`. Every input then has one row for each example, which is what
TensorFlow Serving's REST interface takes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace.artifacts import Artifact
from headrace.errors import ConfigError
from headrace.serving_check import packed as packed
from headrace.spec import Feature

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    import tensorflow as tf

    from headrace.ragged import Ragged

    Array = np.ndarray[Any, Any]
    Arrays = dict[str, Array]

EXAMPLES = "examples.npz"
"""Of a bundle: `raw/<input>`, `prepared/<input>` (if a format takes them), `output/<target>`, `truth/<target>`; and of
other signatures `<signature>:inputs/<input>` and `<signature>:outputs/<output>`."""


def served(features: Mapping[str, Feature]) -> dict[str, Feature]:
    """The inputs of a serving signature for these features.

    Raises:
        ConfigError: The name of a length is that of another feature.
    """
    found = {}
    for name, feature in features.items():
        found[name] = feature
        if feature.ragged:
            length = length_of(name)
            if length in features:
                raise ConfigError(
                    f"The feature `{length}` has the name under which a server is told how long `{name}` is.",
                    remedy="call it something else",
                )
            found[length] = Feature(dtype="int64", description=f"values of `{name}` in the example")
    return found


def length_of(name: str) -> str:
    """The input that says how long each example of a ragged feature is."""
    return f"{name}_length"


def lengths(features: Mapping[str, Feature]) -> dict[str, str]:
    """Ragged feature → the input that says how long it is."""
    return {name: length_of(name) for name, feature in features.items() if feature.ragged}


def sent(values: Mapping[str, Array | Ragged]) -> Arrays:
    """Values of features as a server is sent them."""
    import numpy as np

    from headrace.ragged import Ragged

    found: Arrays = {}
    for name, given in values.items():
        if not isinstance(given, Ragged):
            found[name] = given
            continue
        longest = int(given.lengths.max(initial=0))
        filled = np.full(
            (len(given), longest, *given.values.shape[1:]), b"" if given.dtype == object else 0, given.dtype
        )
        for row, steps in zip(filled, given, strict=True):
            row[: len(steps)] = steps
        found |= {name: filled, length_of(name): given.lengths}
    return found


def received(batch: Mapping[str, tf.Tensor], features: Mapping[str, Feature]) -> dict[str, Any]:
    """In the graph: the opposite of `sent`."""
    import tensorflow as tf

    return {
        name: tf.RaggedTensor.from_tensor(batch[name], lengths=batch[length_of(name)])
        if feature.ragged
        else batch[name]
        for name, feature in features.items()
    }


def recorded(
    batches: Iterable[pa.RecordBatch], features: Mapping[str, Feature], rows: int | Sequence[int] | None = None
) -> Arrays:
    """Examples of a split as a server is sent them.

    Args:
        batches: The split.
        features: Of its features, those that are wanted.
        rows: How many of the first examples, or which ones, ascending; default: all.
    """
    from headrace.readers.batches import whole

    return sent(whole(_first(batches, rows) if rows is None or isinstance(rows, int) else _at(batches, rows), features))


def _first(batches: Iterable[pa.RecordBatch], count: int | None) -> Iterator[pa.RecordBatch]:
    rows = 0
    for batch in batches:
        yield batch if count is None else batch.slice(0, count - rows)
        rows += batch.num_rows
        if count is not None and rows >= count:
            return


def _at(batches: Iterable[pa.RecordBatch], rows: Sequence[int]) -> Iterator[pa.RecordBatch]:
    import numpy as np

    before, wanted = 0, np.asarray(rows)
    for batch in batches:
        here = wanted[(wanted >= before) & (wanted < before + batch.num_rows)] - before
        if len(here):
            yield batch.take(here)
        before += batch.num_rows
        if before > wanted[-1]:
            return


def prepared(folder: Path, split: str, rows: Sequence[int]) -> dict[str, Any]:
    """Records of a split at these positions, ascending, as a model takes them: tensors as arrays, padded with zeros."""
    import tensorflow as tf

    from headrace.records.inputs import at, damage_named

    with damage_named(folder, split):
        batch = at(folder, split, rows)
    return {name: (v.to_tensor() if isinstance(v, tf.RaggedTensor) else v).numpy() for name, v in batch.items()}


# ----------------------------------------------------------------------------------------------- keeping


def store(path: Path, arrays: Mapping[str, Any]) -> None:
    """Write packed arrays as an .npz: equal bytes for equal arrays."""
    import numpy as np

    np.savez(path, **arrays)


def examples_of(bundle: Artifact, prefix: str = "raw") -> Arrays:
    """The recorded examples of a bundle under a prefix: see `EXAMPLES`."""
    from headrace.serving_check import read

    return read(str(bundle.path / EXAMPLES), prefix)


def digest(arrays: Mapping[str, Array]) -> str:
    """The SHA-256 of the names, shapes and values of arrays."""
    found = hashlib.sha256()
    for name, values in sorted(packed("", arrays).items()):
        found.update(f"{name} {values.dtype} {values.shape}\n".encode())
        found.update(values.tobytes())
    return found.hexdigest()
