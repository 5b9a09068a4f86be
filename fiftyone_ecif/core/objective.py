"""The attributed objective J and passes over its batches: value, gradient and Gauss-Newton product (ECIF.md §1, §5)."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from fiftyone_ecif.core.losses import ContrastiveLoss
from fiftyone_ecif.core.pairs import Pairs
from fiftyone_ecif.core.partition import without
from fiftyone_ecif.core.rows import batch_value, curvature_cotangent, value_and_cotangent
from fiftyone_ecif.core.scope import Linearization, Scope
from fiftyone_ecif.core.workers import HERE, Progress, Workers, silent

CURVATURE_PAIRS = 8_192
"""Pairs that curvature is taken from where an estimate will do (docs/scale.md)."""


@dataclass(frozen=True)
class Objective:
    """J(θ) = 1/(R N) Σ_rounds Σ_batches (sum loss) + δ/2 ‖θ − θ0‖²  (ECIF.md §1).

    Batches of a partition differ in size by at most one, so this is the mean over batches of open_clip's loss. Removing
    pairs keeps the divisor N: a removed pair weighs nothing, the others weigh what they did, the anchor stays as firm.

    Args:
        pairs: source of the scope's inputs
        rounds: R partitions of the pairs into batches of indices
        loss: the contrastive loss
        anchor: δ, strength of the pull towards ``origin``
        origin: θ0 (P,), the weights the objective is anchored at; None without an anchor
        divisor: N, the number of pairs before any removal
        workers: where passes over the batches run
    """

    pairs: Pairs
    rounds: list[list[Tensor]]
    loss: ContrastiveLoss
    anchor: float = 0.0
    origin: Tensor | None = None
    divisor: int = 0
    workers: Workers = HERE

    def __post_init__(self) -> None:
        if self.anchor and self.origin is None:
            raise ValueError("An anchored objective needs the origin that it is anchored at.")
        object.__setattr__(self, "divisor", self.divisor or len(self.pairs))

    @property
    def weight(self) -> float:
        """1/(R N), the weight of one pair's loss in one round."""
        return 1.0 / (self.divisor * len(self.rounds))

    @property
    def batch_count(self) -> int:
        """Batches in one pass over all rounds."""
        return sum(map(len, self.rounds))

    def without(self, removed: Tensor) -> Objective:
        """The objective with the pairs in ``removed`` (bool, (N,)) taken out of their batches.

        Raises:
            ValueError: if nothing would be left to compare
        """
        self.check_left(removed)
        return replace(self, rounds=without(self.rounds, removed))

    def check_left(self, removed: Tensor) -> None:
        """Raise a ValueError if a removal (bool, (N,)) leaves nothing to compare."""
        if len(self.pairs) - int(removed.sum()) < 2:
            raise ValueError("Removing these pairs leaves fewer than two: there is no contrastive loss without them.")

    @cached_property
    def parts(self) -> list[Objective]:
        """The batches dealt out to the workers: objectives without an anchor whose values add up to this one's."""
        count = max(1, min(self.workers.count, self.batch_count))
        plain = replace(self, anchor=0.0, origin=None, workers=HERE)
        before = accumulate(map(len, self.rounds), initial=0)
        dealt = list(zip(before, self.rounds, strict=False))
        return [
            replace(plain, rounds=[batches[(part - done) % count :: count] for done, batches in dealt])
            for part in range(count)
        ]

    def over_parts(
        self, function: Callable[..., Any], *shared: Any, step: str = "", progress: Progress = silent
    ) -> Iterator[Any]:
        """``function(part, *shared, progress)`` of every part, by the workers."""
        return self.workers.map(function, self.parts, *shared, step=step, progress=progress)

    def sample(self, pairs: int) -> Objective:
        """The objective over its first batches, round after round, that hold so many pairs: an estimate of it.

        Itself, where it does not hold more.
        """
        batches = [batch for batches in self.rounds for batch in batches]
        held = list(accumulate(map(len, batches)))
        count = bisect_left(held, pairs) + 1
        if count >= len(batches):
            return self
        share = held[count - 1] / held[-1]
        return replace(self, rounds=[batches[:count]], divisor=round(self.divisor * len(self.rounds) * share))

    @cached_property
    def curvature_sample(self) -> Objective:
        """The objective over as many of its rounds as hold 8,192 pairs: what its curvature is taken from.

        Itself, where it does not hold more. Of many pairs this is one round. The curvature is an expectation over
        random batches; next to what the scores themselves vary over rounds, so many pairs estimate it well enough.
        """
        rounds = self.rounds[: -(-CURVATURE_PAIRS // self.divisor)]
        return self if len(rounds) == len(self.rounds) else replace(self, rounds=rounds)

    def linearizations(self, scope: Scope) -> Iterator[tuple[Tensor, Linearization]]:
        """Every batch of every round: its indices and its linearization at the scope's θ."""
        for batches in self.rounds:
            for index in batches:
                yield index, scope.linearize(*self.pairs.gather(index))

    def value(self, scope: Scope) -> float:
        """J(θ), in nats."""
        total = sum(batch_value(self.loss, batch) for _, batch in self.linearizations(scope))
        return total * self.weight + self._anchor_value(scope.vector())

    def value_and_gradient(self, scope: Scope) -> tuple[float, Tensor]:
        """J(θ) in nats and ∇J(θ), (P,)."""
        theta = scope.vector()
        totals, gradients = zip(*self.over_parts(_value_and_gradient, scope), strict=True)
        gradient = sum(gradients[1:], gradients[0])
        if self.origin is not None:
            gradient += self.anchor * (theta - self.origin)
        return sum(totals) + self._anchor_value(theta), gradient

    def gauss_newton_product(self, scope: Scope, directions: Tensor) -> Tensor:
        """H = Gauss-Newton matrix of the mean batch loss + δ I, times directions (K, P)  (ECIF.md §5).

        The matrix is that of the :attr:`curvature_sample`.
        """
        products: list[Tensor] = list(self.curvature_sample.over_parts(_gauss_newton_product, scope, directions))
        return sum(products[1:], products[0]) + self.anchor * directions

    def _anchor_value(self, theta: Tensor) -> float:
        return 0.0 if self.origin is None else 0.5 * self.anchor * (theta - self.origin).square().sum().item()


def _value_and_gradient(part: Objective, scope: Scope, progress: Progress) -> tuple[float, Tensor]:
    total, gradient = 0.0, torch.zeros_like(scope.vector())
    for _, batch in part.linearizations(scope):
        value, cotangent = value_and_cotangent(part.loss, batch)
        total += value
        gradient += batch.pull_back(cotangent)[0]
    return total * part.weight, gradient * part.weight


def _gauss_newton_product(part: Objective, scope: Scope, directions: Tensor, progress: Progress) -> Tensor:
    result = torch.zeros_like(directions)
    for _, batch in part.linearizations(scope):
        result += batch.pull_back(curvature_cotangent(part.loss, batch, directions))
    return result * part.weight
