"""From features to misalignment and suggested texts: the step that runs and benchmarks share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fiftyone_ecif.core import Head, Pairs, Progress, embeddings_under, silent
from fiftyone_ecif.detect import Misalignment, misalignment, suggest
from fiftyone_ecif.engine import CrossFit, Settings, cross_fit

TRUSTED = 0.5
"""Misalignment below which a pair's text may be suggested for others."""


@dataclass(frozen=True)
class SuggestedTexts:
    """Texts suggested for the suspected pairs.

    Attributes:
        rows: (M,) int64, the pairs
        texts: M, one for each
        confidence: (M,), 0 to 1
    """

    rows: np.ndarray
    texts: list[str]
    confidence: np.ndarray


def find_misaligned(
    pairs: Pairs,
    views: Pairs | None,
    head: Head,
    loss: str,
    settings: Settings,
    device: str = "cpu",
    progress: Progress = silent,
    trusted: Tensor | None = None,
) -> tuple[Misalignment, CrossFit]:
    """How likely each pair is misaligned.

    Args:
        pairs: the features of the N pairs
        views: the same with each image's mean over mild views; None without a model
        head: the given weights
        loss: a key of :data:`~fiftyone_ecif.core.LOSSES`
        settings: batch size, anchor, rounds and seed are used
        device: where to compute
        progress: called with each step's name
        trusted: bool (N,), pairs that somebody has found right: heads are fitted on them, and they are not suspected

    Returns:
        a :class:`~fiftyone_ecif.detect.Misalignment`, and the cross-fit that it stands on
    """
    if trusted is None:
        trusted = torch.zeros(len(pairs), dtype=torch.bool)
    fitted = cross_fit(pairs, views, head, loss, settings, device, progress, trusted)
    image, text = embeddings_under(views or pairs, head)
    found = misalignment(
        image, text, fitted.losses, fitted.plausible, fitted.plausible_losses, fitted.memorised, trusted
    )
    return found, fitted


def suggest_texts(
    pairs: Pairs,
    heads: Sequence[Head],
    half: Tensor,
    probability: np.ndarray,
    texts: Sequence[str],
    rows: np.ndarray,
) -> SuggestedTexts:
    """The text that fits each image best, out of those that believed pairs have.

    Args:
        pairs: the features of the N pairs, as they were judged
        heads: of the cross-fit
        half: (N,) int64, the half that each pair is in
        probability: (N,), their misalignment
        texts: what each says
        rows: (M,) which of them to find a text for

    Returns:
        :class:`SuggestedTexts`; a suggestion may be the text that the pair has
    """
    first: dict[str, int] = {}
    for row, text in enumerate(texts):
        first.setdefault(text, row)
    distinct = list(first)
    place = {text: number for number, text in enumerate(distinct)}
    trusted = [place[text] for text, p in zip(texts, probability, strict=True) if p < TRUSTED]
    counts = torch.bincount(torch.tensor(trusted, dtype=torch.int64), minlength=len(distinct)).float()
    text_rows = torch.tensor([first[text] for text in distinct])
    asked: list[np.ndarray] = []
    suggested: list[str] = []
    confidence: list[np.ndarray] = []
    for number, head in enumerate(heads):
        # The head fitted on the other half: this pair had no influence on it.
        members = torch.from_numpy(rows[half.numpy()[rows] != number])
        if len(members) == 0:
            continue
        image = head.linearize(*pairs.gather(members)).image
        text = head.linearize(*pairs.gather(text_rows)).text
        part = suggest(image, text, counts, head.logit_scale.exp().item())
        asked.append(members.numpy())
        suggested += [distinct[index] for index in part.text]
        confidence.append(part.confidence)
    if not asked:
        return SuggestedTexts(np.empty(0, dtype=np.int64), [], np.empty(0))
    return SuggestedTexts(np.concatenate(asked), suggested, np.concatenate(confidence))
