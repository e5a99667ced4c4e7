"""The schema: what the data of a source must look like, as text that a person reads, changes and commits.

One rule of severity holds for every schema, whoever wrote it: what it demands is an error. Of the values a share up to
`1 - min_domain_mass` may lie outside of the domain: a warning. An inferred range of numbers therefore says
`min_domain_mass: 0.0`; a person who knows the range to be a law takes that line out.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from headrace import projects
from headrace.artifacts import write_atomically
from headrace.errors import DataError, nearest, unknown
from headrace.jobs import Job
from headrace.spec import Feature

if TYPE_CHECKING:
    from tensorflow_metadata.proto.v0 import schema_pb2

    from headrace.describing.described import FeatureStatistics, Statistics
    from headrace.describing.tallies import Tally

TRAINING, SERVING = "TRAINING", "SERVING"
"""The environments of our own schemas: with targets, and without them."""
NATURAL = ((0.0, 1.0), (-1.0, 1.0))
"""Ranges that are a law where values fill them to both ends: shares, probabilities, flags, what was scaled to them."""
FEW = 50
"""Distinct strings up to which the categories seen are taken for all there are."""
UNREADABLE = "\N{REPLACEMENT CHARACTER}"
"""What statistics put in place of bytes that are no text."""
TOLERATED = 0.9
"""Share of an input's strings that must be among the categories seen, where none were declared."""

HEADING = """\
# What the data must look like. Change what is wrong, and commit it as pipelines/schemas/<workload>.<source>.pbtxt: from
# then on `preprocess` enforces it on every split, and `headrace data validate` on new files.
# A value outside of a domain is an error. Where the line `min_domain_mass: 0.0` stands, the range is what was seen,
# no law: values outside of it are a warning. Take the line out (with the braces around it) where the range must hold.
"""


# --------------------------------------------------------------------------------------------------- files


def write(path: Path, schema: schema_pb2.Schema) -> None:
    """Write the schema as text for people to read and change; equal schemas give equal files."""
    from google.protobuf import text_format

    write_atomically(path, (HEADING + text_format.MessageToString(schema)).encode())


def read(path: Path) -> schema_pb2.Schema:
    """Read a schema that was written as text, by us or by TensorFlow Data Validation.

    Raises:
        DataError: There is no such file, or it is no schema, or it names a feature or a domain twice, or a domain
            that is not there.
    """
    from google.protobuf import text_format
    from tensorflow_metadata.proto.v0 import schema_pb2

    try:
        schema = text_format.Parse(path.read_text(), schema_pb2.Schema())
    except (OSError, UnicodeDecodeError, text_format.ParseError) as error:
        raise DataError(
            f"The schema {path} can't be read.", expected="a `tensorflow.metadata.v0.Schema` as text", received=error
        ) from error
    problems = list(_contradictions(schema))
    if problems:
        lines = "".join(f"\n  - {problem}" for problem in problems)
        raise DataError(f"The schema {path} can't be used:{lines}", remedy=f"correct {path.name}")
    return schema


def _contradictions(schema: schema_pb2.Schema) -> Iterator[str]:
    domains = [domain.name for domain in (*schema.string_domain, *schema.int_domain, *schema.float_domain)]
    for what, names in (("feature", [entry.name for entry in schema.feature]), ("domain", domains)):
        for name in sorted({name for name in names if names.count(name) > 1}):
            yield f"there is more than one {what} `{name}`"
    for entry in schema.feature:
        for one in (entry, *entry.struct_domain.feature):
            if one.HasField("domain") and one.domain not in domains:
                yield f"`{one.name}` is of a domain `{one.domain}` that is not there: {nearest(one.domain, domains)}"


def reviewed_path(job: Job) -> Path:
    """Where the schema that a person has reviewed for this source of this workload is kept, or would be."""
    return projects.root() / "pipelines" / "schemas" / f"{job.workload}.{Path(job.source).name}.pbtxt"


def reviewed(job: Job) -> Path | None:
    """The schema that a person has reviewed for this source of this workload, if there is one."""
    path = reviewed_path(job)
    return path if path.is_file() else None


