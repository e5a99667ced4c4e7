"""A file of new data held against a schema: what is wrong with it, row by row where that can be told."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from headrace.errors import EXIT_OK, ConfigError, DataError
from headrace.jobs import Job
from headrace.spec import Feature
from headrace.validation import schema as schemas
from headrace.validation.anomalies import Anomaly, percent

if TYPE_CHECKING:
    import pyarrow as pa
    from tensorflow_metadata.proto.v0 import schema_pb2

    from headrace.describing.summaries import Statistics
    from headrace.readers.cells import Bad
    from headrace.validation.inspecting import Inspection


@dataclass(frozen=True)
class Findings:
    """What was found about a file."""

    file: str
    schema: str
    """Which schema it was held against."""
    environment: str | None
    """What the file was taken for: `TRAINING` (with targets), `SERVING` (without); None if the schema knows neither."""
    rows: int
    columns: list[dict[str, Any]]
    """As `Inspection.columns`."""
    anomalies: list[Anomaly]
    compared: list[dict[str, Any]]
    """How far each column lies from the training split, as `monitoring.moved`; empty if that could not be told."""
    not_enforced: list[str]
    """What the schema says that was not looked after."""
    unusable: list[dict[str, Any]] = field(default_factory=list)
    """Examples that can't be used, of data that are no table: as `Quarantine.noted`."""

    @property
    def errors(self) -> list[Anomaly]:
        """What must be corrected."""
        return [anomaly for anomaly in self.anomalies if anomaly.severity == "error"]

    @property
    def warnings(self) -> list[Anomaly]:
        """What is worth a look."""
        return [anomaly for anomaly in self.anomalies if anomaly.severity == "warning"]

    @property
    def verdict(self) -> Literal["pass", "fail"]:
        """Whether the file may be used: there is no error."""
        return "fail" if self.errors else "pass"

    @property
    def exit_code(self) -> int:
        """For the command line: 0, or that of a `DataError`."""
        return DataError.exit_code if self.errors else EXIT_OK

    def to_json(self) -> dict[str, Any]:
        """As a JSON value."""
        return {**asdict(self), "verdict": self.verdict}

    def in_words(self) -> list[str]:
        """The findings, a line for each: verdict, errors and warnings with their places, what is missing."""
        counts = f"{len(self.errors)} error{'s' * (len(self.errors) != 1)}"
        counts += f", {len(self.warnings)} warning{'s' * (len(self.warnings) != 1)}"
        lines = [f"{self.verdict}: {self.file}, {self.rows:,} rows against {self.schema}: {counts}"]
        lines += [f"{anomaly.severity}: {anomaly.told}" for anomaly in (*self.errors, *self.warnings)]
        missing = [c for c in self.columns if c["missing"]]
        if missing:
            shares = (f"{c['column'] or c['feature']} {percent(c['missing_share'])}" for c in missing)
            lines.append(f"missing values: {', '.join(shares)}")
        if self.not_enforced:
            lines.append(f"said by the schema, but not looked after: {'; '.join(self.not_enforced)}")
        return lines


def validate(job: Job, path: Path, records: Path | None = None, *, environment: str | None = None) -> Findings:
    """Hold a file of new data against the schema of a workload's source.

    That is the reviewed one (`pipelines/schemas/<workload>.<source>.pbtxt`) if there is one, else the one inferred from
    the training split. Where nothing is wrong with the values, their distributions are compared with the training
    split's, too.

    Args:
        job: Names the workload and the source.
        path: A table (CSV, TSV, Parquet) with the source's columns; or whatever else `own_data` reads: arrays,
            TFRecords, folders of files by class. Targets may be missing.
        records: The finished folder of `preprocess`, if it was run: it holds schema and statistics of the training
            split.
        environment: `TRAINING` or `SERVING`; default: what the columns of the file suggest.

    Raises:
        ConfigError: There is no schema yet, or it knows no such environment.
        DataError: The file can't be read as what it is: missing, empty, truncated, of no known kind, cells that don't
            fit the header. The message names the lines.
    """
    source, name = _schema_of(job, path, records)
    rules = schemas.read(source)
    if _is_table(path, job.origin.features):
        findings = _findings(path, name, rules, *_inspected(path, rules, _columns(job.origin.features), environment))
    else:
        findings = _of_examples(job, path, name, rules, environment)
    statistics = records / "statistics.json" if records else None
    if findings.errors or statistics is None or not statistics.is_file():
        return findings
    return _compared(findings, job, path, rules, statistics)


