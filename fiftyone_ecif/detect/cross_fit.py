"""How surprising each pair is to a head that was not fitted on it: the evidence that its text is not its image's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fiftyone_ecif.attribution.objectives import FITTED, HELD_OUT, anchored, mean_loss
from fiftyone_ecif.attribution.score import FOLDS, cross_fit_folds
from fiftyone_ecif.attribution.settings import Settings
from fiftyone_ecif.core import Head, Linearization, Pairs, Progress, embeddings_under, fit_to_rest, partitions, silent
from fiftyone_ecif.core.pairs import Subset
from fiftyone_ecif.core.text_kernel import LEAST_PROBABILITY, likeness, surprise_at

BELIEVED = 0.5
"""Share of a half that a head is fitted on: what surprises the given head least. The rest may be wrong."""

LEAST_BELIEVED = 64
"""Pairs that a head is fitted on where there are so many: with fewer, it errs more by what it never saw."""

FIT_TOLERANCE = 1e-2
"""Gradient at the end of a fit over the one at its start; surprises no longer change visibly below it."""

FIT_STEPS = 15

CONFIDENCES = tuple(step / 10 for step in range(2, 21, 2))
"""By how much the logits may be scaled where texts are drawn by a head's beliefs."""

USUAL_CONFIDENCE, MEMORISED_CONFIDENCE = 0.8, 0.6
"""What it is for most heads, which are a little too sure of pairs that they were not fitted on, and for heads on towers
that have learnt the pairs by heart (docs/detection.md)."""


@dataclass(frozen=True)
class CrossFit:
    """Two heads, and the surprise of each at the pairs that it was not fitted on.

    Attributes:
        heads: two, each fitted on the believed pairs of one half
        half: int64 (N,), the half that a pair is in; the other half's head was not fitted on it
        surprise: float32 (N,), nats, by the head that was not fitted on the pair; see :func:`surprise`
        memorised: 0 to 1, how little the given head's surprise survives a mild change of the image: one less the rank
            correlation over pairs of the surprise by the image itself and by its views; 0 without views
    """

    heads: list[Head]
    half: Tensor
    surprise: Tensor
    memorised: float

    def judged(self, pairs: Pairs, device: str = "cpu") -> list[tuple[Subset, Head]]:
        """The pairs of each half, with the head that was not fitted on them."""
        parts = [Subset(pairs, (self.half == number).nonzero().squeeze(1)) for number in range(FOLDS)]
        return [(part, head.to(device)) for part, head in zip(parts, reversed(self.heads), strict=True)]


@dataclass(frozen=True)
class PlausiblePairings:
    """For each of N images a text that a head which was not fitted on its pair finds plausible.

    Attributes:
        partner: int64 (N,), the pair of the same batch that has the text
        surprise: float32 (N,), nats, of the same head at the image with that text
    """

    partner: Tensor
    surprise: Tensor


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
    """Fit a head on each half of the pairs, without those that look wrong, and judge the other half by it.

    Args:
        pairs: the features of the N pairs
        views: the same with each image's mean over mild views; they are judged where they are at hand
        head: the given weights θ0
        loss: a key of :data:`~fiftyone_ecif.core.LOSSES`
        settings: batch size, anchor, rounds and seed are used
        device: where to compute
        progress: called with each step's name
        trusted: bool (N,), pairs known to be right, which a head is always fitted on

    Returns:
        a :class:`CrossFit`
    """
    given = head.to(device)
    half = cross_fit_folds(len(pairs), settings.seed)
    judged = views or pairs
    members = [Subset(judged, (half == number).nonzero().squeeze(1)) for number in range(FOLDS)]
    doubt = torch.zeros(len(pairs))
    heads: list[Head] = []
    for number, part in enumerate(members):
        progress("Cross-fit", number, FOLDS)
        doubt[part.index] = mean_surprise(part, given, settings)
        known = doubt[part.index]
        if trusted is not None:
            known = known.masked_fill(trusted[part.index], -torch.inf)
        heads.append(_fit_believed(part, known, given, loss, settings))
    memorised = 0.0
    if views:
        plain = torch.zeros(len(pairs))
        for part in members:
            plain[part.index] = mean_surprise(Subset(pairs, part.index), given, settings)
        memorised = 1.0 - max(0.0, rank_correlation(plain, doubt))
    fitted = CrossFit([part.to("cpu") for part in heads], half, torch.zeros(len(pairs)), memorised)
    for part, other in fitted.judged(judged, device):
        fitted.surprise[part.index] = mean_surprise(part, other, settings)
    progress("Cross-fit", FOLDS, FOLDS)
    return fitted


def plausible_pairings(pairs: Pairs, fitted: CrossFit, settings: Settings, device: str = "cpu") -> PlausiblePairings:
    """Draw a text for each image by the beliefs of the head that was not fitted on its pair.

    The logits are first scaled as far as such a head may be believed: :data:`MEMORISED_CONFIDENCE` as far as the pairs
    were learnt by heart, and :func:`_confidence` as far as they were not.

    Args:
        pairs: the features of the N pairs, as they were judged
        fitted: by :func:`cross_fit`
        settings: batch size, rounds and seed are used
        device: where to compute

    Returns:
        :class:`PlausiblePairings`
    """
    judges = fitted.judged(pairs, device)
    memorised = fitted.memorised
    confidence = _confidence(judges, settings) * (1.0 - memorised) + MEMORISED_CONFIDENCE * memorised
    generator = torch.Generator().manual_seed(settings.seed)
    partner, found = torch.arange(len(pairs)), torch.zeros(len(pairs))
    for part, head in judges:
        drawn, found[part.index] = _draw_plausible(part, head, confidence, settings, generator)
        partner[part.index] = part.index[drawn]
    return PlausiblePairings(partner, found)


