"""Exact figures of the books, small enough to be worked out by hand: what Keras and TensorFlow must agree with."""

from __future__ import annotations

import numpy as np
import pytest


@pytest.mark.parametrize(("stride", "kept"), [(1, slice(None)), (2, slice(None, None, 2))])
def test_a_filter_over_seven_by_seven_numbers_gives_the_printed_matrix(stride: int, kept: slice) -> None:
    """With a border of zeros, there is only one image that gives this matrix."""
    import keras

    image = np.pad([[1, 0, 1, 2, 1], [0, 2, 2, 0, 1], [1, 1, 0, 2, 1], [0, 2, 1, 1, 0], [2, 1, 1, 2, 0]], 1)
    printed = np.array(
        [[6, 5, -2, 1, 2], [3, 0, 3, 2, -2], [4, 2, -1, 0, 0], [2, 1, 2, -1, -3], [1, 1, 1, 3, 1]], np.float32
    )
    layer = keras.layers.Conv2D(1, 3, strides=stride)
    layer.build((None, 7, 7, 1))
    kernel = np.array([[0, 0, -1], [0, 1, 0], [-2, 0, 2]], np.float32)
    layer.set_weights([kernel[..., None, None], np.ones(1, np.float32)])
    found = layer(image[None, ..., None].astype(np.float32)).numpy()[0, ..., 0]
    np.testing.assert_array_equal(found, printed[kept, kept])


def test_two_dense_layers_have_906_parameters() -> None:
    import keras

    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(64), keras.layers.Dense(10)])
    assert [layer.count_params() for layer in model.layers] == [256, 650]


@pytest.mark.parametrize(("sequences", "shape"), [(False, (2, 16)), (True, (2, 120, 16))])
def test_a_recurrent_layer_gives_its_last_state_or_all(sequences: bool, shape: tuple[int, ...]) -> None:
    import keras

    layer = keras.layers.SimpleRNN(16, return_sequences=sequences)
    assert layer(np.zeros((2, 120, 14), np.float32)).shape == shape


def test_a_recurrent_layer_is_a_loop_over_its_states() -> None:
    import keras

    random = np.random.default_rng(0)
    steps = random.random((100, 32), dtype=np.float32)
    layer = keras.layers.SimpleRNN(64)
    given = layer(steps[None])
    kernel, recurrent, bias = (weight.numpy() for weight in layer.weights)
    state = np.zeros(64, np.float32)
    for step in steps:
        state = np.tanh(step @ kernel + state @ recurrent + bias)
    np.testing.assert_allclose(given[0], state, rtol=1e-4, atol=1e-5)


def test_the_second_derivative_of_a_fall_is_its_acceleration() -> None:
    import tensorflow as tf

    time = tf.Variable(0.0)
    with tf.GradientTape() as outer:
        with tf.GradientTape() as inner:
            position = 4.9 * time**2
        speed = inner.gradient(position, time)
    assert outer.gradient(speed, time).numpy() == pytest.approx(9.8)


def test_the_chain_rule_gives_what_is_worked_out_by_hand() -> None:
    """x = 2, w = 3, b = 1, truth 4: the loss |x·w + b − truth| grows by 2 with w and by 1 with b."""
    import tensorflow as tf

    weight, bias = tf.Variable(3.0), tf.Variable(1.0)
    with tf.GradientTape() as tape:
        loss = tf.abs(2.0 * weight + bias - 4.0)
    assert [gradient.numpy() for gradient in tape.gradient(loss, [weight, bias])] == [2.0, 1.0]


def test_batches_of_a_dataset_have_the_printed_shapes() -> None:
    import tensorflow as tf

    data = tf.data.Dataset.from_tensor_slices(np.zeros((1000, 16), np.float32))
    assert [element.shape for element in data.take(1)] == [(16,)]
    assert [element.shape for element in data.batch(32).take(1)] == [(32, 16)]
    reshaped = data.map(lambda row: tf.reshape(row, (4, 4))).take(1)
    assert [element.shape for element in reshaped] == [(4, 4)]


def test_windows_of_a_series_are_those_of_the_toy_example() -> None:
    import keras

    numbers = np.arange(10)
    windows = keras.utils.timeseries_dataset_from_array(numbers[:-3], numbers[3:], sequence_length=3, batch_size=2)
    found = [
        (row.tolist(), int(target))
        for inputs, targets in windows
        for row, target in zip(inputs.numpy(), targets, strict=True)
    ]
    assert found == [([i, i + 1, i + 2], i + 3) for i in range(5)]
