"""Removing a group of pairs without retraining (ECIF.md §7)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from fiftyone_ecif.core.conjugate_gradients import Solution, conjugate_gradients
from fiftyone_ecif.core.losses import ContrastiveLoss
from fiftyone_ecif.core.objective import Objective
from fiftyone_ecif.core.scope import Linearization, Scope
from fiftyone_ecif.core.workers import Progress, silent


def removal_gradients(objective: Objective, scope: Scope, groups: Tensor) -> Tensor:
    """∇J − ∇J_{−E} = (1/N) ∇(pos_E + negx_E) for each group E, deleted as a whole  (ECIF.md §2, §7).

    Args:
        objective: J, with all pairs
        scope: at θ̂
        groups: bool (G, N)

    Returns:
        (G, P); the proximal term drops out, as does what is left of ∇J at θ̂

    Raises:
        ValueError: if a group leaves fewer than two pairs
    """
    for removed in groups:
        objective.check_left(removed)
    anyone = groups.any(0)
    touched = [[index for index in batches if anyone[index].any()] for batches in objective.rounds]
    theta = scope.vector()
    result = theta.new_zeros(len(groups), len(theta))
    for index, batch in replace(objective, rounds=touched).linearizations(scope):
        add_batch_removals(objective.loss, batch, batch.similarity(), groups[:, index], result)
    return result * objective.weight


def add_batch_removals(
    loss: ContrastiveLoss, batch: Linearization, similarity: Tensor, members: Tensor, total: Tensor
) -> None:
    """Add ∇(pos_E + negx_E) of one batch to the gradients of the groups that have pairs in it.

    Args:
        loss: of the batch
        batch: B pairs at θ̂
        similarity: (B, B), their S
        members: bool (G, B), which of them are in each group
        total: (G, P), added to in place
    """
    rows = members.any(1).nonzero().squeeze(1)
    if len(rows):
        cotangents = loss.deletion_cotangents(similarity, members[rows].to(similarity.device))
        total[rows.to(total.device)] += batch.pull_back(batch.cotangent(cotangents))


def removal_step(
    objective: Objective,
    scope: Scope,
    removed: Tensor,
    preconditioner: Callable[[Tensor], Tensor],
    newton_steps: int = 1,
    tolerance: float = 1e-3,
    max_iterations: int = 200,
    progress: Progress = silent,
    damping: float = 0.0,
) -> tuple[Tensor, Solution]:
    """Δθ_E = (H_{−E} + damping)⁻¹ (∇J − ∇J_{−E}), the Newton step on the objective without the group  (ECIF.md §7).

    H_{−E} is the curvature of the pairs that are left. Each further step takes gradient and curvature at the point
    that the last one reached.

    Args:
        objective: J, with all pairs
        scope: at θ̂, at rest on J
        removed: bool (N,), the group E
        preconditioner: an approximate inverse curvature
        newton_steps: 1 for the closed form; each further one starts from where the last ended
        tolerance: of the solver
        max_iterations: of the solver
        progress: called per iteration
        damping: added to the eigenvalues of the curvature in each solve, and to nothing else

    Returns:
        Δθ (P,) and the last step's :class:`Solution`

    Raises:
        ValueError: if E leaves fewer than two pairs, or ``newton_steps`` is below 1
    """
    if newton_steps < 1:
        raise ValueError(f"newton_steps must be at least 1, not {newton_steps}.")
    kept = objective.without(removed)
    damped = replace(kept, anchor=kept.anchor + damping)
    theta = scope.vector()
    first = -removal_gradients(objective, scope, removed[None])[0]
    # What is left of ∇J at θ̂ is drift of the fit, not an effect of the removal: every step leaves it out.
    drift = kept.value_and_gradient(scope)[1] - first if newton_steps > 1 else torch.zeros_like(first)
    change = torch.zeros_like(theta)
    for step in range(newton_steps):
        moved = scope.replace(theta + change)
        gradient = kept.value_and_gradient(moved)[1] - drift if step else first
        solution = conjugate_gradients(
            partial(damped.gauss_newton_product, moved),
            -gradient[None],
            preconditioner,
            tolerance,
            max_iterations,
            progress=progress,
            step="Removal",
        )
        change = change + solution.vectors[0]
    return change, solution
