"""The groups of pairs that the fidelity benchmark removes."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

KINDS = ("random", "harmful", "random", "valuable")
"""Groups that are removed, in turn."""
SMALLEST_GROUP, LARGEST_GROUP = 0.01, 0.10
"""Shares of the pairs that a group removes."""


def choose_groups(values: Tensor, subsets: int, seed: int) -> tuple[Tensor, np.ndarray]:
    """Random, most harmful and most valuable groups, each kind over the same range of sizes.

    Args:
        values: (N,) by which harm and value are ranked
        subsets: groups in all
        seed: of the random ones

    Returns:
        bool (G, N), and each group's kind (G,)
    """
    if subsets < len(KINDS):
        raise ValueError(f"{subsets} subsets are too few: at least {len(KINDS)} are needed for the kinds of groups.")
    count = len(values)
    generator = torch.Generator().manual_seed(seed)
    ranked = {"harmful": values.argsort(), "valuable": values.argsort(descending=True)}
    kinds = np.array(KINDS)[np.arange(subsets) % len(KINDS)]
    groups = torch.zeros(subsets, count, dtype=torch.bool)
    for kind in set(KINDS):
        rows = np.flatnonzero(kinds == kind)
        for row, share in zip(rows, np.linspace(SMALLEST_GROUP, LARGEST_GROUP, len(rows))):
            order = ranked[kind] if kind in ranked else torch.randperm(count, generator=generator)
            groups[row, order[: max(1, round(share * count))]] = True
    return groups, kinds
