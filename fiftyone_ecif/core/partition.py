"""Seeded random partitions of the pairs into batches, one per round (ECIF.md §1)."""

from __future__ import annotations

import torch
from torch import Tensor


def partition(pairs: int, batch_size: int, seed: int) -> list[Tensor]:
    """One random partition of the pairs into batches whose sizes differ by at most one.

    Args:
        pairs: number of pairs N
        batch_size: the largest batch B
        seed: of the permutation

    Returns:
        the batches: int64 index tensors that together hold every pair once

    Raises:
        ValueError: if there are fewer than two pairs or the batch is smaller than two
    """
    if pairs < 2 or batch_size < 2:
        raise ValueError(
            f"A contrastive loss compares pairs: it needs at least 2 pairs and batches of at least 2, "
            f"not {pairs} pairs in batches of {batch_size}."
        )
    order = torch.randperm(pairs, generator=torch.Generator().manual_seed(seed))
    return list(order.tensor_split(-(-pairs // batch_size)))


def partitions(pairs: int, batch_size: int, rounds: int, seed: int) -> list[list[Tensor]]:
    """``rounds`` independent partitions; each depends on the seed and its number alone, not on how many there are."""
    if rounds < 1:
        raise ValueError(f"rounds must be at least 1, not {rounds}.")
    return [partition(pairs, batch_size, seed * 1_000_003 + index) for index in range(rounds)]


def without(rounds: list[list[Tensor]], removed: Tensor) -> list[list[Tensor]]:
    """The same partitions without the pairs in ``removed`` (bool, (N,)); batches that end up empty are dropped."""
    kept = [[batch[~removed[batch]] for batch in batches] for batches in rounds]
    return [[batch for batch in batches if len(batch)] for batches in kept]
