"""Finished folders made directly, so that a test of one stage need not run those before it; data of each kind."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headrace.artifacts import Artifact, close, write_json
from headrace.jobs import Job
from headrace.placing import dividing
from headrace.ragged import Ragged
from headrace.readers.batches import batches
from headrace.spec import Column, Feature


def artifact(folder: Path, node: str, **files: Any) -> Artifact:
    """A finished folder of what lies in it already and of these JSON files (name without ending → contents)."""
    for name, value in files.items():
        write_json(folder / f"{name}.json", value)
    facts = {"node": node, "made": "2020-01-01T00:00:00Z", "ingredients": {"versions": {}}}
    return Artifact(folder, close(folder, facts)["digest"], node)


def parts_of(size: int, patch: pytest.MonkeyPatch) -> None:
    """Have helpers work on parts of as many bytes, and here on the first piece only."""
    patch.setattr(dividing, "FEW", 0)
    patch.setattr(dividing, "SENT", float("inf"))
    patch.setattr(dividing, "PART", size)


def twin(job: Job, folder: Path) -> Artifact:
    """What `download` would give for the synthetic twin."""
    folder.mkdir(parents=True)
    assert job.origin.twin
    job.origin.twin(folder, 0)
    return artifact(folder, "download", data={"data": "synthetic", "source": job.source, "files": {}})


def trained(model: Any, folder: Path) -> Artifact:
    """What `train` would give with this Keras model."""
    from headrace.training import save_model

    folder.mkdir(parents=True)
    save_model(model, folder / "model.keras")
    return artifact(folder, "train")


# ---------------------------------------------------------------------------------- made-up data of each kind

Arrays = dict[str, Any]
Data = tuple[dict[str, Feature], Arrays]
"""Features, and the values of each: `(rows, *shape)`, objects or `Ragged`."""

LABEL = Feature(dtype="int64", role="target", classes=("calm", "wild", "odd"))


def _labels(rows: int, seed: int) -> tuple[np.random.Generator, np.ndarray]:
    random = np.random.default_rng([seed, rows])
    return random, random.integers(0, 3, rows)


def numbers(rows: int = 60, seed: int = 0) -> Data:
    """Two columns, which together say something about a price."""
    random, _ = _labels(rows, seed)
    x = random.normal(5, 2, (rows, 2)).astype(np.float32)
    price = (x @ [1.0, -1.0] + random.normal(0, 1, rows)).astype(np.float32)
    columns = (Column(name="rooms", unit="count"), Column(name="age", description="years since <built>"))
    return (
        {"x": Feature(shape=(2,), columns=columns), "price": Feature(role="target", unit="1,000 dollars")},
        {"x": x, "price": price},
    )


def table(rows: int = 60, seed: int = 0) -> Data:
    """A category, a number that may be missing, and the name of a person."""
    random, label = _labels(rows, seed)
    fare = random.gamma(2, 10, rows).astype(np.float32)
    fare[random.random(rows) < 0.25] = np.nan
    return (
        {
            "port": Feature(dtype="string", classes=("C", "Q", "S")),
            "fare": Feature(optional=True),
            "name": Feature(dtype="string", role="note"),
            "label": LABEL,
        },
        {
            "port": np.array([b"C", b"Q", b"S"], object)[random.integers(0, 3, rows)],
            "fare": fare,
            "name": np.array([f"person {i}".encode() for i in range(rows)], object),
            "label": label,
        },
    )


def images(rows: int = 60, seed: int = 0) -> Data:
    """Small grey images, the brighter the higher the class."""
    random, label = _labels(rows, seed)
    pixels = random.integers(0, 60, (rows, 8, 6, 1)) + 60 * label[:, None, None, None]
    return {"image": Feature(shape=(8, 6, 1), dtype="uint8"), "label": LABEL}, {
        "image": pixels.astype(np.uint8),
        "label": label,
    }


def picture(pixels: np.ndarray, kind: str = "PNG") -> bytes:
    """The bytes of an image file of these pixels (height, width) or (height, width, 3)."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(buffer, kind)
    return buffer.getvalue()


