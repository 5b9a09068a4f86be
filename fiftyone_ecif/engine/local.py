"""The whole computation in one process, on one device: fit, curvature, target gradient, solve, scores."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor

from fiftyone_ecif.core import (
    LOSSES,
    Head,
    KroneckerCurvature,
    Objective,
    Pairs,
    Progress,
    conjugate_gradients,
    fit_to_rest,
    influence,
    kronecker_curvature,
    largest_eigenvalue,
    partitions,
    self_influence,
    silent,
)
from fiftyone_ecif.engine.settings import FoldReport, InfluenceOutcome, PairScores, Settings

RELATIVE_ANCHOR = 0.1
"""Anchor over largest curvature when the caller sets none: firm enough for a fit that comes to rest (docs/fidelity.md)."""

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
) -> InfluenceOutcome:
    """Score every pair by what its removal would do to a target loss.

    Args:
        pairs: the N training pairs
        target: trusted pairs whose mean loss is the target; None cross-fits: each half of the pairs is scored against
            the loss of the other half
        head: the given weights θ0, float32
        loss: a key of :data:`~fiftyone_ecif.core.LOSSES`
        settings: the run's choices
        device: where to compute
        progress: called with each step's name

    Returns:
        an :class:`InfluenceOutcome`

    Raises:
        ValueError: if there are too few pairs for a contrastive loss
    """
    minimum = 2 * FOLDS
    if len(pairs) < minimum or (target is not None and len(target) < 2):
        raise ValueError(
            f"There are {len(pairs)} usable pairs"
            + ("" if target is None else f" and {len(target)} usable target pairs")
            + f"; at least {minimum} and 2 are needed to compare pairs with one another."
        )
    run = _Run(head.to(device), loss, settings, progress)
    folds = torch.randperm(len(pairs), generator=torch.Generator().manual_seed(settings.seed)) % FOLDS
    members = [Subset(pairs, (folds == fold).nonzero().squeeze(1)) for fold in range(FOLDS)]
    scores = PairScores.empty(len(pairs))
    halves = fits = [run.fit(fold, f"Fit half {number + 1}") for number, fold in enumerate(members)]
    for fitted, held_out in zip(halves, reversed(members), strict=True):
        run.held_out_loss(fitted.head, held_out, scores)
    if target is None:
        targets = list(reversed(members))
    else:
        fits = [run.fit(Subset(pairs, torch.arange(len(pairs))), "Fit")]
        targets = [target]
    solutions = torch.stack([run.score(fitted, against, scores) for fitted, against in zip(fits, targets, strict=True)])
    return InfluenceOutcome(
        scores,
        [fitted.head.to("cpu") for fitted in fits],
        [fitted.head.to("cpu") for fitted in halves],
        folds,
        solutions.cpu(),
        run.reports,
        run.timings,
        run.warnings,
    )


class _Fitted:
    """A head at rest on some pairs, with the objective and the curvature it came to rest on."""

    def __init__(self, members: Subset, objective: Objective, curvature: KroneckerCurvature, fit) -> None:
        self.members, self.objective, self.curvature, self.fit = members, objective, curvature, fit
        self.head: Head = fit.scope


class _Run:
    """One run's steps, their timings and what is to be said about them."""

    def __init__(self, head: Head, loss: str, settings: Settings, progress: Progress) -> None:
        self.head, self.loss, self.settings, self.progress = head, LOSSES[loss], settings, progress
        self.timings: dict[str, float] = {}
        self.warnings: list[str] = []
        self.reports: list[FoldReport] = []

    def fit(self, members: Subset, step: str) -> _Fitted:
        """Choose the anchor and bring the head to rest on the pairs."""
        settings = self.settings
        with self.timed("fit"):
            plain = self.objective(members, settings.seed)
            origin = self.head.vector()
            anchor = settings.anchor or RELATIVE_ANCHOR * self.largest_curvature(plain)
            objective = replace(plain, anchor=anchor, origin=origin)
            curvature = kronecker_curvature(
                objective, self.head, anchor + settings.damping, seed=settings.seed, progress=self.progress
            )
            fit = fit_to_rest(
                objective, self.head, curvature.solve, FIT_TOLERANCE, progress=self.progress, step=step
            )
        if not fit.at_rest:
            self.warnings.append(
                f"{step}: the head did not come to rest (gradient {fit.relative_gradient:.1e} of its start after "
                f"{fit.steps} steps); scores assume that it did. Set a firmer anchor."
            )
        return _Fitted(members, objective, curvature, fit)

    def largest_curvature(self, objective: Objective) -> float:
        """λ_max of the Gauss-Newton matrix at θ0, from a few batches."""
        batches = objective.rounds[0][:EIGENVALUE_BATCHES]
        sample = replace(objective, rounds=[batches], divisor=sum(map(len, batches)))
        start = torch.randn(1, self.head.size, generator=torch.Generator().manual_seed(self.settings.seed))
        return largest_eigenvalue(lambda d: sample.gauss_newton_product(self.head, d), start.to(self.head.vector()))

    def held_out_loss(self, head: Head, members: Subset, scores: PairScores) -> None:
        """pos_n, mean over rounds, of pairs that the head was not fitted on, as they are and swapped on purpose."""
        own, swapped = torch.zeros(len(members)), torch.zeros(len(members))
        with self.timed("held-out loss"):
            objective = self.objective(members, self.settings.seed + 1)
            partner = torch.cat([index.roll(-1) for index in objective.rounds[0]])
            scores.swap_partner[members.index[torch.cat(objective.rounds[0])]] = members.index[partner]
            for number, batches in enumerate(objective.rounds):
                for index in batches:
                    similarity = head.linearize(*members.gather(index)).similarity()
                    own[index] += self.loss.roles(similarity).positive.cpu()
                    if number == 0:
                        swapped[index] = self.loss.swap_losses(similarity).cpu()
        scores.held_out_loss[members.index] = own / self.settings.rounds
        scores.swap_loss[members.index] = swapped

    def score(self, fitted: _Fitted, target: Pairs, scores: PairScores) -> Tensor:
        """Fill in the scores of the fold's pairs; returns s = H⁻¹ ∇C, (P,)."""
        objective, head, settings = fitted.objective, fitted.head, self.settings
        with self.timed("solve"):
            target_loss, gradient = self.objective(target, settings.seed + 2).value_and_gradient(head)
            damped = replace(objective, anchor=objective.anchor + settings.damping)
            solution = conjugate_gradients(
                lambda directions: damped.gauss_newton_product(head, directions),
                gradient[None],
                fitted.curvature.solve,
                settings.tolerance,
                settings.max_iterations,
                progress=self.progress,
            )
        if not solution.converged:
            self.warnings.append(
                f"The solver stopped at a relative residual of {solution.relative_residual:.1e} after "
                f"{solution.iterations} iterations (asked: {settings.tolerance:.0e}). Set a firmer anchor or more damping."
            )
        with self.timed("scores"):
            roles = influence(objective, head, solution.vectors, progress=self.progress)
        with self.timed("self-influence"):
            own = self_influence(objective, head, fitted.curvature.quadratic, progress=self.progress)
        index = fitted.members.index
        value = roles.value(settings.removal)[:, 0]
        scores.value[index] = value.mean(0)
        scores.value_positive[index] = roles.positive[:, 0].mean(0)
        scores.value_negative[index] = roles.negative(settings.removal)[:, 0].mean(0)
        scores.value_std[index] = value.std(0)
        scores.self_influence[index] = own
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

    def objective(self, pairs: Pairs, seed: int) -> Objective:
        """The mean batch loss of some pairs, without an anchor."""
        rounds = partitions(len(pairs), min(self.settings.batch_size, len(pairs)), self.settings.rounds, seed)
        return Objective(pairs, rounds, self.loss)

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
    first, second = (set(part.mean(0).topk(worst, largest=False).indices.tolist()) for part in value.split([half, len(value) - half]))
    return len(first & second) / worst
