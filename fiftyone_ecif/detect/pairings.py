"""Pairings whose nature is known: with texts that a head believes in, and with wrong ones, far and near."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from fiftyone_ecif.attribution.settings import Settings
from fiftyone_ecif.core import Linearization, Pairs
from fiftyone_ecif.detect.cross_fit import CrossFit, held_out_rounds, surprise

CONFIDENCES = (0.4, 0.6, 0.85, 1.3, 2.0)
"""Factors by which the logits are scaled where texts are drawn by the beliefs of a head. Heads are overconfident on
pairs that they were not fitted on, by about .6 (docs/detection.md)."""

NEAR = (32, 8, 1)
"""A wrong text near the right one is one of so many nearest in its batch."""

SAME_TEXT = 0.95
"""Cosine similarity above which a text is no wrong one: it says the same."""

REFERENCE_PAIRS = 2_048
"""Images that are paired in each way, some of them twice where there are fewer."""


@dataclass(frozen=True)
class Pairings:
    """M images, each with a text, as a head that was fitted on neither sees them.

    Attributes:
        rows: int64 (M,), the pairs whose images they are
        partner: int64 (M,), the pairs whose texts they are
        surprise: float32 (M,), nats, see :func:`~fiftyone_ecif.detect.cross_fit.surprise`
    """

    rows: Tensor
    partner: Tensor
    surprise: Tensor


@dataclass(frozen=True)
class References:
    """Pairings that the given pairs are held against.

    Attributes:
        right: by each of :data:`CONFIDENCES`, with texts drawn by the beliefs of the head
        random: with any other text: what captions that have changed places look like
        near: by each of :data:`NEAR`, with a text near that of the image's own pair
    """

    right: list[Pairings]
    random: Pairings
    near: list[Pairings]


def given_pairings(fitted: CrossFit) -> Pairings:
    """The N pairs as they are."""
    rows = torch.arange(len(fitted.surprise))
    return Pairings(rows, rows, fitted.surprise.float())


def reference_pairings(pairs: Pairs, fitted: CrossFit, settings: Settings, device: str = "cpu") -> References:
    """Pair images with texts of their batches in ways whose nature is known, and score them as pairs are scored.

    Args:
        pairs: the features of the N pairs, as they were scored
        fitted: by :func:`~fiftyone_ecif.detect.cross_fit.cross_fit`
        settings: batch size, rounds and seed are used
        device: where to compute

    Returns:
        :class:`References`
    """
    generator = torch.Generator().manual_seed(settings.seed)
    choices: list[Choice] = [partial(_believed, confidence) for confidence in CONFIDENCES]
    choices += [_random, *(partial(_near, count) for count in NEAR)]
    parts: list[list[Pairings]] = [[] for _ in choices]
    held_out = fitted.held_out(pairs, device)
    for part, head in held_out:
        left = -(-REFERENCE_PAIRS // len(held_out))
        for index in (index for batches in held_out_rounds(part, settings) for index in batches):
            if left <= 0:
                break
            left -= len(index)
            batch = head.linearize(*part.gather(index))
            rows = part.index[index]
            for choice, found in zip(choices, parts, strict=True):
                drawn = choice(batch, generator)
                scored = surprise(batch, drawn.to(batch.image.device)).float().cpu()
                found.append(Pairings(rows, rows[drawn], scored))
    joined = [
        Pairings(*(torch.cat([getattr(each, name) for each in found]) for name in ("rows", "partner", "surprise")))
        for found in parts
    ]
    beliefs = len(CONFIDENCES)
    return References(joined[:beliefs], joined[beliefs], joined[beliefs + 1 :])


Choice = Callable[[Linearization, torch.Generator], Tensor]
"""The pair of a batch whose text each of its images gets, int64 (B,)."""


def _believed(confidence: float, batch: Linearization, generator: torch.Generator) -> Tensor:
    beliefs = (confidence * batch.similarity()).softmax(1).cpu()
    return torch.multinomial(beliefs, 1, generator=generator).squeeze(1)


def _random(batch: Linearization, generator: torch.Generator) -> Tensor:
    own = torch.arange(len(batch.text))
    return (own + torch.randint(1, len(own), own.shape, generator=generator)) % len(own)


def _near(count: int, batch: Linearization, generator: torch.Generator) -> Tensor:
    likeness = (batch.text @ batch.text.T).cpu()
    likeness[likeness > SAME_TEXT] -= 3.0  # below all others, and in their old order where all say the same
    likeness.fill_diagonal_(-torch.inf)
    near = likeness.topk(min(count, len(likeness) - 1), dim=1).indices
    return near.gather(1, torch.randint(near.shape[1], (len(near), 1), generator=generator)).squeeze(1)
