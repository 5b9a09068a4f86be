"""Planted recurring errors: groups of wrong captions that share a cause, and the record of which ones do."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from benchmarks.data.pairs import PairTable

ErrorKind = Literal["template", "folder", "exchanged words", "one caption", "exchanged categories"]
ERROR_KINDS: tuple[ErrorKind, ...] = get_args(ErrorKind)

TEMPLATES = (
    "untitled drawing {number}",
    "page {number} of the collection",
    "scan {number}, final version",
    "image from the archive: {other}",
    "{other} (stock picture, free to use)",
    "no description, see file {number}",
)
"""What a script writes in place of a caption; ``{other}`` is that of another pair."""

FOLDERS = 12
"""Folders that the pairs lie in, drawn at random."""

WRONG_IN_FOLDER = 0.8
"""Share of a bad folder's captions that are wrong."""

RANDOM_SWAPS = 0.05
"""Share of the pairs whose captions change places besides, without any system."""

LEAST_WORD = 4
"""Letters of a word that may be exchanged."""

OF_ONE_CATEGORY = 0.7
"""Share of a word's pairs that are in one category: such words say what is to be seen."""

SMALLEST = 20
"""Pairs of an error below which no smaller one is tried."""

NEAR_SIZES = 6
"""Categories that two are drawn from, those nearest to the wanted size."""


@dataclass(frozen=True)
class Planted:
    """Pairs with recurring errors.

    Attributes:
        table: the pairs, their files in folders and their captions as they are now
        errors: kind and rows, (M,) int64, of each recurring error; rows are those whose caption is wrong
        random: (K,) int64, rows whose captions changed places at random
    """

    table: PairTable
    errors: list[tuple[ErrorKind, np.ndarray]]
    random: np.ndarray


