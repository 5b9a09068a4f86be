"""How little the text of a pair expects its image: the other direction of the surprise of a head (ECIF.md §6)."""

from __future__ import annotations

import torch
from torch import Tensor

from fiftyone_ecif.core.text_kernel import likeness, surprise_at

SAMPLE = 4096
"""Images that each text chooses among, so that N pairs cost N."""

CHUNK = 1024
"""Pairs that are looked at together."""


def text_surprise(
    image: Tensor, text: Tensor, rows: Tensor, partner: Tensor, logit_scale: float, seed: int = 0
) -> Tensor:
    """How much less a text expects an image than images in general; images that look the same count as one.

    −log [Σ_j Q_jm K_nj / mean_j K_nj] for image n and text m, where Q_m is the softmax of τ u_j·v_m over image n and a
    sample of the others, and K_nj = exp(3τ (u_n·u_j − 1)) the likeness of image j to image n. Where the text is that of
    another pair, the image of that pair is left out.

    Args:
        image: (N, D) unit vectors
        text: (N, D) unit vectors
        rows: int64 (M,), n, the pairs whose images are scored
        partner: int64 (M,), m, the pair whose text each image is scored with; n itself for the pairs as they are
        logit_scale: τ
        seed: of the sample of up to :data:`SAMPLE` images

    Returns:
        (M,), nats, higher = more suspicious, about 0 where the head knows nothing
    """
    sample = torch.randperm(len(image), generator=torch.Generator().manual_seed(seed))[:SAMPLE]
    found = []
    for own_pair, other in zip(torch.split(rows, CHUNK), torch.split(partner, CHUNK), strict=True):
        asked, shown = text[other], image[own_pair]
        # Image n stands in the last column whether or not it was drawn.
        left_out = (sample == own_pair[:, None]) | (sample == other[:, None])
        logits = (logit_scale * (asked @ image[sample].T)).masked_fill_(left_out, -torch.inf)
        own = logit_scale * (asked * shown).sum(1, keepdim=True)
        same = likeness(shown, image[sample], logit_scale).masked_fill_(left_out, 0.0)
        same = torch.cat([same, torch.ones(len(own_pair), 1)], 1)
        expected = same.sum(1) / (~left_out).sum(1).add(1)
        found.append(surprise_at((torch.cat([logits, own], 1).softmax(1) * same).sum(1) / expected))
    return torch.cat(found)
