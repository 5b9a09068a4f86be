"""The models of the detection benchmark, by what they have seen of the pairs whose wrong captions are sought."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from benchmarks.data import digits, emoji, fashion_mnist, openclipart
from benchmarks.data.pairs import PairTable
from benchmarks.models.lite0_minilm import FrozenTowers, lite0_minilm, trained_head
from benchmarks.models.model import BenchmarkModel, LoadedModel
from benchmarks.models.projections import ProjectionRecipe
from benchmarks.models.training import Recipe, trained_checkpoint

DataName = Literal["fashion-mnist", "digits", "openclipart", "emoji"]
RegimeName = Literal["pretrained", "finetuned", "memorised"]
REGIMES: tuple[RegimeName, ...] = get_args(RegimeName)


def train_tiny(table: PairTable, recipe: Recipe, seed: int, start: Any, progress: bool) -> LoadedModel:
    """``ecif-tiny``, all of it trained."""
    before = None if start is None else start.checkpoint
    return LoadedModel("ecif-tiny", trained_checkpoint("ecif-tiny", table, recipe, seed, before, progress))


def train_projections(
    table: PairTable, recipe: ProjectionRecipe, seed: int, start: Any, progress: bool
) -> FrozenTowers:
    """``lite0-minilm``, of which the projections are trained."""
    return FrozenTowers(trained_head(table, recipe, seed, None if start is None else start.head, progress))


@dataclass(frozen=True)
class BenchmarkData:
    """One data set of the benchmark, and how its models are trained.

    Args:
        load: as :func:`benchmarks.data.digits.load`
        train: gives a model from pairs, a recipe, a seed, a model to go on from (or None), and whether to show progress
        pairs: number of training pairs, which get the noise
        base: number of disjoint clean pairs that the base model is trained on
        heldout: number of held-out clean pairs
        pretraining: on the base pairs
        finetuning: then on the noisy pairs, a few epochs
        memorising: or on the noisy pairs until their wrong captions are fitted like the others
        others: further base pairs, from other sources
    """

    load: Callable[..., PairTable]
    train: Callable[..., BenchmarkModel]
    pairs: int
    base: int
    heldout: int
    pretraining: Recipe | ProjectionRecipe
    finetuning: Recipe | ProjectionRecipe
    memorising: Recipe | ProjectionRecipe
    others: Callable[[bool], PairTable] | None = None


def not_scored_emoji(progress: bool = True) -> PairTable:
    """Drawings of every vendor but the one whose emoji the benchmark scores, and all of Openclipart."""
    table = openclipart.everything(progress)
    for vendor in emoji.VENDORS:
        if vendor != emoji.SCORED:
            table = table + emoji.drawings(vendor, progress)
    return table


FROZEN = {
    "train": train_projections,
    "pretraining": ProjectionRecipe(),
    "finetuning": ProjectionRecipe(epochs=5),
    "memorising": ProjectionRecipe(epochs=100, weight_decay=0.0, dropout=0.0),
}
"""How ``lite0-minilm`` is trained, whatever the data."""

DATA: dict[str, BenchmarkData] = {
    "fashion-mnist": BenchmarkData(
        fashion_mnist.load,
        train_tiny,
        pairs=2_000,
        base=6_000,
        heldout=3_000,
        pretraining=Recipe(epochs=8),
        finetuning=Recipe(epochs=4, learning_rate=5e-4),
        memorising=Recipe(epochs=20, learning_rate=2e-3, shift=0, flip=False),
    ),
    "digits": BenchmarkData(
        digits.load,
        train_tiny,
        pairs=800,
        base=700,
        heldout=297,
        pretraining=Recipe(epochs=40, flip=False, batch_size=128),
        finetuning=Recipe(epochs=4, learning_rate=5e-4, flip=False, batch_size=128),
        memorising=Recipe(epochs=30, learning_rate=2e-3, shift=0, flip=False, batch_size=128),
    ),
    "openclipart": BenchmarkData(openclipart.load, pairs=1_500, base=1_700, heldout=400, **FROZEN),
    "emoji": BenchmarkData(emoji.load, pairs=1_500, base=0, heldout=400, others=not_scored_emoji, **FROZEN),
}


def benchmark_pairs(data: str, seed: int = 0, progress: bool = True) -> PairTable:
    """The clean pairs of one data set of the benchmark.

    Args:
        data: a key of ``DATA``
        seed: of the choice and the split
        progress: whether to show a progress bar

    Returns:
        disjoint pairs of split "train", "base" and "heldout"
    """
    chosen = DATA[data]
    table = chosen.load(train=chosen.pairs + chosen.base, heldout=chosen.heldout, seed=seed, progress=progress)
    split: np.ndarray = table.split.astype("<U8")
    split[chosen.pairs : chosen.pairs + chosen.base] = "base"
    table = table.with_split(split)
    return table if chosen.others is None else table + chosen.others(progress)


def regime_model(data: str, table: PairTable, regime: str, seed: int = 0, progress: bool = True) -> BenchmarkModel:
    """A model that has seen the pairs as one regime says; trained now unless the cache has it.

    Args:
        data: a key of ``DATA``
        table: from :func:`benchmark_pairs`, with the noise planted in its captions
        regime: "pretrained": trained on the base pairs only; "finetuned": then a few epochs on the noisy pairs;
            "memorised": then on them until their wrong captions are fitted
        seed: of the training
        progress: whether to show progress bars

    Returns:
        the model
    """
    if regime not in REGIMES:
        raise ValueError(f"There is no regime '{regime}'; choose one of {', '.join(REGIMES)}.")
    chosen = DATA[data]
    model = chosen.train(table.select(table.split == "base"), chosen.pretraining, seed, None, progress)
    if regime != "pretrained":
        recipe = chosen.finetuning if regime == "finetuned" else chosen.memorising
        model = chosen.train(table.select(table.split == "train"), recipe, seed, model, progress)
    return model


def base_model(progress: bool = True) -> str:
    """``lite0-minilm`` trained on everything that is at hand, for pairs of the user's own.

    Returns:
        the name of an open_clip model folder, "local-dir:…"
    """
    return lite0_minilm(not_scored_emoji(progress) + emoji.drawings(emoji.SCORED, progress), progress=progress)
