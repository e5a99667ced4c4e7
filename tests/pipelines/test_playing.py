"""Games that are learned: what is remembered of them, what is learned of it, and that a cut changes nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from headrace import Feature
from headrace.jobs import resolve
from pipelines._games import CARTPOLE_GAME, Game, at_random, begins


class Counting:
    """A game whose observation is the number of its steps, beginning with a hundred for each game before; lost after
    `length` steps by action 1 alone."""

    def __init__(self, length: int = 4) -> None:
        self.length, self.games, self.at = length, -1, 0

    def reset(self, seed: int) -> tuple[Any, dict[str, Any]]:
        self.games, self.at = self.games + 1, 0
        return np.float32([100 * self.games]), {}

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.at += 1
        return np.float32([100 * self.games + self.at]), 1.0, self.at == self.length and action == 1, False, {}

    def close(self) -> None:
        pass


def counting(stack: int = 1, length: int = 4) -> Game:
    return Game(
        open=lambda rendered: Counting(length),
        state=Feature(shape=(1, stack) if stack > 1 else (1,)),
        actions=("on", "stop"),
        stack=stack,
    )


def remembered(game: Game, capacity: int, *lengths: int) -> Any:
    """A memory of games of these lengths, each lost by its last step."""
    from pipelines._playing import Replay

    replay, environment = Replay(capacity, game), Counting(10**6)
    for length in lengths:
        replay.begin(environment.reset(seed=0)[0])
        for step in range(length):
            replay.add(step % 2, step + 1.0, environment.step(0)[0], step == length - 1)
    return replay


class TestTheMemory:
    def test_gives_each_step_as_it_was(self) -> None:
        replay = remembered(counting(), 100, 3, 2)
        state, action, reward, following, lost = replay.taken(replay.steps)

        assert state.ravel().tolist() == [0, 1, 2, 100, 101]
        assert following.ravel().tolist() == [1, 2, 3, 101, 102]
        assert action.tolist() == [0, 1, 0, 0, 1]
        assert reward.tolist() == [1, 2, 3, 1, 2]
        assert lost.tolist() == [0, 0, 1, 0, 1]

    def test_forgets_the_oldest(self) -> None:
        replay = remembered(counting(), 5, 3, 4)

        # Nine observations were seen: those of 100 to 104 are left, and the last one was not acted upon.
        assert replay.taken(replay.steps)[0].ravel().tolist() == [100, 101, 102, 103]

    def test_makes_a_state_of_several_observations_of_one_game(self) -> None:
        replay = remembered(counting(stack=3), 100, 3, 2)
        state, _, _, following, _ = replay.taken(replay.steps)

        assert state[:, 0].tolist() == [[0, 0, 0], [0, 0, 1], [0, 1, 2], [100, 100, 100], [100, 100, 101]]
        assert following[:, 0].tolist() == [[0, 0, 1], [0, 1, 2], [1, 2, 3], [100, 100, 101], [100, 101, 102]]

    def test_leaves_out_states_that_have_lost_an_observation(self) -> None:
        replay = remembered(counting(stack=3), 6, 9)

        # Of 0 to 9 those of 4 to 9 are left: the first whole state is that of 6.
        assert replay.taken(replay.steps)[0][:, 0].tolist() == [[4, 5, 6], [5, 6, 7], [6, 7, 8]]

    def test_draws_each_step_about_as_often_as_any_other(self) -> None:
        replay = remembered(counting(stack=2), 50, 3, 2)
        states = replay.drawn(5_000, np.random.default_rng(0))[0][:, 0, 1]

        values, counts = np.unique(states, return_counts=True)
        assert values.tolist() == [0, 1, 2, 100, 101]
        assert np.all(np.abs(counts - 1_000) < 150)


def begun(game: Game = CARTPOLE_GAME, steps: dict[str, Any] | None = None, **learning: Any) -> Any:
    """A player that has not played yet."""
    import keras

    from headrace.engine.feeding import Split
    from headrace.engine.loops import Start
    from headrace.spec import Train
    from pipelines._playing import Learning, Player

    plain = Learning(
        replay=200,
        warm_up=0,
        every=1,
        discount=0.9,
        explore=(1.0, 0.0),
        explore_games=4,
        penalty=None,
        target=None,
        double=False,
        limit=50,
        watched=0,
        enough=None,
        kept=200,
    )
    keras.utils.set_random_seed(0)
    state = keras.Input(game.state.shape)
    model = keras.Model(state, keras.layers.Dense(2)(keras.layers.Dense(8, "relu")(keras.layers.Flatten()(state))))
    settings = Train(epochs=1, batch_size=8, optimizer="adam", learning_rate=1e-2, loss="mse")
    start = Start(model, Split({"state": np.zeros((1, *game.state.shape), np.float32)}), None, {}, settings, seed=3)
    return Player(start, game, replace(plain, **learning), games=2)


def test_the_share_of_drawn_actions_falls_as_a_straight_line() -> None:
    player = begun(explore=(1.0, 0.2))
    assert [round(player.exploring(game), 6) for game in (0, 1, 2, 4, 9)] == [1.0, 0.8, 0.6, 0.2, 0.2]


@pytest.mark.parametrize("double", [False, True])
def test_the_loss_is_that_of_the_bellman_equation(double: bool) -> None:
    """Against the formula written out."""
    player = begun(target=1e-9, double=double)
    random = np.random.default_rng(0)
    weights = player.model.get_weights()
    player.other.set_weights([weight + random.normal(0, 0.5, weight.shape) for weight in weights])
    states, following = random.normal(size=(2, 8, 4)).astype(np.float32)
    actions, rewards = random.integers(0, 2, 8).astype(np.int32), random.normal(size=8).astype(np.float32)
    lost = (np.arange(8) % 3 == 0).astype(np.float32)
    now, other = (np.asarray(model(following)) for model in (player.model, player.other))
    best = other[np.arange(8), now.argmax(axis=1)] if double else other.max(axis=1)
    chosen = np.asarray(player.model(states))[np.arange(8), actions]

    import tensorflow as tf

    loss, _ = player._learn(*map(tf.constant, (states, actions, rewards, following, lost, states[:1])))

    assert now.argmax(axis=1).tolist() != other.argmax(axis=1).tolist()
    assert float(loss) == pytest.approx(float(np.mean((rewards + 0.9 * (1 - lost) * best - chosen) ** 2)), rel=1e-5)
    assert any(not np.array_equal(*pair) for pair in zip(weights, player.model.get_weights(), strict=True))


def test_a_game_that_is_cut_short_is_not_lost_and_one_that_is_lost_is_punished() -> None:
    player = begun(counting(length=4), limit=3, penalty=-10.0)
    player.advance(0)
    assert player.replay.taken(player.replay.steps)[4].tolist() == [0, 0, 0]

    player = begun(counting(length=4), limit=9, penalty=-10.0)
    row = player.advance(0)
    _, _, reward, _, lost = player.replay.taken(player.replay.steps)
    place = np.flatnonzero(lost)
    assert (reward[place] == -10).all()
    assert (reward[lost == 0] == 1).all()
    # What is told to people is the game's own.
    assert row["return"] == row["length"]


def test_the_other_network_moves_towards_the_one_that_learns() -> None:
    import tensorflow as tf

    player = begun(target=0.25)
    before = [weight + 1 for weight in player.model.get_weights()]
    player.other.set_weights(before)
    batch = player.replay
    batch.begin(np.zeros(4, np.float32))
    for _ in range(9):
        batch.add(0, 1.0, np.ones(4, np.float32), False)
    player._learn(*map(tf.constant, (*batch.drawn(8, player.random), batch.state[None])))

    for old, learned, follows in zip(before, player.model.get_weights(), player.other.get_weights(), strict=True):
        np.testing.assert_allclose(follows, old + 0.25 * (learned - old), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("cut", [1, 5])
def test_what_is_cut_off_goes_on_to_the_same_games_and_weights(cut: int) -> None:
    from headrace.engine.loops import ByHand

    changed: dict[str, Any] = {"target": 0.1, "double": True, "replay": 60, "watched": 2}
    whole, before, fresh = (begun(**changed) for _ in range(3))
    rows = [whole.advance(game) for game in range(8)]
    for game in range(cut):
        before.advance(game)
    settings = resolve("cartpole").settings.train.model_copy(update={"checkpoint": None})
    ByHand(fresh, settings).restore([np.copy(array) for array in ByHand(before, settings).state()])

    assert [fresh.advance(game) for game in range(cut, 8)] == rows[cut:]
    assert fresh.watch() == whole.watch()
    for one, other in zip(fresh.model.get_weights(), whole.model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    for name, values in whole.gathered().items():
        np.testing.assert_array_equal(fresh.gathered()[name], values)


def test_it_ends_when_it_plays_well_enough() -> None:
    player = begun(watched=3, enough=5.0)
    assert not player.finished
    assert player.watch()["greedy_return"] >= 5.0
    assert player.finished

    player = begun(watched=3, enough=51.0)
    player.watch()
    assert not player.finished


def test_games_of_another_player_are_remembered_as_they_were() -> None:
    steps = at_random(CARTPOLE_GAME, 5, seed=1, limit=500)
    player = begun(replay=1_000)
    player._remember(steps)
    found = dict(zip(steps, player.replay.taken(player.replay.steps), strict=True))

    assert len(steps["lost"]) > 50
    for name, values in steps.items():
        np.testing.assert_allclose(found[name], values)
    assert int(found["lost"].sum()) == 5


def test_games_begin_alike_for_one_seed_and_differently_for_others() -> None:
    again = at_random(CARTPOLE_GAME, 2, seed=1, limit=20)
    for name, values in at_random(CARTPOLE_GAME, 2, seed=1, limit=20).items():
        np.testing.assert_array_equal(values, again[name])
    assert len({begins(seed, purpose, game) for seed in range(3) for purpose in range(4) for game in range(5)}) == 60


def test_the_network_of_the_book_has_770_parameters() -> None:
    job = resolve("cartpole", variant="book")
    assert job.the("model")({"state": CARTPOLE_GAME.state}, **job.settings.model).count_params() == 770
    assert (job.settings.train.epochs * 10, job.settings.train.batch_size) == (500, 32)


def test_towards_the_lean_keeps_the_pole_longer_than_chance() -> None:
    from pipelines._playing import play

    seeds = [begins(0, 2, game) for game in range(20)]
    lean = play(CARTPOLE_GAME, lambda states: np.stack([-states[:, 2], states[:, 2]], axis=1), seeds, 500)
    random = np.random.default_rng(0)
    chance = play(CARTPOLE_GAME, lambda states: random.random((len(states), 2)), seeds, 500)
    assert lean.mean() > 1.5 * chance.mean()
    assert chance.mean() < 35
