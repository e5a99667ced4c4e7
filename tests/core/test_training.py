"""The train stage: what it leaves behind, and what a kill can't change."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headrace.artifacts import Artifact
from headrace.downloading import download
from headrace.engine.feeding import Memory, Split
from headrace.engine.journals import Moment
from headrace.errors import ConfigError, DataError, Diverged
from headrace.jobs import Job
from headrace.preprocessing import preprocess
from headrace.records.inputs import read_info
from headrace.training import node_seed, train
from tests.conftest import JobFactory
from tests.core import trainables

SMALL = {"train.epochs": 6, "train.jit_compile": False}


def records_of(job: Job) -> Artifact:
    return preprocess(job, download(job))


def test_a_training_leaves_model_history_and_logs(job: JobFactory) -> None:
    request = job(overrides=SMALL)
    model = train(request, records_of(request))

    history = model.json("history.json")
    assert history["epochs"] == 6
    assert set(history["metrics"]) == {"loss", "mae"}
    lines = [json.loads(line) for line in (model.path / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert [line["mae"] for line in lines] == history["metrics"]["mae"]
    assert model.json("training.json")["parameters"] == 5_121


def test_tensorboard_reads_the_curves(job: JobFactory) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    request = job(overrides=SMALL)
    fold = train(request, records_of(request), fold=1, folds=4)

    for side, metric in (("train", "mae"), ("validation", "val_mae")):
        events = EventAccumulator(str(fold.path / "logs" / side))
        events.Reload()
        curve = [event.value for event in events.Scalars("epoch_mae")]
        assert curve == pytest.approx(fold.json("history.json")["metrics"][metric])


def test_the_same_training_gives_the_same_bytes(job: JobFactory, headrace_home: Path) -> None:
    """In one process, where Keras would count the layers' names up, and with folds trained in between."""
    import shutil

    request = job(overrides=SMALL)
    records = records_of(request)
    first = train(request, records)
    train(request, records, fold=1, folds=2)
    shutil.rmtree(first.path)
    again = train(request, records)

    assert again.state == "run"
    assert first.digest == again.digest


def test_seed_and_fold_change_the_model(job: JobFactory) -> None:
    base, other = job(overrides=SMALL), job(overrides=SMALL, seed=1)
    records = records_of(base)
    made = [train(base, records), train(other, records), train(base, records, fold=1, folds=2)]

    assert len({artifact.digest for artifact in made}) == 3
    assert node_seed(0, 1) != node_seed(0, 2) != node_seed(1, 2)


def test_a_fold_is_a_consecutive_block(job: JobFactory) -> None:
    """404 examples in 4 folds: 101 held out, 303 learned from, every example held out once."""
    from headrace.training import _splits

    request = job(overrides=SMALL)
    records = records_of(request)
    info = read_info(records.path)
    everything, none = _splits(records, info, request.settings.train, None, None, None, 0)
    assert none is None
    held = []
    for fold in range(1, 5):
        learn, watch = _splits(records, info, request.settings.train, fold, 4, None, 0)
        assert watch is not None
        assert (len(learn), len(watch)) == (303, 101)
        held.append(watch.inputs["features"])

    np.testing.assert_array_equal(everything.inputs["features"], np.concatenate(held))


def test_more_folds_than_examples_is_refused(job: JobFactory) -> None:
    from headrace.training import _splits

    request = job(overrides=SMALL)
    records = records_of(request)

    with pytest.raises(ConfigError, match="can't be cut into 1000 folds"):
        _splits(records, read_info(records.path), request.settings.train, 1, 1000, None, 0)


@pytest.mark.parametrize("setting", ["train.optimizer", "train.loss", "train.metrics"])
def test_a_name_that_keras_does_not_know_is_a_config_error(job: JobFactory, setting: str) -> None:
    value: Any = ["mea"] if setting == "train.metrics" else "mea"
    request = job(overrides={**SMALL, setting: value})

    with pytest.raises(ConfigError, match="mea"):
        train(request, records_of(request))


def test_a_loss_that_is_no_number_stops_with_the_epoch_and_leaves_no_artifact(
    job: JobFactory, headrace_home: Path
) -> None:
    request = job(overrides={**SMALL, "train.optimizer": "sgd", "train.learning_rate": 1e30})

    with pytest.raises(Diverged, match=r"in epoch 1(.|\n)*train.learning_rate"):
        train(request, records_of(request))
    assert not list((headrace_home / "artifacts/house_prices").glob("train/*"))


