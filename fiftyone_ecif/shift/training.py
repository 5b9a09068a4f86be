"""Training of an estimator on rows that are not scored by it, with early stopping."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fiftyone_ecif.core.workers import Progress, silent
from fiftyone_ecif.shift.club import Club
from fiftyone_ecif.shift.vectors import Vectors

LEARNING_RATE = 1e-3
BATCH = 256
EPOCHS = 200
PATIENCE = 10
"""Epochs without a better loss on the rows that the training does not see, after which it ends."""

VALIDATED = 0.2
"""Share of the rows that decide when to stop."""

LEAST_ROWS = 10

STEP = "Train the estimator"


@dataclass(frozen=True)
class EstimatorFit:
    """How the training of an estimator went. Losses are −2 log q per number of y, up to a constant.

    Attributes:
        rows: that it was trained on
        validation_rows: that decided when to stop
        epochs: up to the one that was kept
        training_loss: at that epoch
        validation_loss: likewise, on the other rows
        baseline: the loss on those rows of a Gaussian that does not know z, with the mean and variance of each number
    """

    rows: int
    validation_rows: int
    epochs: int
    training_loss: float
    validation_loss: float
    baseline: float

    @property
    def informed(self) -> bool:
        """Whether the estimator foresees unseen rows better than a Gaussian that does not know z."""
        return self.validation_loss < self.baseline


def train_club(
    z: Vectors,
    targets: Sequence[Vectors],
    bounded: bool = True,
    seed: int = 0,
    epochs: int = EPOCHS,
    progress: Progress = silent,
) -> tuple[Club, EstimatorFit]:
    """Train an estimator of y given z, for several y of the same rows at once.

    Args:
        z: N vectors
        targets: for each y N vectors, such as responses and references
        bounded: as in :class:`~fiftyone_ecif.shift.club.Club`
        seed: of the weights, of the rows that decide when to stop, and of the batches
        epochs: at most
        progress: called as the work goes on

    Returns:
        the estimator at the epoch with the lowest loss on unseen rows, and how it went

    Raises:
        ValueError: if there are too few rows
    """
    count = len(z)
    if count < LEAST_ROWS:
        raise ValueError(
            f"An estimator needs at least {LEAST_ROWS} rows to be trained on, and there are {count}: add samples, or "
            "pass a trained estimator."
        )
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(count, generator=generator)
    held_out, seen = order.split([max(2, round(VALIDATED * count)), count - max(2, round(VALIDATED * count))])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        club = Club(z.dim, targets[0].dim, bounded=bounded)
    optimizer = torch.optim.Adam(club.parameters(), LEARNING_RATE)
    validation = _rows(z, targets, held_out)
    best, kept, waited = (float("inf"), float("inf"), 0), copy.deepcopy(club.state_dict()), 0
    for epoch in range(1, epochs + 1):
        progress(STEP, epoch - 1, epochs)
        training = _epoch(club, optimizer, z, targets, seen[torch.randperm(len(seen), generator=generator)])
        with torch.no_grad():
            loss = float(club.surprise(*validation).mean()) / club.outputs
        waited += 1
        if loss < best[0]:
            best, kept, waited = (loss, training, epoch), copy.deepcopy(club.state_dict()), 0
        if waited >= PATIENCE:
            break
    progress(STEP, epochs, epochs)
    club.load_state_dict(kept)
    baseline = _baseline(_rows(z, targets, seen)[1], validation[1], bounded)
    fit = EstimatorFit(len(seen), len(held_out), best[2], best[1], best[0], baseline)
    return club.requires_grad_(False), fit


def _rows(z: Vectors, targets: Sequence[Vectors], index: Tensor) -> tuple[Tensor, Tensor]:
    """z and y of some rows, once for each kind of y."""
    return z.gather(index).float().repeat(len(targets), 1), torch.cat([y.gather(index).float() for y in targets])


def _epoch(
    club: Club, optimizer: torch.optim.Optimizer, z: Vectors, targets: Sequence[Vectors], order: Tensor
) -> float:
    """One pass over the rows; returns the mean loss per number."""
    losses = []
    for index in order.split(BATCH):
        loss = club.surprise(*_rows(z, targets, index)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item() * len(index))
    return sum(losses) / len(order) / club.outputs


def _baseline(seen: Tensor, unseen: Tensor, bounded: bool) -> float:
    """The loss on unseen rows of the Gaussian with the seen rows' mean and variance."""
    variance = seen.var(0, unbiased=False).clamp_min(1e-12)
    if bounded:
        variance = variance.clamp(torch.e**-1, torch.e)
    return float(((unseen - seen.mean(0)).square() / variance + variance.log()).mean())
