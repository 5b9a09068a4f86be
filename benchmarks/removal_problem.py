"""A fitted model, the pairs it was fitted to, and the held-out loss that removals are judged by."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from benchmarks.data import digits, fashion_mnist, noise
from benchmarks.data.pairs import PairTable
from benchmarks.training import Recipe, trained_checkpoint
from fiftyone_ecif.core import (
    LOSSES,
    KroneckerCurvature,
    Objective,
    Pairs,
    Scope,
    Solution,
    TensorPairs,
    conjugate_gradients,
    fit_to_rest,
    kronecker_curvature,
    largest_eigenvalue,
    partitions,
)
from fiftyone_ecif.engine.local import RELATIVE_ANCHOR
from fiftyone_ecif.features import PairRow, cache_folder, embed_pairs
from fiftyone_ecif.models import ContrastiveModel, load_model

MODEL = "ecif-tiny"
DATA: dict[str, Callable[..., PairTable]] = {"fashion-mnist": fashion_mnist.load, "digits": digits.load}
HELDOUT_SHARE = 0.5
"""Held-out pairs over training pairs."""
TRAINING_SAMPLES = 20_000
"""Pairs that the model's training sees in all, repetitions counted."""
REST = 1e-6
"""Gradient over the gradient at θ0 that fits and refits end at, far below what a removal does to it."""
FIT_STEPS = 60
DRIFT_STEPS = 5
"""Newton steps that a refit takes at most where it comes to rest."""


class NotAtRest(RuntimeError):
    """A fit that kept moving: what was measured against it would be drift."""


@dataclass(frozen=True)
class Regime:
    """What a run of the benchmark varies.

    Args:
        data: a key of :data:`DATA`
        pairs: training pairs N
        noise: share of the training pairs with a caption of another class
        batch_size: B of the attributed and refitted loss
        rounds: partitions of the pairs into batches
        logit_scale: τ to start from and to be anchored at; None keeps the trained model's
        anchor: δ over the largest curvature at θ0
        damping: added to the curvature that scores are computed with, not to the refits; over the largest curvature
        seed: of data, noise, training, partitions and groups
    """

    data: str = "fashion-mnist"
    pairs: int = 2_000
    noise: float = 0.2
    batch_size: int = 256
    rounds: int = 1
    logit_scale: float | None = None
    anchor: float = RELATIVE_ANCHOR
    damping: float = 0.0
    seed: int = 0


@dataclass(frozen=True)
class Problem:
    """A scope at rest on an anchored objective, with what is needed to predict a removal and to check it.

    Attributes:
        objective: J over the training pairs
        target: C, the mean contrastive loss of the held-out pairs
        scope: at θ̂
        curvature: Kronecker-factored at θ̂, with anchor and damping
        damping: added to the anchor where a removal is predicted
        rest: ‖∇J‖ at which a fit or refit ends
        classes: (K, ...) text inputs of one prompt per class
        labels: (M,) int64, the held-out images' classes
        seconds: of the fit
    """

    objective: Objective
    target: Objective
    scope: Scope
    curvature: KroneckerCurvature
    damping: float
    rest: float
    classes: Tensor
    labels: Tensor
    seconds: float

    def solve(self, vectors: Tensor, tolerance: float = 1e-3) -> Solution:
        """H⁻¹ applied to vectors (K, P)."""
        damped = replace(self.objective, anchor=self.objective.anchor + self.damping)
        return conjugate_gradients(
            lambda directions: damped.gauss_newton_product(self.scope, directions),
            vectors, self.curvature.solve, tolerance,
        )  # fmt: skip

    def refit(self, removed: Tensor) -> Scope:
        """The scope at rest without the pairs in ``removed`` (bool, (N,)), starting from θ̂.

        Raises:
            NotAtRest: if it does not come to rest: what it measured would be drift
        """
        kept = self.objective.without(removed)
        fit = fit_to_rest(kept, self.scope, self.curvature.solve, 1.0, FIT_STEPS, gradient_scale=self.rest)
        if not fit.at_rest:
            raise NotAtRest(
                f"A refit did not come to rest: its gradient is {fit.relative_gradient:.1g} times the one asked for. "
                "Set a firmer --anchor."
            )
        return fit.scope

    def keep_fitting(self) -> Scope:
        """The scope after as many more steps as a refit takes, nothing being removed: where it drifts."""
        return fit_to_rest(
            self.objective, self.scope, self.curvature.solve, 0.0, DRIFT_STEPS, gradient_scale=self.rest
        ).scope

    def accuracy(self, scope: Scope) -> float:
        """Zero-shot accuracy on the held-out images, in percent."""
        images, texts = self.target.pairs.gather(torch.arange(len(self.target.pairs)))
        image, text = (
            scope.linearize(images, texts).image,
            scope.linearize(images[: len(self.classes)], self.classes).text,
        )
        return 100.0 * (image @ text.T).argmax(1).eq(self.labels).double().mean().item()


