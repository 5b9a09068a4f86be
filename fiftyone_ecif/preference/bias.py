"""What tells chosen from rejected texts without looking at the image: their length and style."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

MOST_BIAS = 0.05
"""The difference of the mean lengths after balancing, as a share of the mean length."""

STYLE: dict[str, Callable[[str], float]] = {
    "capital": lambda text: float(text[:1].isupper()),
    "full_stop": lambda text: float(text.rstrip().endswith((".", "!", "?"))),
    "sentences": lambda text: float(len(re.findall(r"[.!?]+(\s|$)", text)) or 1),
    "commas": lambda text: float(text.count(",")),
    "numerals": lambda text: float(len(re.findall(r"\d+", text))),
}
"""What is counted in each text."""

TextPair = tuple[str, str]
"""Chosen and rejected."""


@dataclass(frozen=True)
class Bias:
    """How chosen texts differ from rejected ones.

    Attributes:
        pairs: that were compared
        chosen_words: of a chosen text, on average
        rejected_words: of a rejected one
        style: by the names of :data:`STYLE`, chosen less rejected, on average
    """

    pairs: int
    chosen_words: float
    rejected_words: float
    style: dict[str, float]

    @property
    def length(self) -> float:
        """The difference of the mean lengths as a share of the mean length: > 0 if chosen texts are longer."""
        total = self.chosen_words + self.rejected_words
        return 0.0 if total == 0 else 2.0 * (self.chosen_words - self.rejected_words) / total


def bias_of(pairs: Sequence[TextPair]) -> Bias:
    """The bias of some pairs; 0 of none."""
    count = max(len(pairs), 1)
    style = {
        name: sum(measure(chosen) - measure(rejected) for chosen, rejected in pairs) / count
        for name, measure in STYLE.items()
    }
    words = [sum(len(pair[side].split()) for pair in pairs) / count for side in (0, 1)]
    return Bias(len(pairs), words[0], words[1], style)


def balanced(pairs: Sequence[TextPair]) -> list[int]:
    """Which pairs to keep so that lengths say next to nothing: as few go as possible, the most different first.

    Returns:
        their places, in order; empty if no pair or more can be balanced
    """
    words = [[len(text.split()) for text in pair] for pair in pairs]
    kept = set(range(len(pairs)))
    chosen, rejected = (sum(each[side] for each in words) for side in (0, 1))
    sign = 1 if chosen > rejected else -1
    for place in sorted(kept, key=lambda place: -sign * (words[place][0] - words[place][1])):
        if abs(chosen - rejected) <= MOST_BIAS * (chosen + rejected) / 2:
            break
        kept.discard(place)
        chosen, rejected = chosen - words[place][0], rejected - words[place][1]
    return sorted(kept)
