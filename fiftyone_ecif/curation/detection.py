"""From a run's outcome to misalignment and suggested texts: the step that runs and benchmarks share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from fiftyone_ecif.core import Head, embeddings_under
from fiftyone_ecif.detect import Misalignment, misalignment, suggest
from fiftyone_ecif.engine import InfluenceOutcome
from fiftyone_ecif.features import ArrayPairs, StoredPairs

SUSPECTED = 0.5
"""Misalignment from which a pair gets a suggestion."""

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


def find_misaligned(pairs: StoredPairs | ArrayPairs, head: Head, outcome: InfluenceOutcome) -> Misalignment:
    """How likely each pair is misaligned.

    Args:
        pairs: the features of the N pairs
        head: the given weights
        outcome: of :func:`~fiftyone_ecif.engine.compute` for them

    Returns:
        a :class:`~fiftyone_ecif.detect.Misalignment`
    """
    image, text = embeddings_under(pairs, head)
    scores = outcome.scores
    return misalignment(image, text, scores.held_out_loss, scores.swap_loss, scores.swap_partner)


def suggest_texts(
    pairs: StoredPairs | ArrayPairs, outcome: InfluenceOutcome, found: Misalignment, texts: list[str]
) -> SuggestedTexts:
    """A better text for every suspected pair, out of those that unsuspected pairs have.

    Args:
        pairs: the features of the N pairs
        outcome: of :func:`~fiftyone_ecif.engine.compute` for them
        found: their misalignment
        texts: the caption or label of each

    Returns:
        :class:`SuggestedTexts`; a suggestion may be the text that the pair has
    """
    first: dict[str, int] = {}
    for row, text in enumerate(texts):
        first.setdefault(text, row)
    distinct = list(first)
    place = {text: number for number, text in enumerate(distinct)}
    trusted = [place[text] for text, p in zip(texts, found.probability, strict=True) if p < TRUSTED]
    counts = torch.bincount(torch.tensor(trusted, dtype=torch.int64), minlength=len(distinct)).float()
    suspected = np.flatnonzero(found.probability >= SUSPECTED)
    text_rows = torch.tensor([first[text] for text in distinct])
    rows, suggested, confidence = [], [], []
    for half, head in enumerate(outcome.halves):
        # The head fitted on the other half: this pair had no influence on it.
        members = torch.from_numpy(suspected[outcome.half.numpy()[suspected] != half])
        image = head.linearize(*pairs.gather(members)).image
        text = head.linearize(*pairs.gather(text_rows)).text
        part = suggest(image, text, counts, head.logit_scale.exp().item())
        rows.append(members.numpy())
        suggested += [distinct[number] for number in part.text]
        confidence.append(part.confidence)
    return SuggestedTexts(np.concatenate(rows), suggested, np.concatenate(confidence))
