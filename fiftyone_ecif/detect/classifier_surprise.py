"""Evidence from a classifier of images into repeated texts, which does not depend on the head of a model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from torch import Tensor

from fiftyone_ecif.core.text_kernel import likeness, surprise_at

FOLDS = 5

MOST_TEXTS = 200
"""Largest number of distinct texts that are treated as classes."""

LEAST_COVERED = 0.9
"""Share of the pairs whose text must occur often enough to be a class."""


@dataclass(frozen=True)
class RepeatedTexts:
    """The C texts that occur often enough to be classes.

    Attributes:
        text: (C, D) unit vectors
        own: int64 (N,), the text of each pair among them; −1 where it is too rare
        share: (C,), how many of those pairs have it, in 0..1
    """

    text: Tensor
    own: Tensor
    share: Tensor

    @classmethod
    def find(cls, text: Tensor) -> RepeatedTexts | None:
        """The repeated texts among (N, D) unit vectors, equal rows being one text; None where most texts are rare."""
        # The embeddings of one text may differ in their last digits, depending on the batch it was projected in.
        rounded = np.round(text.numpy(), 5)
        _, *found = np.unique(rounded, axis=0, return_index=True, return_inverse=True, return_counts=True)
        first, own, counts = (torch.from_numpy(part.reshape(-1)) for part in found)
        frequent = counts >= FOLDS
        if not 2 <= int(frequent.sum()) <= MOST_TEXTS or frequent[own].float().mean() < LEAST_COVERED:
            return None
        number = torch.where(frequent, torch.cumsum(frequent, 0) - 1, -1)
        return cls(text[first[frequent]], number[own], counts[frequent] / counts[frequent].sum())

    def expected(self, image: Tensor, seed: int = 0) -> Tensor:
        """:func:`out_of_fold` probabilities of the texts, (N, C)."""
        return out_of_fold(image, self.own, len(self.text), seed)

    def surprise(self, expected: Tensor, text: Tensor, rows: Tensor, partner: Tensor, logit_scale: float) -> Tensor:
        """How much less likely a text is to a classifier that has not seen the pair than it is for any image.

        −log [Σ_c p_n(c) K(y, c) / Σ_c p(c) K(y, c)] over the repeated texts c, where p(c) are their shares and
        K(y, c) = exp(3τ (v·v_c − 1)), so that texts from different templates of one class do not compete.

        Args:
            expected: (N, C), p_n(c)
            text: (N, D) unit vectors, all texts
            rows: int64 (M,), the pairs whose images are scored
            partner: int64 (M,), the pair whose text each image is scored with; n itself for the pairs as they are
            logit_scale: τ

        Returns:
            (M,), nats, higher = more suspicious; 0 where the text of the pair itself is too rare
        """
        same = likeness(text[partner], self.text, logit_scale)
        found = surprise_at((expected[rows] * same).sum(1) / (self.share * same).sum(1).clamp_min(1e-12))
        return torch.where(self.own[rows] >= 0, found, 0.0)


def out_of_fold(image: Tensor, label: Tensor, classes: int, seed: int = 0) -> Tensor:
    """Probabilities of the labels by a logistic regression on images that was not trained on the pair.

    This is the out-of-sample probability of confident learning (Northcutt et al., JAIR 2021).

    Args:
        image: (N, D) unit vectors
        label: int64 (N,), 0 to C − 1; −1 for none
        classes: C
        seed: of the folds

    Returns:
        (N, C); for pairs whose label is too rare, and for those without a label, the shares of the labels
    """
    counts = torch.bincount(label[label >= 0], minlength=classes)
    share = counts / counts.sum().clamp_min(1)
    result = share.expand(len(label), classes).clone()
    learnt = (label >= 0) & (counts[label] >= FOLDS)
    known = (counts >= FOLDS).nonzero().squeeze(1)
    if len(known) < 2:
        return result
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    found = cross_val_predict(
        LogisticRegression(max_iter=300), image[learnt].numpy(), label[learnt].numpy(), cv=folds, method="predict_proba"
    )
    result[learnt] = torch.zeros(len(found), classes).index_copy_(1, known, torch.from_numpy(found).float())
    return result
