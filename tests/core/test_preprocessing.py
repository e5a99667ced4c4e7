"""Raw examples to records: what is learned, what is kept, and what is refused before anything is written."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headrace import recording
from headrace.artifacts import Artifact, home, write_json
from headrace.describing.summaries import Statistics
from headrace.errors import DataError, StageFailed
from headrace.jobs import Job
from headrace.preprocessing import learned_function, preprocess, raw_batches
from headrace.ragged import Ragged
from headrace.readers.batches import batches
from headrace.records.inputs import arrays, read_info
from headrace.spec import Feature, Records
from headrace.validation import schema
from headrace.validation.schema import read as read_schema
from tests.core.kinds import EVERY, everything, picture, strings
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
        # A source without a reviewed schema: the toy's features are others.
        found = job(source="california")
        given = splits() if data is None else data

        def read(raw: Path) -> Mapping[str, Iterable[Any]]:
            return {split: batches(values, 16) for split, values in given.items()}

        features = {"features": Feature(shape=(size,)), "price": Feature(shape=(1,), role="target")}
        source = {"features": features, **pipeline.pop("source", {})}
        origin = found.origin.model_copy(update={"read": read, **source})
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


def of_every_kind(rows: int) -> dict[str, Any]:
    """Sound examples of every kind of feature."""
    found = everything(rows)
    filled = {"number": np.nan_to_num(found["number"]), "text": strings(*[b"red fox"] * rows)}
    return {**found, **filled, "mask": found["mask"] % 2, "label": found["label"] % 2}


class TestEveryKind:
    def test_of_feature_comes_through_unchanged(self, toy: Any) -> None:
        data = {"train": of_every_kind(40), "test": of_every_kind(7)}
        records = preprocess(
            *toy(data, source={"features": EVERY}, preprocess=lambda statistics: lambda batch: {**batch})
        )
        info, found = read_info(records.path), arrays(records.path, "test")
        assert list(found) == list(EVERY)
        for name, values in data["test"].items():
            one, other = found[name], values
            if isinstance(values, Ragged):
                np.testing.assert_array_equal(one.splits, values.splits)
                one, other = one.values, values.values
            np.testing.assert_array_equal(one, other.astype(one.dtype) if one.dtype != object else other)
            assert info.features[name].role == EVERY[name].role
            assert info.features[name].kind == EVERY[name].kind

    def test_of_image_file_can_be_decoded_to_one_size(self, toy: Any) -> None:
        from headrace.images import decode

        files = strings(picture(8, 12), picture(30, 20, kind="JPEG"), picture(5, 5, "RGBA"))
        data = {split: {"image": files, "price": np.zeros(3)} for split in ("train", "test")}
        features = {"image": Feature(dtype="string", content="image"), "price": Feature(role="target")}
        job, raw = toy(
            data,
            source={"features": features},
            preprocess=lambda statistics: lambda batch: {**batch, "image": decode(batch["image"], (6, 4))},
            records=Records(images="png"),
        )
        records = preprocess(job, raw)
        image = read_info(records.path).features["image"]
        assert (image.shape, image.dtype, image.kind) == ((6, 4, 3), "uint8", "image")
        assert np.abs(arrays(records.path, "train")["image"].astype(int) - 100).max() <= 2

    def test_of_image_that_grows_is_worked_on_in_small_portions(
        self, toy: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import tensorflow as tf

        monkeypatch.setattr(recording, "PORTION", 3 * 1000 * 4)
        seen: list[int] = []

        def grow(batch: Any) -> Any:
            rows = tf.py_function(lambda x: seen.append(len(x)) or 0.0, [batch["features"]], tf.float32)
            wide = tf.tile(batch["features"], [1, 333]) + tf.ensure_shape(rows, ())
            return {**batch, "features": wide}

        preprocess(*toy(preprocess=lambda statistics: grow))
        assert max(seen) == 3


class TestUnusableExamples:
    """Three of twenty training examples and one of ten test examples hold no number."""

    @pytest.fixture
    def data(self) -> Splits:
        found = splits(train=20)
        found["train"]["features"][[4, 9, 11], 1] = np.nan
        found["test"]["price"][0] = np.inf
        return found

    def test_stop_the_run_unless_the_source_allows_for_them(self, toy: Any, data: Splits) -> None:
        with pytest.raises(DataError, match="split `train`"):
            preprocess(*toy(data))
        with pytest.raises(DataError, match="split `train`"):
            preprocess(*toy(data, source={"quarantine": 0.1}))

    def test_are_left_out_and_listed_with_their_places(self, toy: Any, data: Splits) -> None:
        job, raw = toy(data, source={"quarantine": 0.2})
        records = preprocess(job, raw)
        assert read_info(records.path).examples == {"train": 17, "test": 9}
        lines = [json.loads(line) for line in (records.path / "quarantine.jsonl").read_text().splitlines()]
        assert [(line["split"], line["row"]) for line in lines if "row" in line] == [
            ("train", 4),
            ("train", 9),
            ("train", 11),
            ("test", 0),
        ]

    def test_are_left_out_by_whoever_reads_the_split_again(self, toy: Any, data: Splits) -> None:
        job, raw = toy(data, source={"quarantine": 0.2})
        prices = np.concatenate([b.column("price").flatten().to_numpy() for b in raw_batches(job, raw.path, "train")])
        np.testing.assert_allclose(prices, np.delete(data["train"]["price"][:, 0], [4, 9, 11]), rtol=1e-6)


class TestReviewedSchema:
    @pytest.fixture
    def review(self, toy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
        """Make this text the reviewed schema of the toy's source."""

        def make(text: str) -> None:
            path = tmp_path / "toy.pbtxt"
            path.write_text(text)
            monkeypatch.setattr(schema, "reviewed_path", lambda job: path)

        return make

    LAW = 'feature { name: "features" type: FLOAT float_domain { max: %s } } feature { name: "price" type: FLOAT }'

    def test_stops_a_run_whose_data_break_it_and_leaves_nothing(self, toy: Any, review: Any) -> None:
        review(self.LAW % 5)
        with pytest.raises(DataError, match=r"(?s)Split `train` is not what the reviewed schema toy.pbtxt allows"):
            preprocess(*toy())
        assert not list((home() / "artifacts" / "house_prices").glob("preprocess/*/info.json"))

    def test_is_enforced_on_every_split(self, toy: Any, review: Any) -> None:
        review(self.LAW % 50)
        data = splits()
        data["test"]["features"][3, 0] = 60
        with pytest.raises(DataError, match=r"(?s)Split `test` is not what .*60"):
            preprocess(*toy(data))

    def test_makes_the_stage_run_again_when_it_changes(self, toy: Any, review: Any) -> None:
        review(self.LAW % 50)
        job, raw = toy()
        preprocess(job, raw)
        assert preprocess.plan(job, raw).state == "skipped"
        review(self.LAW % 60)
        assert "`schema`" in preprocess.plan(job, raw).reason


