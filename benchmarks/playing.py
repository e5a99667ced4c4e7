"""Steps of CartPole, played and learned from, against the usual loop: a step, a batch, by Keras' own methods.

Both sides play the same number of games by the settings of the handbook (a network of 770 parameters, a batch of 32
after each step) with the same share of drawn actions, and count what they play in a second; they take turns. The plain
loop asks the model by calling it, keeps its memory in a deque and learns by `train_on_batch`; with `predict` in place
of calls, as many a listing has it, it would be slower yet.

Run: python -m benchmarks.playing [--games 30] [--repeats 3]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import deque
from typing import Any

from benchmarks.keeping import keep

WARM = 5
"""Games before the clock starts: tracing and the first batches are no part of it."""
DRAWN = 0.5
"""Share of actions that are drawn."""


def ours(games: int) -> float:
    """Steps in a second, by `pipelines.cartpole`."""
    import keras
    import numpy as np

    from headrace.engine.feeding import Split
    from headrace.engine.loops import Start
    from headrace.jobs import resolve
    from pipelines._games import CARTPOLE_GAME

    job = resolve("cartpole", variant="book", overrides={"loop.explore_games": 1})
    keras.utils.set_random_seed(0)
    inputs = {"state": CARTPOLE_GAME.state}
    split = Split({"state": np.zeros((1, 4), np.float32)})
    model = job.the("model")(inputs, **job.settings.model)
    player = job.the("loop")(Start(model, split, None, inputs, job.settings.train, seed=0), **job.settings.loop)
    player.exploring = lambda game: DRAWN
    for game in range(WARM):
        player.advance(game)
    begun, before = time.perf_counter(), player.played
    for game in range(WARM, WARM + games):
        player.advance(game)
    return float(player.played - before) / (time.perf_counter() - begun)


def plain(games: int) -> float:
    """Steps in a second, by a loop as people write it."""
    import gymnasium
    import keras
    import numpy as np

    keras.utils.set_random_seed(0)
    random = np.random.default_rng(0)
    dense = keras.layers.Dense
    model = keras.Sequential([keras.Input((4,)), dense(24, "relu"), dense(24, "relu"), dense(2)])
    model.compile(keras.optimizers.Adam(1e-3), "mse")
    environment, memory = gymnasium.make("CartPole-v1"), deque[Any](maxlen=10_000)
    played, begun, before = 0, 0.0, 0
    for game in range(WARM + games):
        if game == WARM:
            begun, before = time.perf_counter(), played
        state, _ = environment.reset(seed=game)
        over = False
        while not over:
            drawn = random.random() < DRAWN
            action = int(random.integers(2)) if drawn else int(np.argmax(model(state[None])[0]))
            following, reward, lost, cut, _ = environment.step(action)
            memory.append((state, action, -10.0 if lost else reward, following, lost))
            played, over, state = played + 1, lost or cut, following
            if len(memory) < 32:
                continue
            rows = [memory[k] for k in random.integers(0, len(memory), 32)]
            states, actions, rewards, followers, ends = (np.array(column) for column in zip(*rows, strict=True))
            wanted = np.array(model(states))
            best = np.max(model(followers), axis=1)
            wanted[np.arange(32), actions] = rewards + (1 - ends) * best
            model.train_on_batch(states, wanted)
    return (played - before) / (time.perf_counter() - begun)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--games", type=int, default=30)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    found: dict[str, list[float]] = {"headrace": [], "plain loop": []}
    for turn in range(given.repeats):
        for name, play in (("headrace", ours), ("plain loop", plain)):
            found[name].append(round(play(given.games), 1))
            print(f"{turn + 1} of {given.repeats}: {name} {found[name][-1]:,} steps a second", flush=True)
    ratios = [ours / theirs for ours, theirs in zip(found["headrace"], found["plain loop"], strict=True)]
    result = {
        "games": given.games,
        "steps a second": found,
        "times faster": round(statistics.median(ratios), 1),
        "from": round(min(ratios), 1),
        "to": round(max(ratios), 1),
    }
    keep("playing", result, "tensorflow", "keras", "gymnasium")


if __name__ == "__main__":
    main()
