"""Does removing pairs do what their influence says? Predictions of removals against refits without the pairs."""

from __future__ import annotations

import copy
import time
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from benchmarks.fidelity.edits import edits
from benchmarks.fidelity.groups import choose_groups
from benchmarks.fidelity.prepared_removals import RemovalForecast
from benchmarks.fidelity.removal_problem import Problem, Regime
from benchmarks.fidelity.retraining import Figures, Retraining, timed_map
from benchmarks.methods.attribution import group_gradients, steepest_descent, trak_scores
from benchmarks.report.statistics import (
    linear_correlation,
    mean_with_error,
    rank_correlation,
    ratio_of_means,
    slope,
    with_error,
)
from fiftyone_ecif.core import Roles, conjugate_gradients, influence
from fiftyone_ecif.models import ParameterScope

GROUPS_TOGETHER = 8
"""Groups whose gradients are held, and solved for, together."""
COSINES = ("exact", "first_order", "positive_only")
MIXED_PRECISION_ITERATIONS = 20


def measure(problem: Problem, regime: Regime, progress: bool = True) -> Figures:
    """Predict and measure removals at a problem's θ̂.

    Args:
        problem: see :mod:`benchmarks.fidelity.removal_problem`
        regime: numbers of removals and the seed of the random ones and of the baselines' draws are used
        progress: whether to show a progress bar

    Returns:
        the figures by name; ``…_se`` is a standard error over groups, by the bootstrap for correlations and slopes
    """
    forecast, solutions, seconds = predictors(problem)
    roles = influence(problem.objective, problem.scope, torch.stack(list(solutions.values())))
    by_solution = {name: Roles(*(role[:, row].mean(0) for role in roles)) for row, name in enumerate(solutions)}
    own = by_solution["exact"]
    values = own.value("exact")
    groups, kinds = choose_groups(values, regime.subsets, regime.seed)
    retraining = Retraining(problem, progress)
    measured = retraining.changes(groups, "groups")

    changes, seconds_ecif = timed_map(forecast.change, groups)
    by_kfac = RemovalForecast(problem.objective, problem.scope, solutions["kfac"])
    scores = {
        "singles": values,
        "first_order": own.value("first_order"),
        "positive_only": own.positive,
        "tracin": by_solution["tracin"].positive,
        "trak": trak_scores(problem, regime.seed).to(values),
        "random": torch.from_numpy(np.random.default_rng(regime.seed).standard_normal(len(values))),
    }
    predicted = {name: (groups.to(score) @ score).numpy() for name, score in scores.items()}
    predicted |= {"exact": np.array(changes), "kfac": np.array([by_kfac.change(group) for group in groups])}

    figures = agreement(predicted, measured.losses, kinds)
    figures |= direction_agreement(problem, groups, measured.moves)
    figures |= single_removals(retraining, values, regime)
    figures |= edits(retraining, regime)
    if isinstance(problem.scope, ParameterScope):
        figures |= mixed_precision(problem, problem.scope, values)
    figures |= mean_with_error("seconds_ecif", seconds_ecif) | mean_with_error("seconds_retraining", measured.seconds)
    figures |= with_error("speedup", ratio_of_means, measured.seconds, seconds_ecif)
    figures |= {
        "parameters": len(problem.scope.vector()),
        "seconds_solve": seconds,
        "seconds_fit": problem.seconds["fit"],
        "seconds_inverse": problem.seconds["inverse"],
        "drift": abs(retraining.rested_loss - problem.target.value(problem.scope)),
        "typical_change": float(np.abs(measured.losses).mean()),
        "anchor_delta": problem.objective.anchor,
        "fitted_logit_scale": next(problem.objective.linearizations(problem.scope))[1].logit_scale.exp().item(),
    }
    return figures


def predictors(problem: Problem) -> tuple[RemovalForecast, dict[str, Tensor], float]:
    """The forecast that all groups share, s by each inverse of the curvature, and the seconds of the former."""
    started = time.perf_counter()
    gradient = problem.target.value_and_gradient(problem.scope)[1]
    solution = problem.solve(gradient[None]).vectors[0]
    forecast = RemovalForecast(problem.objective, problem.scope, solution)
    seconds = time.perf_counter() - started
    solutions = {
        "exact": solution,
        "kfac": problem.curvature.solve(gradient[None])[0],
        "tracin": steepest_descent(problem, gradient),
    }
    return forecast, solutions, seconds