def reviewed_digest(job: Job) -> str | None:
    """The digest of the reviewed schema, for the key of a stage that enforces it."""
    path = reviewed(job)
    return hashlib.sha256(path.read_bytes()).hexdigest() if path else None


# --------------------------------------------------------------------------------------------- what was seen


def infer(features: Mapping[str, Feature], statistics: Statistics) -> schema_pb2.Schema:
    """The schema of a split: types, shapes, presence and classes as declared, ranges and other categories as seen.

    A vector whose positions are columns of a table is described column by column, as the fields of a struct. Targets,
    weights and notes are not expected in the environment `SERVING`.

    Args:
        features: The declared features.
        statistics: Of the split.
    """
    from tensorflow_metadata.proto.v0 import schema_pb2

    schema = schema_pb2.Schema(default_environment=[TRAINING, SERVING])
    for name, feature in features.items():
        seen = statistics[name]
        entry = schema.feature.add(name=name, type=getattr(schema_pb2, _PROTO_TYPES[feature.dtype]))
        if feature.role != "input":
            entry.not_in_environment.append(SERVING)
        entry.presence.min_count = 1
        if not feature.optional:
            entry.presence.min_fraction = 1.0
        _describe_shape(entry, feature, seen)
        if feature.columns:
            entry.type = schema_pb2.STRUCT
            for position, column in enumerate(feature.columns):
                field = entry.struct_domain.feature.add(
                    name=column.name, type=getattr(schema_pb2, _PROTO_TYPES[feature.dtype])
                )
                _describe_values(field, feature, seen, position)
        else:
            _describe_values(entry, feature, seen, None)
    return schema


_PROTO_TYPES = {"float32": "FLOAT", "int64": "INT", "uint8": "INT", "string": "BYTES"}
_BYTE = 255


def _describe_shape(entry: Any, feature: Feature, seen: FeatureStatistics) -> None:
    if feature.ragged:
        some = seen.lengths is not None and seen.lengths.count and seen.lengths.minimum > 0
        entry.value_count.min = feature.size if some else 0
        return
    for size in feature.shape:
        entry.shape.dim.add(size=size)
    if not feature.shape:
        entry.shape.SetInParent()


def _describe_values(entry: Any, feature: Feature, seen: FeatureStatistics, position: int | None) -> None:
    """The domain of a feature, or of one of its columns."""
    if feature.dtype == "string":
        _describe_strings(entry, feature, seen.tally or (seen.tallies[position] if position is not None else None))
        return
    if feature.role == "note":
        return
    if feature.classes:
        domain = entry.float_domain if feature.dtype == "float32" else entry.int_domain
        domain.min, domain.max, domain.is_categorical = 0, len(feature.classes) - 1, True
        entry.annotation.comment.extend(f"{number} is {name}" for number, name in enumerate(feature.classes))
        return
    if feature.kind == "image" and feature.dtype == "uint8":
        entry.int_domain.min, entry.int_domain.max = 0, _BYTE
        return
    low, high = (
        (seen.whole.minimum, seen.whole.maximum)
        if position is None
        else (float(seen.minimum[position]), float(seen.maximum[position]))
    )
    if math.isnan(low):
        return
    if feature.dtype == "float32":
        entry.float_domain.min, entry.float_domain.max = low, high
    else:
        entry.int_domain.min, entry.int_domain.max = int(low), int(high)
        if feature.kind == "category":
            entry.int_domain.is_categorical = True
    target = feature.kind == "category" and feature.role == "target"
    if (low, high) not in NATURAL and not target:
        entry.distribution_constraints.min_domain_mass = 0.0


