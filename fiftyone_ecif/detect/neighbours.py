"""How well a pair agrees with its neighbours."""

from __future__ import annotations

import torch
from torch import Tensor

DENSITY_SAMPLE = 4096
"""Texts that the density of all texts is estimated from."""

BACKGROUND = 0.05
"""Share of a text's overall density that it has near any image."""

CHUNK = 1024
"""Rows whose similarities to all others are held together."""


def nearest(embeddings: Tensor, k: int, seed: int = 0) -> Tensor:
    """Indices of the k most similar other rows, itself left out by index; ties are broken at random.

    Duplicated captions make exact ties common, and the order of the rows must not choose among them.

    Args:
        embeddings: (N, D) unit vectors
        k: neighbours
        seed: of the tie-breaking

    Returns:
        int64 (N, k)
    """
    generator = torch.Generator().manual_seed(seed)
    found = []
    for rows in torch.arange(len(embeddings)).split(CHUNK):
        similarity = embeddings[rows] @ embeddings.T
        similarity += 1e-6 * torch.rand(similarity.shape, generator=generator)
        similarity[torch.arange(len(rows)), rows] = -torch.inf
        found.append(similarity.topk(k, dim=1).indices)
    return torch.cat(found)


def neighbour_disagreement(
    image: Tensor, text: Tensor, partner: Tensor, k: int, image_decay: float = 0.1, pair_decay: float = 5.0
) -> tuple[Tensor, Tensor]:
    """LEMoN's s_n and s_m for the pairs (image n, text of partner(n)) (arXiv 2407.18941; docs/detection.md).

    s_n = mean over the k nearest images j of d(y, y_j) e^{−τ1 d(x, x_j)} e^{−τ2 d(x_j, y_j)}; s_m likewise over the
    nearest texts. Neighbours that belong to either half of the pair are left out.

    Args:
        image: (N, D) unit vectors
        text: (N, D) unit vectors
        partner: int64 (N,), whose text each image is paired with; its own for the pairs as they are
        k: neighbours
        image_decay: τ1
        pair_decay: τ2

    Returns:
        s_n and s_m, (N,) each, higher = more suspicious
    """
    agreement = torch.exp(-pair_decay * (1.0 - (image * text).sum(1)))
    own = torch.arange(len(image))
    of_image, of_text = nearest(image, k), nearest(text, k)[partner]

    def weigh(near: Tensor, same: Tensor, same_query: Tensor, other: Tensor, other_query: Tensor) -> Tensor:
        result = torch.empty(len(near))
        for rows in own.split(CHUNK):
            index = near[rows]
            distance = 1.0 - torch.einsum("nd,nkd->nk", other_query[rows], other[index])
            closeness = 1.0 - torch.einsum("nd,nkd->nk", same_query[rows], same[index])
            weight = torch.exp(-image_decay * closeness) * agreement[index]
            foreign = (index != own[rows, None]) & (index != partner[rows, None])
            result[rows] = (distance * weight * foreign).sum(1) / foreign.sum(1).clamp_min(1)
        return result

    s_n = weigh(of_image, image, image, text, text[partner])
    s_m = weigh(of_text, text, text[partner], image, image)
    return s_n, s_m


def neighbour_surprise(image: Tensor, text: Tensor, partner: Tensor, logit_scale: float, k: int) -> Tensor:
    """How much rarer the like of a pair's text is near its image than elsewhere.

    −log [mean over the k nearest images j of K(y, y_j) / mean over all j of K(y, y_j)], K(y, y') = exp(τ (v·v' − 1)):
    the ratio of two kernel estimates of a text's density, with a little of the second added to the first. Neighbours
    that belong to either half of the pair are left out.

    Args:
        image: (N, D) unit vectors
        text: (N, D) unit vectors
        partner: int64 (N,), whose text each image is paired with; its own for the pairs as they are
        logit_scale: τ
        k: neighbours

    Returns:
        (N,), nats, higher = more suspicious, about 0 where the neighbours say nothing
    """
    near, own = nearest(image, k), torch.arange(len(image))
    sample = _sample(len(text))
    result = torch.empty(len(image))
    for rows in own.split(CHUNK):
        asked, index = text[partner[rows]], near[rows]
        likeness = torch.exp(logit_scale * (torch.einsum("nd,nkd->nk", asked, text[index]) - 1.0))
        foreign = (index != own[rows, None]) & (index != partner[rows, None])
        here = (likeness * foreign).sum(1) / foreign.sum(1).clamp_min(1)
        foreign = (sample != own[rows, None]) & (sample != partner[rows, None])
        likeness = torch.exp(logit_scale * (asked @ text[sample].T - 1.0))
        anywhere = (likeness * foreign).sum(1) / foreign.sum(1).clamp_min(1)
        result[rows] = -torch.log(here / anywhere + BACKGROUND)
    return result


def _sample(count: int, seed: int = 0) -> Tensor:
    """Row numbers that the density of all is estimated from."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed))[:DENSITY_SAMPLE]
