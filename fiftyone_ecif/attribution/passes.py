"""Passes over the pairs that give each of them a score, put together from the parts that the workers share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from fiftyone_ecif.core import (
    Linearization,
    Objective,
    Progress,
    Roles,
    Scope,
    influence,
    self_influence,
    self_influence_by_probes,
)
from fiftyone_ecif.core.scope import Cotangent

Quadratic = Callable[[Linearization, Cotangent], Tensor]


def value_pass(
    objective: Objective, scope: Scope, solutions: Tensor, score_dtype: torch.dtype | None, progress: Progress
) -> list[Tensor]:
    """The roles of each pair by round and target, (rounds, K, N) each; see :func:`~fiftyone_ecif.core.influence`."""
    return _per_pair(objective, "Scores", _influence, progress, scope, solutions, score_dtype)


def self_influence_pass(
    objective: Objective, scope: Scope, quadratic: Quadratic, rows: Tensor, progress: Progress
) -> Tensor:
    """The self-influence of the pairs ``rows`` (int64), (N,); see :func:`~fiftyone_ecif.core.self_influence`."""
    wanted = torch.zeros(len(objective.pairs), dtype=torch.bool)
    wanted[rows] = True
    return _per_pair(objective, "Self-influence", _self_influence, progress, scope, quadratic, wanted)[0]


def probe_pass(
    objective: Objective,
    scope: Scope,
    inverse_root: Callable[[Tensor], Tensor],
    probes: int,
    seed: int,
    progress: Progress,
) -> Tensor:
    """The same of all pairs, estimated; see :func:`~fiftyone_ecif.core.self_influence_by_probes`."""
    rooted = inverse_root, probes, seed
    return _per_pair(objective, "Self-influence", _self_influence_by_probes, progress, scope, *rooted)[0]


def _per_pair(
    objective: Objective, step: str, score: Callable[..., Sequence[Tensor]], progress: Progress, *arguments: Any
) -> list[Tensor]:
    """Scores (..., N) of every pair, put together from those that each part of the objective has of its pairs."""
    parts = objective.over_parts(score, *arguments, step=step, progress=progress)
    found = list(next(parts))
    for part in parts:
        for values, more in zip(found, part, strict=True):
            torch.where(more.isnan(), values, more, out=values)
    return found


def _influence(
    part: Objective, scope: Scope, solutions: Tensor, score_dtype: torch.dtype | None, progress: Progress
) -> Roles:
    with torch.autocast(solutions.device.type, score_dtype, enabled=score_dtype is not None):
        return influence(part, scope, solutions, progress=progress)


def _self_influence(
    part: Objective, scope: Scope, quadratic: Quadratic, wanted: Tensor, progress: Progress
) -> tuple[Tensor]:
    return (self_influence(part, scope, quadratic, wanted=wanted, progress=progress),)


def _self_influence_by_probes(
    part: Objective,
    scope: Scope,
    inverse_root: Callable[[Tensor], Tensor],
    probes: int,
    seed: int,
    progress: Progress,
) -> tuple[Tensor]:
    return (self_influence_by_probes(part, scope, inverse_root, probes, seed, progress),)
