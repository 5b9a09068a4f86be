"""Pairs whose tower features exist already: in the shards of a store, or in arrays of the user."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from torch import Tensor

from fiftyone_ecif.features.content import HALF, KEY_BYTES, digest
from fiftyone_ecif.features.folder import StoreFolder
from fiftyone_ecif.features.shard import Shard

NUMBERS = "fiu"
"""Kinds of numpy's types that an embedding may have."""

SHORTEST, LONGEST = 1e-12, 1e12
"""Lengths of an embedding between which float32 has room for its products."""

FloatArray = npt.NDArray[np.float32]


def key_tensor(keys: bytes, size: int = KEY_BYTES) -> Tensor:
    """Keys of ``size`` bytes, laid end to end, as uint8 (N, size)."""
    return torch.from_numpy(np.frombuffer(keys, dtype=np.uint8).copy()).view(-1, size)


class StoredPairs:
    """Pairs in the shards of a feature store; implements :class:`~fiftyone_ecif.core.pairs.Pairs`.

    Only the rows that are asked for are read. A pickled copy reads the shards itself, in whichever process it is.

    Args:
        ids: ids of the pairs, in order
        position: int64 (N,), each pair's row in the shards laid end to end
        folder: the folder of the shards
        shards: names of the shards
        starts: int64 (shards,), the position of each shard's first row
        image_dim: F_image
        text_dim: F_text
        skipped: the reason for every pair that was left out, by id
        keys: uint8 (N, 16), under which the store holds the pairs' features
    """

    def __init__(
        self,
        ids: Sequence[str],
        position: Tensor,
        folder: StoreFolder,
        shards: Sequence[str],
        starts: Tensor,
        image_dim: int,
        text_dim: int,
        skipped: dict[str, str],
        keys: Tensor,
    ) -> None:
        self.ids, self.position, self.keys = list(ids), position, keys
        self.folder, self.shards, self.starts = folder, list(shards), starts
        self.image_dim, self.text_dim, self.skipped = image_dim, text_dim, skipped
        self._opened: dict[int, Shard] = {}

    def __len__(self) -> int:
        return len(self.ids)

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_opened": {}}

    def gather(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Features of the pairs ``index`` (int64, (B,)), in that order.

        Returns:
            image (B, F_image) and text (B, F_text), float32, on the CPU
        """
        index = index.cpu()
        image, text = torch.empty(len(index), self.image_dim), torch.empty(len(index), self.text_dim)
        for number, within, rows in self._by_shard(index):
            with self._reading(number) as shard:
                shard.read(within.tolist(), rows.tolist(), image=image, text=text)
        return image, text

    @property
    def image_keys(self) -> Tensor:
        """8 bytes for each pair that change with the content of its image file, uint8 (N, 8)."""
        return self.keys[:, :HALF]

    def marked(self, mark: str) -> int:
        """The number of pairs with a mark; those that were stored before there was such a mark count as without it.

        Args:
            mark: a name of :class:`~fiftyone_ecif.features.reading.Marks`
        """
        found = 0
        for number, within, _ in self._by_shard(torch.arange(len(self))):
            with self._reading(number) as shard:
                if mark in shard.names:
                    found += int(shard.whole(mark)[within].sum())
        return found

    def _by_shard(self, index: Tensor) -> Iterator[tuple[int, Tensor, Tensor]]:
        """The part of ``index`` in each shard: (the shard's number, rows within it, rows of ``index``)."""
        position, order = self.position[index].sort()
        owner = torch.bucketize(position, self.starts, right=True) - 1
        within = position - self.starts[owner]
        numbers, counts = (found.tolist() for found in torch.unique_consecutive(owner, return_counts=True))
        return zip(numbers, torch.split(within, counts), torch.split(order, counts), strict=True)

    @contextmanager
    def _reading(self, number: int) -> Iterator[Shard]:
        """Open a shard for a reading, and explain what may go wrong."""
        name = self.shards[number]
        try:
            if number not in self._opened:
                self.folder.bring([name])
                self._opened[number] = Shard(self.folder.here / name)
            self.folder.mark_used()
            yield self._opened[number]
        except (SafetensorError, OSError) as error:
            raise OSError(
                f"The feature shard {self.folder.url}/{name} cannot be read any more ({error}). Run it again: only its "
                "pairs are embedded again. On a cluster, the features must be on shared storage, or in a folder that "
                "every node sees under the same path; set FIFTYONE_ECIF_FEATURES to it."
            ) from error


class ArrayPairs:
    """Pairs in memory; implements :class:`~fiftyone_ecif.core.pairs.Pairs` like :class:`StoredPairs`.

    Args:
        ids: ids of the pairs, in order
        image: (N, F_image), float32
        text: (N, F_text), float32
        skipped: the reason for every pair that was left out, by id
    """

    def __init__(self, ids: Sequence[str], image: Tensor, text: Tensor, skipped: dict[str, str]) -> None:
        self.ids, self.image, self.text, self.skipped = list(ids), image, text, skipped
        self.image_dim, self.text_dim = image.shape[1], text.shape[1]

    def __len__(self) -> int:
        return len(self.ids)

    def gather(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Features of the pairs ``index`` (int64, (B,)), in that order: (B, F_image) and (B, F_text), float32."""
        index = index.cpu()
        return self.image[index], self.text[index]

    def marked(self, mark: str) -> int:
        """The number of pairs with a mark: embeddings have none."""
        return 0

    @property
    def keys(self) -> Tensor:
        """16 bytes for each pair that change with its embeddings, uint8 (N, 16)."""
        rows = zip(self.image.contiguous().numpy(), self.text.contiguous().numpy())
        return key_tensor(b"".join(digest(image.tobytes() + text.tobytes(), KEY_BYTES) for image, text in rows))

    @property
    def image_keys(self) -> Tensor:
        """8 bytes for each pair that change with its image embedding, uint8 (N, 8)."""
        rows = self.image.contiguous().numpy()
        return key_tensor(b"".join(digest(image.tobytes(), HALF) for image in rows), HALF)


def stored_embeddings(ids: Sequence[str], image: Sequence[Any], text: Sequence[Any]) -> ArrayPairs:
    """Pairs made of embeddings that the user already has.

    Args:
        ids: N ids
        image: N image embeddings: an array (N, F_image), or a sequence of vectors and Nones
        text: N text embeddings, likewise

    Returns:
        the usable pairs as :class:`ArrayPairs`; a pair is skipped, with its reason, if one of its embeddings is
        missing, all zeros or not finite, or has another length than most

    Raises:
        ValueError: if there are not as many embeddings as ids
    """
    skipped: dict[str, str] = {}
    matrices = []
    for name, vectors in (("image", image), ("text", text)):
        if len(vectors) != len(ids):
            raise ValueError(f"There are {len(ids)} ids and {len(vectors)} {name} embeddings; each pair needs one.")
        matrix, faults = _as_matrix(vectors)
        matrices.append(matrix)
        for row, fault in faults.items():
            skipped.setdefault(ids[row], f"{name} embedding {fault}")
    kept = [row for row, id in enumerate(ids) if id not in skipped]
    image_rows, text_rows = (matrix if len(kept) == len(ids) else matrix[kept] for matrix in matrices)
    return ArrayPairs([ids[row] for row in kept], image_rows, text_rows, skipped)


def _as_matrix(vectors: Sequence[Any]) -> tuple[Tensor, dict[int, str]]:
    """Vectors as one float32 matrix, and what is wrong with the rows that cannot be used, some of which are zero."""
    faults: dict[int, str] = {}
    if isinstance(vectors, np.ndarray) and vectors.ndim == 2 and vectors.dtype.kind in NUMBERS:
        matrix = torch.from_numpy(np.array(vectors, dtype=np.float32))
    else:
        rows = [_as_vector(vector) for vector in vectors]
        lengths = [len(row) for row in rows if row is not None]
        width = max(set(lengths), key=lengths.count) if lengths else 0
        matrix = torch.zeros(len(rows), width)
        for number, row in enumerate(rows):
            if row is None:
                faults[number] = "is missing" if vectors[number] is None else "is not a vector of numbers"
            elif len(row) != width:
                faults[number] = f"has {len(row)} numbers, most have {width}"
            else:
                matrix[number] = torch.from_numpy(row)
    for number in (~matrix.isfinite().all(dim=1)).nonzero().flatten().tolist():
        faults.setdefault(number, "is not finite")
    for number in (matrix == 0).all(dim=1).nonzero().flatten().tolist():
        faults.setdefault(number, "is all zeros")
    length = matrix.double().norm(dim=1)
    for number in ((length < SHORTEST) | (length > LONGEST)).nonzero().flatten().tolist():
        faults.setdefault(number, f"has a length of {length[number]:.0e}, which cannot be computed with")
    return matrix, faults


def _as_vector(vector: Any) -> FloatArray | None:
    """A vector of numbers as float32 (F,); None for anything else."""
    try:
        array = np.asarray(vector)
    except ValueError:  # lists within lists of different lengths
        return None
    if array.dtype.kind not in NUMBERS or array.ndim == 0:
        return None
    with np.errstate(over="ignore"):  # too large a number becomes infinite, which is said
        return array.astype(np.float32).reshape(-1)
