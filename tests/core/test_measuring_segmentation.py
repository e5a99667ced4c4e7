from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.evaluating import measured
from headrace.measuring.segmentation import Segmentation
from headrace.measuring.tasks import examples, joined
from headrace.measuring.words import title
from headrace.spec import Feature
from tests.core.judging import gate, judged, metrics, request

Array = np.ndarray[Any, Any]

CLASSES = ("ground", "cat", "Big Dog")
MASK = Feature(shape=(6, 5, 1), dtype="uint8", role="target", content="mask", classes=CLASSES)


def masks(count: int, seed: int = 0, classes: int = 3) -> Array:
    """Masks of the three classes, mostly ground, with a cat in the upper left corner."""
    random = np.random.default_rng(seed)
    made = random.choice(classes, (count, 6, 5, 1), p=[0.7, 0.2, 0.1][:classes] if classes == 3 else None)
    made[:, :2, :2] = 1
    return made.astype(np.uint8)


def scores(said: Array, classes: int = 3) -> Array:
    return np.eye(classes, dtype=np.float32)[said[..., 0]]


def spoilt(truth: Array, share: float, seed: int = 1) -> Array:
    """The masks, with a share of their pixels drawn anew."""
    random = np.random.default_rng(seed)
    return np.where(random.random(truth.shape) < share, random.integers(0, 3, truth.shape), truth).astype(np.uint8)


class TestSegmentation:
    def test_its_metrics_are_those_of_scikit_learn_over_all_pixels(self) -> None:
        from sklearn.metrics import accuracy_score, jaccard_score

        truth = masks(20)
        said = spoilt(truth, 0.4)
        found = metrics(Segmentation(MASK), truth, scores(said))
        each = jaccard_score(truth.ravel(), said.ravel(), average=None)
        assert found == {
            "accuracy": pytest.approx(accuracy_score(truth.ravel(), said.ravel())),
            "mean_iou": pytest.approx(each.mean()),
            "iou_ground": pytest.approx(each[0]),
            "iou_cat": pytest.approx(each[1]),
            "iou_big_dog": pytest.approx(each[2]),
        }

    @settings(max_examples=40, deadline=None)
    @given(st.integers(0, 2**31), st.lists(st.integers(0, 3), min_size=5, max_size=5))
    def test_an_image_of_weight_two_counts_as_two(self, seed: int, weights: list[int]) -> None:
        truth, task = masks(5, seed), Segmentation(MASK)
        answers, repeated = scores(spoilt(truth, 0.5, seed)), np.repeat(np.arange(5), weights)
        if repeated.size:
            assert metrics(task, truth, answers, np.array(weights, float)) == pytest.approx(
                metrics(task, truth[repeated], answers[repeated])
            )

    def test_batches_of_any_size_give_the_same_facts(self) -> None:
        truth, task = masks(7), Segmentation(MASK)
        answers = scores(spoilt(truth, 0.5))
        whole = task.facts(truth, answers)
        parts = joined(task.facts(truth[i : i + 2], answers[i : i + 2]) for i in range(0, 7, 2))
        assert all((parts[name] == whole[name]).all() for name in whole)
        assert examples(whole) == 7

    def test_a_class_that_nobody_speaks_of_is_undefined_and_left_out_of_the_mean(self) -> None:
        truth = np.zeros((2, 6, 5, 1), np.uint8)
        found = metrics(Segmentation(MASK), truth, scores(truth))
        assert (found["iou_ground"], found["iou_cat"], found["mean_iou"]) == (1, None, 1)

    def test_pixels_of_no_class_do_not_count(self) -> None:
        truth = masks(4)
        said = truth.copy()
        truth[:, 3:] = 255
        assert metrics(Segmentation(MASK), truth, scores(said))["accuracy"] == 1

    def test_masks_may_have_two_dimensions_and_no_names(self) -> None:
        plain = Segmentation(Feature(shape=(6, 5), dtype="int64", role="target"))
        truth = masks(3)
        found = metrics(plain, truth[..., 0].astype(np.int64), scores(truth))
        assert found == {"accuracy": 1, "mean_iou": 1, "iou_0": 1, "iou_1": 1, "iou_2": 1}

    @pytest.mark.parametrize(
        ("shape", "fits"), [((6, 5, 3), True), ((6, 5, 4), False), ((5, 6, 3), False), ((6, 5), False), ((3,), False)]
    )
    def test_it_wants_a_score_of_each_class_for_each_pixel(self, shape: tuple[int, ...], fits: bool) -> None:
        assert Segmentation(MASK).fits(shape) is fits
        assert Segmentation(MASK).expected == "(examples, 6, 5, 3): the probability of each class"

    def test_the_worst_images_and_the_worst_class_are_told(self) -> None:
        truth = masks(20)
        said = truth.copy()
        said[3][truth[3] == 2] = 0
        said[7] = (truth[7] + 1) % 3
        task = Segmentation(MASK)
        found = task.about(task.facts(truth, scores(said)))
        assert [one["example"] for one in found["worst"]] == [7, 3]
        assert found["worst"][0]["error"] == 1
        wrong = (said != truth).mean()
        assert found["said"][0].startswith(f"Of 1,000 pixels {wrong * 1_000:.0f} ")
        assert "“Big Dog” worst" in found["said"][1]

    def test_every_iou_is_the_better_the_larger(self) -> None:
        assert Segmentation(MASK).rising == {"accuracy", "mean_iou", "iou_ground", "iou_cat", "iou_big_dog"}


