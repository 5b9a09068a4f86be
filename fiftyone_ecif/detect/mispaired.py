"""Suspected pairs that are alike in what they say and in what they show: local excess of pairs of topics."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import hypergeom

LEVELS = (5, 8, 12, 20, 32, 50, 80, 128, 200, 320)
"""How many suspects count as near."""

WIDEST = 0.5
"""Share of the suspects that can count as near."""

MOST_SUSPECTS = 2_000
"""Suspects that are compared with each other, the most suspicious ones."""

EACH_DIRECTION = 3.0
"""Evidence, in nats, from which the reverse counts as well: about what one of twenty chance findings has."""


@dataclass(frozen=True)
class Mispairing:
    """Suspects whose images are alike and whose texts are alike, which chance would seldom do.

    Attributes:
        centre: the suspect that they are found around
        direct: int64 (M,), suspects with such an image and such a text
        reverse: int64 (K,), suspects with an image that suggests such a text, and a text that suits such an image
        evidence: nats
    """

    centre: int
    direct: np.ndarray
    reverse: np.ndarray
    evidence: float

    @property
    def rows(self) -> np.ndarray:
        """All of them, rising."""
        return np.union1d(self.direct, self.reverse)


def mispairings(shown: np.ndarray, said: np.ndarray, suspects: np.ndarray, error_rate: float) -> list[Mispairing]:
    """Around each suspect, the best-supported group of suspects that show the like of it and say the like of it.

    If wrong texts are drawn at random, what a suspect says tells nothing of what it shows: of the k suspects nearest to
    one in what they show, and of the l nearest in what they say, k l / K are expected to be the same by chance, with
    the hypergeometric distribution. The reverse pairs are counted likewise.

    Args:
        shown: (K, D) unit vectors, what the suspects' images suggest as a text
        said: (K, D) unit vectors, their texts, in the same space
        suspects: int64 (K,), their rows
        error_rate: of a chance finding among all that are looked at

    Returns:
        those with enough evidence, one around each suspect, the ones with the most evidence first
    """
    count = len(suspects) - 1  # beside the centre
    levels = np.array([level for level in LEVELS if level <= WIDEST * count])
    if not len(levels):
        return []
    # What one shows against what the others show and say, and likewise what it says.
    ranks = [_ranks(shown, shown), _ranks(said, said), _ranks(shown, said), _ranks(said, shown)]
    table = np.array([[_surprise(count, near, other) for other in levels] for near in levels], dtype=object)
    least = np.log(len(suspects) * len(levels) ** 2 / error_rate)
    found = []
    for centre in range(len(suspects)):
        shows, says, shows_said, says_shown = (rank[centre] for rank in ranks)
        direct, reverse = _counts(shows, says, levels), _counts(shows_said, says_shown, levels)
        nats = np.array([[(table[i, j][direct[i, j]], table[i, j][reverse[i, j]]) for j in range(len(levels))]
                         for i in range(len(levels))])  # fmt: skip
        nats[..., 1] *= nats[..., 1] >= EACH_DIRECTION
        i, j = np.unravel_index(nats.sum(2).argmax(), nats.shape[:2])
        if nats[i, j].sum() < least:
            continue
        within = (shows < levels[i]) & (says < levels[j])
        back = (shows_said < levels[i]) & (says_shown < levels[j]) & (nats[i, j, 1] > 0)
        within[centre] = True
        found.append(Mispairing(int(suspects[centre]), suspects[within], suspects[back], float(nats[i, j].sum())))
    return sorted(found, key=lambda each: (-each.evidence, each.centre))


def _ranks(these: np.ndarray, others: np.ndarray) -> np.ndarray:
    """For each of these (K, D), how many of the others are nearer than each; its own counts as the farthest; (K, K)."""
    likeness = these @ others.T
    np.fill_diagonal(likeness, -np.inf)
    ranks: np.ndarray = (-likeness).argsort(1, kind="stable").argsort(1, kind="stable")
    return ranks


def _counts(first: np.ndarray, second: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """How many have both ranks below each pair of levels; (L, L)."""
    near, other = (ranks[:, None] < levels for ranks in (first, second))
    counts: np.ndarray = near.T.astype(np.int64) @ other.astype(np.int64)
    return counts


def _surprise(count: int, first: int, second: int) -> np.ndarray:
    """−log P(X ≥ x) for x = 0, 1, …, of the overlap X of two random groups."""
    nats: np.ndarray = -hypergeom.logsf(np.arange(-1, min(first, second)), count, first, second)
    return nats
