"""Games that are played to learn them: CartPole and Atari's Breakout, by gymnasium (`pip install headrace[games]`).

An example is a step of a game: the state, the action, the reward, the state that followed, and whether the game was
lost by it. The data of a source are made by definition: games that are played at random.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace import Column, Feature, Source

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    Array = np.ndarray[Any, Any]

FILE = "games.npz"
TRAINING, WATCHED, TESTED, RECORDED = range(4)
"""What a game is played for: games of different purposes never begin alike."""


@dataclass(frozen=True)
class Game:
    """A game, as a network sees it.

    One that is called by the same seed, and answered by the same actions, is the same game.
    """

    open: Callable[[str | None], Any]
    """How to render (`rgb_array`), or None → environment of gymnasium."""
    state: Feature
    """What is known before an action: the newest `stack` observations, in the last dimension."""
    actions: tuple[str, ...]
    stack: int = 1
    """Observations that a state is made of. At the beginning of a game the first one stands for those before it."""

    @property
    def observation(self) -> tuple[int, ...]:
        """Shape of one observation."""
        shape = tuple(int(length or 1) for length in self.state.shape)
        return shape if self.stack == 1 else shape[:-1]


def features(game: Game) -> dict[str, Feature]:
    """The features of a step of a game: a network sees the state only."""
    return {
        "state": game.state,
        "action": Feature(dtype="int64", role="note", classes=game.actions, description="what was done"),
        "reward": Feature(role="note", description="what the game gave for it"),
        "next_state": game.state.model_copy(update={"role": "note", "description": "what followed"}),
        "lost": Feature(dtype="int64", role="note", classes=("no", "yes"), description="whether the game was lost"),
    }


def begins(seed: int, purpose: int, number: int) -> int:
    """The seed by which a game begins: one for each seed of a run, purpose and number of the game."""
    import numpy as np

    return int(np.random.SeedSequence((seed, purpose, number)).generate_state(1)[0] % 2**31)


class Played:
    """A game that is being played, with the newest observations, of which its state is made.

    Args:
        game: Which one.
        rendered: As for `Game.open`.
    """

    def __init__(self, game: Game, rendered: str | None = None) -> None:
        self.environment = game.open(rendered)
        self._stack = game.stack
        self._seen: list[Array] = []

    def begin(self, seed: int) -> None:
        """Begin a game."""
        self._seen = [self.environment.reset(seed=seed)[0]] * self._stack

    @property
    def state(self) -> Array:
        """What is known now (*shape)."""
        import numpy as np

        return self._seen[-1] if self._stack == 1 else np.stack(self._seen, axis=-1)

    def step(self, action: int) -> tuple[float, bool, bool]:
        """Act: the reward, whether the game was lost by it, and whether it is over."""
        observation, reward, lost, over, _ = self.environment.step(action)
        self._seen = [*self._seen[1:], observation]
        return reward, lost, lost or over


def at_random(game: Game, games: int, seed: int, limit: int, known: set[bytes] | None = None) -> dict[str, Array]:
    """Play games at random, and keep their steps: name of a feature → (steps, *shape).

    No state is kept twice: a screen on which nothing has happened yet is the same in many games.

    Args:
        game: Which one.
        games: How many.
        seed: By which they begin, and by which actions are drawn.
        limit: Most steps of a game that are kept.
        known: States that are kept elsewhere; those of these games are added.
    """
    import numpy as np

    known = set() if known is None else known
    kept: dict[str, list[Any]] = {name: [] for name in features(game)}
    table = Played(game)
    for number in range(games):
        begin = begins(seed, RECORDED, number)
        random = np.random.default_rng(begin)
        table.begin(begin)
        for _ in range(limit):
            action = int(random.integers(len(game.actions)))
            state = table.state
            reward, lost, over = table.step(action)
            step = (state, action, reward, table.state, lost)
            if state.tobytes() not in known:
                known.add(state.tobytes())
                for values, value in zip(kept.values(), step, strict=True):
                    values.append(value)
            if over:
                break
    table.environment.close()
    return {name: np.stack([np.asarray(value) for value in values]) for name, values in kept.items()}


def source(name: str, game: Game, games: Mapping[str, int], limit: int, **about: str) -> Source:
    """A source of steps of a game that is played at random.

    Args:
        name: Title.
        game: Which one.
        games: Split → how many games are played for it.
        limit: Most steps of a game that are kept.
        about: What else is to be said of it.
    """

    def make(raw: Path, seed: int) -> None:
        import numpy as np

        known: set[bytes] = set()
        played = {
            split: at_random(game, count, 2 * seed + k, limit, known) for k, (split, count) in enumerate(games.items())
        }
        arrays: dict[str, Any] = {f"{name}_{split}": kept[name] for split, kept in played.items() for name in kept}
        np.savez(raw / FILE, **arrays)

    def read(raw: Path) -> Mapping[str, Iterable[pa.RecordBatch]]:
        from headrace.readers.arrays import read_arrays
        from headrace.readers.batches import batches

        layout = features(game)
        named = {split: {f"{name}_{split}": len(one.shape) + 1 for name, one in layout.items()} for split in games}
        held = {split: read_arrays(raw / FILE, names) for split, names in named.items()}
        return {split: batches({name: held[split][f"{name}_{split}"] for name in layout}) for split in games}

    return Source(title=name, features=features(game), read=read, make=make, **about)


# ------------------------------------------------------------------------------------------------ the games


def _cartpole(rendered: str | None) -> Any:
    import gymnasium

    return gymnasium.make("CartPole-v1", render_mode=rendered)


CARTPOLE_GAME = Game(
    open=_cartpole,
    state=Feature(
        shape=(4,),
        description="cart and pole",
        columns=(
            Column(name="position", description="of the cart on its track; 2.4 ends the game", unit="m"),
            Column(name="speed", description="of the cart", unit="m/s"),
            Column(name="angle", description="of the pole; 12° end the game", unit="rad"),
            Column(name="turning", description="how fast the pole falls", unit="rad/s"),
        ),
    ),
    actions=("left", "right"),
)

CARTPOLE = source(
    "A pole on a cart, pushed at random",
    CARTPOLE_GAME,
    {"train": 200, "test": 50},
    500,
    homepage="https://gymnasium.farama.org/environments/classic_control/cart_pole/",
    licence="MIT",
    note="A game is won by 500 steps; each of them is worth 1.",
)

TOP, BOTTOM = 34, 194
"""Rows of the screen between which Breakout is played."""
SIDE = 80
"""Height and width of what is seen of it: each number is the mean of four pixels."""


def _breakout(rendered: str | None) -> Any:
    import ale_py
    import gymnasium
    import numpy as np

    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
    gymnasium.register_envs(ale_py)
    screen = gymnasium.make("ALE/Breakout-v5", obs_type="grayscale", frameskip=4, render_mode=rendered)

    def smaller(pixels: Array) -> Array:
        board = pixels[TOP:BOTTOM].reshape(SIDE, 2, SIDE, 2)
        return board.mean(axis=(1, 3)).astype(np.uint8)

    space = gymnasium.spaces.Box(0, 255, (SIDE, SIDE), np.uint8)
    return gymnasium.wrappers.TransformObservation(screen, smaller, space)


BREAKOUT_GAME = Game(
    open=_breakout,
    state=Feature(
        shape=(SIDE, SIDE, 4), dtype="uint8", description="the last four screens, grey, half as large, without margins"
    ),
    actions=("nothing", "fire", "right", "left"),
    stack=4,
)

BREAKOUT = source(
    "Breakout, played at random",
    BREAKOUT_GAME,
    {"train": 2, "test": 1},
    100,
    homepage="https://ale.farama.org/environments/breakout/",
    licence="GPL-2.0",
    note="An action is held for four frames, and repeated once more in a quarter of the cases (`ALE/Breakout-v5`).",
)
