"""How surprising each pair is to a head that was not fitted on it: evidence that the text does not fit the image."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from scipy.stats import spearmanr
from torch import Tensor

from fiftyone_ecif.attribution.folds import Folds
from fiftyone_ecif.attribution.objectives import FITTED, HELD_OUT, anchored, mean_loss
from fiftyone_ecif.attribution.settings import Settings
from fiftyone_ecif.core import Head, Linearization, Pairs, Progress, embeddings_under, fit_to_rest, partitions, silent
from fiftyone_ecif.core.pairs import Subset
from fiftyone_ecif.core.text_kernel import likeness, surprise_at

FOLDS = 2
"""Folds that misalignment is judged by: a head of each judges the other."""

BELIEVED = 0.5
"""Share of a fold that a head is fitted on: the pairs that surprise the given head least. The rest may be wrong."""

LEAST_BELIEVED = 64
"""Pairs that a head is fitted on at least, where there are so many: with fewer it generalises too poorly."""

FIT_TOLERANCE = 1e-2
"""Norm of the gradient at which a fit ends, relative to its start. Below it, surprises no longer change visibly."""

FIT_STEPS = 15

LEAST_SPREAD = 1e-6
"""Standard deviation, in nats, below which surprises differ by rounding only."""


@dataclass(frozen=True)
class CrossFit:
    """Two heads, and the surprise of each at the pairs that it was not fitted on.

    Attributes:
        heads: two, each fitted on the believed pairs of one fold
        fold: int64 (N,), the fold that a pair is in; the head of the other fold was not fitted on the pair
        surprise: float32 (N,), nats, of the head that was not fitted on the pair; see :func:`surprise`
        memorised: 0 to 1, how little of the surprise of the given head survives a mild change of the image: 1 minus
            the rank correlation, over pairs, of the surprise at the images with the surprise at their views; 0 without
            views
    """

    heads: list[Head]
    fold: Tensor
    surprise: Tensor
    memorised: float

    def held_out(self, pairs: Pairs, device: str = "cpu") -> list[tuple[Subset, Head]]:
        """The pairs of each fold, with the head that was not fitted on them."""
        parts = [Subset(pairs, (self.fold == number).nonzero().squeeze(1)) for number in range(FOLDS)]
        return [(part, head.to(device)) for part, head in zip(parts, reversed(self.heads), strict=True)]


def cross_fit(
    pairs: Pairs,
    views: Pairs | None,
    head: Head,
    loss: str,
    settings: Settings,
    device: str = "cpu",
    progress: Progress = silent,
    trusted: Tensor | None = None,
) -> CrossFit:
    """Fit a head on each fold of the pairs, without those that look wrong, and score the other fold with it.

    Args:
        pairs: the features of the N pairs
        views: the same pairs, with the mean features over mild views of each image; they take the place of ``pairs``
            wherever they are given
        head: the given weights θ0
        loss: a key of :data:`~fiftyone_ecif.core.LOSSES`
        settings: batch size, anchor, rounds and seed are used
        device: where to compute
        progress: called with the name of each step
        trusted: bool (N,), pairs known to be right, which a head is always fitted on

    Returns:
        a :class:`CrossFit`
    """
    given = head.to(device)
    fold = cross_fit_folds(len(pairs), settings.seed)
    scored = views or pairs
    members = [Subset(scored, (fold == number).nonzero().squeeze(1)) for number in range(FOLDS)]
    before = torch.zeros(len(pairs))  # the surprise of the given head
    heads: list[Head] = []
    for number, part in enumerate(members):
        progress("Cross-fit", number, FOLDS)
        before[part.index] = mean_surprise(part, given, settings)
        suspicion = before[part.index]
        if trusted is not None:
            suspicion = suspicion.masked_fill(trusted[part.index], -torch.inf)
        heads.append(_fit_believed(part, suspicion, given, loss, settings))
    memorised = 0.0
    if views:
        plain = torch.zeros(len(pairs))
        for part in members:
            plain[part.index] = mean_surprise(Subset(pairs, part.index), given, settings)
        memorised = 1.0 - max(0.0, rank_correlation(plain, before))
    fitted = CrossFit([part.to("cpu") for part in heads], fold, torch.zeros(len(pairs)), memorised)
    for part, other in fitted.held_out(scored, device):
        fitted.surprise[part.index] = mean_surprise(part, other, settings)
    progress("Cross-fit", FOLDS, FOLDS)
    return fitted


def label_beliefs(pairs: Pairs, label: Tensor, fitted: CrossFit) -> Tensor:
    """p_n(c) = softmax over labels c of τ u_n·v_c, by the head that was not fitted on the pair.

    Args:
        pairs: the features of the N pairs, as they were scored; pairs of one label have one text
        label: int64 (N,), 0 to C − 1, each of some pair
        fitted: by :func:`cross_fit`

    Returns:
        (N, C)
    """
    classes = int(label.max()) + 1
    texts = Subset(pairs, torch.zeros(classes, dtype=torch.int64).scatter_(0, label, torch.arange(len(label))))
    result = torch.zeros(len(pairs), classes)
    for part, head in fitted.held_out(pairs):
        image, text = embeddings_under(part, head)[0], embeddings_under(texts, head)[1]
        result[part.index] = (head.logit_scale.exp() * image @ text.T).softmax(1)
    return result


def surprise(batch: Linearization, partner: Tensor) -> Tensor:
    """How much less a head expects the text of each image than texts in general; texts that say the same count as one.

    −log [Σ_j P_ij K_ij / mean_j K_ij], where P_i is the softmax over the texts of the batch and
    K_ij = exp(3τ (v_i·v_j − 1)) is the likeness of text j to the text of image i. Without K, captions that say the same
    in other words would count as its rivals.

    Args:
        batch: B pairs under a head
        partner: int64 (B,), the pair whose text each image is scored with; where that is another pair, the text of the
            image's own pair is left out

    Returns:
        (B,), nats, about 0 where the head knows nothing
    """
    similarity = batch.similarity()
    own = torch.arange(len(similarity), device=similarity.device)
    elsewhere = partner != own
    similarity[own[elsewhere], own[elsewhere]] = -torch.inf
    same = likeness(batch.text[partner], batch.text, batch.logit_scale.exp())
    same[own[elsewhere], own[elsewhere]] = 0.0
    expected = same.sum(1) / (len(own) - elsewhere.to(same))
    return surprise_at((similarity.softmax(1) * same).sum(1) / expected)


def mean_surprise(pairs: Pairs, head: Head, settings: Settings) -> Tensor:
    """The mean of :func:`surprise` over rounds, at N pairs, (N,)."""
    total = torch.zeros(len(pairs))
    for batches in held_out_rounds(pairs, settings):
        for index in batches:
            batch = head.linearize(*pairs.gather(index))
            total[index] += surprise(batch, torch.arange(len(index), device=batch.image.device)).float().cpu()
    return total / settings.rounds


def held_out_rounds(pairs: Pairs, settings: Settings) -> list[list[Tensor]]:
    """The partitions into batches in which pairs are scored."""
    return partitions(len(pairs), min(settings.batch_size, len(pairs)), settings.rounds, settings.seed + HELD_OUT)


def _fit_believed(pairs: Subset, suspicion: Tensor, given: Head, loss: str, settings: Settings) -> Head:
    """The given head, fitted in one round on the pairs of least suspicion."""
    count = min(len(pairs), max(LEAST_BELIEVED, round(BELIEVED * len(pairs))))
    believed = Subset(pairs, suspicion.topk(count, largest=False).indices.sort().values)
    once = replace(settings, rounds=1)
    objective = anchored(mean_loss(believed, loss, once, FITTED), given, once)
    # No preconditioner: Kronecker factors would take longer to estimate than they save here.
    fitted = fit_to_rest(objective, given, torch.clone, FIT_TOLERANCE, FIT_STEPS).scope
    return given.replace(fitted.vector())


def rank_correlation(first: Tensor, second: Tensor) -> float:
    """Spearman's rank correlation of two (N,), with mean ranks for ties.

    It is 1 where either is constant up to rounding: such surprises show no difference between the pairs.
    """
    if min(first.std(), second.std()) < LEAST_SPREAD:
        return 1.0
    return float(spearmanr(first.numpy(), second.numpy()).statistic)


def cross_fit_folds(pairs: int, seed: int) -> Tensor:
    """The fold that each pair is in when misalignment is judged, int64 (N,)."""
    return Folds.of(pairs, FOLDS, seed).fold[0]
