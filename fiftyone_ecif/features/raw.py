"""Pairs as the towers take them, for scopes inside the towers; images are read when they are needed."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fiftyone_ecif.features.reading import PairRow, UnreadablePair, check_caption, read_image

if TYPE_CHECKING:
    from fiftyone_ecif.models.contrastive import ContrastiveModel, Preprocess

CACHE_BYTES = 2**30
"""Memory for preprocessed images."""


class RawPairs:
    """Preprocessed images and tokens of pairs; implements :class:`~fiftyone_ecif.core.pairs.Pairs`.

    Images are kept in memory until the cache is full, and none is dropped for another. Every pass over the pairs takes
    them in a new order, so that a cache of half the images finds half of them; one that drops the least recently used
    finds 15 %.

    Args:
        model: the model whose preprocessing and tokenizer are used
        rows: the pairs, all readable
        cache_bytes: memory for preprocessed images
        num_workers: number of threads that decode images
    """

    def __init__(
        self,
        model: ContrastiveModel,
        rows: Sequence[PairRow],
        cache_bytes: int = CACHE_BYTES,
        num_workers: int = 4,
    ) -> None:
        self.ids = [row.id for row in rows]
        self.files = [(row.filepath, row.apply_orientation) for row in rows]
        self.preprocess: Preprocess = model.preprocess
        captions = [check_caption(row.caption) for row in rows]
        self.tokens = model.tokenize(captions) if captions else torch.empty(0, model.context_length, dtype=torch.int64)
        self.cache_bytes, self.num_workers = cache_bytes, num_workers
        self._cache: dict[int, Tensor] = {}
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_cache": {}, "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.Lock())

    def __len__(self) -> int:
        return len(self.ids)

    def gather(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """The towers' inputs for the pairs ``index`` (int64, (B,)), in that order.

        Returns:
            images (B, 3, H, W) and tokens (B, context_length), on the CPU

        Raises:
            UnreadablePair: if an image can no longer be read
        """
        index = index.cpu()
        with ThreadPoolExecutor(self.num_workers) as threads:
            images = list(threads.map(self._image, index.tolist()))
        return torch.stack(images), self.tokens[index]

    def _image(self, row: int) -> Tensor:
        if row in self._cache:
            return self._cache[row]
        try:
            image = self.preprocess(read_image(*self.files[row]))
        except UnreadablePair as error:
            raise UnreadablePair(f"pair {self.ids[row]} ({self.files[row][0]}): {error.reason}") from error
        with self._lock:
            if (len(self._cache) + 1) * image.nbytes <= self.cache_bytes:
                self._cache[row] = image
        return image
