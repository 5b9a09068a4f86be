"""Published scores of how suspicious a pair is, from L2-normalised embeddings; higher is more suspicious."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fiftyone_ecif.core import LOSSES, partitions
from fiftyone_ecif.detect.nearest_rows import nearest
from fiftyone_ecif.detect.neighbour_surprise import CHUNK

NEIGHBOUR_DECAY, PAIR_DECAY = 0.1, 5.0
"""LEMoN's τ1 and τ2."""


def clip_score(image: np.ndarray, text: np.ndarray) -> np.ndarray:
    """1 − cos(u_n, v_n): the CLIP score (Hessel et al., EMNLP 2021) with its sign changed.

    Args:
        image: (N, D) unit vectors
        text: (N, D) unit vectors

    Returns:
        (N,), 0 to 2
    """
    return 1.0 - (image * text).sum(1)


def batch_loss(
    image: np.ndarray,
    text: np.ndarray,
    logit_scale: float,
    rounds: int = 5,
    batch_size: int = 256,
    seed: int = 0,
) -> np.ndarray:
    """pos_n averaged over random batches: negCLIPLoss (Wang et al., arXiv 2405.19547) with its sign changed.

    Args:
        image: (N, D) unit vectors
        text: (N, D) unit vectors
        logit_scale: τ, not its logarithm
        rounds: random partitions to average over
        batch_size: pairs per batch
        seed: of the partitions

    Returns:
        (N,), nats
    """
    u, v = torch.as_tensor(image), torch.as_tensor(text)
    total = torch.zeros(len(u), dtype=u.dtype)
    for batches in partitions(len(u), min(batch_size, len(u)), rounds, seed):
        for index in batches:
            total[index] += LOSSES["clip"].roles(logit_scale * u[index] @ v[index].T).positive
    return (total / rounds).numpy()


def lemon(image: np.ndarray, text: np.ndarray, neighbours: int = 30, weight: float = 5.0) -> np.ndarray:
    """LEMoN with its fixed setting (Zhang et al., ICML 2025, arXiv 2407.18941): d_mm + β s_n + γ s_m.

    s_n = mean over the k nearest images j of d(y, y_j) e^{−τ1 d(x, x_j)} e^{−τ2 d(x_j, y_j)}; s_m likewise over the
    nearest texts, with the images' distance.

    Args:
        image: (N, D) unit vectors
        text: (N, D) unit vectors
        neighbours: k
        weight: β and γ

    Returns:
        (N,); the reference set is the pairs themselves, each without itself
    """
    u, v = torch.as_tensor(image), torch.as_tensor(text)
    agreement = torch.exp(-PAIR_DECAY * (1.0 - (u * v).sum(1)))
    k = min(neighbours, len(u) - 1)

    def disagreement(same: Tensor, other: Tensor) -> Tensor:
        near, result = nearest(same, k), torch.empty(len(same))
        for rows in torch.arange(len(same)).split(CHUNK):
            index = near[rows]
            distance = 1.0 - torch.einsum("nd,nkd->nk", other[rows], other[index])
            closeness = 1.0 - torch.einsum("nd,nkd->nk", same[rows], same[index])
            result[rows] = (distance * torch.exp(-NEIGHBOUR_DECAY * closeness) * agreement[index]).mean(1)
        return result

    return clip_score(image, text) + weight * (disagreement(u, v) + disagreement(v, u)).numpy()
