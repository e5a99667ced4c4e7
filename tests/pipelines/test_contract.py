"""What every workload must be able to do, on its synthetic twin. Found by listing the folder: nothing to register."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import pytest

from headrace import Feature, Source, projects
from headrace.describing.summaries import summarise
from headrace.jobs import Job, Profile, resolve, taken
from headrace.ragged import from_tensor, joined
from headrace.readers.batches import to_arrays
from headrace.validation.checking import checked
from headrace.windows import examples, of_example

WORKLOADS = projects.names()
VARIANTS = [(name, variant) for name in WORKLOADS for variant in projects.load(name).variants]


def users() -> Iterator[tuple[str, str, str]]:
    """Every source of every workload, with a variant that takes it."""
    for name in WORKLOADS:
        pipeline = projects.load(name)
        for source in pipeline.sources:
            own = [variant for variant, one in pipeline.variants.items() if one.source == source]
            yield name, source, (own or [pipeline.default_variant])[0]


def kinds() -> Iterator[tuple[str, str]]:
    """The variants that differ in code: one of those that differ in settings only is enough."""
    seen = set()
    for name, variant in VARIANTS:
        pipeline = projects.load(name)
        functions = ("preprocess", "learn", "model", "compile", "loop")
        code = (name, *(pipeline.function(function, variant) for function in functions))
        if code not in seen:
            seen.add(code)
            yield name, variant


USERS, KINDS = list(users()), list(kinds())


def twin(source: Source, folder: Path, seed: int = 0) -> Path:
    """The raw folder of a source's twin."""
    assert source.stand_in is not None, "a workload's source has a synthetic twin, or is made"
    folder.mkdir()
    source.stand_in(folder, seed)
    return folder


Twins = Callable[[Source], Path]


@pytest.fixture(scope="session")
def twins(tmp_path_factory: pytest.TempPathFactory) -> Twins:
    """The raw folder of a source's twin, made once for all tests that only read it."""

    @cache
    def made(stand_in: object) -> Path:
        return tmp_path_factory.mktemp("twin")

    def raw(source: Source) -> Path:
        folder = made(source.stand_in)
        return folder / "raw" if (folder / "raw").is_dir() else twin(source, folder / "raw")

    return raw


def whole(source: Source, raw: Path, split: str) -> dict[str, Any]:
    """A split in memory."""
    table = pa.Table.from_batches(list(source.read(raw)[split])).combine_chunks()
    return to_arrays(table.to_batches()[0], source.features)


def parts(values: Any) -> list[bytes]:
    """The bytes of each example."""
    return [value if isinstance(value, bytes) else np.asarray(value).tobytes() for value in values]


@dataclass(frozen=True)
class Case:
    """A variant of a workload on the twin of one of its sources."""

    job: Job
    raw: Path

    @property
    def source(self) -> Source:
        return self.job.origin

    @cached_property
    def batch(self) -> dict[str, Any]:
        """The first examples of the training split, as `read` gives them."""
        return to_arrays(next(iter(self.batches())), self.source.features)

    def batches(self) -> Iterator[pa.RecordBatch]:
        return iter(checked(self.source.read(self.raw)["train"], self.source.features, "train"))

    def preprocessing(self) -> Callable[[Any], Any]:
        """The workload's own function, made of what it learns from the training split."""
        statistics = summarise(self.batches(), self.source.features)
        make, learn, given = self.job.the("preprocess"), self.job.function("learn"), self.job.settings.preprocess
        learned = []
        if learn:
            batches = [tensors(to_arrays(batch, self.source.features)) for batch in self.batches()]
            learned = [learn(batches, statistics, **taken(learn, {**given, "raw": self.raw}))]
        self.learned.update(*learned)
        return make(statistics, *learned, **taken(make, given))

    @cached_property
    def learned(self) -> dict[str, Any]:
        """What the workload's `learn` has given."""
        return {}

    @cached_property
    def prepared(self) -> dict[str, Any]:
        """The same examples as records hold them."""
        return {name: from_tensor(value) for name, value in self.preprocessing()(tensors(self.batch)).items()}


