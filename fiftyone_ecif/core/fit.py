"""Fit θ until the objective's gradient vanishes, as an influence function presupposes (ECIF.md §1, §3)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from fiftyone_ecif.core.conjugate_gradients import conjugate_gradients
from fiftyone_ecif.core.objective import Objective
from fiftyone_ecif.core.scope import Scope
from fiftyone_ecif.core.workers import Progress, silent


@dataclass(frozen=True)
class Fit:
    """The end of a fit.

    Attributes:
        scope: at θ̂
        loss: J(θ̂), nats
        relative_gradient: ‖∇J(θ̂)‖ over ‖∇J(θ0)‖, or over the scale given by the caller
        steps: Newton steps taken
        at_rest: whether ``relative_gradient`` is within the requested tolerance
    """

    scope: Scope
    loss: float
    relative_gradient: float
    steps: int
    at_rest: bool


def fit_to_rest(
    objective: Objective,
    scope: Scope,
    preconditioner: Callable[[Tensor], Tensor],
    tolerance: float = 1e-3,
    max_steps: int = 30,
    gradient_scale: float | None = None,
    progress: Progress = silent,
    step: str = "Fit",
) -> Fit:
    """Minimise the objective by Gauss-Newton steps, solved more exactly the nearer the minimum is.

    Args:
        objective: J
        scope: where to start
        preconditioner: an approximate inverse curvature for the inner solver
        tolerance: on ‖∇J‖ relative to ``gradient_scale``
        max_steps: Newton steps at most
        gradient_scale: the gradient norm that the tolerance refers to; that at the start when None
        progress: called per step
        step: the step's name for ``progress``

    Returns:
        a :class:`Fit`; a fit that is not at rest is reported there, not raised
    """
    value, gradient = objective.value_and_gradient(scope)
    scale = gradient_scale or gradient.norm().item() or 1.0
    relative = gradient.norm().item() / scale
    steps = 0
    while relative > tolerance and steps < max_steps:
        progress(step, steps, max_steps)
        solution = conjugate_gradients(
            partial(objective.gauss_newton_product, scope),
            gradient[None],
            preconditioner,
            tolerance=min(0.1, relative**0.5),  # far from the minimum an exact step is wasted
            max_iterations=50,
        )
        length, descent = 1.0, (solution.vectors[0] @ gradient).item()
        theta = scope.vector()
        while True:
            candidate = scope.replace(theta - length * solution.vectors[0])
            new_value, new_gradient = objective.value_and_gradient(candidate)
            if new_value <= value - 1e-4 * length * descent or length < 1e-3:
                break
            length /= 2
        if new_value > value and new_gradient.norm() >= gradient.norm():
            break  # rounding leaves no further descent
        scope, value, gradient = candidate, new_value, new_gradient
        relative = gradient.norm().item() / scale
        steps += 1
    progress(step, max_steps, max_steps)
    return Fit(scope, value, relative, steps, relative <= tolerance)
