"""Bounds on chance findings, against random draws and the exact binomial distribution."""

import numpy as np
import pytest
from scipy.stats import binom

from fiftyone_ecif.detect.chance import above_half, cumulants, excess


@pytest.mark.parametrize("shape", [(0.2, 2.0), (1.0, 1.0), (0.1, 0.1)])
def test_random_groups_exceed_the_bound_no_more_often_than_it_says(shape):
    generator = np.random.default_rng(0)
    values = generator.beta(*shape, size=400)
    population = cumulants(values)
    for size in (5, 20, 80):
        totals = np.array([generator.choice(values, size, replace=False).sum() for _ in range(2_000)])
        nats = excess(np.full(len(totals), float(size)), totals, population)
        for level in (0.3, 0.1, 0.03):
            assert (nats >= -np.log(level)).mean() <= level


def test_a_group_of_the_largest_values_has_much_evidence_and_one_of_the_smallest_has_none():
    values = np.r_[np.full(95, 0.01), np.full(5, 0.99)]
    largest, smallest = excess(np.array([5.0, 5.0]), np.array([4.95, 0.05]), cumulants(values))
    assert largest > 5 * np.log(1 / 0.05) * 0.95 and smallest == 0
    assert excess(np.array([0.0]), np.array([0.0]), cumulants(values)) == 0


def test_evidence_grows_with_the_group_at_the_same_mean():
    population = cumulants(np.random.default_rng(1).beta(0.3, 1.5, size=1_000))
    count = np.array([5.0, 10.0, 40.0])
    assert excess(count, 0.6 * count, population) == pytest.approx(
        count / 5 * excess(count, 0.6 * count, population)[0]
    )


def test_above_half_bounds_the_binomial_tail():
    for count in (5, 20, 60):
        hits = np.arange(count + 1)
        tail = binom.sf(hits - 1, count, 0.5)
        nats = above_half(np.full(count + 1, count), hits)
        assert (np.exp(-nats) >= tail - 1e-12).all()
        assert (nats[hits <= count / 2] == 0).all() and nats[-1] == pytest.approx(count * np.log(2))
