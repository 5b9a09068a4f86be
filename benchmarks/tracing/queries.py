"""The failing queries of the trace benchmark, and the planted groups that make them fail."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks.tracing.trace_problem import TraceProblem
from fiftyone_ecif.core import LowRankInverse


class FailingQueries(NamedTuple):
    """Queries that fail, but are right in a refit without one planted group; such a group is a cause of the failure."""

    rows: Tensor  # int64 (Q,), among the problem's queries
    causes: Tensor  # bool (Q, G), the groups without which a query is right
    largest: Tensor  # int64 (Q,), the cause whose removal raises the margin most


def failing_queries(
    problem: TraceProblem, inverse: LowRankInverse, queries: int, seed: int, progress: bool
) -> FailingQueries:
    """Choose at most ``queries`` failing queries: one of each largest cause in turn."""
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
