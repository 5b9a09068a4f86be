"""Per-pair scores from one tangent per target, and self-influence (ECIF.md §3, §4, §6)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from fiftyone_ecif.core.losses import Roles
from fiftyone_ecif.core.objective import Objective, Progress, silent
from fiftyone_ecif.core.rows import role_derivatives
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
            derivatives = role_derivatives(objective.loss, batch, solutions)
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
        for members in torch.eye(len(index), dtype=torch.bool).split(chunk):
            cotangents = objective.loss.deletion_cotangents(similarity, members.to(similarity.device))
            own = quadratic(batch, batch.cotangent(cotangents))
            result[index[members.any(0)]] = own.to(result.device) / objective.divisor
        progress("Self-influence", done + 1, len(batches))
    return result


def self_influence_by_probes(
    objective: Objective,
    scope: Scope,
    inverse_root: Callable[[Tensor], Tensor],
    probes: int = 32,
    seed: int = 0,
    progress: Progress = silent,
) -> Tensor:
    """Estimate self_n as (1/N) times the mean of ⟨H^(-1/2) z, g_n⟩² over normal probes z  (ECIF.md §6).

    One tangent per probe and batch in place of one gradient per pair: for scopes whose gradients are too long to hold.
    The estimate has no bias, and the relative standard error √(2 / probes): a quarter for 32.

    Args:
        objective: the pairs, their partitions and loss; the first round's batches are used
        scope: at θ̂
        inverse_root: H^(-1/2) applied to (1, P); see ``KroneckerCurvature.inverse_root``
        probes: number of probes
        seed: of the probes
        progress: called per probe

    Returns:
        (N,), in nats, never negative; NaN for pairs in no batch
    """
    if probes < 1:
        raise ValueError(f"probes must be at least 1, not {probes}.")
    theta = scope.vector()
    generator = torch.Generator().manual_seed(seed)
    first = replace(objective, rounds=objective.rounds[:1])
    total = torch.zeros(len(objective.pairs), dtype=theta.dtype)
    for done in range(probes):
        progress("Self-influence", done, probes)
        probe = torch.randn(1, len(theta), generator=generator, dtype=theta.dtype).to(theta.device)
        # influence() divides by N once, the square twice, and one of them belongs there.
        total += influence(first, scope, inverse_root(probe)).value("exact")[0, 0].square()
    progress("Self-influence", probes, probes)
    return total * objective.divisor / probes
