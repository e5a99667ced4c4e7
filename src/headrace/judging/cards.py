"""The model card: what a person should know before using a model, in Markdown, from what the stages have found."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from headrace.artifacts import Artifact, read_json
from headrace.bundling.signatures import DEFAULT, own_answer
from headrace.jobs import Job
from headrace.judging.verdicts import Gate, in_words
from headrace.measuring.words import short, spread, title
from headrace.spec import Feature

MOST = 30
"""Rows of a table, and names in a list; the files beside the card have them all."""


def model_card(
    job: Job,
    *,
    records: Artifact,
    evaluation: Artifact,
    bundle: Artifact,
    model: Artifact | None,
    lineage: Mapping[str, Any],
    verdict: Mapping[str, Any],
) -> str:
    """The card of a version.

    Args:
        job: The job.
        records: Output of `preprocess`.
        evaluation: Output of `evaluate`.
        bundle: Output of `export`.
        model: Output of `train`, if it is at hand.
        lineage: Contents of `lineage.json`.
        verdict: verdict, gates, waivers and reason.
    """
    measured = evaluation.json("evaluation.json")
    sections = {
        "Limits and notes": _limits(job, lineage["data"]["data"]),
        "Verdict": _verdict(verdict),
        "Data": _data(job, records, lineage["data"]),
        "Inputs and outputs": _features(job, measured, read_json(bundle.path / "bundle.json") or {}),
        "Training": _training(job, model),
        f"Metrics on {_count(measured.get('examples'))} test examples": _metrics(measured),
        "What that means": _said(measured),
        "Classes": _classes(measured),
        "Slices of the test split": _slices(measured),
        "Formats": _formats(read_json(bundle.path / "parity.json") or {}),
        "Lineage": _lineage(lineage),
    }
    head = [f"# {job.pipeline.title}", "", f"{job.title} · {job.task_in_words} · {job.pipeline.book}", ""]
    if job.settings.description:
        head += [job.settings.description, ""]
    body = [line for name, lines in sections.items() if lines for line in (f"## {name}", "", *lines, "")]
    return "\n".join([*head, *body]).rstrip() + "\n"


def _limits(job: Job, data: str) -> list[str]:
    limits = [job.origin.note] if job.origin.note else []
    if data != "real":
        limits.append("The data are made up. The model is fit for tests of the pipeline and for nothing else.")
    if job.profile != "full":
        limits.append(f"This was a {job.profile} run: the model is hardly trained.")
    limits.append(
        "It was tested on data like those it was trained on. `statistics.json` says what these look like; "
        "`headrace monitor` tells how far new data are from them."
    )
    return _listed(limits)


def _verdict(verdict: Mapping[str, Any]) -> list[str]:
    gates: Sequence[Gate] = verdict["gates"]
    lines = [f"**{verdict['verdict']}**" + (f": {verdict['reason']}" if verdict.get("reason") else ""), ""]
    lines += _table(("gate", "result", "because"), [(g["gate"], in_words(g), g["reason"]) for g in gates])
    for waiver in verdict.get("waivers", ()):
        words = f"{waiver['by']} waived the gate `{waiver['gate']}`: {waiver['reason']}"
        lines += ["", f"> {words}" if waiver["needed"] else f"> {words} (It was not needed: the gate did not fail.)"]
    return lines


def _data(job: Job, records: Artifact, data: Mapping[str, Any]) -> list[str]:
    source, info = job.origin, read_json(records.path / "info.json") or {}
    lines = [f"{source.title}: {data['data']} data (`{data.get('source', job.source)}`)."]
    facts = [
        *([f"Licence: {source.licence}"] if source.licence else []),
        *([f"Origin: {source.homepage}"] if source.homepage else []),
        *(
            f"Split `{name}`: {_count(split.get('examples'))} examples"
            for name, split in info.get("splits", {}).items()
        ),
    ]
    left_out = read_json(records.path / "quarantine.json")
    if left_out:
        facts.append(f"Left out as unusable: {left_out}")
    lines += ["", *_listed(facts)] if facts else []
    files = [(name, f"{file.get('size', 0):,}", f"`{file['sha256']}`") for name, file in data.get("files", {}).items()]
    return [*lines, "", *_table(("raw file", "bytes", "sha256"), files)] if files else lines


def _features(job: Job, measured: Mapping[str, Any], bundle: Mapping[str, Any]) -> list[str]:
    inputs, outputs = job.inputs, measured.get("outputs") or {}
    named = bundle.get("signatures") or {}
    own = own_answer(named)
    said = {DEFAULT: bundle.get("signature") or {}, **named}
    lines = [line for name, one in said.items() if named and name != own for line in _signature(name, one)]
    asked = f", asked by its signature `{own}`," if named else ""
    lines += [f"The SavedModel{asked} takes raw inputs by name, and answers by the name of the target.", ""]
    lines += [line for name, feature in inputs.items() for line in _feature(f"Input `{name}`", feature)]
    for name, output in outputs.items():
        task = output["task"].replace("_", " ")
        lines += _feature(f"Output `{name}` ({task})", Feature.model_validate(output["target"]))
    return lines


def _signature(name: str, said: Mapping[str, Any]) -> list[str]:
    """What a signature takes and gives that is no model's own answer."""
    sides = (
        ", ".join(f"`{key}` {one['dtype']} {one['shape']}" for key, one in (said.get(side) or {}).items())
        for side in ("inputs", "outputs")
    )
    return [f"Signature `{name}`: {' → '.join(sides)}", ""]


