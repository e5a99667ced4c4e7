from __future__ import annotations

import numpy as np
import pytest

from headrace.bundling.compressing import clustered, compressed, pruned


@pytest.fixture
def weights() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(20, 30)).astype(np.float32)


class TestPruning:
    def test_the_smallest_weights_become_zero(self, weights: np.ndarray) -> None:
        found = pruned(weights, 0.5)
        assert (found == 0).mean() == 0.5
        assert np.abs(weights[found == 0]).max() <= np.abs(weights[found != 0]).min()
        assert (found[found != 0] == weights[found != 0]).all()

    def test_equal_weights_are_not_all_pruned(self) -> None:
        assert (pruned(np.ones((4, 4)), 0.25) == 0).sum() == 4


class TestClustering:
    def test_few_values_remain_each_the_nearest(self, weights: np.ndarray) -> None:
        found = clustered(weights, 16)
        values = np.unique(found)
        assert len(values) == 16
        nearest = values[np.abs(weights[..., None] - values).argmin(axis=-1)]
        assert (nearest == found).mean() > 0.999
        assert np.abs(found - weights).mean() < 0.1

    def test_pruned_weights_stay_zero(self, weights: np.ndarray) -> None:
        few = pruned(weights, 0.5)
        found = clustered(few, 8, keep_zero=True)
        assert ((found == 0) == (few == 0)).all()
        assert len(np.unique(found)) == 9

    def test_what_has_fewer_values_is_left_alone(self) -> None:
        given = np.array([[1.0, 2.0], [2.0, 1.0]], np.float32)
        assert clustered(given, 2) is given


def test_a_model_is_compressed_for_a_while_only(weights: np.ndarray) -> None:
    import keras

    given = keras.Input((20,))
    model = keras.Model(given, keras.layers.Dense(30, bias_initializer="ones")(given))
    model.layers[-1].kernel.assign(weights)
    with compressed(model, 0.5, 4):
        kernel, bias = (variable.numpy() for variable in model.trainable_variables)
        assert len(np.unique(kernel)) == 5
        assert (bias == 1).all()
    assert (model.layers[-1].kernel.numpy() == weights).all()
