"""The methods that are compared: each gives scores of all pairs for the mean loss and for every query, (1 + Q, N)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from benchmarks.retraining.influences import Influence, Snapshot, segments, tracin, trak
from benchmarks.retraining.metagradient import SmoothRecipe, metagradients
from benchmarks.retraining.outcomes import training_seed
from benchmarks.retraining.trained import MODELS, Trained, TrainedHeads, of_half
from fiftyone_ecif.core import Roles

SEGMENTS = (0, 1, 3, 8)
"""Epochs at which the segments of a training of heads begin."""
SHARES = (0.1, 1.0, 10.0)
"""Anchors, over the largest curvature, among which the loss of left-out pairs chooses."""
METAGRADIENT = 1_000_002
"""Number of the trainings that are differentiated, in place of a half's."""


class Methods:
    """Methods that ask trained models, whatever was trained.

    Args:
        trained: the models
    """

    def __init__(self, trained: Trained) -> None:
        self.trained = trained

    @cached_property
    def at_rest(self) -> Influence:
        """At the end of the first training on all pairs, after a fit to rest, as a run does it."""
        return Influence.at_rest(self.at_end(0))

    @cached_property
    def roles(self) -> Roles:
        """What a run computes."""
        return self.at_rest.solved()

    @cached_property
    def along_training(self) -> Roles:
        """TracIn's sums over the checkpoints of the first training, by role."""
        epochs = self.trained.epochs
        return tracin([self.trained.after(epoch) for epoch in epochs[:-1]], self.trained.steps(epochs))

    def at_end(self, model: int) -> Snapshot:
        return self.trained.after(self.trained.epochs[-1], model)

    def ekfac(self) -> Tensor:
        found = self.at_rest
        return found.along(found.kronecker().solve(found.asked.gradients(found.head))).value("exact")

    @cached_property
    def trak_parts(self) -> list[tuple[Tensor, Tensor]]:
        """TRAK's kernel and weights at every model."""
        return [trak(self.at_end(model), self.trained.seed + model) for model in range(MODELS)]

    def trak(self, models: int) -> Tensor:
        kernels, weights = zip(*self.trak_parts[:models])
        return mean(kernels) * mean(weights)

    def averaged(self) -> Tensor:
        """Influence at rest, mean over trained models."""
        return mean(Influence.at_rest(self.at_end(model)).solved().value("exact") for model in range(MODELS))

    def early(self, models: int) -> Tensor:
        """Influence at models that were stopped when the loss of left-out pairs was least, mean over them."""
        return mean(as_it_is(self.trained.after(self.trained.early, model)) for model in range(models))

    def halves(self) -> Tensor:
        """The same at models of halves, each stopped by what it left out."""
        return mean(as_it_is(self.trained.stopped(number)) for number in range(MODELS))

    def anchor_by_evidence(self) -> Tensor:
        """Influence at rest with the anchor at which the fit of a half predicts the other half best."""
        whole = self.trained.of_half(self.trained.epochs[-1], 0)
        half = Snapshot(of_half(whole.asked, self.trained.members[0]), whole.head)

        def left_out_loss(share: float) -> float:
            return self.trained.left_out_loss(Snapshot(whole.asked, Influence.at_rest(half, share).head), 0)

        return Influence.at_rest(self.at_end(0), min(SHARES, key=left_out_loss)).solved().value("exact")

    def random(self) -> Tensor:
        asked = self.at_end(0).asked
        generator = torch.Generator().manual_seed(self.trained.seed)
        return torch.randn(1 + len(asked.queries), len(asked.problem.pairs), generator=generator)


class HeadMethods(Methods):
    """Methods that need the training of a head itself.

    Args:
        trained: the heads
    """

    def __init__(self, trained: TrainedHeads) -> None:
        super().__init__(trained)
        self.heads = trained

    def segments(self) -> Tensor:
        epochs = [epoch for epoch in SEGMENTS if epoch in self.heads.epochs[:-1]]
        steps = self.heads.steps([*epochs, self.heads.epochs[-1]])
        snapshots = [self.heads.after(epoch) for epoch in epochs]
        return segments(snapshots, steps, self.heads.recipe.learning_rate).value("exact")

    @cached_property
    def metagradients(self) -> list[Tensor]:
        """Derivatives of trainings on all pairs, stopped early, in batches twice the size of a half's own."""
        recipe, asked = self.heads.recipe, self.heads.asked
        smooth = SmoothRecipe(
            self.heads.early, recipe.learning_rate, recipe.weight_decay, 2 * recipe.batch_size, recipe.dimension
        )
        seeds = [training_seed(self.heads.seed, run, METAGRADIENT) for run in range(MODELS)]
        pairs, target = asked.problem.pairs, asked.problem.target
        return [metagradients(pairs, target, asked.queries, smooth, seed) for seed in seeds]


OF_MODELS: Mapping[str, Callable[[Methods], Tensor]] = {
    "ecif": lambda methods: methods.roles.value("exact"),
    "first_order": lambda methods: methods.roles.value("first_order"),
    "positive_only": lambda methods: methods.roles.positive,
    "ekfac": Methods.ekfac,
    "tracin": lambda methods: methods.along_training.positive,
    "tracin_both_roles": lambda methods: methods.along_training.value("first_order"),
    "trak": lambda methods: methods.trak(1),
    "trak_averaged": lambda methods: methods.trak(MODELS),
    "random": Methods.random,
    "ecif_anchor_by_evidence": Methods.anchor_by_evidence,
    "ecif_averaged": Methods.averaged,
    "ecif_early": lambda methods: methods.early(1),
    "ecif_early_averaged": lambda methods: methods.early(MODELS),
    "ecif_halves": Methods.halves,
}
"""Those that exist elsewhere or in a run first, then what was tried to do better."""

OF_HEADS: Mapping[str, Callable[[HeadMethods], Tensor]] = {
    "segments": HeadMethods.segments,
    "metagradient": lambda methods: methods.metagradients[0],
    "metagradient_averaged": lambda methods: mean(methods.metagradients),
}


def as_it_is(snapshot: Snapshot) -> Tensor:
    """Influence without a fit to rest, which would go on with a training that was stopped."""
    return Influence.at(snapshot).solved().value("exact")


def mean(found: Iterable[Tensor]) -> Tensor:
    """The mean of several scores."""
    return torch.stack(list(found)).mean(0)


def kept(path: Path, compute: Callable[[], Tensor]) -> Tensor:
    """Scores from a file, or computed now and written to it."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{path.name}.{os.getpid()}.part")
        save_file({"scores": compute().detach().float().contiguous()}, part)
        os.replace(part, path)
    return load_file(path)["scores"]
