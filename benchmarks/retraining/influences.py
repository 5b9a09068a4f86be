"""Influence at trained heads, in the forms that are held against retraining.

All functions give predicted changes of losses if each pair were removed, (1 + Q, N): of the target's mean loss, and of
each query's loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from benchmarks.methods.attribution import TRAK_DIMENSION, random_projection, trak_features
from benchmarks.retraining.heads import pair_losses
from benchmarks.retraining.problem import Problem
from fiftyone_ecif.attribution import Settings
from fiftyone_ecif.attribution.objectives import FITTED, RELATIVE_ANCHOR, anchored, mean_loss
from fiftyone_ecif.attribution.score import FIT_TOLERANCE
from fiftyone_ecif.attribution.settings import HEAD_FIT_STEPS
from fiftyone_ecif.core import (
    Head,
    KroneckerCurvature,
    Objective,
    Roles,
    conjugate_gradients,
    fit_to_rest,
    influence,
    kronecker_curvature,
)

TOLERANCE = 1e-2
"""Relative residual of a solve; ten times a run's, which moves values by .3 % (docs/scale.md)."""


RUN_SHARE = RELATIVE_ANCHOR
"""Anchor over the largest curvature that a run takes by itself."""


@dataclass(frozen=True)
class Asked:
    """What is asked of a method.

    Attributes:
        problem: the pairs
        queries: the target pairs whose own losses are asked for
        settings: of a run; its anchor says nothing, its batches are those of the training
    """

    problem: Problem
    queries: Sequence[int]
    settings: Settings

    def loss(self) -> Objective:
        """The mean batch loss of the training pairs."""
        return mean_loss(self.problem.pairs, "clip", self.settings, FITTED)

    def gradients(self, head: Head) -> Tensor:
        """∇ of the target's mean loss and of each query's loss at a head, (1 + Q, P)."""
        target = self.problem.target
        batch = head.linearize(*target.gather(torch.arange(len(target))))
        similarity = batch.similarity().detach().requires_grad_()
        with torch.enable_grad():
            losses = pair_losses(similarity)
            asked = torch.stack([losses.mean(), *losses[list(self.queries)]])
            (cotangents,) = torch.autograd.grad(asked, similarity, torch.eye(len(asked)), is_grads_batched=True)
        return batch.pull_back(batch.cotangent(cotangents))


@dataclass(frozen=True)
class Snapshot:
    """A head at one point of a training, and the question over the features that it is for."""

    asked: Asked
    head: Head


@dataclass(frozen=True)
class Influence:
    """Influence at a head.

    Attributes:
        asked: the question
        head: where it is taken
        objective: the training pairs' loss with its anchor
    """

    asked: Asked
    head: Head
    objective: Objective

    @classmethod
    def at(cls, snapshot: Snapshot, share: float = RUN_SHARE) -> Influence:
        """At the head as it is, with an anchor of a share of the largest curvature there."""
        asked, head = snapshot.asked, snapshot.head
        own = anchored(asked.loss(), head, replace(asked.settings, anchor=None)).anchor
        objective = anchored(asked.loss(), head, replace(asked.settings, anchor=own * share / RUN_SHARE))
        return cls(asked, head, objective)

    @classmethod
    def at_rest(cls, snapshot: Snapshot, share: float = RUN_SHARE) -> Influence:
        """At the head after a fit to rest, as a run does it."""
        found = cls.at(snapshot, share)
        fit = fit_to_rest(found.objective, found.head, torch.clone, FIT_TOLERANCE, HEAD_FIT_STEPS)
        return replace(found, head=found.head.replace(fit.scope.vector()))

    def solved(self) -> Roles:
        """Each pair's roles by H⁻¹, solved for; (1 + Q, N) each."""
        product = partial(self.objective.gauss_newton_product, self.head)
        gradients = self.asked.gradients(self.head)
        return self.along(conjugate_gradients(product, gradients, torch.clone, TOLERANCE).vectors)

    def kronecker(self) -> KroneckerCurvature:
        """EK-FAC, with the anchor."""
        return kronecker_curvature(self.objective, self.head, self.objective.anchor, seed=self.asked.settings.seed)

    def along(self, solutions: Tensor) -> Roles:
        """Derivatives of each pair's roles along s (1 + Q, P), mean over rounds; (1 + Q, N) each."""
        return Roles(*(role.mean(0) for role in influence(self.objective, self.head, solutions)))