def _feature(name: str, feature: Feature) -> list[str]:
    shape = ", ".join("any length" if length is None else str(length) for length in feature.shape)
    words = [f"- {name}: {feature.dtype} [{shape}]", feature.description, f"in {feature.unit}" * bool(feature.unit)]
    lines = [", ".join(word for word in words if word)]
    if feature.classes:
        lines.append(f"  - classes: {_names(feature.classes)}")
    for column in feature.columns[:MOST]:
        about = f": {column.description}" if column.description else ""
        lines.append(f"  - {column.name}{about}{f' ({column.unit})' if column.unit else ''}")
    return lines


def _training(job: Job, model: Artifact | None) -> list[str]:
    train = job.settings.train
    history = read_json(model.path / "history.json") or {} if model else {}
    about = read_json(model.path / "training.json") or {} if model else {}
    rate = "its own" if train.learning_rate is None else f"{train.learning_rate:g}"
    epochs = history.get("epochs", train.epochs)
    lines = [
        f"{_count(epochs)} epochs in batches of {train.batch_size}"
        + (f", {history['stopped']}" if isinstance(history.get("stopped"), str) else ""),
        f"Optimizer: {_called(train.optimizer)}, learning rate: {rate}; loss: {_called(train.loss)}",
        f"Seed: {job.seed}; precision: {train.precision}",
    ]
    if about.get("parameters"):
        lines.append(f"Parameters: {_count(about['parameters'])}")
    if about.get("seconds") is not None:
        devices = f" on {about['replicas']} replicas" if about.get("replicas", 1) > 1 else ""
        lines.append(f"Time: {about['seconds']:.1f} s{devices}")
    if job.settings.cross_validation:
        cut = job.settings.cross_validation
        lines.append(f"Before it {cut.folds} folds were trained, repeated {cut.repeats} times, watching {cut.metric}")
    lines += [
        f"The weights of `{path or 'the whole model'}` are from {source}" for path, source in train.weights.items()
    ]
    if train.frozen:
        lines.append(f"Not trained: {', '.join(train.frozen)}")
    arguments = {**job.settings.preprocess, **job.settings.model, **job.settings.loop}
    if arguments:
        lines.append(f"Settings of the workload: {', '.join(f'{name} {value}' for name, value in arguments.items())}")
    return _listed(lines)


def _metrics(measured: Mapping[str, Any]) -> list[str]:
    baselines = measured.get("baselines") or {}
    rows = [
        (
            title(name),
            short(value),
            spread((measured.get("intervals") or {}).get(name)),
            *(short(theirs[name]) if name in theirs else "" for theirs in baselines.values()),
        )
        for name, value in measured["metrics"].items()
    ]
    return _table(("metric", "value", "95 % interval", *(f"naive: {name}" for name in baselines)), rows)


def _said(measured: Mapping[str, Any]) -> list[str]:
    outputs = (measured.get("outputs") or {}).items()
    many = len(outputs) > 1
    return _listed(f"{f'{name}: ' if many else ''}{words}" for name, one in outputs for words in one.get("said") or ())


