"""The most similar rows, by comparing all with all or, beyond some number of rows, by an index."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from fiftyone_ecif.notes import note

if TYPE_CHECKING:
    import faiss

MOST_COMPARED = 50_000
"""Rows up to which all are compared with all; beyond that, an index is faster (docs/detection.md)."""

SIMILARITIES = 2**24
"""Similarities that are held together."""

TIE_BREAK = 1e-3
"""Length of the random coordinates that break ties; similarities change by its square at most."""

TIE_BREAK_WIDTH = 4

CELL, PROBED = 64, 24
"""Mean number of rows in a cell of the index, and cells that are searched for each row."""

MOST_CENTRES = 8192
"""Centres of cells up to which they are compared one by one; more of them have an index of their own."""


def nearest(embeddings: Tensor, k: int, seed: int = 0, asked: Tensor | None = None) -> Tensor:
    """Indices of the k most similar other rows; ties are broken at random.

    Duplicated images and captions make exact ties common, and the order of the rows must not choose among them. Each
    row therefore has a few random coordinates as a query, and other ones as a candidate.

    Args:
        embeddings: (N, D) unit vectors
        k: neighbours, fewer than N
        seed: of the tie-breaking
        asked: int64 (M,), the rows whose neighbours are wanted; None for all

    Returns:
        int64 (N, k), or (M, k); beyond :data:`MOST_COMPARED` rows and with faiss installed, most but not all are the
        true ones
    """
    rows = embeddings.float()
    shape = (2, len(rows), TIE_BREAK_WIDTH)
    random = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    random = TIE_BREAK * torch.nn.functional.normalize(random, dim=2)
    queries, keys = (torch.cat([rows, part], dim=1) for part in random)
    asked = torch.arange(len(rows)) if asked is None else asked
    if len(rows) <= MOST_COMPARED:
        return _compared(queries, keys, asked, k)
    if importlib.util.find_spec("faiss") is None:
        note(
            f"{len(asked):,} rows are compared with {len(rows):,} one by one, which takes long: "
            "pip install 'fiftyone-ecif[faiss]' to find neighbours by an index."
        )
        return _compared(queries, keys, asked, k)
    index = _index(keys.numpy(), np.random.default_rng(seed))
    found = torch.from_numpy(index.search(queries[asked].numpy(), k + 1)[1])
    # Drop the row itself or, where it was not found, the last one.
    found = found.gather(1, (found == asked[:, None]).int().argsort(dim=1, stable=True)[:, :k])
    unfound = (found < 0).any(1).nonzero().squeeze(1)
    found[unfound] = _compared(queries, keys, asked[unfound], k)
    return found


def _index(rows: np.ndarray, generator: np.random.Generator) -> faiss.Index:
    """An inverted file with cells of constant mean size, so that N rows are indexed in N log N.

    The centres of the cells are rows drawn at random, so that there are many cells where many rows are alike, or equal
    up to their random coordinates. Where there are many centres, they are in turn found by an index.
    """
    import faiss

    width = rows.shape[1]
    centres = rows[generator.choice(len(rows), -(-len(rows) // CELL), replace=False)]
    if len(centres) > MOST_CENTRES:
        quantizer = _index(centres, generator)
    else:
        quantizer = faiss.IndexFlatIP(width)
        quantizer.add(centres)
    index = faiss.IndexIVFFlat(quantizer, width, len(centres), faiss.METRIC_INNER_PRODUCT)
    index.nprobe = PROBED
    index.train(centres)  # the quantizer already holds the centres, so this does not move them
    index.add(rows)
    return index


def _compared(queries: Tensor, keys: Tensor, rows: Tensor, k: int) -> Tensor:
    """The k most similar other rows of M given rows, by comparing these with all rows; (M, k)."""
    found = [torch.empty((0, k), dtype=torch.int64)]
    for some in torch.split(rows, max(1, SIMILARITIES // len(keys))):
        similarity = queries[some] @ keys.T
        similarity[torch.arange(len(some)), some] = -torch.inf
        found.append(similarity.topk(k, dim=1).indices)
    return torch.cat(found)
