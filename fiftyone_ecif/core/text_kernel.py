"""The likeness of two texts, and the surprise that belongs to a ratio of probabilities (ECIF.md §6)."""

from __future__ import annotations

import torch
from torch import Tensor

SAME_MEANING = 3.0
"""How much sharper likeness is than the logits: sharp enough to keep classes apart, while synonyms count as one."""

LEAST_PROBABILITY = 1e-4
"""Added to a ratio of probabilities before taking its logarithm, which it bounds."""


def likeness(text: Tensor, others: Tensor, logit_scale: Tensor | float) -> Tensor:
    """K(y, y') = exp(3τ (v·v' − 1)): how alike two texts are  (ECIF.md §6).

    Args:
        text: (N, D) unit vectors
        others: (C, D) unit vectors
        logit_scale: τ

    Returns:
        (N, C), 0 to 1
    """
    return torch.exp(SAME_MEANING * logit_scale * (text @ others.T - 1.0))


def surprise_at(ratio: Tensor) -> Tensor:
    """−log of a ratio of probabilities, in nats; bounded where the ratio is 0."""
    return -torch.log(ratio + LEAST_PROBABILITY)
