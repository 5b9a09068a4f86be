"""Embeddings as rows that can be read a few at a time, so that none of the mathematics needs all of them in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import normalize

TOGETHER = 8192
"""Rows that are read at a time."""


class Vectors(Protocol):
    """A source of N vectors of D numbers.

    Attributes:
        dim: D
    """

    dim: int

    def __len__(self) -> int: ...

    def gather(self, index: Tensor) -> Tensor:
        """The vectors ``index`` (int64, (B,)), in that order: (B, D), of any length above 0."""
        ...


class TensorVectors:
    """Vectors held in memory.

    Args:
        rows: (N, D)

    Raises:
        ValueError: if there are none, or one is not finite or all zeros
    """

    def __init__(self, rows: Tensor) -> None:
        if rows.ndim != 2 or not len(rows):
            raise ValueError(f"Vectors must be the rows of a matrix, not a tensor of shape {tuple(rows.shape)}.")
        unusable = ~rows.isfinite().all(1) | (rows == 0).all(1)
        if unusable.any():
            raise ValueError(
                f"{int(unusable.sum())} vectors are not finite or all zeros, the first of them in row "
                f"{int(unusable.nonzero()[0])}: they have no direction."
            )
        self.rows, self.dim = rows, rows.shape[1]

    def __len__(self) -> int:
        return len(self.rows)

    def gather(self, index: Tensor) -> Tensor:
        return self.rows[index]


class Fused:
    """z of image and query: the mean of the two unit vectors, not normalised again; laid end to end if widths differ.

    Args:
        parts: image and query, or one of the two alone

    Raises:
        ValueError: if there are not as many of the one as of the other
    """

    def __init__(self, parts: Sequence[Vectors]) -> None:
        if len({len(part) for part in parts}) != 1:
            raise ValueError(f"{' and '.join(str(len(part)) for part in parts)} vectors do not belong together.")
        self.parts, widths = list(parts), {part.dim for part in parts}
        self.added = len(widths) == 1
        self.dim = parts[0].dim if self.added else sum(part.dim for part in parts)

    def __len__(self) -> int:
        return len(self.parts[0])

    def gather(self, index: Tensor) -> Tensor:
        rows = [unit(part.gather(index)) for part in self.parts]
        return torch.stack(rows).mean(0) if self.added else torch.cat(rows, 1) / len(rows)


def unit(rows: Tensor) -> Tensor:
    """Rows of length 1, float64."""
    return normalize(rows.double(), dim=1)


def chunks(count: int) -> Iterator[Tensor]:
    """The numbers 0 to ``count`` − 1 as int64 tensors of at most :data:`TOGETHER`."""
    return iter(torch.split(torch.arange(count), TOGETHER))
