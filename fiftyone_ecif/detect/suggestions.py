"""Better texts for images, among the texts of the dataset, and how likely each of them is right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fiftyone_ecif.core import Head, Pairs
from fiftyone_ecif.detect.association import Cells, associate
from fiftyone_ecif.detect.text_fit import likeliest_scales, text_fit

MOST_SUGGESTED = 5
"""Texts that are suggested for an image at most."""

LEAST_SUGGESTED = 0.02
"""Probability below which a text is not suggested."""

LEAST_SUSPECTED = 0.05
"""Misalignment from which another image may get the text of a pair."""

WEIGHED = 32
"""Texts that are weighed one by one for an image; the others are weighed together."""

LEAST_DOUBT = 1e-3
"""Probability of being wrong, and of being right, that is left to every pair."""

CHUNK = 1024
"""Images that are compared with the texts together."""


@dataclass(frozen=True)
class Suggestions:
    """Texts for M images.

    Attributes:
        text: int64 (M, 5), indices of texts, the likeliest first
        probability: (M, 5), that the text belongs to the image; 0 where there are fewer texts
        own: (M,), that the text which the image has belongs to it
    """

    text: np.ndarray
    probability: np.ndarray
    own: np.ndarray


def suggest(
    pairs: Pairs,
    heads: Sequence[Head],
    fold: Tensor,
    misalignment: np.ndarray,
    place: np.ndarray,
    rows: np.ndarray,
    seed: int = 0,
) -> Suggestions:
    """The texts that probably belong to some images.

    A text is the likelier the better it fits the image, by a head that was not fitted on the pair and by the texts of
    the nearest images (:mod:`~fiftyone_ecif.detect.text_fit`), and the less likely the image that has it keeps it: it
    goes to one other image then (:func:`~fiftyone_ecif.detect.association.associate`). Unless texts are shared: of a
    text that k images have by right, k − D may be right for others, with D by :func:`discount`. So unique captions are
    exchanged among the suspects, and a label may be right for any image.

    Args:
        pairs: the features of the N pairs
        heads: of the cross-fit, one per fold
        fold: int64 (N,), the fold that each pair is in
        misalignment: (N,), of each pair
        place: int64 (N,), which of the C distinct texts each pair has, each of some pair
        rows: int64 (M,), the pairs to find texts for
        seed: of the samples that are drawn

    Returns:
        :class:`Suggestions`
    """
    doubt = np.clip(misalignment, LEAST_DOUBT, 1.0 - LEAST_DOUBT)
    suspected = misalignment >= LEAST_SUSPECTED
    asked = np.union1d(np.flatnonzero(suspected), rows)
    cells = _cells(pairs, heads, fold, doubt, place, asked, suspected[asked], seed)
    found = associate(cells)
    # Equally likely texts in the order of the texts, so that the order of the pairs decides nothing.
    order = np.lexsort((cells.column, -found.probability, cells.row))
    order = order[found.probability[order] >= LEAST_SUGGESTED]
    rank = np.arange(len(order)) - np.searchsorted(cells.row[order], cells.row[order])
    order, rank = order[rank < MOST_SUGGESTED], rank[rank < MOST_SUGGESTED]
    text = np.zeros((len(asked), MOST_SUGGESTED), dtype=np.int64)
    probability = np.zeros((len(asked), MOST_SUGGESTED))
    text[cells.row[order], rank], probability[cells.row[order], rank] = cells.column[order], found.probability[order]
    chosen = np.searchsorted(asked, rows)
    return Suggestions(text[chosen], probability[chosen], found.own[chosen])


def discount(counts: np.ndarray) -> float:
    """D = n1 / (n1 + 2 n2), with n1 texts that occur once and n2 that occur twice: how much of a count is its own.

    1 where all texts are unique, and 0 where all occur often (absolute discounting: Ney, Essen & Kneser, Computer
    Speech and Language 8, 1994).

    Args:
        counts: (C,), how many pairs have each text
    """
    once, twice = int((counts == 1).sum()), int((counts == 2).sum())
    return once / (once + 2 * twice) if once else 0.0


def _cells(
    pairs: Pairs,
    heads: Sequence[Head],
    fold: Tensor,
    doubt: np.ndarray,
    place: np.ndarray,
    asked: np.ndarray,
    frees: np.ndarray,
    seed: int,
) -> Cells:
    """The texts that each image may get, by the head that was not fitted on it."""
    counts, own = np.bincount(place), place[asked]
    shared = np.maximum(np.bincount(place, 1.0 - doubt) - discount(counts), 0.0)
    shared /= len(place)
    looking = doubt[asked] * frees
    free = np.bincount(own, looking, len(counts))
    offered = np.flatnonzero(free + shared > 0.0)
    if not len(offered):
        offered = np.arange(len(counts))  # none of which can be had
    fits, members, of_pair = [], [], torch.from_numpy(place)
    right, everyone = torch.from_numpy(1.0 - doubt).float(), torch.from_numpy(asked)
    for number, head in enumerate(heads):
        # A head was fitted on the fold of its number, and pairs of other folds had no influence on it.
        members.append((fold[everyone] != number).nonzero().squeeze(1))
        held_out = (fold != number).nonzero().squeeze(1)
        fits.append(text_fit(pairs, head, everyone[members[-1]], held_out, of_pair, right, seed))
    scales = likeliest_scales(fits)
    found: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    row_rest, column_rest = np.zeros((2, len(asked))), np.zeros(len(counts))
    of_free = np.stack([free, shared])[:, offered]
    for fit, member in zip(fits, members, strict=True):
        images, texts = fit.ratios(scales)
        texts = texts[torch.from_numpy(offered)]
        for part, some in zip(torch.split(member, CHUNK), torch.split(images, CHUNK), strict=True):
            rows = part.numpy()
            ratio = np.where(own[rows, None] == offered, 0.0, (some @ texts.T).exp().double().numpy())
            weighed = ratio * (of_free / of_free.sum(1, keepdims=True).clip(LEAST_DOUBT)).sum(0)
            cells = np.argpartition(-weighed, min(WEIGHED, len(offered)) - 1, axis=1)[:, :WEIGHED]
            kept = np.take_along_axis(ratio, cells, 1)
            found.append((np.repeat(rows, kept.shape[1]), offered[cells.ravel()], kept.ravel()))
            np.put_along_axis(ratio, cells, 0.0, 1)
            row_rest[:, rows] = of_free @ ratio.T
            column_rest[offered] += looking[rows] @ ratio
    row, column, ratios = (np.concatenate(parts) for parts in zip(*found, strict=True))
    there = ratios > 0.0
    odds = (1.0 - doubt[asked]) / doubt[asked]
    return Cells(row[there], column[there], ratios[there], own, odds, frees, shared, row_rest, column_rest)
