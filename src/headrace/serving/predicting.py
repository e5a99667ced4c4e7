"""Batch scoring: every row of a file through an exported model, in flat memory, and nothing dropped in silence."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from headrace.console import progress
from headrace.errors import EXIT_OK, ConfigError, DataError, StageFailed
from headrace.serving.bundles import Bundle

if TYPE_CHECKING:
    import numpy as np

    from headrace.serving.loading import Loaded
    from headrace.serving.logs import Sample
    from headrace.serving.results import Sink
    from headrace.serving.rows import Bad, Portion
    from headrace.spec import Feature

    Array = np.ndarray[Any, Any]

log = logging.getLogger(__name__)

SHOWN = 5
"""Unusable rows that are told one by one where they stand in a file; where they don't, all are."""


@dataclass(frozen=True)
class Request:
    """What is to be scored, and where the answers go."""

    bundle: Bundle
    source: Path | None
    """None: JSON lines on standard input."""
    output: Path | None = None
    """None: JSON lines on standard output."""
    form: str | None = None
    """`parquet` or `jsonl`; default: as the output's name ends."""
    keep: Sequence[str] = ()
    """Columns of a table that are copied beside the answers."""
    batch: int = 256
    """Rows that are asked together, at most."""
    log: bool = True
    """Whether a sample is kept for monitoring."""


@dataclass(frozen=True)
class Summary:
    """What came of it."""

    model: str
    version: int
    input: str
    output: str
    answered: int
    quarantined: int
    quarantine: str | None
    """The file that lists rows which could not be used, with their reasons."""
    kept: int
    """Rows that were kept for monitoring."""
    seconds: float

    @property
    def exit_code(self) -> int:
        """0, or that of a `DataError` if rows could not be used."""
        return DataError.exit_code if self.quarantined else EXIT_OK

    def to_json(self) -> dict[str, Any]:
        """As a JSON value."""
        return {**asdict(self), "exit_code": self.exit_code}

    def in_words(self) -> str:
        """For people."""
        told = f"{self.model} version {self.version} answered {self.answered:,} rows of {self.input}: {self.output}"
        if self.quarantined:
            where = self.quarantine or "listed on standard error"
            told += f"\n{self.quarantined:,} rows could not be used: {where}"
        return told


def predict(request: Request, out: IO[str] | None = None) -> Summary:
    """Let a model answer for every row of a source.

    Args:
        request: What is scored.
        out: Where JSON lines go that go to no file; default: standard output.

    Raises:
        ConfigError: The request does not fit the data or the model.
        DataError: The source can't be read, or the model not be loaded. No output is left then.
        StageFailed: The model fails with every row.
    """
    begun = time.monotonic()
    form = _form(request)
    if request.source is not None and not request.source.exists():
        raise ConfigError(f"There is no file or folder {request.source}.")

    from headrace.serving.loading import Loaded
    from headrace.serving.logs import Sample
    from headrace.serving.results import JsonLines, ParquetRows
    from headrace.serving.rows import portions

    bundle = request.bundle
    model = Loaded(bundle.path)
    features = model.features(bundle.features)
    if not model.default.batched:
        raise ConfigError(
            f"{bundle.title} does not answer row by row.",
            expected="examples in the first dimension of every input and output",
            received=str(model.default),
        )
    notes = {name: feature for name, feature in bundle.features.items() if feature.role == "note"}
    listing = request.output.with_name(f"{request.output.name}.quarantine.jsonl") if request.output else None
    sample = Sample(bundle.name) if request.log else None
    sink: Sink = JsonLines(out or sys.stdout)
    if request.output:
        sink = ParquetRows(request.output) if form == "parquet" else JsonLines(request.output)
    unusable = JsonLines(listing) if listing else None
    run = _Run(request, model, features, sink, unusable, sample)
    try:
        found = portions(request.source or sys.stdin.buffer, features, notes, request.keep, bundle.windows)
        with progress(f"predict · {bundle.title}", None) as advance:
            for portion in found:
                run.take(portion)
                rate = (run.answered + run.bad) / max(time.monotonic() - begun, 1e-9)
                advance(run.answered + run.bad, f"{rate:,.0f} rows/s")
        if run.failed and not run.answered:
            raise StageFailed(f"{bundle.title} fails with every row.", received=run.failed)
        if unusable and listing:
            if run.bad:
                unusable.close()
            else:
                unusable.discard()
                # What an earlier run left there is about other answers.
                listing.unlink(missing_ok=True)
        sink.close()
    except BaseException:
        sink.discard()
        if unusable:
            unusable.discard()
        raise
    return Summary(
        model=bundle.name,
        version=bundle.version,
        input=str(request.source or "standard input"),
        output=str(request.output or "standard output"),
        answered=run.answered,
        quarantined=run.bad,
        quarantine=str(listing) if run.bad and listing else None,
        kept=_kept(sample),
        seconds=round(time.monotonic() - begun, 3),
    )


