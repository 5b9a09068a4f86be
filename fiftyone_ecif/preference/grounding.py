"""Whether a text needs its image: how far its fit falls when the image is weakened."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from PIL import Image

from fiftyone_ecif.features.reading import UnreadablePair, read_image
from fiftyone_ecif.preference.asking import CannotAnswer, Question
from fiftyone_ecif.preference.kept import KeptAnswers

BLIND = 900
"""The step at which an image says next to nothing: 13 % of the variance is its own."""


class Judge(Protocol):
    """What says how well texts fit images.

    Attributes:
        fingerprint: changes with whatever its judgement depends on
    """

    @property
    def fingerprint(self) -> str: ...

    def fit(
        self,
        images: Sequence[Image.Image],
        prompts: Sequence[str],
        texts: Sequence[str],
        steps: Sequence[int],
        seeds: Sequence[int],
    ) -> list[float]:
        """The fit of each text to its weakened image, in nats."""
        ...


def grounding(
    judge: Judge,
    questions: Sequence[Question],
    texts: Sequence[str],
    kept: KeptAnswers,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> list[float | None]:
    """The fit to the image less the fit to the image at :data:`BLIND`; each is judged once.

    Args:
        judge: by which
        questions: the images with the prompts and seeds; their own steps do not matter
        texts: as many
        kept: what was judged before
        report: called with how many are done; may raise to cancel

    Returns:
        nats; None where it cannot be judged
    """
    found: list[float | None] = []
    mark = judge.fingerprint
    for each, text in zip(questions, texts, strict=True):
        asked = [mark, "grounding", each.content, each.prompt, text, each.seed]
        value = kept.recall(asked)
        if not isinstance(value, float):
            value = _fall(judge, each, text)
            if value is not None:
                kept.keep(asked, value)
        found.append(value)
        report(len(found), len(texts))
    return found


def _fall(judge: Judge, question: Question, text: str) -> float | None:
    try:
        image = read_image(question.path)
        pair = [image] * 2, [question.prompt] * 2, [text] * 2, [0, BLIND], [question.seed] * 2
        seen, blind = judge.fit(*pair)
    except (UnreadablePair, CannotAnswer):
        return None
    return seen - blind
