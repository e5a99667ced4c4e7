"""What is served beside a model's own answer, or in its place."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headrace.artifacts import Artifact
from headrace.bundling.examples import examples_of
from headrace.bundling.signatures import Given, Signature
from headrace.errors import StageFailed
from headrace.serving.loading import Loaded
from headrace.serving.payloads import read, written
from headrace.spec import Feature
from tests.core import bundles

TEXT = Feature(dtype="string", content="text")
SEED = Feature(dtype="int64")


def answered(given: Given, inputs: Mapping[str, Any]) -> Any:
    """The scores of some reviews."""
    return given.models["model"](given.prepare({"review": inputs["review"]})["review"], training=False)


def three(given: Given) -> dict[str, Signature]:
    """The name of the likeliest class in place of the scores; the words of a text; and a class drawn by its score."""
    import tensorflow as tf

    names = tf.constant(["calm", "wild", "odd"])

    def judge(inputs: dict[str, Any]) -> dict[str, Any]:
        scores = answered(given, inputs)
        label = tf.gather(names, tf.argmax(scores, axis=-1))
        return {"said": tf.strings.join([label, inputs["review"]], ": "), "score": tf.reduce_max(scores, axis=-1)}

    def split(inputs: dict[str, Any]) -> dict[str, Any]:
        words = tf.strings.split(inputs["text"])
        return {"words": words.to_tensor(), "count": words.row_lengths()}

    def draw(inputs: dict[str, Any]) -> dict[str, Any]:
        seeds = tf.stack([inputs["seed"], inputs["seed"]], axis=-1)
        chance = tf.map_fn(lambda s: tf.random.stateless_uniform([], s), seeds, fn_output_signature=tf.float32)
        edges = tf.cumsum(answered(given, inputs), axis=-1)
        return {"class": tf.reduce_sum(tf.cast(edges < chance[:, None], tf.int64), axis=-1)}

    texts = np.array(["one two three", "four"], object)
    return {
        "serving_default": Signature(judge, {"review": TEXT}),
        "words": Signature(split, {"text": TEXT}, examples={"text": texts}),
        "draw": Signature(draw, {"review": TEXT, "seed": SEED}),
    }


def exported(serve: Callable[[Given], Any], folder: Path, **settings: Any) -> Artifact:
    return replace(bundles.TEXT, serve=serve).export(folder, **{"formats": ("saved_model", "tflite"), **settings})


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """With three signatures beside the model's own answer."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEADRACE_HOME", str(tmp_path_factory.mktemp("home")))
        return exported(three, tmp_path_factory.mktemp("made"))


class TestServedInPlaceOfTheModel:
    def test_everything_is_tried_in_a_fresh_process(self, bundle: Artifact) -> None:
        parity = bundle.json("parity.json")

        assert parity["gate"]["passed"] is True, parity["gate"]["reason"]
        assert {name: entry["examples"] for name, entry in parity["signatures"].items()} == {
            "serving_default": 24,
            "words": 2,
            "draw": 24,
        }
        assert "signature draw answers 24 examples in a fresh process as it does here" in parity["gate"]["reason"]
        assert parity["formats"]["tflite"]["problem"] is None, "the model itself is converted as ever"

    def test_the_bundle_says_what_each_takes_and_gives(self, bundle: Artifact) -> None:
        said = bundle.json("bundle.json")

        assert said["signature"]["inputs"] == {"review": {"dtype": "string", "shape": []}}
        assert said["signature"]["outputs"] == {
            "said": {"dtype": "string", "shape": []},
            "score": {"dtype": "float32", "shape": []},
        }
        assert list(said["signatures"]) == ["answer", "words", "draw"]
        assert said["signatures"]["answer"]["outputs"] == {"label": {"dtype": "float32", "shape": [3]}}

    def test_strings_come_in_and_strings_go_out(self, bundle: Artifact) -> None:
        model = Loaded(bundle.path / "saved_model")
        texts = examples_of(bundle)["review"][:3]

        answers, scores = model.ask({"review": texts}), model.ask({"review": texts}, "answer")["label"]

        classes = [["calm", "wild", "odd"][number] for number in scores.argmax(axis=1)]
        assert answers["said"].tolist() == [f"{c}: {t.decode()}".encode() for c, t in zip(classes, texts, strict=True)]
        np.testing.assert_allclose(answers["score"], scores.max(axis=1), rtol=1e-6)

    def test_the_same_seed_draws_the_same(self, bundle: Artifact) -> None:
        model = Loaded(bundle.path / "saved_model")
        texts = np.repeat(examples_of(bundle)["review"][:1], 50)

        once = model.ask({"review": texts, "seed": np.arange(50)}, "draw")["class"]
        again = model.ask({"review": texts[::-1], "seed": np.arange(50)[::-1]}, "draw")["class"]

        assert len(set(once.tolist())) > 1
        assert once.tolist() == again[::-1].tolist()

    def test_a_request_may_choose_a_signature(self, bundle: Artifact) -> None:
        model = Loaded(bundle.path / "saved_model")

        question = read(b'{"signature_name": "words", "instances": ["a b c", "d"]}', model)
        response = written(question, model.ask(question.inputs, question.signature))

        assert json.loads(response) == {
            "predictions": [{"words": ["a", "b", "c"], "count": 3}, {"words": ["d", "", ""], "count": 1}]
        }

    def test_what_is_declared_of_an_input_travels_along(self, bundle: Artifact) -> None:
        served = Loaded(bundle.path / "saved_model").features({"review": Feature(dtype="string", content="image")})

        assert served == {"review": TEXT}

    def test_tensorflows_own_command_runs_a_signature(self, bundle: Artifact) -> None:
        command = [str(Path(sys.executable).with_name("saved_model_cli")), "run"]
        how = ["--dir", str(bundle.path / "saved_model"), "--tag_set", "serve", "--signature_def", "words"]

        done = subprocess.run([*command, *how, "--input_exprs", "text=['x y']"], capture_output=True, check=True)

        assert b"[[b'x' b'y']]" in done.stdout