def _describe_strings(entry: Any, feature: Feature, seen: Tally | None) -> None:
    if feature.kind in ("image", "mask"):
        entry.image_domain.minimum_supported_image_fraction = 1.0
    elif feature.classes:
        entry.string_domain.value.extend(feature.classes)
    elif feature.kind == "category":
        known = sorted(value for value in seen.counts if value) if seen and seen.exact and seen.unique <= FEW else []
        # A value that is no text could not be told from others by what is written here.
        if known and not any(UNREADABLE in value for value in known):
            entry.string_domain.value.extend(known)
            if feature.role != "target":
                entry.distribution_constraints.min_domain_mass = TOLERATED
    elif feature.kind == "text" and feature.role != "note":
        entry.natural_language_domain.SetInParent()


# --------------------------------------------------------------------------------------------------- rules

_RETIRED = ("PLANNED", "ALPHA", "DEBUG_ONLY", "DEPRECATED", "DISABLED")


def retired(entry: schema_pb2.Feature) -> bool:
    """Whether nothing is asked of a feature: it is planned, or no longer used."""
    from tensorflow_metadata.proto.v0 import schema_pb2

    return entry.deprecated or schema_pb2.LifecycleStage.Name(entry.lifecycle_stage) in _RETIRED


def demanded(schema: schema_pb2.Schema, entry: schema_pb2.Feature, environment: str | None) -> bool:
    """Whether a feature has to be there in an environment; None stands for any of them."""
    presence = entry.presence
    if not (presence.min_count or presence.min_fraction):
        return False
    if environment is None:
        return not entry.not_in_environment and not entry.in_environment
    if environment in entry.in_environment:
        return True
    expected = environment in schema.default_environment or not schema.default_environment
    return expected and not entry.in_environment and environment not in entry.not_in_environment


def environment(schema: schema_pb2.Schema, present: Collection[str], asked: str | None = None) -> str | None:
    """The environment that data are meant for.

    Args:
        schema: The schema.
        present: The features, or columns of features, that the data hold.
        asked: What the user says.

    Returns:
        What the user says; else the first of the schema's in which nothing is missing; else None.

    Raises:
        ConfigError: The schema knows no such environment.
    """
    known = list(schema.default_environment)
    for entry in schema.feature:
        known += [name for name in (*entry.in_environment, *entry.not_in_environment) if name not in known]
    if asked is not None:
        if asked not in known:
            raise unknown("environment", asked, known)
        return asked

    def complete(name: str) -> bool:
        return all(
            {entry.name, *(one.name for one in entry.struct_domain.feature)} & set(present)
            for entry in schema.feature
            if not retired(entry) and demanded(schema, entry, name)
        )

    return next(filter(complete, known), None)


def rules(schema: schema_pb2.Schema) -> Iterator[Rule]:
    """What a schema says, feature by feature; of a vector with named columns, column by column."""
    for entry in schema.feature:
        yield from [Rule.of(schema, entry, one) for one in entry.struct_domain.feature] or [Rule.of(schema, entry)]


def columns(schema: schema_pb2.Schema) -> dict[str, Literal["int64", "float32"] | None]:
    """The columns that a table of such data has, and the kind of number in each; None: text."""
    return {rule.label: rule.number for rule in rules(schema)}


