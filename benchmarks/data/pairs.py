"""The plain table of image-caption pairs that every data set loads into, and its image cache."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm


@dataclass(frozen=True)
class PairTable:
    """Image-caption pairs, one row a pair, with their true classes where the data has any.

    Args:
        filepaths: N image files
        captions: N captions
        labels: (N,) int64, index of the true class in ``class_names``; says nothing where there are no classes
        class_names: the classes as natural English, such as "ankle boot"; empty where the data has no classes
        split: (N,) str: "train", "heldout", or "base" for pairs that only a base model is trained on
        templates: caption templates with ``{}`` for the class name; empty where captions are free text
        source: what the data is and where it came from, for people
        categories: what kind of thing each pair shows, as its source sorts them; empty where it does not
    """

    filepaths: list[str]
    captions: list[str]
    labels: np.ndarray
    class_names: list[str]
    split: np.ndarray
    templates: tuple[str, ...]
    source: str
    categories: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.filepaths)

    def require_classes(self, purpose: str) -> None:
        """Raise a ValueError that names the ``purpose``, e.g. "The accuracy", if the data has no classes."""
        if not self.class_names:
            raise ValueError(f"{purpose} needs classes, and {self.source} has captions only.")

    def select(self, rows: np.ndarray) -> PairTable:
        """The pairs of some rows.

        Args:
            rows: (N,) bool mask or (M,) int row numbers

        Returns:
            a :class:`PairTable` of those pairs, in that order
        """
        rows = np.arange(len(self))[rows]
        return replace(
            self,
            filepaths=[self.filepaths[row] for row in rows],
            captions=[self.captions[row] for row in rows],
            labels=self.labels[rows],
            split=self.split[rows],
            categories=[self.categories[row] for row in rows] if self.categories else [],
        )

    def with_captions(self, captions: Sequence[str]) -> PairTable:
        """The same pairs with other captions, one a pair."""
        if len(captions) != len(self):
            raise ValueError(f"{len(captions)} captions for {len(self)} pairs; there must be one each.")
        return replace(self, captions=list(captions))

    def with_split(self, split: np.ndarray) -> PairTable:
        """The same pairs with another split, (N,) str."""
        return replace(self, split=split)

    def __add__(self, other: PairTable) -> PairTable:
        """These pairs and then the others, which have no classes either."""
        if self.class_names or other.class_names:
            raise ValueError("Only pairs without classes can be put together.")
        known = len(self.categories) == len(self) and len(other.categories) == len(other)
        return PairTable(
            filepaths=self.filepaths + other.filepaths,
            captions=self.captions + other.captions,
            labels=np.concatenate([self.labels, other.labels]),
            class_names=[],
            split=np.concatenate([self.split, other.split]),
            templates=(),
            source=f"{self.source}; {other.source}",
            categories=self.categories + other.categories if known else [],
        )


def write_images(images: np.ndarray, names: Sequence[str], folder: Path, progress: bool = True) -> list[str]:
    """Write gray images as PNG files; those already there are kept.

    Args:
        images: (N, H, W) uint8
        names: N file names without an ending, unique for the image's content
        folder: where they go
        progress: whether to show a progress bar

    Returns:
        the N file paths
    """
    folder.mkdir(parents=True, exist_ok=True)
    filepaths = []
    for image, name in tqdm(list(zip(images, names)), desc="data: writing images", unit="image", disable=not progress):
        path = folder / f"{name}.png"
        if not path.exists():
            part = path.with_suffix(".png.part")
            Image.fromarray(image).save(part, format="PNG")
            os.replace(part, path)
        filepaths.append(str(path))
    return filepaths


def write_captions(
    labels: np.ndarray, class_names: Sequence[str], templates: Sequence[str], rng: np.random.Generator
) -> list[str]:
    """A caption for each label, from a template drawn at random.

    Args:
        labels: (N,) int64, index into ``class_names``
        class_names: the classes as natural English
        templates: with ``{}`` where the class name goes
        rng: the source of randomness

    Returns:
        N captions
    """
    chosen = rng.integers(len(templates), size=len(labels))
    return [templates[template].format(class_names[label]) for template, label in zip(chosen, labels)]
