"""Per-pair scores from one tangent per target, and self-influence (ECIF.md §3, §4, §6).

Self-influence takes the exact gradient of every pair and an approximate inverse, EK-FAC, whose quadratic form needs no
solve. :func:`self_influence_scale` measures on a sample of pairs how far that form lies from the solved one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from fiftyone_ecif.core.conjugate_gradients import conjugate_gradients
from fiftyone_ecif.core.group_removal import removal_gradients
from fiftyone_ecif.core.losses import Roles
from fiftyone_ecif.core.objective import Objective
from fiftyone_ecif.core.rows import role_derivatives
from fiftyone_ecif.core.scope import Cotangent, Linearization, Scope
from fiftyone_ecif.core.workers import Progress, silent

SOLVED_TOGETHER = 8
"""Pairs whose gradients are held, and solved for, together."""


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
    wanted: Tensor | None = None,
    progress: Progress = silent,
) -> Tensor:
    """self_n = (1/N) g_nᵀ H⁻¹ g_n, g_n = ∇(pos_n + negx_n), in the first round's batches  (ECIF.md §6).

    Every g_n is exact; the inverse is that of ``quadratic``.

    Args:
        objective: the pairs, their partitions and loss
        scope: at θ̂
        quadratic: gᵀ H⁻¹ g of the gradients behind C cotangents of a batch, (C,); ``KroneckerCurvature.quadratic``
            takes the EK-FAC inverse
        chunk: pairs whose gradients are held together
        wanted: bool (N,), the pairs to score; None for all
        progress: called per batch

    Returns:
        (N,), in nats, never negative; NaN for pairs in no batch, or not wanted
    """
    result = torch.full((len(objective.pairs),), torch.nan, dtype=scope.vector().dtype)
    batches = objective.rounds[0]
    for done, index in enumerate(batches):
        batch = scope.linearize(*objective.pairs.gather(index))
        similarity = batch.similarity()
        rows = torch.arange(len(index)) if wanted is None else wanted[index].nonzero().squeeze(1)
        for members in torch.split(torch.eye(len(index), dtype=torch.bool)[rows], chunk) if len(rows) else ():
            cotangents = objective.loss.deletion_cotangents(similarity, members.to(similarity.device))
            own = quadratic(batch, batch.cotangent(cotangents))
            result[index[members.any(0)]] = own.to(result.device) / objective.divisor
        progress("Self-influence", done + 1, len(batches))
    return result


def self_influence_scale(
    objective: Objective,
    scope: Scope,
    self_influences: Tensor,
    rows: Tensor,
    tolerance: float = 1e-2,
    progress: Progress = silent,
) -> Tensor:
    """By what factor self-influence under an approximate inverse differs from the solved one  (ECIF.md §6).

    Args:
        objective: J, with the proximal term and any damping of the self-influences
        scope: at θ̂
        self_influences: (N,), of :func:`self_influence`, in nats
        rows: int64 (M,), the pairs to measure
        tolerance: of the solver
        progress: called per few pairs

    Returns:
        (M,), the given self_n over (1/N) g_nᵀ H⁻¹ g_n by conjugate gradients: 1 is right, above 1 too large; NaN for
        pairs without a gradient
    """
    first = replace(objective, rounds=objective.rounds[:1])
    groups = torch.zeros(len(rows), len(objective.pairs), dtype=torch.bool)
    groups[torch.arange(len(rows)), rows.cpu()] = True
    solved: list[Tensor] = []
    for members in torch.split(groups, SOLVED_TOGETHER):
        progress("Self-influence, solved", len(solved), len(rows))
        gradients = removal_gradients(first, scope, members)  # g_n / N
        solution = conjugate_gradients(
            lambda directions: objective.gauss_newton_product(scope, directions), gradients, torch.clone, tolerance
        )
        solved += (objective.divisor * (gradients * solution.vectors).sum(-1)).cpu()
    progress("Self-influence, solved", len(rows), len(rows))
    return self_influences.cpu()[rows.cpu()] / torch.stack(solved)


def self_influence_by_probes(
    objective: Objective,
    scope: Scope,
    inverse_root: Callable[[Tensor], Tensor],
    probes: int = 32,
    seed: int = 0,
    progress: Progress = silent,
) -> Tensor:
    """Estimate self_n as (1/N) times the mean of ⟨H^(-1/2) z, g_n⟩² over normal probes z  (ECIF.md §6).

    It takes one tangent per probe and batch in place of one gradient per pair, for scopes whose gradients are too long
    to hold. As an estimate of :func:`self_influence` under the same inverse it has no bias, and the relative standard
    error √(2 / probes): a quarter for 32.

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
