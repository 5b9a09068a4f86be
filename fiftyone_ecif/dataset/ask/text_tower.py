"""Texts that a run has not seen, as its model reads them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fiftyone_ecif.core import Head
from fiftyone_ecif.models import ContrastiveModel

TOGETHER = 256
"""Texts that the tower reads together."""


@torch.no_grad()
def text_features(model: ContrastiveModel, texts: Sequence[str]) -> Tensor:
    """What the text tower gives its projection.

    Args:
        model: the run's
        texts: one or more

    Returns:
        (M, F_text), float32, on the CPU
    """
    parts = [list(texts[start : start + TOGETHER]) for start in range(0, len(texts), TOGETHER)]
    return torch.cat([model.text_features(model.tokenize(part)).float().cpu() for part in parts])


def text_embeddings(model: ContrastiveModel, head: Head, texts: Sequence[str]) -> Tensor:
    """The embeddings of texts under a head, unit vectors (M, D); M may be 0."""
    features = text_features(model, texts) if texts else torch.empty(0, head.text_weight.shape[1])
    return head.linearize(features.new_zeros(len(features), head.image_weight.shape[1]), features).text
