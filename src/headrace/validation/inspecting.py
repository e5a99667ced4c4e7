"""Data held against a schema: its rules watch batches as they pass, and tell what is odd, with values and rows."""

from __future__ import annotations

import logging
import math
import textwrap
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headrace.errors import DataError, nearest
from headrace.ragged import Ragged
from headrace.readers.batches import to_arrays
from headrace.readers.cells import judged
from headrace.spec import Feature
from headrace.validation.anomalies import Anomaly, Severity, percent
from headrace.validation.checking import SHOWN, Places, image_fault, shortened
from headrace.validation.schema import Rule, demanded, retired

if TYPE_CHECKING:
    from tensorflow_metadata.proto.v0 import schema_pb2

log = logging.getLogger(__name__)

Array = np.ndarray[Any, Any]

EXAMPLES = 5
"""Values and rows that an anomaly gives as examples."""
UNKNOWN = 1_000
"""Distinct strings outside of their domain that are counted one by one."""
VARIED = 20
"""Values from which it is odd that all are the same; of fewer it may be chance."""


class Inspection:
    """Watches the batches of a split pass by, and tells what about them the schema does not allow.

    Memory does not grow with the data; a batch in which all is well costs a few passes over its values.

    Args:
        schema: The rules: inferred, reviewed, or written elsewhere.
        features: The features that the batches hold. A rule for one column of a vector (a field of a struct) is held
            against that position, or, in a table, against the feature of the column's name.
        environment: `TRAINING`, `SERVING`, or another one that the schema names: only what it expects there has to be
            there. Default: whatever is not expected everywhere may be missing.
        where: What is inspected, for messages: "split `train`".
        original: Position among the batches → position in the split, where some examples were left out
            (`Quarantine.original`).
        cells: Where the batches hold the cells of a table as strings: column → what is read from them.
    """

    def __init__(
        self,
        schema: schema_pb2.Schema,
        features: Mapping[str, Feature],
        *,
        environment: str | None = None,
        where: str = "the data",
        original: Callable[[int], int] = int,
        cells: Mapping[str, Feature] | None = None,
    ) -> None:
        self.rows = 0
        """Examples seen."""
        self.environment = environment
        self._features = features
        self._where = where
        self._original = original
        self._limits = schema.dataset_constraints
        self._found: list[Anomaly] = []
        """What is wrong before any example was seen."""
        self._watches: list[_Watch] = []
        known: set[str] = set()
        for entry in schema.feature:
            fields = entry.struct_domain.feature
            known |= {entry.name, *(one.name for one in fields)}
            if retired(entry):
                continue
            rules = [Rule.of(schema, entry, one) for one in fields] or [Rule.of(schema, entry)]
            placed = [(rule, self._place(rule)) for rule in rules]
            if entry.name in features and cells is None:
                self._found += _unlike(entry, features[entry.name])
            if demanded(schema, entry, environment):
                missing = [rule for rule, place in placed if place is None and rule.asked]
                if entry.name not in features and len(missing) == len(rules):
                    missing = [Rule.of(schema, entry)]
                self._found += [self._missing(rule) for rule in missing]
            self._watches += [_Watch(rule, *place, cells) for rule, place in placed if place and not rule.retired]
        for name in features:
            if name not in known:
                said = f"{name} is not in the schema: nothing is known of it"
                self._found.append(Anomaly("warning", name, "", said, "new_column"))

    def _place(self, rule: Rule) -> tuple[str, int | None, Feature] | None:
        """The feature whose values a rule is about, and the position if it is one column of it."""
        feature = self._features.get(rule.feature)
        if feature is None:
            return (rule.column, None, self._features[rule.column]) if rule.column in self._features else None
        if not rule.column:
            return rule.feature, None, feature
        names = [column.name for column in feature.columns]
        return (rule.feature, names.index(rule.column), feature) if rule.column in names else None

    def _missing(self, rule: Rule) -> Anomaly:
        what = "column" if rule.column else "feature"
        said = f"{what} `{rule.label}` is missing: "
        said += textwrap.shorten(nearest(rule.label, self._features), 150, placeholder=" …")
        return Anomaly("error", rule.feature, rule.column, said, "missing_column")

    def watching(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """The same batches, looked at as they pass."""
        for batch in batches:
            self.add(batch)
            yield batch

    def add(self, batch: pa.RecordBatch) -> None:
        """Take in a batch; its columns are those of the features, of the declared types (see `checking.checked`)."""
        if not batch.num_rows:
            return
        shared: dict[str, Any] = {}
        for watch in self._watches:
            if watch.name not in shared:
                shared[watch.name] = _read(batch, watch.name, watch.feature)
            watch.add(shared[watch.name], self.rows)
        self.rows += batch.num_rows

    def anomalies(self) -> list[Anomaly]:
        """What was found, in the order of the schema."""
        found = [*self._found, *self._number_of_examples()]
        found += [anomaly for watch in self._watches for anomaly in watch.anomalies(self.rows)]
        return [replace(anomaly, rows=tuple(map(self._original, anomaly.rows))) for anomaly in found]

    def _number_of_examples(self) -> Iterator[Anomaly]:
        least, most = max(self._limits.min_examples_count, 1), self._limits.max_examples_count
        if self.rows < least or (most and self.rows > most):
            bounds = f"{least:,} to {most:,}" if most else f"at least {least:,}"
            said = f"there are {self.rows:,} examples, where the schema asks for {bounds}"
            yield Anomaly("error", "", "", said, "examples", self.rows)

    def columns(self) -> list[dict[str, Any]]:
        """What was seen of each feature, or column of one, that the schema knows: how much is there, and its range."""
        return [watch.seen(self.rows) for watch in self._watches]

    def enforce(self, name: str = "the schema") -> list[Anomaly]:
        """Stop if the data are not what the schema demands.

        Args:
            name: Which schema, for the message.

        Returns:
            The warnings.

        Raises:
            DataError: With all errors.
        """
        found = self.anomalies()
        errors = [anomaly.told for anomaly in found if anomaly.severity == "error"]
        if errors:
            lines = "".join(f"\n  - {text}" for text in errors)
            raise DataError(
                f"{self._where[:1].upper()}{self._where[1:]} is not what {name} allows:{lines}",
                remedy=f"correct the data; or, if they are right, change {name}",
            )
        for anomaly in found:
            log.warning("%s: %s", self._where, anomaly.told)
        return found


_DTYPES = {"BYTES": ("string",), "INT": ("int64", "uint8"), "FLOAT": ("float32",)}


def _unlike(entry: schema_pb2.Feature, feature: Feature) -> Iterator[Anomaly]:
    """What of a feature's type and shape is not as the schema says."""
    from tensorflow_metadata.proto.v0 import schema_pb2

    for one in entry.struct_domain.feature or [entry]:
        name = schema_pb2.FeatureType.Name(one.type)
        if feature.dtype not in _DTYPES.get(name, (feature.dtype,)):
            said = f"{entry.name} is {feature.dtype}, where the schema asks for {name}"
            yield Anomaly("error", entry.name, "", said, "type")
            break
    if entry.HasField("shape"):
        sizes = [dim.size for dim in entry.shape.dim]
        fits = len(sizes) == len(feature.shape) and all(
            size in (0, -1, length) for size, length in zip(sizes, feature.shape, strict=True)
        )
        if not fits:
            said = f"{entry.name} has the shape {feature.shape}, where the schema asks for {tuple(sizes)}"
            yield Anomaly("error", entry.name, "", said, "shape")
    elif entry.HasField("value_count") and not feature.ragged:
        count = entry.value_count
        if feature.size < count.min or (count.HasField("max") and feature.size > count.max):
            said = (
                f"{entry.name} has {feature.size} values in each example, where the schema asks for {_counted(count)}"
            )
            yield Anomaly("error", entry.name, "", said, "shape")


def _counted(count: Any) -> str:
    return f"{count.min} to {count.max}" if count.HasField("max") else f"at least {count.min}"


# ------------------------------------------------------------------------------------------- values and rules


@dataclass(frozen=True)
class _Values:
    """The values of one feature in a batch, all in one list."""

    flat: Any
    """Numbers (an array; NaN is missing), or strings (an Arrow array; null or empty is missing)."""
    rows: Array | int
    """The row of each value; or how many there are in each row."""
    lengths: Array | None = None
    """Values of each row, where they differ."""

    def rows_of(self, at: Array) -> Array:
        """The rows of the values at these places."""
        return at // self.rows if isinstance(self.rows, int) else self.rows[at]

    def column(self, position: int, width: int) -> _Values:
        """The values at one position of the last dimension."""
        rows = self.rows // width if isinstance(self.rows, int) else self.rows[position::width]
        return _Values(self.flat[position::width], rows, None if self.lengths is None else self.lengths // width)


def _read(batch: pa.RecordBatch, name: str, feature: Feature) -> _Values:
    column = batch.column(name)
    if feature.dtype == "string":
        places = Places(column, feature)
        flat = column.flatten() if feature.shape else column
        return _Values(flat, places.rows if feature.shape else 1, places.lengths if feature.ragged else None)
    values = to_arrays(batch.select([name]), {name: feature})[name]
    if isinstance(values, Ragged):
        lengths = values.lengths * feature.size
        return _Values(values.values.reshape(-1), np.repeat(np.arange(len(values)), lengths), lengths)
    return _Values(values.reshape(-1), feature.size)


@dataclass
class _Tally:
    """How often something was found, with the first examples."""

    count: int = 0
    values: list[str] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)


class _Watch:
    """One rule, and what was seen of the values that it is about.

    Args:
        rule: The rule.
        name: The feature whose values it is about.
        position: The position in the last dimension, if it is one column of the feature.
        feature: What the batches hold.
        cells: As of `Inspection`.
    """

    def __init__(
        self, rule: Rule, name: str, position: int | None, feature: Feature, cells: Mapping[str, Feature] | None
    ) -> None:
        self.name = name
        self.feature = feature
        self._rule = rule
        self._position = position
        self._read_as = _read_as(rule, name, feature, cells)
        self._bounds = rule.bounds
        self._allowed = rule.allowed
        self._limits = rule.entry.unique_constraints if rule.entry.HasField("unique_constraints") else None
        self._begin = 0
        self._values = 0
        self._low, self._high = math.inf, -math.inf
        self._tallies: dict[str, _Tally] = {}
        self._unknown: Counter[str] = Counter()
        self._distinct: set[Any] = set()

    def add(self, values: _Values, begin: int) -> None:
        """Take in the values of a batch that begins at this row of the split."""
        self._begin = begin
        if self._position is not None:
            values = values.column(self._position, len(self.feature.columns))
        if self.feature.dtype != "string":
            missing = np.isnan(values.flat) if values.flat.dtype.kind == "f" else None
            self._look_at_numbers(values, missing)
        else:
            missing = values.flat.is_null().to_numpy(zero_copy_only=False)
            if not self.feature.ragged:
                missing |= pc.equal(pc.binary_length(values.flat), 0).fill_null(False).to_numpy(zero_copy_only=False)
            if self._read_as:
                numbers, wrong = _read_numbers(values.flat, missing, self._read_as)
                self._note("type", values, wrong, lambda at: values.flat[at].as_py())
                self._look_at_numbers(replace(values, flat=numbers), missing | wrong)
            else:
                self._look_at_strings(values, missing)
        if missing is not None and missing.any():
            rows = np.unique(values.rows_of(np.flatnonzero(missing)))
            self._note("missing", _Values(None, rows), np.ones(len(rows), bool))
        if values.lengths is not None and self._rule.entry.HasField("value_count"):
            count = self._rule.entry.value_count
            whole, lengths = _Values(None, 1), values.lengths
            self._note("short", whole, lengths < count.min, lambda at: int(lengths[at]))
            if count.HasField("max"):
                self._note("long", whole, lengths > count.max, lambda at: int(lengths[at]))

    def _note(self, kind: str, values: _Values, wrong: Array, value: Callable[[int], Any] | None = None) -> None:
        """Count what is wrong (a mask over the values), and keep the first of it."""
        at = np.flatnonzero(wrong)
        if not len(at):
            return
        tally = self._tallies.setdefault(kind, _Tally())
        tally.count += len(at)
        for place in at[: EXAMPLES - len(tally.rows)]:
            tally.rows.append(self._begin + int(values.rows_of(place)))
            if value:
                tally.values.append(shortened(value(int(place))))

    def _look_at_numbers(self, values: _Values, missing: Array | None) -> None:
        known = values.flat if missing is None or not missing.any() else values.flat[~missing]
        if not known.size:
            return
        self._values += known.size
        low, high = known.min(), known.max()
        self._low, self._high = min(self._low, low), max(self._high, high)
        if self._bounds and (low < self._bounds[0] or high > self._bounds[1]):
            wrong = (values.flat < self._bounds[0]) | (values.flat > self._bounds[1])
            if missing is not None:
                wrong &= ~missing
            self._note("range", values, wrong, lambda at: values.flat[at].item())
        self._count_distinct(known)

    def _look_at_strings(self, values: _Values, missing: Array) -> None:
        flat, entry = values.flat, self._rule.entry
        self._values += len(flat) - int(missing.sum())

        def text(at: int) -> Any:
            return flat[at].as_py()

        if self._allowed:
            known = pc.is_in(flat, pa.array(self._allowed).cast(flat.type)).to_numpy(zero_copy_only=False)
            unknown = ~known & ~missing
            self._note("domain", values, unknown, text)
            if unknown.any() and len(self._unknown) < UNKNOWN:
                self._unknown.update(shortened(value) for value in flat.filter(pa.array(unknown)).to_pylist())
        if self._rule.of_kind("NaturalLanguageDomain") and not _is_text(flat):
            self._note("encoding", values, np.array([not _is_text(flat.slice(i, 1)) for i in range(len(flat))]), text)
        if self._rule.of_kind("ImageDomain"):
            if entry.image_domain.max_image_byte_size:
                sizes = pc.binary_length(flat).fill_null(0).to_numpy(zero_copy_only=False)
                self._note("image_size", values, sizes > entry.image_domain.max_image_byte_size, text)
            # The files of a feature that is declared as an image were looked at when they were read.
            if entry.image_domain.minimum_supported_image_fraction and self.feature.kind not in ("image", "mask"):
                files = flat.cast(pa.large_binary()).to_pylist()
                self._note("image", values, np.array([bool(f) and bool(image_fault(f)[1]) for f in files]), text)
        if self._limits:
            self._count_distinct(flat.filter(pa.array(~missing)).to_pylist())

    def _count_distinct(self, values: Any) -> None:
        # One more than is allowed is enough to know.
        if self._limits and len(self._distinct) <= max(self._limits.min, self._limits.max):
            self._distinct.update(values if isinstance(values, list) else np.unique(values).tolist())

    def seen(self, rows: int) -> dict[str, Any]:
        """Of so many examples: feature, column, missing, missing_share, minimum, maximum (None: no numbers)."""
        missing = self._tallies.get("missing", _Tally()).count
        known = math.isfinite(self._low)
        return {
            "feature": self._rule.feature,
            "column": self._rule.column,
            "missing": missing,
            "missing_share": missing / max(rows, 1),
            "minimum": float(self._low) if known else None,
            "maximum": float(self._high) if known else None,
        }

    # ------------------------------------------------------------------------------------------- judgement

    def anomalies(self, rows: int) -> Iterator[Anomaly]:
        """What the rule does not allow, of so many examples."""
        presence = self._rule.presence
        missing = self._tallies.get("missing", _Tally()).count
        if missing and missing > (1 - presence.min_fraction) * rows * (1 + _ROUNDING):
            most = f"at most {1 - presence.min_fraction:.2%} may be" if presence.min_fraction < 1 else "none may be"
            yield self._told(
                "missing", rows, f"{missing:,} of {rows:,} values are missing ({percent(missing / rows)}); {most}"
            )
        elif rows and rows - missing < presence.min_count:
            said = f"{rows - missing:,} of {rows:,} values are there; at least {presence.min_count:,} must be"
            yield self._told("few", rows, said)
        if "type" in self._tallies:
            yield self._told("type", rows, f"{self._share('type', rows)} {self._type()}")
        for kind, adjective in (("short", "fewer"), ("long", "more")):
            if kind in self._tallies:
                said = f"{self._share(kind, rows, 'examples')} have {adjective} values than the schema allows"
                yield self._told(kind, rows, f"{said}: {_counted(self._rule.entry.value_count)}")
        yield from self._outside()
        for kind, words in (("encoding", "are no UTF-8"), ("image_size", "are larger than the schema allows")):
            if kind in self._tallies:
                yield self._told(kind, self._values, f"{self._share(kind, self._values)} {words}")
        if "image" in self._tallies:
            least = self._rule.domain.minimum_supported_image_fraction
            enough = self._values - self._tallies["image"].count >= least * self._values * (1 - _ROUNDING)
            said = f"{self._share('image', self._values)} are no image; {least:.1%} must be one"
            yield self._told("image", self._values, said, "warning" if enough else "error")
        if self._limits and not self._limits.min <= len(self._distinct) <= (self._limits.max or math.inf):
            few = len(self._distinct) < self._limits.min
            many = f"{len(self._distinct):,}" if few else f"more than {self._limits.max:,}"
            bounds = (
                f"{self._limits.min:,} to {self._limits.max:,}"
                if self._limits.max
                else f"at least {self._limits.min:,}"
            )
            yield self._told("unique", self._values, f"there are {many} different values; the schema allows {bounds}")

    def _type(self) -> str:
        like = self._read_as or self.feature
        if like.classes:
            return f"are neither the name nor the number of one of the {len(like.classes)} classes"
        return f"hold no {'number' if like.dtype == 'float32' else 'whole number'} that can be used"

    def _outside(self) -> Iterator[Anomaly]:
        """Values that are not of the domain."""
        for kind in ("range", "domain"):
            if kind in self._tallies:
                share = self._tallies[kind].count / self._values
                demanded = share > self._rule.tolerated + _ROUNDING
                said = self._share(kind, self._values)
                said += self._range() if kind == "range" else self._strings()
                yield self._told(kind, self._values, said, "error" if demanded else "warning")
        varies = self._bounds is not None and self._bounds[0] < self._bounds[1]
        if varies and self._low == self._high and self._values >= VARIED and not self._rule.categorical:
            yield self._told("constant", self._values, f"every value is {self._low:g}", "warning")

    def _range(self) -> str:
        low, high = self._bounds or (-math.inf, math.inf)
        allowed = (
            f"{low:g} to {high:g}"
            if math.isfinite(low) and math.isfinite(high)
            else (f"at least {low:g}" if math.isfinite(low) else f"at most {high:g}")
        )
        return f" are outside of the range {allowed}: they reach from {self._low:g} to {self._high:g}"

    def _strings(self) -> str:
        named = [f"{value} ({count:,})" for value, count in self._unknown.most_common(SHOWN)]
        more = f" and {len(self._unknown) - SHOWN:,} more" if len(self._unknown) > SHOWN else ""
        return f" are none of the {len(self._allowed):,} known ones: {', '.join(named)}{more}"

    def _share(self, kind: str, of: int, what: str = "values") -> str:
        count = self._tallies[kind].count
        return f"{count:,} of {of:,} {what} ({percent(count / of)})"

    def _told(self, kind: str, of: int, said: str, severity: Severity = "error") -> Anomaly:
        rule, tally = self._rule, self._tallies.get(kind, _Tally())
        return Anomaly(
            severity,
            rule.feature,
            rule.column,
            f"{rule.label}: {said}",
            kind,
            tally.count,
            tally.count / max(of, 1),
            tuple(tally.values),
            tuple(tally.rows),
        )


_ROUNDING = 1e-6
"""Fractions of a schema are of single precision: 0.99 is not exactly so."""


def _is_text(strings: pa.Array) -> bool:
    """Whether all of them are UTF-8."""
    try:
        strings.cast(pa.large_string())
    except pa.ArrowInvalid:
        return False
    return True


def _read_as(rule: Rule, name: str, feature: Feature, cells: Mapping[str, Feature] | None) -> Feature | None:
    """What is read from strings: numbers from the cells of a table, or where the schema says that text holds them."""
    from tensorflow_metadata.proto.v0 import schema_pb2

    if feature.dtype != "string":
        return None
    if cells is not None:
        return cells[name] if cells[name].dtype != "string" else None
    return Feature(dtype=rule.number) if rule.number and rule.entry.type == schema_pb2.BYTES else None


def _read_numbers(cells: pa.Array, missing: Array, like: Feature) -> tuple[Array, Array]:
    """The numbers that cells of text hold, and where one holds none that can be used (a mask)."""
    kept = np.dtype("float32" if like.dtype == "float32" else "int64")
    wrong = np.zeros(len(cells), bool)
    try:
        blank = pa.scalar(None, cells.type)
        numbers = pc.if_else(pa.array(missing), blank, cells)
        # Doubles first, as where the same cells are read to be trained on.
        exact = numbers.cast(pa.large_string()).cast(pa.float64() if kept.kind == "f" else pa.int64()).fill_null(0)
        with np.errstate(over="ignore"):
            found = exact.to_numpy(zero_copy_only=False).astype(kept)
        if np.isfinite(found).all():
            return found, wrong
    except pa.ArrowInvalid:
        pass
    found = np.zeros(len(cells), kept)
    for at, cell in enumerate(cells.cast(pa.large_string()).to_pylist()):
        if missing[at]:
            continue
        value, trouble = judged(cell, like)
        wrong[at] = trouble is not None
        found[at] = value or 0
    return found, wrong
