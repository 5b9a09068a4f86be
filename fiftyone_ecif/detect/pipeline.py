"""From features to misalignment and suggested texts: the steps that runs and benchmarks share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fiftyone_ecif.attribution import Settings
from fiftyone_ecif.core import Head, Pairs, Progress, embeddings_under, silent
from fiftyone_ecif.detect.captions import Misalignment, misalignment
from fiftyone_ecif.detect.cross_fit import CrossFit, cross_fit, label_beliefs
from fiftyone_ecif.detect.labelled_pairs import LabelledPairs
from fiftyone_ecif.detect.labels import label_misalignment
from fiftyone_ecif.detect.pairings import given_pairings, reference_pairings
from fiftyone_ecif.detect.suggestions import suggest
from fiftyone_ecif.detect.vagueness import vagueness

BELIEVED_BELOW = 0.5
"""Misalignment below which the text of a pair may be suggested for other pairs."""

MOST_BELIEFS = 2**27
"""Pairs times labels up to which every label of every pair is weighed; beyond that, labels are treated as captions."""


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
    """Estimate how likely each pair is misaligned.

    Args:
        pairs: the features of the N pairs; where their texts come from labels, as
            :class:`~fiftyone_ecif.detect.labelled_pairs.LabelledPairs`
        views: the same pairs, with the mean features over mild views of each image; None where no model is at hand
        head: the given weights
        loss: a key of :data:`~fiftyone_ecif.core.LOSSES`
        settings: batch size, anchor, rounds and seed are used
        device: where to compute
        progress: called with the name of each step
        trusted: bool (N,), pairs that somebody has found right: heads are fitted on them, and they are not suspected

    Returns:
        a :class:`~fiftyone_ecif.detect.Misalignment`, and the cross-fit that it is based on
    """
    if trusted is None:
        trusted = torch.zeros(len(pairs), dtype=torch.bool)
    fitted = cross_fit(pairs, views, head, loss, settings, device, progress, trusted)
    scored = views or pairs
    image, text = embeddings_under(scored, head)
    if isinstance(scored, LabelledPairs) and len(scored) * len(scored.text) <= MOST_BELIEFS:
        beliefs = label_beliefs(scored, scored.label, fitted)
        return label_misalignment(image, scored.label, beliefs, fitted.memorised, trusted, settings.seed), fitted
    found = misalignment(
        image,
        text,
        head.logit_scale.exp().item(),
        given_pairings(fitted),
        reference_pairings(scored, fitted, settings, device),
        fitted.memorised,
        trusted,
        settings.seed,
    )
    return found, fitted


def vague_texts(pairs: Pairs, fitted: CrossFit, seed: int, device: str = "cpu") -> np.ndarray:
    """How little each text tells its image from others, by the head that was not fitted on the pair.

    Args:
        pairs: the features of the N pairs, as they were scored
        fitted: the cross-fit
        seed: of the pairs that texts are held against
        device: where to compute

    Returns:
        (N,), 0 to 1, see :func:`~fiftyone_ecif.detect.vagueness.vagueness`
    """
    result: np.ndarray = np.empty(len(pairs))
    for part, head in fitted.held_out(pairs, device):
        image, text = (embeddings.cpu() for embeddings in embeddings_under(part, head))
        result[part.index.numpy()] = vagueness(image, text, seed).double().numpy()
    return result


def suggest_texts(
    pairs: Pairs,
    heads: Sequence[Head],
    fold: Tensor,
    probability: np.ndarray,
    texts: Sequence[str],
    rows: np.ndarray,
) -> SuggestedTexts:
    """Find the text that fits each image best, among the texts of pairs that are believed to be right.

    Args:
        pairs: the features of the N pairs, as they were when the heads were fitted
        heads: of the cross-fit, one per fold
        fold: (N,) int64, the fold that each pair is in
        probability: (N,), the misalignment of each pair
        texts: the N texts
        rows: (M,) int64, the pairs to find a text for

    Returns:
        :class:`SuggestedTexts`; a suggestion may be the text that the pair has
    """
    first: dict[str, int] = {}
    for row, text in enumerate(texts):
        first.setdefault(text, row)
    distinct = list(first)
    place = {text: number for number, text in enumerate(distinct)}
    believed = [place[text] for text, p in zip(texts, probability, strict=True) if p < BELIEVED_BELOW]
    counts = torch.bincount(torch.tensor(believed, dtype=torch.int64), minlength=len(distinct)).float()
    text_rows = torch.tensor([first[text] for text in distinct])
    asked: list[np.ndarray] = []
    suggested: list[str] = []
    confidence: list[np.ndarray] = []
    for number, head in enumerate(heads):
        # The head was fitted on fold `number`: pairs of the other fold had no influence on it.
        members = torch.from_numpy(rows[fold.numpy()[rows] != number])
        if len(members) == 0:
            continue
        image_embeddings = head.linearize(*pairs.gather(members)).image
        text_embeddings = head.linearize(*pairs.gather(text_rows)).text
        part = suggest(image_embeddings, text_embeddings, counts, head.logit_scale.exp().item())
        asked.append(members.numpy())
        suggested += [distinct[index] for index in part.text]
        confidence.append(part.confidence)
    if not asked:
        return SuggestedTexts(np.empty(0, dtype=np.int64), [], np.empty(0))
    return SuggestedTexts(np.concatenate(asked), suggested, np.concatenate(confidence))
