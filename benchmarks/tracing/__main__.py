"""Does a trace name the pairs that made a query fail, and does removing them fix it? With planted causes, and timed.

Run it with ``python -m benchmarks.tracing --help``. What it measured: docs/trace.md.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks.fidelity.removal_problem import DATA
from benchmarks.methods.attribution import TRAK_DIMENSION, trak_features
from benchmarks.report.json_file import write_asked
from benchmarks.report.statistics import mean_with_error, rank_correlation
from benchmarks.tracing.trace_problem import TraceProblem, planted_problem
from fiftyone_ecif.attribution.objectives import RELATIVE_ANCHOR
from fiftyone_ecif.attribution.question import NEAR_WRONG, Question
from fiftyone_ecif.attribution.trace_tables import TraceTables, in_company
from fiftyone_ecif.core import (
    LOSSES,
    Head,
    LowRankInverse,
    Objective,
    TensorPairs,
    conjugate_gradients,
    embeddings_under,
    influence,
    partitions,
    self_influence,
)
from fiftyone_ecif.core.query_gradient import OuterProducts

METHODS = (
    "ecif", "ecif_alone", "ecif_relative", "ecif_plain", "positive_only", "tracin", "trak", "nearest", "random",
)  # fmt: skip
"""Of ECIF: the default, blame; the same without company; relative influence; the value."""
TIMED_DIMS = 512, 768, 512
"""Shared space, image and text features of the timed pairs: those of ViT-B-32."""
REPEATS = 3

Figures = dict[str, float]


def main() -> None:
    """Measure, print the table, write the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", choices=sorted(DATA), default="fashion-mnist")
    parser.add_argument("--pairs", type=int, default=2_000, help="training pairs")
    parser.add_argument("--queries", type=int, default=24, help="failing queries, spread over the planted causes")
    parser.add_argument("--refits", type=int, default=12, help="queries whose fixes are refitted, at most")
    parser.add_argument("--anchor", type=float, default=RELATIVE_ANCHOR, help="δ, as a share of the largest curvature")
    parser.add_argument("--remove", type=int, default=40, help="pairs that a fix removes: the same for every method")
    parser.add_argument("--seed", type=int, default=0, help="of data, training, planting and partitions")
    parser.add_argument(
        "--timing-pairs", type=int, default=0, help="made-up pairs to take the seconds on; 0: those traced"
    )
    parser.add_argument("--timing-rounds", type=int, default=4, help="rounds of that run")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    asked = parser.parse_args()
    figures: Figures = {}
    if asked.queries:
        problem = planted_problem(asked.data, asked.pairs, asked.anchor, asked.seed)
        figures |= measure(problem, asked.queries, asked.remove, asked.seed, asked.refits)
    if asked.timing_pairs:
        figures |= timings(asked.timing_pairs, asked.timing_rounds, asked.seed)
    print_table(figures)
    write_asked(asked, figures)


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


class FailingQueries(NamedTuple):
    """Queries that fail, and are right in a refit without one planted group: such a group is a cause of it."""

    rows: Tensor  # int64 (Q,), among the problem's queries
    causes: Tensor  # bool (Q, G), the groups without which a query is right
    largest: Tensor  # int64 (Q,), the cause whose removal raises the margin most


def failing_queries(
    problem: TraceProblem, inverse: LowRankInverse, queries: int, seed: int, progress: bool
) -> FailingQueries:
    """At most so many failing queries: one of each largest cause in turn."""
    before = problem.margins(problem.head)
    bar = tqdm(problem.causes, desc="refits: planted causes", unit="refit", disable=not progress)
    after = torch.stack([problem.margins(problem.refit(group, inverse)) for group in bar])
    best, largest = after.max(0)
    failing = (before < 0) & (best > 0)
    rng = np.random.default_rng(seed)
    found = [rng.permutation((failing & (largest == group)).nonzero().squeeze(1)) for group in range(len(after))]
    turns = sorted((turn, group, int(row)) for group, rows in enumerate(found) for turn, row in enumerate(rows))
    rows = torch.tensor([row for _, _, row in turns[:queries]], dtype=torch.int64)
    if not len(rows):
        raise SystemExit("No query fails because of a planted cause: try a weaker --anchor.")
    return FailingQueries(rows, (after[:, rows] > 0).T, largest[rows])


