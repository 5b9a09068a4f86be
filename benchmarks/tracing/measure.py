"""Does a trace name the pairs that made a query fail, and does removing them mend it? With planted causes."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks.report.statistics import mean_with_error, rank_correlation
from benchmarks.tracing.queries import FailingQueries, failing_queries
from benchmarks.tracing.rankings import METHODS, rankings
from benchmarks.tracing.timing import Figures, query_seconds
from benchmarks.tracing.trace_problem import TraceProblem
from fiftyone_ecif.attribution.trace_tables import TraceTables
from fiftyone_ecif.core import Head, LowRankInverse, conjugate_gradients, influence
from fiftyone_ecif.core.query_gradient import OuterProducts


def measure(
    problem: TraceProblem, queries: int, remove: int, seed: int, refits: int = 12, progress: bool = True
) -> Figures:
    """Trace queries that fail because of planted causes, and refit without what each method blames.

    Args:
        problem: see :mod:`benchmarks.tracing.trace_problem`
        queries: at most so many
        remove: pairs that a fix removes
        seed: of the choice of queries and of the baselines' draws
        refits: queries whose fixes are refitted at most, the first ones
        progress: whether to show progress bars

    Returns:
        the figures by name; ``…_se`` is a standard error over queries
    """
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        tables = TraceTables.build(Path(folder) / "tables", problem.objective, problem.head, "exact", seed)
        first = problem.question(0).target(problem.head, problem.objective.pairs, "margin")[1]
        tables.values(first)
        figures: Figures = {"seconds_first_query": time.perf_counter() - started}
        figures |= query_seconds(tables, lambda count: OuterProducts.join([first] * count))
        failing = failing_queries(problem, tables.inverse, queries, seed, progress)
        questions = [problem.question(query) for query in failing.rows.tolist()]
        parts = [question.target(problem.head, problem.objective.pairs, "margin") for question in questions]
        gradients = OuterProducts.join([gradient for _, gradient in parts])
        traced = tables.values(gradients)
        everything = torch.arange(len(problem.objective.pairs))
        effects = [traced.effects(row, everything) for row in range(len(questions))]
    figures |= {"queries": float(len(questions)), "rank": float(len(tables.inverse.vectors))}
    figures["text_queries"] = float((failing.rows >= len(problem.heldout)).sum())
    figures["queries_of_one_cause"] = (failing.causes.sum(1) == 1).sum().item()
    figures["relative_residual"] = tables.inverse.relative_residual
    figures |= agreement_with_solved(problem, gradients, traced.value)
    kinds = np.array([problem.kinds[cause] for cause in failing.largest.tolist()])
    figures |= {f"queries.{kind}": float((kinds == kind).sum()) for kind in sorted(set(kinds))}
    to_blame = failing.causes.float() @ problem.causes.float() > 0
    margins = torch.tensor([-target for target, _ in parts])
    scores = rankings(problem, questions, gradients.dense(problem.head), traced.value, effects, seed)
    for method in METHODS:
        order = scores[method].argsort(1)
        figures |= hits(problem, failing, to_blame, order, kinds, method)
        bar = tqdm(failing.rows[:refits].tolist(), desc=f"refits: {method}", unit="refit", disable=not progress)
        after = torch.stack(
            [
                problem.margins(refit_without(problem, order[row, :remove], tables.inverse))[query]
                for row, query in enumerate(bar)
            ]
        )
        changes = (after - margins[: len(after)]).numpy()
        figures |= mean_with_error(f"fix_rate.{method}", (after > 0).double().numpy())
        figures |= mean_with_error(f"margin_change.{method}", changes)
        if method in ("ecif", "random"):
            figures |= sign_agreement(effects[:refits], order[:, :remove], changes, method)
    return figures


def hits(
    problem: TraceProblem, failing: FailingQueries, to_blame: Tensor, order: Tensor, kinds: np.ndarray, method: str
) -> Figures:
    """How many of the first pairs of a method's order (Q, N) are a cause, over all queries and by kind of cause.

    Args:
        problem: with the planted groups
        failing: the queries
        to_blame: bool (Q, N), the pairs of a query's causes
        order: int64 (Q, N), the most to blame first
        kinds: (Q,) of the largest cause
        method: for the figures' names
    """
    causes = to_blame.gather(1, order)
    largest = problem.causes[failing.largest].gather(1, order)
    shares = {
        "precision_at_10": largest[:, :10].double().mean(1),
        "sufficient_cause_at_10": causes[:, :10].double().mean(1),
        "planted_at_10": problem.causes.any(0)[order[:, :10]].double().mean(1),
        "recall_at_100": causes[:, :100].sum(1) / to_blame.sum(1),
    }
    figures: Figures = {}
    for name, share in shares.items():
        figures |= mean_with_error(f"{name}.{method}", share.double().numpy())
        for kind in sorted(set(kinds)):
            if (kinds == kind).sum() > 1:
                figures |= mean_with_error(f"{name}.{method}.{kind}", share.double().numpy()[kinds == kind])
    return figures


def refit_without(problem: TraceProblem, rows: Tensor, inverse: LowRankInverse) -> Head:
    """The head refitted without some pairs."""
    removed = torch.zeros(len(problem.objective.pairs), dtype=torch.bool)
    removed[rows] = True
    return problem.refit(removed, inverse)


def sign_agreement(effects: list, rows: Tensor, changes: np.ndarray, name: str) -> Figures:
    """How often the predicted change of the margin has the sign of the measured one, where it is above its error."""
    predicted, errors = [], []
    for effect, removed in zip(effects, rows):
        by_round = -effect.by_round[:, removed].sum(1)
        predicted.append(by_round.mean().item())
        errors.append(by_round.std().item() / len(by_round) ** 0.5)
    sure = np.abs(predicted) > np.array(errors)
    if not sure.any():
        return {}
    right = np.sign(np.array(predicted)[sure]) == np.sign(changes[sure])
    slope = (np.array(predicted) * changes).sum() / (np.array(predicted) ** 2).sum()
    suffix = "" if name == "ecif" else f".{name}"
    return {
        **mean_with_error(f"fix_sign_agreement{suffix}", right.astype(float)),
        f"fix_sign_counted{suffix}": float(sure.sum()),
        f"fix_slope{suffix}": float(slope),
    }


def agreement_with_solved(problem: TraceProblem, gradients: OuterProducts, fast: Tensor) -> Figures:
    """Rank correlation and top-100 overlap of the fast traces, and of K-FAC alone, with converged solves."""
    objective, head = problem.objective, problem.head
    dense = gradients.dense(head)

    def values(solutions: Tensor) -> np.ndarray:
        return influence(objective, head, solutions).value("exact").mean(0).numpy()

    solution = conjugate_gradients(
        lambda directions: objective.gauss_newton_product(head, directions), dense, problem.curvature.solve, 1e-3
    )
    solved = values(solution.vectors)
    figures: Figures = {}
    for name, mine in (("fast", fast.numpy()), ("kfac", values(problem.curvature.solve(dense)))):
        figures |= mean_with_error(f"rank_correlation_{name}", rank_correlation(mine, solved))
        overlap = [len(np.intersect1d(a.argsort()[:100], b.argsort()[:100])) / 100 for a, b in zip(mine, solved)]
        figures |= mean_with_error(f"top100_overlap_{name}", np.array(overlap))
    return figures
