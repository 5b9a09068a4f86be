"""Representation Jensen-Shannon divergence of two sets of embeddings, and which rows and directions it comes from.

K = Φᵀ Φ / n of unit rows is a density matrix with the von Neumann entropy H(K) = −tr(K log K). The divergence is
H(π K_X + (1 − π) K_Y) − ½ H(K_X) − ½ H(K_Y) (Hoyos-Osorio et al., arXiv 2305.16446; as used by Oh et al., ICML 2025).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from fiftyone_ecif.core.eigenvectors import eigenvectors
from fiftyone_ecif.shift.vectors import Vectors, chunks, unit

WEIGHTINGS = {
    "mean": "each set weighs ½ in the mixture, whatever its size",
    "count": "each row weighs the same in the mixture, as in the authors' code: no Jensen-Shannon divergence if sizes "
    "differ",
}
NONE_LEFT = 1e-13
"""Eigenvalues up to this share of their sum are rounding."""


@dataclass(frozen=True)
class Moment:
    """The second moment of unit rows.

    Attributes:
        count: n
        matrix: K = Φᵀ Φ / n, (D, D) float64
    """

    count: int
    matrix: Tensor


def second_moment(vectors: Vectors) -> Moment:
    """K of some vectors, read a few at a time: memory does not grow with their number."""
    total = torch.zeros(vectors.dim, vectors.dim, dtype=torch.float64)
    for index in chunks(len(vectors)):
        rows = unit(vectors.gather(index))
        total.addmm_(rows.T, rows)
    return Moment(len(vectors), total / len(vectors))


def entropy(matrix: Tensor) -> float:
    """Von Neumann entropy of a symmetric matrix, nats: of its eigenvalues above 0, renormalised to sum 1."""
    values = torch.linalg.eigvalsh(matrix)
    values = values[values > 0]
    return float(torch.special.entr(values / values.sum()).sum())


def first_weight(count: int, other: int, weighting: str) -> float:
    """π, the weight of the first of two sets in the mixture.

    Raises:
        ValueError: for a weighting that is not one of :data:`WEIGHTINGS`
    """
    if weighting not in WEIGHTINGS:
        raise ValueError(f"weighting must be one of {', '.join(map(repr, WEIGHTINGS))}, not {weighting!r}.")
    return 0.5 if weighting == "mean" else count / (count + other)


def jensen_shannon(first: Tensor, second: Tensor, weight: float) -> float:
    """The divergence of two second moments.

    Args:
        first: K_X, (D, D)
        second: K_Y, likewise
        weight: π of the first

    Returns:
        nats; 0 to log 2 for π = ½
    """
    mixture = weight * first + (1.0 - weight) * second
    return entropy(mixture) - (entropy(first) + entropy(second)) / 2


@dataclass(frozen=True)
class Comparison:
    """Two sets of vectors side by side.

    Attributes:
        moments: of the two
        weight: π of the first
        value: the divergence, nats
    """

    moments: tuple[Moment, Moment]
    weight: float
    value: float

    @classmethod
    def of(cls, first: Vectors, second: Vectors, weighting: str = "mean") -> Comparison:
        """Compare two sets.

        Args:
            first: vectors of any length, which are normalised
            second: likewise, as wide
            weighting: a key of :data:`WEIGHTINGS`

        Raises:
            ValueError: if the widths differ, or for another weighting
        """
        if first.dim != second.dim:
            raise ValueError(
                f"The one set has vectors of {first.dim} numbers and the other of {second.dim}: both must come from "
                "one encoder."
            )
        weight = first_weight(len(first), len(second), weighting)
        moments = second_moment(first), second_moment(second)
        return cls(moments, weight, jensen_shannon(moments[0].matrix, moments[1].matrix, weight))

    @property
    def few(self) -> bool:
        """Whether a set has fewer rows than dimensions, so that the divergence is biased upwards."""
        return any(each.count < len(each.matrix) for each in self.moments)

    def ceiling(self) -> float:
        """The divergence of two such sets if they had no direction in common; log 2 for π = ½."""
        apart = torch.special.entr(torch.tensor([self.weight, 1.0 - self.weight], dtype=torch.float64)).sum()
        first, second = (entropy(each.matrix) for each in self.moments)
        return float(apart) + (self.weight - 0.5) * (first - second)

    def part_of(self, side: int) -> Callable[[Tensor], Tensor]:
        """What each row of a side adds to the divergence, as a function of rows (B, D).

        s(φ) = φᵀ (½ log K − π log M) φ with M the mixture. The mean over the rows of X plus that over the rows of Y is
        the divergence.
        """
        weight = (self.weight, 1.0 - self.weight)[side]
        first, second = (each.matrix for each in self.moments)
        mixture = self.weight * first + (1.0 - self.weight) * second
        ratio = _logarithm(self.moments[side].matrix) / 2 - weight * _logarithm(mixture)

        def part(rows: Tensor) -> Tensor:
            rows = unit(rows)
            return ((rows @ ratio) * rows).sum(1)

        return part

    def contributions(self, vectors: Vectors, side: int) -> Tensor:
        """What each row adds to the divergence.

        Its distance from the mean, over n − 1, is how much the divergence would fall to first order if the row were
        left out (:func:`left_out`).

        Args:
            vectors: those that were compared
            side: 0 for the first set, 1 for the second

        Returns:
            (n,) float64, nats
        """
        part = self.part_of(side)
        return torch.cat([part(vectors.gather(index)) for index in chunks(len(vectors))])


def left_out(contributions: Tensor) -> Tensor:
    """How much the divergence falls, to first order, if each row is left out: the derivative of its closed form.

    Args:
        contributions: (n,), by :meth:`Comparison.contributions`

    Returns:
        (n,), nats; below 0 where it would rise
    """
    return (contributions - contributions.mean()) / max(len(contributions) - 1, 1)


def _logarithm(matrix: Tensor) -> Tensor:
    """log K on the span of its rows, 0 beside it."""
    values, vectors = eigenvectors(matrix)
    kept = values > NONE_LEFT * values.sum()
    return (vectors[:, kept] * values[kept].log()) @ vectors[:, kept].T