def _classes(measured: Mapping[str, Any]) -> list[str]:
    lines: list[str] = []
    for name, one in (measured.get("outputs") or {}).items():
        rows = [
            (each["class"], _count(each.get("examples")), *(short(each.get(m)) for m in ("precision", "recall", "f1")))
            for each in one.get("per_class") or ()
        ]
        if rows:
            lines += [*([""] * bool(lines)), *_table((name, "examples", "precision", "recall", "F1"), rows)]
    return lines


def _slices(measured: Mapping[str, Any]) -> list[str]:
    metric = measured["primary"]
    rows = [
        (
            one["by"],
            one["slice"],
            _count(one["examples"]),
            short(one["metrics"].get(metric)),
            spread((one.get("intervals") or {}).get(metric)),
            "too few to tell" if one.get("small") else "worse" if one.get("worse") else "",
        )
        for one in measured.get("slices") or ()
    ]
    # What a person must see first.
    rows.sort(key=lambda row: row[-1] != "worse")
    return _table(("by", "slice", "examples", title(metric), "95 % interval", ""), rows)


def _formats(parity: Mapping[str, Any]) -> list[str]:
    rows = []
    for name, one in (parity.get("formats") or {}).items():
        if one.get("problem"):
            rows.append((name, "", "", "", "", "", f"can't be made: {one['problem']}"))
            continue
        verdict = {True: "agrees with Keras", False: "differs from Keras"}.get(one.get("passed"), "not judged")
        rows.append(
            (
                name,
                _count(one.get("bytes")),
                _figure(one.get("relative_difference"), ".1e"),
                _figure(one.get("agreement"), ".1%"),
                _figure(one.get("metric_loss"), ".2g"),
                " / ".join(filter(None, (_figure(one.get(f"milliseconds{which}"), ".3g") for which in ("", "_p95")))),
                "; ".join(filter(None, (verdict, one.get("remark")))),
            )
        )
    columns = ("largest relative difference", "same answer", "metric worse by", "ms for one example: median / 95 %", "")
    return _table(("format", "bytes", *columns), rows)


def _lineage(lineage: Mapping[str, Any]) -> list[str]:
    versions = {
        name: value for entry in lineage["stages"].values() for name, value in entry["ingredients"]["versions"].items()
    }
    stages = [f"{node}: `{entry['digest']}` ({entry['made']})" for node, entry in lineage["stages"].items()]
    named = ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))
    installed = f"Headrace {lineage['headrace']}, Python {lineage['python']}{f', {named}' if named else ''}"
    return _listed([*stages, f"{installed}; `environment.txt` has all that was installed"])


# ------------------------------------------------------------------------------------------------- Markdown


def _listed(lines: Iterable[str]) -> list[str]:
    return [f"- {line}" for line in lines]


def _table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    """A table; nothing if it has no rows."""
    if not rows:
        return []
    shown = [f"| {' | '.join(_cell(value) for value in row)} |" for row in rows[:MOST]]
    more = ["", f"… and {len(rows) - MOST} more"] if len(rows) > MOST else []
    return [f"| {' | '.join(map(_cell, columns))} |", "|" + "---|" * len(columns), *shown, *more]


def _cell(value: object) -> str:
    return " ".join(str(value).split()).replace("|", "\\|")


def _names(names: Sequence[str]) -> str:
    more = f" and {len(names) - MOST} more" if len(names) > MOST else ""
    return ", ".join(names[:MOST]) + more


def _called(value: Any) -> str:
    """Something of Keras with its arguments: "adam (clipnorm 1.0)"."""
    if not isinstance(value, Mapping):
        return str(value)
    if "name" not in value:
        return "; ".join(f"{name}: {_called(inner)}" for name, inner in value.items())
    others = ", ".join(f"{name} {inner}" for name, inner in value.items() if name != "name")
    return f"{value['name']} ({others})" if others else str(value["name"])


def _count(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else "?" if value is None else str(value)


def _figure(value: object, form: str) -> str:
    # Zero has no sign for people.
    return f"{value + 0.0:{form}}" if isinstance(value, int | float) else ""
