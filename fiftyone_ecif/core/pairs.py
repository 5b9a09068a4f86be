"""Where batches come from: the inputs of a scope for any set of pairs."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from fiftyone_ecif.core.scope import Scope


class Pairs(Protocol):
    """Where batches come from: the inputs of the scope for any set of pair indices."""

    def __len__(self) -> int: ...

    def gather(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Image and text inputs of the pairs ``index`` (int64, (B,)), in that order."""
        ...


class TensorPairs:
    """Pairs held in memory.

    Args:
        image: (N, ...) image inputs
        text: (N, ...) text inputs
    """

    def __init__(self, image: Tensor, text: Tensor) -> None:
        if len(image) != len(text):
            raise ValueError(f"{len(image)} images and {len(text)} texts do not make pairs.")
        self.image, self.text = image, text

    def __len__(self) -> int:
        return len(self.image)

    def gather(self, index: Tensor) -> tuple[Tensor, Tensor]:
        return self.image[index], self.text[index]


class Subset:
    """Some of the pairs, as pairs; implements :class:`Pairs`.

    Args:
        pairs: all of them
        index: int64 (M,), the ones meant
    """

    def __init__(self, pairs: Pairs, index: Tensor) -> None:
        self.pairs, self.index = pairs, index

    def __len__(self) -> int:
        return len(self.index)

    def gather(self, index: Tensor) -> tuple[Tensor, Tensor]:
        return self.pairs.gather(self.index[index.cpu()])


def embeddings_under(pairs: Pairs, scope: Scope, together: int = 4096) -> tuple[Tensor, Tensor]:
    """u_n and v_n of all pairs under a scope, (N, D) each; so many inputs are read together."""
    parts = [scope.linearize(*pairs.gather(index)) for index in torch.split(torch.arange(len(pairs)), together)]
    return torch.cat([part.image for part in parts]), torch.cat([part.text for part in parts])
