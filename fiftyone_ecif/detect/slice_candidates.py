"""Groups of pairs that might share an error: by what pairs have in common, whoever is suspected among them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse
from sklearn.cluster import KMeans
from sklearn.feature_extraction.text import CountVectorizer

LONGEST_PHRASE = 3
"""Words of a phrase at most."""

MOST_COMMON = 0.5
"""Share of the pairs above which what they have in common singles nothing out."""

MOST_PHRASES = 20_000
"""Words and phrases that are looked at, the most frequent ones."""

CLUSTERS = (2, 4, 8, 16, 32, 64, 128)
"""Numbers of clusters, so that there are wide and narrow ones."""

MOST_CLUSTERED = 20_000
"""Pairs that the centres of clusters are fitted on."""

NUMBER = "#"
"""What stands for every number, so that numbered captions are alike."""


@dataclass(frozen=True)
class Candidates:
    """Groups of pairs.

    Attributes:
        kinds: M, what the pairs of each group have in common
        names: M, what each is called
        members: float (M, N), sparse, 1 where a pair is in a group
    """

    kinds: list[str]
    names: list[str]
    members: sparse.csr_matrix

    def __len__(self) -> int:
        return len(self.names)

    def of(self, chosen: np.ndarray) -> Candidates:
        """Some of the groups, by a mask (M,) or their numbers."""
        rows = np.arange(len(self))[chosen]
        return Candidates([self.kinds[row] for row in rows], [self.names[row] for row in rows], self.members[rows])

    def rows(self, group: int) -> np.ndarray:
        """The pairs of a group, int64, rising."""
        return np.sort(self.members[group].indices).astype(np.int64)

    @classmethod
    def joined(cls, parts: Iterable[Candidates], count: int) -> Candidates:
        """Several lists of groups of the same ``count`` pairs as one."""
        kinds: list[str] = []
        names: list[str] = []
        members = [sparse.csr_matrix((0, count))]
        for part in parts:
            kinds += part.kinds
            names += part.names
            members.append(part.members)
        return cls(kinds, names, sparse.vstack(members, format="csr"))


def words(text: str) -> list[str]:
    """A text's words in their order, in small letters; every number is :data:`NUMBER`."""
    return re.findall(rf"{NUMBER}|[^\W\d_]+", re.sub(r"\d+", NUMBER, text.lower()))


def shared_phrases(texts: Sequence[str], least: int) -> Candidates:
    """Texts that have a word, or two or three in a row, in common.

    Args:
        texts: N
        least: texts of a group

    Returns:
        groups of the kind "words"
    """
    counter = CountVectorizer(
        analyzer=phrases, binary=True, dtype=np.float64, min_df=least,
        max_df=MOST_COMMON, max_features=MOST_PHRASES,
    )  # fmt: skip
    try:
        members = counter.fit_transform(texts).T.tocsr()
    except ValueError:  # no word is in so many texts
        return Candidates.joined([], len(texts))
    names = counter.get_feature_names_out().tolist()
    return Candidates(["words"] * len(names), names, members)


def phrases(text: str) -> list[str]:
    """A text's words, and every two and three in a row."""
    row = words(text)
    return [
        " ".join(row[start : start + length])
        for length in range(1, LONGEST_PHRASE + 1)
        for start in range(len(row) - length + 1)
    ]


def shared_values(kind: str, values: Sequence[str | Sequence[str] | None], least: int, prefix: str = "") -> Candidates:
    """Pairs that have a value in common.

    Args:
        kind: what the values are
        values: N; a pair may have several, or none
        least: pairs of a group
        prefix: of the groups' names, before the value

    Returns:
        groups of this kind
    """
    several = [[value] if isinstance(value, str) else sorted(set(value or ())) for value in values]
    known = sorted({value for each in several for value in each if value})
    place = {value: number for number, value in enumerate(known)}
    found_in = [(place[value], row) for row, each in enumerate(several) for value in each if value]
    groups, rows = zip(*found_in, strict=True) if found_in else ((), ())
    members = sparse.csr_matrix((np.ones(len(rows)), (groups, rows)), (len(known), len(values)))
    sizes = np.asarray(members.sum(1)).ravel()
    found = Candidates([kind] * len(known), [f"{prefix}{value}" for value in known], members)
    return found.of((sizes >= least) & (sizes <= MOST_COMMON * len(values)))


def shared_folders(filepaths: Sequence[str], least: int) -> Candidates:
    """Pairs whose files lie in a folder or below it, of the kind "folder"; so folders within folders have their own."""
    parts = [re.split(r"[/\\]", path)[:-1] for path in filepaths]
    deepest = max(map(len, parts), default=0)
    levels = [
        ["/".join(part[:depth]) if len(part) >= depth else None for part in parts] for depth in range(1, deepest + 1)
    ]
    return Candidates.joined([shared_values("folder", level, least) for level in levels], len(filepaths))


def clusters(kind: str, embeddings: np.ndarray, least: int) -> Candidates:
    """Pairs that lie together, in few wide and in many narrow clusters (k-means).

    Args:
        kind: what lies together, "images" or "texts"
        embeddings: (N, D) unit vectors
        least: pairs of a group; its mean where a number of clusters is tried at all

    Returns:
        groups of this kind, named by numbers
    """
    order = np.lexsort(embeddings.T[::-1])  # or the order of the pairs would choose the centres
    fitted = embeddings[order][:: -(-len(order) // MOST_CLUSTERED)]
    most = min(len(np.unique(fitted, axis=0)), len(embeddings) // least)
    found = []
    for number in CLUSTERS:
        if number <= most:
            labels = KMeans(number, n_init=1, random_state=0).fit(fitted).predict(embeddings)
            found.append(shared_values(kind, [f"{label + 1} of {number}" for label in labels], least))
    return Candidates.joined(found, len(embeddings))
