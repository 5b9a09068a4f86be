"""What a run may choose, and what it found."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields

import torch
from torch import Tensor

from fiftyone_ecif.core import Head, Pairs, Scope

REMOVAL_FORMS = ("exact", "first_order")

HEAD_FIT_STEPS = 30
"""Newton steps that a fit of the head may take: on cached features they are cheap."""


EXACT_SELF_INFLUENCE = 50_000
"""Pairs up to which a head's self-influence is exact: that costs 190 epochs, an estimate by 32 probes 26."""


@dataclass(frozen=True)
class Settings:
    """The choices behind a run's scores.

    Args:
        removal: how a pair's negative role ends: "exact" deletes it, "first_order" follows its weight's derivative
        rounds: random partitions into batches that scores are averaged over
        batch_size: pairs per batch B of the attributed loss
        anchor: δ, pull towards the given weights; None for a tenth of the largest curvature at θ0
        damping: added to the curvature on top of the anchor
        seed: of the partitions, folds and curvature samples
        tolerance: relative residual at which the solver stops; ten times more would move values by .3 % (docs/scale.md)
        max_iterations: of the solver
    """

    removal: str = "exact"
    rounds: int = 4
    batch_size: int = 256
    anchor: float | None = None
    damping: float = 0.0
    seed: int = 0
    tolerance: float = 1e-3
    max_iterations: int = 200

    def __post_init__(self) -> None:
        if self.removal not in REMOVAL_FORMS:
            raise ValueError(f"removal must be one of {', '.join(REMOVAL_FORMS)}, not {self.removal!r}.")
        if self.rounds < 1:
            raise ValueError(f"rounds must be at least 1, not {self.rounds}.")
        if self.batch_size < 2:
            raise ValueError(f"batch_size must be at least 2, not {self.batch_size}.")
        if self.anchor is not None and not 0 < self.anchor < math.inf:
            raise ValueError(
                f"anchor must be a finite number above 0, not {self.anchor}: without it the problem has no minimum."
            )
        if not 0 <= self.damping < math.inf:
            raise ValueError(f"damping must be a finite number of at least 0, not {self.damping}.")


@dataclass(frozen=True)
class Attributed:
    """A scope to attribute to, and pairs as its own inputs, in the order of the features.

    Args:
        scope: at θ0
        pairs: the N training pairs
        target: the trusted pairs, None to cross-fit
        fit_steps: Newton steps towards rest at most; each passes over the pairs many times
        probes: of the estimate of self-influence, whose relative standard error is √(2 / probes); 0 for its exact form
    """

    scope: Scope
    pairs: Pairs
    target: Pairs | None
    fit_steps: int = 3
    probes: int = 32

    @classmethod
    def of_head(cls, head: Head, pairs: Pairs, target: Pairs | None) -> Attributed:
        """The head on cached features; the self-influence of very many pairs is estimated."""
        probes = 0 if len(pairs) <= EXACT_SELF_INFLUENCE else cls.probes
        return cls(head, pairs, target, HEAD_FIT_STEPS, probes)


@dataclass(frozen=True)
class FoldReport:
    """How well one fold's fit and solve went; see :class:`~fiftyone_ecif.core.Fit` and ``Solution``.

    ``ranking_stability`` is the share of the most harmful 5 % in half the rounds that are so in the other half, too;
    1 with a single round, where it cannot be known.
    """

    pairs: int
    anchor: float
    fit_steps: int
    fit_relative_gradient: float
    solver_iterations: int
    solver_relative_residual: float
    target_loss: float
    ranking_stability: float


@dataclass
class PairScores:
    """Scores of N pairs, float32 (N,), in the order of the pairs; NaN where there is none.

    Attributes:
        value: predicted change of the target loss if the pair were removed, nats; positive: the pair helps
        value_positive: the part of ``value`` that the pair has as a positive
        value_negative: the part that it has as a negative of the others
        value_std: standard deviation of ``value`` over rounds, nats; NaN with one round
        self_influence: (1/N) gᵀ H⁻¹ g, nats
    """

    value: Tensor
    value_positive: Tensor
    value_negative: Tensor
    value_std: Tensor
    self_influence: Tensor

    @classmethod
    def empty(cls, pairs: int) -> PairScores:
        """All NaN."""
        return cls(*(torch.full((pairs,), torch.nan) for _ in fields(cls)))


@dataclass
class InfluenceOutcome:
    """What a run found.

    Attributes:
        scores: of every pair
        scopes: θ̂ that the scores were taken at: one, or with cross-fitting one per half
        solutions: (scopes, P), s = H⁻¹ ∇C at each of ``scopes``
        reports: one per scope
        timings: seconds per step
        warnings: in plain words
    """

    scores: PairScores
    scopes: list[Scope]
    solutions: Tensor
    reports: list[FoldReport]
    timings: dict[str, float] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
