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

MOST_BELIEFS = 2**27
"""Pairs times labels up to which every label of every pair is weighed; beyond that, labels are treated as captions."""


@dataclass(frozen=True)
class SuggestedTexts:
    """Texts for some pairs.

    Attributes:
        rows: (M,) int64, the pairs for which there is a text
        candidates: M, of each up to five texts with their probabilities, the likeliest first; never its own
        own: (M,), 0 to 1, how likely its own text is right
    """

    rows: np.ndarray
    candidates: list[dict[str, float]]
    own: np.ndarray

    def first(self) -> dict[int, tuple[str, float]]:
        """The likeliest text and its probability, by pair; none for pairs whose own text is likelier."""
        found = {}
        for row, candidates, own in zip(self.rows.tolist(), self.candidates, self.own, strict=True):
            text, probability = next(iter(candidates.items()))
            if probability > own:
                found[row] = text, probability
        return found


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
    seed: int = 0,
) -> SuggestedTexts:
    """Find the texts of the dataset that probably belong to some images.

    Args:
        pairs: the features of the N pairs, as they were when the heads were fitted
        heads: of the cross-fit, one per fold
        fold: (N,) int64, the fold that each pair is in
        probability: (N,), the misalignment of each pair
        texts: the N texts
        rows: (M,) int64, the pairs to find texts for
        seed: of the samples that are drawn

    Returns:
        :class:`SuggestedTexts`; pairs for which no text is likely are left out
    """
    if not len(rows):
        return SuggestedTexts(rows, [], np.empty(0))
    distinct, place = np.unique(np.asarray(texts, dtype=object), return_inverse=True)
    found = suggest(pairs, heads, fold, probability, place, rows, seed)
    likely = np.flatnonzero(found.probability[:, 0] > 0.0)
    candidates = [
        {distinct[text]: float(p) for text, p in zip(found.text[row], found.probability[row], strict=True) if p > 0.0}
        for row in likely
    ]
    return SuggestedTexts(rows[likely], candidates, found.own[likely])
