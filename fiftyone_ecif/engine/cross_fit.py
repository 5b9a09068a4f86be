"""What heads say of pairs that they were not fitted on: the evidence that a pair is misaligned."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fiftyone_ecif.core import Head, Pairs, Progress, fit_to_rest, silent
from fiftyone_ecif.engine.local import FOLDS, Subset, cross_fit_folds
from fiftyone_ecif.engine.losses import FITTED, HELD_OUT, anchored, mean_loss
from fiftyone_ecif.engine.settings import Settings

BELIEVED = 0.5
"""Share of a half that a head is fitted on: what the given weights find most plausible. The rest may be wrong."""

FIT_TOLERANCE = 1e-2
"""Gradient at the end of a fit over the one at its start; losses no longer change visibly below it."""

FIT_STEPS = 15

SOUND_CONFIDENCE, MEMORISED_CONFIDENCE = 0.9, 0.6
"""By how much the logits are scaled where texts are drawn by a head's beliefs: a head is a little too sure of pairs
that it was not fitted on, and far too sure where the towers have learnt them by heart (docs/detection.md)."""


@dataclass(frozen=True)
class CrossFit:
    """Losses of N pairs, and of pairings that a head thinks plausible; nats, float32, in the order of the pairs.

    Attributes:
        heads: two, each fitted on the believed pairs of one half
        half: int64 (N,), the half that a pair is in; the other half's head was not fitted on it
        losses: (2, N), pos_n under the given head, and under the head that was not fitted on the pair
        plausible: int64 (N,), a pair of the same batch, drawn by the probability that the latter head gives its text
        plausible_losses: (2, N), the losses of the pair's image with that text
        memorised: 0 to 1, how little a pair's loss under the given head survives a mild change of its image: one less
            the rank correlation over pairs of the loss by the image itself and by its views; 0 without views
    """

    heads: list[Head]
    half: Tensor
    losses: Tensor
    plausible: Tensor
    plausible_losses: Tensor
    memorised: float


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
    losses, plausible_losses = torch.zeros(2, len(pairs)), torch.zeros(2, len(pairs))
    plausible = torch.arange(len(pairs))
    heads: list[Head] = []
    for number, part in enumerate(members):
        progress("Cross-fit", number, FOLDS)
        losses[0, part.index] = positive_losses(part, given, loss, settings)
        doubt = losses[0, part.index]
        if trusted is not None:
            doubt = doubt.masked_fill(trusted[part.index], -torch.inf)
        heads.append(_fit_believed(part, doubt, given, loss, settings))
    memorised = 0.0
    if views:
        plain = torch.zeros(len(pairs))
        for part in members:
            plain[part.index] = positive_losses(Subset(pairs, part.index), given, loss, settings)
        memorised = 1.0 - max(0.0, rank_correlation(plain, losses[0]))
    confidence = SOUND_CONFIDENCE + memorised * (MEMORISED_CONFIDENCE - SOUND_CONFIDENCE)
    generator = torch.Generator().manual_seed(settings.seed)
    for part, other in zip(members, reversed(heads), strict=True):
        losses[1, part.index] = positive_losses(part, other, loss, settings)
        drawn, of_drawn = _draw_plausible(part, given, other, confidence, loss, settings, generator)
        plausible[part.index], plausible_losses[:, part.index] = part.index[drawn], of_drawn
    progress("Cross-fit", FOLDS, FOLDS)
    return CrossFit([fitted.to("cpu") for fitted in heads], half, losses, plausible, plausible_losses, memorised)


def positive_losses(pairs: Pairs, head: Head, loss: str, settings: Settings) -> Tensor:
    """pos_n, mean over rounds, (N,)."""
    objective = mean_loss(pairs, loss, settings, HELD_OUT)
    total = torch.zeros(len(pairs))
    for index, batch in objective.linearizations(head):
        total[index] += objective.loss.roles(batch.similarity()).positive.float().cpu()
    return total / settings.rounds


def _fit_believed(pairs: Subset, doubt: Tensor, given: Head, loss: str, settings: Settings) -> Head:
    """The given head fitted on the pairs of least doubt, in one round."""
    count = max(2, round(BELIEVED * len(pairs)))
    believed = Subset(pairs, doubt.topk(count, largest=False).indices.sort().values)
    once = replace(settings, rounds=1)
    objective = anchored(mean_loss(believed, loss, once, FITTED), given, once)
    # Kronecker factors would take longer to estimate than they save here.
    fitted = fit_to_rest(objective, given, torch.clone, FIT_TOLERANCE, FIT_STEPS).scope
    return given.replace(fitted.vector())


def _draw_plausible(
    pairs: Subset,
    given: Head,
    other: Head,
    confidence: float,
    loss: str,
    settings: Settings,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """For each image a pair of its batch, drawn by the other head, and (2, N) the image's losses with that text."""
    objective = mean_loss(pairs, loss, settings, HELD_OUT)
    chosen, losses = torch.arange(len(pairs)), torch.zeros(2, len(pairs))
    for index in objective.rounds[0]:
        inputs = pairs.gather(index)
        similarities = [head.linearize(*inputs).similarity() for head in (given, other)]
        drawn = torch.multinomial((confidence * similarities[1]).softmax(1).cpu(), 1, generator=generator).squeeze(1)
        chosen[index] = index[drawn]
        for row, similarity in enumerate(similarities):
            of_drawn = objective.loss.pairing_losses(similarity, drawn.to(similarity.device))
            losses[row, index] = of_drawn.float().cpu()
    return chosen, losses


def rank_correlation(first: Tensor, second: Tensor) -> float:
    """Spearman's correlation of two (N,); 1 where either is constant, since nothing then tells them apart."""
    ranks = torch.stack([first, second]).argsort(1).argsort(1).double()
    constant = min(first.std(), second.std()) < 1e-6
    return 1.0 if constant else float(torch.corrcoef(ranks)[0, 1])
