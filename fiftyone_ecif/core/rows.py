"""Passes over one batch, with S and Ṡ held as a whole where they fit, else a few rows at a time (ECIF.md §4, §5).

Both directions of a loss are sums over rows, of S and of Sᵀ, so that no pass needs the whole of either. By rows, memory
grows with B and not with B², at the price of a few more matrix products. Results are the same but for rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from fiftyone_ecif.core.losses import ContrastiveLoss, Roles
from fiftyone_ecif.core.scope import Cotangent, Linearization

WHOLE_BYTES = 1 << 28
"""Memory that S and its tangents or samples may take together; in float32, 4,096 pairs and one tangent take half."""


def batch_value(loss: ContrastiveLoss, batch: Linearization) -> float:
    """The batch's summed loss, in nats."""
    if _fits(batch, 1):
        return loss.sum_loss(batch.similarity()).item()
    return sum(loss.half_loss(part.similarity, 1, part.rows.start).item() for part in _parts(batch, 1))


def value_and_cotangent(loss: ContrastiveLoss, batch: Linearization) -> tuple[float, Cotangent]:
    """The batch's summed loss in nats, and its derivative by the embeddings as a cotangent with K = 1."""
    if _fits(batch, 1):
        similarity = batch.similarity()
        return loss.sum_loss(similarity).item(), batch.cotangent(loss.similarity_cotangent(similarity)[None])
    total = 0.0

    def half(part: _Part) -> Tensor:
        nonlocal total
        total += loss.half_loss(part.similarity, 1, part.rows.start).item()
        return loss.half_cotangent(part.similarity, 1, part.rows.start)[None]

    cotangent = _carried(batch, half, 1)
    return total, cotangent


def curvature_cotangent(loss: ContrastiveLoss, batch: Linearization, directions: Tensor) -> Cotangent:
    """∂²(sum loss)/∂S² Ṡ with Ṡ along directions (K, P), as cotangents of the embeddings  (ECIF.md §5)."""
    count = len(directions)
    if _fits(batch, count):
        return batch.cotangent(loss.curvature_product(batch.similarity(), batch.similarity_tangent(directions)))
    return _carried(
        batch, lambda part: loss.half_curvature_product(part.similarity, part.tangents, 1), count, directions
    )


def sampled_cotangent(
    loss: ContrastiveLoss, batch: Linearization, samples: int, generator: torch.Generator
) -> Cotangent:
    """Fisher samples S̄ of ∂(sum loss)/∂S as cotangents of the embeddings; the mean of S̄ S̄ᵀ is the curvature."""
    if _fits(batch, samples):
        return batch.cotangent(loss.sample_curvature_root(batch.similarity(), samples, generator))
    return _carried(batch, lambda part: loss.half_curvature_root(part.similarity, samples, generator), samples)


def role_derivatives(loss: ContrastiveLoss, batch: Linearization, directions: Tensor) -> Roles:
    """⟨s, ∇pos_n⟩, ⟨s, ∇neg_n⟩ and ⟨s, ∇negx_n⟩ for directions s (K, P), (K, B) each  (ECIF.md §4)."""
    if _fits(batch, len(directions)):
        return loss.role_derivatives(batch.similarity(), batch.similarity_tangent(directions))
    total = Roles(*directions.new_zeros(len(Roles._fields), len(directions), len(batch.image)))
    for part in _parts(batch, len(directions), directions):
        loss.add_row_derivatives(part.similarity, part.tangents, part.rows.start, total)
    return total


class _Part(NamedTuple):
    """Some rows of S and Ṡ, or of Sᵀ and Ṡᵀ where ``turned``: (b, B) and (K, b, B)."""

    turned: bool
    rows: slice
    similarity: Tensor
    tangents: Tensor


def _together(batch: Linearization, beside: int) -> int:
    """How many rows of S fit, with the same rows of ``beside`` further matrices."""
    return max(1, WHOLE_BYTES // ((1 + beside) * len(batch.image) * batch.image.element_size()))


def _fits(batch: Linearization, beside: int) -> bool:
    return _together(batch, beside) >= len(batch.image)


def _parts(batch: Linearization, beside: int, directions: Tensor | None = None) -> Iterator[_Part]:
    """All rows of S and then of Sᵀ, as many at a time as fit; without directions, K = 0."""
    factors, tangent_factors = batch.similarity_factors(), None
    if directions is not None:
        tangent_factors = batch.tangent_factors(directions)
    together = _together(batch, beside)
    for turned in (False, True):
        if turned:
            factors, tangent_factors = factors.transposed, tangent_factors and tangent_factors.transposed
        for start in range(0, len(batch.image), together):
            rows = slice(start, start + together)
            similarity = factors.rows(rows)
            tangents = similarity[None, :0] if tangent_factors is None else tangent_factors.rows(rows)
            yield _Part(turned, rows, similarity, tangents)


def _carried(
    batch: Linearization, half: Callable[[_Part], Tensor], count: int, directions: Tensor | None = None
) -> Cotangent:
    """:meth:`Linearization.cotangent` of S̄ (K, B, B), the sum of two directions whose rows come in parts."""
    image, text = (batch.image.new_zeros(count, *batch.image.shape) for _ in range(2))  # S̄ v, S̄ᵀ u
    total = image.new_zeros(count)
    for part in _parts(batch, count, directions):
        cells = half(part)
        own, other = (batch.text, batch.image) if part.turned else (batch.image, batch.text)
        rows, columns = (text, image) if part.turned else (image, text)
        rows[:, part.rows] += cells @ other
        columns += cells.mT @ own[part.rows]
        total += cells.sum((-1, -2))
    return batch.carried(image, text, total)
