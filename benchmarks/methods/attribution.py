"""What removing groups of pairs should do, by influence in its forms and by the usual baselines."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.fidelity.removal_problem import Problem
from fiftyone_ecif.core import Objective, Pairs, Scope, removal_gradients
from fiftyone_ecif.core.scope import Cotangent

TRAK_DIMENSION = 512
"""Projections; a run with few pairs uses half as many as it has pairs, since more make the kernel singular."""
TRAK_BATCH = 300
"""Candidates that TRAK's output function compares a pair with; the default of the package ``traker``."""
TRAK_CHUNK = 32
"""Pairs whose own gradients are held together."""


@dataclass(frozen=True)
class GroupGradients:
    """What removing each group does to the objective's gradient, ∇J − ∇J_{−E}, in several readings; (G, P) each.

    Attributes:
        exact: the group form: all its pairs deleted together
        singles: the sum of its pairs' exact forms, each deleted with the others present
        first_order: the sum of its pairs' first-order forms
        positive_only: the sum of its pairs' positive roles
    """

    exact: Tensor
    singles: Tensor
    first_order: Tensor
    positive_only: Tensor


def group_gradients(objective: Objective, scope: Scope, groups: Tensor) -> GroupGradients:
    """(1/N) ∇ of what each group contributes, in the readings that the benchmark compares  (ECIF.md §2, §7).

    Args:
        objective: J
        scope: at θ̂
        groups: bool (G, N)

    Returns:
        :class:`GroupGradients`; the anchor drops out
    """
    exact = removal_gradients(objective, scope, groups)
    readings = [torch.zeros_like(exact) for _ in range(3)]
    for index, batch in objective.linearizations(scope):
        leaf = batch.similarity().detach().requires_grad_()
        members = groups[:, index].to(leaf)
        with torch.enable_grad():
            roles = objective.loss.roles(leaf)
            positive, first_order, deleted = (
                torch.autograd.grad(role, leaf, members, retain_graph=True, is_grads_batched=True)[0] for role in roles
            )
        for total, cotangent in zip(readings, (positive + deleted, positive + first_order, positive)):
            total += objective.weight * batch.pull_back(batch.cotangent(cotangent))
    return GroupGradients(exact, *readings)


def steepest_descent(problem: Problem, gradient: Tensor) -> Tensor:
    """s = α ∇C with the α of one steepest-descent step on H: TracIn, in nats instead of in learning rates.

    TracIn (Pruthi et al. 2020) at the one checkpoint that is attributed: the inner product of gradients.

    Args:
        problem: at θ̂
        gradient: ∇C, (P,)

    Returns:
        (P,)
    """
    curved = problem.objective.gauss_newton_product(problem.scope, gradient[None])[0]
    return (gradient @ gradient) / (gradient @ curved) * gradient


def trak_scores(problem: Problem, seed: int) -> Tensor:
    """TRAK (Park et al. 2023) with its output function for CLIP, at the one model that is attributed.

    A pair's output is f = −log Σ_j exp(−τ u·(v − v_j)) − log Σ_j exp(−τ v·(u − u_j)) over a simulated batch j whose
    embeddings stand still; its projected gradient is its feature φ, and Q = 1 − p̄ turns outputs into losses. The
    package ``traker`` leaves τ out of f and scores outputs; here each target's output is turned into its loss by the
    target's own Q, so that scores sum to a change of the mean target loss.

    Args:
        problem: at θ̂
        seed: of the projection and the simulated batches

    Returns:
        (N,), predicted change of the target loss if the pair were removed, up to a positive factor
    """
    generator = torch.Generator().manual_seed(seed)
    # What no training pair moves is left out: the embeddings of words that none of them has.
    moved = problem.scope.vector() != problem.objective.origin
    dimension = min(TRAK_DIMENSION, len(problem.objective.pairs) // 2)
    projection = random_projection(int(moved.sum()), dimension, generator)
    features, weights = trak_features(problem.scope, problem.objective.pairs, moved, projection, generator)
    target_features, target_weights = trak_features(problem.scope, problem.target.pairs, moved, projection, generator)
    target = target_weights @ target_features / len(target_features)
    return weights * (features @ torch.linalg.solve(features.T @ features, target))


def random_projection(size: int, dimension: int, generator: torch.Generator) -> Tensor:
    """A matrix (size, dimension) that keeps inner products in the mean."""
    return torch.randn(size, dimension, generator=generator) / math.sqrt(dimension)


def trak_features(
    scope: Scope, pairs: Pairs, moved: Tensor, projection: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """TRAK's φ (M, k) and Q (M,) of all pairs, from the parameters that moved (bool, (P,)); see :func:`trak_scores`."""
    features, weights = [], []
    for index in torch.arange(len(pairs)).split(TRAK_CHUNK):
        batch = scope.linearize(*pairs.gather(index))
        others = scope.linearize(*pairs.gather(torch.randperm(len(pairs), generator=generator)[:TRAK_BATCH]))
        image, text = batch.image.detach().requires_grad_(), batch.text.detach().requires_grad_()
        log_scale = batch.logit_scale.detach().expand(len(index)).clone().requires_grad_()
        with torch.enable_grad():
            own = (image * text).sum(1, keepdim=True)
            scale = log_scale.exp()[:, None]
            output = -(scale * (image @ others.text.T - own)).logsumexp(1)
            output = output - (scale * (text @ others.image.T - own)).logsumexp(1)
            by_image, by_text, by_scale = torch.autograd.grad(output.sum(), (image, text, log_scale))
        gradients = batch.pull_back(Cotangent(_own_rows(by_image), _own_rows(by_text), by_scale))
        features.append(gradients[:, moved].to(projection) @ projection)
        similarity = batch.similarity()
        weights.append(1.0 - 0.5 * (similarity.softmax(1) + similarity.softmax(0)).diagonal().to(projection))
    return torch.cat(features), torch.cat(weights)


def _own_rows(rows: Tensor) -> Tensor:
    """(B, D) to (B, B, D): of item n, row n alone."""
    result = rows.new_zeros(len(rows), *rows.shape)
    own = torch.arange(len(rows))
    result[own, own] = rows
    return result
