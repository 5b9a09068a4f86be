"""How well predicted changes agree with measured ones, with standard errors."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.stats import rankdata

RESAMPLES = 1_000

Statistic = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Of predicted and measured changes (..., G), along the last axis: (...)."""


def linear_correlation(predicted: np.ndarray, measured: np.ndarray) -> np.ndarray:
    """Pearson's correlation; 0 where either side does not vary."""
    first, second = (values - values.mean(-1, keepdims=True) for values in (predicted, measured))
    norm = np.sqrt((first**2).sum(-1) * (second**2).sum(-1))
    return (first * second).sum(-1) / np.maximum(norm, np.finfo(float).tiny)


def rank_correlation(predicted: np.ndarray, measured: np.ndarray) -> np.ndarray:
    """Spearman's rank correlation: over removed groups, the linear datamodelling score (LDS; Park et al. 2023)."""
    return linear_correlation(rankdata(predicted, axis=-1), rankdata(measured, axis=-1))


def slope(predicted: np.ndarray, measured: np.ndarray) -> np.ndarray:
    """Measured over predicted change: least squares through the origin; 1 where the prediction has the right size."""
    return (predicted * measured).sum(-1) / np.maximum((predicted**2).sum(-1), np.finfo(float).tiny)


def with_error(name: str, statistic: Callable[..., np.ndarray], *values: np.ndarray) -> dict[str, float]:
    """A statistic of values over the same G items, and its standard error by the bootstrap over items.

    Args:
        name: of the statistic
        statistic: of the values, along the last axis
        values: (G,) each

    Returns:
        the statistic under ``name`` and its standard error under ``name_se``
    """
    count = len(values[0])
    drawn = np.random.default_rng(0).integers(count, size=(RESAMPLES, count))
    spread = statistic(*(value[drawn] for value in values)).std(ddof=1)
    return {name: float(statistic(*values)), f"{name}_se": float(spread)}


def mean_with_error(name: str, values: np.ndarray) -> dict[str, float]:
    """The mean of values (G,) under ``name``, and its standard error under ``name_se``."""
    return {name: float(values.mean()), f"{name}_se": float(values.std(ddof=1) / len(values) ** 0.5)}
