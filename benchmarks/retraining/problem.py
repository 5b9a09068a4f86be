"""Pairs with wrong captions, clean pairs that outcomes are measured on, and the features of both."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from benchmarks.data import emoji, fashion_mnist, noise, openclipart
from benchmarks.data.pairs import PairTable
from benchmarks.models.lite0_minilm import image_features, text_features
from benchmarks.models.model import LoadedModel
from benchmarks.models.projections import Standardisation
from benchmarks.models.training import Recipe, trained_checkpoint
from fiftyone_ecif.core import TensorPairs

DataName = Literal["openclipart", "emoji", "fashion-mnist"]
DATA: dict[DataName, Callable[..., PairTable]] = {
    "openclipart": openclipart.load,
    "emoji": emoji.load,
    "fashion-mnist": fashion_mnist.load,
}
TowersName = Literal["lite0-minilm", "ecif-tiny"]
NOISE = 0.2
"""Share of the training pairs whose captions change places."""
BASE_PAIRS, BASE_EPOCHS = 1_200, 16
"""Clean pairs that ``ecif-tiny`` is trained on before it gives features of others."""


@dataclass(frozen=True)
class Problem:
    """What heads are trained and measured on.

    Attributes:
        pairs: N training pairs' features, standardised
        target: those of M clean pairs, by the same standardisation
        planted: bool (N,), whose caption is wrong
    """

    pairs: TensorPairs
    target: TensorPairs
    planted: np.ndarray


def noisy_table(data: DataName, pairs: int, target: int, seed: int) -> tuple[PairTable, np.ndarray]:
    """Training pairs of split "train", a share of them wrong, and clean "heldout" ones; and which are wrong, bool."""
    table = DATA[data](train=pairs, heldout=target, seed=seed, progress=False)
    captions, planted = noise.plant(table, "caption-swap", NOISE, seed)
    assert planted is not None
    return table.with_captions(captions), planted


def head_problem(data: DataName, towers: TowersName, pairs: int, target: int, seed: int) -> Problem:
    """Features by towers that have seen none of the pairs.

    Args:
        data: data set
        towers: "lite0-minilm", pretrained, or "ecif-tiny", trained on other pairs of the data set
        pairs: N
        target: M
        seed: of the choice of pairs, and of the noise
    """
    if towers == "lite0-minilm":
        table, planted = noisy_table(data, pairs, target, seed)
        features = image_features(table.filepaths), text_features(table.captions, progress=False)
    else:
        table, planted = noisy_table(data, pairs, target + BASE_PAIRS, seed)
        attributed = np.arange(len(table)) < pairs + target
        table, base = table.select(attributed), table.select(~attributed)
        checkpoint = trained_checkpoint(towers, base, Recipe(epochs=BASE_EPOCHS, batch_size=128), seed, progress=False)
        found = LoadedModel(towers, checkpoint).features(table)
        image, text = found.gather(torch.arange(len(found)))
        features = image, text
    return standardised(*features, planted, pairs)


def standardised(image: Tensor, text: Tensor, planted: np.ndarray, pairs: int) -> Problem:
    """The problem of features (N + M, F), the training pairs' first; planted: bool (N + M,)."""
    sides = [Standardisation.of(side[:pairs])(side) for side in (image, text)]
    train, target = (TensorPairs(*(side[rows] for side in sides)) for rows in (slice(pairs), slice(pairs, None)))
    return Problem(train, target, planted[:pairs])
