"""Which words of a caption do not belong to its image: those that alike images and alike captions do without."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import normalize

from fiftyone_ecif.detect.evidence import NEIGHBOURS

WORD = re.compile(r"[^\W\d_]{3,}")
"""A word: three letters or more of any script. Shorter ones ("of", "in") are in no image."""

SHARPNESS = 15.0
"""How fast captions cease to be alike with their distance, as in vagueness."""

CLOSEST = 5
"""Captions that say how like others a caption is."""

UNSEEN = 0.5
"""Added to counts, so that a word that no neighbour has is not impossible."""


def spans_of(text: str) -> list[tuple[int, int]]:
    """Where the words of a text begin and end, in their order."""
    return [found.span() for found in WORD.finditer(text)]


def without(text: str, span: tuple[int, int]) -> str:
    """A text without one of its words, and without the marks that stood beside this word alone."""
    rest = text[: span[0]] + text[span[1] :]
    rest = re.sub(r"([,;:])(\s*[,;:])+", r"\1", re.sub(r"\s+([,;:])", r"\1", rest))
    return re.sub(r"\s+", " ", rest).strip(" ,;:")


class Captions:
    """N captions with their images, which say what words belong together and to what.

    Args:
        texts: the captions
        image: (N, D) unit vectors of their images
        text: (N, D) unit vectors of the captions
        logit_scale: τ
    """

    def __init__(self, texts: Sequence[str], image: Tensor, text: Tensor, logit_scale: float) -> None:
        self.words = [frozenset(word.lower() for word in WORD.findall(each)) for each in texts]
        self.total = Counter(word for words in self.words for word in words)
        self.image, self.text, self.logit_scale, self.mean = image, text, logit_scale, text.mean(0)
        self.about = normalize(text - self.mean, dim=1)

    def surprise(self, row: int, words: Sequence[str], rest: Tensor) -> Tensor:
        """How little each word of a caption belongs there.

        −log [P(w | image) P(w | rest) / P(w)] + 15 (a(rest) − a(caption)) + τ u·(v(rest) − v(caption)). By Bayes' rule,
        and as if the image and the rest of the caption spoke independently, the first term is the surprise of the
        word, up to a constant of the caption: P(w | image) is the share of the captions of the 30 nearest images that
        have it, P(w | rest) that of the 30 captions nearest to this one without it, and P(w) that of all other
        captions. The second term says how much more like others the caption is without the word: a is the mean cosine
        to the five nearest captions, about the mean of all. The third says how much better it then fits its image u.

        Args:
            row: the caption
            words: its L words
            rest: (L, D) unit vectors, the caption without each of them

        Returns:
            (L,), nats, higher = fits less
        """
        own, count = torch.tensor([row]), min(NEIGHBOURS, len(self.words) - 1)
        near_image = (self.image @ self.image[row]).index_fill(0, own, -torch.inf).topk(count).indices.tolist()
        moved = torch.cat([normalize(rest - self.mean, dim=1), self.about[own]])
        near = (moved @ self.about.T).index_fill(1, own, -torch.inf).topk(count, dim=1)
        alike = near.values[:, :CLOSEST].mean(1)
        by_words = []
        for word, near_rest in zip((word.lower() for word in words), near.indices[:-1].tolist(), strict=True):
            elsewhere = self.total[word] - (word in self.words[row])
            by_words.append(_log(elsewhere) - _log(self._among(word, near_image)) - _log(self._among(word, near_rest)))
        fit = self.logit_scale * (rest - self.text[row]) @ self.image[row]
        return torch.tensor(by_words) + SHARPNESS * (alike[:-1] - alike[-1]) + fit

    def _among(self, word: str, rows: Sequence[int]) -> int:
        """How many of these captions have the word."""
        return sum(word in self.words[row] for row in rows)


def _log(count: int) -> float:
    return math.log(count + UNSEEN)
