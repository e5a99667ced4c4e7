"""Gradient ascent on a picture, octave by octave."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from headrace.engine.loops import Start
from headrace.errors import ConfigError
from pipelines._perception import RESULT, START, Lean, Studio, album, looked, put, shown, studio
from pipelines.deepdream import Plan

UNIT = 127.5
"""Brightness by which a pixel that goes from -1 to 1, as InceptionV3 takes it, differs by one."""
BORDER = 2
"""Positions at each side of a layer's map that don't count: artefacts of the padding are worst there."""


class Dream(Lean):
    """A picture, small at first, that is changed so that layers answer more strongly, and then enlarged.

    An epoch is a step of the ascent; the first picture of the training split is dreamt of.
    """

    def __init__(self, start: Start) -> None:
        self.model: Studio = start.model
        plan: Plan = self.model.plan
        self.original = tf.constant(start.train.inputs["image"][:1], tf.float32)
        self.shapes = shapes(self.original.shape[1:3], plan.octaves, plan.scale)
        self.iterations = start.settings.epochs // plan.octaves
        if self.iterations * plan.octaves != start.settings.epochs:
            raise ConfigError(
                "The steps of a dream can't be shared out to its octaves.",
                expected=f"train.epochs as a multiple of {plan.octaves}, the number of octaves",
                received=start.settings.epochs,
            )
        _must_be_wide_enough(self.model, self.shapes[0])
        self.weights = tf.constant(list(plan.layers.values()), tf.float32)
        self.limit, self.rate = plan.max_loss, float(start.settings.learning_rate or 20.0) * UNIT
        self.picture = resized(self.original, self.shapes[0])
        self.answers: list[float] = []
        self.octaves: list[Any] = []
        put(self.model.work, START, self.original)
        put(self.model.work, RESULT, self.original)
        self._ascend = tf.function(self._step, reduce_retracing=True, autograph=False)

    def advance(self, step: int) -> Mapping[str, float]:
        """One step; the answer is that before it. In an octave whose answers exceed the limit nothing more is done."""
        octave, number = divmod(step, self.iterations)
        if number == 0 and octave:
            self.picture = resized(self.picture, self.shapes[octave])
        if number and self.limit is not None and self.answers[-1] > self.limit:
            self.answers.append(self.answers[-1])
        else:
            answer, self.picture = self._ascend(self.picture)
            self.answers.append(float(answer))
        if number == self.iterations - 1:
            self.picture += detail(self.original, self.shapes, octave)
            self.octaves.append(shown(self.picture)[0])
        put(self.model.work, RESULT, resized(self.picture, self.shapes[-1]))
        # A loss falls, and the answers rise.
        return {"loss": -self.answers[-1], "answers": self.answers[-1]}

    def _step(self, picture: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(picture)
            found = tf.reduce_sum(answers(self.model.eyes, picture) * self.weights)
        return found, picture + self.rate * tf.math.l2_normalize(tape.gradient(found, picture))

    def kept(self) -> Mapping[str, Any]:
        """The picture as it is, what the layers answered, and the octaves that are done."""
        done = {f"octave {k}": octave for k, octave in enumerate(self.octaves)}
        return {"picture": self.picture.numpy(), "answers": np.array(self.answers), **done}

    def take(self, kept: Mapping[str, Any]) -> None:
        """Put them back."""
        self.picture = tf.constant(kept["picture"])
        self.answers = [float(value) for value in kept["answers"]]
        self.octaves = [kept[f"octave {k}"] for k in range(sum(name.startswith("octave ") for name in kept))]
        put(self.model.work, RESULT, resized(self.picture, self.shapes[-1]))

    def results(self) -> Mapping[str, Any]:
        """The picture before and after, what became of each octave, and what the layers answered at each step."""
        octaves = {f"octave_{k}": octave for k, octave in enumerate(self.octaves, 1)}
        done = resized(self.picture, self.shapes[-1])
        return {
            "start": shown(self.original)[0],
            "result": shown(done)[0],
            "answers": np.array(self.answers),
            "iterations": np.array(self.iterations),
            **octaves,
        }


def shapes(size: Sequence[int], octaves: int, scale: float) -> list[tuple[int, int]]:
    """Heights and widths of the octaves, the smallest first, the picture's own last."""
    height, width = size
    return [(int(height / scale**k), int(width / scale**k)) for k in reversed(range(octaves))]


def resized(picture: Any, size: tuple[int, int]) -> Any:
    """A picture (1, height, width, 3) of this height and width, by bilinear interpolation."""
    return picture if tuple(picture.shape[1:3]) == size else tf.image.resize(picture, size)


def detail(original: Any, sizes: Sequence[tuple[int, int]], octave: int) -> Any:
    """What the original has at the size of an octave and had lost where it was enlarged from the one before."""
    here, before = sizes[octave], sizes[max(octave - 1, 0)]
    return resized(original, here) - resized(resized(original, before), here)


def answers(eyes: Any, pictures: Any) -> Any:
    """How strongly each layer answers, (layers,): the mean of its squares, without the border."""
    inner = slice(BORDER, -BORDER)
    return tf.stack([tf.reduce_mean(tf.square(found[:, inner, inner])) for found in looked(eyes, pictures)])


def _must_be_wide_enough(model: Studio, size: tuple[int, int]) -> None:
    for layer, found in zip(model.plan.layers, model.eyes.compute_output_shape((1, *size, 3)), strict=True):
        sides = found[1:3]
        if min(int(side) for side in sides) <= 2 * BORDER:
            raise ConfigError(
                f"The smallest octave, {math.prod(size)} pixels, leaves nothing of layer `{layer}`.",
                expected=f"a map of at least {2 * BORDER + 1} × {2 * BORDER + 1}",
                received=" × ".join(map(str, sides)),
                remedy="larger pictures (preprocess.height), fewer octaves, or layers nearer to the picture",
            )


def made(shape: tuple[int | None, ...], plan: Plan) -> Studio:
    """The album that a dream is kept in, and the network that dreams it."""
    return studio(album(shape), plan.backbone, list(plan.layers), plan)
