"""A fitted model, the pairs it was fitted to, and the held-out loss that removals are judged by."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor

from benchmarks.data import digits, fashion_mnist, noise, openclipart
from benchmarks.data.pairs import PairTable
from benchmarks.models import lite0_minilm
from benchmarks.models.model import BenchmarkModel, LoadedModel
from benchmarks.models.training import Recipe, trained_checkpoint
from fiftyone_ecif.attribution import recall
from fiftyone_ecif.attribution.objectives import RELATIVE_ANCHOR
from fiftyone_ecif.core import (
    LOSSES,
    KroneckerCurvature,
    LowRankInverse,
    Objective,
    Pairs,
    Scope,
    Solution,
    TensorPairs,
    conjugate_gradients,
    fit_to_rest,
    kronecker_curvature,
    largest_eigenvalue,
    low_rank_inverse,
    partitions,
)
from fiftyone_ecif.features import PairRow, RawPairs
from fiftyone_ecif.models import ContrastiveModel, lora_scope, parameter_scope

DataName = Literal["fashion-mnist", "digits", "openclipart"]
DATA: dict[DataName, Callable[..., PairTable]] = {
    "fashion-mnist": fashion_mnist.load,
    "digits": digits.load,
    "openclipart": openclipart.load,
}
HELDOUT_SHARE = 0.5
"""Held-out pairs over training pairs."""
TRAINING_SAMPLES = 20_000
"""Pairs that the model's training sees in total, repetitions included."""
ADAPTER_STEPS = 20
"""Steps of Adam that fresh adapters get before θ0."""
RETRIEVED = 5
"""Captions that may hold the right one, where pairs have no classes."""
MAX_RANK, BLOCK = 128, 16
"""Directions that the low-rank inverse may hold, and that are added to it together."""
FIT_STEPS = 60
DRIFT_STEPS = 5
"""Newton steps that a refit takes at most where it comes to rest."""


class NotAtRest(RuntimeError):
    """A fit that kept moving: what was measured against it would be drift."""


@dataclass(frozen=True)
class Regime:
    """What a run of the benchmark varies.

    Args:
        data: data set
        model: open_clip's name of an architecture, trained here; or lite0-minilm, whose projections are trained here
        base_pairs: clean pairs that the model is trained on and that nothing is attributed to; 0 to train it on the
            attributed pairs themselves
        pairs: attributed training pairs N
        noise: share of the attributed pairs with a caption of another class, or of another pair where there are none
        batch_size: B of the attributed and refitted loss
        rounds: partitions of the pairs into batches
        logit_scale: τ to start from and to be anchored at; None keeps the trained model's
        anchor: δ over the largest curvature at θ0
        damping: added to the curvature that scores are computed with, not to the refits; over the largest curvature
        rank: of LoRA adapters
        rest: gradient over the gradient at θ0 that fits and refits end at, far below what a removal does to it
        subsets: removed groups
        singles: pairs removed one at a time
        edits: random groups of the largest size whose edited model is compared with the refitted one
        seed: of data, noise, training, partitions and groups
    """

    data: DataName = "fashion-mnist"
    model: str = "ecif-tiny"
    base_pairs: int = 0
    pairs: int = 2_000
    noise: float = 0.2
    batch_size: int = 256
    rounds: int = 1
    logit_scale: float | None = None
    anchor: float = RELATIVE_ANCHOR
    damping: float = 0.0
    rank: int = 4
    rest: float = 1e-6
    subsets: int = 40
    singles: int = 30
    edits: int = 5
    seed: int = 0


DEEP = Regime(
    model="ecif-tiny-vit", base_pairs=2_000, pairs=128, batch_size=64, rest=1e-4, subsets=20, singles=8, edits=3
)
"""Small, since a pass through the towers costs a hundred of the head; smooth, since at a kink no fit comes to rest."""

ScopeName = Literal["head", "lora", "full"]
REGIMES: dict[ScopeName, Regime] = {"head": Regime(), "lora": DEEP, "full": DEEP}
"""The default regime of each scope."""


class Candidates(NamedTuple):
    """The texts among which each held-out image should find its own.

    Attributes:
        texts: (C, ...) text inputs
        own: (M,) int64, which of them is each held-out image's
        retrieved: how many texts may hold the right one
    """

    texts: Tensor
    own: Tensor
    retrieved: int


