"""How often suggested texts are right, and how sure they are of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from benchmarks.detection.cell import Cell
from benchmarks.detection.figures import SUSPECTED, suggested
from fiftyone_ecif.attribution import Settings
from fiftyone_ecif.detect import CrossFit, Misalignment
from fiftyone_ecif.detect.pipeline import SuggestedTexts

CONFIDENT = 0.9
"""Confidence from which a suggestion is taken unseen."""


@dataclass(frozen=True)
class Suggested:
    """Suggestions for a cell's suspects beside the truth.

    Attributes:
        suggested: for the suspects
        true: N, the text that belongs to each image
        wrong: (N,) bool, True where a pair has another text
    """

    suggested: SuggestedTexts
    true: list[str]
    wrong: np.ndarray


def suggestion_figures(cell: Cell, found: Misalignment, fitted: CrossFit, settings: Settings) -> dict[str, float]:
    """How often the texts are right that are suggested for the suspects, the pairs with a misalignment of ½ or more.

    Args:
        cell: the pairs, with the captions or classes that are right
        found: their misalignment
        fitted: the cross-fit that it is based on
        settings: the seed is used

    Returns:
        ``suggestions_right``: share of the wrong pairs among the suspects whose likeliest candidate is the right text;
        ``suggestions_right_in_five``: share of them that have it among their candidates;
        ``confident_right``: share of the suggestions of confidence .9 or more that are right, for whatever pair;
        ``right_captions_replaced``: share of all right pairs that get a suggestion of confidence .9 or more.
        A share of nothing is left out.

    Raises:
        ValueError: if nobody knows which texts are right
    """
    return figures_of(suggest_for(cell, found, fitted, settings), found.probability >= SUSPECTED)


def suggest_for(cell: Cell, found: Misalignment, fitted: CrossFit, settings: Settings) -> Suggested:
    """Suggest texts for a cell's suspects as a run does; raises a ValueError if nobody knows which are right."""
    true = cell.originals
    if cell.classes:
        true = None if cell.classes.true is None else [cell.classes.names[number] for number in cell.classes.true]
    if true is None or cell.planted is None:
        raise ValueError("Suggestions are measured where the right texts are known: on planted noise.")
    return Suggested(suggested(cell, found, fitted, settings), true, cell.planted)


def figures_of(suggestions: Suggested, suspected: np.ndarray) -> dict[str, float]:
    """The figures of :func:`suggestion_figures`.

    Args:
        suggestions: beside the truth
        suspected: (N,) bool
    """
    texts, true, wrong = suggestions.suggested, suggestions.true, suggestions.wrong
    candidates = dict(zip(texts.rows.tolist(), texts.candidates, strict=True))
    asked = [candidates.get(row, {}) for row in np.flatnonzero(suspected & wrong).tolist()]
    wanted = [true[row] for row in np.flatnonzero(suspected & wrong).tolist()]
    sure = {row: text for row, (text, confidence) in texts.first().items() if confidence >= CONFIDENT}
    hits = {
        "suggestions_right": [next(iter(each), None) == text for each, text in zip(asked, wanted, strict=True)],
        "suggestions_right_in_five": [text in each for each, text in zip(asked, wanted, strict=True)],
        "confident_right": [text == true[row] for row, text in sure.items()],
        "right_captions_replaced": [row in sure for row in np.flatnonzero(~wrong).tolist()],
    }
    return {name: float(np.mean(values)) for name, values in hits.items() if values}
