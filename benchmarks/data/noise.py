"""Planted noise: captions moved to a wrong class, and the record of which."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from benchmarks.data.pairs import PairTable, write_captions

CONFUSABLE_FASHION = (
    ("T-shirt", "shirt"),
    ("pullover", "coat"),
    ("sneaker", "ankle boot"),
    ("dress", "coat"),
    ("sandal", "sneaker"),
)


def swap_uniform(table: PairTable, rate: float, seed: int) -> tuple[list[str], np.ndarray]:
    """Give a share of the pairs the caption of another class, every wrong class equally likely.

    Args:
        table: pairs whose captions come from templates
        rate: share of the pairs to swap, 0..1
        seed: of the random choice

    Returns:
        the N captions, and (N,) bool, True where the caption was swapped
    """
    rng = np.random.default_rng(seed)
    planted = _choose(np.ones(len(table), dtype=bool), round(rate * len(table)), rng)
    shift = rng.integers(1, len(table.class_names), size=len(table))
    wrong = (table.labels + shift) % len(table.class_names)
    return _rewrite(table, planted, wrong, rng), planted


def swap_confusable(
    table: PairTable, rate: float, seed: int, confusable: Sequence[tuple[str, str]] = CONFUSABLE_FASHION
) -> tuple[list[str], np.ndarray]:
    """Give a share of the pairs the caption of a class that looks alike.

    Args:
        table: pairs whose captions come from templates
        rate: share of all pairs to swap, 0..1; only pairs of confusable classes are swapped
        seed: of the random choice
        confusable: pairs of class names, used both ways; a class in several pairs draws among them

    Returns:
        the N captions, and (N,) bool, True where the caption was swapped

    Raises:
        ValueError: if a class name is unknown, or fewer pairs than asked for belong to confusable classes
    """
    rng = np.random.default_rng(seed)
    partners: dict[int, list[int]] = {}
    for first, second in confusable:
        for name in (first, second):
            if name not in table.class_names:
                raise ValueError(f"There is no class '{name}'; the classes are {', '.join(table.class_names)}.")
        a, b = table.class_names.index(first), table.class_names.index(second)
        partners.setdefault(a, []).append(b)
        partners.setdefault(b, []).append(a)

    planted = _choose(np.isin(table.labels, list(partners)), round(rate * len(table)), rng)
    wrong = table.labels.copy()
    for row in np.flatnonzero(planted):
        wrong[row] = rng.choice(partners[table.labels[row]])
    return _rewrite(table, planted, wrong, rng), planted


def _choose(eligible: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """A mask (N,) with ``count`` True among the eligible rows."""
    rows = np.flatnonzero(eligible)
    if count > len(rows):
        raise ValueError(f"{count} pairs are to be swapped, but only {len(rows)} can be; lower the rate.")
    planted: np.ndarray = np.zeros(len(eligible), dtype=bool)
    planted[rng.choice(rows, size=count, replace=False)] = True
    return planted


def _rewrite(table: PairTable, planted: np.ndarray, wrong: np.ndarray, rng: np.random.Generator) -> list[str]:
    """The captions with those of planted rows rewritten for their wrong class."""
    swapped = write_captions(wrong, table.class_names, table.templates, rng)
    return [new if bad else old for new, old, bad in zip(swapped, table.captions, planted)]
