"""What the benchmarks ask of a model: a head, and tower features of pairs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import torch
from filelock import FileLock
from torch import Tensor

from benchmarks.data.pairs import PairTable
from fiftyone_ecif.core import Head
from fiftyone_ecif.features import ArrayPairs, PairRow, cache_folder, embed_pairs
from fiftyone_ecif.models import ContrastiveModel, ViewAveraged, load_model


class BenchmarkModel(Protocol):
    """A model whose towers are run once and whose head is looked at."""

    @property
    def head(self) -> Head:
        """The last projections."""

    @property
    def loss(self) -> str:
        """A key of :data:`~fiftyone_ecif.core.LOSSES`."""

    def features(self, table: PairTable, views: bool = False) -> ArrayPairs:
        """Tower features of all pairs, in memory; with ``views`` each image's is the mean over mild views of it."""

    def text_features(self, texts: Sequence[str]) -> Tensor:
        """Tower features (N, F_text) of texts."""


class LoadedModel:
    """An open_clip model that is loaded from its name and checkpoint.

    Args:
        name: as for :func:`~fiftyone_ecif.models.load_model`
        checkpoint: likewise
    """

    def __init__(self, name: str, checkpoint: str | Path | None = None) -> None:
        self.model: ContrastiveModel = load_model(name, checkpoint)
        self.checkpoint = checkpoint

    @property
    def head(self) -> Head:
        return self.model.head()

    @property
    def loss(self) -> str:
        return self.model.loss

    def features(self, table: PairTable, views: bool = False) -> ArrayPairs:
        rows = [PairRow(str(row), *pair) for row, pair in enumerate(zip(table.filepaths, table.captions))]
        model, folder = ViewAveraged(self.model) if views else self.model, cache_folder("features")
        with FileLock(folder / f"{model.fingerprint[:16]}.lock"):  # another worker may embed with the same model
            stored = embed_pairs(model, rows, folder, num_workers=0, skip_failures=False)
        return in_memory(*stored.gather(torch.arange(len(stored))))

    def text_features(self, texts: Sequence[str]) -> Tensor:
        with torch.no_grad():
            return self.model.text_features(self.model.tokenize(list(texts))).cpu()


def in_memory(image: Tensor, text: Tensor, ids: Sequence[str] | None = None) -> ArrayPairs:
    """Features (N, F_image) and (N, F_text) as pairs."""
    return ArrayPairs(ids or [str(row) for row in range(len(image))], image, text, {})
