"""What a run has read, kept beside what it has fitted: its answers stay the same whatever becomes of the samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from bson import ObjectId
from torch import Tensor

from fiftyone_ecif.dataset.rows import Rows
from fiftyone_ecif.features import ArrayPairs, StoredPairs

ID_BYTES = 12


@dataclass(frozen=True)
class Snapshot:
    """The pairs that were scored, or those of a target, in their order.

    Attributes:
        ids: sample ids, (N,)
        texts: captions or labels as they were, (N,); None where there was no text field
        keys: uint8 (N, 16), under which the feature store holds their features; of stored embeddings their digests
    """

    ids: list[str]
    texts: list[str | None] | None
    keys: Tensor

    @classmethod
    def of(cls, rows: Rows, pairs: StoredPairs | ArrayPairs) -> Snapshot:
        """What is to be kept of some pairs, whose ``rows`` are in the same order."""
        texts = None if rows.texts is None else [None if text is None else str(text) for text in rows.texts]
        return cls(rows.ids, texts, pairs.keys)

    def tensors(self, prefix: str = "") -> dict[str, Tensor]:
        """The snapshot as tensors, by names that begin with the prefix."""
        ids = b"".join(ObjectId(id).binary for id in self.ids)
        packed = {"ids": _bytes(ids).view(-1, ID_BYTES), "keys": self.keys}
        if self.texts is not None:
            encoded = [None if text is None else text.encode(errors="surrogatepass") for text in self.texts]
            packed["texts"] = _bytes(b"".join(text for text in encoded if text is not None))
            packed["text_lengths"] = torch.tensor([-1 if text is None else len(text) for text in encoded])
        return {f"{prefix}{name}": value for name, value in packed.items()}

    @classmethod
    def read(cls, tensors: Mapping[str, Tensor], prefix: str = "") -> Snapshot | None:
        """The snapshot that :meth:`tensors` packed; None where a run from before there were any keeps none."""
        if f"{prefix}keys" not in tensors:
            return None
        ids = [bytes(row).hex() for row in tensors[f"{prefix}ids"].numpy()]
        lengths = tensors.get(f"{prefix}text_lengths")
        texts = None if lengths is None else _texts(tensors[f"{prefix}texts"].numpy().tobytes(), lengths.tolist())
        return cls(ids, texts, tensors[f"{prefix}keys"])

    def key_bytes(self) -> list[bytes]:
        """Each pair's key."""
        return [bytes(row) for row in self.keys.numpy()]


def _bytes(content: bytes) -> Tensor:
    return torch.from_numpy(np.frombuffer(content, dtype=np.uint8).copy())


def _texts(content: bytes, lengths: Sequence[int]) -> list[str | None]:
    texts: list[str | None] = []
    start = 0
    for length in lengths:
        if length < 0:
            texts.append(None)
            continue
        texts.append(content[start : start + length].decode(errors="surrogatepass"))
        start += length
    return texts
