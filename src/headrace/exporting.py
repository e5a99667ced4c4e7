"""Export a trained model for serving, and prove on recorded examples that each format answers as Keras does."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace.artifacts import Artifact, only, write_json
from headrace.bundling import assets, examples, free, graphs, parity, signatures, strangers
from headrace.bundling.compressing import compressed
from headrace.bundling.examples import EXAMPLES, recorded
from headrace.errors import StageFailed
from headrace.jobs import Job
from headrace.serving_check import cause
from headrace.spec import Feature
from headrace.stages import Room, stage

if TYPE_CHECKING:
    import keras

    from headrace.bundling.examples import Arrays
    from headrace.measuring.own import Models
    from headrace.records.inputs import Info

__all__ = ["export", "recorded", "write_saved_model"]

log = logging.getLogger(__name__)

FILES = {
    "saved_model": "saved_model",
    "tflite": "model.tflite",
    "tflite_dynamic": "model_dynamic.tflite",
    "tflite_float16": "model_float16.tflite",
    "tflite_int8": "model_int8.tflite",
    "onnx": "model.onnx",
}
"""Format → its file or folder in a bundle."""


@stage(
    settings=("export", "preprocess"),
    functions=("preprocess", "read", "serve", "custom"),
    versions=("tensorflow", "keras", "ai-edge-litert"),
    # TensorFlow numbers the functions of a graph anew each time; the weights, and the graph as TFLite, are the same.
    volatile=("saved_model/saved_model.pb", "saved_model/fingerprint.pb", "parity.json"),
    facts=lambda job: {
        "signature": signatures.shapes(job.inputs),
        "task": job.task,
        "metric": parity.promised(job),
    },
    tensorflow=True,
)
def export(job: Job, room: Room, raw: Artifact, records: Artifact, model: Artifact) -> None:
    """Write the bundle: a SavedModel that takes raw features, what is converted from it, and how well they agree.

    Writes `saved_model/` (with names of classes and vocabularies in `assets/`, and requests for TensorFlow Serving to
    warm up with), `model.keras`, the other formats (`FILES`), `examples.npz` (see `headrace.bundling.examples`),
    `representative.json` if int8 was asked for, `parity.json` (what was measured) and `bundle.json` (signatures,
    formats, and the gate, without measured times).

    What the workload's `serve` gives goes into the SavedModel, too, and is tried in the same way (see
    `headrace.bundling.signatures`); the other formats are made of the model itself.

    The expected answers come from the records that `preprocess` wrote, the others from raw examples through the
    exported graph: agreement means that training and serving prepare their inputs alike.

    Args:
        job: The job; its settings name formats and tolerances.
        room: Where to work.
        raw: Output of `download`.
        records: Output of `preprocess`, with the statistics that go into the graph.
        model: Output of `train`.

    Raises:
        StageFailed: Raw data and records don't correspond, Keras can't load the model, or what is to be served can't be
            saved.
    """
    from headrace.models import load
    from headrace.records.inputs import read_info

    settings = job.settings.export
    loaded = load(model)
    info = read_info(records.path)
    drawn = free.info(loaded, info)
    info, source = (drawn, drawn.named("input")) if drawn else (info, job.inputs)
    given, prepared = free.examples(drawn, settings.examples) if drawn else _examples(job, raw, records, info)
    info = free.answering(loaded, info)
    expected = _expected(job, info, loaded, given, prepared)
    texts = assets.Texts() if drawn else _assets(job, room, records, info, given, prepared)
    tried = given
    if drawn and job.function("serve"):
        # What is served beside a model that takes none of them may still take raw examples.
        tried = _examples(job, raw, records, read_info(records.path))[0] | given
    others = _Others.of(job, records, model, loaded, tried)
    served = write_saved_model(job, records, info, loaded, room.output / "saved_model", texts.files, others)
    requests = others.examples.get(signatures.DEFAULT, given) if others else given
    assets.write_warm_up(room.output / "saved_model", job.workload, requests)
    shutil.copyfile(only(model, "model.keras"), room.output / "model.keras")
    if (model.path / "weights.json").is_file():
        shutil.copyfile(model.path / "weights.json", room.output / "weights.json")

    # Whatever was asked for: the registry serves the SavedModel, and the other formats are converted from it.
    formats = list(dict.fromkeys(["saved_model", *settings.formats]))
    sources = _Sources(job, room, records, info, loaded, served)
    plans = [sources.plan(name) for name in formats]
    inputs = {name: prepared[name] for name in info.named("input")}
    written = examples.packed("raw", given) | examples.packed("output", expected.together)
    written |= examples.packed("truth", expected.truth)
    if any(plan.inputs == "prepared" for plan in plans):
        written |= examples.packed("prepared", inputs)
    if others:
        written |= others.packed()
        assets.write_signatures(room.output / "saved_model", others.named)
    examples.store(room.output / EXAMPLES, written)
    representative = _representative(job, room, raw, records, info, plans) if "tflite_int8" in formats else None
    lengths = examples.lengths(source)
    due = others.expected if others else {}
    found, heard = strangers.examined(room, plans, representative, lengths, expected, settings, due)
    gate = parity.gate(found, expected, settings, heard)
    cost = sources.cost(expected, inputs)
    if cost:
        gate["reason"] += f"; {cost['reason']}"
    measured = {"formats": found, "signatures": heard, "gate": gate, "compression": cost}
    write_json(room.output / "parity.json", measured)
    made = [plan for plan in plans if not found[plan.format]["problem"]]
    classes = {name: list(feature.classes) for name, feature in _targets(job, info).items()}
    own = signatures.described(served.features, expected.together)
    every = others.described(own) if others else {signatures.DEFAULT: own}
    described = {
        "signature": every.pop(signatures.DEFAULT),
        "signatures": every,
        "prepared": signatures.shapes(info.named("input")),
        "formats": ["keras", *(plan.format for plan in made)],
        "files": {"keras": "model.keras", **{plan.format: FILES[plan.format] for plan in made}},
        "inputs": {"keras": _takes("prepared", _KERAS), **{p.format: _takes(p.inputs, p.why, p.batch) for p in made}},
        "drawn": bool(drawn),
        "classes": {name: names for name, names in classes.items() if names},
        "assets": sorted(path.name for path in (room.output / "saved_model" / "assets").glob("*")),
        "readers": texts.readers,
        "no_reader": texts.without,
        "gate": gate,
    }
    write_json(room.output / "bundle.json", described)
    log.info("%s", gate["reason"])


_KERAS = "the model as it was trained, without preprocessing"


def _takes(kind: str, why: str | None, batch: int | None = None) -> dict[str, Any]:
    return {"kind": kind, "why": why, "batch": batch}


def _targets(job: Job, info: Info) -> dict[str, Feature]:
    """The targets with their classes: those of the source, where records hold them in another form."""
    raw = job.origin.features
    return {
        name: raw[name] if not feature.classes and name in raw else feature
        for name, feature in info.named("target").items()
    }


# ------------------------------------------------------------------------------------------ what is expected


def _examples(job: Job, raw: Artifact, records: Artifact, info: Info) -> tuple[Arrays, Arrays]:
    """The first test examples: their raw inputs as a server is sent them, and their records."""
    from headrace.preprocessing import raw_examples

    due = min(job.settings.export.examples, info.examples["test"])
    given = recorded(raw_examples(job, raw.path, "test"), job.inputs, due)
    count = len(next(iter(given.values())))
    if count != due:
        raise StageFailed(
            "The raw test examples are not those of the records.",
            expected=f"{due} examples",
            received=f"{count} examples",
            remedy=f"`read` in pipelines/{job.workload}.py must give the same examples in the same order each time",
        )
    return given, examples.prepared(records.path, "test", range(count))


def _expected(job: Job, info: Info, model: keras.Model, raw: Arrays, prepared: Arrays) -> parity.Expected:
    from headrace.serving_check import ALONE, joined

    inputs, targets = {name: prepared[name] for name in info.named("input")}, list(info.named("target"))
    together = _answers(model, inputs, targets)
    first = {name: values[:ALONE] for name, values in together.items()}
    alone = {"prepared": first, "raw": first}
    if any(feature.ragged for feature in info.named("input").values()):
        # One by one examples are not filled up to the length of others; a model may answer otherwise for that.
        rows = range(min(ALONE, len(next(iter(inputs.values())))))
        alone["raw"] = joined(_answers(model, _cut(inputs, row, info, raw), targets) for row in rows)
    measures, primary = parity.measures(job, info) if set(targets) <= set(prepared) else (None, "")
    return parity.Expected(
        together=together,
        alone=alone,
        truth={name: prepared[name] for name in targets if name in prepared},
        tasks={} if measures is None and isinstance(job.task, dict) else {name: job.task_of(name) for name in targets},
        measures=measures,
        primary=primary,
    )


def _answers(model: keras.Model, inputs: Mapping[str, Any], targets: list[str]) -> Arrays:
    import numpy as np

    from headrace.models import answer

    return {name: np.asarray(values) for name, values in answer(model, inputs, targets).items()}


def _cut(inputs: Arrays, row: int, info: Info, raw: Arrays) -> Arrays:
    """One record, without what ragged features were filled up with."""
    one = {name: values[row : row + 1] for name, values in inputs.items()}
    for name, feature in info.named("input").items():
        length = raw.get(examples.length_of(name))
        if feature.ragged and length is not None:
            one[name] = one[name][:, : int(length[row])]
    return one


# --------------------------------------------------------------------------------------------- SavedModels


@dataclass
class _Others:
    """What a workload serves beside its model's own answer, or in its place."""

    named: Mapping[str, signatures.Signature]
    given: signatures.Given
    models: Models
    examples: dict[str, Arrays]
    """Signature → on what it is tried."""
    expected: dict[str, Arrays]
    """Signature → what it answers here."""

    @classmethod
    def of(cls, job: Job, records: Artifact, model: Artifact, loaded: keras.Model, raw: Arrays) -> _Others | None:
        """What the workload's `serve` gives; None without one."""
        from headrace.measuring.own import Models
        from headrace.preprocessing import learned_function, learned_parts
        from headrace.records.inputs import read_info

        serve = job.function("serve")
        if serve is None:
            return None
        models = Models(model)
        models.loaded["model"] = loaded
        _, statistics, learned = learned_parts(job, records)
        function = learned_function(job, records)
        features = read_info(records.path).features
        given = signatures.Given(models, function, statistics, learned, features, job.settings)
        found = signatures.signatures(serve, given, job.workload)
        tried = {name: signatures.tried_on(name, signature, raw) for name, signature in found.items()}
        expected = {name: signatures.expected(name, signature, tried[name]) for name, signature in found.items()}
        return cls(found, given, models, tried, expected)

    def packed(self) -> Arrays:
        """The examples as they are recorded."""
        found: Arrays = {}
        for name in self.named:
            found |= examples.packed(f"{name}:inputs", self.examples[name])
            found |= examples.packed(f"{name}:outputs", self.expected[name])
        return found

    def described(self, own: Mapping[str, Any]) -> dict[str, Any]:
        """All signatures for `bundle.json`, that of the model's own answer among them."""
        return {signatures.beside(self.named): own} | {
            name: signatures.described(signature.inputs, self.expected[name]) for name, signature in self.named.items()
        }


