"""Does removing pairs really do what their influence says? Predicted against measured, by refitting without them.

Run it with ``make bench-fidelity``, or ``python -m benchmarks.fidelity --help``. What it measured: docs/fidelity.md.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks.fidelity.prepared_removals import PreparedRemovals, RemovalForecast
from benchmarks.fidelity.removal_problem import DATA, PROBLEMS, REGIMES, Problem, Regime
from benchmarks.methods.attribution import group_gradients, steepest_descent, trak_scores
from benchmarks.report.json_file import write_json
from benchmarks.report.statistics import linear_correlation, mean_with_error, rank_correlation, slope, with_error
from fiftyone_ecif.core import (
    Roles,
    Scope,
    conjugate_gradients,
    influence,
    removal_step,
)
from fiftyone_ecif.models import ParameterScope

KINDS = ("random", "harmful", "random", "valuable")
"""Groups that are removed, in turn."""
SMALLEST_GROUP, LARGEST_GROUP = 0.01, 0.10
"""Shares of the pairs that a group removes."""
GROUPS_TOGETHER = 8
"""Groups whose gradients are held, and solved for, together."""

METHODS = {
    "exact": "ECIF exact",
    "singles": "ECIF exact, sum of singles",
    "first_order": "ECIF first order",
    "positive_only": "positive role only",
    "kfac": "ECIF exact, K-FAC alone",
    "tracin": "TracIn",
    "trak": "TRAK",
    "random": "random scores",
}
COSINES = ("exact", "first_order", "positive_only")

MIXED_PRECISION_ITERATIONS = 20

Figures = dict[str, float]


def main() -> None:
    """Run one regime, print its table, write its figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scope", choices=sorted(PROBLEMS), default="head", help="parameters that are attributed")
    parser.add_argument("--data", choices=sorted(DATA))
    parser.add_argument("--pairs", type=int, help="attributed training pairs")
    parser.add_argument("--noise", type=float, help="share of training pairs with a wrong caption")
    parser.add_argument("--subsets", type=int, help="removed groups: half random, a quarter each harmful, valuable")
    parser.add_argument("--singles", type=int, help="pairs removed one at a time")
    parser.add_argument("--edits", type=int, help="edited models that are compared with refitted ones")
    parser.add_argument("--batch-size", type=int, help="pairs per batch of the loss")
    parser.add_argument("--rounds", type=int, help="partitions of the pairs into batches")
    parser.add_argument("--logit-scale", type=float, help="τ to start from; else the trained model's")
    parser.add_argument("--anchor", type=float, help="δ, as a share of the largest curvature")
    parser.add_argument("--damping", type=float, help="of the scores alone, same unit")
    parser.add_argument("--rank", type=int, help="of LoRA adapters")
    parser.add_argument("--seed", type=int, help="of data, noise, training, partitions and groups")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    chosen = {name: value for name, value in vars(parser.parse_args()).items() if value is not None}
    scope, path = chosen.pop("scope"), chosen.pop("json", None)
    regime = replace(REGIMES[scope], **chosen)
    figures = measure(PROBLEMS[scope](regime), regime)
    print_table(figures)
    if path:
        write_json(path, {"scope": scope, **asdict(regime), **figures})


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


def choose_groups(values: Tensor, subsets: int, seed: int) -> tuple[Tensor, np.ndarray]:
    """Random, most harmful and most valuable groups, each kind over the same range of sizes.

    Args:
        values: (N,) by which harm and value are ranked
        subsets: groups in all
        seed: of the random ones

    Returns:
        bool (G, N), and each group's kind (G,)
    """
    if subsets < len(KINDS):
        raise ValueError(f"{subsets} subsets are too few: at least {len(KINDS)} are needed for the kinds of groups.")
    count = len(values)
    generator = torch.Generator().manual_seed(seed)
    ranked = {"harmful": values.argsort(), "valuable": values.argsort(descending=True)}
    kinds = np.array(KINDS)[np.arange(subsets) % len(KINDS)]
    groups = torch.zeros(subsets, count, dtype=torch.bool)
    for kind in set(KINDS):
        rows = np.flatnonzero(kinds == kind)
        for row, share in zip(rows, np.linspace(SMALLEST_GROUP, LARGEST_GROUP, len(rows))):
            order = ranked[kind] if kind in ranked else torch.randperm(count, generator=generator)
            groups[row, order[: max(1, round(share * count))]] = True
    return groups, kinds


@dataclass(frozen=True)
class Measured:
    """What refits without some groups did.

    Attributes:
        losses: (G,) change of the target loss, nats
        moves: (G, P) change of θ
        seconds: (G,) of each refit
        scopes: G refitted scopes
    """

    losses: np.ndarray
    moves: Tensor
    seconds: np.ndarray
    scopes: list[Scope]


