"""Folds of the pairs: what each fit of a cross-fitted run is at rest on, and the pairs that its target is."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

FOLDS, SPLITS = 5, 2
"""Folds of the pairs at head scope, each of which one fit leaves out, and how often the pairs are split anew. A second
split gives every pair of a target other rivals and another fit, which takes away more noise than more folds."""

FEW_FOLDS = 3
"""Folds of few pairs, and of deeper scopes, whose fits pass through the towers; of two, each pair would have one value
and no error."""

FEW_PAIRS = 256
"""Pairs below which more fits do not pay: who is in the target then matters more than they can average out."""

LEAST_FOLD = 4
"""Pairs of a fold, unless two folds are smaller."""

BELIEVED_BELOW = 0.2
"""Misalignment below which a pair is believed, and may be part of a target of others (docs/ECIF.md)."""

LEAST_BELIEVED = 8
"""Believed pairs that a fold has at least; where fewer are, its least suspected half is."""

SMALLEST_BATCH = 2
"""Pairs that a contrastive loss needs at least."""


@dataclass(frozen=True)
class Folds:
    """Random folds of N pairs, drawn once or more. Each fit is at rest on all folds of a split but one, its target.

    Fit ``number`` leaves out fold (number + 1) % count of split number // count. Of two folds, fit 0 is thus at rest on
    fold 0 and judged by fold 1. The first two fits know every pair between them.

    Args:
        fold: int64 (splits, N), 0 to ``count`` - 1, the fold of each pair
        count: folds of a split
    """

    fold: Tensor
    count: int

    @classmethod
    def of(cls, pairs: int, count: int, seed: int, splits: int = 1) -> Folds:
        """Folds whose sizes differ by at most one.

        Args:
            pairs: N
            count: folds of a split; see :func:`fold_count`
            seed: of the permutations that they are drawn by
            splits: how many
        """
        generator = torch.Generator().manual_seed(seed)
        return cls(torch.stack([torch.randperm(pairs, generator=generator) for _ in range(splits)]) % count, count)

    @property
    def fits(self) -> int:
        """How many fits there are."""
        return len(self.fold) * self.count

    def members(self, number: int) -> Tensor:
        """The pairs that a fit is at rest on, int64, rising."""
        return (~self._left_out(number)).nonzero().squeeze(1)

    def held_out(self, number: int) -> Tensor:
        """The pairs that a fit has not seen, int64, rising."""
        return self._left_out(number).nonzero().squeeze(1)

    def _left_out(self, number: int) -> Tensor:
        return self.fold[number // self.count] == (number + 1) % self.count

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
        for number in range(self.fits):
            rows = self.held_out(number)
            if int(result[rows].sum()) < LEAST_BELIEVED:
                least = misalignment[rows].argsort(stable=True)[: max(SMALLEST_BATCH, -(-len(rows) // 2))]
                result[rows[least]] = True
        return result


def fold_count(pairs: int, most: int) -> int:
    """How many folds so many pairs are split into: at most ``most``, fewer of few pairs, and at least 2."""
    return max(2, min(most, pairs // LEAST_FOLD))
