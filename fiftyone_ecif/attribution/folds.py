"""Folds of the pairs: what each fit of a cross-fitted run is at rest on, and the pairs that its target is."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

FOLDS = 7
"""Fits of a cross-fitted run at head scope, each of which leaves out one fold. An odd number keeps the folds from being
parts of the two that misalignment is judged by."""

FEW_FOLDS = 3
"""Fits of deeper scopes, each of which passes through the towers; with fewer, a pair has one value and no error."""

LEAST_FOLD = 4
"""Pairs of a fold, unless two folds are smaller."""

BELIEVED_BELOW = 0.2
"""Misalignment below which a pair is believed, and may be part of a target of others (docs/reliability.md)."""

LEAST_BELIEVED = 8
"""Believed pairs that a fold has at least; where fewer are, its least suspected half is."""

SMALLEST_BATCH = 2
"""Pairs that a contrastive loss needs at least."""


@dataclass(frozen=True)
class Folds:
    """Random folds of N pairs. Fit ``number`` is at rest on all of them but fold (number + 1) % count, its target.

    Of two folds, fit 0 is thus at rest on fold 0, and judged by fold 1.

    Args:
        fold: int64 (N,), 0 to ``count`` - 1, the fold of each pair
        count: how many folds, and as many fits
    """

    fold: Tensor
    count: int

    @classmethod
    def of(cls, pairs: int, count: int, seed: int) -> Folds:
        """Folds whose sizes differ by at most one.

        Args:
            pairs: N
            count: how many folds; see :func:`fold_count`
            seed: of the permutation that they are drawn by
        """
        return cls(torch.randperm(pairs, generator=torch.Generator().manual_seed(seed)) % count, count)

    def members(self, number: int) -> Tensor:
        """The pairs that a fit is at rest on, int64, rising."""
        return (self.fold != (number + 1) % self.count).nonzero().squeeze(1)

    def held_out(self, number: int) -> Tensor:
        """The pairs that a fit has not seen, int64, rising."""
        return (self.fold == (number + 1) % self.count).nonzero().squeeze(1)

    def target(self, number: int, believed: Tensor | None) -> Tensor:
        """The pairs that a fit is judged by, int64, rising.

        Args:
            number: of the fit
            believed: bool (N,), as :meth:`believed` returns it; None where all pairs are
        """
        rows = self.held_out(number)
        if believed is None or int(believed[rows].sum()) < SMALLEST_BATCH:
            return rows
        return rows[believed[rows]]

    def believed(self, misalignment: Tensor) -> Tensor:
        """Which pairs may be part of a target, by their misalignment (N,), 0 to 1; bool (N,).

        They are those below :data:`BELIEVED_BELOW`. A fold with fewer than :data:`LEAST_BELIEVED` of them would be a
        target of noise: its least suspected half is believed.
        """
        result = misalignment < BELIEVED_BELOW
        for number in range(self.count):
            rows = self.held_out(number)
            if int(result[rows].sum()) < LEAST_BELIEVED:
                least = misalignment[rows].argsort(stable=True)[: max(SMALLEST_BATCH, -(-len(rows) // 2))]
                result[rows[least]] = True
        return result


def fold_count(pairs: int, most: int) -> int:
    """How many folds so many pairs are put into: at most ``most``, fewer where there are few pairs, and at least 2."""
    return max(2, min(most, pairs // LEAST_FOLD))
