"""Raw examples to records: what is learned, what is kept, and what is refused before anything is written."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headrace.artifacts import Artifact, home, write_json
from headrace.errors import DataError, StageFailed
from headrace.inputs import arrays, read_info
from headrace.jobs import Job
from headrace.preprocessing import preprocess, raw_batches
from headrace.schema import read as read_schema
from headrace.spec import Feature
from headrace.summaries import Statistics
from headrace.tables import batches
from tests.core.making import twin

Splits = dict[str, dict[str, np.ndarray]]


def splits(train: int = 30, test: int = 10, size: int = 3) -> Splits:
    """Made-up examples of `features` and `price`."""
    random = np.random.default_rng(0)
    return {
        name: {"features": random.normal(5, 2, (rows, size)), "price": random.normal(20, 4, (rows, 1))}
        for name, rows in (("train", train), ("test", test))
    }


@pytest.fixture
def toy(job: Callable[..., Job], tmp_path: Path) -> Callable[..., tuple[Job, Artifact]]:
    """A job whose source gives the examples it is handed, and whose raw folder says that they are made up."""

    def make(data: Mapping[str, Any] | None = None, size: int = 3, **pipeline: Any) -> tuple[Job, Artifact]:
        found = job()
        given = splits() if data is None else data

        def read(raw: Path) -> Mapping[str, Iterable[Any]]:
            return {split: batches(values, 16) for split, values in given.items()}

        features = {"features": Feature(shape=(size,)), "price": Feature(shape=(1,), role="target")}
        origin = found.origin.model_copy(update={"read": read, "features": features})
        # The job finds these two by its workload's name; a test puts its own in their place.
        found.__dict__["origin"] = origin
        found.__dict__["pipeline"] = found.pipeline.model_copy(update=pipeline)
        raw = tmp_path / "raw"
        write_json(raw / "data.json", {"data": "synthetic"})
        return found, Artifact(raw, json.dumps({k: str(v) for k, v in given.items()}), "download")

    return make


class TestHousePrices:
    @pytest.fixture
    def run(self, job: Callable[..., Job], tmp_path: Path) -> tuple[Job, Artifact, Artifact]:
        """The workload as it is, on its twin: job, raw folder, records."""
        found = job()
        raw = twin(found, tmp_path / "raw")
        return found, raw, preprocess(found, raw)

    def test_is_standardised_by_its_training_split(self, run: tuple[Job, Artifact, Artifact]) -> None:
        job, raw, records = run
        original = {
            split: np.concatenate(
                [b.column("features").flatten().to_numpy().reshape(-1, 13) for b in raw_batches(job, raw.path, split)]
            ).astype(np.float64)
            for split in ("train", "test")
        }
        mean, std = original["train"].mean(axis=0), original["train"].std(axis=0)
        for split, values in original.items():
            found = arrays(records.path, split)
            np.testing.assert_allclose(found["features"], (values - mean) / std, rtol=1e-4, atol=1e-5)
        assert len(found["price"]) == 102

    def test_leaves_targets_as_they_were(self, run: tuple[Job, Artifact, Artifact]) -> None:
        job, raw, records = run
        prices = [b.column("price").flatten().to_numpy() for b in raw_batches(job, raw.path, "train")]
        np.testing.assert_array_equal(arrays(records.path, "train")["price"][:, 0], np.concatenate(prices))

    def test_describes_its_records(self, run: tuple[Job, Artifact, Artifact]) -> None:
        info = read_info(run[2].path)
        assert (info.workload, info.source, info.data) == ("house_prices", "boston", "synthetic")
        assert info.examples == {"train": 404, "test": 102}
        assert {n: (f.shape, f.dtype, f.role) for n, f in info.features.items()} == {
            "features": ((13,), "float32", "input"),
            "price": ((1,), "float32", "target"),
        }

    def test_keeps_statistics_of_the_raw_training_split(self, run: tuple[Job, Artifact, Artifact]) -> None:
        from tensorflow_metadata.proto.v0 import statistics_pb2

        records = run[2]
        statistics = Statistics.from_json(records.json("statistics.json"))
        assert statistics.rows == 404
        assert statistics["features"].names[5] == "RM"
        assert statistics["features"].mean[5] == pytest.approx(6.3, abs=0.2)
        proto = statistics_pb2.DatasetFeatureStatisticsList.FromString((records.path / "statistics.pb").read_bytes())
        assert proto.datasets[0].num_examples == 404
        assert read_schema(records.path / "schema.pbtxt").feature[0].struct_domain.feature[3].float_domain.max == 1

    def test_is_skipped_the_second_time(self, run: tuple[Job, Artifact, Artifact]) -> None:
        job, raw, records = run
        assert preprocess(job, raw) == records
        assert preprocess(job, raw).state == "skipped"

    def test_gives_the_same_bytes_in_another_home(
        self, run: tuple[Job, Artifact, Artifact], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        job, raw, records = run
        monkeypatch.setenv("HEADRACE_HOME", str(tmp_path / "elsewhere"))
        again = preprocess(job, raw)
        assert again.path != records.path
        assert again.digest == records.digest


class TestLearning:
    def test_is_from_the_training_split_only(self, toy: Any) -> None:
        data = splits()
        before = preprocess(*toy(data))
        data["test"]["features"] *= 100
        after = preprocess(*toy(data))
        assert after.path != before.path
        for name in ("statistics.json", "statistics.pb", "schema.pbtxt", "train.tfrecord-00000-of-00001"):
            assert (after.path / name).read_bytes() == (before.path / name).read_bytes()
        data["train"]["features"][0, 0] += 1
        third = preprocess(*toy(data))
        assert (third.path / "statistics.json").read_bytes() != (before.path / "statistics.json").read_bytes()

    def test_a_changed_function_is_the_reason_to_run_again(self, toy: Any) -> None:
        preprocess(*toy())
        planned = preprocess.plan(*toy(preprocess=lambda statistics: lambda batch: batch))
        assert planned.state == "run"
        assert "preprocess` in pipelines/house_prices.py is gone" in planned.reason

    def test_a_description_is_no_reason_to_run_again(self, toy: Any) -> None:
        job, raw = toy()
        preprocess(job, raw)
        described = job.origin.features["price"].model_copy(update={"description": "what it costs", "unit": "dollars"})
        job.origin.features["price"] = described
        assert preprocess.plan(job, raw).state == "skipped"
        job.origin.features["price"] = described.model_copy(update={"role": "input"})
        assert preprocess.plan(job, raw).state == "run"


class TestRecords:
    def test_take_new_features_as_inputs(self, toy: Any) -> None:
        def learn(statistics: Statistics) -> Any:
            import tensorflow as tf

            def apply(batch: dict[str, Any]) -> dict[str, Any]:
                label = tf.strings.as_string(tf.cast(batch["features"][:, 0], tf.int64))
                return {**batch, "label": label, "pairs": tf.stack([batch["features"]] * 2, axis=2)}

            return apply

        records = preprocess(*toy(preprocess=learn))
        features = read_info(records.path).features
        assert {name: (f.shape, f.dtype, f.role) for name, f in features.items()} == {
            "features": ((3,), "float32", "input"),
            "price": ((1,), "float32", "target"),
            "label": ((), "string", "input"),
            "pairs": ((3, 2), "float32", "input"),
        }
        found = arrays(records.path, "test")
        np.testing.assert_array_equal(found["pairs"][:, :, 1], found["features"])
        assert found["label"].tolist() == [str(int(v)).encode() for v in found["features"][:, 0]]

    def test_keep_the_order_of_the_examples_also_where_a_batch_takes_long(self, toy: Any) -> None:
        data = splits(train=200)
        data["train"]["features"][:, 0] = data["train"]["price"][:, 0] = np.arange(200)

        def wait(first: Any) -> Any:
            time.sleep(0.2 if first == 0 else 0)
            return first

        def slow(batch: Any) -> Any:
            import tensorflow as tf

            first = tf.numpy_function(wait, [batch["features"][0, 0]], tf.float32)
            with tf.control_dependencies([first]):
                return {name: tf.identity(values) for name, values in batch.items()}

        records = preprocess(*toy(data, preprocess=lambda statistics: slow))
        assert arrays(records.path, "train")["price"][:, 0].tolist() == list(range(200))

    def test_hold_every_split_that_the_source_has(self, toy: Any) -> None:
        data = splits()
        data["holdout"] = data["test"]
        records = preprocess(*toy(data))
        assert read_info(records.path).examples == {"train": 30, "test": 10, "holdout": 10}


def refused(kind: type[Exception], arguments: tuple[Job, Artifact]) -> str:
    """The message, after making sure that nothing was finished."""
    with pytest.raises(kind) as caught:
        preprocess(*arguments)
    assert not list((home() / "artifacts").rglob("*.json"))
    assert not list(home().rglob("*.tfrecord*"))
    return str(caught.value)


class TestBadData:
    def test_a_nan_target_is_told_with_split_and_row(self, toy: Any) -> None:
        data = splits()
        data["test"]["price"][7] = np.nan
        text = refused(DataError, toy(data))
        assert "In split `test`, feature `price`, column `price[0]`, row 7 (the first is 0) can't be used." in text
        assert "received: nan" in text

    def test_an_infinite_input_is_told_with_split_row_and_column(self, toy: Any) -> None:
        data = splits()
        data["train"]["features"][20, 1] = -np.inf
        assert "In split `train`, feature `features`, column `features[1]`, row 20" in refused(DataError, toy(data))

    def test_a_missing_feature_is_told(self, toy: Any) -> None:
        data = splits()
        del data["test"]["price"]
        assert "In split `test`, feature `price` is missing" in refused(DataError, toy(data))

    def test_a_wrong_width_is_told(self, toy: Any) -> None:
        assert "In split `train`, feature `features` is not what was declared" in refused(DataError, toy(size=4))

    @pytest.mark.parametrize("split", ["train", "test"])
    def test_an_empty_split_is_told(self, split: str, toy: Any) -> None:
        assert f"Split `{split}` is empty" in refused(DataError, toy(splits(**{split: 0})))

    def test_a_missing_split_is_told(self, toy: Any) -> None:
        data = splits()
        data["tset"] = data.pop("test")
        text = refused(DataError, toy(data))
        assert "gives no split `test`" in text
        assert "received: `train`, `tset`" in text


class TestBadFunctions:
    """What the workload's `preprocess` may do wrong; each is a function of a batch."""

    @pytest.fixture
    def told(self, toy: Any) -> Callable[..., str]:
        def tell(apply: Callable[..., Any], kind: type[Exception] = StageFailed) -> str:
            return refused(kind, toy(preprocess=lambda statistics: apply))

        return tell

    def test_needing_the_targets_is_told_before_anything_is_written(self, told: Any) -> None:
        text = told(lambda batch: {**batch, "price": batch["price"] * 2})
        assert "can't run without the targets, as it must when the model serves" in text
        assert "expected: a batch with features, given one with features" in text
        assert "received: KeyError: 'price'" in text

    def test_making_an_input_of_a_target_is_told(self, told: Any) -> None:
        def leak(batch: Any) -> Any:
            return {**batch, "features": batch["features"] + batch["price"] if "price" in batch else batch["features"]}

        assert "gives other inputs without the targets" in told(leak)

    def test_making_an_input_only_where_targets_are_is_told(self, told: Any) -> None:
        text = told(lambda batch: {**batch, "extra": batch["price"]} if "price" in batch else batch)
        assert "received: a difference in extra" in text

    def test_dropping_the_target_is_told(self, told: Any) -> None:
        assert "drops the target `price`" in told(lambda batch: {"features": batch["features"]})

    def test_a_type_that_records_can_not_hold_is_told(self, told: Any) -> None:
        import tensorflow as tf

        text = told(lambda batch: {**batch, "features": tf.cast(batch["features"], tf.float64)})
        assert "a feature `features` that records can't hold" in text
        assert "received: float64 of shape (None, 3)" in text

    def test_an_unknown_shape_is_told(self, told: Any) -> None:
        import tensorflow as tf

        assert "records can't hold" in told(
            lambda batch: {**batch, "ragged": tf.RaggedTensor.from_tensor(batch["features"])}
        )

    def test_returning_no_batch_is_told(self, told: Any) -> None:
        assert "must return a batch" in told(lambda batch: batch["features"])

    def test_an_error_while_tracing_is_told_in_a_line(self, told: Any) -> None:
        text = told(lambda batch: {**batch, "features": batch["featuress"]})
        assert "`preprocess` of house_prices fails with a batch of tensors." in text
        assert "received: KeyError: 'featuress'" in text

    def test_an_error_in_the_middle_of_the_data_is_told(self, told: Any) -> None:
        import tensorflow as tf

        def picky(batch: Any) -> Any:
            # The first batch is full, the last one is not.
            tf.debugging.assert_equal(tf.shape(batch["features"])[0], 16, "a short batch")
            return batch

        assert "fails with the examples" in told(picky)

    def test_leaving_out_examples_is_told(self, told: Any) -> None:
        text = told(lambda batch: {name: values[1:] for name, values in batch.items()})
        assert "changes the number of examples of `features`" in text
        assert "expected: 16 examples" in text

    def test_numbers_that_are_not_finite_are_told(self, told: Any) -> None:
        text = told(lambda batch: {**batch, "features": batch["features"] / 0}, DataError)
        assert "In split `train` after preprocess, feature `features`" in text
        assert "received: inf" in text

    def test_an_error_while_learning_is_told(self, toy: Any) -> None:
        text = refused(StageFailed, toy(preprocess=lambda statistics: 1 / 0))
        assert "fails with the statistics of the training split" in text
        assert "ZeroDivisionError" in text
