"""What speaks against a pairing of an image with a text: heads, neighbours, a classifier trained from scratch."""

from __future__ import annotations

import torch
from torch import Tensor

from fiftyone_ecif.detect.classifier_surprise import RepeatedTexts
from fiftyone_ecif.detect.nearest_rows import nearest
from fiftyone_ecif.detect.neighbour_surprise import BACKGROUND, kernel_density, neighbour_surprise
from fiftyone_ecif.detect.pairings import Pairings
from fiftyone_ecif.detect.text_surprise import text_surprise

EVIDENCE = ("head", "neighbours", "classifier")
"""Kinds of evidence: what heads expect, what the nearest pairs say, a classifier trained from scratch."""

NEIGHBOURS = 30
"""Nearest images, or texts, that are looked at: k in the fixed setting of LEMoN (docs/detection.md)."""

TEXT_NEIGHBOUR_SHARE = 0.25
"""Weight of the nearest texts relative to the nearest images: a text exchanged for one like it misleads these."""

ALIKE = 0.99
"""Mean likeness to the others from which on a text says what they say: if all do, they tell no images apart."""


class Evidence:
    """What speaks against pairings of N images with their texts, or with those of one another.

    Args:
        image: float32 (N, D) unit vectors by the given head
        text: float32 (N, D) likewise
        logit_scale: τ of the given head
        with_classifier: whether to train a classifier where texts repeat
    """

    def __init__(self, image: Tensor, text: Tensor, logit_scale: float, with_classifier: bool) -> None:
        self.image, self.text, self.logit_scale = image, text, logit_scale
        self.repeated = RepeatedTexts.find(text)
        count = min(NEIGHBOURS, len(image) - 2)
        self.near, self.text_density = nearest(image, count), kernel_density(text, logit_scale)
        self.ask_texts = self.repeated is None and bool(self.text_density.min() < ALIKE)
        if self.ask_texts:
            self.near_texts, self.image_density = nearest(text, count), kernel_density(image, logit_scale)
        self.expected = self.repeated.expected(image) if self.repeated and with_classifier else None

    def against(self, pairings: Pairings) -> Tensor:
        """Each of :data:`EVIDENCE` for M pairings, nats, (3, M).

        Among free captions, what the text expects by the given head is added to what the heads say, and what the
        nearest texts say to what the nearest images say.
        """
        rows, partner, heads = pairings.rows, pairings.partner, pairings.surprise
        near = self.near[rows]
        neighbours = neighbour_surprise(near, self.text, partner, self.logit_scale, self.text_density)
        by_classifier = torch.zeros(len(rows))
        if self.repeated is None:
            heads = _capped(heads)
        if self.ask_texts:
            heads = heads + _capped(text_surprise(self.image, self.text, rows, partner, self.logit_scale))
            near = self.near_texts[partner]
            of_texts = neighbour_surprise(near, self.image, rows, self.logit_scale, self.image_density)
            neighbours = neighbours + TEXT_NEIGHBOUR_SHARE * of_texts
        if self.repeated is not None and self.expected is not None:
            by_classifier = self.repeated.surprise(self.expected, self.text, rows, partner, self.logit_scale)
        return torch.stack([heads, neighbours, by_classifier])


def _capped(surprise: Tensor) -> Tensor:
    """Among free captions it does not matter how unlikely a text is beyond some point, as with the neighbours."""
    return -torch.log(torch.exp(-surprise) + BACKGROUND)
