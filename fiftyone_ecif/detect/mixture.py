"""Calibration: the scores of the pairs as a mixture of right and wrong pairings whose scores are known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.interpolate import PchipInterpolator
from sklearn.isotonic import IsotonicRegression

MOST_BINS, PAIRS_PER_BIN = 30, 25
"""Bins that scores are counted in, at most, and pairs for each bin at least."""

CONFIDENCE_STEPS = 13
"""Confidences of the head that are weighed, from the lowest to the highest that texts were drawn with."""

USUAL_CONFIDENCE, CONFIDENCE_SPREAD = 0.57, 0.2
"""Centre and spread, in logarithms, of what is believed of the confidence before the pairs are seen."""

NOISE_KINDS = ((0,), (0, 2), (0, 1, 2, 3))
"""Which wrong pairings a mixture is made of: random ones; and near ones; and those in between, and the nearest."""

NOISE_KIND_WEIGHTS = (0.25, 0.5, 0.25)
"""What is believed of these kinds before the pairs are seen."""

TOLD_APART = 0.6
"""How often a near wrong pairing must be more suspicious than a pair as it is. Where scores do not tell them apart, as
among many captions of few things, a text near the right one is as right, and no noise of that kind is supposed."""

TEMPER = 10.0
"""Factor by which likelihoods are mistrusted: the pairings are models of right and wrong pairs, and no samples."""

PASSES = 200
"""Steps of expectation maximisation for the shares of a mixture."""

FIRST_SHARE = 0.01
"""Share of each kind of wrong pairing at the first step: what the scores do not ask for stays rare."""

SMOOTHING = 0.5
"""Pairings that are added to each bin, so that none is empty."""

REPLICATES = 20
"""Draws of the counts that the interval is made from."""

TAIL = 0.05
"""Probability on either side of the interval."""

TIE_BREAK = 1e-3
"""Share of the probability that follows the rank alone, so that pairs on a plateau keep their order."""


@dataclass(frozen=True)
class Calibration:
    """What scores say.

    Attributes:
        probability: (N,), of being wrong; it does not fall with the score
        noise_rate: expected share of wrong pairs
        noise_interval: its central 90 % interval
    """

    probability: np.ndarray
    noise_rate: float
    noise_interval: tuple[float, float]


def calibrate(
    score: np.ndarray, right: Sequence[np.ndarray], confidences: Sequence[float], wrong: Sequence[np.ndarray], seed: int
) -> Calibration:
    """Probability of being wrong, from the scores of pairs and of pairings whose nature is known.

    The density of the scores is g = (1 − ρ) c + ρ Σ_k π_k w_k. The densities w_k of wrong pairings are known, and
    that of right ones, c, up to how far the head can be believed. For several confidences and kinds of noise the
    likeliest shares are found by expectation maximisation. The results are averaged by their likelihood, tempered,
    since a near wrong text looks much like a right one that the head does not know: which of the two there are, scores
    alone tell only in part, and the interval says so (mixture proportion estimation: Blanchard et al., JMLR 2010;
    averaging: Hoeting et al., Statistical Science 1999).

    Args:
        score: (N,), higher = more suspicious
        right: scores of pairings with texts drawn by the beliefs of a head, by rising confidence
        confidences: of those
        wrong: scores of wrong pairings: random, and by falling distance to the right text
        seed: of the interval

    Returns:
        :class:`Calibration`
    """
    edges = _edges(score, [*right, *wrong])
    counts = _count(score, edges)
    generator = np.random.default_rng(seed)
    draws = np.concatenate([counts[None], generator.multinomial(len(score), counts / len(score), REPLICATES)])
    at, belief = _confidences(confidences)
    rights = _between(_drawn([_count(part, edges) for part in right], generator), confidences, at)
    wrongs = _drawn([_count(part, edges) for part in wrong], generator)
    rates, posteriors, weights = [], [], []
    for kind, share in _noise_kinds(score, wrong):
        likelihood = []
        for known in rights:
            densities = np.concatenate([known[:, None], wrongs[:, list(kind)]], 1)
            shares = _shares(draws, densities)
            mixed = (shares[..., None] * densities).sum(1)
            rates.append(1.0 - shares[:, 0])
            posteriors.append(1.0 - shares[0, 0] * densities[0, 0] / mixed[0])
            likelihood.append((counts * np.log(mixed[0])).sum())
        tempered = (np.array(likelihood) - max(likelihood)) / TEMPER + belief
        weights.append(share * np.exp(tempered) / np.exp(tempered).sum())
    weight = np.concatenate(weights)
    posterior = weight @ np.array(posteriors)
    rate = float(weight @ np.array(rates)[:, 0])
    low, high = _interval(np.array(rates)[:, 1:], weight)
    probability = _smooth(score, edges, counts, posterior)
    return Calibration(probability, rate, (min(low, rate), max(high, rate)))


def _noise_kinds(score: np.ndarray, wrong: Sequence[np.ndarray]) -> list[tuple[tuple[int, ...], float]]:
    """The kinds of noise that scores can tell from right pairs, with what is believed of each."""
    told = [more_suspicious(part, score) >= TOLD_APART for part in wrong]
    known = zip(NOISE_KINDS, NOISE_KIND_WEIGHTS, strict=True)
    kept = [(kind, share) for kind, share in known if all(told[number] for number in kind[1:])]
    return [(kind, share / sum(share for _, share in kept)) for kind, share in kept]


def more_suspicious(wrong: np.ndarray, score: np.ndarray) -> float:
    """How often wrong pairings (M,) have a higher score than pairs (N,), ties counting half; 0 to 1."""
    ordered = np.sort(score)
    ranks = np.searchsorted(ordered, wrong, "left") + np.searchsorted(ordered, wrong, "right")
    return float(ranks.mean() / (2 * len(score)))


def _edges(score: np.ndarray, references: Sequence[np.ndarray]) -> np.ndarray:
    """Quantiles of all scores, each kind of pairing counting alike."""
    bins = int(np.clip(len(score) // PAIRS_PER_BIN, 4, MOST_BINS))
    parts = [np.quantile(part, (np.arange(1_000) + 0.5) / 1_000) for part in (score, *references)]
    return np.unique(np.quantile(np.concatenate(parts), np.arange(1, bins) / bins))


def _count(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    return np.bincount(np.searchsorted(edges, values), minlength=len(edges) + 1).astype(float)


def _confidences(known: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """The confidences to be weighed, and the logarithm of what is believed of each."""
    at = np.geomspace(known[0], known[-1], CONFIDENCE_STEPS)
    return at, -0.5 * (np.log(at / USUAL_CONFIDENCE) / CONFIDENCE_SPREAD) ** 2


def _drawn(counts: Sequence[np.ndarray], generator: np.random.Generator) -> np.ndarray:
    """Densities over the bins, and draws of what they might be, (1 + replicates, kinds, bins)."""
    smoothed = np.array(counts) + SMOOTHING
    draws = np.stack([generator.dirichlet(part, REPLICATES) for part in smoothed], 1)
    return np.concatenate([(smoothed / smoothed.sum(1, keepdims=True))[None], draws])


def _between(densities: np.ndarray, known: Sequence[float], at: np.ndarray) -> list[np.ndarray]:
    """Densities at other confidences than those that texts were drawn with: shares of the next lower and higher."""
    place = np.interp(at, known, np.arange(len(known)))
    low = np.minimum(place.astype(int), len(known) - 2)
    return [
        (1.0 - p + i) * densities[:, i] + (p - i) * densities[:, i + 1]
        for p, i in zip(place, low.tolist(), strict=True)
    ]


def _shares(counts: np.ndarray, densities: np.ndarray) -> np.ndarray:
    """The likeliest shares of the densities (R, K, B) in the counts (R, B); (R, K)."""
    shares = np.full(densities.shape[:2], FIRST_SHARE)
    shares[:, 0] = 1.0 - FIRST_SHARE * (densities.shape[1] - 1)
    for _ in range(PASSES):
        part = shares[..., None] * densities
        shares = (part / part.sum(1, keepdims=True) * counts[:, None]).sum(2)
        shares /= shares.sum(1, keepdims=True)
    return shares


def _interval(rates: np.ndarray, weight: np.ndarray) -> tuple[float, float]:
    """Weighted quantiles of the rates (models, replicates)."""
    order = rates.ravel().argsort()
    below = np.repeat(weight / rates.shape[1], rates.shape[1])[order].cumsum()
    low, high = np.searchsorted(below, (TAIL, 1.0 - TAIL)).clip(max=rates.size - 1)
    return float(rates.ravel()[order[low]]), float(rates.ravel()[order[high]])


def _smooth(score: np.ndarray, edges: np.ndarray, counts: np.ndarray, posterior: np.ndarray) -> np.ndarray:
    """The probability at each score: a monotone curve through the bins that hold scores."""
    bins = np.arange(len(posterior))
    rising = IsotonicRegression(y_min=0.0, y_max=1.0).fit(bins, posterior, counts + SMOOTHING).predict(bins)
    member = np.searchsorted(edges, score)
    held = np.unique(member)
    centre = np.array([np.median(score[member == number]) for number in held])
    if len(held) < 2:
        probability = np.full(len(score), rising[held[0]])
    else:
        curve = PchipInterpolator(centre, rising[held])
        probability = np.clip(curve(np.clip(score, centre[0], centre[-1])), 0.0, 1.0)
    rank = score.argsort().argsort() / max(len(score) - 1, 1)
    return (1.0 - TIE_BREAK) * probability + TIE_BREAK * rank