def write_saved_model(
    job: Job,
    records: Artifact,
    info: Info,
    model: keras.Model,
    path: Path,
    files: Sequence[Path] = (),
    others: _Others | None = None,
) -> graphs.Graph:
    """Write a SavedModel that takes raw inputs by name, (batch, *shape), and answers by target.

    That is its `serving_default`; or its signature `answer`, where something else is served.

    Args:
        job: Names the preprocessing.
        records: What it has learned.
        info: What records are.
        model: The model.
        path: Where to write.
        files: What is copied into the folder `assets`.
        others: What is served besides.
    """
    if others is None:
        made = _raw_graph(job, records, info, model)
    else:
        # The same preprocessing for all: each one has tables of its own.
        made = _raw_graph(job, records, info, model, others.given.prepare)
        made = graphs.with_signatures(made, others.named, others.models.loaded)
    graphs.save(made, path, files)
    return made


def _raw_graph(
    job: Job, records: Artifact, info: Info, model: keras.Model, prepare: Any = None, **how: Any
) -> graphs.Graph:
    from headrace.preprocessing import learned_function

    if isinstance(info, free.Drawn):
        return graphs.graph(None, info.named("input"), model, info, **how)
    return graphs.graph(prepare or learned_function(job, records), job.inputs, model, info, **how)


