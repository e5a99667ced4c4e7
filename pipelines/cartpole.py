"""A pole on a cart, kept upright by a network that learns from its own games.

Book:    The TensorFlow handbook, on deep reinforcement learning. It prints no score.
Run:     headrace run cartpole                              target network, double Q-learning: plays games to the end
         headrace run cartpole --variant book               the book's settings: one network, no discount, a penalty
         headrace run cartpole --source FOLDER              begins with games of yours: `gathered/` of a training
Expect:  a return of 500, the most there is, in nearly every of 100 games; about two minutes on two CPU cores. The
         book's settings are unsteady: their return depends much on the seed. Without skill a game ends after 22 steps.

There is nothing to download: games are played here (`pip install headrace[games]`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from headrace import Feature, Finding, ModelCheckpoint, Pipeline, Promise, Study, Train, Variant
from pipelines._games import CARTPOLE, CARTPOLE_GAME

if TYPE_CHECKING:
    import keras

    from headrace.describing.summaries import Statistics
    from headrace.engine.loops import Loop, Start
    from headrace.measuring.own import Own, Trial
    from headrace.records.inputs import Batch

LIMIT = 500
"""Steps after which a game of CartPole-v1 is won."""
SOLVED = 475
"""The mean return of 100 games from which on the game counts as solved."""


def preprocess(statistics: Statistics) -> Callable[[Batch], Batch]:
    """The four numbers are small and alike as they are."""

    def as_they_are(batch: Batch) -> Batch:
        return dict(batch)

    return as_they_are


def model(inputs: Mapping[str, Feature], units: Sequence[int] = (24, 24)) -> keras.Model:
    """What each action is expected to bring, (games, 2), by a small network: 770 parameters.

    Args:
        inputs: The state, (4,).
        units: Of the hidden layers.
    """
    import keras

    layers = [keras.layers.Dense(size, "relu") for size in units]
    value = keras.layers.Dense(len(CARTPOLE_GAME.actions), name="value")
    return keras.Sequential([keras.Input(inputs["state"].shape, name="state"), *layers, value])


def loop(
    start: Start,
    games: int = 10,
    replay: int = 10_000,
    begin_with_records: bool = False,
    every: int = 1,
    discount: float = 1.0,
    explore_games: int = 100,
    penalty: float | None = -10.0,
    target: float | None = None,
    double: bool = False,
    watched: int = 0,
    enough: float | None = None,
    kept: int = 10_000,
) -> Loop:
    """Deep Q-learning; the book's settings are the defaults.

    Args:
        start: What there is to begin with.
        games: Games of an epoch.
        replay: Steps that are remembered.
        begin_with_records: Remember the games of the records, or of `--source`, before the first one is played.
        every: Steps from one batch to the next.
        discount: What a reward of the next step is worth now.
        explore_games: Games over which the share of actions that are drawn falls from 1 to 0.01, as a straight line.
        penalty: Reward of the step by which a game is lost; none: the game's own, 1.
        target: Share by which, after each batch, the network that says what states are worth moves towards the one that
            learns; none: they are one network.
        double: The network that learns chooses the action, the other one says what it is worth.
        watched: Games after each epoch, without drawn actions, whose mean return is `greedy_return`.
        enough: The `greedy_return` with which the training ends.
        kept: Steps of the memory that are left as records, the newest.
    """
    from pipelines._playing import Learning, Player

    learning = Learning(
        replay=replay,
        warm_up=0,
        every=every,
        discount=discount,
        explore=(1.0, 0.01),
        explore_games=explore_games,
        penalty=penalty,
        target=target,
        double=double,
        limit=LIMIT,
        watched=watched,
        enough=enough,
        kept=kept,
    )
    return Player(start, CARTPOLE_GAME, learning, games, begin_with_records)


def measure(trial: Trial) -> Own:
    """The return of 100 games that begin as none of the training did, without drawn actions; and one to look at."""
    import numpy as np

    from pipelines._playing import judged

    def towards_the_lean(states: Any) -> Any:
        return np.stack([-states[:, 2], states[:, 2]], axis=1)

    rules = {"pushed to where the pole leans": towards_the_lean}
    return judged(trial, CARTPOLE_GAME, games=100, solved=SOLVED, limit=LIMIT, rules=rules)


BOOK = Train(epochs=50, batch_size=32, optimizer="adam", learning_rate=1e-3, loss="mse", jit_compile=True)
STEADY = BOOK.model_copy(
    update={
        "epochs": 100,
        "batch_size": 128,
        "learning_rate": 5e-4,
        "loss": "huber",
        "checkpoint": ModelCheckpoint(monitor="greedy_return", mode="max"),
    }
)

PIPELINE = Pipeline(
    name="cartpole",
    title="A pole on a cart",
    task="own",
    book="The TensorFlow handbook, on deep reinforcement learning",
    expect="a mean return of 475 or more in 100 games, of 500 at most; two minutes",
    sources={"games": CARTPOLE},
    preprocess=preprocess,
    model=model,
    loop=loop,
    measure=measure,
    variants={
        "steady": Variant(
            description="A target network, double Q-learning, a discount; the weights of the best epoch",
            train=STEADY,
            model={"units": [128, 128]},
            loop={
                "replay": 50_000,
                "begin_with_records": True,
                "discount": 0.99,
                "penalty": None,
                "target": 0.005,
                "double": True,
                "watched": 50,
                "enough": 495.0,
            },
            promises=(Promise(metric="return", at_least=475, source="gymnasium, which calls that solved"),),
        ),
        "book": Variant(
            description="The book's: one network of 770 parameters, no discount, -10 for a lost game, 500 games",
            train=BOOK,
            line="book",
        ),
    },
    studies={
        "steadiness": Study(
            description="The book's settings, and those that make it steady",
            variants=("steady", "book"),
            seeds=5,
            metric="return",
            mode="max",
            findings=(
                Finding(cell="steady", at_least=475, source="gymnasium, which calls that solved"),
                Finding(cell="steady", beats="book"),
            ),
        ),
    },
    smoke={
        "train.epochs": 2,
        "train.batch_size": 8,
        "train.jit_compile": False,
        "loop.games": 3,
        "loop.watched": 2,
        "evaluate.trials": 4,
        "export.examples": 16,
    },
)
