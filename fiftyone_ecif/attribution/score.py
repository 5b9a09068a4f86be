"""The scores of a run, step by step: fits, solves, values, self-influence. The passes run where the workers are."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from fiftyone_ecif.attribution.folds import SMALLEST_BATCH
from fiftyone_ecif.attribution.objectives import FITTED, TARGET, anchored, mean_loss
from fiftyone_ecif.attribution.passes import probe_pass, self_influence_pass, value_pass
from fiftyone_ecif.attribution.settings import Attributed, FoldReport, InfluenceOutcome, PairScores, Settings
from fiftyone_ecif.attribution.spread import ranking_stability, standard_error
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
    kronecker_curvature,
    self_influence_scale,
    silent,
)
from fiftyone_ecif.core.objective import CURVATURE_PAIRS

FIT_TOLERANCE = 1e-3
"""Norm of the gradient, relative to the start, at which a fit counts as being at rest."""

CROSS_FIT_TOLERANCE, CROSS_FIT_ROUNDS = 1e-2, 1
"""The same, and the rounds of batches, for the fits of a cross-fit. Their mean is what counts, and more fits tell more
than longer ones (docs/scale.md)."""

FACTOR_PAIRS, FACTOR_CURVATURE_PAIRS, FACTOR_TOLERANCE = 8, 1_024, 0.1
"""Pairs whose self-influence is solved for, pairs that the curvature is then taken from, and the residual at which the
solver stops; the error of a self-influence is about the square of that."""

STABLE = 0.5
"""Ranking stability below which a run comes with a warning."""

SHIFT_TOLERANCE = 0.1
"""Relative residual at which the solver stops for what one round's target shifts values by: it enters no value."""


def compute(
    attributed: Attributed,
    loss: str,
    settings: Settings,
    device: str = "cpu",
    progress: Progress = silent,
    workers: Workers = HERE,
    score_dtype: torch.dtype | None = None,
    believed: Tensor | None = None,
) -> InfluenceOutcome:
    """Score every pair by what its removal would do to a target loss.

    Args:
        attributed: the scope at θ0, its inputs for the N training pairs, and those of trusted pairs whose mean loss is
            the target; without them, every pair is scored by the fits that it is part of, each against the loss of the
            believed pairs that this fit has not seen (:class:`~fiftyone_ecif.attribution.folds.Folds`)
        loss: a key of :data:`~fiftyone_ecif.core.LOSSES`
        settings: the choices of the run
        device: where to compute
        progress: called with the name of each step
        workers: where passes over the pairs run; apart from rounding, results do not depend on it
        score_dtype: of the matrix products in the score pass of a head; None for the dtype of the head. On some devices
            ``torch.bfloat16`` is faster (docs/scale.md has the rank correlation of the values). Fit and solve do not
            depend on it
        believed: bool (N,), the pairs that may be part of a target of others, see
            :meth:`~fiftyone_ecif.attribution.folds.Folds.believed`; None for all of them

    Returns:
        an :class:`InfluenceOutcome`

    Raises:
        ValueError: if there are too few pairs for a contrastive loss
    """
    check_enough(attributed)
    target = attributed.target
    run = _Run(loss, settings, progress, workers, score_dtype)
    scored = replace(attributed, scope=attributed.scope.to(device))
    return run.against(scored, target) if target else run.cross_fit(scored, believed)


def check_enough(attributed: Attributed) -> None:
    """Raise a ValueError if there are too few pairs, or target pairs, for a contrastive loss."""
    count, target = len(attributed.pairs), attributed.target
    if count < LEAST_PAIRS or (target is not None and len(target) < SMALLEST_BATCH):
        raise ValueError(
            f"There are {count} usable pairs"
            + ("" if target is None else f" and {len(target)} usable target pairs")
            + f"; at least {LEAST_PAIRS}{'' if target is None else ' and 2'} are needed to tell them apart."
        )


LEAST_PAIRS = 2 * SMALLEST_BATCH
"""Pairs that a run needs: each of two folds is a batch at least."""


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


class _Values(NamedTuple):
    """The values of pairs and their two parts, (F, N) each, by round or by fit."""

    value: Tensor
    positive: Tensor
    negative: Tensor


