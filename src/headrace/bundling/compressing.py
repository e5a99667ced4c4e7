"""Fewer and fewer different weights: what makes a quantised file smaller once it is zipped.

TensorFlow's Model Optimization toolkit does not work with Keras 3; without training in between, both are a few lines.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import keras
    import numpy as np

    Array = np.ndarray[Any, Any]

SAMPLE = 50_000
"""Weights of a kernel by which its clusters are found."""


@contextmanager
def compressed(model: keras.Model, prune: float | None, cluster: int | None) -> Iterator[None]:
    """Prune and cluster the kernels of a model for as long as the context lasts.

    Args:
        model: The model. Kernels are its trainable variables of two dimensions and more.
        prune: The share of each kernel's weights, the smallest, that becomes 0.
        cluster: How many different values remain in each kernel, beside the 0 of what was pruned.
    """
    kernels = [variable for variable in model.trainable_variables if len(variable.shape) > 1]
    before = [kernel.numpy() for kernel in kernels]
    try:
        for kernel, values in zip(kernels, before, strict=True):
            smaller = pruned(values, prune) if prune else values
            kernel.assign(clustered(smaller, cluster, keep_zero=bool(prune)) if cluster else smaller)
        yield
    finally:
        for kernel, values in zip(kernels, before, strict=True):
            kernel.assign(values)


def pruned(weights: Array, share: float) -> Array:
    """The weights with the share that is nearest to 0 set to 0."""
    import numpy as np

    count = int(share * weights.size)
    found = weights.copy().reshape(-1)
    found[np.argsort(np.abs(found), kind="stable")[:count]] = 0
    return found.reshape(weights.shape)


def clustered(weights: Array, count: int, keep_zero: bool = False) -> Array:
    """The weights, each replaced by the nearest of a few values, which k-means finds.

    Args:
        weights: Of any shape.
        count: How many values.
        keep_zero: Leave what is 0, and find the values among the rest.
    """
    import numpy as np
    from sklearn.cluster import KMeans

    chosen = weights != 0 if keep_zero else np.ones(weights.shape, bool)
    values = weights[chosen]
    different = np.unique(values)
    if len(different) <= count:
        return weights
    some = np.random.default_rng(0).choice(values, SAMPLE, replace=False) if len(values) > SAMPLE else values
    begin = np.linspace(values.min(), values.max(), count)[:, None]
    means = KMeans(count, init=begin, n_init=1, random_state=0).fit(some[:, None]).cluster_centers_
    centres = np.sort(means.reshape(-1)).astype(weights.dtype)
    found = weights.copy()
    found[chosen] = centres[np.searchsorted((centres[1:] + centres[:-1]) / 2, values)]
    return found