def files(rows: int = 30, seed: int = 0) -> Data:
    """Image files of different sizes, with their names."""
    random, label = _labels(rows, seed)
    sizes = random.integers(70, 140, (rows, 2))
    made = [picture(random.integers(0, 255, (*size, 3)), "JPEG") for size in sizes]
    return (
        {
            "image": Feature(dtype="string", content="image"),
            "file": Feature(dtype="string", role="note"),
            "label": LABEL,
        },
        {
            "image": np.array(made, object),
            "file": np.array([f"photo_{i}.jpg".encode() for i in range(rows)], object),
            "label": label,
        },
    )


def masks(rows: int = 30, seed: int = 0) -> Data:
    """Images in colour, and which of three classes each pixel belongs to."""
    random, _ = _labels(rows, seed)
    mask = random.integers(0, 3, (rows, 12, 12, 1)).astype(np.uint8)
    return (
        {
            "image": Feature(shape=(12, 12, 3), dtype="uint8"),
            "mask": Feature(
                shape=(12, 12, 1), dtype="uint8", role="target", content="mask", classes=("ground", "cat", "dog")
            ),
        },
        {"image": np.repeat(mask * 80, 3, axis=3), "mask": mask},
    )


def text(rows: int = 60, seed: int = 0) -> Data:
    """Reviews whose words go with their class."""
    random, label = _labels(rows, seed)
    words = np.array([["a", "quiet", "film"], ["a", "loud", "film"], ["some", "other", "thing"]])
    made = [" ".join(random.choice(words[k], 80)) for k in label]
    return {"review": Feature(dtype="string"), "label": LABEL}, {
        "review": np.array([line.encode() for line in made], object),
        "label": label,
    }


def tokens(rows: int = 60, seed: int = 0) -> Data:
    """Sequences of token numbers of different lengths, one of them empty."""
    random, label = _labels(rows, seed)
    made = [random.integers(0, 50, length) for length in [0, *random.integers(1, 90, rows - 1)]]
    return {"tokens": Feature(shape=(None,), dtype="int64"), "label": LABEL}, {
        "tokens": Ragged.of(made, np.int64),
        "label": label,
    }


def series(rows: int = 60, seed: int = 0) -> Data:
    """Windows of two channels, and the number that follows."""
    random, _ = _labels(rows, seed)
    walks = random.normal(0, 1, (rows, 48, 2)).cumsum(axis=1).astype(np.float32)
    return (
        {
            "window": Feature(shape=(48, 2), columns=(Column(name="T"), Column(name="p"))),
            "next": Feature(role="target"),
        },
        {"window": walks, "next": random.normal(0, 1, rows).astype(np.float32)},
    )


def sequences(rows: int = 60, seed: int = 0) -> Data:
    """Measurements of different lengths, one of them empty."""
    random, label = _labels(rows, seed)
    lengths = [0, *random.integers(1, 90, rows - 1)]
    made = [random.normal(k, 1, (length, 2)) for k, length in zip(label, lengths, strict=True)]
    return {"steps": Feature(shape=(None, 2)), "label": LABEL}, {
        "steps": Ragged.of(made, np.float32),
        "label": label,
    }


KINDS: dict[str, Callable[..., Data]] = {
    made.__name__: made for made in (numbers, table, images, files, masks, text, tokens, series, sequences)
}
"""A factory for each kind of data: rows and seed → features and values."""


def stand_in(job: Job, features: Mapping[str, Feature], splits: Mapping[str, Arrays], **source: Any) -> Job:
    """The same job on examples that are handed over, in the place of its workload's source."""
    given = {split: batches(values, 16) for split, values in splits.items()}
    origin = job.origin.model_copy(update={"read": lambda raw: given, "features": dict(features), **source})
    # A job finds its source by its workload's name; a test puts its own in that place.
    job.__dict__["origin"] = origin
    return job


def records(job: Job, raw: Artifact, folder: Path, **files: Any) -> Artifact:
    """What `preprocess` leaves of the raw examples, without the records: counts, statistics, schema."""
    from headrace.describing.summaries import summarise
    from headrace.preprocessing import raw_batches
    from headrace.validation import schema

    splits = {split: sum(b.num_rows for b in raw_batches(job, raw.path, split)) for split in job.origin.read(raw.path)}
    statistics = summarise(raw_batches(job, raw.path, "train"), job.origin.features)
    folder.mkdir(parents=True, exist_ok=True)
    schema.write(folder / "schema.pbtxt", schema.infer(job.origin.features, statistics))
    info = {"splits": {split: {"examples": count} for split, count in splits.items()}}
    return artifact(folder, "preprocess", statistics=statistics.to_json(), info=info, **files)
