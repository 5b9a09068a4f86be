"""The directions in which two sets of embeddings differ most, and the rows that lie farthest along them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fiftyone_ecif.core.eigenvectors import eigenvectors
from fiftyone_ecif.shift.divergence import Comparison
from fiftyone_ecif.shift.vectors import Vectors, chunks, unit


@dataclass(frozen=True)
class Direction:
    """A direction in which two sets differ.

    Attributes:
        vector: (D,), unit
        masses: vᵀ K v of the first set and of the second: the mean square of the rows' coordinates, 0 to 1
        rows: of the set with the larger mass, those farthest along the direction, farthest first
    """

    vector: Tensor
    masses: tuple[float, float]
    rows: list[int]

    @property
    def side(self) -> int:
        """The set with the larger mass: 0 or 1."""
        return int(self.masses[1] > self.masses[0])


def top_directions(
    comparison: Comparison, first: Vectors, second: Vectors, count: int = 5, rows: int = 12
) -> list[Direction]:
    """The eigenvectors of K_Y − K_X with the largest eigenvalues by size.

    Args:
        comparison: of the two sets
        first: the sets
        second: likewise
        count: of directions, at most
        rows: named for each, at most

    Returns:
        the directions, the largest difference first
    """
    matrices = [each.matrix for each in comparison.moments]
    values, vectors = eigenvectors(matrices[1] - matrices[0])
    chosen = vectors[:, values.abs().argsort(descending=True)[:count]]
    masses = [((matrix @ chosen) * chosen).sum(0) for matrix in matrices]
    farthest = [_farthest(part, chosen, rows) for part in (first, second)]
    found = []
    for number in range(chosen.shape[1]):
        pair = float(masses[0][number]), float(masses[1][number])
        found.append(Direction(chosen[:, number], pair, farthest[pair[1] > pair[0]][number]))
    return found


def _farthest(vectors: Vectors, directions: Tensor, rows: int) -> list[list[int]]:
    """The rows with the largest squared coordinate along each of some directions (D, C)."""
    best = torch.zeros(0, directions.shape[1], dtype=torch.float64)
    places = torch.zeros(0, directions.shape[1], dtype=torch.int64)
    for index in chunks(len(vectors)):
        squares = (unit(vectors.gather(index)) @ directions).square()
        best = torch.cat([best, squares])
        places = torch.cat([places, index[:, None].expand_as(squares)])
        best, order = best.topk(min(rows, len(best)), dim=0)
        places = places.gather(0, order)
    return [column.tolist() for column in places.T]
