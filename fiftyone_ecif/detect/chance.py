"""How unlikely a group's values are to be a random draw: in nats, for any distribution of the values."""

from __future__ import annotations

import numpy as np
from scipy.special import rel_entr

TILTS = np.geomspace(0.05, 500.0, 120)
"""The exponents λ that a bound is sought over."""


def cumulants(values: np.ndarray) -> np.ndarray:
    """log mean exp(λ x) for each λ of :data:`TILTS`: all that :func:`excess` has to know of a population.

    Args:
        values: (N,), 0 to 1

    Returns:
        (120,)
    """
    largest = values.max()
    return np.array([tilt * largest + np.log(np.exp(tilt * (values - largest)).mean()) for tilt in TILTS])


def excess(count: np.ndarray, total: np.ndarray, population: np.ndarray) -> np.ndarray:
    """Evidence, in nats, that groups have larger values than random draws of so many would have.

    n · max_λ [λ m − log mean exp(λ x)], with m the mean of a group's n values and x all values: exp of −this bounds the
    probability that n values, drawn without replacement, have a mean of m or more (Chernoff's bound; that it holds
    without replacement is Theorem 4 of Hoeffding, JASA 1963).

    Args:
        count: n of each group, (M,)
        total: n · m, (M,)
        population: :func:`cumulants` of all values

    Returns:
        (M,), 0 where the mean is no larger than that of all
    """
    mean = total / np.maximum(count, 1.0)
    found = np.zeros(len(mean))
    for tilt, cumulant in zip(TILTS, population, strict=True):
        np.maximum(found, tilt * mean - cumulant, out=found)
    return count * found


def above_half(count: np.ndarray, total: np.ndarray) -> np.ndarray:
    """Evidence, in nats, that values between 0 and 1 have an expectation above ½: n · KL(m ‖ ½).

    Args:
        count: n of each group
        total: n · m, the sum of its values

    Returns:
        of the arguments' shape, 0 where m is no larger than ½; exp of −this bounds the probability of such a mean
        (Hoeffding, JASA 1963, Theorem 1)
    """
    mean = np.clip(total / np.maximum(count, 1.0), 0.0, 1.0)
    return np.where(mean > 0.5, count * (rel_entr(mean, 0.5) + rel_entr(1.0 - mean, 0.5)), 0.0)
