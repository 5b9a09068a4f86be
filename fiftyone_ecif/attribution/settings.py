"""The choices of a run, and its results."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields

import torch
from torch import Tensor

from fiftyone_ecif.attribution.folds import FEW_FOLDS, FEW_PAIRS, FOLDS, SPLITS, Folds, fold_count
from fiftyone_ecif.core import Head, Pairs, Scope

REMOVAL_FORMS = ("exact", "first_order")

HEAD_FIT_STEPS = 30
"""Newton steps that a fit of the head may take; on cached features they are cheap."""

PER_PAIR_SELF_INFLUENCE = 50_000
"""Pairs up to which the self-influence of a head is computed pair by pair, which takes as long as 190 epochs of
training the head. An estimate from 32 random directions takes 26."""


@dataclass(frozen=True)
class Settings:
    """The choices that the scores of a run depend on.

    Args:
        removal: how the negative role of a pair ends: "exact" deletes it, "first_order" takes the derivative by its
            weight
        rounds: random partitions into batches that scores are averaged over
        batch_size: B, pairs per batch of the attributed loss
        anchor: δ, weight of the proximal term that pulls towards the given weights; None for a tenth of the largest
            curvature at θ0
        damping: added to the curvature on top of the anchor, for values, traces and removals alike
        seed: of the partitions, folds and curvature samples
        tolerance: relative residual at which the solver stops; one ten times as large moves values by .3 %
            (docs/scale.md)
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
        target: the trusted pairs; None to cross-fit
        fit_steps: Newton steps towards rest at most; each passes over the pairs many times
        probes: random directions that self-influence is estimated from, with relative standard error √(2 / probes);
            0 to compute it pair by pair
        folds: of a cross-fit, at most
        splits: into folds
    """

    scope: Scope
    pairs: Pairs
    target: Pairs | None
    fit_steps: int = 3
    probes: int = 32
    folds: int = FEW_FOLDS
    splits: int = 1

    @classmethod
    def of_head(cls, head: Head, pairs: Pairs, target: Pairs | None) -> Attributed:
        """The head on cached features; the self-influence of very many pairs is estimated."""
        probes = 0 if len(pairs) <= PER_PAIR_SELF_INFLUENCE else cls.probes
        folds, splits = (FOLDS, SPLITS) if len(pairs) >= FEW_PAIRS else (cls.folds, cls.splits)
        return cls(head, pairs, target, HEAD_FIT_STEPS, probes, folds, splits)

    def split(self, seed: int) -> Folds:
        """The folds of a cross-fit, drawn by a run's seed; of two folds, a second split gives each pair an error."""
        count = len(self.pairs)
        folds = fold_count(count, self.folds)
        return Folds.of(count, folds, seed, max(self.splits, 2) if folds == 2 else self.splits)


@dataclass(frozen=True)
class FoldReport:
    """How well one fit and its solve went; see :class:`~fiftyone_ecif.core.Fit` and ``Solution``.

    Attributes:
        pairs: that were fitted on
        anchor: δ
        fit_steps: Newton steps that the fit took
        fit_relative_gradient: norm of the gradient at θ̂ over its norm at θ0
        solver_iterations: products with H that the solve took
        solver_relative_residual: ‖H s − ∇C‖ / ‖∇C‖ at its end
        target_loss: C(θ̂), nats
        self_influence_factor: how much larger self-influence is by the EK-FAC inverse than by the solver, the median
            over a few pairs; None where self-influence is estimated from random directions, or taken from other fits
    """

    pairs: int
    anchor: float
    fit_steps: int
    fit_relative_gradient: float
    solver_iterations: int
    solver_relative_residual: float
    target_loss: float
    self_influence_factor: float | None


@dataclass
class PairScores:
    """Scores of N pairs, float32 (N,), in the order of the pairs; NaN where there is none.

    Attributes:
        value: predicted change of the target loss if the pair were removed, nats; positive: the pair helps
        value_positive: the part of ``value`` that the pair has as a positive
        value_negative: the part that it has as a negative of the others
        value_std: standard error of ``value``, nats: how far that of a repeat with another seed lies off; NaN where one
            fit, or one round with a target, tells nothing of it
        self_influence: (1/N) gᵀ H⁻¹ g with the EK-FAC form of H⁻¹, nats
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
    """The results of a run.

    Attributes:
        scores: of every pair
        scopes: θ̂ that the scores were taken at: one, or those of a cross-fitted run
        solutions: (scopes, P), s = H⁻¹ ∇C at each of ``scopes``
        reports: one per scope
        folds: of a split into folds; None with a target
        fit_rounds: rounds of batches that ``scopes`` are at rest on, the first ones of the run
        ranking_stability: see :func:`~fiftyone_ecif.attribution.spread.ranking_stability`
        timings: seconds per step
        warnings: in plain words
    """

    scores: PairScores
    scopes: list[Scope]
    solutions: Tensor
    reports: list[FoldReport]
    folds: int | None = None
    fit_rounds: int = 1
    ranking_stability: float | None = None
    timings: dict[str, float] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
