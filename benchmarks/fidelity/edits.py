"""Models edited in closed form, against models that were refitted without the same pairs."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from benchmarks.fidelity.groups import LARGEST_GROUP
from benchmarks.fidelity.prepared_removals import PreparedRemovals
from benchmarks.fidelity.removal_problem import Regime
from benchmarks.fidelity.retraining import Figures, Retraining, timed_map
from benchmarks.report.statistics import mean_with_error, ratio_of_means, with_error
from fiftyone_ecif.core import Scope, removal_step


def edits(retraining: Retraining, regime: Regime) -> Figures:
    """Models edited in closed form against refitted ones, after random removals of the largest size.

    Once with the inverse that is prepared for all removals (``edit``), once with a solve for each (``solved_edit``).
    Times are set against a refit from θ̂, and against one from θ0, which is all that is there without a fit before.
    """
    problem = retraining.problem
    objective, at_rest = problem.objective, problem.scope
    count, theta = len(objective.pairs), at_rest.vector()
    generator = torch.Generator().manual_seed(regime.seed + 2)
    groups = torch.rand(regime.edits, count, generator=generator).argsort(1) < round(LARGEST_GROUP * count)
    measured = retraining.changes(groups, "edits")

    prepared = PreparedRemovals(objective, at_rest, problem.inverse.solve)

    def edit(group: Tensor) -> Scope:
        return at_rest.replace(theta + prepared.steps(group[None])[0])

    def solved_edit(group: Tensor) -> Scope:
        return at_rest.replace(theta + removal_step(objective, at_rest, group, problem.preconditioner)[0])

    assert objective.origin is not None
    given = at_rest.replace(objective.origin)
    _, from_start = timed_map(lambda group: problem.refit(group, given), groups)
    accuracy = np.array([problem.accuracy(scope) for scope in measured.scopes])
    figures = mean_with_error("removal_target_loss_change", np.abs(measured.losses))
    figures |= mean_with_error("seconds_refit_from_start", from_start)
    figures |= mean_with_error("removal_accuracy_retrained", accuracy)
    figures |= mean_with_error("removal_accuracy_change", np.abs(accuracy - problem.accuracy(retraining.rested)))
    for name, prefix, method in (("edit", "removal", edit), ("solved_edit", "solved_removal", solved_edit)):
        edited, seconds = timed_map(method, groups)
        losses = np.array([problem.target.value(scope) for scope in edited]) - retraining.rested_loss
        ours = np.array([problem.accuracy(scope) for scope in edited])
        figures |= mean_with_error(f"{prefix}_target_loss_error", np.abs(losses - measured.losses))
        figures |= mean_with_error(f"{prefix}_accuracy_error", np.abs(ours - accuracy))
        figures |= mean_with_error(f"seconds_{name}", seconds)
        figures |= with_error(f"speedup_{name}", ratio_of_means, measured.seconds, seconds)
        figures |= with_error(f"speedup_{name}_from_start", ratio_of_means, from_start, seconds)
    return figures | {
        "inverse_rank": len(problem.inverse.vectors),
        "inverse_relative_residual": problem.inverse.relative_residual,
    }
