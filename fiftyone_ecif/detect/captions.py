"""The misalignment probability of captions: evidence, calibrated against pairings that a model finds plausible."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.isotonic import IsotonicRegression
from torch import Tensor

from fiftyone_ecif.detect.classifier_surprise import RepeatedTexts
from fiftyone_ecif.detect.nearest_rows import nearest
from fiftyone_ecif.detect.neighbour_surprise import BACKGROUND, kernel_density, neighbour_surprise
from fiftyone_ecif.detect.text_surprise import text_surprise

EVIDENCE = ("head", "neighbours", "classifier")
"""Kinds of evidence: what heads expect, what the nearest pairs say, a classifier trained from scratch."""

NEIGHBOURS = 30
"""Nearest images, or texts, that are looked at: k in the fixed setting of LEMoN (docs/detection.md)."""

HEAD_WEIGHT = 2.0
"""Weight of the surprise of the heads where the model has memorised nothing."""

NEIGHBOUR_WEIGHT = 1.5
"""Weight of the neighbours among free captions."""

TEXT_NEIGHBOUR_SHARE = 0.25
"""Weight of the nearest texts relative to the nearest images: a text exchanged for one like it misleads these."""

ALIKE = 0.99
"""Mean likeness to the others from which on a text says what they say: if all do, they tell no images apart."""

REPEATED_NEIGHBOUR_WEIGHT = 0.25
"""Weight of the neighbours where texts repeat and nothing was memorised: systematic noise misleads them."""

CLASSIFIER_WEIGHT = 3.0
"""Weight of the surprise of a classifier where the model, including its head, has memorised everything."""

LEAST_MEMORISED = 0.1
"""Share of memorisation below which the classifier would weigh too little to be worth its time."""

LEAST_SHARE = 0.6
"""Share of the plausible pairings below which a score is no evidence: the order of such pairs is all that differs."""

_TIE_BREAK = 1e-3
"""Share of the probability that follows the rank alone, so that pairs on a calibrated plateau keep their order."""


@dataclass(frozen=True)
class Misalignment:
    """How likely each pair is misaligned, and the evidence for it.

    Attributes:
        probability: (N,), that the text does not belong to the image
        noise_rate: estimated share of misaligned pairs
        evidence: (N,) by name, the parts of the score, in standard deviations; higher = more suspicious
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
    """Probability that the text of a pair does not belong to its image.

    The evidence is the surprise of a head that was not fitted on the pair, and that of the nearest images. Among free
    captions, what the text expects by the given head is added to the first, and what the nearest texts say to the
    second. Where texts repeat, the head has eight times the weight of the neighbours, since these mislead where the
    noise is systematic. This holds as far as the towers have not memorised the pairs, since a head on memorised
    features has in effect seen them: as far as they have, neighbours have their full weight, and where texts repeat so
    does a classifier that is trained from scratch.

    The same evidence is taken for pairings that are drawn from the beliefs of the head. Let c be the density of their
    scores and g that of the given pairs. Then g = (1 − ρ) c + ρ·wrong, so that p(wrong | s) = 1 − (1 − ρ) c(s) / g(s)
    for any kind of noise, and 1 − ρ is the largest share for which (1 − ρ) c stays below g (mixture proportion
    estimation: Blanchard et al., JMLR 2010).

    Args:
        image: (N, D) unit vectors by the given head
        text: (N, D) likewise
        logit_scale: τ of the given head
        surprise: (N,), nats, of a head that was not fitted on the pair
        plausible: int64 (N,), the pair whose text that head would give to image n
        plausible_surprise: (N,), the surprise of the head at image n with that text
        memorised: 0 to 1, how much of the surprise of a pair is due to the model having seen that very image
        trusted: bool (N,), pairs known to be right: their probability is almost 0

    Returns:
        a :class:`Misalignment`; without any evidence (all texts alike, say) the probability is ½
    """
    image, text = image.float().cpu(), text.float().cpu()
    repeated = RepeatedTexts.find(text)
    scored = (surprise, torch.arange(len(image))), (plausible_surprise, plausible)
    observed, expected = _gather(image, text, logit_scale, repeated, memorised >= LEAST_MEMORISED, scored)
    mean, spread = observed.mean(1, keepdim=True), observed.std(1, keepdim=True)
    observed, expected = ((part - mean) / spread.clamp_min(1e-6) for part in (observed, expected))
    evidence = dict(zip(EVIDENCE, observed.numpy(), strict=True))
    neighbour_weight = min(1.0, REPEATED_NEIGHBOUR_WEIGHT + memorised) if repeated else NEIGHBOUR_WEIGHT
    weights = torch.tensor([HEAD_WEIGHT * (1.0 - memorised), neighbour_weight, CLASSIFIER_WEIGHT * memorised])
    weights = weights * (spread.squeeze(1) > 1e-6)
    score = weights @ observed
    if score.std() < 1e-6:
        return Misalignment(np.full(len(image), 0.5), 0.5, evidence)
    score = torch.where(trusted, score.min() - 1.0, score)
    probability, noise_rate = _calibrate(score.double().numpy(), (weights @ expected).double().numpy())
    return Misalignment(probability, noise_rate, evidence)


