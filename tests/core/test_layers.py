"""Transformers: sizes as in the book, masks that hide, answers that never look ahead, steps that give the whole run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

BATCH, STEPS, WIDTH = 3, 6, 8


@pytest.fixture(scope="module")
def random() -> np.random.Generator:
    return np.random.default_rng(0)


def vectors(random: np.random.Generator, steps: int = STEPS, batch: int = BATCH) -> Any:
    import tensorflow as tf

    return tf.constant(random.normal(size=(batch, steps, WIDTH)), tf.float32)


def decoder(memory: str = "source", **given: Any) -> Any:
    from headrace.layers import TransformerDecoder

    layer = TransformerDecoder(WIDTH, 12, 2, memory=memory, **given)  # type: ignore[arg-type]
    layer.build((None, None, WIDTH), (None, None, WIDTH) if memory == "source" else None)
    shaken(layer)
    return layer


def encoder() -> Any:
    from headrace.layers import TransformerEncoder

    layer = TransformerEncoder(WIDTH, 12, 2)
    layer.build((None, None, WIDTH))
    shaken(layer)
    return layer


def shaken(layer: Any) -> None:
    """Weights so large that attention has something to say; as they are drawn at first it hardly tells steps apart."""
    random = np.random.default_rng(1)
    for weight in layer.weights:
        weight.assign(random.normal(0, 0.7, weight.shape))


def close(one: Any, other: Any) -> None:
    np.testing.assert_allclose(np.asarray(one), np.asarray(other), rtol=1e-4, atol=1e-5)


def differ(one: Any, other: Any) -> bool:
    return bool(np.abs(np.asarray(one) - np.asarray(other)).max() > 1e-2)


class TestSizes:
    def test_of_the_encoder_are_those_of_the_book(self) -> None:
        from headrace.layers import TransformerEncoder

        layer = TransformerEncoder(256, 32, 2)
        layer.build((None, 600, 256))

        assert layer.count_params() == 5_664_033 - 20_000 * 256 - 257

    def test_of_position_embeddings_are_those_of_the_book(self) -> None:
        from headrace.layers import PositionalEmbedding

        layer = PositionalEmbedding(600, 20_000, 256)
        layer.build((None, 600))

        assert layer.count_params() == 5_817_633 - 5_664_033 + 20_000 * 256

    def test_of_a_translator_are_those_of_the_book(self) -> None:
        import keras

        from headrace.layers import PositionalEmbedding, TransformerDecoder, TransformerEncoder

        source, target = (keras.Input((20,), dtype="int64") for _ in range(2))
        encoded = TransformerEncoder(256, 2_048, 8)(PositionalEmbedding(20, 15_000, 256)(source))
        x = TransformerDecoder(256, 2_048, 8)(PositionalEmbedding(20, 15_000, 256)(target), encoded)
        model = keras.Model([source, target], keras.layers.Dense(15_000)(x))

        assert model.count_params() == 19_960_216

    def test_of_a_writer_are_those_of_the_book(self) -> None:
        import keras

        from headrace.layers import PositionalEmbedding, TransformerDecoder

        given = keras.Input((None,), dtype="int64")
        x = TransformerDecoder(256, 2_048, 2, memory="itself")(PositionalEmbedding(100, 15_000, 256)(given))
        model = keras.Model(given, keras.layers.Dense(15_000)(x))

        assert model.count_params() == 9_825_176

    def test_attention_draws_and_answers_like_that_of_keras(self, random: np.random.Generator) -> None:
        import keras

        from headrace.layers import Attention

        x, other = vectors(random), vectors(random, 4)
        theirs = keras.layers.MultiHeadAttention(2, 5)
        due = theirs(x, other)
        ours = Attention(2, 5)
        ours.build(x.shape, other.shape)
        assert [w.shape for w in ours.weights] == [w.shape for w in theirs.weights[:2] + theirs.weights[2:]]
        # Keras keeps query, key, value and output in this order, too.
        ours.set_weights(theirs.get_weights())

        close(ours(x, other), due)


class TestMasks:
    def test_what_is_padding_changes_nothing(self, random: np.random.Generator) -> None:
        x, other = vectors(random).numpy(), vectors(random).numpy()
        there = np.arange(STEPS) < np.array([[STEPS], [4], [2]])
        changed = np.where(there[..., None], x, other)
        layer = encoder()

        one, two = (np.asarray(layer(values, mask=there)) for values in (x, changed))

        close(one[there], two[there])
        assert differ(layer(x), layer(changed))

    def test_they_arrive_by_themselves(self, random: np.random.Generator) -> None:
        import keras

        from headrace.layers import PositionalEmbedding

        given, source = keras.Input((None,), dtype="int64"), keras.Input((None,), dtype="int64")
        encode, decode = encoder(), decoder()
        inputs, sources = PositionalEmbedding(9, 20, WIDTH), PositionalEmbedding(9, 20, WIDTH)
        model = keras.Model([given, source], decode(inputs(given), encode(sources(source))))
        tokens, words = np.array([[3, 4, 5], [3, 4, 0]]), np.array([[7, 8, 9, 2], [7, 0, 0, 0]])

        encoded = encode(np.asarray(sources(words)), mask=words != 0)
        due = decode(np.asarray(inputs(tokens)), np.asarray(encoded), inputs_mask=tokens != 0, memory_mask=words != 0)

        close(model([tokens, words]), due)
        # More padding is the same source.
        longer = np.pad(words, ((0, 0), (0, 3)))
        close(model([tokens, longer]), due)

    @pytest.mark.parametrize("memory", ["source", "itself", "none"])
    def test_a_sequence_that_is_padding_as_a_whole_gives_finite_numbers(
        self, memory: str, random: np.random.Generator
    ) -> None:
        x, nothing = vectors(random), np.zeros((BATCH, STEPS), bool)
        source = {"memory": x, "memory_mask": nothing} if memory == "source" else {}

        assert np.isfinite(encoder()(x, mask=nothing)).all()
        assert np.isfinite(decoder(memory)(x, inputs_mask=nothing, **source)).all()


class TestDecoder:
    @pytest.mark.parametrize("memory", ["source", "itself", "none"])
    def test_it_never_looks_ahead(self, memory: str, random: np.random.Generator) -> None:
        layer, x = decoder(memory), vectors(random).numpy()
        source = [vectors(random, 4)] if memory == "source" else []
        changed = x.copy()
        changed[:, 3] += 1

        before, after = (np.asarray(layer(values, *source)) for values in (x, changed))

        close(before[:, :3], after[:, :3])
        assert all(differ(before[:, k], after[:, k]) for k in range(3, STEPS))

    @pytest.mark.parametrize("memory", ["source", "itself", "none"])
    @pytest.mark.parametrize("prompt", [1, 4])
    def test_steps_give_what_the_whole_run_gives(self, memory: str, prompt: int, random: np.random.Generator) -> None:
        layer, x, source = decoder(memory), vectors(random), vectors(random, 4)
        there = np.arange(4) < np.array([[4], [2], [1]])
        whole = layer(x, source, memory_mask=there) if memory == "source" else layer(x)
        known = {"known": layer.remember(source), "memory_mask": there} if memory == "source" else {}

        # There is more room than is needed.
        answer, cache = layer.step(x[:, :prompt], 0, layer.cache(BATCH, STEPS + 3), **known)
        close(answer, whole[:, :prompt])
        for at in range(prompt, STEPS):
            answer, cache = layer.step(x[:, at : at + 1], at, cache, **known)
            close(answer, whole[:, at : at + 1])

    def test_steps_run_in_a_loop_of_the_graph_and_from_disk(self, tmp_path: Path, random: np.random.Generator) -> None:
        import tensorflow as tf

        layer, x = decoder("itself"), vectors(random)

        @tf.function(input_signature=[tf.TensorSpec((None, None, WIDTH))], autograph=False)
        def run(given: Any) -> Any:
            rows, steps = tf.shape(given)[0], tf.shape(given)[1]

            def body(at: Any, cache: Any, found: Any) -> Any:
                answer, cache = layer.step(given[:, at : at + 1], at, cache)
                return at + 1, cache, found.write(at, answer[:, 0])

            room = layer.cache(rows, steps)
            shapes = (tf.TensorShape(()), tf.TensorShape((None, *room.shape[1:])), tf.TensorShape(None))
            found = tf.TensorArray(tf.float32, steps, element_shape=(None, WIDTH))
            given_now = (0, room, found)
            *_, found = tf.while_loop(lambda at, *_: at < steps, body, given_now, shape_invariants=shapes)
            return tf.transpose(found.stack(), (1, 0, 2))

        close(run(x), layer(x))
        module = tf.Module()
        module.run, module.weights = run, list(layer.weights)
        tf.saved_model.save(module, str(tmp_path / "saved"))
        loaded = tf.saved_model.load(str(tmp_path / "saved"))
        close(loaded.run(x), layer(x))

    def test_beams_are_rows_of_what_is_kept(self, random: np.random.Generator) -> None:
        import tensorflow as tf

        layer, x, rows = decoder("none"), vectors(random), [2, 0, 2]
        _, cache = layer.step(x[:, :3], 0, layer.cache(BATCH, STEPS))

        answer, _ = layer.step(tf.gather(x, rows)[:, 3:4], 3, tf.gather(cache, rows))

        close(answer, tf.gather(layer(x), rows)[:, 3:4])

    def test_a_source_is_asked_for_and_only_where_it_is_used(self, random: np.random.Generator) -> None:
        with pytest.raises(ValueError, match='memory="source" was given none'):
            decoder("source")(vectors(random))
        with pytest.raises(ValueError, match='memory="none" was given one'):
            decoder("none")(vectors(random), vectors(random))


class TestSaving:
    def test_a_model_comes_back(self, tmp_path: Path) -> None:
        import keras

        from headrace.layers import PositionalEmbedding, TransformerDecoder, TransformerEncoder

        source, target = keras.Input((5,), dtype="int64"), keras.Input((None,), dtype="int64")
        encoded = TransformerEncoder(8, 4, 2, size=3)(PositionalEmbedding(5, 9, 8, mask_zero=False)(source))
        x = TransformerDecoder(8, 4, 2, size=5)(PositionalEmbedding(7, 9, 8)(target), encoded)
        x = TransformerDecoder(8, 4, 2, memory="itself")(x)
        model = keras.Model([source, target], TransformerDecoder(8, 4, 2, memory="none")(x))
        for weight in model.weights:
            weight.assign(np.random.default_rng(2).normal(size=weight.shape))
        model.save(tmp_path / "model.keras")
        tokens = [np.array([[1, 2, 3, 0, 0]]), np.array([[4, 5, 6, 0]])]

        again = keras.saving.load_model(tmp_path / "model.keras")

        close(again(tokens), model(tokens))
        assert [layer.get_config() for layer in again.layers] == [layer.get_config() for layer in model.layers]

    def test_half_precision_runs(self, random: np.random.Generator) -> None:
        import keras

        from headrace.layers import TransformerDecoder

        layer = TransformerDecoder(WIDTH, 12, 2, memory="itself", dtype="mixed_bfloat16")
        x = vectors(random)

        answer, cache = layer(x), layer.cache(BATCH, STEPS)
        step, cache = layer.step(keras.ops.cast(x[:, :1], "bfloat16"), 0, cache)

        assert answer.dtype == step.dtype == cache.dtype == "bfloat16"


def test_positions_go_on_where_a_text_was_left() -> None:
    from headrace.layers import PositionalEmbedding

    layer, tokens = PositionalEmbedding(6, 9, 4), np.array([[3, 4, 5, 6]])

    whole = np.asarray(layer(tokens))

    close(layer(tokens[:, 2:], first=2), whole[:, 2:])
    assert differ(layer(tokens[:, 2:]), whole[:, 2:])
