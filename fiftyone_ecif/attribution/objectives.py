"""The losses of a run, the same for its scores and for the studies of its results."""

from __future__ import annotations

from dataclasses import replace

import torch

from fiftyone_ecif.attribution.settings import Settings
from fiftyone_ecif.core import HERE, LOSSES, Objective, Pairs, Scope, Workers, largest_eigenvalue, partitions

RELATIVE_ANCHOR = 0.1
"""Anchor over the largest curvature if none is given; it lets a fit come to rest (docs/fidelity.md)."""

LEAST_ANCHOR = 1e-3
"""Smallest anchor that is chosen. Where all images or all captions are alike, curvature is only rounding error; with
real pairs the anchor is some fifty times as large."""

EIGENVALUE_BATCHES = 8
"""Batches that the largest curvature is estimated from."""

FITTED, HELD_OUT, TARGET = range(3)
"""The purposes of a loss; each has partitions of its own."""


def mean_loss(pairs: Pairs, loss: str, settings: Settings, purpose: int, workers: Workers = HERE) -> Objective:
    """The mean batch loss of some pairs, without the proximal term.

    Args:
        pairs: the pairs
        loss: a key of :data:`~fiftyone_ecif.core.LOSSES`
        settings: batch size, rounds and seed are used
        purpose: ``FITTED``, ``HELD_OUT`` or ``TARGET``
        workers: where passes over the batches run

    Returns:
        an :class:`~fiftyone_ecif.core.Objective`; pairs that are fewer than a batch holds share one batch
    """
    batch_size = min(settings.batch_size, len(pairs))
    rounds = partitions(len(pairs), batch_size, settings.rounds, settings.seed + purpose)
    return Objective(pairs, rounds, LOSSES[loss], workers=workers)


def anchored(objective: Objective, scope: Scope, settings: Settings) -> Objective:
    """J: the mean batch loss with a proximal term that pulls towards θ0 (ECIF.md §1).

    Args:
        objective: the mean batch loss
        scope: at θ0
        settings: the anchor, which is the weight of that term, and the seed are used

    Returns:
        the objective with the given anchor, or else with a tenth of the largest curvature at θ0
    """
    theta = scope.vector()
    anchor = settings.anchor
    if anchor is None:
        sample = objective.sample(sum(map(len, objective.rounds[0][:EIGENVALUE_BATCHES])))
        start = torch.randn(1, len(theta), generator=torch.Generator().manual_seed(settings.seed)).to(theta)
        largest = largest_eigenvalue(lambda d: sample.gauss_newton_product(scope, d), start)
        anchor = max(LEAST_ANCHOR, RELATIVE_ANCHOR * largest)
    return replace(objective, anchor=anchor, origin=theta)
