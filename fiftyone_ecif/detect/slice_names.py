"""What a group of texts is called, by its words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from fiftyone_ecif.detect.slice_candidates import words

NEARLY_ALL = 0.9
"""Share of a group's texts that have a word of its template."""

NAMED_BY = 2
"""Typical words that name a topic."""

LONGEST_TEMPLATE = 12
"""Words of a name at most."""

GAP = "…"
"""What stands for words that differ, in a template."""


def template_of(texts: Sequence[str]) -> str:
    """The words that nearly all of some texts share, in their order, with a mark where there are others between.

    Args:
        texts: M

    Returns:
        such as "image from the archive …"; empty if they share no word
    """
    rows = [words(text) for text in texts]
    counts = Counter(word for row in rows for word in set(row))
    shared = {word for word, count in counts.items() if count >= NEARLY_ALL * len(rows)}
    forms = Counter(tuple(_form(row, shared)) for row in rows)
    if not shared:
        return ""
    form = min(forms, key=lambda each: (-forms[each], each))
    return " ".join(form[:LONGEST_TEMPLATE]) + (f" {GAP}" if len(form) > LONGEST_TEMPLATE else "")


def _form(row: list[str], shared: set[str]) -> list[str]:
    """A text's words with those that others do not share as gaps."""
    form: list[str] = []
    for word in row:
        kept = word if word in shared else GAP
        if kept != GAP or form[-1:] != [GAP]:
            form.append(kept)
    return form


def typical_words(texts: Sequence[str], rows: np.ndarray) -> str:
    """The words that some of the texts have more often than the others, such as "flag, europe".

    Args:
        texts: N
        rows: int (M,), those to name
    """
    everywhere = Counter(word for text in texts for word in set(words(text)))
    inside = Counter(word for row in rows for word in set(words(texts[row])))
    weight = {word: count * np.log(count / len(rows) * len(texts) / everywhere[word]) for word, count in inside.items()}
    return ", ".join(sorted(weight, key=lambda word: (-weight[word], word))[:NAMED_BY])
