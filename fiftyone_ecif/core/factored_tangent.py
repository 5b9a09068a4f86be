"""Derivatives of the roles along the gradients of queries: Ṡ is never formed (ECIF.md §8)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fiftyone_ecif.core.head import Head
from fiftyone_ecif.core.losses import ClipLoss, ContrastiveLoss
from fiftyone_ecif.core.query_gradient import OuterProducts
from fiftyone_ecif.core.softmax_rows import hard_negatives, own_cells, take_out_own


@dataclass(frozen=True)
class TangentMaker:
    """K gradients, laid out for one product per tower and batch.

    As u_n = W x_n / ‖W x_n‖, products with the inputs are all that is needed: u_n·a = (Wᵀa)·x_n / ‖W x_n‖.

    Args:
        gradients: K of them
        image: (2I + J, F_image), the x_p, Wᵀa_p and Wᵀb_q
        text: (2J + I, F_text), the y_q, Wᵀb_q and Wᵀa_p, W being the text's
        scale: τ
    """

    gradients: OuterProducts
    image: Tensor
    text: Tensor
    scale: float

    @classmethod
    def of(cls, gradients: OuterProducts, head: Head) -> TangentMaker:
        """For batches under a head."""
        (a, x), (b, y) = gradients.image, gradients.text
        image = torch.cat([x, torch.cat([a, b]) @ head.image_weight])
        text = torch.cat([y, torch.cat([b, a]) @ head.text_weight])
        return cls(gradients, image, text, head.logit_scale.exp().item())

    def along(self, image_input: Tensor, text_input: Tensor, products: Tensor) -> FactoredTangent:
        """Ṡ along the gradients: τ (u̇_i·v_j + u_i·v̇_j) + τ̇ u_i·v_j, u̇_i = Σ_p (x_i·x_p) (I − u_i u_iᵀ) a_p / ‖w_i‖.

        Args:
            image_input: (G, B, F_image) of G batches, x_n over the norm of W x_n
            text_input: (G, B, F_text), y_n likewise
            products: (G, B, B), τ u_i·v_j, which is S without its bias
        """
        gradients, count = self.gradients, len(self.gradients)
        images, texts = len(gradients.image_owner), len(gradients.text_owner)
        alpha, image_a, image_b = torch.split(_seen(self.image, image_input), [images, images, texts], -2)
        gamma, text_b, text_a = torch.split(_seen(self.text, text_input), [texts, texts, images], -2)
        owner = torch.cat([gradients.image_owner, gradients.text_owner])
        left, right = torch.cat([alpha, self.scale * image_b], -2), torch.cat([self.scale * text_a, gamma], -2)
        rows = gradients.logit_scale[:, None] - _by_owner(alpha * image_a, gradients.image_owner, count)
        columns = -_by_owner(gamma * text_b, gradients.text_owner, count)
        tangent = FactoredTangent(left, right, owner, rows, columns, products)
        bias = gradients.logit_bias
        return tangent.plus_rows(bias[:, None].expand_as(rows)) if bias.any() else tangent


@dataclass(frozen=True)
class FactoredTangent:
    """Ṡ^k_ij = Σ_p left_pi right_pj + (rows_ki + columns_kj) τ u_i·v_j over the products p that k owns, of G batches.

    Args:
        left: (G, p, B)
        right: (G, p, B)
        owner: int64 (p,)
        rows: (G, K, B)
        columns: (G, K, B)
        products: (G, B, B), τ u_i·v_j
    """

    left: Tensor
    right: Tensor
    owner: Tensor
    rows: Tensor
    columns: Tensor
    products: Tensor

    def plus_rows(self, values: Tensor) -> FactoredTangent:
        """Ṡ^k_ij + values_ki, values (G, K, B)."""
        return FactoredTangent(
            torch.cat([self.left, values], -2),
            torch.cat([self.right, torch.ones_like(values)], -2),
            torch.cat([self.owner, torch.arange(values.shape[-2], device=self.owner.device)]),
            self.rows,
            self.columns,
            self.products,
        )

    @property
    def transposed(self) -> FactoredTangent:
        """Ṡᵀ."""
        return FactoredTangent(self.right, self.left, self.owner, self.columns, self.rows, self.products.mT)

    def row_sums(self, weights: Tensor) -> Tensor:
        """Σ_j w_ij Ṡ^k_ij, (G, K, B); weights (G, B, B) lie in memory as ``products`` do."""
        return self.transposed.column_sums(weights.mT)

    def column_sums(self, weights: Tensor) -> Tensor:
        """Σ_i w_ij Ṡ^k_ij, likewise."""
        weighted = weights * self.products
        sums = _by_owner(self.right * (self.left @ weights), self.owner, self.rows.shape[-2])
        return sums + self.columns * weighted.sum(-2, keepdim=True) + self.rows @ weighted

    def of_rows(self, batch: int, index: Tensor) -> FactoredTangent:
        """The rows ``index`` (int64 (R,)) of one batch alone, without the leading axis."""
        left, rows, products = self.left[batch, :, index], self.rows[batch, :, index], self.products[batch, index]
        return FactoredTangent(left, self.right[batch], self.owner, rows, self.columns[batch], products)

    def entries(self, columns: Tensor) -> Tensor:
        """Ṡ^k of one batch at one column (int64 (B,)) of every row, (K, B)."""
        at = torch.arange(len(columns), device=columns.device)
        sums = _by_owner(self.left * self.right[:, columns], self.owner, len(self.rows))
        return sums + (self.rows + self.columns[:, columns]) * self.products[at, columns]

    def diagonal(self) -> Tensor:
        """Ṡ^k_nn, (G, K, B)."""
        sums = _by_owner(self.left * self.right, self.owner, self.rows.shape[-2])
        return sums + (self.rows + self.columns) * own_cells(self.products)[:, None]


def role_derivatives_along(
    loss: ContrastiveLoss, similarity: Tensor, tangent: FactoredTangent, removal: str
) -> tuple[Tensor, Tensor]:
    """Derivatives of pos_n and of the negative role along Ṡ, (G, K, B) each  (ECIF.md §4, §8).

    Args:
        loss: of a batch
        similarity: (G, B, B), S of G batches
        tangent: Ṡ
        removal: "exact" or "first_order"
    """
    if isinstance(loss, ClipLoss):
        row = _softmax_side(similarity, similarity.softmax(-1), tangent, removal)
        column = _softmax_side(similarity.mT, similarity.softmax(-2).mT, tangent.transposed, removal)
        return 0.5 * (row[0] + column[0]), 0.5 * (row[1] + column[1])
    cells = torch.stack([loss.similarity_cotangent(one) for one in similarity])
    own = own_cells(cells)
    positive = own[:, None] * tangent.diagonal()
    own.zero_()
    return positive, tangent.row_sums(cells) + tangent.column_sums(cells)


def _softmax_side(
    similarity: Tensor, probability: Tensor, tangent: FactoredTangent, removal: str
) -> tuple[Tensor, Tensor]:
    """One direction of the softmax loss, as ``ClipLoss`` takes it; ``probability`` is overwritten."""
    rivals, own = probability, tangent.diagonal()
    own_share, left = take_out_own(rivals)
    rivals_mean = tangent.row_sums(rivals)  # Σ_{j≠n} P_nj Ṡ_nj
    positive = rivals_mean - left[:, None] * own  # m_n − Ṡ_nn
    m = rivals_mean + own_share[:, None] * own
    # Cells where Ṡ_in − m_i or 1 − P_in would cancel are taken out, and added with the mean over the rest of their row.
    taken = []
    for batch in range(len(rivals)):
        hard = hard_negatives(similarity[batch], rivals[batch], own_share[batch])
        if hard is not None:
            rivals[batch, hard.row, hard.column] = 0.0
            some = tangent.of_rows(batch, hard.row)
            change = hard.share * (some.entries(hard.column) - some.row_sums(hard.rest))
            taken.append((batch, hard.column, change if removal == "exact" else hard.left * change))
    weights = rivals / (1.0 - rivals) if removal == "exact" else rivals
    negative = tangent.column_sums(weights) - m @ weights  # Σ_{i≠n} w_in (Ṡ_in − m_i)
    for batch, column, change in taken:
        negative[batch].index_add_(1, column, change)
    return positive, negative


def _seen(vectors: Tensor, inputs: Tensor) -> Tensor:
    """Products of vectors (V, F) with the inputs of all batches (G, B, F), (G, V, B)."""
    return torch.unflatten(vectors @ inputs.flatten(0, 1).T, 1, inputs.shape[:2]).transpose(0, 1)


def _by_owner(products: Tensor, owner: Tensor, count: int) -> Tensor:
    """(..., p, B) summed to (..., K, B)."""
    shape = (*products.shape[:-2], count, products.shape[-1])
    return products.new_zeros(shape).index_add_(-2, owner, products)
