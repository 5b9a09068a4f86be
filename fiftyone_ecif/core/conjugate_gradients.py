"""Preconditioned conjugate gradients on the Gauss-Newton system, and the largest eigenvalue of one (ECIF.md §5).

The iteration is our own because no library's solves several systems at once on a torch device, refuses negative
curvature, and reports progress so that a run can be cancelled.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh
from torch import Tensor

from fiftyone_ecif.core.eigenvectors import NOT_FINITE
from fiftyone_ecif.core.workers import Progress, silent

EIGENVALUE_TOLERANCE = 1e-2
"""Residual over eigenvalue at which Lanczos stops; the error of the eigenvalue is about the square of that."""

LANCZOS_VECTORS, LANCZOS_RESTARTS = 6, 10
"""Vectors that Lanczos keeps before it restarts, few since those of a deep scope are as large as the model, and how
often it restarts; 4 products each."""


@dataclass(frozen=True)
class Solution:
    """The solver's result.

    Attributes:
        vectors: (K, P) solutions s of H s = b
        iterations: products with H that were spent
        relative_residual: the largest ‖H s − b‖ / ‖b‖ among the K systems; 0 by definition where b is zero
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

    Each system stops by itself, so that its solution is the one that it would have alone: at the tolerance, or where
    the preconditioner gives no direction or the matrix no curvature to go on with.

    Args:
        product: H applied to (K, P), or to fewer vectors once some systems have stopped
        targets: b, (K, P)
        preconditioner: an approximate H⁻¹, applied likewise
        tolerance: relative residual at which to stop
        max_iterations: products with H at most
        progress: called per iteration
        step: the step's name for ``progress``

    Returns:
        a :class:`Solution`; not converging is reported there, not raised

    Raises:
        ValueError: if H or the preconditioner is not positive definite, or a right-hand side is not finite
    """
    residual, norms = _unit_vectors(targets)
    relative = residual.norm(dim=-1)
    solutions = torch.zeros_like(targets)
    running = (relative > tolerance).nonzero().squeeze(1)
    residual, rho = residual[running], torch.ones_like(norms[running])
    solution, direction = torch.zeros_like(residual), torch.zeros_like(residual)
    iterations = 0
    while len(running) and iterations < max_iterations:
        progress(step, iterations, max_iterations)
        preconditioned = preconditioner(residual)
        rho_next = _squares(residual, preconditioned, "The preconditioner")
        direction = preconditioned + rho_next / rho * direction  # the first direction is zero
        rho = rho_next
        curved = product(direction)
        curvature = _squares(direction, curved, "Conjugate gradients met negative curvature: the matrix")
        iterations += 1
        length = torch.where(curvature > 0, rho / curvature, 0.0)
        solution += length * direction
        residual -= length * curved
        relative[running] = residual.norm(dim=-1)
        going = (relative[running] > tolerance) & (length[:, 0] > 0)
        if not going.all():
            solutions[running[~going]] = solution[~going]
            running, solution, residual, direction, rho = (
                part[going] for part in (running, solution, residual, direction, rho)
            )
    solutions[running] = solution
    progress(step, max_iterations, max_iterations)
    worst = relative.max().item()
    return Solution(solutions.mul_(norms), iterations, worst, worst <= tolerance)


def _unit_vectors(targets: Tensor) -> tuple[Tensor, Tensor]:
    """b / ‖b‖ and ‖b‖, (K, P) and (K, 1): their squares do not underflow however small b is; zero stays zero.

    Raises:
        ValueError: if a target is not finite
    """
    if not targets.isfinite().all():
        raise ValueError(
            "The gradient to solve for is not finite: look for NaN or huge numbers in features, weights or logit scale."
        )
    tiny = torch.finfo(targets.dtype).tiny
    largest = targets.abs().amax(-1, keepdim=True)
    scaled = targets / largest.clamp_min(tiny)
    norms = scaled.norm(dim=-1, keepdim=True)
    return scaled / norms.clamp_min(tiny), norms * largest


def _squares(vectors: Tensor, images: Tensor, name: str) -> Tensor:
    """Products (K, 1) of vectors with their images under a positive definite matrix.

    Raises:
        ValueError: if one is negative or NaN
    """
    squares = (vectors * images).sum(-1, keepdim=True)
    if not (squares >= 0).all():
        raise ValueError(
            f"{name} is not positive definite. Raise the anchor or the damping, and check the features for NaN."
        )
    return squares


def largest_eigenvalue(product: Callable[[Tensor], Tensor], start: Tensor) -> float:
    """The largest eigenvalue of a positive semi-definite matrix by restarted Lanczos (scipy's ``eigsh``), from below.

    Some 7 to 12 products, 23 on a flat spectrum, bring it to within half a per cent, mostly to much less; 20 of a
    power iteration left it up to a few per cent too low. Meanwhile the host holds about ten vectors of length P.

    Args:
        product: the matrix applied to (1, P)
        start: (1, P), any vector that is not zero; nothing else is drawn

    Returns:
        the eigenvalue, 0 for the zero matrix; should Lanczos not settle within its restarts, the largest factor by
        which a vector was stretched, which is a lower bound as well

    Raises:
        ValueError: if a product is not finite
    """
    stretched = 0.0

    def multiply(vector: np.ndarray) -> np.ndarray:
        nonlocal stretched
        image = product(torch.from_numpy(vector.reshape(1, -1).copy()).to(start))[0].cpu().numpy()
        if not np.isfinite(image).all():
            raise ValueError(NOT_FINITE)
        lengths = [np.linalg.norm(each.astype(np.float64)) for each in (image, vector)]
        stretched = max(stretched, float(lengths[0] / lengths[1]))
        return image

    vector = start[0].cpu().numpy()
    image = multiply(vector)
    if len(vector) == 1 or not image.any():
        return stretched
    size = np.abs(image).max()  # ARPACK takes a vector for zero whose squares are
    operator = LinearOperator((len(vector), len(vector)), matvec=lambda each: multiply(each) / size, dtype=vector.dtype)
    kept = min(LANCZOS_VECTORS, len(vector))
    try:
        found = eigsh(
            operator, 1, which="LA", v0=image / size, ncv=kept, tol=EIGENVALUE_TOLERANCE, maxiter=LANCZOS_RESTARTS,
            return_eigenvectors=False,
        )  # fmt: skip
    except ArpackNoConvergence:
        return stretched
    return float(found[0] * size)
