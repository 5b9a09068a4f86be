"""A low-rank inverse: a multiple of the identity, corrected in the few directions of high curvature (ECIF.md §5, §8).

The block Lanczos process is our own because no library's takes a block of several products at once on a torch device,
starts from given gradients and stops at a residual of them, and reports progress so that a run can be cancelled.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fiftyone_ecif.core.eigenvectors import eigenvectors
from fiftyone_ecif.core.objective import Objective
from fiftyone_ecif.core.scope import Scope
from fiftyone_ecif.core.workers import Progress, silent

PROBES = 8
"""Gradients that the inverse is judged by; they are drawn apart from those that its subspace grows from."""


@dataclass(frozen=True)
class LowRankInverse:
    """H⁻¹ x ≈ x/β + Σ_k (1/(λ_k + δ) − 1/β) V_k ⟨V_k, x⟩, β being δ and the curvature in all other directions.

    In these other directions it is a multiple of the identity, so that a query's gradient, a sum of few outer products,
    stays one.

    Args:
        vectors: (r, P) orthonormal rows V_k
        eigenvalues: (r,) λ_k ≥ 0 of the Gauss-Newton matrix without the proximal term, in falling order
        anchor: δ, the strength of the proximal term, with any damping
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
    min_rank: int = 0,
    max_rank: int = 256,
    block: int = 32,
    pairs: int | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> LowRankInverse:
    """Find the directions of high curvature in a Krylov space of the Gauss-Newton matrix, by block Lanczos.

    The space grows from gradients of randomly weighted sums of the pairs' losses. The gradients that will be solved
    for lie near the span of these, so that a lower rank suffices than from white noise. The process reorthogonalises
    in full and ends with a Rayleigh-Ritz step (Golub & Van Loan, Matrix Computations, §10.3).

    Args:
        objective: J, whose anchor δ includes any damping
        scope: at θ̂
        tolerance: ``relative_residual`` at which the space stops to grow; traces use 0.1 (docs/trace.md)
        min_rank: the smallest number of directions, whatever the residual is before, if the space has so many
        max_rank: the largest number of directions, whatever the residual is then
        block: how many directions are added together
        pairs: how many pairs the curvature is taken from, in whole batches; None for all
        seed: of the random weights
        progress: called per block

    Returns:
        a :class:`LowRankInverse`; its ``relative_residual`` says whether the tolerance was reached

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
        # H s = δ s + G x/β + Σ_k (…) G V_k ⟨V_k, x⟩, and the images G V_k are at hand.
        along = probes @ inverse.vectors.T * inverse.corrections
        curved = probe_images / inverse.rest + along @ (rotation.T @ images)
        residual = (sample.anchor * solved + curved - probes).norm(dim=1) / probes.norm(dim=1)
        inverse = replace(inverse, relative_residual=residual.mean().item())
        enough = len(basis) >= min_rank and inverse.relative_residual <= tolerance
        if enough or len(basis) >= min(max_rank, basis.shape[1]):
            progress("Directions that curve", max_rank, max_rank)
            return inverse


def _rayleigh_ritz(basis: Tensor, images: Tensor, anchor: float) -> tuple[Tensor, LowRankInverse]:
    """The rotation (r, r) of a basis (r, P), whose images under G are given, to its Ritz vectors, and their inverse."""
    small = basis @ images.T
    eigenvalues, rotation = eigenvectors((small + small.T) / 2)
    eigenvalues, rotation = eigenvalues.flip(0).clamp_min(0.0), rotation.flip(1)
    # Outside of the space, the curvature is taken to be the least that was found in it.
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
    """An orthonormal basis of the span of the vectors (K, P), orthogonal to ``basis``; at most as many as fit."""
    kept = min(len(vectors), vectors.shape[1] - len(basis))
    for _ in range(2):  # rounding leaves a remainder after the first time
        vectors = vectors - (vectors @ basis.T) @ basis
        vectors = torch.linalg.qr(vectors.T)[0].T
    return vectors[:kept]
