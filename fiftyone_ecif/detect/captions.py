"""The misalignment probability of captions: evidence, weighed and calibrated against pairings whose nature is known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from fiftyone_ecif.detect.evidence import EVIDENCE, Evidence
from fiftyone_ecif.detect.mixture import calibrate, more_suspicious
from fiftyone_ecif.detect.pairings import CONFIDENCES, Pairings, References

HEAD_WEIGHT = 2.0
"""Weight of the surprise of the heads where the model has memorised nothing."""

USUAL_NEIGHBOUR_WEIGHT = 0.75
"""Weight of the neighbours among free captions, relative to the heads, where the head knows the very pairs."""

LEAST_MISSED = 0.01
"""Share of the pairs that neighbours find beyond twice what the head finds, from which on it is no chance."""

NEIGHBOUR_TRUST = 0.7
"""Factor of the weight of the neighbours that is found: wrong texts that were drawn at random mislead them less than
real ones, which were often exchanged for a reason that neighbours share."""

MOST_NEIGHBOUR_WEIGHT = 1.5
"""The largest weight of the neighbours that is found."""

REPEATED_NEIGHBOUR_WEIGHT = 0.25
"""Weight of the neighbours where texts repeat and nothing was memorised: systematic noise misleads them."""

CLASSIFIER_WEIGHT = 3.0
"""Weight of the surprise of a classifier where the model, including its head, has memorised everything."""

LEAST_MEMORISED = 0.1
"""Share of memorisation below which the classifier would weigh too little to be worth its time."""

ALMOST_NONE = 1e-3
"""Factor of the probability of pairs that are known to be right."""

LEAST_SPREAD = 1e-6
"""Standard deviation below which evidence differs by rounding only."""


@dataclass(frozen=True)
class Misalignment:
    """How likely each pair is misaligned, and the evidence for it.

    Attributes:
        probability: (N,), that the text does not belong to the image
        noise_rate: estimated share of misaligned pairs
        noise_interval: its central 90 % interval
        evidence: (N,) by name, the parts of the score, in standard deviations; higher = more suspicious
        head_knows: whether the given head seems to have been trained on these very pairs, wrong ones included: then
            there may be more wrong ones than anybody can tell
    """

    probability: np.ndarray
    noise_rate: float
    noise_interval: tuple[float, float]
    evidence: dict[str, np.ndarray]
    head_knows: bool = False


def misalignment(
    image: Tensor,
    text: Tensor,
    logit_scale: float,
    given: Pairings,
    references: References,
    memorised: float,
    trusted: Tensor,
    seed: int = 0,
) -> Misalignment:
    """Probability that the text of a pair does not belong to its image.

    The evidence is the surprise of a head that was not fitted on the pair, and that of the nearest images. Among free
    captions, what the text expects by the given head is added to the first, and what the nearest texts say to the
    second, and :func:`neighbour_weight` weighs the two. Where texts repeat, the head has eight times the weight of the
    neighbours, since these mislead where the noise is systematic. This holds as far as the towers have not memorised
    the pairs, since a head on memorised features has in effect seen them: as far as they have, neighbours have their
    full weight, and where texts repeat so does a classifier that is trained from scratch.

    The same evidence is taken for pairings whose nature is known, and :func:`~fiftyone_ecif.detect.mixture.calibrate`
    holds the pairs against these.

    Args:
        image: (N, D) unit vectors by the given head
        text: (N, D) likewise
        logit_scale: τ of the given head
        given: the pairs as they are, by heads that were not fitted on them
        references: right and wrong pairings, likewise
        memorised: 0 to 1, how much of the surprise of a pair is due to the model having seen that very image
        trusted: bool (N,), pairs known to be right: their probability is almost 0
        seed: of the interval

    Returns:
        a :class:`Misalignment`; without any evidence (all texts alike, say) the probability is ½
    """
    asked = Evidence(image.float().cpu(), text.float().cpu(), logit_scale, memorised >= LEAST_MEMORISED)
    observed = asked.against(given)
    mean, spread = observed.mean(1, keepdim=True), observed.std(1, keepdim=True)

    def standardised(found: Tensor) -> Tensor:
        return (found - mean) / spread.clamp_min(LEAST_SPREAD)

    observed = standardised(observed)
    right, random, near = (
        [standardised(asked.against(each)) for each in part]
        for part in (references.right, [references.random], references.near)
    )
    weights, head_knows = _weights(observed, random[0], near[:-1], asked.repeated is not None, memorised)
    weights = weights * (spread.squeeze(1) > LEAST_SPREAD)
    score = weights @ observed
    evidence = dict(zip(EVIDENCE, observed.numpy(), strict=True))
    if score.std() < LEAST_SPREAD:
        return Misalignment(np.full(len(image), 0.5), 0.5, (0.0, 1.0), evidence)
    score = torch.where(trusted, score.min() - 1.0, score)
    scores = [[(weights @ each).double().numpy() for each in part] for part in (right, [*random, *near])]
    found = calibrate(score.double().numpy(), scores[0], CONFIDENCES, scores[1], seed)
    low, high = found.noise_interval
    probability = np.where(trusted.numpy(), ALMOST_NONE * found.probability, found.probability)
    return Misalignment(probability, found.noise_rate, (low, 1.0 if head_knows else high), evidence, head_knows)


def _weights(
    observed: Tensor, random: Tensor, near: list[Tensor], repeated: bool, memorised: float
) -> tuple[Tensor, bool]:
    """Weights of the evidence, (3,), and whether the given head seems to know the very pairs."""
    head, classifier = HEAD_WEIGHT * (1.0 - memorised), CLASSIFIER_WEIGHT * memorised
    if repeated:
        return torch.tensor([head, min(1.0, REPEATED_NEIGHBOUR_WEIGHT + memorised), classifier]), False
    found, head_knows = neighbour_weight(observed, near), knows_pairs(observed, random)
    relative = USUAL_NEIGHBOUR_WEIGHT if head_knows else (1.0 - memorised) * found + memorised * USUAL_NEIGHBOUR_WEIGHT
    return torch.tensor([head, HEAD_WEIGHT * relative, classifier]), head_knows


def knows_pairs(observed: Tensor, random: Tensor) -> bool:
    """Whether the given head seems to have been trained on the very pairs, so that wrong ones do not surprise it.

    By the share of the pairs that are as suspicious as the median random pairing: neighbours find such pairs, and the
    head finds less than half as many, although it tells pairs from random pairings better than they do.

    Args:
        observed: (3, N), evidence against the pairs
        random: (3, M), evidence against random pairings
    """
    head, neighbours = (observed[:2] > random[:2].median(1, keepdim=True).values).float().mean(1).tolist()
    by_head, by_neighbours = (more_suspicious(random[part].numpy(), observed[part].numpy()) for part in (0, 1))
    return neighbours - 2.0 * head > LEAST_MISSED and by_head > by_neighbours


def neighbour_weight(observed: Tensor, near: list[Tensor]) -> float:
    """Weight of the neighbours relative to the heads, where pairs are told from near wrong pairings by both.

    It is :data:`NEIGHBOUR_TRUST` of that of a logistic regression: large where neighbours know what heads do not, as
    among many drawings of few kinds, and small where heads know more than neighbours do. That some of the pairs are
    wrong makes both weights smaller, and leaves their ratio.

    Args:
        observed: (3, N), evidence against the pairs
        near: (3, M) each, evidence against wrong pairings with near texts

    Returns:
        the weight; :data:`USUAL_NEIGHBOUR_WEIGHT` where heads do not tell them apart
    """
    rows = torch.cat([observed, *near], 1)[:2].T.double().numpy()
    is_wrong = np.repeat([0, 1], [observed.shape[1], len(rows) - observed.shape[1]])
    share = len(rows) / 2.0 / np.bincount(is_wrong)
    head, neighbours = LogisticRegression(C=100.0, max_iter=500).fit(rows, is_wrong, share[is_wrong]).coef_[0]
    if head <= 0.0:
        return USUAL_NEIGHBOUR_WEIGHT
    return float(np.clip(NEIGHBOUR_TRUST * neighbours / head, 0.0, MOST_NEIGHBOUR_WEIGHT))
