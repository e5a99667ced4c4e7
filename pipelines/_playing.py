"""Deep Q-learning (Mnih et al., 2015) of a game with few actions: the network learns what each action will bring."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from headrace.engine.compiling import compile_model
from headrace.engine.loops import Loop, Start
from headrace.measuring.generated import animation, episodes
from headrace.measuring.own import Own, Trial
from pipelines._games import TESTED, TRAINING, WATCHED, Game, Played, begins

Array = np.ndarray[Any, Any]
FRAMES, EVERY, MILLISECONDS = 60, 4, 80
"""Pictures of a film, steps from one to the next, and how long each is shown."""
Values = Callable[[Array], Array]
"""States (games, *shape) → what each action is expected to bring (games, actions)."""


class Replay:
    """The newest steps that were played. Each observation is kept once, also where several make a state.

    Args:
        capacity: Observations that are kept.
        game: Whose.
    """

    def __init__(self, capacity: int, game: Game) -> None:
        self.capacity, self.stack = capacity, game.stack
        self.seen = 0
        """Observations so far; the oldest one that is left has the number `seen - capacity`, or 0."""
        self.held = {
            "observation": np.zeros((capacity, *game.observation), game.state.dtype),
            # That led from this observation to the next one; -1 where a game ends.
            "action": np.full(capacity, -1, np.int32),
            "reward": np.zeros(capacity, np.float32),
            "lost": np.zeros(capacity, np.float32),
            # The number of the first observation of its game.
            "first": np.zeros(capacity, np.int64),
        }

    def begin(self, observation: Array) -> None:
        """The first observation of a game."""
        self._add(observation, self.seen)

    def add(self, action: int, reward: float, observation: Array, lost: bool) -> None:
        """An action, and what came of it."""
        place = (self.seen - 1) % self.capacity
        self.held["action"][place], self.held["reward"][place], self.held["lost"][place] = action, reward, lost
        self._add(observation, self.held["first"][place])

    def _add(self, observation: Array, first: int) -> None:
        place = self.seen % self.capacity
        self.held["observation"][place], self.held["action"][place], self.held["first"][place] = observation, -1, first
        self.seen += 1

    @property
    def state(self) -> Array:
        """What is known now."""
        return self.states(np.array([self.seen - 1]))[0]

    @property
    def steps(self) -> Array:
        """The numbers of all observations that were acted upon, and whose state is whole, the oldest first."""
        return self._usable(np.arange(self._oldest, self.seen))

    @property
    def _oldest(self) -> int:
        return max(self.seen - self.capacity, 0)

    def _usable(self, numbers: Array) -> Array:
        """Those that were acted upon, and whose state has not lost its first observations."""
        places = numbers % self.capacity
        whole = np.maximum(numbers - self.stack + 1, self.held["first"][places]) >= self._oldest
        return numbers[whole & (self.held["action"][places] >= 0)]

    def states(self, numbers: Array) -> Array:
        """The states (steps, *shape) at some observations."""
        if self.stack == 1:
            return self.held["observation"][numbers % self.capacity]
        back = numbers[:, None] - np.arange(self.stack)[::-1]
        # Before the first observation of a game there is nothing: it stands for what would be.
        back = np.maximum(back, self.held["first"][numbers % self.capacity][:, None])
        return np.moveaxis(self.held["observation"][back % self.capacity], 1, -1)

    def taken(self, numbers: Array) -> tuple[Array, ...]:
        """State, action, reward, the state that followed, and whether the game was lost, of some steps."""
        places = numbers % self.capacity
        action, reward, lost = (self.held[name][places] for name in ("action", "reward", "lost"))
        return self.states(numbers), action, reward, self.states(numbers + 1), lost

    def drawn(self, count: int, random: np.random.Generator) -> tuple[Array, ...]:
        """Some steps, each as likely as any other, some perhaps more than once."""
        numbers = np.empty(0, np.int64)
        while len(numbers) < count:
            tried = random.integers(self._oldest, self.seen - 1, count)
            numbers = np.append(numbers, self._usable(tried))[:count]
        return self.taken(numbers)


@dataclass(frozen=True)
class Learning:
    """How a game is learned."""

    replay: int
    """Steps that are remembered."""
    warm_up: int
    """Steps that are played before anything is learned, at least a batch."""
    every: int
    """Steps from one batch to the next."""
    discount: float
    """What a reward of the next step is worth now."""
    explore: tuple[float, float]
    """Share of actions that are drawn at random, at first and in the end."""
    explore_games: int
    """Games over which it falls, by as much after each."""
    penalty: float | None
    """Reward of the step by which a game is lost; none: the game's own."""
    target: float | None
    """Share by which, after each batch, the network that says what states are worth moves towards the one that learns
    (Lillicrap et al., 2016); none: they are one network."""
    double: bool
    """The network that learns chooses the action, and the other one says what it is worth (van Hasselt et al.,
    2016)."""
    limit: int
    """Most steps of a game."""
    watched: int
    """Games that are played after each epoch without exploring; their mean return is `greedy_return`."""
    enough: float | None
    """The `greedy_return` with which it ends."""
    kept: int
    """Steps of the memory, the newest, that are kept as records in the end."""


