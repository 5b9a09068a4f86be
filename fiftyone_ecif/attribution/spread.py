"""How far the scores of a repeat with another seed would lie from a run's, by the spread of what they are means of."""

from __future__ import annotations

import torch
from torch import Tensor

SHARED_DEGREES = 2.0
"""Degrees of freedom that the spread of all pairs together counts as beside a pair's own, which stands on few parts."""

ROUNDING = 2e-3
"""Standard error, over the size of all values together, that is left where all parts are the same: that of the anchor,
of the fit and of the solver, each of which stops short of the last digit."""


def standard_error(parts: Tensor) -> Tensor:
    """The standard error of each pair's mean over parts that differ in every random choice.

    The variance of few parts is itself uncertain, and one that is small by chance would claim too much: it is averaged
    with that of all pairs (Smyth 2004, doi 10.2202/1544-6115.1027, with fixed weights).

    Args:
        parts: (F, N), a value of each pair by part; NaN where a part has none of it

    Returns:
        (N,); NaN for pairs that fewer than two parts have
    """
    there = ~parts.isnan()
    count = there.sum(0)
    mean = parts.nanmean(0)
    squares = torch.where(there, parts - mean, 0.0).square().sum(0)
    degrees = (count - 1).clamp_min(0)
    shared = squares.sum() / degrees.sum()
    variance = (squares + SHARED_DEGREES * shared) / (degrees + SHARED_DEGREES)
    floor = ROUNDING * mean.square().nanmean().sqrt()
    return torch.where(count > 1, (variance / count + floor.square()).sqrt(), torch.nan)


def ranking_stability(parts: Tensor) -> float | None:
    """Share of the most harmful 5 % by one half of the parts that also are by the other, for (F, N).

    A repeat agrees better than halves do, since its means are over twice as many parts: this errs to the safe side.

    Returns:
        0 to 1; None where no pair is in both halves
    """
    halves = [part.nanmean(0) for part in parts.tensor_split(2) if len(part)]
    if len(halves) < 2:
        return None
    both = ~(halves[0].isnan() | halves[1].isnan())
    if not both.any():
        return None
    worst: int = max(1, int(both.sum()) // 20)
    first, second = (set(half[both].topk(worst, largest=False).indices.tolist()) for half in halves)
    return len(first & second) / worst
