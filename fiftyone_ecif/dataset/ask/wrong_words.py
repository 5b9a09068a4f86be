"""Which words of a suspect's caption do not belong to its image, by the run's model."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from fiftyone.core.collections import SampleCollection
from torch import Tensor

from fiftyone_ecif.core import Progress, embeddings_under
from fiftyone_ecif.dataset.ask.text_tower import text_embeddings
from fiftyone_ecif.dataset.fields import WRONG_WORDS
from fiftyone_ecif.dataset.repair.review import suspected
from fiftyone_ecif.dataset.rows import Rows
from fiftyone_ecif.dataset.run.run import Run
from fiftyone_ecif.dataset.run.writing import declare
from fiftyone_ecif.dataset.samples import everything, ungrouped
from fiftyone_ecif.detect.cross_fit import cross_fit_folds
from fiftyone_ecif.detect.wrong_words import Captions, spans_of, without

MOST_WORDS = 64
"""Words of a caption that are looked at, from its beginning: each is a text for the tower to read."""


def check_has_words(run: Run) -> None:
    """Raise a ValueError unless the run's captions can be read again without some of their words."""
    config = run.config
    if config.text_field is None:
        raise ValueError(f"Run {run.run_key!r} was computed without captions: it has no words.")
    if run.labelled:
        raise ValueError(f"Run {run.run_key!r} was computed on labels: a label is wrong as a whole.")
    if config.image_embeddings is not None:
        raise ValueError(
            f"Run {run.run_key!r} used stored embeddings: there is no text tower to read captions without a word."
        )


def name_wrong_words(run: Run, samples: SampleCollection | None, k: int, progress: Progress) -> dict[str, list[str]]:
    """See ``InfluenceResults.name_wrong_words``."""
    check_has_words(run)
    chosen = suspected(everything(run.dataset), run.run_key) if samples is None else ungrouped(samples)
    wanted = set(chosen.values("id"))
    rows = run.rows()
    asked = [row for row, id in enumerate(rows.ids) if id in wanted]
    found = _named(run, rows, asked, k, progress) if asked else {}
    named = {rows.ids[row]: words for row, words in found.items()}
    _write(run, named)
    return named


def _named(run: Run, rows: Rows, asked: list[int], k: int, progress: Progress) -> dict[int, list[str]]:
    """The words that fit least, at most k of each caption, by the head that was not fitted on the pair."""
    texts = [str(text) for text in rows.texts or ()]
    pairs, fold, model = run.judged_pairs(rows), cross_fit_folds(len(texts), run.config.seed), run.model()
    found: dict[int, list[str]] = {}
    for number, head in enumerate(run.cross_fitted_heads):
        members = [row for row in asked if fold[row] != number]
        if not members:
            continue
        captions = Captions(texts, *embeddings_under(pairs, head), head.logit_scale.exp().item())
        for row in members:
            progress("Read captions without a word", len(found), len(asked))
            found[row] = _of_one(captions, row, texts[row], k, partial(text_embeddings, model, head))
    progress("Read captions without a word", len(asked), len(asked))
    return found


def _of_one(captions: Captions, row: int, text: str, k: int, read: Callable[[list[str]], Tensor]) -> list[str]:
    """The words of one caption that fit least, the worst first; none of a caption of one word, or of too few pairs."""
    spans = spans_of(text)[:MOST_WORDS]
    if len(spans) < 2 or len(captions.words) < 3:
        return []
    words = [text[start:end] for start, end in spans]
    surprise = captions.surprise(row, words, read([without(text, span) for span in spans]))
    ordered = [words[place] for place in surprise.argsort(descending=True).tolist()]
    return list(dict.fromkeys(ordered))[:k]


def _write(run: Run, named: dict[str, list[str]]) -> None:
    """Put the words into the run's field, which is declared where it is not there yet."""
    declare(run.dataset, run.run_key, [WRONG_WORDS], run.config.tensors)
    if named:
        run.dataset.set_values(WRONG_WORDS.name(run.run_key), named, key_field="id")
