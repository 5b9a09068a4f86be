"""The misalignment probability: several kinds of evidence, calibrated against pairings that a model finds plausible."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from sklearn.isotonic import IsotonicRegression
from torch import Tensor

from fiftyone_ecif.detect.neighbours import neighbour_disagreement

NEIGHBOURS = 30
"""k of LEMoN's fixed setting (docs/detection.md)."""

LEAST_SHARE = 0.6
"""Share of the plausible pairings that must lie below a threshold for it to say something of the noise rate."""

_TIE_BREAK = 1e-3
"""Share of the probability that follows the rank alone, so that a calibrated plateau keeps its order."""


@dataclass(frozen=True)
class Misalignment:
    """What the evidence says.

    Attributes:
        probability: (N,), that the text does not belong to the image
        noise_rate: estimated share of misaligned pairs
        evidence: (N,) by name, what the score is made of, in standard deviations; higher = more suspicious
    """

    probability: np.ndarray
    noise_rate: float
    evidence: dict[str, np.ndarray]


def misalignment(
    image: Tensor,
    text: Tensor,
    losses: Tensor,
    plausible: Tensor,
    plausible_losses: Tensor,
    memorised: float,
    trusted: Tensor,
) -> Misalignment:
    """Probability that a pair's text does not belong to its image.

    The evidence is the pair's batch loss, under the given head and under a head fitted on believed pairs of the other
    half, and its disagreement with its neighbours in both modalities (LEMoN). Neighbours mislead where a model is sound
    and its noise systematic, and are what is left where it has memorised its noise: they weigh as much as it has.

    The same evidence is taken for pairings drawn from the held-out head's own beliefs. With c their density and g that
    of the pairs as they are, g = (1 − ρ) c + ρ·wrong, so that p(wrong | s) = 1 − (1 − ρ) c(s) / g(s), whatever kind of
    noise it is, and 1 − ρ is the largest share for which (1 − ρ) c fits under g (mixture proportion estimation:
    Blanchard et al., JMLR 2010).

    Args:
        image: (N, D) unit vectors by the given head
        text: (N, D) likewise
        losses: (2, N), nats: under the given head, and under one that was not fitted on the pair
        plausible: int64 (N,), whose text the latter head would give image n
        plausible_losses: (2, N), the losses of image n with that text
        memorised: 0 to 1, how much of a pair's loss is owed to the model's having seen that very image
        trusted: bool (N,), pairs known to be right: their probability is all but 0

    Returns:
        a :class:`Misalignment`; with no evidence to go on (all texts alike, say) the probability is ½
    """
    image, text = image.float().cpu(), text.float().cpu()
    k = min(NEIGHBOURS, len(image) - 2)
    own = torch.arange(len(image))

    def gather(pair_losses: Tensor, partner: Tensor) -> Tensor:
        return torch.stack([*pair_losses.float(), *neighbour_disagreement(image, text, partner, k)])

    observed, expected = gather(losses, own), gather(plausible_losses, plausible)
    mean, spread = observed.mean(1, keepdim=True), observed.std(1, keepdim=True)
    names = ("loss", "held_out_loss", "image_neighbours", "text_neighbours")
    weights = torch.tensor([0.5, 0.5, memorised, memorised], dtype=torch.float32) * (spread.squeeze(1) > 1e-6)
    observed, expected = ((part - mean) / spread.clamp_min(1e-6) for part in (observed, expected))
    evidence = dict(zip(names, observed.numpy(), strict=True))
    score = weights @ observed
    if score.std() < 1e-6:
        return Misalignment(np.full(len(image), 0.5), 0.5, evidence)
    score = torch.where(trusted, score.min() - 1.0, score)
    probability, noise_rate = _calibrate(score.double().numpy(), (weights @ expected).double().numpy())
    return Misalignment(probability, noise_rate, evidence)


def _calibrate(score: np.ndarray, plausible: np.ndarray) -> tuple[np.ndarray, float]:
    """p(wrong | s) = 1 − (1 − ρ) c(s) / g(s), never falling in s, and ρ."""
    noise_rate = _noise_rate(score, plausible)
    values = np.concatenate([plausible, score])
    is_observed = np.concatenate([np.zeros(len(plausible)), np.ones(len(score))])
    share = IsotonicRegression(y_min=0.0, y_max=1.0).fit(values, is_observed).predict(score)
    ratio = (1.0 - share) / np.maximum(share, 1e-9)  # c/g
    probability = np.clip(1.0 - (1.0 - noise_rate) * ratio, 0.0, 1.0)
    rank = score.argsort().argsort() / max(len(score) - 1, 1)
    return (1.0 - _TIE_BREAK) * probability + _TIE_BREAK * rank, noise_rate


def _noise_rate(score: np.ndarray, plausible: np.ndarray) -> float:
    """The smallest ρ with (1 − ρ)·(plausible pairings up to t) ≤ (pairs up to t), for all t that enough lie below."""
    thresholds = np.quantile(plausible, np.linspace(LEAST_SHARE, 1.0, 71))
    pairs_below = np.searchsorted(np.sort(score), thresholds, side="right") / len(score)
    plausible_below = np.searchsorted(np.sort(plausible), thresholds, side="right") / len(plausible)
    return float(np.clip(1.0 - (pairs_below / plausible_below).min(), 1.0 / len(score), 1.0))