class TestLearning:
    def test_beyond_statistics_is_kept_and_given_again(self, toy: Any) -> None:
        words = {"words": strings(b"red fox", b"red"), "price": np.zeros(2)}
        features = {"words": Feature(dtype="string"), "price": Feature(role="target")}

        def learn(batches: Any, statistics: Statistics) -> dict[str, Any]:
            # Gone through twice, as `adapt` of some layers does.
            texts = [text for _ in range(2) for batch in batches for text in batch["words"].numpy()]
            return {"vocabulary": sorted({word.decode() for text in texts for word in text.split()})}

        def ready(statistics: Statistics, learned: Mapping[str, Any]) -> Any:
            import tensorflow as tf

            first = tf.constant(learned["vocabulary"])[0]
            return lambda batch: {**batch, "words": tf.fill(tf.shape(batch["words"]), first)}

        job, raw = toy({"train": words, "test": words}, source={"features": features}, learn=learn, preprocess=ready)
        records = preprocess(job, raw)
        assert arrays(records.path, "train")["words"].tolist() == [b"fox", b"fox"]
        import tensorflow as tf

        again = learned_function(job, records)({"words": tf.constant(["any"])})
        assert again["words"].numpy().tolist() == [b"fox"]

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
        assert "In split `test`, 1 example can't be used" in text
        assert "feature `price`, column `price[0]`, is missing in row 7 (nan)" in text

    def test_an_infinite_input_is_told_with_split_row_and_column(self, toy: Any) -> None:
        data = splits()
        data["train"]["features"][20, 1] = -np.inf
        text = refused(DataError, toy(data))
        assert "In split `train`" in text
        assert "feature `features`, column `features[1]`, is infinite in row 20 (-inf)" in text

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
            lambda batch: {**batch, "ragged": tf.RaggedTensor.from_tensor(batch["features"][:, None], ragged_rank=2)}
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
        assert "In split `train` after preprocess, 16 examples" in text
        assert "feature `features`, column `features[0]`, is infinite in row " in text

    def test_an_error_while_learning_is_told(self, toy: Any) -> None:
        text = refused(StageFailed, toy(preprocess=lambda statistics: 1 / 0))
        assert "fails with the statistics of the training split" in text
        assert "ZeroDivisionError" in text