def agreement(predicted: dict[str, np.ndarray], measured: np.ndarray, kinds: np.ndarray) -> Figures:
    """Rank correlation (also over random groups alone), Pearson and slope of every method."""
    figures: Figures = {}
    random = kinds == "random"
    for name, values in predicted.items():
        figures |= with_error(f"lds_{name}", rank_correlation, values, measured)
        figures |= with_error(f"lds_random_groups_{name}", rank_correlation, values[random], measured[random])
        figures |= with_error(f"pearson_{name}", linear_correlation, values, measured)
        figures |= with_error(f"slope_{name}", slope, values, measured)
    for name in ("exact", "first_order"):
        sides = [predicted[name], predicted["positive_only"], measured]
        figures |= with_error(f"lds_gain_{name}", rank_gain, *sides)
        figures |= with_error(f"lds_random_groups_gain_{name}", rank_gain, *(side[random] for side in sides))
    return figures


def rank_gain(ours: np.ndarray, theirs: np.ndarray, measured: np.ndarray, axis: int = -1) -> np.ndarray:
    """By how much one prediction's rank correlation with the measured changes exceeds another's."""
    return rank_correlation(ours, measured, axis) - rank_correlation(theirs, measured, axis)


def direction_agreement(problem: Problem, groups: Tensor, measured: Tensor) -> Figures:
    """Cosine between predicted and measured change of θ, and its gain over the positive role alone."""
    parts: dict[str, list[Tensor]] = {name: [] for name in COSINES}
    for some, moves in zip(groups.split(GROUPS_TOGETHER), measured.split(GROUPS_TOGETHER)):
        gradients = group_gradients(problem.objective, problem.scope, some)
        for name, found in parts.items():
            predicted = problem.solve(getattr(gradients, name), tolerance=1e-2).vectors
            found.append(torch.cosine_similarity(predicted, moves))
    cosines = {name: torch.cat(found).numpy() for name, found in parts.items()}
    figures: Figures = {}
    for name, cosine in cosines.items():
        figures |= mean_with_error(f"cosine_{name}", cosine)
    for name in ("exact", "first_order"):
        figures |= mean_with_error(f"cosine_gain_{name}", cosines[name] - cosines["positive_only"])
    return figures


def single_removals(retraining: Retraining, values: Tensor, regime: Regime) -> Figures:
    """Leave-one-out: pairs drawn at random, their value against a refit without each."""
    generator = torch.Generator().manual_seed(regime.seed + 1)
    chosen = torch.randperm(len(values), generator=generator)[: regime.singles]
    groups = torch.zeros(len(chosen), len(values), dtype=torch.bool)
    groups[torch.arange(len(chosen)), chosen] = True
    measured = retraining.changes(groups, "single pairs").losses
    return with_error("loo_pearson", linear_correlation, values[chosen].numpy(), measured) | with_error(
        "loo_slope", slope, values[chosen].numpy(), measured
    )


def mixed_precision(problem: Problem, scope: ParameterScope, values: Tensor) -> Figures:
    """Rank correlation of all pairs' values in float32, and with bfloat16 inside the towers, with those in float64."""
    figures: Figures = {}
    for name, autocast in (("float32", None), ("bfloat16", torch.bfloat16)):
        parameters = {key: value.float() for key, value in scope.parameters.items()}
        coarse = ParameterScope(copy.deepcopy(scope.module).float(), parameters, scope.micro_batch, autocast)
        objective = replace(problem.objective, anchor=problem.objective.anchor + problem.damping)
        gradient = problem.target.value_and_gradient(coarse)[1]
        solution = conjugate_gradients(
            partial(objective.gauss_newton_product, coarse),
            gradient[None],
            torch.clone,
            1e-3,
            MIXED_PRECISION_ITERATIONS,
        )
        found = influence(problem.objective, coarse, solution.vectors).value("exact")[:, 0].mean(0)
        figures |= with_error(f"rank_correlation_{name}", rank_correlation, found.double().numpy(), values.numpy())
    return figures
