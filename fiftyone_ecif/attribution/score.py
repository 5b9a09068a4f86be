"""The whole computation: fit, curvature, target gradient, solve, scores. Its passes run where the workers are."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
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
    silent,
)
from fiftyone_ecif.core.objective import CURVATURE_PAIRS

FIT_TOLERANCE = 1e-3
"""Gradient at rest over gradient at the start that a fit aims for."""

FOLDS = 2

STABLE = 0.5
"""Ranking stability below which a warning is due."""


def compute(
    attributed: Attributed,
    loss: str,
    settings: Settings,
    device: str = "cpu",
    progress: Progress = silent,
    workers: Workers = HERE,
    half: bool = False,
) -> InfluenceOutcome:
    """Score every pair by what its removal would do to a target loss.

    Args:
        attributed: the scope at θ0, its inputs for the N training pairs, and those of trusted pairs whose mean loss is
            the target; without them each half of the pairs is scored against the loss of the other half
        loss: a key of :data:`~fiftyone_ecif.core.LOSSES`
        settings: the run's choices
        device: where to compute
        progress: called with each step's name
        workers: where passes over the pairs run; results do not depend on it but for rounding
        half: whether a head's score pass multiplies in bfloat16 where its device does that faster; all else, and the
            fit and the solve as a whole, stay as they are. Rank correlation of the values: docs/scale.md

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
    run = _Run(loss, settings, progress, workers, half)
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
    """One run's steps, their timings and what is to be said about them."""

    def __init__(self, loss: str, settings: Settings, progress: Progress, workers: Workers, half: bool) -> None:
        self.loss, self.settings, self.progress, self.workers, self.half = loss, settings, progress, workers, half
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
        """Fill in the scores of the fold's pairs; returns s = H⁻¹ ∇C, (P,)."""
        objective, scope, settings = fitted.objective, fitted.scope, self.settings
        with self.timed("solve"):
            target_loss, gradient = self.mean_loss(target, TARGET).value_and_gradient(scope)
            solution = self.solve(fitted, gradient[None])
        if not solution.converged:
            self.warnings.append(
                f"The solver stopped at a relative residual of {solution.relative_residual:.1e} after "
                f"{solution.iterations} iterations (asked: {settings.tolerance:.0e}). Set a firmer anchor or more "
                "damping."
            )
        with self.timed("scores"):
            found = self.per_pair(objective, "Scores", _influence, scope, solution.vectors, self.half)
            roles = Roles(*(part[:, 0].float() for part in found))
        with self.timed("self-influence"):
            probes = fitted.attributed.probes
            curvature = kronecker_curvature(
                objective.sample(CURVATURE_PAIRS),
                scope,
                objective.anchor + settings.damping,
                seed=settings.seed,
                progress=self.progress,
            )
            if probes:
                self.say_once(
                    f"Self-influence is estimated from {probes} random directions: its relative standard error is "
                    f"{(2 / probes) ** 0.5:.0%}."
                )
                rooted = curvature.inverse_root, probes, settings.seed
                (own,) = self.per_pair(objective, "Self-influence", _self_influence_by_probes, scope, *rooted)
            else:
                (own,) = self.per_pair(objective, "Self-influence", _self_influence, scope, curvature.quadratic)
        index = fitted.members.index
        value = roles.value(settings.removal)
        scores.value[index] = value.mean(0)
        scores.value_positive[index] = roles.positive.mean(0)
        scores.value_negative[index] = roles.negative(settings.removal).mean(0)
        scores.value_std[index] = value.std(0) if len(value) > 1 else torch.nan
        scores.self_influence[index] = own.float()
        stability = ranking_stability(value)
        if stability < STABLE:
            self.warnings.append(
                f"Only {stability:.0%} of the 5 % most harmful pairs are the same in both halves of the rounds: "
                "their order is not stable. Use more rounds."
            )
        self.reports.append(
            FoldReport(
                len(index),
                objective.anchor,
                fitted.fit.steps,
                fitted.fit.relative_gradient,
                solution.iterations,
                solution.relative_residual,
                target_loss,
                stability,
            )
        )
        return solution.vectors[0]

    def mean_loss(self, pairs: Pairs, purpose: int) -> Objective:
        """The mean batch loss of some pairs; see :func:`~fiftyone_ecif.attribution.objectives.mean_loss`."""
        return mean_loss(pairs, self.loss, self.settings, purpose, self.workers)

    def per_pair(self, objective: Objective, step: str, score: Callable, *arguments: Any) -> list[Tensor]:
        """Scores (..., N) of every pair, put together from what each part of the objective says of its own."""
        parts = objective.over_parts(score, *arguments, step=step, progress=self.progress)
        found = list(next(parts))
        for part in parts:
            for values, more in zip(found, part, strict=True):
                torch.where(more.isnan(), values, more, out=values)
        return found

    def solve(self, fitted: _Fitted, targets: Tensor) -> Solution:
        """s = H⁻¹ b for b (K, P), by plain conjugate gradients.

        With a tenth of the largest curvature as the anchor H's condition is about 11 at most, which takes some 13
        iterations to 1e-3 whatever the spectrum. Kronecker factors as preconditioner cost more than they spare
        (docs/scale.md).
        """
        damped = replace(fitted.objective, anchor=fitted.objective.anchor + self.settings.damping)
        return conjugate_gradients(
            lambda directions: damped.gauss_newton_product(fitted.scope, directions),
            targets,
            torch.clone,
            self.settings.tolerance,
            self.settings.max_iterations,
            progress=self.progress,
        )

    def say_once(self, warning: str) -> None:
        """Add a warning unless it was said of another fit already."""
        if warning not in self.warnings:
            self.warnings.append(warning)

    @contextmanager
    def timed(self, step: str) -> Iterator[None]:
        """Add the block's seconds to the step's."""
        start = time.perf_counter()
        yield
        self.timings[step] = self.timings.get(step, 0.0) + time.perf_counter() - start


def _influence(part: Objective, scope: Scope, solutions: Tensor, half: bool, progress: Progress) -> Roles:
    with torch.autocast(solutions.device.type, torch.bfloat16, enabled=half):
        return influence(part, scope, solutions, progress=progress)


def _self_influence(part: Objective, scope: Scope, quadratic: Callable, progress: Progress) -> tuple[Tensor]:
    return (self_influence(part, scope, quadratic, progress=progress),)


def _self_influence_by_probes(
    part: Objective, scope: Scope, inverse_root: Callable, probes: int, seed: int, progress: Progress
) -> tuple[Tensor]:
    return (self_influence_by_probes(part, scope, inverse_root, probes, seed, progress),)


def ranking_stability(value: Tensor) -> float:
    """Share of the most harmful 5 % by the first half of the rounds that are so by the second half, for (rounds, N)."""
    half = len(value) // 2
    if half == 0:
        return 1.0
    worst = max(1, value.shape[1] // 20)
    first, second = (
        set(part.mean(0).topk(worst, largest=False).indices.tolist()) for part in value.split([half, len(value) - half])
    )
    return len(first & second) / worst


def cross_fit_folds(pairs: int, seed: int) -> Tensor:
    """Which half of a cross-fit each pair is in, int64 (N,)."""
    return torch.randperm(pairs, generator=torch.Generator().manual_seed(seed)) % FOLDS
