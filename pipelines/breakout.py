"""Breakout, played from its screen by a convolutional network that learns from its own games.

Book:    The TensorFlow handbook, on deep reinforcement learning, which names the game, says what a state should be made
         of, and leaves it there. The network and its settings are those of Mnih et al. (2015), on smaller screens.
Run:     headrace run breakout                       a million steps: a day or more on two CPU cores
         headrace run breakout --variant quick       20,000 steps: an hour there, to see it begin to learn
         headrace run breakout --profile smoke       the same machinery for a few steps, in seconds
Expect:  a return of 1 to 2 by chance. Published networks of this kind reach tens after a million steps, and hundreds
         after ten; we have not trained to the end.

There is nothing to download: the game comes with ale-py (`pip install headrace[games]`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from headrace import Feature, ModelCheckpoint, Pipeline, Train, Variant
from pipelines._games import BREAKOUT, BREAKOUT_GAME

if TYPE_CHECKING:
    import keras

    from headrace.describing.summaries import Statistics
    from headrace.engine.loops import Loop, Start
    from headrace.measuring.own import Own, Trial
    from headrace.records.inputs import Batch

CLEARED = 432.0
"""What a whole wall of bricks is worth."""


def preprocess(statistics: Statistics) -> Callable[[Batch], Batch]:
    """Screens are cut and made smaller where they are seen: a model that is served is given what it learned from."""

    def as_they_are(batch: Batch) -> Batch:
        return dict(batch)

    return as_they_are


def model(inputs: Mapping[str, Feature], filters: tuple[int, ...] = (32, 64, 64), units: int = 512) -> keras.Model:
    """What each action is expected to bring, (games, 4), by three convolutions.

    Args:
        inputs: The state: four screens (80, 80, 4).
        filters: Of the convolutions: 8 × 8 by steps of 4, 4 × 4 by steps of 2, 3 × 3.
        units: Of the hidden layer.
    """
    import keras
    from keras import layers

    given = keras.Input(inputs["state"].shape, dtype="uint8", name="state")
    x = layers.Rescaling(1 / 255)(given)
    for count, (size, strides) in zip(filters, ((8, 4), (4, 2), (3, 1)), strict=True):
        x = layers.Conv2D(count, size, strides=strides, activation="relu")(x)
    x = layers.Dense(units, activation="relu")(layers.Flatten()(x))
    return keras.Model(given, layers.Dense(len(BREAKOUT_GAME.actions), name="value")(x))


def loop(
    start: Start,
    games: int = 50,
    limit: int = 2_700,
    replay: int = 100_000,
    warm_up: int = 5_000,
    every: int = 4,
    explore_games: int = 500,
    target: float = 0.001,
    watched: int = 5,
    kept: int = 500,
) -> Loop:
    """Deep Q-learning with a target network and double estimates.

    Args:
        start: What there is to begin with.
        games: Games of an epoch.
        limit: Most steps of a game, of four frames each.
        replay: Steps that are remembered, 6,400 bytes each.
        warm_up: Steps that are played before anything is learned.
        every: Steps from one batch to the next.
        explore_games: Games over which the share of actions that are drawn falls from 1 to 0.1, as a straight line.
        target: Share by which, after each batch, the network that says what states are worth moves towards the one that
            learns.
        watched: Games after each epoch whose mean return is `greedy_return`.
        kept: Steps of the memory that are left as records, the newest.
    """
    from pipelines._playing import Learning, Player

    learning = Learning(
        replay=replay,
        warm_up=warm_up,
        every=every,
        discount=0.99,
        explore=(1.0, 0.1),
        explore_games=explore_games,
        penalty=None,
        target=target,
        double=True,
        limit=limit,
        watched=watched,
        enough=None,
        kept=kept,
    )
    return Player(start, BREAKOUT_GAME, learning, games)


def measure(trial: Trial) -> Own:
    """The return of 30 games that begin as none of the training did, and the beginning of one to look at."""
    from pipelines._playing import judged

    return judged(trial, BREAKOUT_GAME, 30, CLEARED, int(trial.settings.loop.get("limit", 2_700)))


FULL = Train(
    epochs=100,
    batch_size=32,
    optimizer={"name": "adam", "clipnorm": 10.0},
    learning_rate=1e-4,
    loss="huber",
    checkpoint=ModelCheckpoint(monitor="greedy_return", mode="max"),
)

PIPELINE = Pipeline(
    name="breakout",
    title="Breakout, from its screen",
    task="own",
    book="The TensorFlow handbook, on deep reinforcement learning",
    expect="by chance a return of 1 to 2; tens after a million steps elsewhere, which we have not played",
    sources={"games": BREAKOUT},
    preprocess=preprocess,
    model=model,
    loop=loop,
    measure=measure,
    variants={
        "full": Variant(description="5,000 games, about a million steps of four frames", train=FULL),
        "quick": Variant(
            description="100 games with a small network, to see it begin to learn",
            train=FULL.model_copy(update={"epochs": 10, "learning_rate": 5e-4}),
            model={"filters": [16, 32, 32], "units": 128},
            loop={"games": 10, "replay": 20_000, "warm_up": 1_000, "explore_games": 60, "target": 0.005},
            line="quick",
        ),
    },
    smoke={
        "train.epochs": 2,
        "loop.games": 1,
        "loop.limit": 60,
        "loop.warm_up": 40,
        "loop.replay": 200,
        "loop.watched": 1,
        "loop.kept": 20,
        "model.filters": [4, 8, 8],
        "model.units": 16,
        "evaluate.trials": 2,
        "export.examples": 8,
    },
)