def _assets(job: Job, room: Room, records: Artifact, info: Info, raw: Arrays, prepared: Arrays) -> assets.Texts:
    """Files of text that shall travel with the SavedModel."""
    from headrace.preprocessing import learned_function

    folder = room.scratch / "assets"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    texts = assets.Texts()
    if any(feature.dtype == "string" for feature in job.inputs.values()):
        inputs = {name: prepared[name] for name in info.named("input")}
        texts = assets.vocabularies(folder, learned_function(job, records), raw, inputs)
    texts.files += assets.labels(folder, _targets(job, info))
    return texts


@dataclass
class _Sources:
    """The SavedModels that formats are converted from: that of the bundle, or one made for the purpose."""

    job: Job
    room: Room
    records: Artifact
    info: Info
    model: keras.Model
    raw: graphs.Graph
    """That of the bundle."""
    _graphs: dict[str, graphs.Graph] = field(default_factory=dict)
    _saved: set[str] = field(default_factory=set)

    def plan(self, name: str) -> strangers.Plan:
        """What a format is made of, and how it is to be asked."""
        target = self.room.output / FILES[name]
        if name == "saved_model":
            return strangers.Plan(name, target, target)
        beyond = self.raw.beyond(lite=name.startswith("tflite"))
        plan = strangers.Plan(name, target, target, "prepared" if beyond else "raw")
        said = [f"the preprocessing has what only TensorFlow can do: {', '.join(beyond[:4])}"] if beyond else []
        try:
            how: dict[str, Any] = {}
            if name.startswith("tflite") and self._graph(plan.inputs).loops:
                # The converter of int8 ends the process where a recurrent layer loops; others need to know how often.
                how = {"unrolled": True} if name == "tflite_int8" else {"batch": 1}
                if "unrolled" in how and self._graph(plan.inputs, **how).loops:
                    how["batch"] = 1
                said.append("steps are written out one by one" if "unrolled" in how else "it loops over steps")
            source = self._path(plan.inputs, name not in parity.FLOAT, how)
        except Exception as error:  # a layer's own, of any kind
            return replace(plan, problem=cause(error))
        return replace(plan, source=source, batch=how.get("batch"), why="; ".join(said) or None)

    def _graph(self, inputs: graphs.Inputs, **how: Any) -> graphs.Graph:
        # What is served besides is no part of what formats are converted from.
        if inputs == "raw" and not how and not self.raw.others:
            return self.raw
        key = f"{inputs} {how}"
        if key not in self._graphs:
            self._graphs[key] = (
                _raw_graph(self.job, self.records, self.info, self.model, **how)
                if inputs == "raw"
                else graphs.graph(None, self.info.named("input"), self.model, self.info, **how)
            )
        return self._graphs[key]

    def _path(self, inputs: graphs.Inputs, quantised: bool, how: dict[str, Any]) -> Path:
        """The SavedModel of a graph, written if it isn't yet."""
        settings = self.job.settings.export
        smaller = quantised and bool(settings.prune or settings.cluster)
        if inputs == "raw" and not how and not smaller and not self.raw.others:
            return self.room.output / FILES["saved_model"]
        name = "-".join([inputs, *how, *(["compressed"] * smaller)])
        path = self.room.scratch / "sources" / name
        if name not in self._saved:
            shutil.rmtree(path, ignore_errors=True)
            made = self._graph(inputs, **how)
            with compressed(self.model, settings.prune, settings.cluster) if smaller else nullcontext():
                graphs.save(made, path)
            self._saved.add(name)
        return path

    def cost(self, expected: parity.Expected, inputs: Arrays) -> dict[str, Any] | None:
        """What pruning and clustering cost by themselves, before anything is quantised."""
        from headrace.measuring.words import short, title

        settings = self.job.settings.export
        if not settings.prune and not settings.cluster:
            return None
        with compressed(self.model, settings.prune, settings.cluster):
            after = expected.metric(_answers(self.model, inputs, list(expected.together)))
        before = expected.metric(expected.together)
        how = [f"{settings.prune:.0%} of each kernel pruned"] * bool(settings.prune)
        how += [f"{settings.cluster} different weights in each kernel"] * bool(settings.cluster)
        measured = (
            f": {title(expected.primary)} {short(after)} where it had {short(before)}" if expected.primary else ""
        )
        reason = f"before quantisation {' and '.join(how)}{measured}"
        return {
            "prune": settings.prune,
            "cluster": settings.cluster,
            "before": before,
            "after": after,
            "reason": reason,
        }