def tracin(checkpoints: Sequence[Snapshot], steps: Sequence[int]) -> Roles:
    """TracIn (Pruthi et al. 2020) over checkpoints, each for the steps that follow it; its score is the positive role.

    Args:
        checkpoints: along one training
        steps: of the training that each of them stands for
    """
    parts = []
    for snapshot, weight in zip(checkpoints, steps, strict=True):
        asked, head = snapshot.asked, snapshot.head
        parts.append(Influence(asked, head, asked.loss()).along(weight * asked.gradients(head)))
    return total(parts)


def trak(snapshot: Snapshot, seed: int) -> tuple[Tensor, Tensor]:
    """TRAK's two parts at one model (Park et al. 2023): the kernel of what is asked with all pairs, and the pairs' Q.

    A score is the kernel's mean over models times the mean Q, as in the package ``traker``; (1 + Q, N) and (N,).
    """
    asked, head = snapshot.asked, snapshot.head
    generator = torch.Generator().manual_seed(seed)
    pairs, target = asked.problem.pairs, asked.problem.target
    moved = torch.ones(head.size, dtype=torch.bool)
    projection = random_projection(head.size, min(TRAK_DIMENSION, len(pairs) // 2), generator)
    features, own = trak_features(head, pairs, moved, projection, generator)
    target_features, target_own = trak_features(head, target, moved, projection, generator)
    losses = target_own[:, None] * target_features
    wanted = torch.cat([losses.mean(0, keepdim=True), losses[list(asked.queries)]])
    return wanted @ torch.linalg.solve(features.T @ features, features.T), own


def segments(checkpoints: Sequence[Snapshot], steps: Sequence[int], learning_rate: float) -> Roles:
    """SOURCE (Bae et al. 2024, arXiv 2405.12186): segments of the training, each with a curvature that stands still.

    Going back from the end, a segment of K steps of size η adds ⟨(1 − (1 − ηΛ)^K) Λ⁻¹ s, g_n⟩ / N and leaves
    (1 − ηΛ)^K s to those before it, in the eigenbasis Λ of EK-FAC. Adam's η is the learning rate over the root mean
    square of a batch's gradient, taken for each matrix as a whole.

    Args:
        checkpoints: at the start of each segment
        steps: K of each
        learning_rate: Adam's
    """
    solutions, parts = checkpoints[-1].asked.gradients(checkpoints[-1].head), []
    for snapshot, count in reversed(list(zip(checkpoints, steps, strict=True))):
        found = Influence.at(snapshot)
        sizes = learning_rate / gradient_sizes(found.objective, found.head)
        reached, solutions = through_segment(found.kronecker(), solutions, sizes, count)
        parts.append(found.along(reached))
    return total(parts)


def total(parts: Sequence[Roles]) -> Roles:
    """The sum of roles, (1 + Q, N) each."""
    return Roles(*(torch.stack(role).sum(0) for role in zip(*parts)))


def through_segment(curvature: KroneckerCurvature, vectors: Tensor, sizes: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """(1 − (1 − ηΛ)^K) Λ⁻¹ s and (1 − ηΛ)^K s of vectors s (1 + Q, P), with η (P,), the same within a layer."""
    reached, left = torch.zeros_like(vectors), torch.zeros_like(vectors)
    for layer in curvature.layers:
        part = slice(layer.position, layer.position + layer.eigenvalues.numel())
        decay = steps * sizes[layer.position] * layer.eigenvalues
        kept = (-decay).exp()
        gained = -(-decay).expm1() / layer.eigenvalues.clamp_min(1e-12)
        rotated = layer.rows.T @ vectors[:, part].unflatten(1, layer.eigenvalues.shape) @ layer.columns
        for result, factor in ((reached, gained), (left, kept)):
            result[:, part] = (layer.rows @ (rotated * factor) @ layer.columns.T).flatten(1)
    return reached, left


def gradient_sizes(objective: Objective, head: Head) -> Tensor:
    """Root mean square of a batch's gradient, over batches and over the matrix that a parameter belongs to; (P,)."""
    squares = torch.zeros(head.size)
    for batches in objective.rounds:
        for batch in batches:
            alone = replace(objective, rounds=[[batch]], anchor=0.0, origin=None, divisor=len(batch))
            squares += alone.value_and_gradient(head)[1].square() / objective.batch_count
    ends = [head.image_weight.numel(), head.text_weight.numel(), 1]
    return torch.cat([part.mean().sqrt().expand(len(part)) for part in squares.split(ends)])