def tensors(arrays: dict[str, Any]) -> dict[str, Any]:
    from headrace.ragged import to_tensor

    return {name: to_tensor(values) for name, values in arrays.items()}


def same(one: Any, other: Any) -> None:
    for name in ("values", "splits") if hasattr(one, "splits") else (None,):
        np.testing.assert_array_equal(*(getattr(side, name) if name else side for side in (one, other)))


def case_of(twins: Twins, workload: str, variant: str, source: str | None = None) -> Case:
    job = resolve(workload, variant=variant, source=source, profile="smoke", data="synthetic")
    return Case(job, twins(job.origin))


@pytest.fixture(scope="module", params=USERS, ids=map("-".join, USERS))
def case(request: pytest.FixtureRequest, twins: Twins) -> Case:
    """A source of a workload."""
    name, source, variant = request.param
    return case_of(twins, name, variant, source)


@pytest.mark.parametrize("name", WORKLOADS)
def test_the_docstring_says_where_it_comes_from_and_what_to_expect(name: str) -> None:
    text = importlib.import_module(f"pipelines.{name}").__doc__ or ""
    place = projects.root() / "pipelines" / name

    for word in ("Book:", "Run:", "Expect:"):
        assert word in text
    for file in place.glob("*.py") if place.is_dir() else [place.with_suffix(".py")]:
        assert f"TODO({name})" not in file.read_text()


@pytest.mark.parametrize(("name", "variant"), VARIANTS)
@pytest.mark.parametrize("profile", get_args(Profile))
def test_every_variant_resolves(name: str, variant: str, profile: str) -> None:
    job = resolve(name, variant=variant, profile=profile)
    smoke = projects.load(name).smoke

    assert job.settings.train.epochs <= smoke.get("train.epochs", 10**6) or profile == "full"


@pytest.mark.parametrize(("name", "variant"), VARIANTS)
def test_the_smoke_profile_is_smaller(name: str, variant: str) -> None:
    full, smoke = (resolve(name, variant=variant, profile=profile).settings.train for profile in ("full", "smoke"))

    assert smoke.epochs < full.epochs or smoke.epochs == 1


@pytest.mark.parametrize("name", WORKLOADS)
def test_studies_tunings_and_ensembles_can_be_carried_out(name: str) -> None:
    from headrace import ensembling, studying, tuning

    pipeline = projects.load(name)
    for module, kind in ((studying, "studies"), (tuning, "tunings"), (ensembling, "ensembles")):
        for called in getattr(pipeline, kind):
            for profile in get_args(Profile):
                assert module.plan(name, called, profile=profile)


def test_the_twin_depends_on_its_seed_only(case: Case, tmp_path: Path) -> None:
    again, other = twin(case.source, tmp_path / "again"), twin(case.source, tmp_path / "other", seed=1)
    first = whole(case.source, case.raw, "train")

    for name, values in whole(case.source, again, "train").items():
        same(values, first[name])
    # What is made by definition may be the same for every seed.
    if case.source.twin:
        changed = whole(case.source, other, "train")
        assert any(parts(values) != parts(changed[name]) for name, values in first.items())


def test_the_examples_are_as_declared_and_read_twice_alike(case: Case) -> None:
    splits = case.source.read(case.raw)

    assert {"train", "test"} <= set(splits)
    for split in splits:
        batches = list(checked(splits[split], case.source.features, split))
        assert sum(batch.num_rows for batch in batches) > 0
        assert batches == list(checked(splits[split], case.source.features, split))


def test_the_splits_share_no_example(case: Case) -> None:
    seen = {}
    for split in ("train", "test"):
        values = whole(case.source, case.raw, split)
        rows = zip(*(parts(values[name]) for name in case.source.named("input")), strict=True)
        seen[split] = {b"|".join(row) for row in rows}

    assert not seen["train"] & seen["test"]


