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
from headrace.bundling import assets, examples, free, graphs, parity, strangers
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
    functions=("preprocess", "read"),
    versions=("tensorflow", "keras", "ai-edge-litert"),
    # TensorFlow numbers the functions of a graph anew each time; the weights, and the graph as TFLite, are the same.
    volatile=("saved_model/saved_model.pb", "saved_model/fingerprint.pb", "parity.json"),
    facts=lambda job: {
        "signature": _signature(job.origin.named("input")),
        "task": job.task,
        "metric": parity.promised(job),
    },
    tensorflow=True,
)
def export(job: Job, room: Room, raw: Artifact, records: Artifact, model: Artifact) -> None:
    """Write the bundle: a SavedModel that takes raw features, what is converted from it, and how well they agree.

    Writes `saved_model/` (with names of classes and vocabularies in `assets/`, and requests for TensorFlow Serving to
    warm up with), `model.keras`, the other formats (`FILES`), `examples.npz` (see `headrace.bundling.examples`),
    `representative.json` if int8 was asked for, `parity.json` (what was measured) and `bundle.json` (signature,
    formats, and the gate, without measured times).

    The expected answers come from the records that `preprocess` wrote, the others from raw examples through the
    exported graph: agreement means that training and serving prepare their inputs alike.

    Args:
        job: The job; its settings name formats and tolerances.
        room: Where to work.
        raw: Output of `download`.
        records: Output of `preprocess`, with the statistics that go into the graph.
        model: Output of `train`.

    Raises:
        StageFailed: Raw data and records don't correspond, Keras can't load the model, or preprocessing can't be saved.
    """
    from headrace.models import load
    from headrace.records.inputs import read_info

    settings = job.settings.export
    loaded = load(model)
    info = read_info(records.path)
    drawn = free.info(loaded, info)
    info, source = (drawn, drawn.named("input")) if drawn else (info, job.origin.named("input"))
    given, prepared = free.examples(drawn, settings.examples) if drawn else _examples(job, raw, records, info)
    expected = _expected(job, info, loaded, given, prepared)
    texts = assets.Texts() if drawn else _assets(job, room, records, info, given, prepared)
    served = write_saved_model(job, records, info, loaded, room.output / "saved_model", texts.files)
    assets.write_warm_up(room.output / "saved_model", job.workload, given)
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
    examples.store(room.output / EXAMPLES, written)
    representative = _representative(job, room, raw, records, info, plans) if "tflite_int8" in formats else None
    lengths = examples.lengths(source)
    found = strangers.examined(room, plans, representative, lengths, expected, settings)
    gate = parity.gate(found, expected, settings)
    cost = sources.cost(expected, inputs)
    if cost:
        gate["reason"] += f"; {cost['reason']}"
    write_json(room.output / "parity.json", {"formats": found, "gate": gate, "compression": cost})
    made = [plan for plan in plans if not found[plan.format]["problem"]]
    classes = {name: list(feature.classes) for name, feature in _targets(job, info).items()}
    described = {
        "signature": {"inputs": _signature(served.features), "outputs": _outputs(expected.together)},
        "prepared": _signature(info.named("input")),
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


def _signature(features: Mapping[str, Feature]) -> dict[str, Any]:
    return {name: {"dtype": feature.dtype, "shape": list(feature.shape)} for name, feature in features.items()}


def _outputs(answers: Arrays) -> dict[str, Any]:
    return {name: {"dtype": str(values.dtype), "shape": list(values.shape[1:])} for name, values in answers.items()}


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
    from headrace.preprocessing import raw_batches

    due = min(job.settings.export.examples, info.examples["test"])
    given = recorded(raw_batches(job, raw.path, "test"), job.origin.named("input"), due)
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


def write_saved_model(
    job: Job, records: Artifact, info: Info, model: keras.Model, path: Path, files: Sequence[Path] = ()
) -> graphs.Graph:
    """Write a SavedModel whose `serving_default` takes raw inputs by name, (batch, *shape), and answers by target.

    Args:
        job: Names the preprocessing.
        records: What it has learned.
        info: What records are.
        model: The model.
        path: Where to write.
        files: What is copied into the folder `assets`.
    """
    made = _raw_graph(job, records, info, model)
    graphs.save(made, path, files)
    return made


def _raw_graph(job: Job, records: Artifact, info: Info, model: keras.Model, **how: Any) -> graphs.Graph:
    from headrace.preprocessing import learned_function

    if isinstance(info, free.Drawn):
        return graphs.graph(None, info.named("input"), model, info, **how)
    return graphs.graph(learned_function(job, records), job.origin.named("input"), model, info, **how)


def _assets(job: Job, room: Room, records: Artifact, info: Info, raw: Arrays, prepared: Arrays) -> assets.Texts:
    """Files of text that shall travel with the SavedModel."""
    from headrace.preprocessing import learned_function

    folder = room.scratch / "assets"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    texts = assets.Texts()
    if any(feature.dtype == "string" for feature in job.origin.named("input").values()):
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
        if inputs == "raw" and not how:
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
        if inputs == "raw" and not how and not smaller:
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

    from headrace.preprocessing import raw_batches

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
        found = recorded(raw_batches(job, raw.path, "train"), job.origin.named("input"), rows)
    else:
        given = examples.prepared(records.path, "train", rows)
        found = {name: given[name] for name in info.named("input")}
    said = {"split": "train", "inputs": kind, "examples": len(rows), "rows": rows, "sha256": examples.digest(found)}
    write_json(room.output / "representative.json", said)
    examples.store(path, examples.packed(kind, found))
    return path
