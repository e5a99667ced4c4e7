"""What every workload must be able to do, on its synthetic twin. Found by listing the folder: nothing to register."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import pytest

from headrace import Feature, Pipeline, Source, projects
from headrace.describing.summaries import summarise
from headrace.jobs import Profile, resolve
from headrace.readers.batches import to_arrays
from headrace.validation.checking import checked

WORKLOADS = projects.names()
SOURCES = [(name, source) for name in WORKLOADS for source in projects.load(name).sources]
VARIANTS = [
    (name, variant, profile)
    for name in WORKLOADS
    for variant in projects.load(name).variants
    for profile in get_args(Profile)
]


def twin(source: Source, folder: Path, seed: int = 0) -> Path:
    assert source.twin is not None, "a workload's source has a synthetic twin"
    folder.mkdir()
    source.twin(folder, seed)
    return folder


def whole(source: Source, raw: Path, split: str) -> dict[str, np.ndarray[Any, Any]]:
    """A split in memory."""
    table = pa.Table.from_batches(list(source.read(raw)[split])).combine_chunks()
    return to_arrays(table.to_batches()[0], source.features)


@pytest.fixture(params=SOURCES, ids=["-".join(pair) for pair in SOURCES])
def case(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Pipeline, Source, Path]:
    """Workload, source, and the raw folder of its twin."""
    name, source_name = request.param
    pipeline = projects.load(name)
    source = pipeline.sources[source_name]
    return pipeline, source, twin(source, tmp_path / "raw")


def prepared(pipeline: Pipeline, source: Source, raw: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """A raw batch of the training split, and the same batch preprocessed."""
    batches = list(checked(source.read(raw)["train"], source.features, "train"))
    statistics = summarise(batches, source.features)
    batch = to_arrays(batches[0], source.features)
    return batch, pipeline.preprocess(statistics)(batch)


@pytest.mark.parametrize("name", WORKLOADS)
def test_the_docstring_says_where_it_comes_from_and_what_to_expect(name: str) -> None:
    text = importlib.import_module(f"pipelines.{name}").__doc__ or ""

    for word in ("Book:", "Run:", "Expect:"):
        assert word in text
    assert f"TODO({name})" not in Path(projects.root() / "pipelines" / f"{name}.py").read_text()


@pytest.mark.parametrize(("name", "variant", "profile"), VARIANTS)
def test_every_variant_resolves(name: str, variant: str, profile: str) -> None:
    job = resolve(name, variant=variant, profile=profile)
    smoke = projects.load(name).smoke

    assert job.settings.train.epochs <= smoke.get("train.epochs", 10**6) or profile == "full"


@pytest.mark.parametrize(("name", "variant"), sorted({(name, variant) for name, variant, _ in VARIANTS}))
def test_the_smoke_profile_is_smaller(name: str, variant: str) -> None:
    full, smoke = (resolve(name, variant=variant, profile=profile).settings.train for profile in ("full", "smoke"))

    assert smoke.epochs < full.epochs


def test_the_twin_depends_on_its_seed_only(case: tuple[Pipeline, Source, Path], tmp_path: Path) -> None:
    _, source, raw = case
    again, other = twin(source, tmp_path / "again"), twin(source, tmp_path / "other", seed=1)

    for name, values in whole(source, raw, "train").items():
        np.testing.assert_array_equal(values, whole(source, again, "train")[name])
        assert not np.array_equal(values, whole(source, other, "train")[name])


def test_the_examples_are_as_declared_and_read_twice_alike(case: tuple[Pipeline, Source, Path]) -> None:
    _, source, raw = case
    splits = source.read(raw)

    assert {"train", "test"} <= set(splits)
    for split in splits:
        batches = list(checked(splits[split], source.features, split))
        assert sum(batch.num_rows for batch in batches) > 0
        assert batches == list(checked(splits[split], source.features, split))


def test_the_splits_share_no_example(case: tuple[Pipeline, Source, Path]) -> None:
    _, source, raw = case
    seen = {}
    for split in ("train", "test"):
        values = whole(source, raw, split)
        rows = zip(*(values[name] for name in source.named("input")), strict=True)
        seen[split] = {b"".join(np.asarray(value).tobytes() for value in row) for row in rows}

    assert not seen["train"] & seen["test"]


def test_preprocess_gives_the_same_eagerly_and_in_a_graph(case: tuple[Pipeline, Source, Path]) -> None:
    import tensorflow as tf

    pipeline, source, raw = case
    batch, eager = prepared(pipeline, source, raw)
    statistics = summarise(source.read(raw)["train"], source.features)
    dataset = tf.data.Dataset.from_tensors(batch).map(pipeline.preprocess(statistics))
    in_graph = next(dataset.as_numpy_iterator())

    assert set(eager) == set(in_graph)
    for name, value in eager.items():
        np.testing.assert_array_equal(np.asarray(value), in_graph[name])


def test_preprocess_works_on_the_inputs_alone(case: tuple[Pipeline, Source, Path]) -> None:
    """As it must when the model is served."""
    pipeline, source, raw = case
    batch, whole_batch = prepared(pipeline, source, raw)
    statistics = summarise(source.read(raw)["train"], source.features)
    served = pipeline.preprocess(statistics)({name: batch[name] for name in source.named("input")})

    for name in served:
        np.testing.assert_array_equal(np.asarray(served[name]), np.asarray(whole_batch[name]))


def test_the_model_takes_the_records_and_learns_a_step(case: tuple[Pipeline, Source, Path]) -> None:
    from headrace.engine.epochs import Program, Split
    from headrace.engine.strategies import choose

    pipeline, source, raw = case
    _, batch = prepared(pipeline, source, raw)
    records = {name: np.asarray(value)[:40] for name, value in batch.items()}
    targets = {name: records.pop(name) for name in source.named("target")}
    features = {name: Feature(shape=values.shape[1:], dtype=str(values.dtype)) for name, values in records.items()}
    settings = pipeline.variants[pipeline.default_variant].train.model_copy(update={"jit_compile": False})
    model = pipeline.model(features)
    before = [weight.numpy() for weight in model.trainable_variables]

    rows = Program(model, settings, choose("default"), Split(records, targets)).run(
        Split(records, targets), None, seed=0, first=0, epochs=1
    )

    assert np.isfinite(rows).all()
    assert any(not np.array_equal(a, b.numpy()) for a, b in zip(before, model.trainable_variables, strict=True))


def test_house_prices_has_the_parameters_of_the_book() -> None:
    pipeline = projects.load("house_prices")

    assert pipeline.model({"features": Feature(shape=(13,))}).count_params() == 5_121
