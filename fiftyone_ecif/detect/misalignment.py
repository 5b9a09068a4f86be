"""The misalignment probability: several kinds of evidence, calibrated against swaps made on purpose."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from sklearn.isotonic import IsotonicRegression
from torch import Tensor

from fiftyone_ecif.detect.neighbours import neighbour_disagreement

NEIGHBOURS = 30
"""k of LEMoN's fixed setting (docs/detection.md)."""

_TIE_BREAK = 1e-3
"""Share of the probability that follows the rank alone, so that a calibrated plateau keeps its order."""


@dataclass(frozen=True)
class Misalignment:
    """What the evidence says.

    Attributes:
        probability: (N,), that the text does not belong to the image
        noise_rate: estimated share of misaligned pairs
    """

    probability: np.ndarray
    noise_rate: float


def misalignment(
    image: Tensor, text: Tensor, held_out_loss: Tensor, swap_loss: Tensor, swap_partner: Tensor
) -> Misalignment:
    """Probability that a pair's text does not belong to its image.

    Evidence, each standardised over the pairs and added: the pair's batch loss under a head that was not fitted on it,
    and its disagreement with its neighbours in both modalities. The same is taken for pairs swapped on purpose, whose
    texts are wrong by construction: with f their density and g that of the pairs as they are, g = (1 − ρ)·clean +
    ρ·f, so that p(wrong | s) = ρ f(s) / g(s), and ρ is the largest share for which ρ f fits under g (mixture proportion
    estimation: Blanchard et al., JMLR 2010).

    Args:
        image: (N, D) unit vectors of the given model
        text: (N, D) likewise
        held_out_loss: (N,), nats
        swap_loss: (N,), nats: the same for image n with the text of ``swap_partner[n]``
        swap_partner: int64 (N,)

    Returns:
        a :class:`Misalignment`; with no evidence to go on (all texts alike, say) the probability is the noise rate
    """
    image, text = image.float().cpu(), text.float().cpu()
    k = min(NEIGHBOURS, len(image) - 2)
    own = torch.arange(len(image))
    observed = [held_out_loss, *neighbour_disagreement(image, text, own, k)]
    swapped = [swap_loss, *neighbour_disagreement(image, text, swap_partner, k)]
    score, swap_score = torch.zeros(len(image)), torch.zeros(len(image))
    for evidence, swap_evidence in zip(observed, swapped, strict=True):
        spread = evidence.std()
        if spread > 1e-6:
            score += (evidence - evidence.mean()) / spread
            swap_score += (swap_evidence - evidence.mean()) / spread
    # A swap that lands on the same text is no swap.
    differs = (text * text[swap_partner]).sum(1) < 1.0 - 1e-5
    if differs.sum() < 2 or score.std() < 1e-6:
        return Misalignment(np.full(len(image), 0.5), 0.5)
    return _calibrate(score.double().numpy(), swap_score[differs].double().numpy())


def _calibrate(score: np.ndarray, swap_score: np.ndarray) -> Misalignment:
    """p(wrong | s) = ρ f(s) / g(s), never falling in s."""
    noise_rate = _noise_rate(score, swap_score)
    values = np.concatenate([score, swap_score])
    is_swap = np.concatenate([np.zeros(len(score)), np.ones(len(swap_score))])
    weights = np.where(is_swap == 1, 1.0 / len(swap_score), 1.0 / len(score))
    share = IsotonicRegression(y_min=0.0, y_max=1.0).fit(values, is_swap, sample_weight=weights).predict(score)
    ratio = share / np.maximum(1.0 - share, 1e-9)  # f/g
    probability = np.clip(noise_rate * ratio, 0.0, 1.0)
    rank = score.argsort().argsort() / max(len(score) - 1, 1)
    return Misalignment((1.0 - _TIE_BREAK) * probability + _TIE_BREAK * rank, noise_rate)


def _noise_rate(score: np.ndarray, swap_score: np.ndarray) -> float:
    """The largest ρ with ρ·(swaps above t) ≤ (pairs above t), for all t that leave a fifth of the swaps above."""
    thresholds = np.quantile(swap_score, np.linspace(0.0, 0.8, 81))
    above = 1.0 - np.searchsorted(np.sort(score), thresholds) / len(score)
    swaps_above = 1.0 - np.searchsorted(np.sort(swap_score), thresholds) / len(swap_score)
    return float(np.clip((above / swaps_above).min(), 1.0 / len(score), 1.0))
