"""The most similar rows: by comparing all with all, or beyond some number of rows by an index."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

MOST_COMPARED = 50_000
"""Rows up to which all are compared with all: beyond, an index is faster (docs/detection.md)."""

SIMILARITIES = 2**24
"""Similarities that are held together."""

TIE_BREAK = 1e-3
"""Length of the random coordinates that break ties: similarities change by its square at most."""

TIE_BREAK_WIDTH = 4

CELLS, PROBED = 4, 16
"""Cells of the index over √N, and how many of them are looked through for a row."""

TRAINING_STEPS, TRAINING_ROWS = 10, 64
"""Of the k-means that lays the cells out; rows for each cell."""


def nearest(embeddings: Tensor, k: int, seed: int = 0) -> Tensor:
    """Indices of the k most similar other rows, itself left out by index; ties are broken at random.

    Duplicated images and captions make exact ties common, and the order of the rows must not choose among them. Each
    row is therefore looked for with a few random coordinates of its own, and found by others.

    Args:
        embeddings: (N, D) unit vectors
        k: neighbours, fewer than N
        seed: of the tie-breaking

    Returns:
        int64 (N, k); beyond :data:`MOST_COMPARED` rows and with faiss installed, most of them are the true ones
    """
    rows = embeddings.float()
    shape = (2, len(rows), TIE_BREAK_WIDTH)
    random = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    random = TIE_BREAK * torch.nn.functional.normalize(random, dim=2)
    queries, keys = (torch.cat([rows, part], dim=1) for part in random)
    everyone = torch.arange(len(rows))
    if len(rows) <= MOST_COMPARED:
        return _compared(queries, keys, everyone, k)
    try:
        import faiss
    except ImportError:
        warnings.warn(
            f"{len(rows):,} rows are compared with each other one by one, which takes long: "
            "pip install 'fiftyone-ecif[faiss]' to find neighbours by an index.",
            stacklevel=2,
        )
        return _compared(queries, keys, everyone, k)
    width, metric = keys.shape[1], faiss.METRIC_INNER_PRODUCT
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(width), width, round(CELLS * len(rows) ** 0.5), metric)
    index.nprobe = PROBED
    index.cp.niter, index.cp.max_points_per_centroid, index.cp.seed = TRAINING_STEPS, TRAINING_ROWS, seed
    index.train(keys.numpy())
    index.add(keys.numpy())
    found = torch.from_numpy(index.search(queries.numpy(), k + 1)[1])
    # Without the row itself; where it was not found, without the last.
    found = found.gather(1, (found == everyone[:, None]).int().argsort(dim=1, stable=True)[:, :k])
    unfound = (found < 0).any(1).nonzero().squeeze(1)
    found[unfound] = _compared(queries, keys, unfound, k)
    return found


def _compared(queries: Tensor, keys: Tensor, rows: Tensor, k: int) -> Tensor:
    """The k most similar other rows of some rows, by comparing them with all; (M, k)."""
    found = [torch.empty((0, k), dtype=torch.int64)]
    for some in rows.split(max(1, SIMILARITIES // len(keys))):
        similarity = queries[some] @ keys.T
        similarity[torch.arange(len(some)), some] = -torch.inf
        found.append(similarity.topk(k, dim=1).indices)
    return torch.cat(found)
