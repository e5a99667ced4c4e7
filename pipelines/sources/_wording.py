"""Made-up words, documents and sentences for the synthetic twins."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

_BEGINNINGS = (*"bcdfghjklmnprstvwz", "br", "dr", "gr", "pr", "st", "tr")
_MIDDLES = tuple("aeiou")
_ENDINGS = ("", *"lnrst")


def vocabulary(count: int) -> list[str]:
    """So many words of one, two or more syllables, all different and always the same, the shorter first."""
    syllables = [begin + middle + end for middle in _MIDDLES for end in _ENDINGS for begin in _BEGINNINGS]
    words = list(syllables)
    while len(words) < count:
        start = len(words) // len(syllables) - 1
        words += [syllable + words[start * len(syllables) + k] for k, syllable in enumerate(syllables[::-1])]
    return words[:count]


def documents(
    random: np.random.Generator, topics: Array, classes: int, *, words: int, telling: float = 0.25, length: float = 60
) -> list[list[int]]:
    """Documents as ranks of their words, from 1 on: common words as often as Zipf's law says, and some of the topic's.

    Args:
        random: Draws them.
        topics: Topic of each document, from 0 on.
        classes: How many topics there are; each one has 15 words of its own, the last ones of the vocabulary.
        words: Size of the vocabulary.
        telling: Share of the words that are the topic's.
        length: Words in a document, on average.
    """
    own = 15
    common = words - own * classes
    zipf = 1 / np.arange(1, common + 1)
    lengths = np.maximum(random.lognormal(np.log(length) - 0.125, 0.5, len(topics)), 8).astype(int)
    found = []
    for topic, count in zip(topics, lengths, strict=True):
        ranks = random.choice(common, count, p=zipf / zipf.sum()) + 1
        tells = random.random(count) < telling
        ranks[tells] = common + own * topic + random.integers(0, own, tells.sum()) + 1
        found.append([int(rank) for rank in ranks])
    return found


def mislabelled(random: np.random.Generator, labels: Array, classes: int, share: float) -> Array:
    """The labels, a share of them replaced by another class: no model can be right more often than the rest."""
    wrong = random.random(len(labels)) < share
    return np.where(wrong, (labels + random.integers(1, classes, len(labels))) % classes, labels)


_GOOD = ["superb", "moving", "clever", "funny", "brilliant", "charming", "gripping", "lovely"]
_BAD = ["dull", "awful", "clumsy", "boring", "stupid", "tedious", "shallow", "dreadful"]
_THINGS = ["film", "story", "cast", "script", "ending", "music", "dialogue", "camera", "plot", "hero"]
_FILLERS = (
    "I saw this last night with my sister.",
    "The cinema was half full.",
    "It runs for two hours.",
    "My brother had told me about it.",
    "It was made on an island.<br /><br />",
    "There is a dog in it, too.",
)


def judgements() -> tuple[list[str], list[str]]:
    """The words with which a review praises, and those with which it blames."""
    return _GOOD, _BAD


def review(random: np.random.Generator, good: bool | None) -> str:
    """A review of a film, a third of whose judgements are negated ("not dull"): pairs of words say more than words.

    Args:
        random: Draws it.
        good: Whether the film was liked; None: each of its judgements goes either way.
    """
    sentences = []
    for _ in range(random.integers(4, 12)):
        if random.random() < 0.4:
            sentences.append(str(random.choice(_FILLERS)))
            continue
        liked = bool(random.random() < 0.5) if good is None else good != (random.random() < 0.1)
        negated = bool(random.random() < 1 / 3)
        word = random.choice(_GOOD if liked != negated else _BAD)
        sentences.append(f"The {random.choice(_THINGS)} {'was not' if negated else 'was'} {word}.")
    return " ".join(sentences)


FOLLOWERS = (0.5, 0.3, 0.15, 0.05)
"""How often each of the four words that may follow a word does."""


def chain(
    random: np.random.Generator,
    words: int,
    vocabulary_size: int = 60,
    followers: tuple[float, ...] = FOLLOWERS,
) -> list[str]:
    """Words, each of which is followed by one of a few others.

    The entropy of a word, given the one before, is −Σ p·ln p of `followers`: for `FOLLOWERS` 1.14 nats, the best loss
    of any model.
    """
    known = vocabulary(vocabulary_size)
    following = successors(vocabulary_size, len(followers))
    draws = random.choice(len(followers), words, p=followers)
    place, found = int(random.integers(vocabulary_size)), []
    for draw in draws:
        place = int(following[place, draw])
        found.append(known[place])
    return found


def successors(vocabulary_size: int, count: int) -> Array:
    """Which words may follow each word (words, count), the likeliest first: the language, the same for each seed."""
    orders = [np.random.default_rng(place).permutation(vocabulary_size) for place in range(vocabulary_size)]
    return np.array([order[:count] for order in orders])