def test_early_stopping_keeps_the_best_weights(job: JobFactory) -> None:
    rules = {"monitor": "val_mae", "patience": 2}
    request = job(
        overrides={"train.epochs": 400, "train.validation_split": 0.2, "train.early_stopping": rules},
    )
    history = train(request, records_of(request)).json("history.json")

    curve = history["metrics"]["val_mae"]
    assert history["stopped"] == "early stopping"
    assert len(curve) == history["epochs"] < 400
    assert history["best_epoch"] == int(np.argmin(curve)) + 1 == len(curve) - 2


# --------------------------------------------------------------------------------- what a training can be told


def trained(kind: str, folder: Path, **settings: Any) -> Artifact:
    """A workload of this kind, trained on records of its own."""
    path = folder / kind
    if not path.exists():
        trainables.records(kind, path, validation=12)
    made = Artifact(path, json.loads((path / "manifest.json").read_text())["digest"], "preprocess")
    return train(trainables.request(kind, **settings), made)


def test_best_and_last_lie_beside_each_other(tmp_path: Path) -> None:
    import keras

    made = trained("dense", tmp_path, epochs=6, learning_rate=0.5, reduce_lr=None)
    history = made.json("history.json")
    best, last = (keras.saving.load_model(made.path / f"{name}.keras") for name in ("model", "last"))

    assert history["best_epoch"] == int(np.argmin(history["metrics"]["val_loss"])) + 1 < 6
    assert not np.array_equal(best.get_weights()[0], last.get_weights()[0])


def test_the_workload_says_which_parts_of_a_model_are_kept(tmp_path: Path) -> None:
    import keras

    made = trained("vae", tmp_path)
    decoder, encoder = (keras.saving.load_model(made.path / f"{name}.keras") for name in ("model", "encoder"))

    assert (decoder.input_shape, encoder.input_shape) == ((None, 2), (None, 8, 8, 1))
    assert list(made.json("history.json")["metrics"]) == ["loss", "kl_loss", "val_loss", "val_kl_loss"]


