"""The scores of a run, step by step: fit, solve, values, self-influence. The passes run where the workers are."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from fiftyone_ecif.attribution.objectives import FITTED, TARGET, anchored, mean_loss
from fiftyone_ecif.attribution.settings import Attributed, FoldReport, InfluenceOutcome, PairScores, Settings
from fiftyone_ecif.core import (
    HERE,
    Fit,
    Linearization,
    Objective,
    Pairs,
    Progress,
    Roles,
    Scope,
    Solution,
    Subset,
    Workers,
    conjugate_gradients,
    fit_to_rest,
    influence,
    kronecker_curvature,
    self_influence,
    self_influence_by_probes,
    self_influence_scale,
    silent,
)
from fiftyone_ecif.core.objective import CURVATURE_PAIRS
from fiftyone_ecif.core.scope import Cotangent

FIT_TOLERANCE = 1e-3
"""Norm of the gradient, relative to the start, at which a fit counts as being at rest."""

FOLDS = 2
"""Folds of a cross-fit: each is scored against the loss of the other."""

FACTOR_PAIRS, FACTOR_CURVATURE_PAIRS, FACTOR_TOLERANCE = 8, 1_024, 0.1
"""Pairs whose self-influence is solved for, pairs that the curvature is then taken from, and the residual at which the
solver stops; the error of a self-influence is about the square of that."""

SMALLEST_BATCH = 2
"""Pairs that a contrastive loss needs at least."""

STABLE = 0.5
"""Ranking stability below which a run comes with a warning."""


def compute(
    attributed: Attributed,
    loss: str,
    settings: Settings,
    device: str = "cpu",
    progress: Progress = silent,
    workers: Workers = HERE,
    score_dtype: torch.dtype | None = None,
) -> InfluenceOutcome:
    """Score every pair by what its removal would do to a target loss.

    Args:
        attributed: the scope at θ0, its inputs for the N training pairs, and those of trusted pairs whose mean loss is
            the target; without them each fold of the pairs is scored against the loss of the other fold
        loss: a key of :data:`~fiftyone_ecif.core.LOSSES`
        settings: the choices of the run
        device: where to compute
        progress: called with the name of each step
        workers: where passes over the pairs run; apart from rounding, results do not depend on it
        score_dtype: of the matrix products in the score pass of a head; None for the dtype of the head. On some devices
            ``torch.bfloat16`` is faster (docs/scale.md has the rank correlation of the values). Fit and solve do not
            depend on it

    Returns:
        an :class:`InfluenceOutcome`

    Raises:
        ValueError: if there are too few pairs for a contrastive loss
    """
    count, target = len(attributed.pairs), attributed.target
    minimum = 2 * FOLDS
    if count < minimum or (target is not None and len(target) < 2):
        raise ValueError(
            f"There are {count} usable pairs"
            + ("" if target is None else f" and {len(target)} usable target pairs")
            + f"; at least {minimum}{'' if target is None else ' and 2'} are needed to compare pairs with one another."
        )
    run = _Run(loss, settings, progress, workers, score_dtype)
    scored = replace(attributed, scope=attributed.scope.to(device))
    scores = PairScores.empty(count)
    folds = cross_fit_folds(count, settings.seed)
    parts = [torch.arange(count)] if target else [(folds == fold).nonzero().squeeze(1) for fold in range(FOLDS)]
    fits = [run.fit(scored, members, f"Fit {number} of {len(parts)}") for number, members in enumerate(parts, start=1)]
    targets = [target] if target else [fitted.members for fitted in reversed(fits)]
    solutions = [run.score(fitted, against, scores) for fitted, against in zip(fits, targets, strict=True)]
    return InfluenceOutcome(
        scores,
        [fitted.scope.to("cpu") for fitted in fits],
        torch.stack(solutions).cpu(),
        run.reports,
        run.timings,
        run.warnings,
    )


@dataclass(frozen=True)
class _Fitted:
    """A scope at rest on some pairs, with the objective that it came to rest on."""

    attributed: Attributed
    members: Subset
    objective: Objective
    fit: Fit

    @property
    def scope(self) -> Scope:
        return self.fit.scope


class _Run:
    """The steps of one run, with their timings and warnings."""

    def __init__(
        self, loss: str, settings: Settings, progress: Progress, workers: Workers, score_dtype: torch.dtype | None
    ) -> None:
        self.loss, self.settings, self.progress, self.workers = loss, settings, progress, workers
        self.score_dtype = score_dtype
        self.timings: dict[str, float] = {}
        self.warnings: list[str] = []
        self.reports: list[FoldReport] = []

    def fit(self, attributed: Attributed, index: Tensor, step: str) -> _Fitted:
        """Choose the anchor and bring the scope to rest on some of the pairs, or as near as its steps get."""
        settings, scope, members = self.settings, attributed.scope, Subset(attributed.pairs, index)
        with self.timed("curvature"):
            objective = anchored(self.mean_loss(members, FITTED), scope, settings)
        with self.timed("fit"):
            fit = fit_to_rest(
                objective, scope, torch.clone, FIT_TOLERANCE, attributed.fit_steps, progress=self.progress, step=step
            )
        if not fit.at_rest:
            self.warnings.append(
                f"{step}: the parameters did not come to rest (gradient {fit.relative_gradient:.1e} of its start after "
                f"{fit.steps} steps); scores assume that they did. Set a firmer anchor."
            )
        return _Fitted(attributed, members, objective, fit)

    def score(self, fitted: _Fitted, target: Pairs, scores: PairScores) -> Tensor:
        """Fill in the scores of the pairs that were fitted on; returns s = H⁻¹ ∇C, (P,)."""
        target_loss, solution = self.solve(fitted, target)
        roles = self.roles(fitted, solution)
        own, factor = self.self_influence(fitted)
        index = fitted.members.index
        value = roles.value(self.settings.removal)
        scores.value[index] = value.mean(0)
        scores.value_positive[index] = roles.positive.mean(0)
        scores.value_negative[index] = roles.negative(self.settings.removal).mean(0)
        scores.value_std[index] = value.std(0) if len(value) > 1 else torch.nan
        scores.self_influence[index] = own
        stability = ranking_stability(value)
        if stability < STABLE:
            self.warn_once(
                f"Only {stability:.0%} of the 5% most harmful pairs are the same in both halves of the rounds: "
                "their order is not stable. Use more rounds."
            )
        self.reports.append(
            FoldReport(
                pairs=len(index),
                anchor=fitted.objective.anchor,
                fit_steps=fitted.fit.steps,
                fit_relative_gradient=fitted.fit.relative_gradient,
                solver_iterations=solution.iterations,
                solver_relative_residual=solution.relative_residual,
                target_loss=target_loss,
                ranking_stability=stability,
                self_influence_factor=factor,
            )
        )
        return solution.vectors[0]

    def solve(self, fitted: _Fitted, target: Pairs) -> tuple[float, Solution]:
        """The loss C of the target, and s = H⁻¹ ∇C by plain conjugate gradients.

        With a tenth of the largest curvature as the anchor, the condition number of H is about 11 at most, and some 13
        iterations reach a residual of 1e-3 whatever the spectrum. Kronecker factors as a preconditioner cost more than
        they save (docs/scale.md).
        """
        settings, damped = self.settings, self.damped(fitted)
        with self.timed("solve"):
            target_loss, gradient = self.mean_loss(target, TARGET).value_and_gradient(fitted.scope)
            solution = conjugate_gradients(
                lambda directions: damped.gauss_newton_product(fitted.scope, directions),
                gradient[None],
                torch.clone,
                settings.tolerance,
                settings.max_iterations,
                progress=self.progress,
            )
        if not solution.converged:
            self.warnings.append(
                f"The solver stopped at a relative residual of {solution.relative_residual:.1e} after "
                f"{solution.iterations} iterations (asked: {settings.tolerance:.0e}). Set a firmer anchor or more "
                "damping."
            )
        return target_loss, solution

    def roles(self, fitted: _Fitted, solution: Solution) -> Roles:
        """The value of each pair by role, float32 (rounds, N)."""
        arguments = fitted.scope, solution.vectors, self.score_dtype
        with self.timed("scores"):
            found = self.per_pair(fitted.objective, "Scores", _influence, *arguments)
        return Roles(*(part[:, 0].float() for part in found))

    def self_influence(self, fitted: _Fitted) -> tuple[Tensor, float | None]:
        """The self-influence of each pair by the EK-FAC inverse, float32 (N,), and :meth:`self_influence_factor`."""
        objective, scope, probes = fitted.objective, fitted.scope, fitted.attributed.probes
        with self.timed("self-influence"):
            curvature = kronecker_curvature(
                objective.sample(CURVATURE_PAIRS),
                scope,
                self.damped(fitted).anchor,
                seed=self.settings.seed,
                progress=self.progress,
            )
            if probes:
                self.warn_once(
                    f"Self-influence is estimated from {probes} random directions: its relative standard error is "
                    f"{(2 / probes) ** 0.5:.0%}."
                )
                rooted = curvature.inverse_root, probes, self.settings.seed
                (own,) = self.per_pair(objective, "Self-influence", _self_influence_by_probes, scope, *rooted)
                return own.float(), None
            (own,) = self.per_pair(objective, "Self-influence", _self_influence, scope, curvature.quadratic)
            return own.float(), self.self_influence_factor(fitted, own)

    def self_influence_factor(self, fitted: _Fitted, own: Tensor) -> float | None:
        """By what factor self-influence is too large: the median over a few pairs of EK-FAC over solved.

        The pairs and the curvature are those of the first batches of the first round. With an anchor of a tenth of the
        largest curvature the solver takes some 4 iterations: products of 8 · 4 directions with the curvature of 1,024
        pairs, 33,000 for each pair and direction. Of 1,500 pairs, the fit and the solve for the values take 240,000,
        and self-influence itself takes as long as 190 epochs.
        """
        damped = self.damped(fitted)
        sample = replace(damped, rounds=damped.rounds[:1]).sample(FACTOR_CURVATURE_PAIRS)
        order = torch.cat(sample.rounds[0])
        if len(order) <= SMALLEST_BATCH:
            return None  # without one of the pairs no contrastive loss is left to solve for
        rows = order[torch.linspace(0, len(order) - 1, min(FACTOR_PAIRS, len(order))).long()]
        # Both forms have a factor 1/N, and N is the number of pairs in the objective that is solved with.
        own = own * (damped.divisor / sample.divisor)
        ratios = self_influence_scale(sample, fitted.scope, own, rows, FACTOR_TOLERANCE, self.progress)
        factor = ratios.double().nanquantile(0.5).item()
        return factor if math.isfinite(factor) else None

    def damped(self, fitted: _Fitted) -> Objective:
        """The objective whose curvature is that of J, with the damping of the run."""
        return replace(fitted.objective, anchor=fitted.objective.anchor + self.settings.damping)

    def mean_loss(self, pairs: Pairs, purpose: int) -> Objective:
        """The mean batch loss of some pairs; see :func:`~fiftyone_ecif.attribution.objectives.mean_loss`."""
        return mean_loss(pairs, self.loss, self.settings, purpose, self.workers)

    def per_pair(
        self, objective: Objective, step: str, score: Callable[..., Sequence[Tensor]], *arguments: Any
    ) -> list[Tensor]:
        """Scores (..., N) of every pair, put together from those that each part of the objective has of its pairs."""
        parts = objective.over_parts(score, *arguments, step=step, progress=self.progress)
        found = list(next(parts))
        for part in parts:
            for values, more in zip(found, part, strict=True):
                torch.where(more.isnan(), values, more, out=values)
        return found

    def warn_once(self, warning: str) -> None:
        """Add a warning unless another fit has added it already."""
        if warning not in self.warnings:
            self.warnings.append(warning)

    @contextmanager
    def timed(self, step: str) -> Iterator[None]:
        """Add the seconds that the block takes to those of the step."""
        start = time.perf_counter()
        yield
        self.timings[step] = self.timings.get(step, 0.0) + time.perf_counter() - start


def _influence(
    part: Objective, scope: Scope, solutions: Tensor, score_dtype: torch.dtype | None, progress: Progress
) -> Roles:
    with torch.autocast(solutions.device.type, score_dtype, enabled=score_dtype is not None):
        return influence(part, scope, solutions, progress=progress)


def _self_influence(
    part: Objective, scope: Scope, quadratic: Callable[[Linearization, Cotangent], Tensor], progress: Progress
) -> tuple[Tensor]:
    return (self_influence(part, scope, quadratic, progress=progress),)


def _self_influence_by_probes(
    part: Objective,
    scope: Scope,
    inverse_root: Callable[[Tensor], Tensor],
    probes: int,
    seed: int,
    progress: Progress,
) -> tuple[Tensor]:
    return (self_influence_by_probes(part, scope, inverse_root, probes, seed, progress),)


def ranking_stability(value: Tensor) -> float:
    """Share of the most harmful 5 % by the first half of the rounds that also are by the second, for (rounds, N).

    It is 1 for a single round, where it cannot be known.
    """
    half = len(value) // 2
    if half == 0:
        return 1.0
    worst: int = max(1, value.shape[1] // 20)
    first, second = (
        set(part.mean(0).topk(worst, largest=False).indices.tolist())
        for part in torch.split(value, [half, len(value) - half])
    )
    return len(first & second) / worst


def cross_fit_folds(pairs: int, seed: int) -> Tensor:
    """The fold of a cross-fit that each pair is in, int64 (N,)."""
    return torch.randperm(pairs, generator=torch.Generator().manual_seed(seed)) % FOLDS