def rankings(
    problem: TraceProblem, questions: list[Question], dense: Tensor, value: Tensor, effects: list, seed: int
) -> dict[str, Tensor]:
    """By method, (Q, N): the lower, the more to blame."""
    objective, head = problem.objective, problem.head
    own = self_influence(objective, head, problem.curvature.quadratic)
    first_order = influence(objective, head, dense)
    generator = torch.Generator().manual_seed(seed)
    dimension = min(TRAK_DIMENSION, len(objective.pairs) // 2)
    projection = torch.randn(dense.shape[1], dimension, generator=generator) / dimension**0.5
    moved = torch.ones(dense.shape[1], dtype=torch.bool)
    features, weights = trak_features(head, objective.pairs, moved, projection, generator)
    trak = weights * (-(dense @ projection) @ torch.linalg.solve(features.T @ features, features.T))
    embedded = dict(zip(("image", "text"), embeddings_under(objective.pairs, head)))
    weights_of = {"image": head.image_weight, "text": head.text_weight}
    nearest = torch.stack(
        [
            embedded[question.asks] @ torch.nn.functional.normalize(weights_of[question.asks] @ question.feature, dim=0)
            for question in questions
        ]
    )
    alone = value / own.sqrt() * problem.doubt
    return {
        "ecif": torch.stack([in_company(row, lambda rows: embedded["image"][rows]) for row in alone]),
        "ecif_alone": alone,
        "ecif_relative": value / own.sqrt(),
        "ecif_plain": value,
        "positive_only": torch.stack([effect.positive for effect in effects]),
        "tracin": first_order.positive.mean(0),
        "trak": trak,
        "nearest": -nearest,
        "random": torch.rand(value.shape, generator=generator),
    }


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


def timings(pairs: int, rounds: int, seed: int) -> Figures:
    """Seconds of the first trace, of a later one, and of 64 together, on made-up features of ViT-B-32's sizes.

    Args:
        pairs: N; the features lie in memory-mapped files
        rounds: partitions of the pairs
        seed: of the features
    """
    dim, image_dim, text_dim = TIMED_DIMS
    generator = torch.Generator().manual_seed(seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        image, text = (
            torch.from_file(str(folder / tower), shared=True, size=pairs * width).view(pairs, width)
            for tower, width in (("image", image_dim), ("text", text_dim))
        )
        topics = torch.randn(200, 64, generator=generator)
        shown, said = (torch.randn(64, width, generator=generator) for width in (image_dim, text_dim))
        for rows in torch.arange(pairs).split(4096):  # pairs of a topic look alike in both towers
            meaning = topics[rows % len(topics)] + 0.5 * torch.randn(len(rows), 64, generator=generator)
            for target, mixing in ((image, shown), (text, said)):
                target[rows] = meaning @ mixing + 3.0 * torch.randn(len(rows), mixing.shape[1], generator=generator)
        weights = [torch.randn(dim, width, generator=generator) / width**0.5 for width in (image_dim, text_dim)]
        head = Head(weights[0], weights[1], torch.tensor(3.0))
        objective = Objective(
            TensorPairs(image, text), partitions(pairs, 256, rounds, seed), LOSSES["clip"], 0.01, head.vector()
        )
        right = torch.arange(NEAR_WRONG + 1) == 0

        def question() -> OuterProducts:
            rows = torch.randint(pairs, (NEAR_WRONG + 1,), generator=generator)
            own = image[rows[0]] + torch.randn(image_dim, generator=generator)
            return Question(own, "image", rows, right, text[:0]).target(head, objective.pairs, "margin")[1]

        started = time.perf_counter()
        tables = TraceTables.build(folder / "tables", objective, head, "exact", seed)
        tables.values(question())
        figures = {
            "seconds_first_query": time.perf_counter() - started,
            "timing_rank": float(len(tables.inverse.vectors)),
        }
        return figures | query_seconds(tables, lambda count: OuterProducts.join([question() for _ in range(count)]))


def query_seconds(tables: TraceTables, gradients: Callable[[int], OuterProducts]) -> Figures:
    """Seconds, and CPU seconds of all threads, of one trace after the first and of 64 together.

    Args:
        tables: that the first trace left
        gradients: of so many queries' targets
    """

    def timed(count: int) -> tuple[float, float]:
        asked = gradients(count)
        started, worked = time.perf_counter(), time.process_time()
        traced = tables.values(asked)
        for query, worst in enumerate(traced.value.topk(100, largest=False).indices):
            traced.effects(query, worst)
        return time.perf_counter() - started, time.process_time() - worked

    figures: Figures = {}
    for name, count in (("per_query", 1), ("64_queries", 64)):
        seconds, worked = np.median([timed(count) for _ in range(REPEATS)], axis=0)
        figures |= {f"seconds_{name}": float(seconds), f"cpu_seconds_{name}": float(worked)}
    return figures


def print_table(figures: Figures) -> None:
    """The figures for people."""
    columns = (
        "precision_at_10", "sufficient_cause_at_10", "planted_at_10", "recall_at_100", "fix_rate", "margin_change",
    )  # fmt: skip
    if f"{columns[0]}.{METHODS[0]}" in figures:
        print(f"\n{'':<16}" + "".join(f"{column:>20}" for column in columns))
        for method in METHODS:
            cells = (f"{figures[f'{name}.{method}']:.3f} ± {figures[f'{name}.{method}_se']:.3f}" for name in columns)
            print(f"{method:<16}" + "".join(f"{cell:>20}" for cell in cells))
    rest = {name: value for name, value in figures.items() if "." not in name and not name.endswith("_se")}
    print()
    for name, value in rest.items():
        error = figures.get(f"{name}_se")
        print(f"{name:<28}{value:.4g}" + (f" ± {error:.2g}" if error is not None else ""))


if __name__ == "__main__":
    main()
