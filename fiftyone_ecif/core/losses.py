"""Contrastive losses as functions of the similarity matrix, and the roles of a pair in them (ECIF.md §1, §2)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


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
    """A batch's summed loss as a function of S (B, B): batch mean times B, rows are images.

    Both directions of a loss are sums over rows, of S and of Sᵀ. What ``half_…`` gives is one direction's: with
    ``dim`` 1 of rows (b, B) of S or of Sᵀ, of which the first is pair ``first``'s; with ``dim`` 0 of all columns of S.
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
        """Random S̄ (samples, B, B) with E[S̄ S̄ᵀ] = ∂²(sum loss)/∂S², the model's own labels drawn (Fisher sampling)."""
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
        """Add what some rows of S, or of Sᵀ, give to the derivatives of the roles along Ṡ.

        Both directions of a loss are sums over rows, so that rows can be had a few at a time; here they are taken so
        few together that what is computed of them stays in the processor's cache.

        Args:
            similarity: (b, B)
            tangents: (K, b, B)
            first: where in the batch the first of these rows is
            total: of the batch, (K, B) each, added to in place
        """
        together = max(1, _CACHED_CELLS[similarity.device.type == "cpu"] // (similarity.shape[1] * len(tangents)))
        for start in range(0, len(similarity), together):
            rows = slice(start, start + together)
            self._add_row_derivatives(similarity[rows], tangents[:, rows], first + start, total)

    @abstractmethod
    def _add_row_derivatives(self, similarity: Tensor, tangents: Tensor, first: int, total: Roles) -> None:
        """Like :meth:`add_row_derivatives`, all rows together."""

    @abstractmethod
    def deletion_cotangents(self, similarity: Tensor, index: Tensor) -> Tensor:
        """∂(pos_n + negx_n)/∂S for the pairs n in ``index`` (C,), shape (C, B, B)."""


class ClipLoss(ContrastiveLoss):
    """open_clip's ClipLoss: ½ Σ_n [−log P_nn − log Q_nn], P and Q the softmax over rows and columns of S."""

    def half_loss(self, similarity: Tensor, dim: int, first: int = 0) -> Tensor:
        at, own = _own_entries(similarity, first)
        return 0.5 * (similarity.logsumexp(dim).sum() - similarity[at, own].sum())

    def half_cotangent(self, similarity: Tensor, dim: int, first: int = 0) -> Tensor:
        # ½ (P − I)
        at, own = _own_entries(similarity, first)
        result = 0.5 * similarity.softmax(dim)
        result[at, own] -= 0.5
        return result

    def half_curvature_product(self, similarity: Tensor, tangents: Tensor, dim: int) -> Tensor:
        # ½ P∘(Ṡ − m 1ᵀ),  m_i = Σ_j P_ij Ṡ_ij;  with Q and c_j = Σ_i Q_ij Ṡ_ij along columns
        probability = similarity.softmax(dim)
        weighted = probability * tangents
        return 0.5 * (weighted - probability * weighted.sum(dim - 2, keepdim=True))

    def half_curvature_root(self, similarity: Tensor, samples: int, generator: torch.Generator) -> Tensor:
        # A row's curvature P_i∘(δ − P_i) is the covariance of (one-hot − P_i); rows and columns are drawn apart.
        probability = similarity.softmax(1)
        choice = torch.multinomial(probability, samples, replacement=True, generator=generator)
        return (F.one_hot(choice.T, probability.shape[1]).to(probability) - probability) * 0.5**0.5

    def roles(self, similarity: Tensor) -> Roles:
        rows, columns = _SoftmaxSide(similarity), _SoftmaxSide(similarity.T)
        return Roles(*(0.5 * (row + column) for row, column in zip(rows.values(), columns.values(), strict=True)))

    def _add_row_derivatives(self, similarity: Tensor, tangents: Tensor, first: int, total: Roles) -> None:
        at, own = _own_entries(similarity, first)
        probability = similarity.softmax(1)
        m = torch.einsum("ij,kij->ki", probability, tangents)  # m_i = Σ_j P_ij Ṡ_ij
        total.positive[:, own] += 0.5 * (m - tangents[:, at, own])
        # A pair is no negative of itself: n = i drops out of the sums over i below.
        probability[at, own] = 0.0
        change = (tangents - m[..., None]).mul_(probability)  # P_in (Ṡ_in − m_i)
        total.negative_first_order.add_(change.sum(-2), alpha=0.5)
        # Deleting candidate n from row i divides by 1 − P_in. A row has one entry with P_in > ½ at most, and it alone
        # is computed from the row without it; everywhere else 1 − P_in ≥ ½ and nothing can cancel (ECIF.md §2).
        hard = (probability.amax(1) > 0.5).nonzero().squeeze(1)
        top = probability[hard].argmax(1)
        largest = probability[hard, top]
        exact = change.div_(probability.neg_().add_(1.0))
        if len(hard):
            # (Ṡ_in − m_i) / (1 − P_in) = Ṡ_in − (mean of Ṡ_i over the row without n)
            rest = similarity[hard].scatter(1, top[:, None], -torch.inf).softmax(1)
            rest_mean = torch.einsum("ij,kij->ki", rest, tangents[:, hard])
            exact[:, hard, top] = largest * (tangents[:, hard, top] - rest_mean)
        total.negative_exact.add_(exact.sum(-2), alpha=0.5)

    def deletion_cotangents(self, similarity: Tensor, index: Tensor) -> Tensor:
        rows = _SoftmaxSide(similarity).deletion_cotangents(index)
        columns = _SoftmaxSide(similarity.T).deletion_cotangents(index)
        return 0.5 * (rows + columns.mT)


class _SoftmaxSide:
    """One direction of the softmax loss, Σ_i −log P_ii with P the softmax over the rows of S.

    Deleting candidate n from row i divides by 1 − P_in. Only a row's largest entry can have P_in > ½, so that entry
    alone is computed from the row without it; everywhere else 1 − P_in ≥ ½ and nothing can cancel (ECIF.md §2).
    """

    def __init__(self, similarity: Tensor) -> None:
        self.log_probability = similarity.log_softmax(1)
        self.probability = self.log_probability.exp()
        self.top = similarity.argmax(1, keepdim=True)
        # Row i without its largest entry: its share of the row, and its own softmax P^(−top).
        rest = similarity.scatter(1, self.top, -torch.inf)
        self.log_rest = rest.logsumexp(1, keepdim=True) - similarity.logsumexp(1, keepdim=True)
        self.rest_probability = rest.softmax(1).nan_to_num()  # a batch of one pair has nothing left

    def log_complement(self) -> Tensor:
        """log(1 − P_in), (B, B)."""
        plain = torch.log1p(-self.probability.scatter(1, self.top, 0.0))
        return plain.scatter(1, self.top, self.log_rest)

    def values(self) -> tuple[Tensor, Tensor, Tensor]:
        """−log P_nn, Σ_{i≠n} P_in and −Σ_{i≠n} log(1 − P_in), (B,) each."""
        positive = -self.log_probability.diagonal()
        first_order = _off_diagonal(self.probability).sum(0)
        exact = -_off_diagonal(self.log_complement()).sum(0)
        return positive, first_order, exact

    def deletion_cotangents(self, index: Tensor) -> Tensor:
        """∂/∂S of −log P_nn − Σ_{i≠n} log(1 − P_in), (C, B, B): rows i ≠ n are P_in (δ_jn − P^(−n)_ij)."""
        count, size = len(index), len(self.probability)
        own = F.one_hot(index, size).to(self.probability)  # (C, B): 1 at n
        column = self.probability[:, index].T  # P_in, (C, B)
        is_top = self.top.squeeze(1)[None, :] == index[:, None]  # (C, B): n is row i's largest
        complement = torch.where(is_top, torch.ones_like(column), 1.0 - column)
        without = self.probability / complement[:, :, None]
        without = torch.where(is_top[:, :, None], self.rest_probability, without)
        without = without * (1.0 - own)[:, None, :]
        result = column[:, :, None] * (own[:, None, :] - without)
        result[torch.arange(count, device=index.device), index] = self.probability[index] - own
        return result


class SigLipLoss(ContrastiveLoss):
    """open_clip's SigLipLoss: Σ_ij −log σ(z_ij S_ij), z = 1 on the diagonal and −1 elsewhere.

    The loss is a sum over cells, so deleting a pair deletes its row and its column: both negative forms agree.
    """

    def half_loss(self, similarity: Tensor, dim: int, first: int = 0) -> Tensor:
        return 0.5 * self._cells(similarity, first).sum()

    def half_cotangent(self, similarity: Tensor, dim: int, first: int = 0) -> Tensor:
        at, own = _own_entries(similarity, first)
        result = 0.5 * similarity.sigmoid()  # −z σ(−z S) is σ(S) off the diagonal and σ(S) − 1 on it
        result[at, own] -= 0.5
        return result

    def half_curvature_product(self, similarity: Tensor, tangents: Tensor, dim: int) -> Tensor:
        probability = similarity.sigmoid()
        return 0.5 * probability * (1.0 - probability) * tangents

    def half_curvature_root(self, similarity: Tensor, samples: int, generator: torch.Generator) -> Tensor:
        probability = similarity.sigmoid()[:, None].expand(-1, samples, -1)  # rows first: a row's draws are its own
        return (torch.bernoulli(probability, generator=generator) - probability).transpose(0, 1) * 0.5**0.5

    @staticmethod
    def _cells(similarity: Tensor, first: int = 0) -> Tensor:
        """−log σ(z_ij S_ij)."""
        at, own = _own_entries(similarity, first)
        return F.softplus(similarity).index_put((at, own), F.softplus(-similarity[at, own]))

    def roles(self, similarity: Tensor) -> Roles:
        return self._roles(self._cells(similarity))

    def _add_row_derivatives(self, similarity: Tensor, tangents: Tensor, first: int, total: Roles) -> None:
        at, own = _own_entries(similarity, first)
        cells = 2.0 * self.half_cotangent(similarity, 1, first) * tangents
        total.positive[:, own] += 0.5 * cells[:, at, own]  # every cell is in a row of S and in one of Sᵀ
        cells[:, at, own] = 0.0
        negative = cells.sum(-2)
        total.negative_first_order.add_(negative)
        total.negative_exact.add_(negative)

    def deletion_cotangents(self, similarity: Tensor, index: Tensor) -> Tensor:
        own = F.one_hot(index, len(similarity)).bool()
        cells = own[:, :, None] | own[:, None, :]
        return self.similarity_cotangent(similarity) * cells

    @staticmethod
    def _roles(cells: Tensor) -> Roles:
        """Per-pair sums of a quantity that belongs to cells, (..., B, B)."""
        off_diagonal = _off_diagonal(cells)
        negative = off_diagonal.sum(-1) + off_diagonal.sum(-2)
        return Roles(cells.diagonal(dim1=-2, dim2=-1), negative, negative)


LOSSES: dict[str, ContrastiveLoss] = {"clip": ClipLoss(), "siglip": SigLipLoss()}


_CACHED_CELLS = {True: 1 << 17, False: 1 << 26}
"""Cells of S that are worked on together, on a CPU and elsewhere."""


def _own_entries(similarity: Tensor, first: int) -> tuple[Tensor, Tensor]:
    """Where rows (b, B) that begin at pair ``first`` hold their own pair's similarity: rows and columns."""
    at = torch.arange(len(similarity), device=similarity.device)
    return at, at + first


def _off_diagonal(matrix: Tensor) -> Tensor:
    """The matrix (..., B, B) with its diagonal set to zero, whatever stood there."""
    eye = torch.eye(matrix.shape[-1], dtype=torch.bool, device=matrix.device)
    return matrix.masked_fill(eye, 0.0)
