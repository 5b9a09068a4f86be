"""How well predicted changes agree with measured ones, with standard errors."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
from scipy.stats import DegenerateDataWarning, bootstrap, pearsonr, rankdata

RESAMPLES = 1_000
SEED = 0
"""Of the bootstrap's draws."""


def linear_correlation(predicted: np.ndarray, measured: np.ndarray, axis: int = -1) -> np.ndarray:
    """Pearson's correlation of predicted and measured changes (..., G); 0 where either side does not vary.

    Args:
        predicted: (..., G)
        measured: (..., G)
        axis: along which the G items lie

    Returns:
        (...)
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DegenerateDataWarning)
        return np.nan_to_num(pearsonr(predicted, measured, axis=axis).statistic)


def rank_correlation(predicted: np.ndarray, measured: np.ndarray, axis: int = -1) -> np.ndarray:
    """Spearman's rank correlation, ties by their mean rank, shapes as for :func:`linear_correlation`.

    Over removed groups it is the linear datamodelling score (LDS; Park et al. 2023).
    """
    return linear_correlation(rankdata(predicted, axis=axis), rankdata(measured, axis=axis), axis)


def slope(predicted: np.ndarray, measured: np.ndarray, axis: int = -1) -> np.ndarray:
    """Measured over predicted change: least squares through the origin; 1 where the prediction has the right size."""
    return (predicted * measured).sum(axis) / np.maximum((predicted**2).sum(axis), np.finfo(float).tiny)


def ratio_of_means(above: np.ndarray, below: np.ndarray, axis: int = -1) -> np.ndarray:
    """Mean over mean."""
    return above.mean(axis) / below.mean(axis)


def with_error(name: str, statistic: Callable[..., np.ndarray], *values: np.ndarray) -> dict[str, float]:
    """A statistic of values over the same G items, and its standard error by the bootstrap over items.

    Args:
        name: of the statistic
        statistic: of the values, along its argument ``axis``
        values: (G,) each

    Returns:
        the statistic under ``name`` and its standard error under ``name_se``
    """
    drawn = bootstrap(
        values, statistic, paired=True, vectorized=True, n_resamples=RESAMPLES, method="percentile",
        random_state=np.random.default_rng(SEED),
    )  # fmt: skip
    return {name: float(statistic(*values)), f"{name}_se": float(drawn.standard_error)}


def mean_with_error(name: str, values: np.ndarray) -> dict[str, float]:
    """The mean of values (G,) under ``name``, and its standard error under ``name_se``."""
    return {name: float(values.mean()), f"{name}_se": float(values.std(ddof=1) / len(values) ** 0.5)}
