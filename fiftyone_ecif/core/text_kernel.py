"""When two texts say the same, and how a ratio of probabilities becomes a surprise (docs/detection.md)."""

from __future__ import annotations

import torch
from torch import Tensor

SAME_MEANING = 3.0
"""By how much sharper than the logits the likeness of two texts is taken: synonyms count as one, classes do not."""

LEAST_PROBABILITY = 1e-4
"""Added to a ratio of probabilities before its logarithm is taken."""


def likeness(text: Tensor, others: Tensor, logit_scale: Tensor | float) -> Tensor:
    """K(y, y') = exp(3τ (v·v' − 1)): how far texts say the same.

    Args:
        text: (N, D) unit vectors
        others: (C, D) unit vectors
        logit_scale: τ

    Returns:
        (N, C), 0 to 1
    """
    return torch.exp(SAME_MEANING * logit_scale * (text @ others.T - 1.0))


def surprise_at(ratio: Tensor) -> Tensor:
    """−log of how much likelier something is than on the whole, in nats; finite where it is thought impossible."""
    return -torch.log(ratio + LEAST_PROBABILITY)
