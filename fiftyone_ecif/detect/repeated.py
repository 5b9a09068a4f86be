"""What a classifier of images into texts says, where the texts repeat: evidence that owes nothing to a model's head."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from torch import Tensor

from fiftyone_ecif.core.likeness import likeness, surprise_at

FOLDS = 5

MOST_TEXTS = 200
"""Distinct texts up to which they are taken for classes."""

LEAST_COVERED = 0.9
"""Share of the pairs whose text must occur often enough to be learnt."""


def repeated_text_surprise(image: Tensor, text: Tensor, partner: Tensor, logit_scale: float, seed: int = 0) -> Tensor:
    """How much less a classifier that has not seen the pair expects its text than texts are expected on the whole.

    −log [Σ_c p_n(c) K(y, c) / Σ_c p(c) K(y, c)] over the distinct texts c, with p_n the out-of-fold probabilities of a
    logistic regression on image embeddings (as in confident learning: Northcutt et al., JAIR 2021), p(c) the texts'
    shares and K(y, c) = exp(3τ (v·v_c − 1)), so that templates of one class are no rivals.

    Args:
        image: (N, D) unit vectors
        text: (N, D) unit vectors; equal rows are one text
        partner: int64 (N,), whose text each image is paired with; its own for the pairs as they are
        logit_scale: τ
        seed: of the folds

    Returns:
        (N,), nats, higher = more suspicious; 0 where a text is too rare, and everywhere where most texts are
    """
    silent = torch.zeros(len(image))
    # The same text may differ in its last digits, by the batch that it was projected in.
    rounded = np.round(text.numpy(), 5)
    _, *found = np.unique(rounded, axis=0, return_index=True, return_inverse=True, return_counts=True)
    first, own, counts = (torch.from_numpy(part.reshape(-1)) for part in found)
    frequent = counts >= FOLDS
    learnt = frequent[own]
    if not 2 <= int(frequent.sum()) <= MOST_TEXTS or learnt.float().mean() < LEAST_COVERED:
        return silent
    classes = text[first[frequent]]
    number = torch.cumsum(frequent, 0) - 1
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    expected = cross_val_predict(
        LogisticRegression(max_iter=300), image[learnt].numpy(), number[own[learnt]].numpy(), cv=folds,
        method="predict_proba",
    )  # fmt: skip
    same = likeness(text[partner[learnt]], classes, logit_scale)
    share = counts[frequent] / counts[frequent].sum()
    ratio = (torch.from_numpy(np.asarray(expected)).float() * same).sum(1) / (share * same).sum(1)
    silent[learnt] = surprise_at(ratio)
    return silent
