"""What removing a group of pairs does to a target: predicted in closed form, and measured by refitting (ECIF.md §7)."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from fiftyone_ecif.attribution.objectives import FITTED, mean_loss
from fiftyone_ecif.attribution.score import FIT_TOLERANCE
from fiftyone_ecif.attribution.settings import Attributed, Settings
from fiftyone_ecif.core import Objective, Progress, Scope, fit_to_rest, removal_step, silent

Evaluation = Callable[[Scope], dict[str, float]]
"""Computes the figures of a target at given parameters."""

REFIT_STEPS = 10
"""Newton steps that a refit without a group may take; it starts close to where it ends."""

LARGE_GROUP = 0.2
"""Share of the pairs above which the closed form of a removal comes with a warning."""


@dataclass
class RemovalEffect:
    """What removing a group does.

    Attributes:
        removed: pairs in the group
        before: figures of the target at θ̂: ``target_loss`` in nats, and whatever else was evaluated
        predicted: the same figures at θ̂ + Δθ, in closed form
        measured: the same figures after refitting without the group, drift subtracted; None if it was not asked for
        standard_error: of the predicted change of each figure, by its spread over the fits of a cross-fitted run, which
            differ in pairs, batches and target; empty where one fit tells nothing of it
        seconds: of the prediction and of the refit
        warnings: in plain words
    """

    removed: int
    before: dict[str, float]
    predicted: dict[str, float]
    measured: dict[str, float] | None = None
    standard_error: dict[str, float] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class FittedPairs:
    """Pairs, the parameters at rest on them, and the objective that they are at rest on.

    Args:
        objective: J
        scope: at θ̂
        fit_steps: Newton steps towards rest at most
        damping: added to the curvature when a removal is predicted, as it is for values and traces; J has none of it
    """

    objective: Objective
    scope: Scope
    fit_steps: int
    damping: float

    @classmethod
    def restore(
        cls, attributed: Attributed, fitted: Tensor, loss: str, anchor: float, settings: Settings
    ) -> FittedPairs:
        """Restore what a run was fitted on.

        Args:
            attributed: the scope of the run at θ0, and the pairs that it was fitted on, in their order
            fitted: θ̂ (P,)
            loss: a key of :data:`~fiftyone_ecif.core.LOSSES`
            anchor: δ
            settings: the choices of the run
        """
        mean = mean_loss(attributed.pairs, loss, settings, FITTED)
        objective = replace(mean, anchor=anchor, origin=attributed.scope.vector())
        return cls(objective, attributed.scope.replace(fitted), attributed.fit_steps, settings.damping)

    def at_rest(self, progress: Progress = silent) -> FittedPairs:
        """The same pairs, with the fit continued until it is at rest on all of them."""
        origin = self.objective.origin
        scale = (
            None if origin is None else self.objective.value_and_gradient(self.scope.replace(origin))[1].norm().item()
        )
        fit = fit_to_rest(self.objective, self.scope, torch.clone, FIT_TOLERANCE, self.fit_steps, scale, progress)
        return replace(self, scope=fit.scope)


def estimate_removal(
    fitted: FittedPairs,
    removed: Tensor,
    evaluate: Evaluation,
    newton_steps: int = 1,
    progress: Progress = silent,
) -> tuple[RemovalEffect, Scope]:
    """Predict what removing a group does, without retraining (ECIF.md §7).

    Args:
        fitted: pairs and parameters at rest on them
        removed: bool (N,), the group
        evaluate: computes the figures of the target
        newton_steps: 1 for the closed form; more to correct it from the point that it reached
        progress: called with the name of each step

    Returns:
        a :class:`RemovalEffect`, and the scope at θ̂ + Δθ

    Raises:
        ValueError: if the group is empty, or leaves fewer than two pairs
    """
    if not removed.any():
        raise ValueError("There is nothing to remove: none of these samples has a score in this run.")
    start = time.perf_counter()
    change, solution = removal_step(
        fitted.objective,
        fitted.scope,
        removed,
        torch.clone,
        newton_steps,
        progress=progress,
        damping=fitted.damping,
    )
    moved = fitted.scope.replace(fitted.scope.vector() + change)
    effect = RemovalEffect(int(removed.sum()), evaluate(fitted.scope), evaluate(moved))
    effect.seconds["predicted"] = time.perf_counter() - start
    if not solution.converged:
        effect.warnings.append(
            f"The solver stopped at a relative residual of {solution.relative_residual:.1e}: the prediction is rough."
        )
    share = effect.removed / len(fitted.objective.pairs)
    if share > LARGE_GROUP:
        effect.warnings.append(
            f"The group is {share:.0%} of the pairs, and the error of one step grows with its square: "
            "verify it by refitting, or ask for a second Newton step."
        )
    return effect, moved


def verify_removal(
    fitted: FittedPairs,
    removed: Tensor,
    evaluate: Evaluation,
    tolerance: float = 1e-3,
    progress: Progress = silent,
) -> RemovalEffect:
    """Predict what removing a group does, and measure it by refitting without the group.

    The measured figures are those of the refit without the group, minus the change that an equally long refit with the
    group makes. Refits minimise J itself: damping is part of the prediction only.

    Args:
        fitted: pairs and parameters at rest on them
        removed: bool (N,), the group
        evaluate: computes the figures of the target
        tolerance: of the refits, relative to the gradient that the removal causes
        progress: called with the name of each step

    Returns:
        a :class:`RemovalEffect` with ``measured``

    Raises:
        ValueError: as :func:`estimate_removal`
    """
    effect, _ = estimate_removal(fitted, removed, evaluate, progress=progress)
    start = time.perf_counter()
    kept = fitted.objective.without(removed)
    scale = kept.value_and_gradient(fitted.scope)[1].norm().item()
    refit = fit_to_rest(
        kept, fitted.scope, torch.clone, tolerance, REFIT_STEPS, scale, progress,
        "Refit without the group",
    )  # fmt: skip
    control = fit_to_rest(
        fitted.objective, fitted.scope, torch.clone, tolerance, max(refit.steps, 1), scale, progress,
        "Refit with the group",
    )  # fmt: skip
    drifted = evaluate(control.scope)
    measured = evaluate(refit.scope)
    effect.measured = {name: effect.before[name] + measured[name] - drifted[name] for name in measured}
    effect.seconds["measured"] = time.perf_counter() - start
    if not refit.at_rest:
        effect.warnings.append(
            f"The refit did not come to rest (gradient {refit.relative_gradient:.1e} of what the removal causes after "
            f"{refit.steps} steps): the measured figures are not final."
        )
    return effect


def mean_effect(effects: list[RemovalEffect], removed: int) -> RemovalEffect:
    """The effect on the mean of the targets of several fits, as in a cross-fitted run.

    Args:
        effects: one for each fit
        removed: pairs in the group, each of which is part of several fits
    """
    first = effects[0]
    measured = [effect.measured for effect in effects if effect.measured is not None]
    return replace(
        first,
        removed=removed,
        before=mean_figures([effect.before for effect in effects]),
        predicted=mean_figures([effect.predicted for effect in effects]),
        measured=mean_figures(measured) if measured else None,
        standard_error=errors_of_changes(
            [effect.before for effect in effects], [effect.predicted for effect in effects]
        ),
        seconds={name: sum(effect.seconds[name] for effect in effects) for name in first.seconds},
        warnings=list(dict.fromkeys(note for effect in effects for note in effect.warnings)),
    )


def mean_figures(fits: list[dict[str, float]]) -> dict[str, float]:
    """The mean of each figure over fits, of those that all their targets have: few texts have fewer recalls."""
    names = [name for name in fits[0] if all(name in figures for figures in fits)]
    return {name: sum(figures[name] for figures in fits) / len(fits) for name in names}


def errors_of_changes(before: list[dict[str, float]], after: list[dict[str, float]]) -> dict[str, float]:
    """The standard error of the mean change of each figure over fits; empty for one fit."""
    if len(before) < 2:
        return {}
    changes = {
        name: torch.tensor([now[name] - was[name] for was, now in zip(before, after, strict=True)])
        for name in mean_figures(before)
    }
    return {name: change.std().item() / len(before) ** 0.5 for name, change in changes.items()}


def recall(image: Tensor, text: Tensor, texts: Tensor, ks: tuple[int, ...] = (1, 5)) -> dict[str, float]:
    """Recall of image-to-text retrieval among the distinct texts of a target.

    Args:
        image: (N, D) unit vectors
        text: (N,) int64, the distinct text that belongs to each image
        texts: (C, D) unit vectors of the distinct texts
        ks: numbers of retrieved texts among which the right one is looked for

    Returns:
        ``recall_at_k`` for every k below the number of texts, 0 to 1
    """
    ks = tuple(k for k in ks if k < len(texts)) or (1,)
    hits = torch.zeros(len(ks))
    for rows in torch.split(torch.arange(len(image)), 4096):
        top = (image[rows] @ texts.T).topk(min(max(ks), len(texts)), dim=1).indices == text[rows, None]
        hits += torch.stack([top[:, :k].any(1).sum() for k in ks])
    return {f"recall_at_{k}": hit.item() / len(image) for k, hit in zip(ks, hits, strict=True)}
