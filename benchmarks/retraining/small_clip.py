"""A small CLIP trained from scratch, towers and all, in place of heads over features that stay."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.data.pairs import PairTable
from benchmarks.models.model import LoadedModel
from benchmarks.models.training import Recipe, train, trained_checkpoint
from benchmarks.retraining.heads import pair_losses
from benchmarks.retraining.influences import Asked, Snapshot
from benchmarks.retraining.outcomes import Outcomes, cached_losses, random_halves, training_seed
from benchmarks.retraining.problem import Problem
from benchmarks.retraining.trained import HALVES, WHOLE, Trained
from fiftyone_ecif.attribution import Settings
from fiftyone_ecif.core import TensorPairs
from fiftyone_ecif.features import PairRow, RawPairs, cache_folder
from fiftyone_ecif.models import load_model

NAME = "ecif-tiny-vit"
RECIPE = Recipe(epochs=20, shift=0, flip=False, batch_size=128)
"""On a thousand pairs; AdamW with one cycle of the learning rate."""
EPOCHS = (2, 5, 10)
"""Shorter trainings, each with a cycle of its own, in place of checkpoints of the full one."""


def clip_outcomes(table: PairTable, pairs: int, subsets: int, seeds: int, seed: int) -> Outcomes:
    """Train models on halves, from scratch, unless the cache has what came of it.

    Args:
        table: the N training pairs first, then the target
        pairs: N
        subsets: halves G
        seeds: models R on each half
        seed: of the halves and of the training
    """
    halves = random_halves(pairs, subsets, seed)
    inputs = target_inputs(table, pairs)

    def losses(numbers: Sequence[int], run: int) -> Tensor:
        (number,) = numbers
        part = table.select(halves[number].numpy())
        model = train(NAME, part, RECIPE, training_seed(seed, run, number), progress=False)
        return clip_losses(model, *inputs)[None]

    return Outcomes(halves, cached_losses(clip_folder(table), losses, subsets, seeds, seed, together=1))


def clip_folder(table: PairTable) -> Path:
    """Where the cache keeps what was measured on these pairs."""
    known = json.dumps([NAME, asdict(RECIPE), table.filepaths, table.captions])
    return cache_folder("retraining") / f"clip-{hashlib.sha256(known.encode()).hexdigest()[:12]}"


def target_inputs(table: PairTable, pairs: int) -> tuple[Tensor, Tensor]:
    """Preprocessed images and tokens of the pairs after the first ``pairs`` ones."""
    rows = [PairRow(str(row), *pair) for row, pair in enumerate(zip(table.filepaths[pairs:], table.captions[pairs:]))]
    return RawPairs(load_model(NAME), rows).gather(torch.arange(len(rows)))


@torch.no_grad()
def clip_losses(model: torch.nn.Module, images: Tensor, tokens: Tensor) -> Tensor:
    """Each pair's contrastive loss among all of them, (M,), in nats."""
    image, text, scale = model(images, tokens)[:3]
    return pair_losses(scale * image @ text.T)


@dataclass(frozen=True)
class TrainedClips(Trained):
    """Small CLIPs, whose heads are looked at over the features of their own towers.

    Args:
        table: the N training pairs first, then the target
        planted: bool (N,), whose caption is wrong
        queries: as in :class:`~benchmarks.retraining.influences.Asked`
        settings: likewise
        seed: of all trainings
    """

    table: PairTable
    planted: np.ndarray
    queries: Sequence[int]
    settings: Settings
    seed: int

    @property
    def epochs(self) -> list[int]:
        return [*EPOCHS, RECIPE.epochs]

    @property
    def pairs(self) -> int:
        return len(self.planted)

    @property
    def batch_size(self) -> int:
        return RECIPE.batch_size

    def after(self, epoch: int, model: int = 0) -> Snapshot:
        return self._snapshot(np.arange(self.pairs), epoch, training_seed(self.seed, model, WHOLE))

    def of_half(self, epoch: int, number: int) -> Snapshot:
        return self._snapshot(self.members[number].numpy(), epoch, training_seed(self.seed, number, HALVES))

    def _snapshot(self, rows: np.ndarray, epoch: int, seed: int) -> Snapshot:
        recipe = replace(RECIPE, epochs=epoch)
        checkpoint = trained_checkpoint(NAME, self.table.select(rows), recipe, seed, progress=False)
        model = LoadedModel(NAME, checkpoint)
        found = model.features(self.table)
        image, text = found.gather(torch.arange(len(found)))
        own, target = (TensorPairs(image[part], text[part]) for part in (slice(self.pairs), slice(self.pairs, None)))
        return Snapshot(Asked(Problem(own, target, self.planted), self.queries, self.settings), model.head)
