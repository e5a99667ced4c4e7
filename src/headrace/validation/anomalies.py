"""What is odd about data: as a list for people and programs, and as TensorFlow Data Validation would write it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from tensorflow_metadata.proto.v0 import anomalies_pb2, schema_pb2

Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class Anomaly:
    """Something about data that can't be used or that the schema forbids (error), or that is worth a look (warning)."""

    severity: Severity
    feature: str
    """"" if it is about the data as a whole."""
    column: str
    """One of the feature's columns; "" where it is about the feature as a whole."""
    text: str
    """In a sentence, with numbers."""
    kind: str
    """What kind of thing it is: a key of `KINDS`."""
    count: int = 0
    """Values (examples, where values are missing) that it is about."""
    share: float = 0.0
    """Their share of all that were looked at, 0 to 1."""
    values: tuple[str, ...] = ()
    """Some of them, shortened."""
    rows: tuple[int, ...] = ()
    """Where these are: positions among the examples, counted from 0."""
    lines: tuple[int, ...] = ()
    """The same as lines of a text file, the first being 1; empty where the data come from none."""

    @property
    def places(self) -> str:
        """Where it was found, in words: "line 3 (-1), line 7 (-2) and 4 more"."""
        numbers = [f"line {line:,}" for line in self.lines] or [f"row {row:,}" for row in self.rows]
        values = [f" ({value})" if value else "" for value in self.values] or [""] * len(numbers)
        more = f" and {self.count - len(numbers):,} more" if self.count > len(numbers) else ""
        return ", ".join(map(str.__add__, numbers, values)) + more if numbers else ""

    @property
    def told(self) -> str:
        """Text and places."""
        return f"{self.text} [{self.places}]" if self.places else self.text


def percent(share: float) -> str:
    """A share in words: "3.4%", "<0.1%"."""
    return "<0.1%" if 0 < share < 0.001 else f"{share:.1%}"


KINDS = {
    "missing_column": "SCHEMA_MISSING_COLUMN",
    "new_column": "SCHEMA_NEW_COLUMN",
    "type": "UNEXPECTED_DATA_TYPE",
    "shape": "INVALID_FEATURE_SHAPE",
    "missing": "FEATURE_TYPE_LOW_FRACTION_PRESENT",
    "few": "FEATURE_TYPE_LOW_NUMBER_PRESENT",
    "short": "FEATURE_TYPE_LOW_NUMBER_VALUES",
    "long": "FEATURE_TYPE_HIGH_NUMBER_VALUES",
    "range": "CUSTOM_VALIDATION",
    "domain": "ENUM_TYPE_UNEXPECTED_STRING_VALUES",
    "encoding": "ENUM_TYPE_INVALID_UTF8",
    "unique": "FEATURE_TYPE_HIGH_UNIQUE",
    "image": "LOW_SUPPORTED_IMAGE_FRACTION",
    "image_size": "MAX_IMAGE_BYTE_SIZE_EXCEEDED",
    "examples": "DATASET_LOW_NUM_EXAMPLES",
    "constant": "CUSTOM_VALIDATION",
    "unusable": "CUSTOM_VALIDATION",
    "skew": "COMPARATOR_JENSEN_SHANNON_DIVERGENCE_HIGH",
    "frequencies": "COMPARATOR_L_INFTY_HIGH",
}
"""Kind of anomaly → the type by which TensorFlow Data Validation knows it."""


def to_proto(anomalies: Sequence[Anomaly], schema: schema_pb2.Schema) -> anomalies_pb2.Anomalies:
    """The anomalies in the form that TensorFlow's data tools read.

    Args:
        anomalies: What was found.
        schema: What the data were held against.
    """
    from tensorflow_metadata.proto.v0 import anomalies_pb2

    info = anomalies_pb2.AnomalyInfo
    proto = anomalies_pb2.Anomalies(baseline=schema)
    for anomaly in anomalies:
        names = [name for name in (anomaly.feature, anomaly.column) if name]
        entry = proto.anomaly_info[".".join(names)] if names else proto.dataset_anomaly_info
        entry.path.step[:] = names
        entry.severity = max(entry.severity, info.ERROR if anomaly.severity == "error" else info.WARNING)
        kind = info.Type.Value(KINDS[anomaly.kind])
        entry.reason.add(type=kind, short_description=anomaly.text, description=anomaly.told)
        entry.short_description = anomaly.text if len(entry.reason) == 1 else "Multiple errors"
        entry.description = " ".join([entry.description, f"{anomaly.told}."]).strip()
    return proto