class _Run:
    """The steps of one run, with their reports, timings and warnings."""

    def __init__(
        self, loss: str, settings: Settings, progress: Progress, workers: Workers, score_dtype: torch.dtype | None
    ) -> None:
        self.loss, self.settings, self.progress, self.workers = loss, settings, progress, workers
        self.score_dtype = score_dtype
        self.timings: dict[str, float] = {}
        self.warnings: list[str] = []
        self.reports: list[FoldReport] = []
        self.astir: list[Fit] = []

    def against(self, attributed: Attributed, target: Pairs) -> InfluenceOutcome:
        """Scores by one fit on all pairs, against the loss of a target."""
        everyone = torch.arange(len(attributed.pairs))
        fitted = self.fit(attributed, everyone, self.settings, FIT_TOLERANCE, "Fit 1 of 1", attributed.scope)
        solution = self.solve(fitted, target)
        scored = self.values(fitted.objective, fitted.scope, solution)
        own = self.self_influence(fitted, everyone)
        by_round = scored.value + self.shifts(fitted, target)
        scores = PairScores(
            scored.value.mean(0), scored.positive.mean(0), scored.negative.mean(0), standard_error(by_round), own
        )
        more = "rounds of batches", "Use more rounds."
        return self.outcome(scores, [fitted.scope], solution[None], None, self.settings.rounds, by_round, *more)

    def cross_fit(self, attributed: Attributed, believed: Tensor | None) -> InfluenceOutcome:
        """Scores by the fits that a pair is part of, each against the believed pairs that it has not seen."""
        count, settings = len(attributed.pairs), self.settings
        folds = attributed.split(settings.seed)
        once, start = replace(settings, rounds=CROSS_FIT_ROUNDS), attributed.scope
        parts = _Values(*torch.full((3, folds.fits, count), torch.nan))
        own = torch.full((count,), torch.nan)
        scopes, solutions = [], []
        for number in range(folds.fits):
            members, against = folds.members(number), folds.target(number, believed)
            step = f"Fit {number + 1} of {folds.fits}"
            fitted = self.fit(attributed, members, once, CROSS_FIT_TOLERANCE, step, start)
            once, start = replace(once, anchor=fitted.objective.anchor), fitted.scope
            solution = self.solve(fitted, Subset(attributed.pairs, against))
            scored = self.values(self.mean_loss(fitted.members, FITTED), fitted.scope, solution)
            for part, by_round in zip(parts, scored, strict=True):
                part[number, members] = by_round.mean(0)
            fresh = own[members].isnan().nonzero().squeeze(1)
            if len(fresh):  # the first fit leaves out one fold, which the second one has
                own[members[fresh]] = self.self_influence(fitted, fresh)[fresh]
            scopes.append(fitted.scope)
            solutions.append(solution)
        value, positive, negative = (part.nanmean(0) for part in parts)
        scores = PairScores(value, positive, negative, standard_error(parts.value), own)
        more = "fits", "Give a target, or score more pairs."
        return self.outcome(scores, scopes, torch.stack(solutions), folds.count, CROSS_FIT_ROUNDS, parts.value, *more)

    def outcome(
        self,
        scores: PairScores,
        scopes: list[Scope],
        solutions: Tensor,
        folds: int | None,
        fit_rounds: int,
        parts: Tensor,
        halved: str,
        advice: str,
    ) -> InfluenceOutcome:
        """The results, with the stability of the ranking by the parts (F, N) of the values."""
        stability = ranking_stability(parts)
        if stability is not None and stability < STABLE:
            self.warn_once(
                f"Only {stability:.0%} of the 5% most harmful pairs are the same in both halves of the {halved}: "
                f"their order is not stable, and a repeat with another seed names others. {advice}"
            )
        if self.astir:
            worst = max(self.astir, key=lambda fit: fit.relative_gradient)
            self.warnings.append(
                f"{len(self.astir)} of {len(scopes)} fits: the parameters did not come to rest (gradient "
                f"{worst.relative_gradient:.1e} of its start after {worst.steps} steps); scores assume that they did. "
                "Set a firmer anchor."
            )
        on_host = [scope.to("cpu") for scope in scopes]
        return InfluenceOutcome(
            scores, on_host, solutions.cpu(), self.reports, folds, fit_rounds, stability, self.timings, self.warnings
        )

    def fit(
        self, attributed: Attributed, index: Tensor, settings: Settings, tolerance: float, step: str, start: Scope
    ) -> _Fitted:
        """Choose the anchor and bring the scope to rest on some of the pairs, or as near as its steps get.

        Args:
            attributed: the scope at θ0, and its inputs
            index: int64, the pairs
            settings: with the rounds that it comes to rest on, and the anchor where it is known
            tolerance: on the gradient, relative to that at θ0
            step: its name
            start: where to start from
        """
        scope, members = attributed.scope, Subset(attributed.pairs, index)
        with self.timed("curvature"):
            mean = mean_loss(members, self.loss, settings, FITTED, self.workers)
            objective = anchored(mean, scope, settings)
        with self.timed("fit"):
            scale = None if start is scope else objective.value_and_gradient(scope)[1].norm().item()
            steps = attributed.fit_steps
            fit = fit_to_rest(objective, start, torch.clone, tolerance, steps, scale, self.progress, step)
        if not fit.at_rest:
            self.astir.append(fit)
        return _Fitted(attributed, members, objective, fit)

    def solve(self, fitted: _Fitted, target: Pairs) -> Tensor:
        """s = H⁻¹ ∇C, (P,), of the loss C of the target, by plain conjugate gradients; adds a report of the fit.

        With a tenth of the largest curvature as the anchor, the condition number of H is about 11 at most, and some 13
        iterations reach a residual of 1e-3 whatever the spectrum. Kronecker factors as a preconditioner cost more than
        they save (docs/scale.md).
        """
        settings = self.settings
        with self.timed("solve"):
            target_loss, gradient = self.mean_loss(target, TARGET).value_and_gradient(fitted.scope)
            solution = self.inverse(fitted, gradient[None], settings.tolerance)
        if not solution.converged:
            self.warnings.append(
                f"The solver stopped at a relative residual of {solution.relative_residual:.1e} after "
                f"{solution.iterations} iterations (asked: {settings.tolerance:.0e}). Set a firmer anchor or more "
                "damping."
            )
        self.reports.append(
            FoldReport(
                pairs=len(fitted.members),
                anchor=fitted.objective.anchor,
                fit_steps=fitted.fit.steps,
                fit_relative_gradient=fitted.fit.relative_gradient,
                solver_iterations=solution.iterations,
                solver_relative_residual=solution.relative_residual,
                target_loss=target_loss,
                self_influence_factor=None,
            )
        )
        return solution.vectors[0]

    def inverse(self, fitted: _Fitted, gradients: Tensor, tolerance: float) -> Solution:
        """(H + damping)⁻¹ times gradients (K, P)."""
        damped = self.damped(fitted)
        return conjugate_gradients(
            lambda directions: damped.gauss_newton_product(fitted.scope, directions),
            gradients,
            torch.clone,
            tolerance,
            self.settings.max_iterations,
            progress=self.progress,
        )

    def shifts(self, fitted: _Fitted, target: Pairs) -> Tensor:
        """What the values of each round would be shifted by if the target's batches were those of one round, too.

        A repeat draws both anew. Their mean is 0; a target that fits one batch shifts nothing.

        Returns:
            float32 (rounds, N)
        """
        objective = self.mean_loss(target, TARGET)
        if len(objective.rounds) == 1 or len(objective.rounds[0]) == 1:
            return torch.zeros(len(objective.rounds), len(fitted.members))
        rounds = [replace(objective, rounds=[batches]) for batches in objective.rounds]
        with self.timed("solve"):
            gradients = torch.stack([each.value_and_gradient(fitted.scope)[1] for each in rounds])
            solution = self.inverse(fitted, gradients - gradients.mean(0), SHIFT_TOLERANCE)
        own_rounds = [replace(fitted.objective, rounds=[batches]) for batches in fitted.objective.rounds]
        return torch.cat(
            [
                self.values(each, fitted.scope, vector).value
                for each, vector in zip(own_rounds, solution.vectors, strict=True)
            ]
        )

    def values(self, objective: Objective, scope: Scope, solution: Tensor) -> _Values:
        """The value of each pair of the objective by round, and its parts, by s (P,)."""
        with self.timed("scores"):
            found = value_pass(objective, scope, solution[None], self.score_dtype, self.progress)
        roles, removal = Roles(*(part[:, 0].float() for part in found)), self.settings.removal
        return _Values(roles.value(removal), roles.positive, roles.negative(removal))

    def self_influence(self, fitted: _Fitted, rows: Tensor) -> Tensor:
        """The self-influence of pairs of the last fit by the EK-FAC inverse, float32, and its factor in the report.

        Args:
            fitted: the fit
            rows: int64, the pairs, by their place among those that were fitted on; NaN is returned for others
        """
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
                return probe_pass(objective, scope, *rooted, self.progress).float()
            own = self_influence_pass(objective, scope, curvature.quadratic, rows, self.progress)
            if len(rows) == len(own):
                factor = self.self_influence_factor(fitted, own)
                self.reports[-1] = replace(self.reports[-1], self_influence_factor=factor)
        return own.float()

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
