"""A better text for an image, among the texts of the dataset."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

CANDIDATES = 64
"""Texts that are compared with each other for an image."""

SAME = 0.95
"""Cosine similarity from which two texts count as saying the same."""


@dataclass(frozen=True)
class Suggestions:
    """A suggested text for each image.

    Attributes:
        text: (M,) int64, index of the suggested text
        confidence: (M,), 0 to 1: probability of the texts that say the same as the suggested one
    """

    text: np.ndarray
    confidence: np.ndarray


def suggest(image: Tensor, texts: Tensor, counts: Tensor, logit_scale: float) -> Suggestions:
    """The text that an image would most probably be paired with.

    The probability of text c for image n is the softmax over c of τ u_n·v_c + log(number of pairs with text c that are
    believed to be right).

    Args:
        image: (M, D) unit vectors, by a head that was not fitted on these pairs
        texts: (C, D) unit vectors of distinct texts
        counts: (C,) how many pairs believed to be right have the text; texts with none are not suggested
        logit_scale: τ

    Returns:
        :class:`Suggestions`
    """
    prior = counts.clamp_min(1e-30).log()
    chosen, confidence = [], []
    for rows in torch.split(image, 1024):
        top, index = (logit_scale * rows @ texts.T + prior).topk(min(CANDIDATES, len(texts)), dim=1)
        probability = top.softmax(1)
        near = texts[index]  # (m, K, D)
        same = (near @ near.mT > SAME).to(probability)
        mass = (same * probability[:, None, :]).sum(-1)
        # The likeliest meaning comes first, and then its likeliest wording.
        best = (mass * (probability > 0) + 1e-6 * probability).argmax(1, keepdim=True)
        chosen.append(index.gather(1, best).squeeze(1))
        confidence.append(mass.gather(1, best).squeeze(1))
    if not chosen:
        return Suggestions(np.empty(0, dtype=np.int64), np.empty(0))
    return Suggestions(torch.cat(chosen).numpy(), torch.cat(confidence).double().clamp(0, 1).numpy())
