"""What networks see, on networks and images small enough to know the answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from headrace.errors import ConfigError
from tests.core import seeing
from tests.core.seeing import SIDE, convnet, shapes

if TYPE_CHECKING:
    from headrace.seeing.networks import Network

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")

Array = np.ndarray[Any, Any]


def network(model: Any, name: str = "a network", **how: Any) -> Network:
    from headrace.seeing.networks import Network

    return Network(model, name, **how)


def floats(images: Array) -> Any:
    import tensorflow as tf

    return tf.constant(images, tf.float32)


def cats() -> Any:
    """The base convnet of cats and dogs (Chollet 8.2.3) with augmentation and dropout (8.2.5)."""
    from keras import Input, Sequential, layers

    parts = [Input((180, 180, 3), name="image"), layers.RandomFlip("horizontal"), layers.Rescaling(1 / 255)]
    for place, filters in enumerate((32, 64, 128, 256, 256)):
        parts += [layers.MaxPooling2D(2)] if place else []
        parts.append(layers.Conv2D(filters, 3, activation="relu"))
    return Sequential([*parts, layers.Flatten(), layers.Dropout(0.5), layers.Dense(1, activation="sigmoid")])


def nested() -> Any:
    """A network within another one, which prepares its images."""
    import keras
    from keras import layers

    inner = keras.Sequential(
        [keras.Input((32, 32, 3)), layers.Conv2D(4, 3, activation="relu", name="first"), layers.MaxPooling2D(2)],
        name="inner",
    )
    given = keras.Input((32, 32, 3), dtype="uint8", name="image")
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(5, 3, name="second")(inner(layers.Rescaling(1 / 255)(given))))
    return keras.Model({"image": given}, layers.Dense(3, activation="softmax")(x))


class TestNetworks:
    def test_a_list_of_layers_shows_every_convolution_and_every_pooling(self) -> None:
        model = cats()
        assert model.count_params() == 991_041
        found = network(model, span=(0, 255)).maps("convolution", "pooling")
        assert [seen.kind for seen in found] == ["convolution", "pooling"] * 4 + ["convolution"]
        assert (found[0].shape, found[-1].shape) == ((178, 178, 32), (7, 7, 256))

    def test_layers_inside_of_others_are_found_by_their_path_or_their_name(self) -> None:
        made = network(nested())
        assert [seen.path for seen in made.maps("convolution")] == ["inner/first", "second"]
        assert made.known("first") is made.known("inner/first")
        with pytest.raises(ConfigError, match=r"has no layer `inner/firsts`.*inner/first"):
            made.known("inner/firsts")

    @pytest.mark.parametrize("make", [cats, nested, lambda: convnet(normalised=True)], ids=["list", "nested", "normal"])
    def test_the_answers_are_those_of_the_model_when_it_serves(self, make: Any) -> None:
        """Also of whole numbers taken as others, and though layers are listened to."""
        model = make()
        for layer in model.layers:
            if type(layer).__name__ == "BatchNormalization":
                layer.moving_mean.assign(np.linspace(-0.2, 0.2, layer.moving_mean.shape[0]))
        images = np.random.default_rng(0).integers(0, 256, (2, *model.inputs[0].shape[1:])).astype(np.uint8)
        expected = model.predict(images, verbose=0)
        made = network(model, span=(0, 255))
        answer, heard = made.heard(floats(images), [seen.path for seen in made.maps()])
        np.testing.assert_allclose(answer, expected, atol=1e-5)
        assert list(heard) == [seen.path for seen in made.maps()]
        assert not any("call" in vars(layer) for layer in model._flatten_layers())

    def test_a_model_without_convolutions_is_refused(self) -> None:
        import keras

        given = keras.Input((8, 8, 1), name="image")
        model = keras.Model(given, keras.layers.Dense(2)(keras.layers.Flatten()(given)))
        with pytest.raises(ConfigError, match="mnist version 1 has no convolution"):
            network(model, "mnist version 1")

    def test_a_model_that_takes_no_image_is_refused(self) -> None:
        import keras

        given = keras.Input((13,), name="features")
        with pytest.raises(ConfigError, match=r"prices takes no image\.(.|\n)*features \(13,\)"):
            network(keras.Model(given, keras.layers.Dense(1)(given)), "prices")

    def test_a_model_that_is_no_graph_is_refused(self) -> None:
        import keras

        class Own(keras.Model):
            pass

        with pytest.raises(ConfigError, match=r"can't be looked into(.|\n)*Own"):
            network(Own())


class TestActivations:
    def test_are_those_of_each_layer(self) -> None:
        from headrace.seeing.activations import activations

        images, *_ = shapes(1)
        made = network(convnet())
        found = activations(made, floats(images))
        assert [one.layer.path for one in found] == [seen.path for seen in made.maps("convolution", "pooling")]
        model = convnet()
        model.set_weights(made.model.get_weights())
        first = np.maximum(found[0].maps, 0)
        np.testing.assert_array_equal(found[0].maps, first)
        np.testing.assert_allclose(found[1].maps, first.reshape(24, 2, 24, 2, 8).max(axis=(1, 3)), atol=1e-6)

    def test_tell_what_is_zero_and_which_channels_say_nothing(self) -> None:
        from headrace.seeing.activations import Activation, visible
        from headrace.seeing.networks import Seen

        maps = np.zeros((2, 2, 3), np.float32)
        maps[..., 1] = [[0, 0], [0, 4]]
        maps[..., 2] = 7
        found = Activation(Seen("a", maps.shape, "convolution"), maps)
        assert (found.zeros, found.silent) == (7 / 12, 2)
        drawn = visible(maps)
        assert drawn[..., 0].max() == drawn[..., 2].max() == 0
        assert drawn[1, 1, 1] == 128 + int(64 * 3 / 3**0.5)


class TestHeatMaps:
    @pytest.mark.parametrize(
        "classes", [pytest.param(2, id="softmax"), pytest.param(1, id="sigmoid", marks=pytest.mark.slow)]
    )
    def test_fall_on_the_thing_that_decides(self, classes: int) -> None:
        """The pointing game: the thing covers a ninth of the image."""
        from headrace.seeing.heatmaps import heat_maps

        made = network(seeing.trained(classes))
        images, labels, places = shapes(100, seed=1)
        found = [heat_maps(made, floats(image[None]), top=1)[0] for image in images]
        hits = [place[one.peak((SIDE, SIDE))] for one, place in zip(found, places, strict=True)]
        assert np.mean([one.number == label for one, label in zip(found, labels, strict=True)]) >= 0.95
        assert np.mean(hits) >= 0.9

    def test_of_the_likeliest_classes_come_first(self) -> None:
        from headrace.seeing.heatmaps import heat_maps

        made = network(nested())
        found = heat_maps(made, floats(np.random.default_rng(0).integers(0, 255, (1, 32, 32, 3))), top=5)
        scores = [one.score for one in found]
        assert scores == sorted(scores, reverse=True)
        assert sum(scores) == pytest.approx(1, abs=1e-5)
        assert all(one.map.shape == (13, 13) and one.map.max() in (0, 1) for one in found)

    def test_of_a_network_that_answers_with_masks_are_refused(self) -> None:
        import keras

        from headrace.seeing.heatmaps import heat_maps

        given = keras.Input((8, 8, 3), name="image")
        made = network(keras.Model(given, keras.layers.Conv2D(3, 3, padding="same")(given)), "pets")
        with pytest.raises(ConfigError, match=r"pets answers with shape \(8, 8, 3\)"):
            heat_maps(made, made.blank())

    def test_lie_over_their_image(self) -> None:
        from headrace.seeing.heatmaps import overlaid

        heat = np.array([[0, 1]], np.float32)
        pixels = overlaid(np.full((20, 40, 1), 100, np.uint8), heat)
        assert pixels.shape == (20, 40, 3)
        assert pixels[10, 0, 2] > pixels[10, 0, 0]
        assert pixels[10, 39, 0] > pixels[10, 39, 2]


class TestPatterns:
    @pytest.mark.parametrize("path", ["conv0", "conv1", "conv2"])
    def test_raise_their_filters_ten_fold(self, path: str) -> None:
        from headrace.seeing.patterns import MOST, patterns

        made = network(seeing.trained())
        found = patterns(made, path, range(8))
        assert [one.raised for one in found] == [True] * 8
        assert all(one.ratio is None or one.ratio >= 10 for one in found)
        assert all(30 <= one.iterations <= MOST and one.image.shape == (SIDE, SIDE, 3) for one in found)

    def test_of_a_filter_do_not_depend_on_which_others_are_asked(self) -> None:
        from headrace.seeing.patterns import patterns

        made = network(seeing.trained())
        [alone] = patterns(made, "conv1", [3])
        among = patterns(made, "conv1", range(5))[3]
        assert (alone.filter, alone.iterations) == (among.filter, among.iterations)
        assert alone.end == pytest.approx(among.end, rel=1e-3)

    def test_are_measured_by_what_the_layer_really_answers(self) -> None:
        from headrace.seeing.patterns import patterns

        made = network(seeing.trained())
        [found] = patterns(made, "conv2", [0])
        activation = made.layer("conv2").activation
        assert activation.__name__ == "relu"
        assert found.start >= 0

    def test_are_told_to_be_missing_where_there_is_no_such_filter(self) -> None:
        from headrace.seeing.patterns import patterns

        with pytest.raises(ConfigError, match=r"no filter 99(.|\n)*0 to 7"):
            patterns(network(convnet()), "conv0", [99])
