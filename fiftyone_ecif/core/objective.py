"""The attributed objective J and passes over its batches: value, gradient and Gauss-Newton product (ECIF.md §1, §5)."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import accumulate

import torch
from torch import Tensor

from fiftyone_ecif.core.losses import ContrastiveLoss
from fiftyone_ecif.core.partition import without
from fiftyone_ecif.core.scope import Linearization, Pairs, Scope

Progress = Callable[[str, int, int], None]
"""Called with a step's name, the work done and the work in all; may raise to cancel."""


def silent(step: str, done: int, total: int) -> None:
    """A :data:`Progress` that shows nothing."""


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
    """

    pairs: Pairs
    rounds: list[list[Tensor]]
    loss: ContrastiveLoss
    anchor: float = 0.0
    origin: Tensor | None = None
    divisor: int = 0

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

    def rough(self) -> Objective:
        """The objective over no more rounds than its curvature takes to estimate: one, of many pairs."""
        return self.sample(max(CURVATURE_PAIRS, self.divisor))

    def linearizations(self, scope: Scope) -> Iterator[tuple[Tensor, Linearization]]:
        """Every batch of every round: its indices and its linearization at the scope's θ."""
        for batches in self.rounds:
            for index in batches:
                yield index, scope.linearize(*self.pairs.gather(index))

    def value(self, scope: Scope) -> float:
        """J(θ), in nats."""
        total = sum(self.loss.sum_loss(batch.similarity()).item() for _, batch in self.linearizations(scope))
        return total * self.weight + self._anchor_value(scope.vector())

    def value_and_gradient(self, scope: Scope) -> tuple[float, Tensor]:
        """J(θ) in nats and ∇J(θ), (P,)."""
        theta = scope.vector()
        total, gradient = 0.0, torch.zeros_like(theta)
        for _, batch in self.linearizations(scope):
            similarity = batch.similarity()
            total += self.loss.sum_loss(similarity).item()
            cotangent = self.loss.similarity_cotangent(similarity)
            gradient += batch.pull_back(batch.cotangent(cotangent[None]))[0]
        gradient *= self.weight
        if self.origin is not None:
            gradient += self.anchor * (theta - self.origin)
        return total * self.weight + self._anchor_value(theta), gradient

    def gauss_newton_product(self, scope: Scope, directions: Tensor) -> Tensor:
        """(Gauss-Newton matrix of the mean batch loss + δ I) times directions (K, P)  (ECIF.md §5)."""
        result = torch.zeros_like(directions)
        for _, batch in self.linearizations(scope):
            tangents = batch.similarity_tangent(directions)
            product = self.loss.curvature_product(batch.similarity(), tangents)
            result += batch.pull_back(batch.cotangent(product))
        return result * self.weight + self.anchor * directions

    def _anchor_value(self, theta: Tensor) -> float:
        return 0.0 if self.origin is None else 0.5 * self.anchor * (theta - self.origin).square().sum().item()
