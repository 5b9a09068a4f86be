"""Preconditioned conjugate gradients on the Gauss-Newton system (ECIF.md §5)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from fiftyone_ecif.core.objective import Progress, silent


@dataclass(frozen=True)
class Solution:
    """What the solver found.

    Attributes:
        vectors: (K, P) solutions s of H s = b
        iterations: products with H that were spent
        relative_residual: the largest ‖H s − b‖ / ‖b‖ among the K systems
        converged: whether that residual is within the tolerance asked for
    """

    vectors: Tensor
    iterations: int
    relative_residual: float
    converged: bool


def conjugate_gradients(
    product: Callable[[Tensor], Tensor],
    targets: Tensor,
    preconditioner: Callable[[Tensor], Tensor],
    tolerance: float = 1e-4,
    max_iterations: int = 200,
    progress: Progress = silent,
    step: str = "Solve",
) -> Solution:
    """Solve H s = b for K right-hand sides together.

    Args:
        product: H applied to (K, P)
        targets: b, (K, P)
        preconditioner: an approximate H⁻¹ applied to (K, P)
        tolerance: relative residual at which to stop
        max_iterations: products with H at most
        progress: called per iteration
        step: the step's name for ``progress``

    Returns:
        a :class:`Solution`; not converging is reported there, not raised

    Raises:
        ValueError: if H shows negative curvature or a right-hand side is not finite
    """
    if not targets.isfinite().all():
        raise ValueError(
            "The gradient to solve for is not finite: look for NaN or huge numbers in features, weights or logit scale."
        )
    norms = targets.norm(dim=-1, keepdim=True).clamp_min(torch.finfo(targets.dtype).tiny)
    solution, residual = torch.zeros_like(targets), targets.clone()
    iterations = 0
    direction = torch.zeros_like(targets)
    rho = torch.ones_like(norms)
    relative = (residual.norm(dim=-1, keepdim=True) / norms).max().item()
    while relative > tolerance and iterations < max_iterations:
        progress(step, iterations, max_iterations)
        preconditioned = preconditioner(residual)
        rho_next = (residual * preconditioned).sum(-1, keepdim=True)
        direction = preconditioned + rho_next / rho * direction  # the first direction is zero
        rho = rho_next
        curved = product(direction)
        curvature = (direction * curved).sum(-1, keepdim=True)
        if (curvature < 0).any():
            raise ValueError(
                "Conjugate gradients met negative curvature: the matrix is not positive definite. "
                "Raise the anchor or the damping, and check the features for NaN."
            )
        # A system that is already solved has no direction left; it stays where it is.
        alpha = torch.where(curvature > 0, rho / curvature.clamp_min(torch.finfo(targets.dtype).tiny), 0.0)
        solution += alpha * direction
        residual -= alpha * curved
        iterations += 1
        relative = (residual.norm(dim=-1, keepdim=True) / norms).max().item()
    progress(step, max_iterations, max_iterations)
    return Solution(solution, iterations, relative, relative <= tolerance)


def largest_eigenvalue(product: Callable[[Tensor], Tensor], start: Tensor, iterations: int = 20) -> float:
    """The largest eigenvalue of a positive semi-definite matrix by power iteration, from below.

    Args:
        product: the matrix applied to (1, P)
        start: (1, P), any vector
        iterations: products to spend

    Returns:
        the estimate; within a few per cent after 20 products on the spectra met here
    """
    vector = start / start.norm()
    size = 0.0
    for _ in range(iterations):
        image = product(vector)
        size = image.norm().item()
        if size == 0.0:
            break
        vector = image / size
    return size
