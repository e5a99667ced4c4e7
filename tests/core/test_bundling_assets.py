from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from headrace.bundling import assets, examples
from headrace.errors import ConfigError
from headrace.ragged import Ragged
from headrace.serving_check import read
from headrace.spec import Feature

INPUTS = {
    "text": np.array([b"a", b"", b"nul\x00\x00", "d\u00e9sk".encode()], object),
    "image": np.arange(4 * 6, dtype=np.uint8).reshape(4, 2, 3),
    "x": np.linspace(0, 1, 8, dtype=np.float32).reshape(4, 2),
    "id": np.array([1, 2, 3, 2**40]),
}


class TestRecordedExamples:
    def test_come_back_as_they_were(self, tmp_path: Path) -> None:
        inputs = {**INPUTS, "pairs": INPUTS["text"].reshape(2, 2), "none": np.empty((0, 3), object)}
        np.savez(
            tmp_path / "examples.npz", **examples.packed("raw", inputs), **examples.packed("output", {"y": INPUTS["x"]})
        )
        found = read(str(tmp_path / "examples.npz"), "raw")
        assert list(found) == list(inputs)
        for name, values in inputs.items():
            assert found[name].shape == values.shape
            assert found[name].tolist() == values.tolist()
        assert list(read(str(tmp_path / "examples.npz"), "output")) == ["y"]

    def test_of_different_lengths_are_sent_with_their_lengths(self) -> None:
        import tensorflow as tf

        features = {"tokens": Feature(shape=(None,), dtype="int64"), "x": Feature()}
        assert list(examples.served(features)) == ["tokens", "tokens_length", "x"]
        given = Ragged.of([[1, 2], [], [3]], np.int64)
        sent = examples.sent({"tokens": given, "x": np.zeros(3, np.float32)})
        assert sent["tokens"].tolist() == [[1, 2], [0, 0], [3, 0]]
        assert sent["tokens_length"].tolist() == [2, 0, 1]
        back = examples.received({name: tf.constant(values) for name, values in sent.items()}, features)
        assert back["tokens"].to_list() == [[1, 2], [], [3]]

    def test_a_name_that_a_length_needs_is_refused(self) -> None:
        with pytest.raises(ConfigError, match="`tokens_length` has the name under which"):
            examples.served({"tokens": Feature(shape=(None,), dtype="int64"), "tokens_length": Feature()})

    def test_equal_ones_have_an_equal_digest(self) -> None:
        assert examples.digest(INPUTS) == examples.digest(dict(reversed(INPUTS.items())))
        assert examples.digest(INPUTS) != examples.digest({**INPUTS, "x": INPUTS["x"] + 1})


def descriptor() -> type:
    """`tensorflow.serving.PredictionLog`, as far as it is needed, described anew as TensorFlow Serving has it."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
    from tensorflow.core.framework import tensor_pb2

    pool = descriptor_pool.Default()
    tensor = tensor_pb2.TensorProto.DESCRIPTOR
    file = descriptor_pb2.FileDescriptorProto(
        name="headrace_test/prediction_log.proto",
        package="headrace_test",
        syntax="proto3",
        dependency=[tensor.file.name],
    )
    kinds = descriptor_pb2.FieldDescriptorProto
    for message, fields in {
        "ModelSpec": [("name", 1, kinds.TYPE_STRING, ""), ("signature_name", 3, kinds.TYPE_STRING, "")],
        "PredictRequest": [("model_spec", 1, kinds.TYPE_MESSAGE, ".headrace_test.ModelSpec")],
        "PredictLog": [("request", 1, kinds.TYPE_MESSAGE, ".headrace_test.PredictRequest")],
        "PredictionLog": [("predict_log", 6, kinds.TYPE_MESSAGE, ".headrace_test.PredictLog")],
    }.items():
        made = file.message_type.add(name=message)
        for name, number, kind, of in fields:
            made.field.add(name=name, number=number, type=kind, type_name=of or None, label=kinds.LABEL_OPTIONAL)
    request = file.message_type[1]
    entry = request.nested_type.add(name="InputsEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, type=kinds.TYPE_STRING, label=kinds.LABEL_OPTIONAL)
    entry.field.add(
        name="value", number=2, type=kinds.TYPE_MESSAGE, type_name=f".{tensor.full_name}", label=kinds.LABEL_OPTIONAL
    )
    request.field.add(
        name="inputs",
        number=2,
        type=kinds.TYPE_MESSAGE,
        type_name=".headrace_test.PredictRequest.InputsEntry",
        label=kinds.LABEL_REPEATED,
    )
    # Adding the same file again changes nothing.
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("headrace_test.PredictionLog"))


class TestWarmUp:
    def test_requests_are_what_tensorflow_serving_reads(self, tmp_path: Path) -> None:
        import tensorflow as tf

        assets.write_warm_up(tmp_path, "tickets", INPUTS)
        stored = list(tf.data.TFRecordDataset(str(tmp_path / assets.WARM_UP)).as_numpy_iterator())
        assert len(stored) == 2
        for data, count in zip(stored, (1, 4), strict=True):
            request = descriptor().FromString(data).predict_log.request
            assert (request.model_spec.name, request.model_spec.signature_name) == ("tickets", "serving_default")
            assert set(request.inputs) == set(INPUTS)
            for name, values in INPUTS.items():
                assert tf.make_ndarray(request.inputs[name]).tolist() == values[:count].tolist()

    def test_and_what_its_own_classes_read(self) -> None:
        prediction_log_pb2 = pytest.importorskip("tensorflow_serving.apis.prediction_log_pb2")
        data = assets.prediction_log("tickets", INPUTS)
        log = prediction_log_pb2.PredictionLog.FromString(data)
        assert log.predict_log.request.model_spec.signature_name == "serving_default"
        assert sorted(log.predict_log.request.inputs) == sorted(INPUTS)
        # Nothing is left over that the classes don't know.
        assert log.SerializeToString(deterministic=True) == data

    def test_equal_requests_are_equal_bytes(self) -> None:
        assert assets.prediction_log("a", INPUTS) == assets.prediction_log("a", dict(reversed(INPUTS.items())))


def test_classes_are_written_one_in_each_line(tmp_path: Path) -> None:
    targets = {"label": Feature(dtype="int64", classes=("calm", "w\u00efld")), "price": Feature()}
    (path,) = assets.labels(tmp_path, targets)
    assert path.name == "labels_label.txt"
    assert path.read_bytes() == "calm\nw\u00efld\n".encode()
