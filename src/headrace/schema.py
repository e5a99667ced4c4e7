"""What the raw data must look like: each batch held against the declared features, and the schema as a text file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa

from headrace.artifacts import write_atomically
from headrace.errors import DataError, nearest
from headrace.spec import Feature
from headrace.summaries import Distribution, Statistics, position_names

if TYPE_CHECKING:
    from tensorflow_metadata.proto.v0 import schema_pb2

# ------------------------------------------------------------------------------------------------- batches


def checked(batches: Iterable[pa.RecordBatch], features: Mapping[str, Feature], where: str) -> Iterator[pa.RecordBatch]:
    """The same batches, each held against the declared features; columns in the declared order, empty batches left out.

    Args:
        batches: Batches as `read` gives them.
        features: The declared features.
        where: What is checked, for the message: "split `train`".

    Raises:
        DataError: A feature is missing, too many, or of another type or shape; or a value is null, NaN or infinite. The
            message names feature, row (counted from 0), column and value.
    """
    begin = 0
    for batch in batches:
        names = batch.schema.names
        _same_features(names, features, where)
        for name, feature in features.items():
            _same_type(batch.column(name).type, name, feature, where)
            _all_there(batch.column(name), name, feature, where, begin)
        if batch.num_rows:
            yield batch.select(list(features))
        begin += batch.num_rows


def _same_features(names: list[str], features: Mapping[str, Feature], where: str) -> None:
    missing = [name for name in features if name not in names]
    extra = [name for name in names if name not in features]
    twice = sorted({name for name in names if names.count(name) > 1})
    if missing or extra or twice:
        lines = [f"feature `{name}` is missing: {nearest(name, names)}" for name in missing]
        lines += [f"feature `{name}` is not declared: {nearest(name, features)}" for name in extra]
        lines += [f"feature `{name}` is there twice" for name in twice]
        raise DataError(
            f"In {where}, {'; '.join(lines)}",
            expected=", ".join(features),
            received=", ".join(names) or "no feature at all",
            remedy="make `read` and the source's `features` agree",
        )


def _same_type(received: pa.DataType, name: str, feature: Feature, where: str) -> None:
    value, size = received, None
    if pa.types.is_fixed_size_list(received):
        value, size = received.value_type, received.list_size
    if value not in _ARROW_TYPES[feature.dtype] or size != (feature.size if feature.shape else None):
        plain = _ARROW_TYPES[feature.dtype][0]
        raise DataError(
            f"In {where}, feature `{name}` is not what was declared.",
            expected=f"{plain if not feature.shape else pa.list_(plain, feature.size)} (shape {feature.shape})",
            received=received,
            remedy="make `read` and the source's `features` agree",
        )


_ARROW_TYPES = {
    "float32": (pa.float32(),),
    "int64": (pa.int64(),),
    "string": (pa.large_binary(), pa.binary(), pa.large_string(), pa.string()),
}


def _all_there(column: pa.Array, name: str, feature: Feature, where: str, begin: int) -> None:
    """No value is null, NaN or infinite."""
    # A null list has no values to flatten, so it is looked for first.
    bad = np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False))
    position, value = 0, "nothing"
    if not bad.size:
        values = column.flatten() if feature.shape else column
        wrong = values.is_null().to_numpy(zero_copy_only=False)
        if feature.dtype == "float32" and not wrong.any():
            wrong = ~np.isfinite(values.to_numpy(zero_copy_only=False))
        bad = np.flatnonzero(wrong)
        if bad.size:
            found = values[int(bad[0])].as_py()
            value = "nothing" if found is None else str(found)
        position, bad = (int(bad[0]) % feature.size, bad // feature.size) if bad.size else (0, bad)
    if bad.size:
        labels = position_names(name, feature)
        column_of = "" if labels == (name,) else f", column `{labels[position]}`"
        more = len(np.unique(bad)) - 1
        raise DataError(
            f"In {where}, feature `{name}`{column_of}, row {begin + int(bad[0])} (the first is 0) can't be used"
            + (f", nor {more} more of the {len(column)} rows around it." if more else "."),
            expected="a finite number" if feature.dtype == "float32" else "a value",
            received=value,
            remedy="repair the data, or let `read` leave such rows out or fill them in",
        )


# -------------------------------------------------------------------------------------------------- schema


def infer(features: Mapping[str, Feature], statistics: Statistics) -> schema_pb2.Schema:
    """The schema of a split: type, shape and presence as declared, the range of numbers as seen.

    A vector whose positions are columns of a table is described column by column, as the fields of a struct.
    """
    from tensorflow_metadata.proto.v0 import schema_pb2

    schema = schema_pb2.Schema()
    for name, feature in features.items():
        seen = statistics[name]
        entry = schema.feature.add(name=name, type=getattr(schema_pb2, _PROTO_TYPES[feature.dtype]))
        entry.presence.min_fraction = 1.0
        entry.presence.min_count = 1
        for size in feature.shape:
            entry.shape.dim.add(size=size)
        if not feature.shape:
            entry.shape.SetInParent()
        if feature.columns:
            entry.type = schema_pb2.STRUCT
            for position, column in enumerate(feature.columns):
                field = entry.struct_domain.feature.add(
                    name=column.name, type=getattr(schema_pb2, _PROTO_TYPES[feature.dtype])
                )
                if feature.dtype != "string":
                    _set_range(field, feature.dtype, seen.minimum.flat[position], seen.maximum.flat[position])
        elif feature.dtype != "string":
            _set_range(entry, feature.dtype, seen.minimum.min(), seen.maximum.max())
    return schema


_PROTO_TYPES = {"float32": "FLOAT", "int64": "INT", "string": "BYTES"}


def _set_range(entry: Any, dtype: str, low: float, high: float) -> None:
    if dtype == "int64":
        entry.int_domain.min, entry.int_domain.max = int(low), int(high)
    else:
        entry.float_domain.min, entry.float_domain.max = low, high


def write(path: Path, schema: schema_pb2.Schema) -> None:
    """Write the schema as text for people to read and change."""
    from google.protobuf import text_format

    write_atomically(path, text_format.MessageToString(schema).encode())


def read(path: Path) -> schema_pb2.Schema:
    """Read a schema that was written as text.

    Raises:
        DataError: There is no such file, or it is no schema.
    """
    from google.protobuf import text_format
    from tensorflow_metadata.proto.v0 import schema_pb2

    try:
        return text_format.Parse(path.read_text(), schema_pb2.Schema())
    except (OSError, UnicodeDecodeError, text_format.ParseError) as error:
        raise DataError(
            f"The schema {path} can't be read.", expected="a `tensorflow.metadata.v0.Schema` as text", received=error
        ) from error


# ----------------------------------------------------------------------------------------------- anomalies


@dataclass(frozen=True)
class Anomaly:
    """Something about new data that the schema does not allow, or that is worth a look."""

    severity: Literal["error", "warning"]
    feature: str
    column: str
    text: str


def anomalies(statistics: Statistics, schema: schema_pb2.Schema) -> list[Anomaly]:
    """What is odd about new data, given the schema of the data that were trained on.

    Args:
        statistics: Statistics of the new data, counted between the edges of the old ones (`summarise(…, like=…)`): only
            so are the shares out of range exact.
        schema: The schema, inferred or written by a person.

    Returns:
        For each column that is missing (error), has missing values (error), holds values out of range (warning), or is
        constant where it varied (warning): what was found. In the order of the schema.
    """
    found: list[Anomaly] = []
    for entry in schema.feature:
        if entry.name not in statistics:
            found.append(Anomaly("error", entry.name, "", f"feature `{entry.name}` is missing"))
            continue
        seen = statistics[entry.name]
        for position, label in enumerate(seen.names):
            domain = _range(entry, label)
            # A field that the schema no longer names was taken out by hand: nothing is asked of it.
            missing = int(seen.missing.flat[position])
            if missing:
                share = missing / seen.rows
                found.append(Anomaly("error", entry.name, label, f"{label}: {share:.1%} of the values are missing"))
            if domain is None or not seen.count.flat[position] or not seen.distributions:
                continue
            low, high = domain
            minimum, maximum = float(seen.minimum.flat[position]), float(seen.maximum.flat[position])
            outside = outside_range(seen.distributions[position], low, high)
            if outside:
                share = outside / seen.distributions[position].total
                reach = f"they reach from {minimum:g} to {maximum:g}"
                text = f"{label}: {share:.1%} of the values are outside {low:g} to {high:g}: {reach}"
                found.append(Anomaly("warning", entry.name, label, text))
            if minimum == maximum and low < high:
                found.append(Anomaly("warning", entry.name, label, f"{label}: every value is {minimum:g}"))
    return found


def outside_range(distribution: Distribution, low: float, high: float) -> int:
    """How many values are below `low` or above `high`; exact if both are edges of the distribution, or not passed."""
    return distribution.total - distribution.up_to(high) + distribution.up_to(float(np.nextafter(low, -np.inf)))


def _range(entry: Any, label: str) -> tuple[float, float] | None:
    """The range that a schema gives to a feature, or to a column of it."""
    for field in (*entry.struct_domain.feature, entry):
        if field.name in (label, entry.name):
            for kind in ("float_domain", "int_domain"):
                if field.HasField(kind):
                    return getattr(field, kind).min, getattr(field, kind).max
    return None
