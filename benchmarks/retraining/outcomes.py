"""What training from scratch on random halves of the pairs comes to: the truth that predictions are held against."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from benchmarks.retraining.heads import HeadRecipe, train_heads
from benchmarks.retraining.problem import Problem
from fiftyone_ecif.features import cache_folder

TRAINED_TOGETHER = 10
"""Heads of one call, which are kept before the next are trained."""


@dataclass(frozen=True)
class Outcomes:
    """Losses after training on halves.

    Attributes:
        halves: int64 (G, N / 2), the pairs of each half
        losses: (R, G, M), each target pair's contrastive loss among all of them, by seed and half, in nats
    """

    halves: Tensor
    losses: Tensor

    def members(self, pairs: int) -> Tensor:
        """Which of the N pairs are in each half, (G, N), 0 or 1."""
        return torch.zeros(len(self.halves), pairs).scatter_(1, self.halves, 1.0)


def random_halves(pairs: int, count: int, seed: int) -> Tensor:
    """Random halves of the pairs, int64 (count, pairs // 2); each depends on the seed and its number alone."""

    def half(number: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed * 1_000_003 + number)
        return torch.randperm(pairs, generator=generator)[: pairs // 2].sort().values

    return torch.stack([half(number) for number in range(count)])


def head_outcomes(problem: Problem, recipe: HeadRecipe, subsets: int, seeds: int, seed: int) -> Outcomes:
    """Train heads on halves, from scratch and in batches of their own, unless the cache has them.

    Args:
        problem: the pairs
        recipe: of the training
        subsets: halves G
        seeds: heads R on each half
        seed: of the halves and of the training
    """
    halves = random_halves(len(problem.pairs), subsets, seed)
    folder = cache_folder("retraining") / fingerprint(problem, recipe)
    target = problem.target.gather(torch.arange(len(problem.target)))

    def train(numbers: Sequence[int], run: int) -> Tensor:
        own_seeds = [training_seed(seed, run, number) for number in numbers]
        (trained,) = train_heads(problem.pairs, halves[list(numbers)], own_seeds, recipe)
        return trained.pair_losses(*target)

    return Outcomes(halves, cached_losses(folder, train, subsets, seeds, seed, TRAINED_TOGETHER))


def cached_losses(
    folder: Path, train: Callable[[Sequence[int], int], Tensor], subsets: int, seeds: int, seed: int, together: int
) -> Tensor:
    """Losses (R, G, M) of every seed and half, a file for a few halves, so that a stopped run goes on where it was.

    Args:
        folder: of the files
        train: the losses (g, M) after training on the halves of some numbers, by the run of some number
        subsets: halves G
        seeds: runs R on each half
        seed: of the halves and of the training
        together: halves of one file
    """
    folder.mkdir(parents=True, exist_ok=True)
    runs = []
    with tqdm(total=seeds * subsets, desc="training on halves", unit="half") as bar:
        for run in range(seeds):
            parts = []
            for numbers in torch.arange(subsets).split(together):
                path = folder / f"{seed}-{run}-{int(numbers[0])}-{len(numbers)}.safetensors"
                if not path.exists():
                    part = path.with_name(f"{path.name}.{os.getpid()}.part")
                    save_file({"losses": train(numbers.tolist(), run).contiguous()}, part)
                    os.replace(part, path)
                parts.append(load_file(path)["losses"])
                bar.update(len(numbers))
            runs.append(torch.cat(parts))
    return torch.stack(runs)


def training_seed(seed: int, run: int, number: int) -> int:
    """A seed for each training: of the benchmark's seed, the run and the half's number."""
    return int(np.random.SeedSequence((seed, run, number)).generate_state(1)[0])


def fingerprint(problem: Problem, recipe: Any) -> str:
    """12 digits that change with the pairs' features and with the recipe."""
    digest = hashlib.sha256(json.dumps([type(recipe).__name__, asdict(recipe)]).encode())
    for pairs in (problem.pairs, problem.target):
        for side in pairs.gather(torch.arange(len(pairs))):
            digest.update(side.numpy().tobytes())
    return digest.hexdigest()[:12]
