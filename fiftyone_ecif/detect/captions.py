"""The misalignment probability: kinds of evidence, calibrated against pairings that a model finds plausible."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from sklearn.isotonic import IsotonicRegression
from torch import Tensor

from fiftyone_ecif.detect.classifier_surprise import RepeatedTexts
from fiftyone_ecif.detect.nearest_rows import nearest
from fiftyone_ecif.detect.neighbour_surprise import BACKGROUND, neighbour_surprise, text_density

EVIDENCE = ("head", "neighbours", "classifier")
"""Kinds of evidence: a head that was not fitted on the pair, its nearest images, a classifier trained from nothing."""

NEIGHBOURS = 30
"""k of LEMoN's fixed setting (docs/detection.md)."""

HEAD_WEIGHT = 2.0
"""Weight of a held-out head's surprise against the neighbours', where the model has learnt nothing by heart."""

REPEATED_NEIGHBOUR_WEIGHT = 0.25
"""Weight of the neighbours where texts repeat and nothing was learnt by heart: noise with a system misleads them."""

CLASSIFIER_WEIGHT = 3.0
"""Weight of a classifier's surprise where the model has learnt everything by heart, its head included."""

LEAST_MEMORISED = 0.1
"""Below it the classifier's word would weigh little, and is not worth its time."""

LEAST_SHARE = 0.6
"""Share of the plausible pairings below which a score says nothing: such pairs are told apart by their order alone."""

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
    logit_scale: float,
    surprise: Tensor,
    plausible: Tensor,
    plausible_surprise: Tensor,
    memorised: float,
    trusted: Tensor,
) -> Misalignment:
    """Probability that a pair's text does not belong to its image.

    The evidence is the surprise of a head that was not fitted on the pair, and that of the pair's nearest images. The
    head counts twice the neighbours, since neighbours mislead where the noise is systematic, and eight times where
    texts repeat; but only as far as the towers have not learnt the pairs by heart, which no such head can mend: as far
    as they have, neighbours count fully, and a classifier that is trained from nothing where texts repeat.

    The same evidence is taken for pairings drawn from the head's own beliefs. With c their density and g that of the
    pairs as they are, g = (1 − ρ) c + ρ·wrong, so that p(wrong | s) = 1 − (1 − ρ) c(s) / g(s), whatever kind of noise
    it is, and 1 − ρ is the largest share for which (1 − ρ) c fits under g (mixture proportion estimation: Blanchard et
    al., JMLR 2010).

    Args:
        image: (N, D) unit vectors by the given head
        text: (N, D) likewise
        logit_scale: τ of the given head
        surprise: (N,), nats, of a head that was not fitted on the pair
        plausible: int64 (N,), whose text that head would give image n
        plausible_surprise: (N,), its surprise at image n with that text
        memorised: 0 to 1, how much of a pair's surprise is owed to the model's having seen that very image
        trusted: bool (N,), pairs known to be right: their probability is all but 0

    Returns:
        a :class:`Misalignment`; with no evidence to go on (all texts alike, say) the probability is ½
    """
    image, text = image.float().cpu(), text.float().cpu()
    near, density = nearest(image, min(NEIGHBOURS, len(image) - 2)), text_density(text, logit_scale)
    repeated = RepeatedTexts.find(text)
    learnt = repeated.expected(image) if repeated and memorised >= LEAST_MEMORISED else None

    def gather(of_head: Tensor, partner: Tensor) -> Tensor:
        by_neighbours = neighbour_surprise(near, text, partner, logit_scale, density)
        by_classifier = torch.zeros(len(image))
        if repeated and learnt is not None:
            by_classifier = repeated.surprise(learnt, text, partner, logit_scale)
        # Among free captions how unlikely a text is says no more than that it is unlikely, as with the neighbours.
        by_head = of_head.float() if repeated else -torch.log(torch.exp(-of_head.float()) + BACKGROUND)
        return torch.stack([by_head, by_neighbours, by_classifier])

    observed, expected = gather(surprise, torch.arange(len(image))), gather(plausible_surprise, plausible)
    mean, spread = observed.mean(1, keepdim=True), observed.std(1, keepdim=True)
    observed, expected = ((part - mean) / spread.clamp_min(1e-6) for part in (observed, expected))
    evidence = dict(zip(EVIDENCE, observed.numpy(), strict=True))
    neighbour_weight = min(1.0, REPEATED_NEIGHBOUR_WEIGHT + memorised) if repeated else 1.0
    weights = torch.tensor([HEAD_WEIGHT * (1.0 - memorised), neighbour_weight, CLASSIFIER_WEIGHT * memorised])
    weights = weights * (spread.squeeze(1) > 1e-6)
    score = weights @ observed
    if score.std() < 1e-6:
        return Misalignment(np.full(len(image), 0.5), 0.5, evidence)
    score = torch.where(trusted, score.min() - 1.0, score)
    probability, noise_rate = _calibrate(score.double().numpy(), (weights @ expected).double().numpy())
    return Misalignment(probability, noise_rate, evidence)


def _calibrate(score: np.ndarray, plausible: np.ndarray) -> tuple[np.ndarray, float]:
    """p(wrong | s) = 1 − (1 − ρ) c(s) / g(s), never falling in s, and ρ."""
    noise_rate = _noise_rate(score, plausible)
    # Of pairs that surprise nobody, c and g differ by trifles, which a monotone fit would take for evidence.
    least = np.quantile(plausible, LEAST_SHARE)
    values = np.maximum(np.concatenate([plausible, score]), least)
    is_observed = np.concatenate([np.zeros(len(plausible)), np.ones(len(score))])
    share = IsotonicRegression(y_min=0.0, y_max=1.0).fit(values, is_observed).predict(values[len(plausible) :])
    ratio = (1.0 - share) / np.maximum(share, 1e-9)  # c/g
    probability = np.clip(1.0 - (1.0 - noise_rate) * ratio, 0.0, 1.0)
    rank = score.argsort().argsort() / max(len(score) - 1, 1)
    return (1.0 - _TIE_BREAK) * probability + _TIE_BREAK * rank, noise_rate


def _noise_rate(score: np.ndarray, plausible: np.ndarray) -> float:
    """The smallest ρ with (1 − ρ)·(plausible pairings up to t) ≤ (pairs up to t), for all t that enough lie below."""
    thresholds = np.quantile(plausible, np.linspace(LEAST_SHARE, 1.0, 41))
    pairs_below = np.searchsorted(np.sort(score), thresholds, side="right") / len(score)
    plausible_below = np.searchsorted(np.sort(plausible), thresholds, side="right") / len(plausible)
    return float(np.clip(1.0 - (pairs_below / plausible_below).min(), 1.0 / len(score), 1.0))
