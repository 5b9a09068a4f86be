"""Refits without groups of pairs: what a removal really does."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks.fidelity.removal_problem import Problem
from fiftyone_ecif.core import Scope

Figures = dict[str, float]
"""Figures by name; a standard error has its figure's name and ``_se``."""


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


def timed_map(function: Callable[[Tensor], Any], groups: Iterable[Tensor]) -> tuple[list[Any], np.ndarray]:
    """The function's value for each group, and the seconds that each took."""
    values, seconds = [], []
    for group in groups:
        started = time.perf_counter()
        values.append(function(group))
        seconds.append(time.perf_counter() - started)
    return values, np.array(seconds)
