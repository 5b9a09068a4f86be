"""The models of the detection benchmark, by what they have seen of the pairs whose wrong captions are sought."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from benchmarks.data import digits, fashion_mnist, openclipart
from benchmarks.data.pairs import PairTable
from benchmarks.models.sentence_encoder import model_with_sentence_encoder
from benchmarks.models.training import Recipe, trained_checkpoint

DataName = Literal["fashion-mnist", "digits", "openclipart"]
RegimeName = Literal["pretrained", "finetuned", "memorised"]
REGIMES: tuple[RegimeName, ...] = get_args(RegimeName)


@dataclass(frozen=True)
class BenchmarkData:
    """One data set of the benchmark, its model, and how the model is trained.

    Args:
        load: as :func:`benchmarks.data.digits.load`
        model: its name for ``load_model``, or a function that gives it
        pairs: number of training pairs, which get the noise
        base: number of disjoint clean pairs that the base model is trained on
        heldout: number of held-out clean pairs
        pretraining: on the base pairs, from random weights
        finetuning: then on the noisy pairs, a few epochs
        memorising: or on the noisy pairs until their wrong captions are fitted like the others
    """

    load: Callable[..., PairTable]
    model: Callable[[], str]
    pairs: int
    base: int
    heldout: int
    pretraining: Recipe
    finetuning: Recipe
    memorising: Recipe


DATA: dict[str, BenchmarkData] = {
    "fashion-mnist": BenchmarkData(
        fashion_mnist.load,
        lambda: "ecif-tiny",
        pairs=2_000,
        base=6_000,
        heldout=3_000,
        pretraining=Recipe(epochs=8),
        finetuning=Recipe(epochs=4, learning_rate=5e-4),
        memorising=Recipe(epochs=20, learning_rate=2e-3, shift=0, flip=False),
    ),
    "digits": BenchmarkData(
        digits.load,
        lambda: "ecif-tiny",
        pairs=800,
        base=700,
        heldout=297,
        pretraining=Recipe(epochs=40, flip=False, batch_size=128),
        finetuning=Recipe(epochs=4, learning_rate=5e-4, flip=False, batch_size=128),
        memorising=Recipe(epochs=30, learning_rate=2e-3, shift=0, flip=False, batch_size=128),
    ),
    "openclipart": BenchmarkData(
        openclipart.load,
        model_with_sentence_encoder,
        pairs=1_500,
        base=1_700,
        heldout=400,
        pretraining=Recipe(epochs=30),
        finetuning=Recipe(epochs=4, learning_rate=5e-4),
        memorising=Recipe(epochs=30, learning_rate=2e-3, shift=0, flip=False),
    ),
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
    return replace(table, split=split)


def regime_checkpoint(
    data: str, table: PairTable, regime: str, seed: int = 0, progress: bool = True
) -> tuple[str, Path]:
    """A model that has seen the pairs as one regime says; trained now unless the cache has it.

    Args:
        data: a key of ``DATA``
        table: from :func:`benchmark_pairs`, with the noise planted in its captions
        regime: "pretrained": trained on the base pairs only; "finetuned": then a few epochs on the noisy pairs;
            "memorised": then on them until their wrong captions are fitted
        seed: of the training
        progress: whether to show progress bars

    Returns:
        name and checkpoint for ``load_model`` and ``compute_influence``
    """
    if regime not in REGIMES:
        raise ValueError(f"There is no regime '{regime}'; choose one of {', '.join(REGIMES)}.")
    chosen = DATA[data]
    model = chosen.model()
    checkpoint = trained_checkpoint(
        model, table.select(table.split == "base"), chosen.pretraining, seed, progress=progress
    )
    if regime != "pretrained":
        recipe = chosen.finetuning if regime == "finetuned" else chosen.memorising
        noisy = table.select(table.split == "train")
        checkpoint = trained_checkpoint(model, noisy, recipe, seed, start=checkpoint, progress=progress)
    return model, checkpoint
