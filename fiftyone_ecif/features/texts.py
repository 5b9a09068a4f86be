"""Texts by an encoder that has no images, in the same store as the features of pairs."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from fiftyone_ecif.features.content import HALF, digest
from fiftyone_ecif.features.embedding import SHARD_ROWS
from fiftyone_ecif.features.pairs import StoredPairs
from fiftyone_ecif.features.reading import Marks, PairRow, UnreadablePair, check_caption
from fiftyone_ecif.features.store import FeatureStore

BATCH = 64
"""Texts per call of an encoder."""

NOT_FINITE, NO_DIRECTION = "text embedding is not finite", "text embedding is all zeros"


class TextEncoder(Protocol):
    """What turns texts into vectors.

    Attributes:
        title: its name, for people
        fingerprint: 64 hexadecimal digits that change with what it computes
        dim: numbers of a vector
    """

    title: str
    fingerprint: str
    dim: int

    def encode(self, texts: list[str]) -> Tensor:
        """The vectors of texts, (B, dim), float32, on the CPU."""
        ...


def embed_texts(
    encoder: TextEncoder,
    rows: Sequence[PairRow],
    folder: str | os.PathLike[str],
    progress: Callable[[int, int], None] | None = None,
    refresh: bool = False,
) -> StoredPairs:
    """Vectors of the captions of rows, whose images are not looked at; those in the store are not computed again.

    Args:
        encoder: the encoder
        rows: whose captions are read
        folder: the folder of all stores, in which the encoder gets a subfolder of its own
        progress: called with the number of rows done and the number of all rows
        refresh: whether vectors that are in the store are computed again, too

    Returns:
        :class:`~fiftyone_ecif.features.pairs.StoredPairs`, whose image features are one 0 each

    Raises:
        RuntimeError: if another process is writing to the same store
        OSError: if the vectors cannot be written
    """
    report = progress or (lambda done, total: None)
    store = FeatureStore(folder, encoder.fingerprint, (1, encoder.dim), encoder.title)
    keys = [digest(repr(row.caption).encode(), HALF) * 2 for row in rows]
    todo = {key: row.caption for key, row in zip(keys, rows, strict=True) if refresh or key not in store}
    if todo:
        with store.writing():
            skipped, texts = _readable(todo)
            wanted = list(texts)
            for start in range(0, len(wanted), SHARD_ROWS):
                report(start, len(rows))
                part = wanted[start : start + SHARD_ROWS]
                batches = [part[first : first + BATCH] for first in range(0, len(part), BATCH)]
                found = torch.cat([encoder.encode([texts[key] for key in batch]) for batch in batches]).float()
                finite = found.isfinite().all(1)
                usable = finite & (found != 0).any(1)
                for row in (~usable).nonzero().flatten().tolist():
                    skipped[part[row]] = NO_DIRECTION if finite[row] else NOT_FINITE
                if usable.any():
                    kept = [key for key, fine in zip(part, usable.tolist(), strict=True) if fine]
                    store.append(kept, torch.zeros(len(kept), 1), found[usable], [Marks()] * len(kept))
            store.record_skipped(skipped)
    report(len(rows), len(rows))
    return store.pairs(rows, keys)


def _readable(todo: dict[bytes, str | None]) -> tuple[dict[bytes, str], dict[bytes, str]]:
    """Why some texts cannot be read, and the others, by their keys."""
    faults, texts = {}, {}
    for key, text in todo.items():
        try:
            texts[key] = check_caption(text)
        except UnreadablePair as fault:
            faults[key] = fault.reason
    return faults, texts
