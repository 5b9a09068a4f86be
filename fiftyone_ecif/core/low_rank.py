"""An inverse curvature that is a table: the anchor, corrected in the few directions that curve (ECIF.md §5, §8)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fiftyone_ecif.core.objective import Objective
from fiftyone_ecif.core.scope import Scope
from fiftyone_ecif.core.workers import Progress, silent

PROBES = 8
"""Gradients, drawn apart from those that the subspace grows from, that its quality is measured on."""


@dataclass(frozen=True)
class LowRankInverse:
    """H⁻¹ x ≈ x/β + Σ_k (1/(λ_k + δ) − 1/β) V_k ⟨V_k, x⟩ with β = δ + (what is left of the curvature elsewhere).

    Away from the V_k it is a multiple of the identity, so that the few outer products of one query's gradient stay few.

    Args:
        vectors: (r, P) orthonormal rows V_k
        eigenvalues: (r,) λ_k ≥ 0 of the Gauss-Newton matrix without its anchor, falling
        anchor: δ, with any damping
        rest: β
        relative_residual: mean ‖H s − x‖ / ‖x‖ of s = ``solve(x)`` over gradients x that it was not built from
    """

    vectors: Tensor
    eigenvalues: Tensor
    anchor: float
    rest: float
    relative_residual: float

    @property
    def corrections(self) -> Tensor:
        """1/(λ_k + δ) − 1/β, (r,)."""
        return 1.0 / (self.eigenvalues + self.anchor) - 1.0 / self.rest

    def solve(self, vectors: Tensor) -> Tensor:
        """H⁻¹ applied to vectors (..., P)."""
        return vectors / self.rest + (vectors @ self.vectors.T * self.corrections) @ self.vectors


def low_rank_inverse(
    objective: Objective,
    scope: Scope,
    tolerance: float = 0.05,
    max_rank: int = 256,
    block: int = 32,
    pairs: int | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> LowRankInverse:
    """Find the directions that curve, in the Krylov space of the Gauss-Newton matrix over gradients of the pairs.

    It grows from gradients of randomly weighted sums of the pairs' losses: what is going to be solved for lies near
    their span, and less rank does the work than from white noise. A block Lanczos process with full
    reorthogonalisation and a Rayleigh-Ritz step (Golub & Van Loan, Matrix Computations, §10.3).

    Args:
        objective: J with its anchor δ, and any damping added to it
        scope: at θ̂
        tolerance: ``relative_residual`` at which it is good enough; traces need 0.1 (docs/trace.md)
        max_rank: directions at most, whatever the residual is then
        block: directions that are added together
        pairs: how many pairs to take the curvature from, in whole batches; None for all
        seed: of the random weights
        progress: called per block

    Returns:
        a :class:`LowRankInverse`; one that is not good enough says so in its ``relative_residual``

    Raises:
        ValueError: if the objective has no anchor
    """
    if not objective.anchor > 0:
        raise ValueError("The curvature is singular without an anchor: set one above 0.")
    sample = objective if pairs is None or pairs >= len(objective.pairs) else objective.sample(pairs)
    plain = replace(sample, anchor=0.0)
    start = _random_gradients(sample, scope, block + PROBES, torch.Generator().manual_seed(seed))
    probes, start = start[:PROBES], start[PROBES:]
    probe_images = plain.gauss_newton_product(scope, probes)
    basis, images = start[:0], start[:0]
    while True:
        progress("Directions that curve", len(basis), max_rank)
        start = _orthonormal(start, basis)[: max_rank - len(basis)]
        basis = torch.cat([basis, start])
        start = plain.gauss_newton_product(scope, start)
        images = torch.cat([images, start])
        rotation, inverse = _rayleigh_ritz(basis, images, sample.anchor)
        solved = inverse.solve(probes)
        # H s = δ s + G x/β + Σ_k (…) G V_k ⟨V_k, x⟩, and G V_k is known already
        along = probes @ inverse.vectors.T * inverse.corrections
        curved = probe_images / inverse.rest + along @ (rotation.T @ images)
        residual = (sample.anchor * solved + curved - probes).norm(dim=1) / probes.norm(dim=1)
        inverse = replace(inverse, relative_residual=residual.mean().item())
        if inverse.relative_residual <= tolerance or len(basis) >= min(max_rank, basis.shape[1]):
            progress("Directions that curve", max_rank, max_rank)
            return inverse


def _rayleigh_ritz(basis: Tensor, images: Tensor, anchor: float) -> tuple[Tensor, LowRankInverse]:
    """The best that an orthonormal basis (r, P) and its images under G can do, and its rotation to the V_k (r, r)."""
    small = basis @ images.T
    eigenvalues, rotation = torch.linalg.eigh((small + small.T) / 2)
    eigenvalues, rotation = eigenvalues.flip(0).clamp_min(0.0), rotation.flip(1)
    # What the space leaves out curves about as much as the least that it found.
    rest = anchor + eigenvalues[-1].item()
    return rotation, LowRankInverse(rotation.T @ basis, eigenvalues, anchor, rest, float("nan"))


def _random_gradients(objective: Objective, scope: Scope, count: int, generator: torch.Generator) -> Tensor:
    """∇ Σ_n z_n pos_n for normal weights z, (count, P)."""
    theta = scope.vector()
    weights = torch.randn(count, len(objective.pairs), generator=generator, dtype=theta.dtype).to(theta.device)
    result = theta.new_zeros(count, len(theta))
    for index, batch in objective.linearizations(scope):
        leaf = batch.similarity().detach().requires_grad_()
        with torch.enable_grad():
            positive = objective.loss.roles(leaf).positive
            cotangent = torch.autograd.grad(positive, leaf, weights[:, index], is_grads_batched=True)[0]
        result += batch.pull_back(batch.cotangent(cotangent))
    return result


def _orthonormal(vectors: Tensor, basis: Tensor) -> Tensor:
    """An orthonormal basis of the vectors' span (K, P) without that of ``basis``; fewer where they depend on it."""
    kept = min(len(vectors), vectors.shape[1] - len(basis))
    for _ in range(2):  # once leaves what rounding lets through
        vectors = vectors - (vectors @ basis.T) @ basis
        vectors = torch.linalg.qr(vectors.T)[0].T
    return vectors[:kept]