def test_preprocess_gives_the_same_eagerly_and_in_a_graph(case: Case) -> None:
    import tensorflow as tf

    dataset = tf.data.Dataset.from_tensors(tensors(case.batch)).map(case.preprocessing())
    in_graph = next(iter(dataset))

    assert set(case.prepared) == set(in_graph)
    for name, value in case.prepared.items():
        same(value, from_tensor(in_graph[name]))


def test_preprocess_works_on_the_inputs_alone(case: Case) -> None:
    """As it must when the model is served."""
    inputs = {name: case.batch[name] for name in case.source.named("input")}

    served = case.preprocessing()(tensors(inputs))

    for name, values in served.items():
        same(from_tensor(values), case.prepared[name])


@pytest.mark.slow  # all together; every variant is trained by test_smoke.py as well
@pytest.mark.parametrize(("name", "variant"), KINDS, ids=map("-".join, KINDS))
def test_the_model_takes_the_records_and_learns_a_step(
    name: str, variant: str, twins: Twins, monkeypatch: pytest.MonkeyPatch
) -> None:
    from headrace.engine.epochs import Program
    from headrace.engine.feeding import Split
    from headrace.engine.loops import Start
    from headrace.engine.steps import Step
    from headrace.engine.strategies import choose

    case = case_of(twins, name, variant)
    job, roles = case.job, case.job.pipeline.records.roles
    features, values = {}, {}
    for called, found in case.prepared.items():
        declared = case.source.features.get(called)
        shape = (None, *found.values.shape[1:]) if hasattr(found, "splits") else found.shape[1:]
        dtype = "string" if found.dtype == object else str(found.dtype)
        role = declared.role if declared else roles.get(called, "input")
        features[called] = Feature(shape=shape, dtype=dtype, role=role)
        values[called] = joined([found])
    if job.settings.windows:
        windows = job.settings.windows
        values = examples(values, features, windows, 40)
        features = {called: of_example(feature, windows) for called, feature in features.items()}
    values = {called: found[slice(0, 40)] for called, found in values.items()}
    inputs, targets = ({n: v for n, v in values.items() if features[n].role == role} for role in ("input", "target"))
    given = {called: feature for called, feature in features.items() if feature.role == "input"}
    # Nothing is held out here, so that nothing can be watched.
    usual = {"jit_compile": False, "checkpoint": None, "early_stopping": None, "reduce_lr": None}
    split, settings = Split(inputs, targets), job.settings.train.model_copy(update=usual)
    make_model = job.the("model")
    model = make_model(given, **taken(make_model, {**job.settings.model, "learned": case.learned}))
    make = job.function("loop")

    if make:
        monkeypatch.setattr(Start, "notes", {n: v for n, v in values.items() if features[n].role == "note"})
        loop = make(Start(model, split, None, features, settings, seed=0), **job.settings.loop)
        before = [weight.numpy() for weight in model.trainable_variables]
        figures = list(loop.advance(0).values())
    else:
        before = [weight.numpy() for weight in model.trainable_variables]
        step = Step(
            model,
            settings,
            choose("default"),
            split,
            custom=job.pipeline.objects,
            own_compile=job.function("compile"),
        )
        before = before or [weight.numpy() for weight in model.trainable_variables]
        figures = Program(step).run(split, None, seed=0, first=0, epochs=1)

    assert np.isfinite(figures).all()
    moved = [not np.array_equal(a, b.numpy()) for a, b in zip(before, model.trainable_variables, strict=True)]
    assert any(moved) or not moved


def test_house_prices_has_the_parameters_of_the_book() -> None:
    pipeline = projects.load("house_prices")

    assert pipeline.model({"features": Feature(shape=(13,))}).count_params() == 5_121