def _gather(
    image: Tensor,
    text: Tensor,
    logit_scale: float,
    repeated: RepeatedTexts | None,
    with_classifier: bool,
    scored: Sequence[tuple[Tensor, Tensor]],
) -> list[Tensor]:
    """The evidence of some pairings, (3, N) each, given the surprise of the head (N,) and the partners of each."""
    count, own = min(NEIGHBOURS, len(image) - 2), torch.arange(len(image))
    near, texts_density = nearest(image, count), kernel_density(text, logit_scale)
    ask_texts = repeated is None and texts_density.min() < ALIKE
    if ask_texts:
        near_texts, images_density = nearest(text, count), kernel_density(image, logit_scale)
    expected_texts = repeated.expected(image) if repeated and with_classifier else None
    found = []
    for by_head, partner in scored:
        heads = by_head.float()
        neighbours = neighbour_surprise(near, text, partner, logit_scale, texts_density)
        by_classifier = torch.zeros(len(image))
        if repeated is None:
            heads = _capped(heads)
        if ask_texts:
            heads = heads + _capped(text_surprise(image, text, partner, logit_scale))
            of_texts = neighbour_surprise(near_texts[partner], image, own, logit_scale, images_density)
            neighbours = neighbours + TEXT_NEIGHBOUR_SHARE * of_texts
        if repeated is not None and expected_texts is not None:
            by_classifier = repeated.surprise(expected_texts, text, partner, logit_scale)
        found.append(torch.stack([heads, neighbours, by_classifier]))
    return found


def _capped(surprise: Tensor) -> Tensor:
    """Among free captions it does not matter how unlikely a text is beyond some point, as with the neighbours."""
    return -torch.log(torch.exp(-surprise) + BACKGROUND)


def _calibrate(score: np.ndarray, plausible: np.ndarray) -> tuple[np.ndarray, float]:
    """p(wrong | s) = 1 − (1 − ρ) c(s) / g(s), which does not fall with s, and ρ."""
    noise_rate = _noise_rate(score, plausible)
    # Where pairs are not surprising, c and g differ by chance only, which a monotone fit would take for evidence.
    least = np.quantile(plausible, LEAST_SHARE)
    values = np.maximum(np.concatenate([plausible, score]), least)
    is_observed = np.concatenate([np.zeros(len(plausible)), np.ones(len(score))])
    share = IsotonicRegression(y_min=0.0, y_max=1.0).fit(values, is_observed).predict(values[len(plausible) :])
    ratio = (1.0 - share) / np.maximum(share, 1e-9)  # c/g
    probability = np.clip(1.0 - (1.0 - noise_rate) * ratio, 0.0, 1.0)
    rank = score.argsort().argsort() / max(len(score) - 1, 1)
    return (1.0 - _TIE_BREAK) * probability + _TIE_BREAK * rank, noise_rate


def _noise_rate(score: np.ndarray, plausible: np.ndarray) -> float:
    """The smallest ρ with (1 − ρ)·(plausible pairings up to t) ≤ (pairs up to t), for all t with enough below them."""
    thresholds = np.quantile(plausible, np.linspace(LEAST_SHARE, 1.0, 41))
    pairs_below = np.searchsorted(np.sort(score), thresholds, side="right") / len(score)
    plausible_below = np.searchsorted(np.sort(plausible), thresholds, side="right") / len(plausible)
    return float(np.clip(1.0 - (pairs_below / plausible_below).min(), 1.0 / len(score), 1.0))