@dataclass(frozen=True)
class Problem:
    """A scope at rest on an anchored objective, with what is needed to predict a removal and to check it.

    Attributes:
        objective: J over the training pairs
        target: C, the mean contrastive loss of the held-out pairs
        scope: at θ̂
        curvature: Kronecker-factored at θ̂, with anchor and damping
        inverse: H⁻¹ from the few directions that curve, without the damping: it makes an edited model a table's work
        preconditioner: of the solver and of refits
        damping: added to the anchor where a removal is predicted
        rest: ‖∇J‖ at which a fit or refit ends
        candidates: what the held-out images are classified by, or matched to
        seconds: of the fit, and of the inverse
    """

    objective: Objective
    target: Objective
    scope: Scope
    curvature: KroneckerCurvature
    inverse: LowRankInverse
    preconditioner: Callable[[Tensor], Tensor]
    damping: float
    rest: float
    candidates: Candidates
    seconds: dict[str, float]

    def solve(self, vectors: Tensor, tolerance: float = 1e-3) -> Solution:
        """H⁻¹ applied to vectors (K, P)."""
        damped = replace(self.objective, anchor=self.objective.anchor + self.damping)
        return conjugate_gradients(
            lambda directions: damped.gauss_newton_product(self.scope, directions),
            vectors, self.preconditioner, tolerance,
        )  # fmt: skip

    def refit(self, removed: Tensor, start: Scope | None = None) -> Scope:
        """The scope at rest without the pairs in ``removed`` (bool, (N,)), starting from θ̂ or from elsewhere.

        Raises:
            NotAtRest: if it does not come to rest: what it measured would be drift
        """
        kept = self.objective.without(removed)
        fit = fit_to_rest(kept, start or self.scope, self.preconditioner, 1.0, FIT_STEPS, gradient_scale=self.rest)
        if not fit.at_rest:
            raise NotAtRest(
                f"A refit did not come to rest: its gradient is {fit.relative_gradient:.1g} times the one asked for. "
                "Set a firmer --anchor."
            )
        return fit.scope

    def keep_fitting(self) -> Scope:
        """The scope after as many more steps as a refit takes, nothing being removed: where it drifts."""
        return fit_to_rest(
            self.objective, self.scope, self.preconditioner, 0.0, DRIFT_STEPS, gradient_scale=self.rest
        ).scope

    def accuracy(self, scope: Scope) -> float:
        """Zero-shot accuracy on the held-out images, or without classes the recall of their captions, in percent."""
        images, texts = self.target.pairs.gather(torch.arange(len(self.target.pairs)))
        found = self.candidates
        rows = torch.arange(len(found.texts)) % len(images)  # any images: they are only there to make pairs
        image, text = scope.linearize(images, texts).image, scope.linearize(images[rows], found.texts).text
        return 100.0 * recall(image, found.own, text, (found.retrieved,))[f"recall_at_{found.retrieved}"]


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
    texts, own, retrieved = candidate_texts(heldout)
    head = model.head.to(dtype=torch.float64)
    if regime.logit_scale is not None:
        head = replace(head, logit_scale=torch.tensor(math.log(regime.logit_scale), dtype=torch.float64))
    candidates = Candidates(model.text_features(texts).double(), own, retrieved)
    return fitted_problem(regime, pairs, target, head, candidates)


def lora_problem(regime: Regime, progress: bool = True) -> Problem:
    """Adapters on the towers, as :func:`head_problem`."""

    def adapters(model: ContrastiveModel, pairs: Pairs) -> Scope:
        return lora_scope(model, pairs, regime.rank, ADAPTER_STEPS, regime.batch_size, seed=regime.seed)

    return _towers_problem(regime, adapters, progress)


def full_problem(regime: Regime, progress: bool = True) -> Problem:
    """Every parameter, as :func:`head_problem`."""
    return _towers_problem(regime, lambda model, pairs: parameter_scope(model), progress)


PROBLEMS: dict[ScopeName, Callable[..., Problem]] = {"head": head_problem, "lora": lora_problem, "full": full_problem}
"""Scopes that the benchmark can attribute: a :class:`Regime` and ``progress`` to a :class:`Problem`."""


def _towers_problem(regime: Regime, choose: Callable[[ContrastiveModel, Pairs], Scope], progress: bool) -> Problem:
    train, heldout, loaded = trained_model(regime, progress)
    if not isinstance(loaded, LoadedModel):
        raise ValueError(f"The towers of {regime.model} are frozen: only its head can be attributed.")
    model, module = loaded.model, cast(Any, loaded.model.model)
    if regime.logit_scale is not None:
        module.logit_scale.data.fill_(math.log(regime.logit_scale))
    module.double()
    pairs, target = (inputs_of(model, table) for table in (train, heldout))
    texts, own, retrieved = candidate_texts(heldout)
    candidates = Candidates(model.tokenize(texts), own, retrieved)
    return fitted_problem(regime, pairs, target, choose(model, pairs), candidates, preconditioned=False)


