"""The whole computation in one process, on one device: fit, curvature, target gradient, solve, scores."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fiftyone_ecif.core import (
    Fit,
    Head,
    KroneckerCurvature,
    Objective,
    Pairs,
    Progress,
    Roles,
    Scope,
    conjugate_gradients,
    fit_to_rest,
    influence,
    kronecker_curvature,
    largest_eigenvalue,
    self_influence,
    self_influence_by_probes,
    silent,
)
from fiftyone_ecif.engine.losses import FITTED, HELD_OUT, TARGET, mean_loss
from fiftyone_ecif.engine.settings import Attributed, FoldReport, InfluenceOutcome, PairScores, Settings

RELATIVE_ANCHOR = 0.1
"""Anchor over largest curvature when the caller sets none: firm enough for a fit to come to rest (docs/fidelity.md)."""

EIGENVALUE_BATCHES = 8
"""Batches from which the largest curvature is estimated."""

FIT_TOLERANCE = 1e-3
"""Gradient at rest over gradient at the start that a fit aims for."""

FOLDS = 2

STABLE = 0.5
"""Ranking stability below which a warning is due."""


class Subset:
    """Some of the pairs, as pairs; implements :class:`~fiftyone_ecif.core.scope.Pairs`.

    Args:
        pairs: all of them
        index: int64 (M,), the ones meant
    """

    def __init__(self, pairs: Pairs, index: Tensor) -> None:
        self.pairs, self.index = pairs, index

    def __len__(self) -> int:
        return len(self.index)

    def gather(self, index: Tensor) -> tuple[Tensor, Tensor]:
        return self.pairs.gather(self.index[index.cpu()])


def compute(
    pairs: Pairs,
    target: Pairs | None,
    head: Head,
    loss: str,
    settings: Settings,
    device: str = "cpu",
    progress: Progress = silent,
    attributed: Attributed | None = None,
) -> InfluenceOutcome:
    """Score every pair by what its removal would do to a target loss.

    Args:
        pairs: the features of the N training pairs
        target: those of trusted pairs whose mean loss is the target; None cross-fits: each half of the pairs is scored
            against the loss of the other half
        head: the given weights θ0, float32
        loss: a key of :data:`~fiftyone_ecif.core.LOSSES`
        settings: the run's choices
        device: where to compute
        progress: called with each step's name
        attributed: a scope other than the head for the values and the self-influence, with the same pairs as its own
            inputs; what a pair's held-out loss is made of stays the head's

    Returns:
        an :class:`InfluenceOutcome`

    Raises:
        ValueError: if there are too few pairs for a contrastive loss, or ``attributed`` has others
    """
    minimum = 2 * FOLDS
    if len(pairs) < minimum or (target is not None and len(target) < 2):
        raise ValueError(
            f"There are {len(pairs)} usable pairs"
            + ("" if target is None else f" and {len(target)} usable target pairs")
            + f"; at least {minimum} and 2 are needed to compare pairs with one another."
        )
    if attributed and _sizes(attributed.pairs, attributed.target) != _sizes(pairs, target):
        raise ValueError("The attributed scope's inputs are not of the same pairs and target pairs as the features.")
    run = _Run(loss, settings, progress)
    head = head.to(device)
    folds = cross_fit_folds(len(pairs), settings.seed)
    index = [(folds == fold).nonzero().squeeze(1) for fold in range(FOLDS)]
    scores = PairScores.empty(len(pairs))
    of_head = Attributed.of_head(head, pairs, target)
    halves = [run.fit(of_head, members, f"Fit half {number + 1}") for number, members in enumerate(index)]
    for fitted, held_out in zip(halves, reversed(halves), strict=True):
        run.held_out_loss(fitted.scope, held_out.members, scores)

    scored = replace(attributed, scope=attributed.scope.to(device)) if attributed else of_head
    if scored is of_head and target is None:
        fits = halves
    else:
        parts = index if target is None else [torch.arange(len(pairs))]
        fits = [run.fit(scored, members, "Fit") for members in parts]
    targets = [fitted.members for fitted in reversed(fits)] if scored.target is None else [scored.target]
    solutions = [run.score(fitted, against, scores) for fitted, against in zip(fits, targets, strict=True)]
    return InfluenceOutcome(
        scores,
        [fitted.scope.to("cpu") for fitted in fits],
        [head.replace(fitted.scope.vector()).to("cpu") for fitted in halves],
        folds,
        torch.stack(solutions).cpu(),
        run.reports,
        run.timings,
        run.warnings,
    )


def _sizes(*sources: Pairs | None) -> list[int | None]:
    return [None if source is None else len(source) for source in sources]


@dataclass(frozen=True)
class _Fitted:
    """A scope at rest on some pairs, with the objective and the curvature it came to rest on."""

    attributed: Attributed
    members: Subset
    objective: Objective
    curvature: KroneckerCurvature
    fit: Fit

    @property
    def scope(self) -> Scope:
        return self.fit.scope

    @property
    def preconditioner(self) -> Callable[[Tensor], Tensor]:
        return _preconditioner(self.attributed, self.curvature)


def _preconditioner(attributed: Attributed, curvature: KroneckerCurvature) -> Callable[[Tensor], Tensor]:
    return curvature.solve if attributed.preconditioned else torch.clone


class _Run:
    """One run's steps, their timings and what is to be said about them."""

    def __init__(self, loss: str, settings: Settings, progress: Progress) -> None:
        self.loss, self.settings, self.progress = loss, settings, progress
        self.timings: dict[str, float] = {}
        self.warnings: list[str] = []
        self.reports: list[FoldReport] = []

    def fit(self, attributed: Attributed, index: Tensor, step: str) -> _Fitted:
        """Choose the anchor and bring the scope to rest on some of the pairs, or as near as its steps get."""
        settings, scope, members = self.settings, attributed.scope, Subset(attributed.pairs, index)
        with self.timed("fit"):
            plain = mean_loss(members, self.loss, settings, FITTED)
            anchor = settings.anchor or RELATIVE_ANCHOR * self.largest_curvature(plain, scope)
            objective = replace(plain, anchor=anchor, origin=scope.vector())
            curvature = kronecker_curvature(
                objective, scope, anchor + settings.damping, seed=settings.seed, progress=self.progress
            )
            fit = fit_to_rest(
                objective,
                scope,
                _preconditioner(attributed, curvature),
                FIT_TOLERANCE,
                attributed.fit_steps,
                progress=self.progress,
                step=step,
            )
        if not fit.at_rest:
            self.warnings.append(
                f"{step}: the parameters did not come to rest (gradient {fit.relative_gradient:.1e} of its start after "
                f"{fit.steps} steps); scores assume that they did. Set a firmer anchor."
            )
        return _Fitted(attributed, members, objective, curvature, fit)

    def largest_curvature(self, objective: Objective, scope: Scope) -> float:
        """λ_max of the Gauss-Newton matrix at θ0, from a few batches."""
        batches = objective.rounds[0][:EIGENVALUE_BATCHES]
        sample = replace(objective, rounds=[batches], divisor=sum(map(len, batches)))
        theta = scope.vector()
        start = torch.randn(1, len(theta), generator=torch.Generator().manual_seed(self.settings.seed))
        return largest_eigenvalue(lambda d: sample.gauss_newton_product(scope, d), start.to(theta))

    def held_out_loss(self, head: Scope, members: Subset, scores: PairScores) -> None:
        """pos_n, mean over rounds, of pairs that the head was not fitted on, as they are and swapped on purpose."""
        own, swapped = torch.zeros(len(members)), torch.zeros(len(members))
        with self.timed("held-out loss"):
            objective = mean_loss(members, self.loss, self.settings, HELD_OUT)
            partner = torch.cat([index.roll(-1) for index in objective.rounds[0]])
            scores.swap_partner[members.index[torch.cat(objective.rounds[0])]] = members.index[partner]
            for number, batches in enumerate(objective.rounds):
                for index in batches:
                    similarity = head.linearize(*members.gather(index)).similarity()
                    own[index] += objective.loss.roles(similarity).positive.cpu()
                    if number == 0:
                        swapped[index] = objective.loss.swap_losses(similarity).float().cpu()
        scores.held_out_loss[members.index] = own / self.settings.rounds
        scores.swap_loss[members.index] = swapped

    def score(self, fitted: _Fitted, target: Pairs, scores: PairScores) -> Tensor:
        """Fill in the scores of the fold's pairs; returns s = H⁻¹ ∇C, (P,)."""
        objective, scope, settings = fitted.objective, fitted.scope, self.settings
        with self.timed("solve"):
            target_loss, gradient = mean_loss(target, self.loss, settings, TARGET).value_and_gradient(scope)
            damped = replace(objective, anchor=objective.anchor + settings.damping)
            solution = conjugate_gradients(
                lambda directions: damped.gauss_newton_product(scope, directions),
                gradient[None],
                fitted.preconditioner,
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
        with self.timed("scores"):
            found = influence(objective, scope, solution.vectors, progress=self.progress)
            roles = Roles(*(part[:, 0].float() for part in found))
        with self.timed("self-influence"):
            probes, curvature = fitted.attributed.probes, fitted.curvature
            if probes:
                self.say_once(
                    f"Self-influence is estimated from {probes} random directions: its relative standard error is "
                    f"{(2 / probes) ** 0.5:.0%}."
                )
                own = self_influence_by_probes(
                    objective, scope, curvature.inverse_root, probes, settings.seed, self.progress
                )
            else:
                own = self_influence(objective, scope, curvature.quadratic, progress=self.progress)
        index = fitted.members.index
        value = roles.value(settings.removal)
        scores.value[index] = value.mean(0)
        scores.value_positive[index] = roles.positive.mean(0)
        scores.value_negative[index] = roles.negative(settings.removal).mean(0)
        scores.value_std[index] = value.std(0)
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
