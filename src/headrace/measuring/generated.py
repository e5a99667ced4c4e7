"""How good what a model makes is: helpers for a workload's `measure` (`headrace.measuring.own`).

Images are compared by their features: what a network that knows images says of them. Whose features they are decides
what a distance means, so each workload names its network beside the number; with Inception's they would be FID and KID.

```python
def measure(trial: Trial) -> Own:
    look = trial.models["judge"]                                  # a classifier without its last layer
    faces = trial.first(1_000)["image"] / 255
    made = trial.models["model"].predict(noise(len(faces), trial.seed), verbose=0)
    real, fake, known = (features(look, images) for images in (faces, made, trial.first(5_000, "train")["image"] / 255))
    return Own({"kernel_distance": kernel_distances(real, fake), "frechet_distance": frechet_distance(real, fake),
                "novelty": nearest(fake, known), "diversity": diversity(fake)},
               larger_is_better={"novelty", "diversity"})
```
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from headrace.errors import StageFailed
from headrace.measuring.resampling import Array

if TYPE_CHECKING:
    import keras

_BYTES = 64 * 2**20
"""How much distances between many examples take at once."""


def features(network: keras.Model, images: Array, batch: int = 64) -> Array:
    """What a network says of images, some at a time.

    Args:
        network: Images → features (examples, …); what is more than a vector is averaged over all but its last axis.
        images: (examples, *shape), as the network takes them.
        batch: Examples that are asked at once.

    Returns:
        (examples, size), float64.
    """
    parts = []
    for first in range(0, len(images), batch):
        found = np.asarray(network(images[first : first + batch], training=False), np.float64)
        parts.append(found.reshape(len(found), -1, found.shape[-1]).mean(axis=1))
    return np.concatenate(parts)


# ---------------------------------------------------------------------------------------- distances of two sets


def frechet_distance(real: Array, made: Array) -> float:
    """The Fréchet distance of two normal distributions that are fitted to features; with Inception's, FID.

    It is biased: of fewer examples it is larger, so that only sets of one size can be compared. With fewer examples
    than features the covariances are not of full rank, which does not harm the number.

    Args:
        real: (examples, size)
        made: (examples, size)
    """
    (one, a), (other, b) = (_moments(values) for values in (real, made))
    # The trace of the root of the product is the sum of the singular values of the product of roots.
    joint = np.linalg.svd(_root(a) @ _root(b), compute_uv=False).sum()
    return float(max(np.square(one - other).sum() + np.trace(a) + np.trace(b) - 2 * joint, 0.0))


def _moments(values: Array) -> tuple[Array, Array]:
    exact = _checked(values)
    return exact.mean(axis=0), np.atleast_2d(np.cov(exact, rowvar=False))


def _root(covariance: Array) -> Array:
    """The symmetric root of a covariance."""
    sizes, axes = np.linalg.eigh(covariance)
    return np.asarray((axes * np.sqrt(np.clip(sizes, 0, None))) @ axes.T)


def kernel_distances(real: Array, made: Array, block: int = 50, seed: int = 0) -> Array:
    """Unbiased estimates of the squared kernel distance of two sets of features; with Inception's, their mean is KID.

    The kernel is (x·y / size + 1)³. Each estimate is of a block of either set; no example is in two of them, so that
    the estimates are independent of each other, and their mean has an honest interval.

    Args:
        real: (examples, size)
        made: (examples, size)
        block: Examples of each set in one estimate; at most half of the smaller set.
        seed: Of the order in which the blocks are cut.

    Returns:
        (blocks,), at least two; some are negative where the sets are alike.
    """
    ours, theirs = _checked(made), _checked(real)
    fewest = min(len(ours), len(theirs))
    block = max(min(block, fewest // 2), 2)
    random = np.random.default_rng(seed)
    x, y = (values[random.permutation(len(values))] for values in (ours, theirs))
    starts = range(0, fewest - block + 1, block)
    return np.array([kernel_distance(y[first : first + block], x[first : first + block]) for first in starts])


def kernel_distance(real: Array, made: Array) -> float:
    """The unbiased estimate of the squared kernel distance of two whole sets: see `kernel_distances`."""
    x, y = _checked(made), _checked(real)
    within = sum((_kernel(z, z).sum() - _kernel_of_itself(z).sum()) / (len(z) * (len(z) - 1)) for z in (x, y))
    return float(within - 2 * _kernel(x, y).mean())


def _kernel(x: Array, y: Array) -> Array:
    return np.asarray((x @ y.T / x.shape[1] + 1) ** 3)


def _kernel_of_itself(x: Array) -> Array:
    return np.asarray((np.square(x).sum(axis=1) / x.shape[1] + 1) ** 3)


# ---------------------------------------------------------------------------------------- diversity and memory


def diversity(made: Array, seed: int = 0) -> Array:
    """How different examples are: the distances of pairs that are drawn, each example in one pair (examples // 2,).

    To be compared with the same of real examples: much less is a collapse of modes.
    """
    values = _checked(made)
    drawn = values[np.random.default_rng(seed).permutation(len(values))]
    half = len(values) // 2
    return np.asarray(np.linalg.norm(drawn[:half] - drawn[half : 2 * half], axis=1))


def modes(made: Array, centres: Array) -> int:
    """How many of the real kinds occur: centres that are the nearest of at least one example.

    Args:
        made: Features (examples, size).
        centres: Features of each kind (kinds, size): class means, or the centres that k-means finds in real examples.
    """
    return len(np.unique(_nearest_places(_checked(made), centres)))


def coverage(made: Array, real: Array, kinds: int = 20, seed: int = 0) -> float:
    """The share of the kinds of real examples, found by k-means, that occur among what was made.

    A kind occurs if at least a tenth of the share that it has among the real examples is there.
    """
    from sklearn.cluster import KMeans

    values = _checked(real)
    found = KMeans(kinds, n_init=3, random_state=seed).fit(values)
    shares = [
        np.bincount(places, minlength=kinds) / len(places)
        for places in (found.labels_, _nearest_places(_checked(made), found.cluster_centers_))
    ]
    return float((shares[1] >= 0.1 * shares[0]).mean())


def nearest(made: Array, known: Array) -> Array:
    """Distance of each example to the nearest one of the training split (examples,): 0 is a copy of it.

    To be compared with the same of held-out examples: much less is memory.
    """
    values, others = _checked(made), np.asarray(known, np.float64)
    return np.asarray(np.linalg.norm(values - others[_nearest_places(values, others)], axis=1))


def _nearest_places(values: Array, others: Array) -> Array:
    """Which of the others is nearest to each of the values, some values at a time."""
    # By matrix products, which are ten times faster than distances; around the middle they lose no digits that matter.
    middle = others.mean(axis=0)
    away = others - middle
    half = np.square(away).sum(axis=1) / 2
    at_once = max(1, _BYTES // (8 * len(others)))
    starts = range(0, len(values), at_once)
    return np.concatenate([(half - (values[i : i + at_once] - middle) @ away.T).argmin(axis=1) for i in starts])


# ---------------------------------------------------------------------------------------- latent spaces, control


def reconstruction(images: Array, again: Array) -> Array:
    """Cross-entropy of each image with what an autoencoder makes of it, summed over pixels, in nats (examples,).

    Args:
        images: (examples, *shape), from 0 to 1.
        again: (examples, *shape): probabilities.
    """
    rows = (len(images), -1)
    truth, given = images.reshape(rows).astype(np.float64), again.reshape(rows).astype(np.float64)
    # As Keras has it in its losses.
    given = np.clip(given, 1e-7, 1 - 1e-7)
    return np.asarray(-(truth * np.log(given) + (1 - truth) * np.log1p(-given)).sum(axis=1))


def divergence(mean: Array, log_variance: Array, reduce: str = "sum") -> Array:
    """Kullback–Leibler divergence of each latent normal distribution from the standard one, in nats (examples,).

    Args:
        mean: (examples, size)
        log_variance: (examples, size)
        reduce: `sum` over the latent dimensions, which is the divergence; `mean`, which some books print instead.
    """
    each = -0.5 * (1 + log_variance - np.square(mean) - np.exp(log_variance))
    return np.asarray(each.sum(axis=1) if reduce == "sum" else each.mean(axis=1), np.float64)


def episodes(returns: Array, solved: float) -> Mapping[str, Array]:
    """What is said of played episodes, as metrics of `Own`.

    Args:
        returns: Sum of the rewards of each episode (episodes,).
        solved: The return from which on an episode counts as solved.

    Returns:
        `return`, and `solved`: the share of solved episodes.
    """
    exact = np.asarray(returns, np.float64)
    return {"return": exact, "solved": (exact >= solved).astype(np.float64)}


def _checked(values: Array) -> Array:
    exact = np.asarray(values, np.float64)
    if exact.ndim != 2 or len(exact) < 2 or not np.isfinite(exact).all():
        raise StageFailed(
            "Features of examples can't be compared.",
            expected="at least two vectors of finite numbers (examples, size)",
            received=f"shape {exact.shape}, {(~np.isfinite(exact)).sum()} numbers not finite",
        )
    return exact
