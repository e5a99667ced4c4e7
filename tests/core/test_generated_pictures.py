"""What is shown of images that are made, whose features they are compared by, and the balance of two networks."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from headrace.errors import ConfigError
from headrace.measuring import generated
from headrace.measuring.own import Own, write_samples

Array = np.ndarray[Any, Any]


def images(count: int, side: int = 16, channels: int = 3, seed: int = 0) -> Array:
    """Squares of one colour on a background of another one."""
    random = np.random.default_rng(seed)
    found = np.zeros((count, side, side, channels), np.uint8) + random.integers(0, 128, (count, 1, 1, channels))
    found[:, 4:12, 4:12] = random.integers(128, 256, (count, 1, 1, channels))
    return found.astype(np.uint8)


class TestSheets:
    @pytest.mark.parametrize("channels", [1, 3])
    def test_hold_images_row_by_row(self, channels: int) -> None:
        given = images(6, channels=channels)
        made = generated.sheet(given, 3)
        assert made.shape == (32, 48, channels)
        np.testing.assert_array_equal(made[16:, 32:], given[5])
        np.testing.assert_array_equal(generated.tiles(made, 16, 16), given)

    def test_end_in_black_where_images_are_missing(self) -> None:
        made = generated.sheet(np.ones((3, 2, 2, 1)), 2)
        assert made[:2].min() == 255
        assert made[2:, 2:].max() == 0

    def test_are_told_apart_again_as_files_of_grey_are_read(self) -> None:
        made = generated.sheet(images(4, channels=1), 2)
        assert generated.tiles(made[..., 0], 16, 16).shape == (4, 16, 16, 1)


@pytest.mark.parametrize("channels", [1, 3])
def test_an_animation_is_a_gif_of_all_frames_that_a_page_can_show(channels: int, tmp_path: Path) -> None:
    made = generated.animation(list(images(5, channels=channels)))
    with Image.open(io.BytesIO(made)) as file:
        assert (file.format, file.n_frames, file.size, file.info["loop"]) == ("GIF", 5, (16, 16), 0)
    written = write_samples(Own({"loss": 1.0}, samples={"growing up": made}), tmp_path)
    assert written == [{"name": "growing up", "file": "samples/growing_up.gif"}]
    assert (tmp_path / written[0]["file"]).read_bytes() == made


def test_a_scatter_shows_each_class_in_its_colour() -> None:
    points = np.random.default_rng(0).normal(size=(200, 2))
    made = generated.scatter(points, np.arange(200) % 10)
    assert (made.dtype, made.shape[2]) == (np.uint8, 3)
    # White, black, and ten colours at least.
    assert len(np.unique(made.reshape(-1, 3), axis=0)) > 12


class TestTheNetworkThatHasLearnedNothing:
    def test_always_says_the_same(self) -> None:
        given = images(70)
        found = generated.looking()(given)
        assert found.shape == (70, 4 * (16 + 32 + 64))
        np.testing.assert_array_equal(found, generated.looking("drawn")(given))

    def test_sees_grey_as_colours_that_are_equal(self) -> None:
        grey = images(3, channels=1)
        look = generated.looking()
        np.testing.assert_array_equal(look(grey), look(np.repeat(grey, 3, axis=-1)))

    def test_finds_images_of_one_kind_nearer_than_noise_a_mean_or_others(self) -> None:
        known, held = images(200), images(100, seed=1)
        look = generated.standardised(generated.looking(), known)
        noise = np.random.default_rng(0).permuted(held.reshape(-1, 3), axis=0).reshape(held.shape)
        mean = np.broadcast_to(known.mean(axis=0).astype(np.uint8), held.shape)
        other = held[:, ::-1].copy()
        other[:, :4] = 255
        distances = [generated.kernel_distance(look(held), look(x)) for x in (images(100, seed=2), mean, noise, other)]
        assert distances[0] == min(distances)
        assert min(distances[1:]) > max(10 * distances[0], 0.5)

    def test_another_name_is_answered_with_the_nearest(self) -> None:
        with pytest.raises(ConfigError, match="squeezenet"):
            generated.looking("squeeznet")


def test_a_bin_of_a_factor_counts_if_something_made_falls_into_it() -> None:
    real = np.random.default_rng(0).uniform(size=(1_000, 2))
    half = real.copy()
    half[:, 1] /= 2
    found = generated.bins_covered(half, real, bins=10)
    assert found[0] == 1
    assert found[1] == pytest.approx(0.5, abs=0.1)
    assert generated.bins_covered(real[:1].repeat(50, 0), real, bins=10).tolist() == [0.1, 0.1]
    assert generated.bins_covered(real + 5, real).tolist() == [0, 0]


class TestBalance:
    def test_both_losses_lie_within_the_healthy_band(self) -> None:
        assert generated.balanced([0.8, 5.0, 0.9, 0.1], [0.69, 0.6, 0.01, 0.7]).tolist() == [True, False, False, False]

    def test_an_alarm_tells_of_a_discriminator_that_wins(self) -> None:
        climbing, falling = [1.0] * 5 + [3.0, 5, 6, 7, 8], [0.6] * 5 + [0.1, 0.05, 0.02, 0.01, 0.01]
        said = generated.alarm(climbing, falling)
        assert said is not None
        assert "its loss is 0.038" in said
        assert "climbed to 5.8" in said
        assert generated.alarm(climbing[::-1], falling) is None
        assert generated.alarm([1.0] * 10, falling) is None
        assert generated.alarm(climbing, [0.6] * 10) is None
        assert generated.alarm([9.0], [0.01]) is not None


def test_the_nearest_point_says_its_label() -> None:
    known, labels = np.array([[0.0, 0], [1, 1], [5, 5]]), np.array([7, 8, 9])
    assert generated.nearest_labels(np.array([[0.9, 0.8], [9, 9]]), known, labels).tolist() == [8, 9]


def test_most_of_the_nearest_points_say_their_label() -> None:
    known, labels = np.array([[0.0, 0], [1, 1], [1.2, 1.2], [5, 5]]), np.array([7, 8, 8, 9])
    asked = np.array([[0.4, 0.4], [9, 9]])
    assert generated.nearest_labels(asked, known, labels).tolist() == [7, 9]
    assert generated.nearest_labels(asked, known, labels, 3).tolist() == [8, 8]
    # As many as there are, if there are fewer; of two as frequent the smaller one.
    assert generated.nearest_labels(asked, known[:2], labels[:2], 99).tolist() == [7, 7]
