"""Style transfer: losses against hand arithmetic, pictures that go on where they stood, and the network that paints."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headrace import Feature, projects
from headrace.errors import DataError
from headrace.jobs import resolve

TINY: dict[str, Any] = {"backbone": "squeezenet", "layers": ["fire3_concat", "conv1", "fire2_concat"]}
SIZE = (40, 48)
"""Height and width."""


def pictures(count: int = 1, size: tuple[int, int] = SIZE) -> dict[str, Any]:
    """Drawn landscapes beside drawn strokes, as records hold them."""
    from pipelines.sources.pictures import landscape, strokes

    random = np.random.default_rng(0)
    drawn = [np.asarray(landscape(random, size[::-1])) for _ in range(count)]
    painting = np.asarray(strokes(random, size[::-1]))
    return {"image": np.stack(drawn), "painted": np.stack([painting] * count)}


def begun(variant: str, given: Mapping[str, Any], model: Mapping[str, Any] = {}, **train: Any) -> Any:
    """A loop of a variant on such records."""
    import keras

    from headrace.engine.feeding import Split
    from headrace.engine.loops import Start

    overrides = {"model.layers": TINY["layers"], "train.weights": {}}
    overrides |= {f"model.{name}": value for name, value in model.items()}
    job = resolve("style_transfer", variant=variant, overrides=overrides | {f"train.{k}": v for k, v in train.items()})
    shape = given["image"].shape[1:]
    features = {name: Feature(shape=shape, dtype="uint8") for name in given}
    keras.utils.set_random_seed(0)
    studio = job.the("model")({"image": features["image"]}, **job.settings.model)
    split = Split({"image": given["image"]}, {"painted": given["painted"]})
    return job.the("loop")(Start(studio, split, None, features, job.settings.train, seed=0))


def again(loop: Any, make: Any) -> Any:
    """A fresh loop at the state of another one, which has been through the bytes of a checkpoint."""
    from headrace.engine.loops import ByHand

    settings = resolve("style_transfer").settings.train
    fresh = make()
    ByHand(fresh, settings).restore([np.copy(array) for array in ByHand(loop, settings).state()])
    return fresh


class TestLosses:
    def test_a_gram_holds_the_products_of_channels_summed_over_places(self) -> None:
        from pipelines.style_transfer.loops import gram

        found = np.array([[[[1.0, 2.0], [3.0, 4.0]], [[0.0, 1.0], [2.0, 0.0]]]])
        # 1·1 + 3·3 + 0·0 + 2·2, 1·2 + 3·4 + 0·1 + 2·0, 2·2 + 4·4 + 1·1 + 0·0
        np.testing.assert_array_equal(gram(found), [[[14.0, 14.0], [14.0, 21.0]]])

    def test_grams_of_several_pictures_are_their_own(self) -> None:
        from pipelines.style_transfer.loops import gram

        found = np.random.default_rng(0).normal(size=(3, 4, 5, 6))
        each = np.concatenate([gram(one[None]) for one in found])
        np.testing.assert_allclose(gram(found), each)
        np.testing.assert_allclose(each, np.einsum("bhwc,bhwd->bcd", found, found))

    def test_style_is_the_squared_distance_over_that_of_three_channels_and_all_pixels(self) -> None:
        from pipelines.style_transfer.loops import style_loss

        one, other = np.array([[[1.0, 2.0], [2.0, 5.0]]]), np.zeros((1, 2, 2))
        # (1 + 4 + 4 + 25) / (4 · 3² · 10²)
        np.testing.assert_allclose(style_loss(one, other, 10), [34 / 3600])

    def test_variation_is_of_the_steps_down_and_to_the_right(self) -> None:
        from pipelines.style_transfer.loops import variation

        picture = np.array([[[[0.0], [3.0]], [[4.0], [9.0]]], [[[1.0], [1.0]], [[1.0], [7.0]]]])
        # Of two rows and columns only the first pixel has both neighbours: (4² + 3²) ** 1.25, and 0.
        np.testing.assert_allclose(variation(picture), [25**1.25, 0.0])

    def test_the_rate_of_the_book_falls_to_less_than_20(self) -> None:
        from pipelines.style_transfer.loops import optimizer_of

        optimizer = optimizer_of(resolve("style_transfer").settings.train)
        optimizer.iterations.assign(4000)
        assert float(optimizer.learning_rate) == pytest.approx(100 * 0.96**40)
        assert float(optimizer.learning_rate) == pytest.approx(19.5, abs=0.1)

    def test_the_settings_of_the_book_are_the_defaults(self) -> None:
        from pipelines.style_transfer import plan

        job = resolve("style_transfer")
        made = plan(**job.settings.model)
        assert (made.content, made.style, made.variation) == (2.5e-8, 1e-6, 1e-6)
        assert made.layers == ("block5_conv2", *(f"block{k}_conv1" for k in range(1, 6)))
        assert (job.settings.train.epochs, job.settings.train.sample_every) == (4000, 100)
        assert job.settings.train.weights == {"vgg19": "imagenet"}

    def test_a_picture_has_no_distance_from_itself(self) -> None:
        from pipelines.style_transfer.loops import content_distances, style_distances

        loop = begun("squeezenet", pictures())
        taste = loop.descent.taste
        painting, photograph = (pictures()[name].astype(np.float32) for name in ("painted", "image"))
        np.testing.assert_allclose(style_distances(taste, painting), 0, atol=1e-5)
        np.testing.assert_allclose(content_distances(taste, photograph, photograph), 0, atol=1e-6)
        assert style_distances(taste, photograph)[0] > 0.3
        assert content_distances(taste, painting, photograph)[0] > 0.3


@pytest.mark.parametrize("variant", ["squeezenet", "from_noise"])
def test_a_picture_comes_nearer_to_the_style_and_its_loss_falls(variant: str) -> None:
    """From noise it comes nearer to the content as well; from the photograph it can only go away from it."""
    from pipelines._perception import trend
    from pipelines.style_transfer.loops import content_distances, noise, style_distances

    given = pictures()
    loop = begun(variant, given)
    for step in range(60):
        loop.advance(step)
    found = loop.results()
    taste, photograph = loop.descent.taste, given["image"].astype(np.float32)
    start, result = (found[name][None].astype(np.float32) for name in ("start", "result"))
    grey = np.asarray(noise(photograph.shape, 1))

    assert trend(found["losses"]) == 1.0
    assert found["losses"][-1] < 0.5 * found["losses"][0]
    assert style_distances(taste, result)[0] < 0.7 * style_distances(taste, start)[0]
    near = content_distances(taste, result, photograph)[0]
    assert near < content_distances(taste, given["painted"].astype(np.float32), photograph)[0]
    assert near < content_distances(taste, grey, photograph)[0]
    if variant == "from_noise":
        assert near < content_distances(taste, start, photograph)[0]
    else:
        np.testing.assert_array_equal(start, photograph)


@pytest.mark.parametrize(
    ("variant", "cut", "model"), [("book", 1, {}), ("squeezenet", 4, {}), ("fast", 3, {"filters": 4, "blocks": 1})]
)
def test_what_is_cut_off_at_any_step_goes_on_to_the_same_end(variant: str, cut: int, model: dict[str, Any]) -> None:
    """`book`: by its optimizer, whose rate follows a schedule."""
    book = {"optimizer": "sgd", "learning_rate": 100.0, "schedule": resolve("style_transfer").settings.train.schedule}
    given = pictures(4 if variant == "fast" else 1)
    train = book if variant == "book" else {"batch_size": 2}

    def make() -> Any:
        return begun("squeezenet" if variant == "book" else variant, given, model, **train)

    whole, before = make(), make()
    rows = [whole.advance(step) for step in range(5)]
    for step in range(cut):
        before.advance(step)
    loop = again(before, make)

    assert [loop.advance(step) for step in range(cut, 5)] == rows[cut:]
    for one, other in zip(loop.moving, whole.moving, strict=True):
        np.testing.assert_array_equal(one, other)
    for name, values in whole.results().items():
        np.testing.assert_array_equal(loop.results()[name], values)


class TestTheNetworkThatPaints:
    def test_has_the_layers_of_its_description(self) -> None:
        from pipelines.style_transfer.loops import painter

        network = painter((256, 256, 3), 32, 5)
        assert network.output_shape == (None, 256, 256, 3)
        # Kernels, and a scale and an offset for each channel that is normalised.
        kernels = (
            9 * 9 * 3 * 32 + 9 * (32 * 64 + 64 * 128) + 10 * 9 * 128 * 128 + 9 * (128 * 64 + 64 * 32) + 81 * 32 * 3
        )
        assert network.count_params() == kernels + 2 * (32 + 64 + 128 + 10 * 128 + 64 + 32) + 3

    def test_learns_to_lower_the_loss_of_photographs_it_has_not_seen(self) -> None:
        from pipelines.style_transfer.loops import described

        given = pictures(10, (64, 64))
        loop = begun("fast", {name: values[:8] for name, values in given.items()}, {"filters": 8, "blocks": 1})
        unseen = given["image"][8:].astype(np.float32)

        def loss() -> float:
            parts = loop.taste(loop.model.work(unseen, training=False), loop.taste.content(unseen))
            return float(np.mean(described(parts)))

        before = loss()
        for step in range(40):
            loop.advance(step)
        assert loss() < 0.7 * before

    def test_gives_brightness_and_is_the_same_for_each_picture_by_itself(self) -> None:
        from pipelines.style_transfer.loops import painter

        network, images = painter((32, 32, 3), 4, 1), pictures(3, (32, 32))["image"]
        painted = np.asarray(network(images))
        assert (painted.min() >= 0, painted.max() <= 255) == (True, True)
        np.testing.assert_allclose(painted[1:2], np.asarray(network(images[1:2])), atol=1e-3)


class TestPicturesOfOnesOwn:
    def folder(self, place: Path, *names: str) -> Path:
        from pipelines.sources._drawing import encoded
        from pipelines.sources.pictures import landscape

        place.mkdir()
        for number, name in enumerate(names):
            (place / name).write_bytes(encoded(landscape(np.random.default_rng(number), (60, 40))))
        return place

    def rows(self, workload: str, place: Path, split: str) -> list[str]:
        job = resolve(workload, source=str(place))
        raw = place.parent
        return [row["file"].decode() for batch in job.origin.read(raw)[split] for row in batch.to_pylist()]

    def test_are_a_folder_with_a_painting(self, tmp_path: Path) -> None:
        place = self.folder(tmp_path / "mine", *(f"{k}.jpg" for k in range(10)), "Painting.jpg")
        train, test = (self.rows("style_transfer", place, split) for split in ("train", "test"))
        assert (len(train), len(test)) == (8, 2)
        assert set(train + test) == {f"{k}.jpg" for k in range(10)}

    def test_may_be_a_single_one(self, tmp_path: Path) -> None:
        place = self.folder(tmp_path / "mine", "beach.jpg")
        assert self.rows("deepdream", place / "beach.jpg", "train") == ["beach.jpg"]

    def test_without_a_painting_are_refused(self, tmp_path: Path) -> None:
        place = self.folder(tmp_path / "mine", "a.jpg", "b.jpg")
        with pytest.raises(DataError, match="one called painting"):
            self.rows("style_transfer", place, "train")


def test_sizes_keep_the_proportions_of_the_photograph() -> None:
    from pipelines._perception import size_of
    from pipelines.sources._drawing import encoded
    from pipelines.sources.pictures import landscape

    file = encoded(landscape(np.random.default_rng(0), (300, 200)))
    assert size_of(file).tolist() == [200, 300]
    assert size_of(file, 400).tolist() == [400, 600]
    assert size_of(file, 64, 64).tolist() == [64, 64]


def test_the_pictures_of_the_book_are_a_pair() -> None:
    source = projects.load("style_transfer").sources["pictures"]
    assert [file.name for file in source.files] == ["sf.jpg", "coast.jpg", "starry_night.jpg"]