class Retraining:
    """Refits from θ̂, measured against a refit of the same length without removal, which is the drift.

    Args:
        problem: at θ̂
        progress: whether to show progress bars
    """

    def __init__(self, problem: Problem, progress: bool) -> None:
        self.problem, self.progress = problem, progress
        self.rested = problem.keep_fitting()
        self.rested_loss = problem.target.value(self.rested)

    def changes(self, groups: Tensor, name: str) -> Measured:
        """Refit without each of the groups, bool (G, N)."""
        bar = tqdm(groups, desc=f"refits: {name}", unit="refit", disable=not self.progress)
        scopes, seconds = timed_map(self.problem.refit, bar)
        losses = np.array([self.problem.target.value(scope) for scope in scopes]) - self.rested_loss
        moves = torch.stack([scope.vector() for scope in scopes]) - self.rested.vector()
        return Measured(losses, moves, seconds, scopes)


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


def timed_map(function: Callable[[Tensor], Any], groups: Iterable[Tensor]) -> tuple[list[Any], np.ndarray]:
    """The function's value for each group, and the seconds that each took."""
    values, seconds = [], []
    for group in groups:
        started = time.perf_counter()
        values.append(function(group))
        seconds.append(time.perf_counter() - started)
    return values, np.array(seconds)


def ratio_of_means(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Mean over mean, along the last axis."""
    return above.mean(-1) / below.mean(-1)


def rank_gain(ours: np.ndarray, theirs: np.ndarray, measured: np.ndarray) -> np.ndarray:
    """By how much one prediction's rank correlation with the measured changes exceeds another's."""
    return rank_correlation(ours, measured) - rank_correlation(theirs, measured)


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


def mixed_precision(problem: Problem, scope: ParameterScope, values: Tensor) -> Figures:
    """Rank correlation of all pairs' values in float32, and with bfloat16 inside the towers, with those in float64."""
    figures: Figures = {}
    for name, autocast in (("float32", None), ("bfloat16", torch.bfloat16)):
        parameters = {key: value.float() for key, value in scope.parameters.items()}
        coarse = ParameterScope(copy.deepcopy(scope.module).float(), parameters, scope.micro_batch, autocast)
        objective = replace(problem.objective, anchor=problem.objective.anchor + problem.damping)
        gradient = problem.target.value_and_gradient(coarse)[1]
        solution = conjugate_gradients(
            lambda directions: objective.gauss_newton_product(coarse, directions),  # noqa: B023 - called at once
            gradient[None],
            torch.clone,
            1e-3,
            MIXED_PRECISION_ITERATIONS,
        )
        found = influence(problem.objective, coarse, solution.vectors).value("exact")[:, 0].mean(0)
        figures |= with_error(f"rank_correlation_{name}", rank_correlation, found.double().numpy(), values.numpy())
    return figures


def print_table(figures: Figures) -> None:
    """The figures for people."""

    def cells(*names: str) -> str:
        filled = (f"{figures[name]:.4f} ± {figures[name + '_se']:.4f}" if name in figures else "" for name in names)
        return "".join(f"{cell:>16}" for cell in filled)

    print(f"\n{'':<28}" + "".join(f"{head:>16}" for head in ("LDS", "random groups", "Pearson", "slope", "cosine")))
    for name, label in METHODS.items():
        columns = [f"{figure}_{name}" for figure in ("lds", "lds_random_groups", "pearson", "slope", "cosine")]
        print(f"{label:<28}{cells(*columns)}")
    print(f"\ngain over the positive role alone:\n{'':<28}{'LDS':>16}{'random groups':>16}{'cosine':>16}")
    for name in ("exact", "first_order"):
        columns = [f"{figure}_gain_{name}" for figure in ("lds", "lds_random_groups", "cosine")]
        print(f"{METHODS[name]:<28}{cells(*columns)}")
    of = SimpleNamespace(**figures)
    print(f"\nsingle removals: Pearson{cells('loo_pearson')}, slope{cells('loo_slope')}")
    print(f"\n{LARGEST_GROUP:.0%} removed at random, edited model against refitted one:")
    print(
        f"{'':<28}{'nats apart':>16}{'points apart':>16}{'seconds':>10}{'times faster than from θ̂':>26}{'from θ0':>10}"
    )
    for name, prefix, label in (("edit", "removal", "prepared"), ("solved_edit", "solved_removal", "solved for")):
        apart = cells(f"{prefix}_target_loss_error", f"{prefix}_accuracy_error")
        print(
            f"edited, {label:<20}{apart}{figures['seconds_' + name]:>10.3f}{figures['speedup_' + name]:>26.1f}"
            f"{figures['speedup_' + name + '_from_start']:>10.1f}"
        )
    print(f"refitted: loss changed by {of.removal_target_loss_change:.1e} nats")
    print(
        f"refitted: accuracy {of.removal_accuracy_retrained:.1f} %, changed by {of.removal_accuracy_change:.2f} points"
    )
    print(
        f"once: solve {of.seconds_solve:.2f} s, inverse {of.seconds_inverse:.2f} s (rank {of.inverse_rank}, residual "
        f"{of.inverse_relative_residual:.3f}), fit {of.seconds_fit:.1f} s"
    )
    for name in ("float32", "bfloat16"):
        if f"rank_correlation_{name}" in figures:
            print(f"values in {name}: rank correlation {cells('rank_correlation_' + name).strip()} with float64")
    print(f"\ndrift without removal {of.drift:.1e} nats, against changes of {of.typical_change:.1e}")
    print(f"anchor {of.anchor_delta:.3g}, fitted logit scale {of.fitted_logit_scale:.1f}")


if __name__ == "__main__":
    main()
