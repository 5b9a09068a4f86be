"""Contrastive losses as functions of the similarity matrix, and the roles of a pair in them (ECIF.md §1, §2)."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fiftyone_ecif.core.softmax_rows import (
    complement,
    hard_negatives,
    log_complement,
    own_cells,
    own_loss,
    take_out_own,
)


class Roles(NamedTuple):
    """What each pair of a batch contributes, or its derivative along tangents; each (..., B), in nats.

    Attributes:
        positive: as a positive, pos_n
        negative_first_order: as a negative of the others, by the derivative of its weight, neg_n
        negative_exact: as a negative of the others, by deleting it, negx_n
    """

    positive: Tensor
    negative_first_order: Tensor
    negative_exact: Tensor

    def negative(self, removal: str) -> Tensor:
        """The negative role under a removal form, ``"exact"`` or ``"first_order"``."""
        return {"exact": self.negative_exact, "first_order": self.negative_first_order}[removal]

    def value(self, removal: str) -> Tensor:
        """Both roles together."""
        return self.positive + self.negative(removal)


class ContrastiveLoss(ABC):
    """A batch's summed loss, which is its mean loss times B, as a function of S (B, B) whose rows are images.

    The loss has two directions, image to text and text to image: one is a sum over the rows of S, the other over the
    rows of Sᵀ. The methods ``half_…`` take one direction each. With ``dim`` 1 they are given rows (b, B) of S or of
    Sᵀ, the first of which belongs to pair ``first``; with ``dim`` 0 they are given the whole of S and take its columns.
    """

    def sum_loss(self, similarity: Tensor) -> Tensor:
        """The batch's loss, summed over its pairs, in nats; a differentiable scalar."""
        return self.half_loss(similarity, 1) + self.half_loss(similarity, 0)

    def similarity_cotangent(self, similarity: Tensor) -> Tensor:
        """∂(sum loss)/∂S, (B, B)."""
        return self.half_cotangent(similarity, 1) + self.half_cotangent(similarity, 0)

    def curvature_product(self, similarity: Tensor, tangents: Tensor) -> Tensor:
        """∂²(sum loss)/∂S² applied to Ṡ (K, B, B): the core of the Gauss-Newton product (ECIF.md §5)."""
        return self.half_curvature_product(similarity, tangents, 1) + self.half_curvature_product(
            similarity, tangents, 0
        )

    def sample_curvature_root(self, similarity: Tensor, samples: int, generator: torch.Generator) -> Tensor:
        """Random S̄ (samples, B, B) with E[S̄ S̄ᵀ] = ∂²(sum loss)/∂S², labels drawn from the model (Fisher samples)."""
        rows, columns = (self.half_curvature_root(side, samples, generator) for side in (similarity, similarity.T))
        return rows + columns.mT

    @abstractmethod
    def half_loss(self, similarity: Tensor, dim: int, first: int = 0) -> Tensor:
        """One direction of :meth:`sum_loss`."""

    @abstractmethod
    def half_cotangent(self, similarity: Tensor, dim: int, first: int = 0) -> Tensor:
        """One direction of :meth:`similarity_cotangent`, (b, B)."""

    @abstractmethod
    def half_curvature_product(self, similarity: Tensor, tangents: Tensor, dim: int) -> Tensor:
        """One direction of :meth:`curvature_product`, (K, b, B)."""

    @abstractmethod
    def half_curvature_root(self, similarity: Tensor, samples: int, generator: torch.Generator) -> Tensor:
        """One direction of :meth:`sample_curvature_root`, of rows, (samples, b, B)."""

    @abstractmethod
    def roles(self, similarity: Tensor) -> Roles:
        """pos_n, neg_n and negx_n of every pair of the batch, (B,) each (ECIF.md §2)."""

    def role_derivatives(self, similarity: Tensor, tangents: Tensor) -> Roles:
        """Derivatives of the roles along Ṡ (K, B, B), (K, B) each (ECIF.md §4)."""
        total = Roles(*tangents.new_zeros(len(Roles._fields), *tangents.shape[:-1]))
        for rows, row_tangents in ((similarity, tangents), (similarity.T, tangents.mT)):
            self.add_row_derivatives(rows, row_tangents, 0, total)
        return total

    def add_row_derivatives(self, similarity: Tensor, tangents: Tensor, first: int, total: Roles) -> None:
        """Add the part that some rows of S, or of Sᵀ, have in the derivatives of the roles along Ṡ.

        The rows are worked on a few at a time, so that everything computed from them stays in the processor's cache.

        Args:
            similarity: (b, B)
            tangents: (K, b, B)
            first: the pair that the first of these rows belongs to
            total: the batch's derivatives, (K, B) each, added to in place
        """
        together = max(1, _CACHED_CELLS[similarity.device.type == "cpu"] // (similarity.shape[1] * len(tangents)))
        for start in range(0, len(similarity), together):
            rows = slice(start, start + together)
            self._add_row_derivatives(similarity[rows], tangents[:, rows], first + start, total)

    @abstractmethod
    def _add_row_derivatives(self, similarity: Tensor, tangents: Tensor, first: int, total: Roles) -> None:
        """:meth:`add_row_derivatives` with all the rows at once."""

    @abstractmethod
    def deletion_cotangents(self, similarity: Tensor, groups: Tensor) -> Tensor:
        """∂(pos_E + negx_E)/∂S of groups E, bool (G, B), each deleted as a whole: (G, B, B) (ECIF.md §2, §7)."""


class ClipLoss(ContrastiveLoss):
    """open_clip's ClipLoss: ½ Σ_n [−log P_nn − log Q_nn], P and Q the softmax over rows and columns of S."""

    def half_loss(self, similarity: Tensor, dim: int, first: int = 0) -> Tensor:
        return 0.5 * own_loss(similarity if dim == 1 else similarity.T, first).sum()

    def half_cotangent(self, similarity: Tensor, dim: int, first: int = 0) -> Tensor:
        # ½ (P − I). A row sums to zero, and P_nn − 1 is taken from the rest of its row.
        result = 0.5 * similarity.softmax(dim)
        own = own_cells(result, first)
        own.zero_()
        own.copy_(-result.sum(dim))
        return result

    def half_curvature_product(self, similarity: Tensor, tangents: Tensor, dim: int) -> Tensor:
        # ½ P∘(Ṡ − m 1ᵀ),  m_i = Σ_j P_ij Ṡ_ij;  with Q and c_j = Σ_i Q_ij Ṡ_ij along columns. A row sums to zero, and
        # the cell t that holds most of it is taken from the rest: Ṡ_it − m_i cancels where P_it is nearly 1, and what
        # rounding left in the sum would be multiplied with all of Ṡ where Ṡ_i is nearly constant.
        others = similarity.softmax(dim)
        share, top = others.max(dim, keepdim=True)
        others.scatter_(dim, top, 0.0)
        weighted = others * tangents
        rest = weighted.sum(dim - 2, keepdim=True)
        index = top.expand_as(rest)
        at_top = tangents.gather(dim - 2, index)
        result = weighted.addcmul_(others, rest + share * at_top, value=-1.0)
        result.scatter_(dim - 2, index, -result.sum(dim - 2, keepdim=True))
        return result.mul_(0.5)

    def half_curvature_root(self, similarity: Tensor, samples: int, generator: torch.Generator) -> Tensor:
        # A row's curvature diag(P_i) − P_i P_iᵀ is the covariance of (one-hot − P_i) with a label drawn from P_i.
        probability = similarity.softmax(1)
        choice = torch.multinomial(probability, samples, replacement=True, generator=generator)
        drawn = complement(probability).gather(1, choice)
        result = (-probability).repeat(samples, 1, 1).scatter_(2, choice.T[..., None], drawn.T[..., None])
        return result.mul_(_ROOT_OF_HALF)

    def roles(self, similarity: Tensor) -> Roles:
        rows, columns = self._row_roles(similarity), self._row_roles(similarity.T)
        return Roles(*(0.5 * (row + column) for row, column in zip(rows, columns, strict=True)))

    @staticmethod
    def _row_roles(similarity: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """−log P_nn, Σ_{i≠n} P_in and −Σ_{i≠n} log(1 − P_in), (B,) each."""
        first_order = _off_diagonal(similarity.softmax(1)).sum(0)
        return own_loss(similarity), first_order, -_off_diagonal(log_complement(similarity)).sum(0)

    def _add_row_derivatives(self, similarity: Tensor, tangents: Tensor, first: int, total: Roles) -> None:
        # A pair is not a negative of itself: without P_ii, the sums over i below leave out i = n.
        rivals, own = similarity.softmax(1), own_cells(tangents, first)
        own_share, left = take_out_own(rivals, first)
        change = rivals * tangents  # products of matrices would be rounded to bfloat16 inside of torch.autocast
        rivals_mean = change.sum(-1)  # Σ_{j≠i} P_ij Ṡ_ij
        # m_n − Ṡ_nn = Σ_{j≠n} P_nj Ṡ_nj − (1 − P_nn) Ṡ_nn, which does not cancel where P_nn is nearly 1
        total.positive[:, first : first + len(rivals)].add_(rivals_mean - left * own, alpha=0.5)
        m = rivals_mean + own_share * own  # m_i = Σ_j P_ij Ṡ_ij
        change.addcmul_(rivals, m[..., None], value=-1.0)  # P_in (Ṡ_in − m_i)
        hard = hard_negatives(similarity, rivals, own_share)
        if hard is not None:
            # P_in (Ṡ_in − m_i) / (1 − P_in) = P_in (Ṡ_in − mean of Ṡ_i over the row without n)
            rest_mean = (hard.rest * tangents[:, hard.row]).sum(-1)
            of_hard = hard.share * (tangents[:, hard.row, hard.column] - rest_mean)
            change[:, hard.row, hard.column] = hard.left * of_hard
        total.negative_first_order.add_(change.sum(-2), alpha=0.5)
        exact = change.div_(rivals.neg_().add_(1.0))
        if hard is not None:
            exact[:, hard.row, hard.column] = of_hard
        total.negative_exact.add_(exact.sum(-2), alpha=0.5)

    def deletion_cotangents(self, similarity: Tensor, groups: Tensor) -> Tensor:
        rows, columns = self._row_deletions(similarity, groups), self._row_deletions(similarity.T, groups)
        return 0.5 * (rows + columns.mT)

    @staticmethod
    def _row_deletions(similarity: Tensor, groups: Tensor) -> Tensor:
        """∂/∂S of Σ_{n∈E} −log P_nn − Σ_{i∉E} log(1 − P_iE) with P_iE = Σ_{n∈E} P_in, (G, B, B).

        Row n ∈ E is P_n less one-hot n; row i ∉ E is P_in in the columns of E and −P_ij P_iE / (1 − P_iE) elsewhere.
        """
        probability = similarity.softmax(1)
        gone = groups.to(probability) @ probability.T  # P_iE, (G, B)
        left = (~groups).to(probability) @ probability.T  # 1 − P_iE, summed over what is left
        odds = gone / left.clamp_min(torch.finfo(left.dtype).tiny)
        result = probability * -odds[..., None]
        # Beside a hard negative in E, the rest of a row may have underflowed: its softmax is computed afresh.
        group, row = ((left < 0.5) & ~groups).nonzero(as_tuple=True)
        rest = similarity[row].masked_fill(groups[group], -torch.inf).softmax(1)
        result[group, row] = -gone[group, row, None] * rest
        group, member = groups.nonzero(as_tuple=True)
        result[group, :, member] = probability.T[member]
        rivals = _off_diagonal(probability)
        result[group, member] = rivals[member]
        result[group, member, member] = -rivals.sum(1)[member]
        return result


class SigLipLoss(ContrastiveLoss):
    """open_clip's SigLipLoss: Σ_ij −log σ(z_ij S_ij), z = 1 on the diagonal and −1 elsewhere.

    The loss is a sum over cells, so deleting a pair deletes its row and its column: both negative forms agree.
    """

    def half_loss(self, similarity: Tensor, dim: int, first: int = 0) -> Tensor:
        return 0.5 * self._cells(similarity, first).sum()

    def half_cotangent(self, similarity: Tensor, dim: int, first: int = 0) -> Tensor:
        result = 0.5 * similarity.sigmoid()  # −z σ(−z S) is σ(S) off the diagonal and −σ(−S) on it
        own_cells(result, first).copy_(-0.5 * (-own_cells(similarity, first)).sigmoid())
        return result

    def half_curvature_product(self, similarity: Tensor, tangents: Tensor, dim: int) -> Tensor:
        return 0.5 * similarity.sigmoid() * (-similarity).sigmoid() * tangents

    def half_curvature_root(self, similarity: Tensor, samples: int, generator: torch.Generator) -> Tensor:
        # Rows come first, so that a row's draws do not depend on how many rows are drawn together.
        probability = similarity.sigmoid()[:, None].expand(-1, samples, -1)
        drawn = torch.bernoulli(probability, generator=generator).bool()
        return torch.where(drawn, (-similarity).sigmoid()[:, None], -probability).transpose(0, 1) * _ROOT_OF_HALF

    @staticmethod
    def _cells(similarity: Tensor, first: int = 0) -> Tensor:
        """−log σ(z_ij S_ij)."""
        return -F.logsigmoid((-similarity).diagonal_scatter(own_cells(similarity, first), first))

    def roles(self, similarity: Tensor) -> Roles:
        cells = self._cells(similarity)
        rivals = _off_diagonal(cells)
        negative = rivals.sum(-1) + rivals.sum(-2)
        return Roles(own_cells(cells), negative, negative)

    def _add_row_derivatives(self, similarity: Tensor, tangents: Tensor, first: int, total: Roles) -> None:
        cells = 2.0 * self.half_cotangent(similarity, 1, first) * tangents
        own = own_cells(cells, first)
        # Every cell stands in one row of S and in one of Sᵀ, and each direction has half of it.
        total.positive[:, first : first + len(similarity)].add_(own, alpha=0.5)
        own.zero_()
        negative = cells.sum(-2)
        total.negative_first_order.add_(negative)
        total.negative_exact.add_(negative)

    def deletion_cotangents(self, similarity: Tensor, groups: Tensor) -> Tensor:
        cells = groups[:, :, None] | groups[:, None, :]
        return self.similarity_cotangent(similarity) * cells


LOSSES: dict[str, ContrastiveLoss] = {"clip": ClipLoss(), "siglip": SigLipLoss()}


_ROOT_OF_HALF = math.sqrt(0.5)

_CACHED_CELLS = {True: 1 << 17, False: 1 << 26}
"""How many cells of S are worked on together on a CPU (True) and on other devices."""


def _off_diagonal(matrix: Tensor) -> Tensor:
    """The matrix (..., B, B) with its diagonal set to zero, whatever stood there."""
    eye = torch.eye(matrix.shape[-1], dtype=torch.bool, device=matrix.device)
    return matrix.masked_fill(eye, 0.0)
