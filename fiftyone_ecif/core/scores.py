"""Per-pair scores from one tangent per target, and self-influence (ECIF.md §3, §4, §6)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from fiftyone_ecif.core.losses import Roles
from fiftyone_ecif.core.objective import Objective, Progress, silent
from fiftyone_ecif.core.scope import Cotangent, Linearization, Scope


def influence(
    objective: Objective,
    scope: Scope,
    solutions: Tensor,
    progress: Progress = silent,
) -> Roles:
    """value_n = (1/N) ⟨s, ∇pos_n + ∇negx_n⟩ for every pair, from one tangent per target and batch  (ECIF.md §3, §4).

    Args:
        objective: the pairs, their partitions and loss
        scope: at θ̂
        solutions: (K, P), s = H⁻¹ ∇C for each target
        progress: called per batch

    Returns:
        :class:`Roles` of shape (rounds, K, N): predicted change of each target loss, in nats, if the pair were removed.
        Positive: the pair helps. Negative: it harms. NaN for pairs in no batch.
    """
    shape = (len(objective.rounds), len(solutions), len(objective.pairs))
    parts = [torch.full(shape, torch.nan, dtype=solutions.dtype) for _ in Roles._fields]
    done = 0
    for number, batches in enumerate(objective.rounds):
        for index in batches:
            batch = scope.linearize(*objective.pairs.gather(index))
            derivatives = objective.loss.role_derivatives(batch.similarity(), batch.similarity_tangent(solutions))
            for part, derivative in zip(parts, derivatives, strict=True):
                part[number, :, index] = derivative.to(part.device) / objective.divisor
            done += 1
            progress("Scores", done, objective.batch_count)
    return Roles(*parts)


def self_influence(
    objective: Objective,
    scope: Scope,
    quadratic: Callable[[Linearization, Cotangent], Tensor],
    chunk: int = 16,
    progress: Progress = silent,
) -> Tensor:
    """self_n = (1/N) g_nᵀ H⁻¹ g_n, g_n = ∇(pos_n + negx_n), in the first round's batches  (ECIF.md §6).

    Args:
        objective: the pairs, their partitions and loss
        scope: at θ̂
        quadratic: gᵀ H⁻¹ g of the gradients behind C cotangents of a batch, (C,); see ``KroneckerCurvature.quadratic``
        chunk: pairs whose gradients are held together
        progress: called per batch

    Returns:
        (N,), in nats, never negative; NaN for pairs in no batch
    """
    result = torch.full((len(objective.pairs),), torch.nan, dtype=scope.vector().dtype)
    batches = objective.rounds[0]
    for done, index in enumerate(batches):
        batch = scope.linearize(*objective.pairs.gather(index))
        similarity = batch.similarity()
        for members in torch.arange(len(index), device=similarity.device).split(chunk):
            cotangents = objective.loss.deletion_cotangents(similarity, members)
            own = quadratic(batch, batch.cotangent(cotangents))
            result[index[members.cpu()]] = own.to(result.device) / objective.divisor
        progress("Self-influence", done + 1, len(batches))
    return result
