"""The losses of a run: the same wherever the run, or what is asked of its results, needs them."""

from __future__ import annotations

from dataclasses import replace

import torch

from fiftyone_ecif.attribution.settings import Settings
from fiftyone_ecif.core import HERE, LOSSES, Objective, Pairs, Scope, Workers, largest_eigenvalue, partitions

RELATIVE_ANCHOR = 0.1
"""Anchor over largest curvature when the caller sets none: firm enough for a fit to come to rest (docs/fidelity.md)."""

LEAST_ANCHOR = 1e-3
"""Where all images or all captions are alike nothing curves but by rounding; real pairs have fifty times as much."""

EIGENVALUE_BATCHES = 8
"""Batches from which the largest curvature is estimated."""

FITTED, HELD_OUT, TARGET = range(3)
"""What a loss is for; each has partitions of its own."""


def mean_loss(pairs: Pairs, loss: str, settings: Settings, purpose: int, workers: Workers = HERE) -> Objective:
    """The mean batch loss of some pairs, without an anchor.

    Args:
        pairs: the pairs
        loss: a key of :data:`~fiftyone_ecif.core.LOSSES`
        settings: batch size, rounds and seed are used
        purpose: ``FITTED``, ``HELD_OUT`` or ``TARGET``
        workers: where passes over the batches run

    Returns:
        an :class:`~fiftyone_ecif.core.Objective`; all pairs share one batch where there are fewer than fill it
    """
    batch_size = min(settings.batch_size, len(pairs))
    rounds = partitions(len(pairs), batch_size, settings.rounds, settings.seed + purpose)
    return Objective(pairs, rounds, LOSSES[loss], workers=workers)


def anchored(objective: Objective, scope: Scope, settings: Settings) -> Objective:
    """J: the mean batch loss pulled towards where the scope stands (ECIF.md §1).

    Args:
        objective: the mean batch loss
        scope: at θ0
        settings: the anchor and the seed are used

    Returns:
        the objective with the anchor that was asked for, else a tenth of the largest curvature at θ0
    """
    theta = scope.vector()
    anchor = settings.anchor
    if anchor is None:
        sample = objective.sample(sum(map(len, objective.rounds[0][:EIGENVALUE_BATCHES])))
        start = torch.randn(1, len(theta), generator=torch.Generator().manual_seed(settings.seed)).to(theta)
        largest = largest_eigenvalue(lambda d: sample.gauss_newton_product(scope, d), start)
        anchor = max(LEAST_ANCHOR, RELATIVE_ANCHOR * largest)
    return replace(objective, anchor=anchor, origin=theta)
