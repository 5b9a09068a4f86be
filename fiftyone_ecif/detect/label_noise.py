"""How many labels are wrong: what the surest beliefs say of the noise, and an interval of its rate."""

from __future__ import annotations

import torch
from scipy.stats import beta
from torch import Tensor

SUREST = 0.25
"""Share of the pairs of each believed class that count as anchors."""

STANDARD_ERRORS = 1.64
"""Standard errors that are granted to the anchors' noise before it bounds the transition matrix."""

RESAMPLES, GRID = 200, 201
"""Resamples of the pairs, and amounts of noise that are compared, for an interval."""

TAIL = 0.05
"""Probability on either side of an interval."""


def anchors(beliefs: Tensor, trusted: Tensor) -> tuple[Tensor, Tensor]:
    """The pairs whose class is believed the most surely, a share of each believed class.

    Where a class is certain, another given label can only be noise: anchor points tell the noise from the mistakes of
    who believes (Liu & Tao, IEEE TPAMI 2016; Patrini et al., CVPR 2017).

    Args:
        beliefs: (N, C), probability of each label by annotators that have not seen the label of the pair
        trusted: bool (N,), pairs known to be right; they are no anchors, as nobody has drawn them at random

    Returns:
        int64 (M,), the anchors, and (M,), the class that each is believed to be of
    """
    sure, believed = beliefs.max(1)
    order = sure.argsort(descending=True, stable=True)
    order = order[~trusted[order]]
    order = order[believed[order].argsort(stable=True)]  # by class, and the surest first
    count = torch.bincount(believed[order], minlength=beliefs.shape[1])
    place = torch.arange(len(order)) - (count.cumsum(0) - count)[believed[order]]
    chosen = order[place < (SUREST * count[believed[order]]).ceil()]
    return chosen, believed[chosen]


def anchored(transition: Tensor, beliefs: Tensor, label: Tensor, trusted: Tensor, memorised: float = 0.0) -> Tensor:
    """The transition matrix with no more noise than the anchors show: I + γ (T − I), 0 ≤ γ ≤ 1.

    Noise that is estimated from all pairs includes systematic mistakes of the annotators: both make them believe
    another class than is given. With γ, the share of anchors that have another label than their believed class k is

        Σ_n [1 − p_n(k) + γ (p_n(k) − Σ_c p_n(c) T(c, k))] / M.

    The second part may be as large as what the first leaves of the share that is observed, and 1.64 standard errors
    more, as in a one-sided bound of 95 %. Annotators that have memorised wrong labels are sure of
    these: the more was memorised, the less T is bounded.

    Args:
        transition: float64 (C, C), T
        beliefs: (N, C), p_n
        label: int64 (N,), y_n
        trusted: bool (N,), pairs known to be right
        memorised: 0 to 1

    Returns:
        float64 (C, C), rows sum to 1
    """
    chosen, believed = anchors(beliefs, trusted)
    if len(chosen) == 0:
        return transition
    other = float((label[chosen] != believed).double().mean())
    error = (max(other * (1.0 - other), 1.0 / len(chosen)) / len(chosen)) ** 0.5
    belief = beliefs[chosen].double()
    sure = belief.gather(1, believed[:, None]).squeeze(1)
    kept = (belief * transition[:, believed].T).sum(1)  # Σ_c p_n(c) T(c, k)
    unexplained = max(other - float((1.0 - sure).mean()), 0.0) + STANDARD_ERRORS * error
    share = unexplained / max(float((sure - kept).mean()), 1e-12)
    if share >= 1.0:
        return transition
    share = (1.0 - memorised) * share + memorised
    return torch.eye(len(transition), dtype=transition.dtype).lerp(transition, share)


def label_noise_interval(
    transition: Tensor, beliefs: Tensor, label: Tensor, trusted: Tensor, seed: int = 0
) -> tuple[float, float]:
    """A 90 % interval of the share of wrong labels.

    It spans two. The first is by resampling: T keeps its pattern, and the likeliest γ of I + γ (T − I) is found for
    each resample of the pairs. The second is what the anchors leave open: the Clopper-Pearson interval of the share
    that has another label than its believed class, the lower end less what the beliefs themselves hold possible.

    Args:
        transition: float64 (C, C), T
        beliefs: (N, C), p_n
        label: int64 (N,), y_n
        trusted: bool (N,), pairs known to be right; none of their labels is wrong
        seed: of the resamples

    Returns:
        low and high, 0 to 1
    """
    doubted = 1.0 - float(trusted.double().mean())
    belief, given = beliefs[~trusted].double(), label[~trusted]
    if len(belief) == 0:
        return 0.0, 0.0
    low, high = _resampled(transition, belief, given, seed)
    least, most = _of_anchors(beliefs, label, trusted)
    return doubted * min(low, least), doubted * max(high, most)


def _resampled(transition: Tensor, belief: Tensor, given: Tensor, seed: int) -> tuple[float, float]:
    """Quantiles of the noise rate over resamples of the pairs."""
    right = belief.gather(1, given[:, None]).squeeze(1)
    change = (belief * transition[:, given].T).sum(1) - right  # of the likelihood of a label, by γ
    wrong = float((belief @ (1.0 - transition.diag())).mean())  # the noise rate for γ = 1
    amounts = torch.linspace(0.0, 1.0, GRID, dtype=torch.float64).square() / max(wrong, 1.0 / len(given))
    amounts = amounts[amounts * (1.0 - transition.diag()).max() <= 1.0]
    likelihood = (right[:, None] + amounts * change[:, None]).clamp_min(1e-12).log()
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(len(given), (RESAMPLES, len(given)), generator=generator)
    counts = torch.zeros(RESAMPLES, len(given), dtype=torch.float64).scatter_add_(
        1, drawn, torch.ones(drawn.shape, dtype=torch.float64)
    )
    rates = amounts[(counts @ likelihood).argmax(1)] * wrong
    return float(rates.quantile(TAIL)), float(rates.quantile(1.0 - TAIL))


def _of_anchors(beliefs: Tensor, label: Tensor, trusted: Tensor) -> tuple[float, float]:
    """What the anchors leave open."""
    chosen, believed = anchors(beliefs, trusted)
    other, count = int((label[chosen] != believed).sum()), len(chosen)
    least = float(beta.ppf(TAIL, other, count - other + 1)) if other else 0.0
    most = float(beta.ppf(1.0 - TAIL, other + 1, count - other)) if other < count else 1.0
    possible = float(1.0 - beliefs[chosen].gather(1, believed[:, None]).double().mean())
    return max(least - possible, 0.0), most
