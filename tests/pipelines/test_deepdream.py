"""DeepDream: octaves, detail that comes back, answers that rise, and a dream that goes on where it stood."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from headrace import Feature
from headrace.errors import ConfigError
from headrace.jobs import resolve

SIZE = (96, 128)
"""Height and width."""
SMALL: dict[str, Any] = {
    "train.weights": {},
    "train.epochs": 12,
    "model.backbone": "squeezenet",
    "model.layers": {"fire2_concat": 1.0, "fire3_concat": 1.5},
    "model.max_loss": None,
}


def begun(**overrides: Any) -> Any:
    """A dream of a drawn landscape; state only the settings that differ."""
    import keras

    from headrace.engine.feeding import Split
    from headrace.engine.loops import Start
    from pipelines.sources.pictures import landscape

    given = {name.replace("__", "."): value for name, value in overrides.items()}
    job = resolve("deepdream", overrides=SMALL | given)
    image = np.asarray(landscape(np.random.default_rng(0), SIZE[::-1]))[None]
    features = {"image": Feature(shape=image.shape[1:], dtype="uint8")}
    keras.utils.set_random_seed(0)
    model = job.the("model")(features, **job.settings.model)
    return job.the("loop")(Start(model, Split({"image": image}), None, features, job.settings.train, seed=0))


def test_octaves_are_smaller_by_the_scale_and_end_with_the_picture() -> None:
    from pipelines.deepdream.loops import shapes

    assert shapes((900, 1200), 3, 1.4) == [(459, 612), (642, 857), (900, 1200)]
    assert shapes((100, 80), 1, 1.4) == [(100, 80)]


def test_the_settings_of_the_book_are_the_defaults() -> None:
    from pipelines.deepdream import plan

    job = resolve("deepdream")
    made = plan(**job.settings.model)
    assert made.layers == {"mixed4": 1.0, "mixed5": 1.5, "mixed6": 2.0, "mixed7": 2.5}
    assert (made.octaves, made.scale, made.max_loss) == (3, 1.4, 15.0)
    assert (job.settings.train.epochs / made.octaves, job.settings.train.learning_rate) == (30, 20.0)


def test_answers_are_the_mean_square_inside_the_border() -> None:
    import tensorflow as tf

    from pipelines.deepdream.loops import answers

    found = np.full((1, 6, 7, 2), 100.0, np.float32)
    found[:, 2:4, 2:5] = 3.0
    found[0, 2, 2] = (1.0, 5.0)
    # Six places of two channels are left: ten of 3², one of 1², one of 5².
    np.testing.assert_allclose(answers(lambda pictures, training: tf.constant(found), None), [(10 * 9 + 1 + 25) / 12])


def test_detail_is_what_was_lost_by_being_small() -> None:
    import tensorflow as tf

    from pipelines.deepdream.loops import detail, resized, shapes

    picture = tf.constant(np.random.default_rng(0).uniform(0, 255, (1, 28, 28, 3)), tf.float32)
    sizes = shapes((28, 28), 3, 1.4)
    assert sizes == [(14, 14), (20, 20), (28, 28)]
    assert not np.any(detail(picture, sizes, 0))
    small = resized(resized(picture, (20, 20)), (28, 28))
    np.testing.assert_allclose(small + detail(picture, sizes, 2), picture, atol=1e-3)


def test_a_step_is_as_long_as_asked_for() -> None:
    loop = begun(train__learning_rate=2.0)
    before = loop.picture
    loop.advance(0)
    assert np.linalg.norm(loop.picture - before) == pytest.approx(2 * 127.5, rel=1e-4)


def test_layers_answer_more_strongly_from_step_to_step() -> None:
    from pipelines._perception import pages, trend
    from pipelines.deepdream.loops import answers

    loop = begun()
    rows = [loop.advance(step) for step in range(12)]
    found = loop.results()
    assert [found[f"octave_{k}"].shape for k in (1, 2, 3)] == [(*size, 3) for size in loop.shapes]
    for k in range(0, 12, 4):
        assert trend(-found["answers"][k : k + 4]) == 1.0
    assert [row["loss"] for row in rows] == [-value for value in found["answers"]]
    start, dream = pages(loop.model.work)[:, None]
    assert np.all(np.asarray(answers(loop.model.eyes, dream)) > 1.5 * np.asarray(answers(loop.model.eyes, start)))
    np.testing.assert_array_equal(np.round(dream[0]), found["result"])


def test_an_octave_ends_where_answers_exceed_the_limit() -> None:
    free = [begun().advance(0)["answers"]]
    loop = begun(model__max_loss=free[0] * 1.05)
    rows = [loop.advance(step)["answers"] for step in range(12)]
    # The step that exceeds it is done; what follows in the octave repeats its answer.
    for k in range(0, 12, 4):
        over = [place for place in range(k, k + 4) if rows[place] > free[0] * 1.05]
        assert over
        assert len(set(rows[over[0] : k + 4])) == 1


@pytest.mark.parametrize("cut", [4, 7])
def test_what_is_cut_off_at_any_step_goes_on_to_the_same_dream(cut: int) -> None:
    """In the middle of an octave, and where one ends."""
    from headrace.engine.loops import ByHand

    whole, before, fresh = begun(), begun(), begun()
    rows = [whole.advance(step) for step in range(12)]
    for step in range(cut):
        before.advance(step)
    settings = resolve("deepdream").settings.train
    ByHand(fresh, settings).restore([np.copy(array) for array in ByHand(before, settings).state()])

    assert [fresh.advance(step) for step in range(cut, 12)] == rows[cut:]
    for name, values in whole.results().items():
        np.testing.assert_array_equal(fresh.results()[name], values)
    for one, other in zip(fresh.model.work.variables, whole.model.work.variables, strict=True):
        np.testing.assert_array_equal(one, other)


class TestIsToldThatItCantBe:
    def test_with_steps_that_octaves_cant_share(self) -> None:
        with pytest.raises(ConfigError, match="a multiple of 3"):
            begun(train__epochs=10)

    def test_by_layers_of_which_nothing_is_left(self) -> None:
        with pytest.raises(ConfigError, match="leaves nothing of layer `fire9_concat`"):
            begun(model__layers={"fire9_concat": 1.0})

    def test_by_layers_that_are_not_there(self) -> None:
        with pytest.raises(ConfigError, match="has no layer `fire2_conact`"):
            begun(model__layers={"fire2_conact": 1.0})

    def test_by_a_backbone_of_which_no_layers_are_known(self) -> None:
        with pytest.raises(ConfigError, match="resnet50"):
            begun(model__backbone="resnet50", model__layers=None)


class TestAnAlbum:
    def test_has_the_start_and_the_result(self) -> None:
        from pipelines._perception import RESULT, START, album, pages, put

        book, random = album((4, 5, 3)), np.random.default_rng(0)
        first, last = random.uniform(0, 255, (2, 1, 4, 5, 3)).astype(np.float32)
        put(book, START, first)
        put(book, RESULT, last)
        np.testing.assert_array_equal(pages(book), np.concatenate([first, last]))

    def test_shows_brightness_only(self) -> None:
        from pipelines._perception import RESULT, album, pages, put

        book = album((1, 2, 1))
        put(book, RESULT, np.array([-5.0, 300.0]))
        assert pages(book)[RESULT].ravel().tolist() == [0.0, 255.0]


def test_a_curve_falls_in_trend_where_its_parts_do() -> None:
    from pipelines._perception import trend

    assert trend(np.arange(10, 0, -1)) == 1.0
    assert trend(np.array([9, 8, 9, 7, 8, 6, 7, 5, 6, 4])) == 1.0
    assert trend(np.arange(10)) == 0.0
    assert trend(np.array([4, 4, 3, 3, 5, 5, 2, 2, 1, 1])) == 0.75
