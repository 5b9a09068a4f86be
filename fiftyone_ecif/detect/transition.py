"""The noise transition matrix T of labels: T(c, y) is the share of class c that is labelled y."""

from __future__ import annotations

import torch
from torch import Tensor

from fiftyone_ecif.detect.neighbour_surprise import BACKGROUND

STARTING_RATE = 0.2
"""Share of wrong labels that an estimate of the noise starts from."""

LEAST_BELIEF = 1e-6
"""Added to the probability of each label, so that no label is impossible."""


def symmetric_transition(rate: float, classes: int) -> Tensor:
    """The transition matrix of symmetric noise: T(c, y) = ρ / (C − 1) for y ≠ c, and 1 − ρ for y = c.

    Args:
        rate: ρ, the share of wrong labels
        classes: C

    Returns:
        float64 (C, C)
    """
    same = torch.eye(classes, dtype=torch.float64)
    return (1.0 - rate) * same + rate * (1.0 - same) / max(classes - 1, 1)


def symmetric_rate(beliefs: Tensor, label: Tensor, trusted: Tensor, steps: int) -> float:
    """The rate ρ of symmetric noise under which the labels are most likely, by expectation maximisation.

    Args:
        beliefs: (N, C), p_n
        label: int64 (N,), y_n
        trusted: bool (N,), pairs known to be right
        steps: how many
    """
    rate = STARTING_RATE
    for _ in range(steps):
        transition = symmetric_transition(rate, beliefs.shape[1])
        right = posterior(beliefs, transition, label).gather(1, label[:, None]).squeeze(1)
        rate = float(torch.where(trusted, 0.0, 1.0 - right).mean())
    return rate


def expectation_maximisation(
    transition: Tensor,
    beliefs: Tensor,
    label: Tensor,
    trusted: Tensor,
    steps: int,
    background: float = BACKGROUND,
) -> Tensor:
    """The noise transition matrix after some steps of expectation maximisation (Dawid & Skene, 1979).

    q_n is the :func:`posterior`, and certain of y_n for trusted pairs; then T(c, y) ∝ Σ_{n: y_n = y} q_n(c). A small
    share of each class goes to all other labels alike, so that symmetric noise stays symmetric.

    Args:
        transition: float64 (C, C), T to start from
        beliefs: (N, C), p_n
        label: int64 (N,), y_n
        trusted: bool (N,), pairs known to be right
        steps: how many
        background: share of each class that goes to all other labels alike

    Returns:
        float64 (C, C), rows sum to 1
    """
    same, others = symmetric_transition(0.0, len(transition)), symmetric_transition(1.0, len(transition))
    for _ in range(steps):
        true = torch.where(trusted[:, None], same[label], posterior(beliefs, transition, label))
        counts = torch.zeros_like(transition).index_add_(1, label, true.T)
        counts += background * counts.sum(1, keepdim=True) * others + LEAST_BELIEF
        transition = counts / counts.sum(1, keepdim=True)
    return transition


def posterior(beliefs: Tensor, transition: Tensor, label: Tensor) -> Tensor:
    """q_n(c) = p_n(c) T(c, y_n) / Σ_c' p_n(c') T(c', y_n): the distribution of the true label, given the label y_n.

    Args:
        beliefs: (N, C), p_n
        transition: float64 (C, C), T
        label: int64 (N,), y_n

    Returns:
        float64 (N, C), rows sum to 1
    """
    return torch.nn.functional.normalize((beliefs.double() + LEAST_BELIEF) * transition[:, label].T, p=1.0)
