"""The third step of a run: how likely each pair is misaligned, and better texts for the suspects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from fiftyone_ecif.core import Pairs, Progress
from fiftyone_ecif.dataset.compute.embed import Embedded
from fiftyone_ecif.dataset.compute.request import RunRequest
from fiftyone_ecif.dataset.repair.review import SUSPECTED
from fiftyone_ecif.dataset.repair.suggest import candidate_labels, suggestion_labels
from fiftyone_ecif.detect import CrossFit, Misalignment
from fiftyone_ecif.detect.labelled_pairs import LabelledPairs
from fiftyone_ecif.detect.pipeline import find_misaligned, suggest_texts, vague_texts


@dataclass(frozen=True)
class Judged:
    """How likely each pair is misaligned, and better texts for the suspects.

    Attributes:
        found: the misalignment
        cross_fit: that it stands on
        suggestions: label by sample id
        candidates: labels by sample id; None where there are no texts
        vagueness: (N,), 0 to 1, how little each text tells its image from the others; None for labels, each of which
            is meant to fit many images
        believed: bool (N,), the pairs that may be part of a target of others
    """

    found: Misalignment
    cross_fit: CrossFit
    suggestions: dict[str, Any]
    candidates: dict[str, Any] | None
    vagueness: np.ndarray | None
    believed: torch.Tensor


def detect(embedded: Embedded, request: RunRequest, device: str, report: Progress) -> Judged:
    """How likely each pair is misaligned, and how much its text says."""
    rows = embedded.rows
    trusted = torch.tensor(rows.trusted)
    pairs: Pairs = embedded.pairs
    views: Pairs | None = embedded.views
    texts = None if rows.texts is None else [str(text) for text in rows.texts]
    if texts is not None and rows.labelled:
        pairs = LabelledPairs(pairs, texts)
        views = None if views is None else LabelledPairs(views, texts)
    found, fitted = find_misaligned(
        pairs, views, embedded.head, embedded.source.loss, request.settings(), device, report, trusted
    )
    vagueness = None if rows.labelled else vague_texts(views or pairs, fitted, request.seed, device)
    believed = embedded.attributed.split(request.seed).believed(torch.from_numpy(found.probability))
    if texts is None:
        return Judged(found, fitted, {}, None, vagueness, believed)
    suspected, seed = np.flatnonzero(found.probability >= SUSPECTED), request.seed
    suggested = suggest_texts(views or pairs, fitted.heads, fitted.fold, found.probability, texts, suspected, seed)
    labels = suggestion_labels(suggested, rows.ids), candidate_labels(suggested, rows.ids)
    return Judged(found, fitted, *labels, vagueness, believed)
