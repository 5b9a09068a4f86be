"""Published scores of how suspicious a pair is, from L2-normalised embeddings; higher is more suspicious."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.mixture import GaussianMixture
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


def structure_consistency(
    image: np.ndarray,
    text: np.ndarray,
    logit_scale: float,
    rounds: int = 5,
    batch_size: int = 256,
    seed: int = 0,
) -> np.ndarray:
    """−min(y_CM, y_IM): geometrical structure consistency (GSC; Zhao et al., CVPR 2024, arXiv 2405.16996), no training.

    y_CM = ½ (P_nn by image + P_nn by text), P the softmax of the logits of a batch. y_IM is the posterior of the higher
    of two Gaussians at cos(σ(u_n·u_j), σ(v_n·v_j)) over j in the batch, scaled to 0..1: whether the pair lies among the
    others by its text as it does by its image. The method's mean over epochs is one over random batches here.

    Args:
        image: (N, D) unit vectors
        text: (N, D) unit vectors
        logit_scale: τ, not its logarithm
        rounds: random partitions to average over
        batch_size: pairs per batch
        seed: of the partitions and the Gaussians' starts

    Returns:
        (N,), −1 to 0
    """
    u, v = torch.as_tensor(image), torch.as_tensor(text)
    across, within = torch.zeros(2, rounds, len(u), dtype=u.dtype)
    for number, batches in enumerate(partitions(len(u), min(batch_size, len(u)), rounds, seed)):
        for index in batches:
            logits = logit_scale * u[index] @ v[index].T
            across[number, index] = (logits.softmax(1) + logits.softmax(0)).diagonal() / 2
            by_image, by_text = ((rows[index] @ rows[index].T).sigmoid() for rows in (u, v))
            within[number, index] = torch.cosine_similarity(by_image, by_text, dim=1)
    agreement = within.double().mean(0)
    scaled = ((agreement - agreement.min()) / (agreement.max() - agreement.min()).clamp_min(1e-12)).numpy()[:, None]
    mixture = GaussianMixture(2, max_iter=10, tol=1e-2, reg_covar=5e-4, random_state=seed).fit(scaled)
    posterior = mixture.predict_proba(scaled)[:, mixture.means_.argmax()]
    return -np.minimum(across.double().mean(0).numpy(), posterior)
