"""A real feature store of made-up features, as large as asked for, and a head that fits them as a trained one would."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from fiftyone_ecif.core import Head
from fiftyone_ecif.features import FeatureStore, PairRow, StoredPairs
from fiftyone_ecif.features.embedding import SHARD_ROWS
from fiftyone_ecif.features.reading import Marks

FINGERPRINT = "made-up"
MEANINGS = 96
"""Directions that both towers share."""
DECAY = 0.97
"""Strength of each direction over the one before: features are never isotropic."""
NOISE = 0.05
WRONG = 0.05
"""Share of the pairs whose text belongs to another image."""
LOGIT_SCALE = 3.0


def write_made_up_store(folder: Path, pairs: int, feature_dim: int, seed: int = 0) -> None:
    """Write N pairs in shards of the usual size; image and text share a meaning, except in a few wrong pairs.

    Args:
        folder: where stores are kept
        pairs: N
        feature_dim: F of both towers
        seed: of the features
    """
    generator = torch.Generator().manual_seed(seed)
    shown, said = mixings(feature_dim)
    strength = DECAY ** torch.arange(MEANINGS)
    store = FeatureStore(folder, FINGERPRINT, (feature_dim, feature_dim))
    with store.writing():
        for rows in torch.arange(pairs).split(SHARD_ROWS):
            meaning = torch.randn(len(rows), MEANINGS, generator=generator) * strength
            wrong = torch.rand(len(rows), generator=generator) < WRONG
            other = torch.where(wrong, torch.arange(len(rows)).roll(1), torch.arange(len(rows)))
            image, text = (
                part @ mixing + NOISE * torch.randn(len(rows), feature_dim, generator=generator)
                for part, mixing in ((meaning, shown), (meaning[other], said))
            )
            store.append([_key(row) for row in rows.tolist()], image, text, [Marks()] * len(rows))


def open_made_up_store(folder: Path, pairs: int, feature_dim: int) -> StoredPairs:
    """The first N pairs of such a store."""
    rows = [PairRow(str(row), "", "") for row in range(pairs)]
    store = FeatureStore(folder, FINGERPRINT, (feature_dim, feature_dim))
    return store.pairs(rows, [_key(row) for row in range(pairs)])


def fitting_head(dim: int, feature_dim: int, seed: int = 0) -> Head:
    """Projections that read each tower's meaning into one shared space, not quite exactly."""
    generator = torch.Generator().manual_seed(seed)
    shared = torch.linalg.qr(torch.randn(max(dim, MEANINGS), MEANINGS, generator=generator))[0][:dim]
    weights = [
        shared @ mixing + 0.1 * torch.randn(dim, feature_dim, generator=generator) / feature_dim**0.5
        for mixing in mixings(feature_dim)
    ]
    return Head(weights[0], weights[1], torch.tensor(LOGIT_SCALE))


def mixings(feature_dim: int) -> list[Tensor]:
    """How either tower shows the meanings, orthonormal rows (MEANINGS, F)."""
    generator = torch.Generator().manual_seed(1)
    return [
        torch.linalg.qr(torch.randn(max(feature_dim, MEANINGS), MEANINGS, generator=generator))[0][:feature_dim].T
        for _ in range(2)
    ]


def _key(row: int) -> bytes:
    return b"%016d" % row