def test_without_a_default_the_model_answers_and_the_rest_stands_beside(tmp_path: Path) -> None:
    def beside(given: Given) -> dict[str, Signature]:
        return {"draw": three(given)["draw"]}

    bundle = exported(beside, tmp_path, formats=("saved_model",))

    assert sorted(Loaded(bundle.path / "saved_model").signatures) == ["draw", "serving_default"]
    assert list(bundle.json("bundle.json")["signature"]["outputs"]) == ["label"]
    assert bundle.json("bundle.json")["gate"]["passed"] is True


class TestParityCatches:
    def reason(self, call: Callable[[Given, dict[str, Any]], Any], folder: Path) -> str:
        """Why the gate fails for a signature."""

        def serve(given: Given) -> dict[str, Signature]:
            return {"serving_default": Signature(lambda inputs: call(given, inputs), {"review": TEXT})}

        gate = exported(serve, folder, formats=("saved_model",)).json("bundle.json")["gate"]
        assert gate["passed"] is False
        return str(gate["reason"])

    def test_what_draws_without_a_seed(self, tmp_path: Path) -> None:
        import tensorflow as tf

        reason = self.reason(lambda _, inputs: {"y": tf.random.uniform(tf.shape(inputs["review"]))}, tmp_path)

        assert "signature serving_default can't be used: its answers differ by" in reason

    def test_what_happens_only_while_it_is_traced(self, tmp_path: Path) -> None:
        import tensorflow as tf

        calls: list[int] = []

        def count(_: Given, inputs: dict[str, Any]) -> dict[str, Any]:
            calls.append(1)
            return {"y": tf.strings.join([inputs["review"], str(len(calls))])}

        assert "it answers otherwise than here: `y` in a fresh process" in self.reason(count, tmp_path)

    def test_what_depends_on_the_examples_beside(self, tmp_path: Path) -> None:
        import tensorflow as tf

        def share(given: Given, inputs: dict[str, Any]) -> dict[str, Any]:
            lengths = tf.strings.length(inputs["review"])
            return {"y": lengths - tf.reduce_max(lengths)}

        assert "`y` when each example is asked alone" in self.reason(share, tmp_path)


class TestMistakes:
    @pytest.mark.parametrize(
        ("serve", "told"),
        [
            (lambda given: {}, "must return signatures by name"),
            (lambda given: {"x": lambda inputs: inputs}, "`x`: function"),
            (lambda given: given.models["encoder"], "The training has left no model `encoder`"),
            (lambda given: {"answer": Signature(lambda i: i, {"review": TEXT})}, "which is the model's own answer"),
            (lambda given: {"x": Signature(lambda i: i, {"text": TEXT})}, "no examples of its input `text`"),
            (lambda given: {"x": Signature(lambda i: {"y": i["nope"]}, {"review": TEXT})}, "`x` fails"),
            (lambda given: {"x": Signature(lambda i: {"y": i["review"][:3]}, {"review": TEXT})}, "shape (24, …)"),
            (
                lambda given: {"x": Signature(lambda i: {"y": i["review"].numpy()}, {"review": TEXT})},
                "The signature `x`",
            ),
        ],
    )
    def test_are_told(self, serve: Callable[[Given], Any], told: str, tmp_path: Path) -> None:
        with pytest.raises(StageFailed) as raised:
            exported(serve, tmp_path, formats=("saved_model",))

        assert told in str(raised.value)
