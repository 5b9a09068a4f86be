"""Which images and texts belong together where a text goes to one image: probabilities by belief propagation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

ROUNDS = 200
"""Rounds of messages at most."""

ESTIMATED_EVERY = 5
"""Rounds after which it is estimated anew how many texts were exchanged."""

TOLERANCE = 1e-3
"""Largest change, of the logarithm of a message and of an estimate, at which the rounds end."""

LEAST = 1e-12
"""Added where nothing is to be divided by."""


@dataclass(frozen=True)
class Cells:
    """A images with their texts, C distinct texts, and E cells: an image, and a text that it may get.

    Attributes:
        row: int64 (E,), the image of each cell
        column: int64 (E,), its text, which is another than the image has
        ratio: (E,), p(image, text) / p(image) p(text): how much likelier they are together than by chance
        own: int64 (A,), the text that each image has
        own_odds: (A,), above 0, of its being right
        frees: bool (A,), whether another image may get the text if the image does not keep it
        shared: (C,), how likely an image whose text was not exchanged has each text by right, although others have it
            too; what is missing from 1 is for texts that are nowhere
        row_rest: (2, A), Σ ratio over the places of the texts that are no cells of an image, each as likely as it is
            free, and Σ ratio · shared over these texts
        column_rest: (C,), Σ ratio over the images that are no cells of a text, each as likely as it looks for one
    """

    row: np.ndarray
    column: np.ndarray
    ratio: np.ndarray
    own: np.ndarray
    own_odds: np.ndarray
    frees: np.ndarray
    shared: np.ndarray
    row_rest: np.ndarray
    column_rest: np.ndarray


@dataclass(frozen=True)
class Association:
    """What belongs together.

    Attributes:
        probability: (E,), that the text of a cell belongs to its image
        own: (A,), that the text an image has belongs to it
        exchanged: share of the wrong texts whose right ones are those of other images with wrong texts
    """

    probability: np.ndarray
    own: np.ndarray
    exchanged: float


def associate(cells: Cells) -> Association:
    """How likely each text belongs to each image, if a text goes to one image for each image that has it now.

    An image keeps its text; or gets the place of another image that does not keep its own, which no third image gets
    then; or gets a text that images share, or none. The sum over all ways to do this for all images at once is
    approximated by belief propagation, which converges here, and is exact where the cells form no circle (Williams &
    Lau, IEEE Transactions on Aerospace and Electronic Systems 50(4), 2014, where measurements are given to targets).
    How many of the wrong texts were exchanged, so that the right ones are places, is estimated along with the messages
    by expectation maximisation.

    Args:
        cells: :class:`Cells`

    Returns:
        :class:`Association`
    """
    row, column, images, texts = cells.row, cells.column, len(cells.own), len(cells.shared)
    places = np.bincount(cells.own[cells.frees], minlength=texts).astype(float)
    wrong = float((1.0 / (1.0 + cells.own_odds[cells.frees])).sum()) + LEAST
    by_place = cells.ratio * (places[column] > 0) / wrong
    by_sharing = cells.ratio * cells.shared[column]
    row_rest, column_rest = cells.row_rest[0] / wrong, cells.column_rest / wrong
    afresh = 1.0 - cells.shared.sum() + np.bincount(row, by_sharing, images) + cells.row_rest[1]
    exchanged = 0.5 * places.any()
    # What is left of a place when others have asked for it, as seen by an image that asks and by its owner.
    left, left_to_owner = np.ones(len(row)), np.ones(images)
    for number in range(1, ROUNDS + 1):
        one_place = exchanged * by_place
        by_exchange = places[column] * one_place * left
        found = (1.0 - exchanged) * afresh + exchanged * row_rest + np.bincount(row, by_exchange, images)
        total = found + cells.own_odds * left_to_owner
        # An image asks for a place, and its owner claims it, the less the more it has otherwise.
        asks = cells.frees[row] * one_place / (total[row] - one_place * left)
        asked = 1.0 - exchanged + exchanged * column_rest + np.bincount(column, asks, texts)
        claimed = cells.own_odds / found
        of_text = np.bincount(cells.own, cells.frees / (asked[cells.own] + claimed), texts) / np.maximum(places, 1.0)
        before, left = left, 1.0 / (1.0 / np.maximum(of_text[column], LEAST) - asks)
        left_to_owner = np.where(cells.frees, 1.0 / asked[cells.own], 1.0)
        if number % ESTIMATED_EVERY == 0:
            moved = np.abs(np.log(left / before)).max(initial=0.0, where=places[column] > 0)
            of_places, of_wrong = found - (1.0 - exchanged) * afresh, found
            counted = [float((part / total)[cells.frees].sum()) for part in (of_places, of_wrong)]
            again = places.any() * (1.0 + counted[0]) / (2.0 + counted[1])
            if max(moved, abs(again - exchanged)) < TOLERANCE:
                break
            exchanged = again
    probability = (by_exchange + (1.0 - exchanged) * by_sharing) / total[row]
    return Association(probability, 1.0 - found / total, float(exchanged))
