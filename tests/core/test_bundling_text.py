from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headrace.bundling import text
from headrace.bundling.text import Recipe, TextReader

TEXTS = [
    b"A quiet film, quiet!",
    b"",
    b"   loud\tLOUD\nlouder  ",
    "na\u00efve NO\u00cbL \u00c9t\u00e9 \u2019quoted\u2019 \u4f60\u597d".encode(),
    b"don't-stop (now) [UNK] #1 @you a/b \\c|d~",
    b"nul\x00inside and nul after\x00\x00",
]
WORDS = [
    "quiet",
    "loud",
    "film",
    "no\u00cbl",
    "dontstop",
    "now",
    "a",
    "\u4f60\u597d",
    "quiet film",
    "unk",
    "nul\x00inside",
]


def layer(**settings: Any) -> Any:
    import keras

    return keras.layers.TextVectorization(**settings)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"output_sequence_length": 4},
        {"output_sequence_length": 20, "standardize": "lower"},
        {"standardize": "strip_punctuation", "ngrams": 2},
        {"standardize": None, "ngrams": (2, 3), "output_sequence_length": 5},
        {"split": "character", "vocabulary": ["a", "q", "u", "\u00ef", "\u597d", " "]},
        {"output_mode": "multi_hot"},
        {"output_mode": "multi_hot", "max_tokens": 20, "pad_to_max_tokens": True},
        {"output_mode": "count", "ngrams": 2},
        {"output_mode": "tf_idf", "idf_weights": [0.5 + 0.1 * i for i in range(len(WORDS))]},
        {"output_mode": "tf_idf", "max_tokens": 16, "pad_to_max_tokens": True, "idf_weights": [1.5] * len(WORDS)},
    ],
    ids=str,
)
def test_the_reader_gives_what_the_layer_gives(settings: dict[str, Any], tmp_path: Path) -> None:
    import tensorflow as tf

    from headrace.bundling import assets

    vectorise = layer(**{"vocabulary": WORDS, **settings})
    raw = {"review": np.array(TEXTS, object)}
    due = np.asarray(vectorise(tf.constant(raw["review"])))
    found = assets.vocabularies(tmp_path, lambda batch: vectorise(batch["review"]), raw, {"words": due})
    assert (found.readers, found.without) == (["words"], {})
    assert sorted(path.name for path in found.files) == ["text.json", "words_vocabulary.txt"]
    assert np.asarray(TextReader.of(tmp_path, "words")(TEXTS)) == pytest.approx(due)


def test_a_reader_that_gives_other_numbers_is_not_offered(tmp_path: Path) -> None:
    import tensorflow as tf

    from headrace.bundling import assets

    # Unlike Python, TensorFlow goes by Unicode only if it is told to.
    vectorise = layer(vocabulary=WORDS, standardize=lambda texts: tf.strings.lower(texts, "utf-8"))
    raw = {"review": np.array(TEXTS, object)}
    prepared = {"words": np.asarray(vectorise(tf.constant(raw["review"])))}
    found = assets.vocabularies(tmp_path, lambda batch: vectorise(batch["review"]), raw, prepared)
    assert found.readers == []
    assert found.without == {"words_vocabulary.txt": "its `standardize` is a function of the workload's own"}


def test_rows_that_are_cut_are_read_cut(tmp_path: Path) -> None:
    """As a translation's decoder is given all words of a sentence but the last."""
    import tensorflow as tf

    from headrace.bundling import assets

    vectorise = layer(vocabulary=WORDS, output_sequence_length=6)
    raw = {"review": np.array(TEXTS, object)}
    due = np.asarray(vectorise(tf.constant(raw["review"])))[:, :-1]
    assert assets.vocabularies(tmp_path, lambda b: vectorise(b["review"])[:, :-1], raw, {"words": due}).readers == [
        "words"
    ]
    assert TextReader.of(tmp_path, "words")(TEXTS) == due.tolist()


def test_a_token_may_hold_the_end_of_a_line(tmp_path: Path) -> None:
    recipe = Recipe(source="review", vocabulary="letters.txt", standardize=None, split="character", escaped=True)
    text.write(tmp_path, recipe, [b"a", b"\n", b"\\"])
    text.write_settings(tmp_path, {"letters": recipe})
    assert TextReader.of(tmp_path, "letters")(["a\n\\?"]) == [[2, 3, 4, 1]]


def test_it_needs_nothing_but_python() -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(Path(text.__file__).parent)!r}); import text; print(sorted(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True)
    assert "numpy" not in done.stdout
    assert "tensorflow" not in done.stdout
    assert "headrace" not in done.stdout
