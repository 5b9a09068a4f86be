"""Removing a group of pairs without retraining (ECIF.md §7)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from fiftyone_ecif.core.objective import Objective, Progress, silent
from fiftyone_ecif.core.scope import Scope
from fiftyone_ecif.core.solver import Solution, conjugate_gradients


def removal_step(
    objective: Objective,
    scope: Scope,
    removed: Tensor,
    preconditioner: Callable[[Tensor], Tensor],
    newton_steps: int = 1,
    tolerance: float = 1e-3,
    max_iterations: int = 200,
    progress: Progress = silent,
) -> tuple[Tensor, Solution]:
    """Δθ_E = H⁻¹ (∇J − ∇J_{−E}) = (1/N) H⁻¹ ∇(pos_E + negx_E), the group form  (ECIF.md §7).

    Args:
        objective: J, with all pairs
        scope: at θ̂, at rest on J
        removed: bool (N,), the group E
        preconditioner: an approximate inverse curvature
        newton_steps: 1 for the closed form; each further one starts from where the last ended
        tolerance: of the solver
        max_iterations: of the solver
        progress: called per iteration

    Returns:
        Δθ (P,) and the last step's :class:`Solution`

    Raises:
        ValueError: if E leaves fewer than two pairs, or ``newton_steps`` is below 1
    """
    if newton_steps < 1:
        raise ValueError(f"newton_steps must be at least 1, not {newton_steps}.")
    kept = objective.without(removed)
    # What is left of ∇J at θ̂ is drift of the fit, not an effect of the removal: it is subtracted from every step.
    drift = objective.value_and_gradient(scope)[1]
    theta = scope.vector()
    change = torch.zeros_like(theta)
    for _ in range(newton_steps):
        moved = scope.replace(theta + change)
        gradient = kept.value_and_gradient(moved)[1] - drift
        solution = conjugate_gradients(
            lambda direction: kept.gauss_newton_product(moved, direction),  # noqa: B023 - called at once
            -gradient[None],
            preconditioner,
            tolerance,
            max_iterations,
            progress=progress,
            step="Removal",
        )
        change = change + solution.vectors[0]
    return change, solution