def _representative(
    job: Job, room: Room, raw: Artifact, records: Artifact, info: Info, plans: Sequence[strangers.Plan]
) -> Path:
    """Draw training examples by which int8 finds its ranges; `representative.json` says which ones they are."""
    import numpy as np

    from headrace.preprocessing import raw_examples

    (kind,) = {plan.inputs for plan in plans if plan.format == "tflite_int8"}
    path = room.scratch / "representative.npz"
    if isinstance(info, free.Drawn):
        count = job.settings.export.representative
        write_json(room.output / "representative.json", {"split": None, "inputs": kind, "examples": count, "rows": []})
        examples.store(path, examples.packed(kind, free.examples(info, count, seed=1)[0]))
        return path
    count = info.examples["train"]
    drawn = np.random.default_rng(job.seed).choice(count, min(job.settings.export.representative, count), replace=False)
    rows = sorted(map(int, drawn))
    if kind == "raw":
        found = recorded(raw_examples(job, raw.path, "train"), job.inputs, rows)
    else:
        given = examples.prepared(records.path, "train", rows)
        found = {name: given[name] for name in info.named("input")}
    said = {"split": "train", "inputs": kind, "examples": len(rows), "rows": rows, "sha256": examples.digest(found)}
    write_json(room.output / "representative.json", said)
    examples.store(path, examples.packed(kind, found))
    return path