def test_a_lost_loss_goes_back_and_on_at_a_lower_rate(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    lost = {"optimizer": "sgd", "learning_rate": 1e30, "epochs": 3, "validation_split": 0}
    with pytest.raises(Diverged, match="the rate lowered 3 times"):
        trained("plain", tmp_path, **lost, on_divergence="lower_rate")
    saved = trained("plain", tmp_path, **{**lost, "learning_rate": 5.0, "batch_size": 1}, on_divergence="lower_rate")

    assert saved.json("history.json")["lowered"] in (1, 2, 3)
    assert np.isfinite(saved.json("history.json")["metrics"]["loss"]).all()
    assert "on at a lower learning rate" in caplog.text


def test_a_training_ends_when_its_time_is_over_and_says_so(tmp_path: Path) -> None:
    made = trained("plain", tmp_path, epochs=1_000_000, time_budget=0.5)
    history = made.json("history.json")

    assert history["stopped"] == "time budget"
    assert 0 < history["epochs"] == len(history["metrics"]["loss"]) < 1_000_000


def test_samples_are_kept_and_change_nothing(tmp_path: Path) -> None:
    """They draw random numbers by the model's own generator, and the weights are those of a training without them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def sample(model: Any, moment: Moment) -> dict[str, Any]:
        import keras

        noise = keras.random.normal((2, 4), seed=model.seeds)
        return {"face": np.asarray(model.generator(noise))[0], "words": f"epoch {moment.epoch}, {len(moment.examples)}"}

    without = trained("gan", tmp_path)
    request = trainables.request("gan", sample_every=2)
    request.__dict__["pipeline"] = request.pipeline.model_copy(update={"sample": sample})
    made = train(request, Artifact(tmp_path / "gan", "with samples", "preprocess"))

    names = [f"{epoch:05d}-{name}" for epoch in (2, 4) for name in ("face.png", "words.txt")]
    assert sorted(path.name for path in (made.path / "samples").iterdir()) == names
    assert (made.path / "samples" / "00004-words.txt").read_text() == "epoch 4, 1"
    assert (made.path / "model.keras").read_bytes() == (without.path / "model.keras").read_bytes()
    events = EventAccumulator(str(made.path / "logs" / "train"))
    events.Reload()
    assert [image.step for image in events.Images("face")] == [1, 3]


def test_strict_seeds_give_the_same_bytes_and_none_gives_others(tmp_path: Path, monkeypatch: Any) -> None:
    digests = {}
    for seeds in ("strict", "off"):
        for attempt in ("first", "second"):
            monkeypatch.setenv("HEADRACE_HOME", str(tmp_path / attempt))
            digests[seeds, attempt] = trained("lstm", tmp_path, seeds=seeds).digest

    assert digests["strict", "first"] == digests["strict", "second"]
    assert digests["off", "first"] != digests["off", "second"]


def test_classes_that_are_rare_weigh_more(tmp_path: Path) -> None:
    from headrace.training import _class_weights

    split = Split({}, {"digit": np.array([0, 0, 0, 0, 1, 2])})
    rules = trainables.request("convnet", class_weight="balanced").settings.train

    assert _class_weights(Memory(split, None, 0), rules) == pytest.approx([0.5, 2, 2])
    with pytest.raises(ConfigError, match="no class 7"):
        _class_weights(Memory(split, None, 0), rules.model_copy(update={"class_weight": {7: 1.0}}))


@pytest.mark.parametrize("cut", ["split", "fold"])
def test_a_stream_is_cut_in_two_as_arrays_are(cut: str, tmp_path: Path) -> None:
    """The same examples are learned from and held out, in the same batches, without memory for them."""
    part = {"fold": 2, "folds": 3, "repeat": 1} if cut == "fold" else {}
    share = {} if cut == "fold" else {"validation_split": 0.3}
    records = trainables.records("plain", tmp_path / "records")
    by_feed = {
        feed: train(trainables.request("plain", epochs=3, feed=feed, **share), records, **part)
        for feed in ("memory", "stream")
    }

    said = {feed: made.json("training.json") for feed, made in by_feed.items()}
    assert {feed: facts["feed"] for feed, facts in said.items()} == {"memory": "memory", "stream": "stream"}
    assert said["memory"]["examples"] == said["stream"]["examples"] < trainables.EXAMPLES
    models = [(made.path / "model.keras").read_bytes() for made in by_feed.values()]
    assert models[0] == models[1]
    kept, streamed = (made.json("history.json")["metrics"] for made in by_feed.values())
    assert set(kept) == set(streamed) > {"val_loss"}
    assert streamed["val_loss"] == pytest.approx(kept["val_loss"], rel=1e-5)


def test_a_damaged_record_is_named_by_the_training_that_meets_it(tmp_path: Path) -> None:
    records = trainables.records("plain", tmp_path / "records")
    shard = records.path / read_info(records.path).shards["train"][0]
    data = bytearray(shard.read_bytes())
    data[20] ^= 255
    shard.write_bytes(data)

    with pytest.raises(DataError, match=f"{shard.name}, record 0"):
        train(trainables.request("plain", validation_split=0, feed="stream"), records)


def test_a_split_to_watch_must_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no split `validatoin`"):
        trained("plain", tmp_path, validation_split=0, validation="validatoin")


def test_the_own_parts_of_a_workload_are_known_when_its_model_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import keras

    from headrace import models, projects

    def model(inputs: Any) -> Any:
        return keras.Sequential([keras.Input((3,)), Doubled(1)])

    class Doubled(keras.layers.Dense):  # type: ignore[misc]
        def call(self, inputs: Any, training: bool = False) -> Any:
            return 2 * super().call(inputs)

    request = trainables.request("plain")
    pipeline = request.pipeline.model_copy(update={"model": model, "custom": {"Doubled": Doubled}})
    request.__dict__["pipeline"] = pipeline
    monkeypatch.setattr(projects, "load", lambda name: pipeline)
    made = train(request, trainables.records("plain", tmp_path / "records"))

    assert type(models.load(made).layers[-1]) is Doubled


def test_training_json_says_what_it_took(tmp_path: Path) -> None:
    facts = trained("lstm", tmp_path, feed="stream", epochs=3).json("training.json")

    assert (facts["feed"], facts["examples"], facts["steps"]) == ("stream", 44, 18)
    assert 0 <= facts["share of time spent waiting for input"] <= 1
    assert facts["checkpoints"].keys() == {"written", "seconds", "share"}
