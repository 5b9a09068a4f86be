"""Softmax over the rows of S where one entry may hold nearly the whole row (ECIF.md §2, §4).

A pair that a model matches well has P_nn within 1e-7 of 1, where 1 − P_nn has lost every digit that float32 has. No
function here subtracts such a probability from 1: what an entry leaves to the others is summed over the others.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


def own_cells(cells: Tensor, first: int = 0) -> Tensor:
    """The cells in which each row meets its own pair.

    Args:
        cells: (..., b, B), rows of a batch's matrix
        first: the pair that the first row belongs to

    Returns:
        (..., b), a view
    """
    return cells.diagonal(first, -2, -1)


def take_out_own(probability: Tensor, first: int = 0) -> tuple[Tensor, Tensor]:
    """Set P_nn to zero in place, so that only the rivals' probabilities remain.

    Args:
        probability: (..., b, B), each row a softmax
        first: the pair that the first row belongs to

    Returns:
        P_nn, and 1 − P_nn summed over the rivals, (..., b) each
    """
    own = own_cells(probability, first)
    share = own.clone()
    own.zero_()
    return share, probability.sum(-1)


def own_loss(similarity: Tensor, first: int = 0) -> Tensor:
    """−log P_nn = softplus(log Σ_{j≠n} exp S_nj − S_nn) of each row, differentiable.

    Args:
        similarity: (b, B), rows of S
        first: the pair that the first row belongs to

    Returns:
        (b,), in nats
    """
    own = own_cells(similarity, first)
    rivals = similarity.diagonal_scatter(torch.full_like(own, _least(similarity)), first)
    return -F.logsigmoid(own - rivals.logsumexp(1))


def log_complement(similarity: Tensor) -> Tensor:
    """log(1 − P_in) of every cell, (b, B), differentiable.

    At most one entry of a row exceeds ½, so only the largest one needs 1 − P from the rest of its row.
    """
    top = similarity.argmax(1, keepdim=True)
    rest = similarity.scatter(1, top, _least(similarity)).logsumexp(1, keepdim=True)
    plain = torch.log1p(-similarity.softmax(1).scatter(1, top, 0.0))
    return plain.scatter(1, top, F.logsigmoid(rest - similarity.gather(1, top)))


def complement(probability: Tensor) -> Tensor:
    """1 − P_in of every cell, (b, B), of rows that are a softmax each."""
    top = probability.argmax(1, keepdim=True)
    rest = probability.scatter(1, top, 0.0).sum(1, keepdim=True)
    return (1.0 - probability).scatter_(1, top, rest)


class HardNegatives(NamedTuple):
    """The cells (i, n), n ≠ i, that hold more than half of their row; a row has one at most.

    Attributes:
        row: int64 (R,), i
        column: int64 (R,), n
        share: (R,), P_in
        left: (R,), 1 − P_in
        rest: (R, B), the softmax of row i without n
    """

    row: Tensor
    column: Tensor
    share: Tensor
    left: Tensor
    rest: Tensor


def hard_negatives(similarity: Tensor, rivals: Tensor, own: Tensor) -> HardNegatives | None:
    """Find the cells where dividing by 1 − P_in, or Ṡ_in − m_i, would cancel.

    Args:
        similarity: (b, B), rows of S
        rivals: (b, B), their softmax with the own pairs taken out
        own: (b,), P_nn

    Returns:
        :class:`HardNegatives`, or None where there are none
    """
    row = (rivals.amax(1) > 0.5).nonzero().squeeze(1)
    if not len(row):
        return None
    share, column = rivals[row].max(1)
    left = rivals[row].scatter(1, column[:, None], 0.0).sum(1) + own[row]
    # The softmax is taken anew: what is left of the row may have vanished beside its largest entry.
    rest = similarity[row].scatter(1, column[:, None], -torch.inf).softmax(1)
    return HardNegatives(row, column, share, left, rest)


def _least(similarity: Tensor) -> float:
    """What stands for −∞: finite, so that a row of one pair has the derivative zero and not NaN."""
    return torch.finfo(similarity.dtype).min