def trained_model(regime: Regime, progress: bool = True) -> tuple[PairTable, PairTable, BenchmarkModel]:
    """Attributed pairs with noise, clean held-out pairs, and a model trained on the former or on others (cached)."""
    heldout = round(HELDOUT_SHARE * regime.pairs)
    table = DATA[regime.data](
        train=regime.base_pairs + regime.pairs, heldout=heldout, seed=regime.seed, progress=progress
    )
    train, heldout_table = (table.select(table.split == part) for part in ("train", "heldout"))
    last = np.arange(len(train)) >= len(train) - regime.pairs
    base, train = train.select(~last), train.select(last)
    captions, _ = noise.plant(train, "uniform", regime.noise, regime.seed)
    train = train.with_captions(captions)
    base = base if regime.base_pairs else train
    if regime.model == lite0_minilm.NAME:
        head = lite0_minilm.trained_head(base, seed=regime.seed, progress=progress)
        return train, heldout_table, lite0_minilm.FrozenTowers(head)
    epochs = -(-TRAINING_SAMPLES // len(base))
    checkpoint = trained_checkpoint(regime.model, base, Recipe(epochs=epochs), regime.seed, progress=progress)
    return train, heldout_table, LoadedModel(regime.model, checkpoint)


def candidate_texts(heldout: PairTable) -> tuple[list[str], Tensor, int]:
    """One prompt per class, or the distinct held-out captions where there are no classes; see :class:`Candidates`."""
    if heldout.class_names:
        prompts = [heldout.templates[0].format(name) for name in heldout.class_names]
        return prompts, torch.from_numpy(heldout.labels), 1
    captions, own = np.unique(heldout.captions, return_inverse=True)
    return captions.tolist(), torch.from_numpy(own), RETRIEVED


def features_of(model: BenchmarkModel, table: PairTable) -> TensorPairs:
    """The tower features of all pairs, in float64: single removals change the loss by less than float32 resolves."""
    found = model.features(table)
    return TensorPairs(found.image.double(), found.text.double())


def inputs_of(model: ContrastiveModel, table: PairTable) -> TensorPairs:
    """Preprocessed images, float64, and tokens of all pairs."""
    rows = [PairRow(str(row), *pair) for row, pair in enumerate(zip(table.filepaths, table.captions))]
    images, tokens = RawPairs(model, rows).gather(torch.arange(len(table)))
    return TensorPairs(images.double(), tokens)


def fitted_problem(
    regime: Regime,
    pairs: Pairs,
    target: Pairs,
    scope: Scope,
    candidates: Candidates,
    preconditioned: bool = True,
) -> Problem:
    """Bring a scope to rest on the pairs under a regime's loss and anchor.

    Args:
        regime: batch size, rounds, anchor, damping, rest and seed are used
        pairs: the N training pairs
        target: the M held-out pairs
        scope: at θ0
        candidates: what the held-out images are classified by, or matched to
        preconditioned: whether Kronecker factors precondition the solver and the refits. They do not know directions
            that run through many layers; without them the fit goes without, the refits with the problem's ``inverse``

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
    rest = regime.rest * plain.value_and_gradient(scope)[1].norm().item()
    preconditioner: Callable[[Tensor], Tensor] = torch.clone
    if preconditioned:
        preconditioner = kronecker_curvature(objective, scope, objective.anchor, seed=regime.seed).solve
    fit = fit_to_rest(objective, scope, preconditioner, 1.0, FIT_STEPS, gradient_scale=rest)
    if not fit.at_rest:
        raise NotAtRest(f"The fit did not come to rest in {fit.steps} steps. Set a firmer --anchor.")
    damping = regime.damping * largest
    curvature = kronecker_curvature(objective, fit.scope, objective.anchor + damping, seed=regime.seed)
    seconds = {"fit": time.perf_counter() - started}
    started = time.perf_counter()
    inverse = low_rank_inverse(objective, fit.scope, max_rank=MAX_RANK, block=BLOCK, seed=regime.seed)
    seconds["inverse"] = time.perf_counter() - started
    return Problem(
        objective, mean_loss(target, regime.seed + 2), fit.scope, curvature, inverse,
        curvature.solve if preconditioned else inverse.solve, damping, rest, candidates, seconds,
    )  # fmt: skip
