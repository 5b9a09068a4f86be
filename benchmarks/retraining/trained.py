"""What methods look at: models trained on all pairs, and on halves whose other halves say when to stop."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

import torch
from torch import Tensor

from benchmarks.retraining.heads import HeadRecipe, Heads, train_heads
from benchmarks.retraining.influences import Asked, Snapshot
from benchmarks.retraining.outcomes import random_halves, training_seed
from fiftyone_ecif.core import Head, Pairs, Subset, TensorPairs

MODELS = 4
"""Models that averaged methods take; even, since those of halves come in twos."""
EPOCHS = (0, 1, 2, 3, 5, 8, 12, 20)
"""After which a training of heads keeps them; its end is kept besides."""
WHOLE, HALVES = 1_000_000, 1_000_001
"""Numbers of trainings in place of a half's, so that they share no seed with what is predicted."""


class Trained(ABC):
    """Models along their trainings, on all pairs and on halves.

    Attributes:
        seed: of all trainings
    """

    seed: int

    @property
    @abstractmethod
    def epochs(self) -> list[int]:
        """Those after which there are snapshots, the end among them."""

    @property
    @abstractmethod
    def pairs(self) -> int:
        """N."""

    @property
    @abstractmethod
    def batch_size(self) -> int:
        """Pairs a step."""

    @abstractmethod
    def after(self, epoch: int, model: int = 0) -> Snapshot:
        """One of MODELS models that were trained on all pairs."""

    @abstractmethod
    def of_half(self, epoch: int, number: int) -> Snapshot:
        """The model that was trained on one of the :attr:`members`."""

    def steps(self, epochs: Sequence[int]) -> list[int]:
        """Steps of a training on all pairs from each of some epochs to the next."""
        return [(end - start) * (self.pairs // min(self.batch_size, self.pairs)) for start, end in pairwise(epochs)]

    @cached_property
    def members(self) -> Tensor:
        """int64 (MODELS, N // 2): halves and, each next to it, what they leave out."""
        first = random_halves(self.pairs, MODELS // 2, training_seed(self.seed, 0, HALVES))
        left = torch.ones(len(first), self.pairs).scatter_(1, first, 0.0)
        second = torch.stack([row.nonzero().squeeze(1)[: first.shape[1]] for row in left])
        return torch.stack([first, second], dim=1).flatten(0, 1)

    def left_out_loss(self, snapshot: Snapshot, number: int) -> float:
        """The mean loss among themselves of the pairs that a half leaves out, wrong captions among them, in nats."""
        return mean_loss(snapshot.head, Subset(snapshot.asked.problem.pairs, self.members[number ^ 1]))

    @cached_property
    def left_out_losses(self) -> Tensor:
        """Of the snapshots of all halves, (epochs, MODELS)."""
        halves = range(MODELS)
        return torch.tensor(
            [[self.left_out_loss(self.of_half(epoch, half), half) for half in halves] for epoch in self.epochs]
        )

    @property
    def early(self) -> int:
        """The epoch at which the loss of left-out training pairs is least: no clean pair decides."""
        return self.epochs[int(self.left_out_losses.mean(1).argmin())]

    def stopped(self, number: int) -> Snapshot:
        """The model of a half at the epoch at which the loss of what it left out is least."""
        return self.of_half(self.epochs[int(self.left_out_losses[:, number].argmin())], number)


@dataclass(frozen=True)
class TrainedHeads(Trained):
    """Heads over features that stay.

    Args:
        asked: the question
        recipe: of all trainings
        seed: of all trainings
    """

    asked: Asked
    recipe: HeadRecipe
    seed: int

    @property
    def epochs(self) -> list[int]:
        return [*(epoch for epoch in EPOCHS if epoch < self.recipe.epochs), self.recipe.epochs]

    @property
    def pairs(self) -> int:
        return len(self.asked.problem.pairs)

    @property
    def batch_size(self) -> int:
        return self.recipe.batch_size

    def after(self, epoch: int, model: int = 0) -> Snapshot:
        return Snapshot(self.asked, self._whole[self.epochs.index(epoch)].head(model))

    def of_half(self, epoch: int, number: int) -> Snapshot:
        return Snapshot(self.asked, self._halves[self.epochs.index(epoch)].head(number))

    @cached_property
    def _whole(self) -> list[Heads]:
        return self._train(torch.arange(self.pairs).repeat(MODELS, 1), WHOLE)

    @cached_property
    def _halves(self) -> list[Heads]:
        return self._train(self.members, HALVES)

    def _train(self, members: Tensor, number: int) -> list[Heads]:
        seeds = [training_seed(self.seed, run, number) for run in range(MODELS)]
        return train_heads(self.asked.problem.pairs, members, seeds, self.recipe, self.epochs[:-1])


def of_half(asked: Asked, half: Tensor) -> Asked:
    """The same question of some of the pairs, int64 (n,)."""
    problem = asked.problem
    part = TensorPairs(*problem.pairs.gather(half))
    return replace(asked, problem=replace(problem, pairs=part, planted=problem.planted[half.numpy()]))


def mean_loss(head: Head, pairs: Pairs) -> float:
    """The mean contrastive loss of pairs among themselves, in nats."""
    heads = Heads(head.image_weight[None], head.text_weight[None], head.logit_scale[None])
    return heads.pair_losses(*pairs.gather(torch.arange(len(pairs)))).mean().item()
