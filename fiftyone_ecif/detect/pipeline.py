"""From features to misalignment and suggested texts: the step that runs and benchmarks share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fiftyone_ecif.attribution import Settings
from fiftyone_ecif.core import Head, Pairs, Progress, embeddings_under, silent
from fiftyone_ecif.detect import (
    CrossFit,
    Misalignment,
    cross_fit,
    label_beliefs,
    label_misalignment,
    misalignment,
    plausible_pairings,
    suggest,
)

TRUSTED = 0.5
"""Misalignment below which a pair's text may be suggested for others."""

MOST_BELIEFS = 2**27
"""Pairs times labels up to which every label of every pair is weighed; beyond, labels are judged as texts are."""

CHUNK = 4096
"""Pairs whose features are read together."""


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


class LabelledPairs:
    """Pairs of images and labels: a text's features are the mean over the texts of its label.

    A label put into templates says the same in many words. Their mean is what it says, as in zero-shot classification
    by an ensemble of prompts (Radford et al., ICML 2021, §3.1.4), and pairs of one label are no rivals of each other.
    Implements :class:`~fiftyone_ecif.core.pairs.Pairs`.

    Args:
        pairs: N pairs
        labels: N, the label in each one's text
    """

    def __init__(self, pairs: Pairs, labels: Sequence[str]) -> None:
        self.pairs = pairs
        distinct, number = np.unique(np.asarray(labels, dtype=object).astype(str), return_inverse=True)
        self.label = torch.from_numpy(number)
        text_dim = pairs.gather(torch.arange(1))[1].shape[1]
        total = torch.zeros(len(distinct), text_dim)
        for index in torch.arange(len(pairs)).split(CHUNK):
            total.index_add_(0, self.label[index], pairs.gather(index)[1])
        self.text = total / torch.bincount(self.label)[:, None]

    def __len__(self) -> int:
        return len(self.pairs)

    def gather(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Features of the pairs ``index`` (int64, (B,)), in that order."""
        return self.pairs.gather(index)[0], self.text[self.label[index.cpu()]]


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
        pairs: the features of the N pairs; of labels as :class:`LabelledPairs`
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
    judged = views or pairs
    image, text = embeddings_under(judged, head)
    if isinstance(judged, LabelledPairs) and len(judged) * len(judged.text) <= MOST_BELIEFS:
        beliefs = label_beliefs(judged, judged.label, fitted)
        return label_misalignment(image, judged.label, beliefs, fitted.memorised, trusted, settings.seed), fitted
    plausible = plausible_pairings(judged, fitted, settings, device)
    found = misalignment(
        image,
        text,
        head.logit_scale.exp().item(),
        fitted.surprise,
        plausible.partner,
        plausible.surprise,
        fitted.memorised,
        trusted,
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
