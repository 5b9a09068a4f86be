"""Pairs whose texts come from labels, seen as pairs of an image and a label."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from fiftyone_ecif.core import Pairs

CHUNK = 4096
"""Pairs whose features are read together."""


class LabelledPairs:
    """Pairs of images and labels: the text features of a label are the mean over all texts of that label.

    A label that is put into templates says the same thing in many words. The mean of these texts represents it, as in
    zero-shot classification by an ensemble of prompts (Radford et al., ICML 2021, §3.1.4), and pairs with the same
    label do not compete with each other. Implements :class:`~fiftyone_ecif.core.pairs.Pairs`.

    Args:
        pairs: N pairs
        labels: N, the label in the text of each pair
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