def _schema_of(job: Job, path: Path, records: Path | None) -> tuple[Path, str]:
    """The file of the schema that holds for a job, and what to call it."""
    reviewed = schemas.reviewed(job)
    if reviewed:
        return reviewed, f"the reviewed schema {reviewed.name}"
    inferred = records / "schema.pbtxt" if records else None
    if inferred and inferred.is_file():
        return inferred, "the schema inferred from the training split"
    raise ConfigError(
        f"There is no schema of {job.workload} yet to hold {path.name} against.",
        expected=f"{schemas.reviewed_path(job)}, or a run that has inferred one",
        remedy=f"`headrace data {job.workload}` infers it from the training split",
    )


def validate_table(
    path: Path, schema: Path | schema_pb2.Schema, *, environment: str | None = None, **reading: Any
) -> Findings:
    """Hold a table against a schema, whoever wrote it: no workload is needed.

    A schema of TensorFlow Data Validation describes a column for each feature. Numbers may be missing wherever its
    `presence` lets them.

    Args:
        path: A CSV, TSV or Parquet file, or a folder of them.
        schema: The schema, or the file that holds it as text.
        environment: One of the schema's; default: what the columns of the file suggest.
        reading: How the table is written (`member`, `delimiter`, `names`, `encoding`, `quotes`): see
            `tables.read_table`.

    Raises:
        ConfigError: The schema knows no such environment.
        DataError: The file, or the schema, can't be read.
    """
    rules = schemas.read(schema) if isinstance(schema, Path) else schema
    name = schema.name if isinstance(schema, Path) else "the schema"
    return _findings(path, name, rules, *_inspected(path, rules, {}, environment, **reading))


def _findings(path: Path, name: str, rules: schema_pb2.Schema, inspection: Inspection, lines: _Lines) -> Findings:
    anomalies = inspection.anomalies()
    known = lines({row for anomaly in anomalies for row in anomaly.rows})
    return Findings(
        file=path.name,
        schema=name,
        environment=inspection.environment,
        rows=inspection.rows,
        columns=inspection.columns(),
        anomalies=[replace(a, lines=tuple(known[row] for row in a.rows if row in known)) for a in anomalies],
        compared=[],
        not_enforced=schemas.not_enforced(rules),
    )


# ------------------------------------------------------------------------- examples of any kind, and tables


def _is_table(path: Path, features: Mapping[str, Feature]) -> bool:
    """Whether the path leads to a table, and each feature is a cell of it or several."""
    from headrace.readers.own_data import kind_of

    cells = all(
        not feature.shape or (bool(feature.columns) and len(feature.shape) == 1) for feature in features.values()
    )
    return cells and kind_of(path, features) == "table"


def _read(
    path: Path, features: Mapping[str, Feature], bad: Bad = "refuse"
) -> tuple[Iterator[pa.RecordBatch], dict[str, Feature]]:
    """The examples of a file, and which features they have: targets may be missing."""
    from headrace.readers.own_data import read_own

    batches = iter(read_own(path, features, bad=bad, targets_required=False))
    first = next(batches, None)
    if first is None:
        raise DataError(f"{path.name} holds no examples.", expected="at least one")
    present = {name: feature for name, feature in features.items() if name in first.schema.names}
    return itertools.chain([first], batches), present


def _of_examples(job: Job, path: Path, name: str, rules: schema_pb2.Schema, environment: str | None) -> Findings:
    """The findings about data that are read as a source of the user's own would be."""
    from headrace.validation.checking import Quarantine, checked
    from headrace.validation.inspecting import Inspection

    batches, present = _read(path, job.origin.features, bad="null")
    quarantine = Quarantine(1.0)
    inspection = Inspection(
        rules,
        present,
        environment=schemas.environment(rules, present, environment),
        where=path.name,
        original=quarantine.original,
    )
    for _ in inspection.watching(checked(batches, present, path.name, quarantine)):
        pass
    found = _findings(path, name, rules, inspection, lambda rows: {})
    return replace(
        found,
        rows=quarantine.examples,
        anomalies=[*quarantine.anomalies(), *found.anomalies],
        unusable=quarantine.noted,
    )


_Lines = Callable[[set[int]], Mapping[int, int]]
"""Rows → the lines of the file on which they stand, where it has lines."""


def _columns(features: Mapping[str, Feature]) -> dict[str, Feature]:
    """What is read from each column of a table: numbers, classes or text."""
    return {
        column: Feature(dtype=feature.dtype, classes=feature.classes)
        for name, feature in features.items()
        for column in ([column.name for column in feature.columns] or [name])
    }