def _form(request: Request) -> str:
    """Parquet or JSON lines."""
    if request.output is None:
        if request.form == "parquet":
            raise ConfigError("Parquet can't be written to standard output.", remedy="name a file: --output")
        return "jsonl"
    ending = request.output.suffix.lower().removeprefix(".")
    form = request.form or {"parquet": "parquet", "jsonl": "jsonl", "ndjson": "jsonl"}.get(ending)
    if form is None:
        raise ConfigError(
            f"{request.output.name} does not say what is to be written.",
            expected="a name that ends in .parquet or .jsonl",
            remedy="--format parquet, or --format jsonl",
        )
    return form


def _kept(sample: Sample | None) -> int:
    """Write what was sampled; a disk without room for it does not undo the answers."""
    if sample is None:
        return 0
    try:
        return sample.write()
    except OSError as error:
        log.warning("no sample was kept for monitoring: %s", error)
        return 0


class _Run:
    """The rows of one run, as they pass."""

    def __init__(
        self,
        request: Request,
        model: Loaded,
        features: Mapping[str, Feature],
        sink: Sink,
        unusable: Any,
        sample: Sample | None,
    ) -> None:
        self._request = request
        self._model = model
        self._features = features
        self._sink = sink
        self._unusable = unusable
        self._sample = sample
        self.answered = 0
        self.bad = 0
        self.failed = ""
        """What the model said to the first row with which it failed."""

    def take(self, portion: Portion) -> None:
        """Answer the rows that can be answered, list the others."""
        self._list(portion.bad)
        most = self._request.batch
        for start in range(0, portion.batch.num_rows, most):
            batch = portion.batch.slice(start, most)
            rows = portion.rows[start : start + batch.num_rows]
            for chosen, inputs in self._alike(batch):
                self._answer(rows[chosen], batch.take(_positions(chosen)), inputs)

    def _alike(self, batch: Any) -> Iterator[tuple[Array, dict[str, Array]]]:
        """Inputs that can be asked together, with their positions: sequences of one length each time."""
        import numpy as np

        from headrace.ragged import Ragged
        from headrace.readers.batches import to_arrays

        arrays = to_arrays(batch, self._features)
        lengths = [values.lengths for values in arrays.values() if isinstance(values, Ragged)]
        kinds, which = (
            np.unique(np.stack(lengths), axis=1, return_inverse=True) if lengths else (np.zeros((0, 1)), None)
        )
        for kind in range(kinds.shape[1]):
            chosen = np.arange(batch.num_rows) if which is None else np.flatnonzero(which.reshape(-1) == kind)
            yield (
                chosen,
                {
                    name: values[chosen].values.reshape(len(chosen), -1, *values.values.shape[1:])
                    if isinstance(values, Ragged)
                    else values[chosen]
                    for name, values in arrays.items()
                },
            )

    def _answer(self, rows: Array, batch: Any, inputs: dict[str, Array]) -> None:
        from headrace.serving.loading import first_line
        from headrace.serving.rows import Bad, problem

        try:
            outputs = self._model.ask(inputs)
        except Exception as error:
            if len(rows) > 1:
                # One of them is to blame, and only asking each alone tells which.
                for row in range(len(rows)):
                    one = {name: values[row : row + 1] for name, values in inputs.items()}
                    self._answer(rows[row : row + 1], batch.slice(row, 1), one)
                return
            self.failed = self.failed or first_line(error)
            self._list([Bad(int(rows[0]), (problem(f"the model can't answer it: {first_line(error)}"),))])
            return
        self._write(rows, batch, outputs)
        self.answered += len(rows)
        if self._sample is not None:
            self._sample.add(inputs, outputs, self._request.bundle.version, self._features)

    def _write(self, rows: Array, batch: Any, outputs: Mapping[str, Array]) -> None:
        import pyarrow as pa

        from headrace.serving.answers import columns

        identity = {"row": pa.array(rows)}
        for name in batch.schema.names:
            if name not in self._features:
                identity[name] = batch.column(name).cast(pa.large_binary()).cast(pa.large_string())
        given = columns(outputs, self._request.bundle.targets)
        self._sink.write({**identity, **{_free(name, identity): values for name, values in given.items()}})

    def _list(self, some: Sequence[Bad]) -> None:
        for bad in some:
            self.bad += 1
            if self._unusable is None or self.bad <= SHOWN:
                log.warning("not answered: %s", bad.in_words())
        if self._unusable is not None and some:
            self._unusable.lines(bad.to_json() for bad in some)


def _free(name: str, taken: Mapping[str, Any]) -> str:
    """A name for a column of answers that none of the row's identity has."""
    return f"answer_{name}" if name in taken else name


def _positions(chosen: Array) -> Any:
    import pyarrow as pa

    return pa.array(chosen)