def label_beliefs(pairs: Pairs, label: Tensor, fitted: CrossFit) -> Tensor:
    """p_n(c) = softmax over labels c of τ u_n·v_c, by the head that was not fitted on the pair.

    Args:
        pairs: the features of the N pairs, as they were judged; pairs of one label have one text
        label: int64 (N,), 0 to C − 1, each of some pair
        fitted: by :func:`cross_fit`

    Returns:
        (N, C)
    """
    classes = int(label.max()) + 1
    texts = Subset(pairs, torch.zeros(classes, dtype=torch.int64).scatter_(0, label, torch.arange(len(label))))
    result = torch.zeros(len(pairs), classes)
    for part, head in fitted.judged(pairs):
        image, text = embeddings_under(part, head)[0], embeddings_under(texts, head)[1]
        result[part.index] = (head.logit_scale.exp() * image @ text.T).softmax(1)
    return result


def surprise(batch: Linearization, partner: Tensor) -> Tensor:
    """How much less a head expects each image's text than any text of the batch, synonyms counted together.

    −log [Σ_j P_ij K_ij / mean_j K_ij], with P_i the softmax over the texts and K_ij = exp(3τ (v_i·v_j − 1)) the
    likeness of text j to the image's. Captions that say the same in other words would else count as its rivals.

    Args:
        batch: B pairs under a head
        partner: int64 (B,), whose text each image is asked about; where that is another's, its own is left out

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
    """:func:`surprise` at N pairs, mean over rounds, (N,)."""
    total = torch.zeros(len(pairs))
    for batches in held_out_rounds(pairs, settings):
        for index in batches:
            batch = head.linearize(*pairs.gather(index))
            total[index] += surprise(batch, torch.arange(len(index), device=batch.image.device)).float().cpu()
    return total / settings.rounds


def held_out_rounds(pairs: Pairs, settings: Settings) -> list[list[Tensor]]:
    """The partitions into batches that pairs are judged in."""
    return partitions(len(pairs), min(settings.batch_size, len(pairs)), settings.rounds, settings.seed + HELD_OUT)


def _fit_believed(pairs: Subset, doubt: Tensor, given: Head, loss: str, settings: Settings) -> Head:
    """The given head fitted on the pairs of least doubt, in one round."""
    count = min(len(pairs), max(LEAST_BELIEVED, round(BELIEVED * len(pairs))))
    believed = Subset(pairs, doubt.topk(count, largest=False).indices.sort().values)
    once = replace(settings, rounds=1)
    objective = anchored(mean_loss(believed, loss, once, FITTED), given, once)
    # Kronecker factors would take longer to estimate than they save here.
    fitted = fit_to_rest(objective, given, torch.clone, FIT_TOLERANCE, FIT_STEPS).scope
    return given.replace(fitted.vector())


def _confidence(judges: Sequence[tuple[Subset, Head]], settings: Settings) -> float:
    """How sure a head may be of pairs that it was not fitted on: the likeliest a, or half-way to the usual one.

    The likeliest a maximises Σ_n log[(1 − r) R_n(a) + r] over a and r, with R_n(a) = exp(−:func:`surprise`) at logits
    scaled by a: a share r of the texts might as well be any. Texts swapped for their like pass for doubt: it may be
    more.
    """
    ratio = torch.zeros(len(CONFIDENCES), sum(len(part) for part, _ in judges))
    for part, head in judges:
        for index in held_out_rounds(part, settings)[0]:
            batch = head.linearize(*part.gather(index))
            similarity = batch.similarity()
            same = likeness(batch.text, batch.text, batch.logit_scale.exp())
            for row, scale in enumerate(CONFIDENCES):
                believed = ((scale * similarity).softmax(1) * same).sum(1) / same.mean(1)
                ratio[row, part.index[index]] = (believed + LEAST_PROBABILITY).float().cpu()
    shares = torch.linspace(0.0, 0.8, 41)[:, None]
    likelihood = torch.stack([((1.0 - shares) * row + shares).log().mean(1).max() for row in ratio])
    likeliest = CONFIDENCES[int(likelihood.argmax())]
    return max(likeliest, math.sqrt(USUAL_CONFIDENCE * likeliest))


def _draw_plausible(
    pairs: Subset, head: Head, confidence: float, settings: Settings, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """For each image a pair of its batch, drawn by the head's beliefs, and the surprise at the image with its text."""
    chosen, found = torch.arange(len(pairs)), torch.zeros(len(pairs))
    for index in held_out_rounds(pairs, settings)[0]:
        batch = head.linearize(*pairs.gather(index))
        beliefs = (confidence * batch.similarity()).softmax(1)
        drawn = torch.multinomial(beliefs.cpu(), 1, generator=generator).squeeze(1)
        chosen[index] = index[drawn]
        found[index] = surprise(batch, drawn.to(batch.image.device)).float().cpu()
    return chosen, found


def rank_correlation(first: Tensor, second: Tensor) -> float:
    """Spearman's correlation of two (N,); 1 where either is constant, since nothing then tells them apart."""
    ranks = torch.stack([first, second]).argsort(1).argsort(1).double()
    constant = min(first.std(), second.std()) < 1e-6
    return 1.0 if constant else float(torch.corrcoef(ranks)[0, 1])