class TestNaiveMasks:
    def test_the_majority_mask_knows_where_the_cat_is(self) -> None:
        truth, task = masks(30, seed=5), Segmentation(MASK)
        learned = task.learned(iter([masks(40), masks(3, seed=9)]))
        assert learned.sum() == 43 * 30
        found = {}
        for name, always in task.naive(learned).items():
            answers = always({}, 30)
            assert task.fits(answers.shape[1:])
            found[name] = metrics(task, truth, answers)
        everywhere = np.zeros_like(truth)
        assert found["majority class"] == metrics(task, truth, scores(everywhere))
        everywhere[:, :2, :2] = 1
        assert found["majority mask"] == metrics(task, truth, scores(everywhere))
        assert (found["majority mask"]["mean_iou"] or 0) > (found["majority class"]["mean_iou"] or 0) + 0.1

    def test_a_training_split_of_one_class_still_gives_answers_of_the_right_shape(self) -> None:
        plain = Segmentation(Feature(shape=(6, 5), dtype="uint8", role="target"))
        always = plain.naive(plain.learned([np.zeros((2, 6, 5), np.uint8)]))["majority class"]
        assert plain.fits(always({}, 2).shape[1:])


@pytest.mark.parametrize(
    ("metric", "said"),
    [
        ("mean_iou", "mean IoU"),
        ("mask_mean_iou", "mask mean IoU"),
        ("iou_big_dog", "IoU of big dog"),
        ("mask_iou_cat", "mask IoU of cat"),
        ("mae_step_12", "MAE at step 12"),
        ("radiou_x", "radiou x"),
    ],
)
def test_metrics_of_classes_and_steps_have_names_for_people(metric: str, said: str) -> None:
    assert title(metric) == said


def test_a_model_that_segments_is_judged_against_the_majority_mask(tmp_path: Path) -> None:
    truth = masks(40, seed=3)
    made = judged(tmp_path, request("segmentation"), MASK, truth, scores(spoilt(truth, 0.3)), masks(60))
    found = made.json("evaluation.json")
    assert (found["primary"], found["outputs"]["y"]["task"]) == ("mean_iou", "segmentation")
    assert set(found["baselines"]) == {"majority mask", "majority class"}
    assert {"mean_iou", "iou_cat"} <= set(found["larger_is_better"])
    low, high = found["intervals"]["mean_iou"]
    assert low < found["metrics"]["mean_iou"] < high < low + 0.1
    assert gate(found, "baseline")["passed"] is True
    assert "the majority mask" in gate(found, "baseline")["reason"]
    measures, facts = measured(made)
    assert float(measures.measure(facts)["iou_cat"]) == pytest.approx(found["metrics"]["iou_cat"])
