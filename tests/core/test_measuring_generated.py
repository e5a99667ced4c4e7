from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import linalg

from headrace.errors import StageFailed
from headrace.measuring import generated
from headrace.measuring.generated import frechet_distance, kernel_distance, kernel_distances

Array = np.ndarray[Any, Any]


def normal(count: int, size: int = 4, mean: float = 0.0, spread: float = 1.0, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(mean, spread, (count, size))


class TestFrechetDistance:
    def test_it_is_that_of_two_normal_distributions(self) -> None:
        """In closed form for independent dimensions: squared distance of means, and of standard deviations."""
        found = frechet_distance(normal(200_000, 3), normal(200_000, 3, mean=1, spread=2, seed=1))
        assert found == pytest.approx(3 * 1 + 3 * (2 - 1) ** 2, rel=0.02)

    @settings(max_examples=30, deadline=None)
    @given(st.integers(0, 2**31), st.integers(1, 6))
    def test_it_is_the_textbook_formula_with_the_root_of_a_product(self, seed: int, size: int) -> None:
        random = np.random.default_rng(seed)
        one, other = (random.normal(size=(40, size)) @ random.normal(size=(size, size)) for _ in range(2))
        a, b = (np.atleast_2d(np.cov(x, rowvar=False)) for x in (one, other))
        root = np.trace(np.real(linalg.sqrtm(a @ b)))
        expected = np.square(one.mean(0) - other.mean(0)).sum() + np.trace(a) + np.trace(b) - 2 * root
        assert frechet_distance(one, other) == pytest.approx(expected, rel=1e-5, abs=1e-6)

    def test_a_set_is_no_distance_from_itself_even_with_fewer_examples_than_features(self) -> None:
        assert frechet_distance(normal(10, 50), normal(10, 50)) == pytest.approx(0, abs=1e-6)


class TestKernelDistance:
    def test_it_is_the_sum_over_all_pairs(self) -> None:
        x, y = normal(7, 3), normal(5, 3, seed=1)

        def kernel(a: Array, b: Array) -> float:
            return float((a @ b / 3 + 1) ** 3)

        within = [np.mean([kernel(z[i], z[j]) for i in range(len(z)) for j in range(len(z)) if i != j]) for z in (x, y)]
        between = np.mean([kernel(a, b) for a in x for b in y])
        assert kernel_distance(y, x) == pytest.approx(sum(within) - 2 * between)

    def test_its_estimates_are_unbiased(self) -> None:
        """Of two sets from one distribution they lie around 0, however small the blocks are."""
        found = kernel_distances(normal(4_000), normal(4_000, seed=1), block=20)
        assert found.shape == (200,)
        assert abs(found.mean()) < 3 * found.std() / 200**0.5
        assert kernel_distances(normal(4_000), normal(4_000, mean=0.5, seed=1), block=20).mean() > 1

    def test_no_example_stands_in_two_blocks_and_few_examples_still_give_two(self) -> None:
        assert kernel_distances(normal(110), normal(400, seed=1)).shape == (2,)
        assert kernel_distances(normal(9), normal(400, seed=1)).shape == (2,)


class TestDiversityAndMemory:
    def test_diversity_is_the_mean_distance_of_two_examples(self) -> None:
        values = normal(4_001)
        found = generated.diversity(values)
        assert found.shape == (2_000,)
        # The distance of two normal points in four dimensions: √2 times the mean of a chi distribution.
        assert found.mean() == pytest.approx(2**0.5 * 2**0.5 * 1.3293 / 1, rel=0.02)

    def test_a_collapse_is_seen(self) -> None:
        centres = normal(6, spread=10)
        real = np.concatenate([centre + normal(50, seed=i) for i, centre in enumerate(centres)])
        collapsed = centres[2] + normal(300, seed=9)
        assert generated.diversity(collapsed).mean() < generated.diversity(real).mean() / 3
        assert (generated.modes(real, centres), generated.modes(collapsed, centres)) == (6, 1)
        assert generated.coverage(real[::2], real, kinds=6) == 1
        assert generated.coverage(collapsed, real, kinds=6) == pytest.approx(1 / 6)

    def test_a_copy_of_a_training_example_is_seen(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(generated, "_BYTES", 5_000)  # some rows at a time
        known, fresh = normal(300), normal(100, seed=1)
        fresh[3] = known[200]
        found = generated.nearest(fresh, known)
        expected = np.linalg.norm(fresh[:, None] - known[None], axis=-1).min(axis=1)
        np.testing.assert_allclose(found, expected)
        assert found.argmin() == 3
        assert found[3] == 0

    def test_features_that_are_no_numbers_stop_it(self) -> None:
        broken = normal(5)
        broken[1, 1] = np.nan
        with pytest.raises(StageFailed, match="1 numbers not finite"):
            frechet_distance(broken, normal(5))
        with pytest.raises(StageFailed, match="at least two vectors"):
            generated.diversity(normal(1))


class TestFeatures:
    def test_they_are_asked_for_in_batches_and_averaged_over_places(self) -> None:
        import keras

        given_ = keras.Input((4, 4, 2))
        network = keras.Model(given_, keras.layers.Conv2D(3, 2)(given_))
        images = normal(10, 32).reshape(10, 4, 4, 2).astype(np.float32)
        found = generated.features(network, images, batch=4)
        np.testing.assert_allclose(found, network(images).numpy().mean(axis=(1, 2)), rtol=1e-5)


class TestLatentSpaces:
    def test_reconstruction_is_the_loss_of_keras_summed_over_pixels(self) -> None:
        import keras

        random = np.random.default_rng(0)
        images, again = random.random((5, 3, 3, 1)), random.random((5, 3, 3, 1))
        expected = keras.losses.binary_crossentropy(images, again).numpy().sum(axis=(1, 2))
        np.testing.assert_allclose(generated.reconstruction(images, again), expected, rtol=1e-6)

    def test_the_divergence_is_that_of_two_normal_distributions(self) -> None:
        mean, log_variance = np.array([[0.0, 0.0], [1.0, -2.0]]), np.array([[0.0, 0.0], [0.0, np.log(4)]])
        found = generated.divergence(mean, log_variance)
        assert found == pytest.approx([0, 0.5 * 1 + 0.5 * (4 + 4 - 1 - np.log(4))])
        assert generated.divergence(mean, log_variance, "mean") == pytest.approx(found / 2)


def test_episodes_are_solved_from_a_return_on() -> None:
    found = generated.episodes(np.array([500, 474, 475]), solved=475)
    assert found["return"].tolist() == [500, 474, 475]
    assert found["solved"].tolist() == [1, 0, 1]
