"""Removing a group of pairs without retraining (ECIF.md §7)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import torch
from torch import Tensor

from fiftyone_ecif.core.conjugate_gradients import Solution, conjugate_gradients
from fiftyone_ecif.core.objective import Objective, Progress, silent
from fiftyone_ecif.core.scope import Linearization, Scope


def removal_gradients(objective: Objective, scope: Scope, groups: Tensor) -> Tensor:
    """∇J − ∇J_{−E} = (1/N) ∇(pos_E + negx_E) for each group E, the group form  (ECIF.md §2, §7).

    Args:
        objective: J, with all pairs
        scope: at θ̂
        groups: bool (G, N)

    Returns:
        (G, P); what is left of ∇J at θ̂ and the anchor drop out

    Raises:
        ValueError: if a group leaves fewer than two pairs
    """
    anyone = groups.any(0)
    touched = [[index for index in batches if anyone[index].any()] for batches in objective.rounds]
    return _removal_gradients(objective, scope, groups, _ready(replace(objective, rounds=touched), scope))


class PreparedRemovals:
    """Removals from one fit, each at the price of a pull-back and of an inverse that is at hand  (ECIF.md §7).

    Embeddings, S and its cotangent are kept for all batches: N (features + 2 B) numbers a round.

    Args:
        objective: J, with all pairs
        scope: at θ̂
        inverse: H⁻¹ applied to (G, P), such as that of ``LowRankInverse``
    """

    def __init__(self, objective: Objective, scope: Scope, inverse: Callable[[Tensor], Tensor]) -> None:
        self.objective, self.scope, self.inverse = objective, scope, inverse
        self.batches = list(_ready(objective, scope))

    def steps(self, groups: Tensor) -> Tensor:
        """Δθ_E = H⁻¹ (∇J − ∇J_{−E}) for each group, bool (G, N): (G, P)."""
        return self.inverse(_removal_gradients(self.objective, self.scope, groups, self.batches))


_Batch = tuple[Tensor, Linearization, Tensor, Tensor]


def _ready(objective: Objective, scope: Scope) -> Iterator[_Batch]:
    """Every batch: its indices, linearization, S and ∂(sum loss)/∂S."""
    for index, batch in objective.linearizations(scope):
        similarity = batch.similarity()
        yield index, batch, similarity, objective.loss.similarity_cotangent(similarity)


def _removal_gradients(objective: Objective, scope: Scope, groups: Tensor, batches: Iterable[_Batch]) -> Tensor:
    for removed in groups:
        objective.check_left(removed)
    theta = scope.vector()
    result = torch.zeros(len(groups), len(theta), dtype=theta.dtype, device=theta.device)
    for index, batch, similarity, full in batches:
        members = groups[:, index]
        rows = members.any(1).nonzero().squeeze(1)
        if len(rows):
            change = full.repeat(len(rows), 1, 1)
            for part, gone in zip(change, members[rows], strict=True):
                cells = _left(gone)
                part[cells] -= objective.loss.similarity_cotangent(similarity[cells])
            result[rows.to(theta.device)] += batch.pull_back(batch.cotangent(change))
    return result * objective.weight


def _left(gone: Tensor) -> tuple[Tensor, Tensor]:
    """Cells (i, j) of a batch whose pairs are both left."""
    kept = (~gone).nonzero().squeeze(1)
    return kept[:, None], kept


class RemovalForecast:
    """Predicted change of a target loss for any group, from one tangent that all groups share  (ECIF.md §4, §7).

    ⟨s, ∇J − ∇J_{−E}⟩ needs no gradient: it is the derivative of J − J_{−E} along s, a function of S and Ṡ alone. Both
    are kept for all batches: 2 N B numbers a round.

    Args:
        objective: J
        scope: at θ̂
        solution: s = H⁻¹ ∇C, (P,)
    """

    def __init__(self, objective: Objective, scope: Scope, solution: Tensor) -> None:
        self.objective = objective
        self.batches = [
            (index, batch.similarity(), batch.similarity_tangent(solution[None])[0])
            for index, batch in objective.linearizations(scope)
        ]
        self.along = [self._derivative(similarity, tangent) for _, similarity, tangent in self.batches]

    def change(self, removed: Tensor) -> float:
        """Predicted change of the target loss, in nats, if the pairs in ``removed`` (bool, (N,)) were gone."""
        self.objective.check_left(removed)
        total = 0.0
        for (index, similarity, tangent), full in zip(self.batches, self.along, strict=True):
            gone = removed[index]
            if gone.any():
                cells = _left(gone)
                total += full - self._derivative(similarity[cells], tangent[cells])
        return total * self.objective.weight

    def _derivative(self, similarity: Tensor, tangent: Tensor) -> float:
        return (self.objective.loss.similarity_cotangent(similarity) * tangent).sum().item()


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
    theta = scope.vector()
    gradient = -removal_gradients(objective, scope, removed[None])[0]
    drift = kept.value_and_gradient(scope)[1] - gradient if newton_steps > 1 else None
    change = torch.zeros_like(theta)
    for step in range(newton_steps):
        moved = scope.replace(theta + change)
        if step:
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
