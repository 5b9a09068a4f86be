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
        skipped: the reason for every pair that was left out, by id
        cache_bytes: memory for preprocessed images
        num_workers: number of threads that decode images
    """

    def __init__(
        self,
        model: ContrastiveModel,
        rows: Sequence[PairRow],
        skipped: dict[str, str] | None = None,
        cache_bytes: int = CACHE_BYTES,
        num_workers: int = 4,
    ) -> None:
        self.ids, self.skipped = [row.id for row in rows], skipped or {}
        self.filepaths = [row.filepath for row in rows]
        self.preprocess: Preprocess = model.preprocess
        captions = [check_caption(row.caption) for row in rows]
        self.tokens = model.tokenize(captions) if captions else torch.empty(0, model.context_length, dtype=torch.int64)
        self.truncated = int(model.truncated(captions, self.tokens).sum()) if captions else 0
        self.cache_bytes, self.num_workers = cache_bytes, num_workers
        self._cache: dict[int, Tensor] = {}
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_cache": {}, "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.Lock())

    @classmethod
    def readable(
        cls,
        model: ContrastiveModel,
        rows: Sequence[PairRow],
        skip_failures: bool = True,
        cache_bytes: int = CACHE_BYTES,
        num_workers: int = 4,
    ) -> RawPairs:
        """The pairs whose image and caption can be read, which is found out by reading each of them once.

        Args:
            model: see the class
            rows: the pairs, readable or not
            skip_failures: whether a pair that cannot be read is left out with its reason; otherwise it raises
            cache_bytes: see the class
            num_workers: see the class

        Returns:
            :class:`RawPairs`

        Raises:
            UnreadablePair: at the first pair that cannot be read, if ``skip_failures`` is False
        """

        def fault(row: PairRow) -> str | None:
            try:
                check_caption(row.caption)
                model.preprocess(read_image(row.filepath))
            except UnreadablePair as error:
                return error.reason
            except Exception as error:  # the transform may be the user's own
                return f"image cannot be preprocessed ({error})"
            return None

        with ThreadPoolExecutor(num_workers) as threads:
            faults = list(threads.map(fault, rows))
        skipped = {row.id: reason for row, reason in zip(rows, faults, strict=True) if reason is not None}
        if skipped and not skip_failures:
            id, reason = next(iter(skipped.items()))
            raise UnreadablePair(f"pair {id}: {reason}")
        return cls(model, [row for row in rows if row.id not in skipped], skipped, cache_bytes, num_workers)

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
            image = self.preprocess(read_image(self.filepaths[row]))
        except UnreadablePair as error:
            raise UnreadablePair(f"pair {self.ids[row]} ({self.filepaths[row]}): {error.reason}") from error
        with self._lock:
            if (len(self._cache) + 1) * image.nbytes <= self.cache_bytes:
                self._cache[row] = image
        return image
