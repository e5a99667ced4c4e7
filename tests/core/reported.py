"""Results of each task as a run leaves them, made by hand: records, an evaluation, and what was predicted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from headrace.artifacts import Artifact, write_json
from headrace.ragged import Ragged
from headrace.spec import Column, Feature
from tests.core.keeping import keep
from tests.core.making import artifact

ROWS = 40
Results = dict[str, Artifact]
"""Node → its artifact: `preprocess`, `evaluate` and `train`."""


def results(
    folder: Path,
    task: str,
    features: Mapping[str, Feature],
    values: Mapping[str, Any],
    answers: Any,
    said: Mapping[str, Any] | None = None,
    **evaluation: Any,
) -> Results:
    """Results of one output.

    Args:
        folder: Where they go.
        task: The task.
        features: Of the records; the last one is the target.
        values: Of the test split.
        answers: What was answered to it.
        said: What the evaluation says of the output.
        **evaluation: What the evaluation says beside that.
    """
    name = list(features)[-1]
    keep(folder / "preprocess", features, train=values, test=values)
    (folder / "evaluate").mkdir()
    truth = values[name]
    np.savez(folder / "evaluate" / "predictions.npz", **{f"truth/{name}": truth, f"answer/{name}": answers})
    output = {"task": task, "target": features[name].model_dump(mode="json"), **(said or {})}
    found = {
        "split": "test",
        "examples": len(truth),
        "primary": "accuracy",
        "larger_is_better": ["accuracy"],
        "outputs": {name: output},
        "metrics": {"accuracy": 0.75, "log_loss": None},
        "intervals": {"accuracy": [0.7, 0.8], "log_loss": None},
        "baselines": {"majority class": {"accuracy": 0.5, "log_loss": 0.7}, "last value": {}},
        "gates": [],
        "promises": [],
        **evaluation,
    }
    epochs = [1.0, 0.5, 0.4]
    rate = [0.1, 0.01, 0.001]
    metrics = {"loss": epochs, "accuracy": epochs[::-1], "val_loss": epochs, "learning_rate": rate}
    samples = folder / "train" / "samples"
    samples.mkdir(parents=True)
    for epoch in range(1, 31):
        (samples / f"{epoch:05d}-a_text.txt").write_text(f"after <{epoch}> epochs")
        (samples / f"{epoch:05d}-an_image.png").write_bytes(_png(epoch))
    history = {"epochs": 3, "metrics": metrics, "stopped": None}
    return {
        "preprocess": artifact(folder / "preprocess", "preprocess"),
        "train": artifact(folder / "train", "train", history=history),
        "evaluate": artifact(folder / "evaluate", "evaluate", evaluation=found),
    }


def _png(level: int) -> bytes:
    from tests.core.making import picture

    return picture(np.full((16, 16), level * 8))


def _worst(truth: Any, answer: Any, rows: Any, sure: bool = True) -> list[dict[str, Any]]:
    return [
        {
            "example": int(row),
            "error": 0.9 - place / 100,
            "truth": truth[row],
            "answer": answer[row],
            "confidence": 0.99 - place / 100 if sure else None,
        }
        for place, row in enumerate(rows)
    ]


def points(folder: Path) -> Results:
    """Two classes in the plane, told apart by a line."""
    random = np.random.default_rng(0)
    x = random.normal(0, 1, (200, 2)).astype(np.float32)
    label = (x.sum(axis=1) > 0).astype(np.int64)
    answers = 1 / (1 + np.exp(-3 * (x.sum(axis=1, keepdims=True) - 0.2)))
    names = ["<left>", "right"]
    said = {
        "classes": names,
        "confusion": [[90, 10], [4, 96]],
        "roc": {"x": [0, 0.1, 1], "y": [0, 0.9, 1]},
        "precision_recall": {"x": [0, 0.9, 1], "y": [1, 0.9, 0.5]},
        "calibration": [
            {"from": 0.5, "to": 0.6, "examples": 20, "confidence": 0.55, "accuracy": 0.5},
            {"from": 0.9, "to": 1.0, "examples": 180, "confidence": 0.97, "accuracy": 0.99},
        ],
        "per_class": [{"class": "<left>", "examples": 100, "precision": 0.9, "recall": None, "f1": 0.9}],
        "said": ["Of 1,000 points it takes 70 for <others>."],
        "worst": _worst(["right"] * 200, ["<left>"] * 200, [3, 17], sure=False),
    }
    by = {"small": False, "worse": False}
    slices = [
        {"by": "x", "slice": "below <0>", "examples": 120, "metrics": {"accuracy": 0.7}, **by, "worse": True},
        {"by": "x", "slice": "0 and more", "examples": 75, "metrics": {"accuracy": 0.8}, **by},
        {"by": "y", "slice": "far", "examples": 5, "metrics": {"accuracy": 1.0}, **by, "small": True},
        {"by": "y", "slice": "nowhere", "examples": 0, "metrics": {"accuracy": None}, **by, "small": True},
    ]
    slices[0]["intervals"] = {"accuracy": [0.6, 0.78]}
    features = {
        "point": Feature(shape=(2,), columns=(Column(name="x"), Column(name="y"))),
        "side": Feature(dtype="int64", role="target", classes=("<left>", "right")),
    }
    return results(folder, "binary", features, {"point": x, "side": label}, answers, said, slices=slices)


def digits(folder: Path) -> Results:
    """Images of three classes."""
    random = np.random.default_rng(0)
    label = random.integers(0, 3, ROWS)
    image = (random.integers(0, 60, (ROWS, 12, 10, 1)) + 60 * label[:, None, None, None]).astype(np.uint8)
    answers = np.eye(3)[label] * 0.8 + 0.05
    said = {
        "classes": ["calm", "wild", "odd"],
        "confusion": [[10, 2, 0], [0, 0, 0], [1, 0, 12]],
        "worst": _worst(["calm"] * ROWS, ["odd"] * ROWS, [5, 2, 39]),
    }
    features = {
        "image": Feature(shape=(12, 10, 1), dtype="uint8"),
        "digit": Feature(dtype="int64", role="target", classes=("calm", "wild", "odd")),
    }
    return results(folder, "multiclass", features, {"image": image, "digit": label}, answers, said)


def topics(folder: Path) -> Results:
    """Sequences of tokens of thirty classes, with the words that they stand for."""
    random = np.random.default_rng(0)
    label = random.integers(0, 30, ROWS)
    text = Ragged.of([random.integers(0, 50, length) for length in random.integers(1, 30, ROWS)], np.int64)
    answers = np.eye(30)[(label + 1) % 30]
    counts = np.eye(30, dtype=int) * 5
    counts[3, 4] = 9
    said = {
        "classes": [f"topic {k}" for k in range(30)],
        "confusion": counts.tolist(),
        "worst": _worst(["topic 1"] * ROWS, ["topic 2"] * ROWS, [7, 8]),
    }
    features = {"text": Feature(shape=(None,), dtype="int64"), "topic": Feature(dtype="int64", role="target")}
    made = results(folder, "multiclass", features, {"text": text, "topic": label}, answers, said)
    write_json(made["preprocess"].path / "words.json", [f"word{k}" for k in range(50)])
    return made


def line(folder: Path) -> Results:
    """A number for a number."""
    x = np.linspace(0, 10, ROWS, dtype=np.float32)
    price = 2 * x + np.sin(9 * x)
    features = {"rooms": Feature(), "price": Feature(role="target", unit="1,000 <dollars>")}
    return results(folder, "regression", features, {"rooms": x, "price": price}, 2 * x[:, None])


def forecasts(folder: Path) -> Results:
    """Twelve steps to come."""
    random = np.random.default_rng(0)
    walk = random.normal(0, 1, (ROWS, 36)).cumsum(axis=1).astype(np.float32)
    features = {"window": Feature(shape=(24,)), "next": Feature(shape=(12,), role="target")}
    values = {"window": walk[:, :24], "next": walk[:, 24:]}
    return results(folder, "forecasting", features, values, np.repeat(walk[:, 23:24], 12, axis=1))


def masks(folder: Path) -> Results:
    """The class of each pixel."""
    random = np.random.default_rng(0)
    mask = random.integers(0, 3, (ROWS, 16, 16, 1)).astype(np.uint8)
    features = {
        "image": Feature(shape=(16, 16, 3), dtype="uint8"),
        "mask": Feature(shape=(16, 16, 1), dtype="uint8", role="target", content="mask", classes=("a", "b", "c")),
    }
    answers = np.eye(3)[mask[..., 0]]
    said = {"worst": [{"example": 9, "error": 0.5, "truth": None, "answer": None, "confidence": None}]}
    values = {"image": np.repeat(mask * 80, 3, axis=3), "mask": mask}
    return results(folder, "segmentation", features, values, answers, said)


def sentences(folder: Path) -> Results:
    """A sequence for a sequence, by a vocabulary that was learned."""
    tokens = np.array([[2, 3, 4, 0, 0]] * ROWS)
    answers = np.eye(6)[np.array([[2, 5, 4, 1, 1]] * ROWS)]
    features = {"source": Feature(dtype="string"), "target": Feature(shape=(5,), dtype="int64", role="target")}
    values = {"source": np.array([b"das <Haus> brennt"] * ROWS, object), "target": tokens}
    made = results(folder, "sequence", features, values, answers)
    np.savez(made["preprocess"].path / "learned.npz", words=np.array(["", "[x]", "the", "house", "burns", "home"]))
    return made


def pictures(folder: Path) -> Results:
    """A picture for a picture, as an autoencoder gives them."""
    random = np.random.default_rng(0)
    image = random.random((ROWS, 12, 12, 1)).astype(np.float32)
    features = {
        "image": Feature(shape=(12, 12, 1), content="image"),
        "again": Feature(shape=(12, 12, 1), role="target", content="image"),
    }
    return results(folder, "regression", features, {"image": image, "again": image}, image.reshape(ROWS, -1) * 0.9)


def generated(folder: Path) -> Results:
    """What a workload measures by itself: no output, a picture and a text."""
    features = {"image": Feature(shape=(12, 12, 1)), "y": Feature(role="target")}
    values = {"image": np.zeros((2, 12, 12, 1), np.float32), "y": np.zeros(2, np.float32)}
    samples = [{"name": "faces", "file": "samples/faces.png"}, {"name": "a poem", "file": "samples/a_poem.txt"}]
    made = results(folder, "own", features, values, np.zeros(2), outputs={}, samples=samples)
    (made["evaluate"].path / "samples").mkdir()
    (made["evaluate"].path / "samples" / "faces.png").write_bytes(_png(9))
    (made["evaluate"].path / "samples" / "a_poem.txt").write_text("roses are <red>")
    return made


KINDS: dict[str, Callable[[Path], Results]] = {
    made.__name__: made for made in (points, digits, topics, line, forecasts, masks, sentences, pictures, generated)
}
"""A factory for the results of each kind of task."""