def _inspected(
    path: Path,
    rules: schema_pb2.Schema,
    declared: Mapping[str, Feature],
    environment: str | None,
    **reading: Any,
) -> tuple[Inspection, _Lines]:
    """A table that has been through an inspection, cell by cell: nothing of what a cell holds stops it."""
    from headrace.readers.cells import unusable
    from headrace.readers.csv_tables import CsvTable
    from headrace.readers.tables import found, opened
    from headrace.validation.inspecting import Inspection

    tables = opened(path, **reading)
    header = tables[0].header()
    asked = schemas.columns(rules)
    places = {label: place for label in asked if (place := found(label, header)) is not None}
    places |= {name: name for name in header if name not in places.values()}
    twice = [f"there are {header.count(name)} columns `{name}`" for name in places.values() if header.count(name) > 1]
    twice += [
        f"{table.path.name} has other columns" for table in tables[1:] if sorted(table.header()) != sorted(header)
    ]
    if twice:
        raise unusable(path, twice, f"the columns {', '.join(asked)}, each of them once")
    text = Feature(dtype="string", content="text", optional=True)
    inspection = Inspection(
        rules,
        dict.fromkeys(places, text),
        environment=schemas.environment(rules, places, environment),
        where=path.name,
        cells={label: declared.get(label) or Feature(dtype=asked.get(label) or "string") for label in places},
    )
    for table in tables:
        for batch in table.batches(dict.fromkeys(places.values(), text), "refuse"):
            inspection.add(batch.select(list(places.values())).rename_columns(list(places)))
    first = tables[0]
    return inspection, first.lines if len(tables) == 1 and isinstance(first, CsvTable) else lambda rows: {}


# --------------------------------------------------------------------------------------------- comparison


def _compared(findings: Findings, job: Job, path: Path, rules: schema_pb2.Schema, statistics: Path) -> Findings:
    """The findings with what a comparison of the distributions with those of the training split adds to them."""
    from headrace.artifacts import read_json
    from headrace.describing.summaries import Statistics, summarise
    from headrace.monitoring import moved

    reference = Statistics.from_json(read_json(statistics) or {})
    batches, present = _read(path, job.origin.features)
    current = summarise(batches, present, like=reference)
    columns = moved(current, reference, job.settings.monitor, job.seed)
    skewed = [_skewed(column) for column in columns if column["drifted"]]
    return replace(
        findings,
        anomalies=[*findings.anomalies, *skewed, *comparisons(rules, current, reference)],
        compared=columns,
    )


def _skewed(column: Mapping[str, Any]) -> Anomaly:
    said = (
        f"{column['column']}: its distribution is {column['distance']:.2f} from the training split's, and "
        f"{percent(column['current']['outside'])} of the values are outside of its range: more than chance explains"
    )
    return Anomaly("warning", column["feature"], column["column"], said, "skew", share=column["distance"])


def comparisons(
    schema: schema_pb2.Schema,
    current: Statistics,
    reference: Statistics,
    comparator: Literal["skew_comparator", "drift_comparator"] = "skew_comparator",
) -> list[Anomaly]:
    """Where data lie further from a reference than the schema's comparators allow.

    Args:
        schema: The schema; only features with a comparator are compared.
        current: Statistics of the data, counted in the reference's places (`summarise(…, like=reference)`).
        reference: Of the training split for skew, of the day before for drift.
        comparator: Which thresholds hold.

    Returns:
        An error for each threshold that is passed: the largest difference between the shares of a value
        (`infinity_norm`), or the divergence of Jensen and Shannon in bits.
    """
    from headrace.describing.described import aligned
    from headrace.distances import divergence

    found = []
    for rule in schemas.rules(schema):
        if rule.retired or not rule.entry.HasField(comparator) or rule.feature not in current:
            continue
        limits = getattr(rule.entry, comparator)
        for aspect in aligned(reference[rule.feature], current[rule.feature]):
            if aspect.what not in (rule.label, "values", "all positions"):
                continue
            then, now = (counts / max(counts.sum(), 1) for counts in (aspect.then, aspect.now))
            measured = []
            if limits.HasField("infinity_norm") and not aspect.numbers:
                apart = abs(then - now)
                at = int(apart.argmax())
                share = f"the share of `{aspect.places[at]}` is {now[at]:.1%}, in the reference {then[at]:.1%}"
                measured.append(("frequencies", float(apart[at]), limits.infinity_norm.threshold, share))
            if limits.HasField("jensen_shannon_divergence"):
                bits, most = float(divergence(then, now)), limits.jensen_shannon_divergence.threshold
                measured.append(("skew", bits, most, f"the divergence from the reference is {bits:.3f} bits"))
            found += [
                Anomaly(
                    "error", rule.feature, rule.column, f"{rule.label}: {said}; allowed: {most:g}", kind, share=value
                )
                for kind, value, most, said in measured
                if value > most
            ]
    return found
