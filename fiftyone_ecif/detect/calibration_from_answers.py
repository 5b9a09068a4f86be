"""What answers about a few drawn pairs say: how many pairs are wrong, and how far their probabilities are off."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit, logit

STRATA = 5
"""Groups of pairs, by misalignment, that are drawn from alike."""

LEAST_VARIANCE = 0.01
"""Added to p (1 − p): pairs that are called certain are doubted a little, or nobody would look at any of them."""

COVERED = 0.9
"""Probability with which the noise rate lies in its interval."""

DRAWS = 2000
"""Of the noise rate, for its interval."""

SHIFT_SPREAD, SLOPE_SPREAD = 2.0, 0.5
"""Standard deviations of the shift of a log odds, and of the logarithm of its slope, before there are answers."""

CLIP = 1e-4
"""Probabilities are held this far from 0 and 1 where their log odds are compared with answers."""


@dataclass(frozen=True)
class NoiseRate:
    """An estimate from answers.

    Attributes:
        answered: pairs with an answer
        wrong: those of them that are wrong
        rate: estimated share of wrong pairs among all; its expectation is the true one if all drawn pairs are answered
        low, high: ends of its 90 % interval
    """

    answered: int
    wrong: int
    rate: float
    low: float
    high: float


@dataclass(frozen=True)
class Recalibration:
    """A map of probabilities that keeps their order: logit p′ = shift + slope · logit p.

    Attributes:
        shift: of the log odds
        slope: above 0
    """

    shift: float
    slope: float

    def __call__(self, probability: np.ndarray) -> np.ndarray:
        """Map probabilities, (N,); 0 and 1 stay."""
        with np.errstate(divide="ignore"):
            return np.asarray(expit(self.shift + self.slope * logit(probability)))


def strata_of(probability: np.ndarray) -> np.ndarray:
    """Divide pairs into groups from which equally many are to be drawn.

    With pairs in the order of their misalignment p, each group holds the same share of Σ √(p (1 − p) + .01). So the
    same number from each is the allocation with the least variance (Neyman, Journal of the Royal Statistical Society
    97(4), 1934), as far as p is right.

    Args:
        probability: (N,)

    Returns:
        int64 (N,), 0 to :data:`STRATA` − 1, rising with the probability
    """
    order = np.argsort(probability, kind="stable")
    doubt = np.sqrt(probability[order] * (1.0 - probability[order]) + LEAST_VARIANCE)
    before = np.cumsum(doubt) - doubt / 2.0
    stratum = np.empty(len(order), dtype=np.int64)
    stratum[order] = np.minimum(before / doubt.sum() * STRATA, STRATA - 1).astype(np.int64)
    return stratum


def draw(stratum: np.ndarray, number: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw about equally many pairs from each stratum: those with the smallest random numbers.

    A larger draw with the same numbers holds the smaller one.

    Args:
        stratum: int64 (N,)
        number: (N,), random
        size: pairs in all

    Returns:
        int64 (M,), the pairs in the order of their numbers, and (M,), how many pairs of its stratum each stands for
    """
    order = np.lexsort((number, stratum))
    starts = np.searchsorted(stratum[order], stratum[order])
    rank = np.arange(len(order)) - starts
    # The first of every stratum, then the second of every stratum, and so on.
    chosen = order[np.lexsort((number[order], rank))][:size]
    chosen = chosen[np.argsort(number[chosen])]
    members, drawn = np.bincount(stratum), np.bincount(stratum[chosen], minlength=stratum.max() + 1)
    return chosen, (members / np.maximum(drawn, 1))[stratum[chosen]]


def noise_rate(stratum: np.ndarray, weight: np.ndarray, answered: np.ndarray, wrong: np.ndarray) -> NoiseRate:
    """Estimate the share of wrong pairs from answers about drawn ones.

    The estimate is Σ_h N_h/N · w_h/m_h, with w_h wrong ones of m_h answered pairs in stratum h of N_h pairs (Horvitz &
    Thompson, JASA 1952). The ends of its interval are those of Σ_h (w_h + a binomial share of N_h − m_h others) / N,
    where the share has the distribution Beta(w_h, m_h − w_h + ½) for the lower end, which is 0 where nothing is wrong,
    and Beta(w_h + 1/H, m_h − w_h + ½) for the upper one: one pair more that is wrong, divided among the H strata. A
    stratum without answers is put to the next one.

    Args:
        stratum: int64 (M,), of the drawn pairs
        weight: (M,), how many pairs of its stratum each stands for
        answered: bool (M,)
        wrong: bool (M,), says nothing where there is no answer

    Returns:
        :class:`NoiseRate`

    Raises:
        ValueError: if no pair is answered
    """
    if not answered.any():
        raise ValueError("None of the drawn pairs has been judged yet: mark captions as fine, or reject pairs, first.")
    groups: list[list[float]] = []
    pending = 0.0
    for each in np.unique(stratum):
        of = stratum == each
        members, judged, bad = weight[of].sum(), (of & answered).sum(), (of & answered & wrong).sum()
        if judged:
            groups.append([members + pending, float(judged), float(bad)])
            pending = 0.0
        elif groups:
            groups[-1][0] += members
        else:
            pending += members
    members, judged, bad = np.array(groups).T
    generator, others, ends = np.random.default_rng(0), np.maximum(members - judged, 0.0).round().astype(int), []
    for more, quantile in ((1e-9, (1.0 - COVERED) / 2.0), (1.0 / len(groups), (1.0 + COVERED) / 2.0)):
        shares = generator.beta(bad + more, judged - bad + 0.5, (DRAWS, len(groups)))
        totals = (bad + generator.binomial(others, shares)).sum(1) / members.sum()
        ends.append(float(np.quantile(totals, quantile)))
    rate = float((members * bad / judged).sum() / members.sum())
    return NoiseRate(int(judged.sum()), int(bad.sum()), rate, min(ends[0], rate), max(ends[1], rate))


def recalibration(probability: np.ndarray, weight: np.ndarray, wrong: np.ndarray) -> Recalibration:
    """The shift and slope of log odds that answers speak for.

    They maximise Σ_n ω_n log p′(answer n) − shift²/2·2² − (log slope)²/2·½², with weights ω in proportion to how many
    pairs each stands for, whose sum is the number of equally weighted answers that would tell as much (Kish, 1965):
    with few answers, probabilities stay about as they were.

    Args:
        probability: (M,), the misalignment of the answered pairs
        weight: (M,), above 0, how many pairs each stands for
        wrong: bool (M,)

    Returns:
        :class:`Recalibration`
    """
    odds, omega = logit(np.clip(probability, CLIP, 1.0 - CLIP)), weight * weight.sum() / (weight**2).sum()
    sign = np.where(wrong, -1.0, 1.0)

    def loss(parameters: np.ndarray) -> float:
        shift, logarithm = parameters
        against = np.logaddexp(0.0, sign * (shift + np.exp(logarithm) * odds))
        prior = 0.5 * (shift / SHIFT_SPREAD) ** 2 + 0.5 * (logarithm / SLOPE_SPREAD) ** 2
        return float((omega * against).sum() + prior)

    shift, logarithm = minimize(loss, np.zeros(2), method="BFGS").x
    return Recalibration(float(shift), float(np.exp(logarithm)))
