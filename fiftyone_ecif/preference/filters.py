"""Which pairs teach nothing, or something else than meant."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

LONGEST_ANSWER = 350
"""Words; longer answers are left out, as published."""

_MARKER = re.compile(r"<\|[^<>|]*\|>|</?s>|<(image|video|audio|img|pad|unk|bos|eos)[^<>]*>|\[/?INST\]", re.IGNORECASE)
_REFUSAL = re.compile(
    r"\b(i['’]?m sorry|i am sorry|as an ai\b|i (can ?not|can['’]?t|am unable to|am not able to)\b|"
    r"unable to (see|view|assist|help|provide)|no image (was|is) (provided|attached))",
    re.IGNORECASE,
)
_ARTICLES = {"a", "an", "the"}


def marker_in(text: str, markers: Iterable[str] = ()) -> str | None:
    """The first token in a text that a model would take for something else than text; None for none.

    Args:
        text: the text
        markers: of the model at hand, besides the usual ones
    """
    found = _MARKER.search(text)
    return found[0] if found else next((each for each in markers if each and each in text), None)


def reason_against(chosen: str, rejected: str) -> str | None:
    """Why two texts make no pair, in a few words; None if they do."""
    if not rejected.strip():
        return "the rejected text is empty"
    if _REFUSAL.search(rejected):
        return "the rejected text is a refusal"
    if chosen.split() == rejected.split():
        return "the rejected text is the chosen one"
    if _content(chosen) == _content(rejected):
        return "the rejected text says what the chosen one says"
    if max(len(chosen.split()), len(rejected.split())) > LONGEST_ANSWER:
        return f"a text has more than {LONGEST_ANSWER} words"
    if marker := marker_in(rejected):
        return f"the rejected text holds {marker}, which models take for a mark"
    return None


def _content(text: str) -> Sequence[str]:
    """What two texts that say the same have in common: words without articles, case, marks and the plural's s."""
    words = (word for word in re.findall(r"\w+", text.casefold()) if word not in _ARTICLES)
    return [word[:-1] if len(word) > 3 and word.endswith("s") else word for word in words]
