"""How little a text tells its image from others."""

from __future__ import annotations

import torch
from torch import Tensor

SHARPNESS = 15.0
"""How fast texts cease to say the same with their distance; chosen on one half of Openclipart (docs/detection.md)."""

SAMPLE = 4096
"""Pairs that each text is held against, so that N texts cost N."""

CHUNK = 1024
"""Texts that are looked at together."""

LEAST_LENGTH = 1e-3
"""Distance from the mean embedding below which one differs from it by rounding only."""


def vagueness(image: Tensor, text: Tensor, seed: int = 0) -> Tensor:
    """The share of the other pairs whose texts say the same as a text although their images look otherwise.

    mean_j K_nj · Σ_ij w_i w_j ½‖x_i − x_j‖² / Σ_i≠j w_i w_j, with K_nj = exp(−15 · ½‖y_n − y_j‖²) and w_j = K_nj / Σ_i
    K_ni over the other pairs: how common the text is, times how unlike two images with such a text are. A text that is
    rare is not vague, and neither is one that many alike images have. x and y are the embeddings about their mean,
    scaled to length 1: the distances of two unrelated ones are then about 1 in any model, and no temperature enters.
    The image of the pair itself does not, so that equal texts are equally vague, be they right or wrong.

    Args:
        image: (N, D) unit vectors
        text: (N, D) unit vectors
        seed: of the sample of up to :data:`SAMPLE` pairs

    Returns:
        (N,), 0 to 1; 0 with fewer than three pairs
    """
    sample = torch.randperm(len(text), generator=torch.Generator().manual_seed(seed))[:SAMPLE]
    # In float32, the weights of the others would drown beside a text that is almost the same.
    x, y = _about_mean(image)[sample], _about_mean(text)
    result = torch.empty(len(text))
    for rows in torch.split(torch.arange(len(text)), CHUNK):
        own = sample == rows[:, None]
        likeness = (-SHARPNESS / 2 * torch.cdist(y[rows], y[sample]).square()).exp().masked_fill(own, 0.0)
        common = likeness.sum(1) / (len(sample) - own.sum(1)).clamp_min(1)
        weight = likeness / likeness.sum(1, keepdim=True).clamp_min(torch.finfo(likeness.dtype).tiny)
        spread = weight @ x.square().sum(1) - (weight @ x).square().sum(1)
        of_two = spread / (1.0 - weight.square().sum(1)).clamp_min(torch.finfo(weight.dtype).eps)
        result[rows] = (common * of_two.clamp(0.0, 1.0)).float()
    return result


def _about_mean(embeddings: Tensor) -> Tensor:
    """Embeddings about their mean, float64, scaled to length 1 unless they are equal to it."""
    moved = embeddings.double() - embeddings.double().mean(0)
    length: Tensor = moved.norm(dim=1, keepdim=True)
    return moved / length.clamp_min(LEAST_LENGTH)
