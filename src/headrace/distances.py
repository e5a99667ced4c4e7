"""How far two distributions lie apart, by the usual formulas; `headrace.monitoring` says what is far.

All take shares that add up to 1 along the last axis, of the same places in the same order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

LEAST = 1e-4
"""Share that the population stability index takes in place of none: it would be infinite."""


def divergence(p: Array, q: Array) -> Array:
    """The Jensen–Shannon divergence, in bits: 0 to 1. Its square root is the distance."""
    import numpy as np

    middle = (p + q) / 2

    def towards_the_middle(x: Array) -> Array:
        # Where x is 0 it adds nothing; the 1 only keeps the logarithm quiet.
        return np.sum(x * np.log2(np.where(x > 0, x, 1) / np.where(x > 0, middle, 1)), axis=-1)

    return np.maximum((towards_the_middle(p) + towards_the_middle(q)) / 2, 0)


def stability_index(p: Array, q: Array) -> Array:
    """The population stability index: the divergences of Kullback and Leibler in both directions, in nats."""
    import numpy as np

    p, q = np.maximum(p, LEAST), np.maximum(q, LEAST)
    return np.sum((q - p) * np.log(q / p), axis=-1)


def largest_share(p: Array, q: Array) -> Array:
    """The largest difference of the shares of one place (L-infinity, Chebyshev)."""
    import numpy as np

    return np.abs(p - q).max(axis=-1)


def kolmogorov_smirnov(p: Array, q: Array) -> Array:
    """The largest difference of the shares up to a place. For places in the order of numbers."""
    return largest_share(p.cumsum(axis=-1), q.cumsum(axis=-1))


def wasserstein(p: Array, q: Array, places: Array) -> Array:
    """How far a value has to be moved on average to make one of the other, in its own unit.

    Args:
        p: Shares.
        q: Shares.
        places: The numbers at which they stand, ascending.
    """
    import numpy as np

    apart = np.abs(p.cumsum(axis=-1) - q.cumsum(axis=-1))[..., :-1]
    return np.sum(apart * np.diff(places), axis=-1)
