"""Words that stand for each other: texts fit their images better once the one is put for the other."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from fiftyone_ecif.detect.chance import above_half
from fiftyone_ecif.detect.slice_candidates import Candidates

MOST_WORDS = 2_000
"""Words that are compared with each other, the most frequent ones."""

TRIED = 24
"""Exchanges that are undone to see whether the texts fit better then, the most promising ones."""

TOGETHER = 0.1
"""Share of the texts with the rarer word that may have both, for the two to be different things."""

LEAST_SHARE = 0.7
"""Share of the texts with either word that have to fit better with the other one: an exchange spares few."""


@dataclass(frozen=True)
class Exchange:
    """Two words that stand for each other.

    Attributes:
        names: the two
        rows: int64 (M,), pairs whose text has one of them and would fit better with the other one
        share: of the pairs with one of them
        evidence: nats
    """

    names: tuple[str, str]
    rows: np.ndarray
    share: float
    evidence: float


def exchanged_words(
    image: np.ndarray,
    text: np.ndarray,
    texts: Sequence[str],
    single: Candidates,
    embed: Callable[[list[str]], Tensor],
    error_rate: float,
) -> list[Exchange]:
    """Pairs of words of which the images fit the wrong one.

    Where texts are right, putting another word in makes most of them fit worse, or as often worse as better where the
    two mean the same. That nearly all texts with one of two words fit better with the other is an error's work. Which
    words to try is found by the words alone: the images of either fit the other one better.

    Args:
        image: (N, D) unit vectors
        text: (N, D) unit vectors
        texts: N
        single: groups of texts with a word in common
        embed: gives unit vectors (M, D) for M texts
        error_rate: of a chance finding among all pairs of words

    Returns:
        exchanges with enough evidence, the ones with the most first
    """
    sizes = np.asarray(single.members.sum(1)).ravel()
    single = single.of(np.sort(np.argsort(-sizes, kind="stable")[:MOST_WORDS]))
    if len(single) < 2:
        return []
    least = np.log(len(single) * (len(single) - 1) / 2 / error_rate)
    found = []
    for pair in _promising(image, embed(single.names).numpy(), single):
        first, second = (single.names[number] for number in pair)
        has = single.members[list(pair)].toarray().sum(0)
        rows = np.flatnonzero(has == 1)
        undone = embed([exchanged(texts[row], first, second) for row in rows.tolist()]).numpy()
        better = (image[rows] * undone).sum(1) > (image[rows] * text[rows]).sum(1)
        evidence = float(above_half(np.array(len(rows)), better.sum()))
        if better.mean() >= LEAST_SHARE and evidence >= least:
            found.append(Exchange((first, second), rows[better], float(better.mean()), evidence))
    return sorted(found, key=lambda each: (-each.evidence, each.names))


def exchanged(text: str, first: str, second: str) -> str:
    """A text in which two words stand for each other."""
    other = {first: second, second: first}
    return re.sub(rf"\b({first}|{second})\b", lambda found: other[found[0].lower()], text, flags=re.IGNORECASE)


def _promising(image: np.ndarray, word: np.ndarray, single: Candidates) -> list[tuple[int, int]]:
    """Pairs of words whose images fit the other one better, in both directions; those with the most evidence.

    How well an image fits a word is their similarity, standardised over all images.
    """
    fit = image @ word.T
    fit = (fit - fit.mean(0)) / np.maximum(fit.std(0), 1e-12)
    total, count = np.zeros((len(single), len(single))), np.zeros((len(single), len(single)))
    has = single.members.T.tocsr()
    for own in range(len(single)):
        rows = single.rows(own)
        others = 1.0 - has[rows].toarray()
        total[own] = ((fit[rows] > fit[rows, own][:, None]) * others).sum(0)
        count[own] = others.sum(0)
    sizes = np.asarray(single.members.sum(1)).ravel()
    apart = (single.members @ has).toarray() <= TOGETHER * np.minimum.outer(sizes, sizes)
    share = total / np.maximum(count, 1.0)
    both = apart & (np.minimum(share, share.T) > 0.5)
    evidence = np.triu(np.where(both, above_half(count + count.T, total + total.T), 0.0), 1)
    best = np.argsort(-evidence, axis=None, kind="stable")[:TRIED]
    return [divmod(int(place), len(single)) for place in best if evidence.flat[place] > 0]
