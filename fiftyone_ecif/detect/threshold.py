"""The threshold on a probability that reaches a wanted precision."""

from __future__ import annotations

import numpy as np

ROUNDING = 1e-9
"""By how much a mean may miss a precision that it reaches but for the order in which its sum was taken."""


def threshold_for(probability: np.ndarray, precision: float) -> float | None:
    """The smallest threshold at which the pairs at or above it are expected to be wrong often enough.

    Args:
        probability: (N,), of being misaligned
        precision: the least mean of the probabilities at or above the threshold, above 0 and up to 1

    Returns:
        one of the probabilities; None if not even the most suspicious pairs reach the precision

    Raises:
        ValueError: if the precision is not a share above 0 and up to 1
    """
    if not 0.0 < precision <= 1.0:
        raise ValueError(f"precision must be a share above 0 and up to 1, not {precision}.")
    values, counts = (part[::-1] for part in np.unique(probability, return_counts=True))
    expected = (values * counts).cumsum() / counts.cumsum()  # falls with the threshold
    reached = np.flatnonzero(expected >= precision - ROUNDING)
    return float(values[reached[-1]]) if len(reached) else None