@dataclass(frozen=True)
class Rule:
    """What a schema says of a feature, or of one column of it."""

    feature: str
    column: str
    """"" for the feature as a whole."""
    entry: Any
    """The `Feature` message."""
    domain: Any
    """The message that says which values are allowed, or None."""
    presence: Any
    """The message that says how many values have to be there."""

    @classmethod
    def of(cls, schema: schema_pb2.Schema, entry: schema_pb2.Feature, one: schema_pb2.Feature | None = None) -> Rule:
        """The rule for an entry of a schema, or for one field of its struct."""
        own = one or entry
        kind = own.WhichOneof("domain_info")
        domain = getattr(own, kind) if kind else None
        if kind == "domain":
            named = (*schema.string_domain, *schema.int_domain, *schema.float_domain)
            domain = next((candidate for candidate in named if candidate.name == own.domain), None)
        # What is said of a vector holds for each of its columns that says nothing of its own.
        presence = own.presence if own.HasField("presence") else entry.presence
        return cls(entry.name, one.name if one else "", own, domain, presence)

    @property
    def label(self) -> str:
        """What it is about, by the name that people know."""
        return self.column or self.feature

    @property
    def retired(self) -> bool:
        """Whether nothing is asked of it."""
        return retired(self.entry)

    @property
    def asked(self) -> bool:
        """Whether the column has to be there."""
        return not self.retired and bool(self.presence.min_count or self.presence.min_fraction)

    @property
    def tolerated(self) -> float:
        """Share of values that may lie outside of the domain."""
        return 1.0 - float(self.entry.distribution_constraints.min_domain_mass)

    def of_kind(self, *kinds: str) -> bool:
        """Whether the domain is one of these messages."""
        return self.domain is not None and self.domain.DESCRIPTOR.name in kinds

    @property
    def categorical(self) -> bool:
        """Whether numbers stand for classes."""
        return bool(getattr(self.domain, "is_categorical", False))

    @property
    def bounds(self) -> tuple[float, float] | None:
        """The smallest and the largest number allowed."""
        if self.of_kind("IntDomain", "FloatDomain"):
            low = self.domain.min if self.domain.HasField("min") else -math.inf
            return low, self.domain.max if self.domain.HasField("max") else math.inf
        return (0, 1) if self.of_kind("BoolDomain") and not self.allowed else None

    @property
    def allowed(self) -> tuple[str, ...]:
        """The strings allowed; empty: any."""
        if self.of_kind("StringDomain"):
            return tuple(self.domain.value)
        if self.of_kind("BoolDomain"):
            return tuple(value for value in (self.domain.true_value, self.domain.false_value) if value)
        return ()

    @property
    def number(self) -> Literal["int64", "float32"] | None:
        """The type of number that is asked for, also of strings."""
        from tensorflow_metadata.proto.v0 import schema_pb2

        if self.entry.type == schema_pb2.INT or self.of_kind("IntDomain"):
            return "int64"
        if self.entry.type == schema_pb2.FLOAT or self.of_kind("FloatDomain"):
            return "float32"
        return None


# ------------------------------------------------------------------------------------------- what is not enforced

_KNOWN = {
    "Schema": "feature string_domain float_domain int_domain default_environment dataset_constraints annotation "
    "tensor_representation_group represent_variable_length_as_ragged",
    "Feature": "name deprecated presence shape value_count type domain int_domain float_domain string_domain "
    "bool_domain struct_domain natural_language_domain image_domain distribution_constraints annotation in_environment "
    "not_in_environment lifecycle_stage unique_constraints skew_comparator drift_comparator",
    "StructDomain": "feature",
    "FloatDomain": "name min max disallow_inf is_categorical",
    "IntDomain": "name min max is_categorical",
    "BoolDomain": "name true_value false_value",
    "StringDomain": "name value is_categorical",
    "NaturalLanguageDomain": "",
    "ImageDomain": "minimum_supported_image_fraction max_image_byte_size",
    "DatasetConstraints": "min_examples_count max_examples_count",
    "FeatureComparator": "infinity_norm jensen_shannon_divergence",
    "JensenShannonDivergence": "threshold source",
}
"""Message → its fields that are enforced, or ask for nothing; of a message that is not here, all are."""


def not_enforced(schema: schema_pb2.Schema) -> list[str]:
    """What a schema says that nobody here looks after, in words: "company: audio_domain"."""
    return list(dict.fromkeys(_not_enforced(schema, ())))


def _not_enforced(message: Any, names: tuple[str, ...]) -> Iterator[str]:
    from google.protobuf.message import Message

    kind = message.DESCRIPTOR.name
    known = _KNOWN[kind].split() if kind in _KNOWN else None
    for descriptor, value in message.ListFields():
        # A struct within a struct has no columns of its own here.
        deeper = descriptor.name == "struct_domain" and len(names) > 1
        if deeper or (known is not None and descriptor.name not in known):
            yield ": ".join([*names, descriptor.name])
        elif descriptor.message_type:
            for inner in [value] if isinstance(value, Message) else value:
                yield from _not_enforced(inner, (*names, inner.name) if inner.DESCRIPTOR.name == "Feature" else names)