class Player(Loop):
    """A network that plays, remembers, and learns from what it remembers. A step of the loop is a whole game."""

    def __init__(
        self, start: Start, game: Game, learning: Learning, games: int, begin_with_records: bool = False
    ) -> None:
        self.model, self.steps = start.model, games
        self.game, self.learning, self.seed = game, learning, start.seed
        self.other = keras.models.clone_model(start.model) if learning.target else start.model
        compile_model(self.model, start.settings, {})
        self.optimizer = self.model.optimizer
        self.optimizer.build(self.model.trainable_variables)
        self.batch = start.settings.batch_size
        self.random = np.random.default_rng(start.seed)
        self.replay = Replay(learning.replay, game)
        if begin_with_records:
            self._remember({**start.train.inputs, **start.notes})
        self.played = 0
        self.environment = game.open(None)
        self.other.set_weights(start.model.get_weights())
        self._learn = self._compiled(start.settings.jit_compile)
        self._values = valued(self.model)

    def advance(self, step: int) -> Mapping[str, float]:
        """Play a game, and learn while it goes on."""
        replay, learning = self.replay, self.learning
        exploring = self.exploring(step)
        observation, _ = self.environment.reset(seed=begins(self.seed, TRAINING, step))
        replay.begin(observation)
        values: Array | None = None
        returned, losses, before = 0.0, [], self.played
        for _ in range(learning.limit):
            if self.random.random() < exploring:
                action = int(self.random.integers(len(self.game.actions)))
            else:
                action = int(np.argmax(self._values(replay.state[None])[0] if values is None else values))
            observation, reward, lost, over, _ = self.environment.step(action)
            returned += float(reward)
            replay.add(action, self._worth(float(reward), lost), observation, lost)
            self.played += 1
            if self.played > max(learning.warm_up, self.batch) and self.played % learning.every == 0:
                # One call learns from a batch and says what to do next.
                loss, found = self._learn(
                    *map(tf.constant, (*replay.drawn(self.batch, self.random), replay.state[None]))
                )
                losses.append(loss)
                values = found.numpy()[0]
            else:
                values = None
            if lost or over:
                break
        # A game in which nothing was learned has no loss.
        loss = float(np.mean([float(loss) for loss in losses])) if losses else 0.0
        return {"loss": loss, "return": returned, "length": float(self.played - before), "exploring": exploring}

    def _worth(self, reward: float, lost: bool) -> float:
        penalty = self.learning.penalty
        return penalty if lost and penalty is not None else reward

    def _remember(self, steps: Mapping[str, Any]) -> None:
        """Take steps of games into the memory; where a state isn't the one that followed before, a game begins."""
        newest = [steps[name] if self.game.stack == 1 else steps[name][..., -1] for name in ("state", "next_state")]
        before = None
        for k, (seen, following) in enumerate(zip(*newest, strict=True)):
            if before is None or not np.array_equal(seen, before):
                self.replay.begin(seen)
            lost = bool(steps["lost"][k])
            self.replay.add(int(steps["action"][k]), self._worth(float(steps["reward"][k]), lost), following, lost)
            before = following

    def exploring(self, game: int) -> float:
        """Share of the actions of a game that are drawn at random."""
        first, last = self.learning.explore
        return first + (last - first) * min(game / self.learning.explore_games, 1.0)

    def _step(self, states: Any, actions: Any, rewards: Any, following: Any, lost: Any, now: Any) -> Any:
        ahead = self.other(following, training=False)
        if self.learning.double:
            chosen = tf.argmax(self.model(following, training=False), axis=1)
            best = tf.gather(ahead, chosen, axis=1, batch_dims=1)
        else:
            best = tf.reduce_max(ahead, axis=1)
        wanted = tf.stop_gradient(rewards + self.learning.discount * (1.0 - lost) * best)
        with tf.GradientTape() as tape:
            found = tf.gather(self.model(states, training=True), actions, axis=1, batch_dims=1)
            loss = self.model.compute_loss(None, wanted[:, None], found[:, None], None)
        weights = self.model.trainable_variables
        self.optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
        if self.learning.target:
            for behind, ahead_of_it in zip(self.other.variables, self.model.variables, strict=True):
                behind.assign(behind + self.learning.target * (ahead_of_it - behind))
        return loss, self.model(now, training=False)

    def _compiled(self, jit: bool) -> Callable[..., Any]:
        """The step as a graph of known types: to find them out at each of many calls would cost as much again."""
        state = (tf.float32 if self.game.state.dtype == "float32" else tf.uint8, self.game.state.shape)
        many, one = (tf.TensorSpec((count, *state[1]), state[0]) for count in (self.batch, 1))
        action, number = (tf.TensorSpec((self.batch,), kind) for kind in (tf.int32, tf.float32))
        graph = tf.function(self._step, jit_compile=jit, autograph=False)
        return graph.get_concrete_function(many, action, number, many, number, one)

    def watch(self) -> Mapping[str, float]:
        """The mean return of some games without exploring."""
        if not self.learning.watched:
            return {}
        seeds = [begins(self.seed, WATCHED, number) for number in range(self.learning.watched)]
        found = float(play(self.game, self._values, seeds, self.learning.limit).mean())
        self.finished = self.learning.enough is not None and found >= self.learning.enough
        return {"greedy_return": found}

    def gathered(self) -> Mapping[str, Array]:
        """The newest steps of the memory."""
        names = ("state", "action", "reward", "next_state", "lost")
        found = self.replay.taken(self.replay.steps[-self.learning.kept :])
        held = dict(zip(names, found, strict=True))
        return {**held, "lost": held["lost"].astype(np.int64)}

    def state(self) -> Mapping[str, Any]:
        """What the next game depends on; what lies in the memory beyond what was seen is left out."""
        replay = self.replay
        filled = min(replay.seen, replay.capacity)
        held = {f"replay {name}": values[:filled] for name, values in replay.held.items()}
        return {**super().state(), **held, "seen": replay.seen, "played": self.played}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Put back what `state` gave."""
        super().restore(state)
        for name, values in self.replay.held.items():
            kept = state[f"replay {name}"]
            values[: len(kept)] = kept
        self.replay.seen, self.played = int(state["seen"]), int(state["played"])


def valued(model: keras.Model) -> Values:
    """A model as a function of NumPy arrays."""
    call = tf.function(lambda states: model(states, training=False), reduce_retracing=True, autograph=False)
    return lambda states: np.asarray(call(tf.convert_to_tensor(states)))


def play(game: Game, values: Values, seeds: Sequence[int], limit: int) -> Array:
    """Play some games side by side, always by the action that is worth most: their returns (games,)."""
    tables = [Played(game) for _ in seeds]
    for table, seed in zip(tables, seeds, strict=True):
        table.begin(seed)
    returns, going = np.zeros(len(seeds)), list(range(len(seeds)))
    for _ in range(limit):
        states = np.stack([tables[k].state for k in going])
        left = []
        for k, action in zip(going, np.argmax(values(states), axis=1), strict=True):
            reward, _, over = tables[k].step(int(action))
            returns[k] += reward
            if not over:
                left.append(k)
        going = left
        if not going:
            break
    for table in tables:
        table.environment.close()
    return returns


def judged(
    trial: Trial, game: Game, games: int, solved: float, limit: int, rules: Mapping[str, Values] | None = None
) -> Own:
    """What a network plays without exploring, beside chance and other rules; and the beginning of a game to look at.

    Args:
        trial: What was trained.
        game: Which game.
        games: How many are played, unless `evaluate.trials` says otherwise.
        solved: The return from which on a game counts as solved.
        limit: Most steps of a game.
        rules: Other ways to play, which need no training.
    """
    seeds = [begins(trial.seed, TESTED, number) for number in range(trial.trials(games))]
    values = valued(trial.models["model"])
    random = np.random.default_rng(trial.seed)

    def drawn(states: Array) -> Array:
        return random.random((len(states), len(game.actions)))

    players = {"actions by chance": drawn, **(rules or {})}
    found = episodes(play(game, values, seeds, limit), solved)
    return Own(
        found,
        larger_is_better=set(found),
        naive={name: episodes(play(game, player, seeds, limit), solved) for name, player in players.items()},
        samples={"the beginning of the first game": animation(filmed(game, values, seeds[0], limit), MILLISECONDS)},
    )


def filmed(game: Game, values: Values, seed: int, limit: int) -> list[Array]:
    """The beginning of a game as it looks: `FRAMES` pictures (height, width, 3) at most, one in `EVERY` steps."""
    table = Played(game, "rgb_array")
    table.begin(seed)
    shown: list[Array] = []
    for step in range(min(limit, FRAMES * EVERY)):
        if step % EVERY == 0:
            shown.append(np.asarray(table.environment.render())[::2, ::2])
        if table.step(int(np.argmax(values(table.state[None])[0])))[2]:
            break
    table.environment.close()
    return shown