def head_problem(regime: Regime, progress: bool = True) -> Problem:
    """The head of a small model trained on noisy captions, refitted to rest on cached features.

    Args:
        regime: what to vary
        progress: whether to show progress bars

    Returns:
        a :class:`Problem`
    """
    train, heldout, model = trained_model(regime, progress)
    pairs, target = (features_of(model, table) for table in (train, heldout))
    prompts = [train.templates[0].format(name) for name in train.class_names]
    with torch.no_grad():
        classes = model.text_features(model.tokenize(prompts)).double()
    head = model.head().to(dtype=torch.float64)
    if regime.logit_scale is not None:
        head = replace(head, logit_scale=torch.tensor(regime.logit_scale, dtype=torch.float64).log())
    return fitted_problem(regime, pairs, target, head, classes, torch.from_numpy(heldout.labels))


PROBLEMS: dict[str, Callable[..., Problem]] = {"head": head_problem}
"""Scopes that the benchmark can attribute: a :class:`Regime` and ``progress`` to a :class:`Problem`."""


def trained_model(regime: Regime, progress: bool = True) -> tuple[PairTable, PairTable, ContrastiveModel]:
    """Training pairs with noise, clean held-out pairs, and a model trained on the former (cached)."""
    heldout = round(HELDOUT_SHARE * regime.pairs)
    table = DATA[regime.data](train=regime.pairs, heldout=heldout, seed=regime.seed, progress=progress)
    train, heldout_table = (table.select(table.split == part) for part in ("train", "heldout"))
    captions, _ = noise.swap_uniform(train, regime.noise, regime.seed)
    train = train.with_captions(captions)
    epochs = -(-TRAINING_SAMPLES // len(train))
    checkpoint = trained_checkpoint(MODEL, train, Recipe(epochs=epochs), regime.seed, progress=progress)
    return train, heldout_table, load_model(MODEL, str(checkpoint))


def features_of(model: ContrastiveModel, table: PairTable) -> TensorPairs:
    """The tower features of all pairs, in float64: single removals change the loss by less than float32 resolves."""
    rows = [PairRow(str(row), *pair) for row, pair in enumerate(zip(table.filepaths, table.captions))]
    stored = embed_pairs(model, rows, cache_folder("features"), num_workers=0, skip_failures=False)
    return TensorPairs(*(part.double() for part in stored.gather(torch.arange(len(stored)))))


def fitted_problem(
    regime: Regime, pairs: Pairs, target: Pairs, scope: Scope, classes: Tensor, labels: Tensor
) -> Problem:
    """Bring a scope to rest on the pairs under a regime's loss and anchor.

    Args:
        regime: batch size, rounds, anchor, damping and seed are used
        pairs: the N training pairs
        target: the M held-out pairs
        scope: at θ0
        classes: (K, ...) text inputs of the class prompts
        labels: (M,) int64

    Returns:
        a :class:`Problem`

    Raises:
        NotAtRest: if the fit does not come to rest
    """
    started = time.perf_counter()

    def mean_loss(source: Pairs, seed: int) -> Objective:
        return Objective(source, partitions(len(source), regime.batch_size, regime.rounds, seed), LOSSES["clip"])

    plain = mean_loss(pairs, regime.seed)
    origin = scope.vector()
    start = torch.from_numpy(np.random.default_rng(regime.seed).standard_normal((1, len(origin)))).to(origin)
    largest = largest_eigenvalue(lambda direction: plain.gauss_newton_product(scope, direction), start)
    objective = replace(plain, anchor=regime.anchor * largest, origin=origin)
    rest = REST * plain.value_and_gradient(scope)[1].norm().item()
    curvature = kronecker_curvature(objective, scope, objective.anchor, seed=regime.seed)
    fit = fit_to_rest(objective, scope, curvature.solve, 1.0, FIT_STEPS, gradient_scale=rest)
    if not fit.at_rest:
        raise NotAtRest(f"The fit did not come to rest in {fit.steps} steps. Set a firmer --anchor.")
    damping = regime.damping * largest
    curvature = kronecker_curvature(objective, fit.scope, objective.anchor + damping, seed=regime.seed)
    seconds = time.perf_counter() - started
    return Problem(
        objective, mean_loss(target, regime.seed + 2), fit.scope, curvature, damping, rest, classes, labels, seconds
    )
