"""Distances are what the published formulas say, as scipy works them out."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from scipy.spatial import distance

from headrace.describing.summaries import summarise
from headrace.distances import LEAST, divergence, kolmogorov_smirnov, largest_share, stability_index, wasserstein
from headrace.monitoring import moved
from headrace.readers.batches import batches
from headrace.spec import Feature, Monitor

each = pytest.mark.parametrize("seed", range(5))


def shares(seed: int, places: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """Two distributions, some places of which are empty in one of them."""
    random = np.random.default_rng(seed)
    p, q = random.dirichlet(np.ones(places), 2)
    p[0] = q[3] = 0
    return p / p.sum(), q / q.sum()


@each
def test_jensen_and_shannon(seed: int) -> None:
    p, q = shares(seed)
    assert np.sqrt(divergence(p, q)) == pytest.approx(distance.jensenshannon(p, q, base=2), rel=1e-12)


@each
def test_the_population_stability_index(seed: int) -> None:
    p, q = (x + 0.01 for x in shares(seed))
    p, q = p / p.sum(), q / q.sum()
    assert stability_index(p, q) == pytest.approx(stats.entropy(p, q) + stats.entropy(q, p), rel=1e-12)


def test_the_population_stability_index_is_finite_where_a_place_is_empty() -> None:
    p, q = np.array([0.5, 0.5, 0.0]), np.array([0.5, 0.25, 0.25])
    expected = -0.25 * np.log(0.5) + (0.25 - LEAST) * np.log(0.25 / LEAST)
    assert stability_index(p, q) == pytest.approx(expected, rel=1e-12)


@each
def test_l_infinity(seed: int) -> None:
    p, q = shares(seed)
    assert largest_share(p, q) == pytest.approx(distance.chebyshev(p, q), rel=1e-12)


@each
def test_kolmogorov_and_smirnov(seed: int) -> None:
    random = np.random.default_rng(seed)
    one, other = random.integers(0, 12, 300), random.binomial(11, 0.6, 200)
    p, q = (np.bincount(x, minlength=12) / len(x) for x in (one, other))
    assert kolmogorov_smirnov(p, q) == pytest.approx(stats.ks_2samp(one, other).statistic, rel=1e-12)


@each
def test_wasserstein(seed: int) -> None:
    p, q = shares(seed)
    places = np.sort(np.random.default_rng(seed).normal(size=len(p)))
    assert wasserstein(p, q, places) == pytest.approx(stats.wasserstein_distance(places, places, p, q), rel=1e-9)


def test_of_a_column_of_numbers_they_are_those_of_its_values() -> None:
    random = np.random.default_rng(0)
    then, now = random.normal(50, 10, 400).astype(np.float32), random.normal(53, 12, 300).astype(np.float32)
    old = summarise(batches({"x": then}), {"x": Feature()})
    new = summarise(batches({"x": now}), {"x": Feature()}, like=old)
    (column,) = moved(new, old, Monitor(), seed=0)
    told = column["distances"]
    assert told["jensen_shannon"] == column["distance"]
    # New values are counted between the known ones: a step of the sum is off by one known value at most.
    assert told["kolmogorov_smirnov"] == pytest.approx(stats.ks_2samp(then, now).statistic, abs=1 / 400 + 1 / 300)
    inside = now[(now >= then.min()) & (now <= then.max())]
    assert told["wasserstein"] == pytest.approx(stats.wasserstein_distance(then, inside), rel=0.1)


def test_of_categories_only_those_are_told_that_need_no_order() -> None:
    names = np.array([b"a", b"b", b"b", b"c"] * 30, object)
    feature = Feature(dtype="string", content="category")
    old = summarise(batches({"x": names}), {"x": feature})
    column, *_ = moved(summarise(batches({"x": names[:60]}), {"x": feature}, like=old), old, Monitor(), seed=0)
    assert column["distances"].keys() == {"jensen_shannon", "stability_index", "l_infinity"}
