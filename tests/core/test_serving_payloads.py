"""Requests understood and answers written, in the JSON of TensorFlow Serving."""

from __future__ import annotations

import base64
import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from headrace.serving import payloads
from headrace.serving.loading import Signature, Tensor
from headrace.serving.payloads import Refused, read, written

FEATURES = {"features": Tensor("float32", (None, 3))}
SEVERAL = {
    "tag": Tensor("string", (None,)),
    "signal": Tensor("int64", (None, 2)),
    "image": Tensor("uint8", (None, 2, 2, 1)),
}


def model(inputs: dict[str, Tensor] = FEATURES) -> Any:
    signatures = {"serving_default": Signature(inputs, {"y": Tensor("float32", (None, 1))})}
    return SimpleNamespace(signatures=signatures, default_name="serving_default")


def asked(body: Any, inputs: dict[str, Tensor] = FEATURES, **others: Any) -> payloads.Question:
    return read(json.dumps(body).encode() if not isinstance(body, bytes) else body, model(inputs), **others)


def refusal(body: Any, inputs: dict[str, Tensor] = FEATURES) -> str:
    with pytest.raises(Refused) as caught:
        asked(body, inputs)
    assert caught.value.status == 400
    return caught.value.problem


@pytest.fixture(params=["orjson", "json"])
def parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the fast parser, if it is there, and without."""
    if request.param == "json":
        monkeypatch.setattr(payloads, "orjson", None)
    elif payloads.orjson is None:
        pytest.skip("orjson is not installed")


@pytest.mark.usefixtures("parser")
class TestQuestions:
    @pytest.mark.parametrize(
        "body",
        [
            {"instances": [[1, 2, 3], [4, 5.5, 6]]},
            {"instances": [{"features": [1, 2, 3]}, {"features": [4, 5.5, 6]}]},
            {"inputs": [[1, 2, 3], [4, 5.5, 6]]},
            {"inputs": {"features": [[1, 2, 3], [4, 5.5, 6]]}},
            {"signature_name": "serving_default", "inputs": [[1, 2, 3], [4, 5.5, 6]]},
            {"signature_name": "", "instances": [[1, 2, 3], [4, 5.5, 6]]},
        ],
    )
    def test_one_input_may_come_by_rows_and_columns_with_its_name_and_without(self, body: Any) -> None:
        question = asked(body)

        np.testing.assert_array_equal(question.inputs["features"], np.array([[1, 2, 3], [4, 5.5, 6]], np.float32))
        assert (question.rows, question.by_columns) == (2, "inputs" in body)
        assert question.inputs["features"].dtype == np.float32

    def test_several_inputs_keep_their_types(self) -> None:
        rows = [
            {"tag": "foo", "signal": [1, -2], "image": [[[0], [255]], [[1], [2]]]},
            {"tag": {"b64": base64.b64encode(b"\xff\0").decode()}, "signal": [3, 4], "image": [[[3], [4]], [[5], [6]]]},
        ]
        question = asked({"instances": rows}, SEVERAL)

        assert question.inputs["tag"].tolist() == [b"foo", b"\xff\0"]
        assert question.inputs["signal"].tolist() == [[1, -2], [3, 4]]
        assert question.inputs["image"].shape == (2, 2, 2, 1)
        assert question.inputs["image"].dtype == np.uint8

    def test_nan_and_infinity_are_tokens_as_in_tensorflow_serving(self) -> None:
        values = asked(b'{"instances": [[NaN, Infinity, -Infinity]]}').inputs["features"]

        assert np.isnan(values[0, 0])
        assert values[0, 1:].tolist() == [np.inf, -np.inf]

    def test_null_is_a_missing_number_where_it_may_be_missing(self) -> None:
        values = asked({"instances": [[None, 1, 2]]}, optional=frozenset({"features"})).inputs["features"]

        assert np.isnan(values[0, 0])
        assert "expected a number, received null" in refusal({"instances": [[None, 1, 2]]})

    def test_sequences_of_any_one_length_fit_an_open_dimension(self) -> None:
        inputs = {"tokens": Tensor("int64", (None, None))}

        assert asked({"instances": [[1, 2], [3, 4]]}, inputs).inputs["tokens"].shape == (2, 2)
        assert "differ in their lengths" in refusal({"instances": [[1, 2], [3]]}, inputs)

    @pytest.mark.parametrize(
        ("body", "words"),
        [
            (b"{", "no JSON"),
            (b'{"instances": [[1, 2, "\xff"]]}', "no JSON"),
            ([1], "Expected a JSON object"),
            ({}, "either `instances` (by rows) or `inputs`"),
            ({"instances": [], "inputs": []}, "either"),
            ({"instance": [[1, 2, 3]]}, "did you mean `instances`?"),
            ({"signature_name": "serving_defualt", "instances": []}, "did you mean `serving_default`?"),
            ({"instances": []}, "`instances` is empty"),
            ({"instances": 3}, "must be a list of examples, and is the number 3"),
            ({"instances": [[1, 2, 3], [1, 2]]}, "instances[1]: expected 3 values, received 2"),
            ({"instances": [1, 2, 3]}, "instances[0]: expected a list of shape [3], received the number 1"),
            ({"instances": [[1, 2, [3]]]}, "instances[0][2]: expected a number, received a list"),
            ({"instances": [[1, 2, "3"]]}, 'instances[0][2]: expected a number, received the text "3"'),
            ({"instances": [[1, 2, True], [1, 2, True]]}, ""),
            ({"instances": ["abc"]}, "instances[0]: expected a list"),
            ({"instances": [{"feature": [1, 2, 3]}]}, "no input `feature`: did you mean `features`?"),
            ({"instances": [{"features": [1, 2, 3], "more": 1}]}, "there is no input `more`"),
            ({"inputs": {"features": [[1, 2]]}}, "expected 3 values, received 2"),
            ({"instances": [[1, 2, 3], {"features": [1, 2, 3]}]}, "received an object"),
        ],
    )
    def test_what_does_not_fit_is_told_with_its_place(self, body: Any, words: str) -> None:
        if words:
            assert words in refusal(body)

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ({"signal": [1, 2.5]}, "instances[0].signal[1]: expected a whole number, received 2.5"),
            ({"signal": [1, 2**63]}, "expected a whole number from"),
            ({"image": [[[0], [256]], [[1], [2]]]}, "from 0 to 255, received 256"),
            ({"image": [[[0], [-1]], [[1], [2]]]}, "from 0 to 255, received -1"),
            ({"image": [[[0, 1]], [[1], [2]]]}, "expected 2 values, received 1"),
            ({"tag": 3}, 'instances[0].tag: expected a text or {"b64": "…"}, received the number 3'),
            ({"tag": {"b64": "?"}}, "with base64 in it"),
            ({"tag": ["a"]}, "received a list"),
            ({"signal": [True, False]}, "expected a number, received true"),
        ],
    )
    def test_values_of_another_type_are_told_by_input_and_place(self, change: dict[str, Any], words: str) -> None:
        example = {"tag": "foo", "signal": [1, -2], "image": [[[0], [255]], [[1], [2]]], **change}

        assert words in refusal({"instances": [example]}, SEVERAL)

    def test_all_that_is_wrong_with_the_names_is_told_at_once(self) -> None:
        told = refusal({"inputs": {"tags": ["a"], "signal": [[1, 2]]}}, SEVERAL)

        assert "there is no input `tags`: did you mean `tag`?" in told
        assert "the input `image` is missing" in told
        assert "signal (int64 [2])" in told


@pytest.mark.usefixtures("parser")
class TestAnswers:
    def answer(self, outputs: dict[str, Any], *, columns: bool = False, rows: int = 2) -> Any:
        question = payloads.Question("serving_default", {}, rows, columns)
        return json.loads(written(question, {name: np.array(values) for name, values in outputs.items()}))

    def test_a_single_output_has_no_name(self) -> None:
        values = {"y": np.array([[0.1], [2]], np.float32)}

        assert np.float32(self.answer(values)["predictions"]).tolist() == values["y"].tolist()
        assert np.float32(self.answer(values, columns=True)["outputs"]).tolist() == values["y"].tolist()

    def test_several_outputs_are_objects_by_rows_and_one_object_by_columns(self) -> None:
        values = {"a": [1, 2], "b": [[1.5], [2.5]]}

        assert self.answer(values) == {"predictions": [{"a": 1, "b": [1.5]}, {"a": 2, "b": [2.5]}]}
        assert self.answer(values, columns=True) == {"outputs": values}

    def test_text_is_text_and_bytes_are_base64(self) -> None:
        values = {"word": np.array(["café".encode(), b"\xff"], object), "png_bytes": np.array([b"ab", b""], object)}

        assert self.answer(values, columns=True)["outputs"] == {
            "word": ["café", {"b64": "/w=="}],
            "png_bytes": [{"b64": "YWI="}, {"b64": ""}],
        }

    def test_what_is_not_finite_comes_as_a_token(self) -> None:
        question = payloads.Question("serving_default", {}, 2, False)

        assert written(question, {"y": np.array([np.nan, np.inf], np.float32)}) == b'{"predictions": [NaN, Infinity]}'

    def test_an_output_that_is_none_of_each_example_must_be_asked_by_columns(self) -> None:
        with pytest.raises(Refused, match="ask by columns"):
            self.answer({"total": 3.0})
        assert self.answer({"total": 3.0}, columns=True) == {"outputs": 3.0}