class _Planting:
    """The pairs of one set while errors are planted in them, each pair getting one error at most."""

    def __init__(self, table: PairTable, categories: Sequence[str], seed: int) -> None:
        self.original, self.captions, self.categories = table, list(table.captions), np.array(categories)
        self.generator = np.random.default_rng(seed)
        self.free: np.ndarray = np.ones(len(table), dtype=bool)
        self.folder = self.generator.integers(FOLDERS, size=len(table))
        self.used_folders: set[int] = set()
        self.words = [frozenset(words_of(caption)) for caption in table.captions]

    def take(self, rows: np.ndarray, count: int) -> np.ndarray:
        """At most so many of some rows, at random, which get no other error."""
        rows = rows[self.free[rows]]
        taken = np.sort(self.generator.choice(rows, min(count, len(rows)), replace=False))
        self.free[taken] = False
        return taken

    def with_word(self, word: str) -> np.ndarray:
        """Free rows whose caption has a word."""
        return np.array([row for row, words in enumerate(self.words) if word in words and self.free[row]], dtype=int)

    def rotate(self, rows: np.ndarray) -> None:
        """Give each of these rows the caption of the next one, as a list does that slipped by a line."""
        taken = [self.captions[row] for row in np.roll(rows, 1)]
        for row, caption in zip(rows, taken, strict=True):
            self.captions[row] = caption

    def template(self, size: int) -> np.ndarray:
        rows = self.take(np.arange(len(self.captions)), size)
        template = TEMPLATES[self.generator.integers(len(TEMPLATES))]
        others = [self.original.captions[row] for row in np.roll(rows, 1)]
        for row, other in zip(rows, others, strict=True):
            number = int(self.generator.integers(10, 9_999))
            self.captions[row] = template.format(number=number, other=other)
        return rows

    def of_folder(self, size: int) -> np.ndarray:
        """The captions of a folder slipped by one; pairs move to another folder until it has the right size."""
        folder = int(self.generator.choice([each for each in range(FOLDERS) if each not in self.used_folders]))
        self.used_folders.add(folder)
        members = self.generator.permutation(np.flatnonzero(self.folder == folder))
        kept = round(size / WRONG_IN_FOLDER)
        others = [each for each in range(FOLDERS) if each not in self.used_folders]
        self.folder[members[kept:]] = self.generator.choice(others, len(members[kept:]))
        if len(members) < kept:
            free = np.flatnonzero(self.free & ~np.isin(self.folder, list(self.used_folders)))
            self.folder[self.generator.choice(free, kept - len(members), replace=False)] = folder
        rows = self.take(np.flatnonzero(self.folder == folder), size)
        self.rotate(rows)
        return rows

    def exchanged_words(self, size: int) -> np.ndarray:
        """Two words stand for each other in all captions that have one of them."""
        first, second = self.two_words((size // 2, size), (size // 2, size))
        rows = [row for row in np.flatnonzero(self.free) if (first in self.words[row]) != (second in self.words[row])]
        for row in rows:
            self.captions[row] = exchange(self.captions[row], first, second)
        return self.take(np.array(rows), len(rows))

    def one_caption(self, size: int) -> np.ndarray:
        """Images that show one thing have the caption of something else."""
        first, second = self.two_words((size, 2 * size), (1, size))
        rows = self.take(self.with_word(first), size)
        caption = self.original.captions[self.generator.choice(self.with_word(second))]
        for row in rows:
            self.captions[row] = caption
        return rows

    def exchanged_categories(self, size: int) -> np.ndarray:
        """Two categories of about the same size have each other's captions; of the larger one some are left."""
        names, counts = np.unique(self.categories[self.free], return_counts=True)
        names, counts = names[counts >= size / 4], counts[counts >= size / 4]
        near = np.argsort(np.abs(counts - size / 2), kind="stable")[:NEAR_SIZES]
        first, second = self.generator.choice(names[near], 2, replace=False)
        sides = [np.flatnonzero(self.free & (self.categories == name)) for name in (first, second)]
        left, right = (self.take(side, min(map(len, sides))) for side in sides)
        for a, b in zip(left, right, strict=True):
            self.captions[a], self.captions[b] = self.captions[b], self.captions[a]
        return np.concatenate([left, right])

    def two_words(self, first: tuple[int, int], second: tuple[int, int]) -> tuple[str, str]:
        """Two words of different categories, each in a number of free captions between two bounds, both included.

        Raises:
            ValueError: if there are none
        """
        counts = Counter(word for row in np.flatnonzero(self.free) for word in self.words[row])
        category: dict[str, str] = {}
        for word, count in sorted(counts.items()):
            named, times = Counter(self.categories[self.with_word(word)]).most_common(1)[0]
            if times >= OF_ONE_CATEGORY * count:
                category[word] = named
        choices = [
            (a, b)
            for a in category if first[0] <= counts[a] <= first[1]
            for b in category if second[0] <= counts[b] <= second[1] and category[a] != category[b]
        ]  # fmt: skip
        if not choices:
            raise ValueError(f"No two words of different categories are in {first} and {second} captions.")
        return choices[self.generator.integers(len(choices))]


def plant_errors(
    table: PairTable, categories: Sequence[str], errors: Sequence[tuple[ErrorKind, int]], seed: int
) -> Planted:
    """Plant recurring errors, and random swaps beside them.

    Args:
        table: clean pairs
        categories: of each pair, in words
        errors: kind, and number of pairs, of each
        seed: of every random choice

    Returns:
        :class:`Planted`; an error has fewer pairs where no more can have it

    Raises:
        ValueError: if the pairs cannot have such errors
    """
    planting = _Planting(table, categories, seed)
    planted = [(kind, _planted(planting, kind, size)) for kind, size in errors]
    random = planting.take(np.arange(len(table)), round(RANDOM_SWAPS * len(table)))
    before = [planting.captions[row] for row in random]
    planting.rotate(planting.generator.permutation(random))
    changed = [row for row, caption in zip(random, before, strict=True) if planting.captions[row] != caption]
    folders = [f"/data/folder-{number:02d}" for number in planting.folder]
    files = [f"{folder}/{Path(file).name}" for folder, file in zip(folders, table.filepaths, strict=True)]
    noisy = replace(table, captions=planting.captions, filepaths=files)
    return Planted(noisy, planted, np.array(changed, dtype=int))


def _planted(planting: _Planting, kind: ErrorKind, size: int) -> np.ndarray:
    """Plant an error of a size, or of half the size where so many pairs cannot have it, and so on."""
    try:
        return METHODS[kind](planting, size)
    except ValueError:
        if size < SMALLEST:
            raise
        return _planted(planting, kind, size // 2)


METHODS: dict[ErrorKind, Callable[[_Planting, int], np.ndarray]] = {
    "template": _Planting.template,
    "folder": _Planting.of_folder,
    "exchanged words": _Planting.exchanged_words,
    "one caption": _Planting.one_caption,
    "exchanged categories": _Planting.exchanged_categories,
}


def words_of(caption: str) -> list[str]:
    """The words of a caption that may be exchanged."""
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    found = re.findall(rf"[a-z]{{{LEAST_WORD},}}", caption.lower())
    return [word for word in found if word not in ENGLISH_STOP_WORDS]


def exchange(caption: str, first: str, second: str) -> str:
    """A caption in which two words stand for each other."""
    other = {first: second, second: first}
    return re.sub(rf"\b({first}|{second})\b", lambda found: other[found[0].lower()], caption, flags=re.IGNORECASE)
