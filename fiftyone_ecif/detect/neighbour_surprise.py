"""How well the text of a pair agrees with the texts of the nearest images, or its image with those of like texts."""

from __future__ import annotations

import torch
from torch import Tensor

DENSITY_SAMPLE = 4096
"""Texts that the density of all texts is estimated from, or images likewise."""

BACKGROUND = 0.05
"""Share of the overall density of a text that is added to its density near an image."""

LEAST_DENSITY = 1e-30
"""Added to both densities, so that a text that resembles no other gets no evidence from the neighbours."""

CHUNK = 1024
"""Pairs whose neighbours are looked at together."""


def neighbour_surprise(near: Tensor, values: Tensor, partner: Tensor, logit_scale: float, density: Tensor) -> Tensor:
    """How much rarer a text like that of the pair is near its image than elsewhere, or an image near its text.

    −log [mean over the k neighbours j of K(y, y_j) / mean over all j of K(y, y_j)], K(y, y') = exp(τ (v·v' − 1)): the
    ratio of two kernel estimates of the density of a text, with a small share of the second added to the first. Neither
    the pair of the image nor the pair of the text counts as a neighbour. With images and texts exchanged it is the
    ratio of the densities of the image.

    Args:
        near: int64 (N, k), for each image the nearest others, or for each asked text those of the nearest other texts
        values: (N, D) unit vectors of what the neighbours are compared by: texts, or images
        partner: int64 (N,), the pair whose value is compared with those of the neighbours
        logit_scale: τ
        density: (N,), of each value among all, see :func:`kernel_density`

    Returns:
        (N,), nats, higher = more suspicious, about 0 where the neighbours are no evidence
    """
    result = torch.empty(len(near))
    for rows in torch.split(torch.arange(len(near)), CHUNK):
        asked, index = values[partner[rows]], near[rows]
        likeness = torch.exp(logit_scale * (torch.einsum("nd,nkd->nk", asked, values[index]) - 1.0))
        foreign = index != partner[rows, None]
        here = (likeness * foreign).sum(1) / foreign.sum(1).clamp_min(1)
        result[rows] = -torch.log((here + LEAST_DENSITY) / (density[partner[rows]] + LEAST_DENSITY) + BACKGROUND)
    return result


def kernel_density(values: Tensor, logit_scale: float, seed: int = 0) -> Tensor:
    """How common texts, or images, like each one are: the mean of K(y, y_j) over others; :func:`neighbour_surprise`.

    Args:
        values: (N, D) unit vectors
        logit_scale: τ
        seed: of the sample of up to :data:`DENSITY_SAMPLE` others

    Returns:
        (N,), 0 to 1
    """
    sample = torch.randperm(len(values), generator=torch.Generator().manual_seed(seed))[:DENSITY_SAMPLE]
    result = torch.empty(len(values))
    for rows in torch.split(torch.arange(len(values)), CHUNK):
        own = sample == rows[:, None]
        likeness = (values[rows] @ values[sample].T).sub_(1.0).mul_(logit_scale).exp_().masked_fill_(own, 0.0)
        result[rows] = likeness.sum(1) / (len(sample) - own.sum(1)).clamp_min(1)
    return result
