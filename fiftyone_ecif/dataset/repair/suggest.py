"""Better texts for some of a run's pairs, out of those of the data set."""

from __future__ import annotations

from collections.abc import Sequence

import fiftyone as fo
import numpy as np
from fiftyone.core.collections import SampleCollection

from fiftyone_ecif.dataset.fields import CANDIDATES
from fiftyone_ecif.dataset.run.run import Run
from fiftyone_ecif.dataset.run.writing import declare
from fiftyone_ecif.dataset.samples import everything, ungrouped
from fiftyone_ecif.detect.cross_fit import cross_fit_folds
from fiftyone_ecif.detect.labelled_pairs import LabelledPairs
from fiftyone_ecif.detect.pipeline import SuggestedTexts, suggest_texts


def suggestion_labels(suggested: SuggestedTexts, ids: Sequence[str]) -> dict[str, fo.Classification]:
    """The likeliest texts as labels.

    Args:
        suggested: texts for some pairs
        ids: sample ids of all pairs

    Returns:
        label with confidence, by sample id; pairs whose own text is likelier have none
    """
    first = suggested.first().items()
    return {ids[row]: fo.Classification(label=text, confidence=probability) for row, (text, probability) in first}


def candidate_labels(suggested: SuggestedTexts, ids: Sequence[str]) -> dict[str, fo.Classifications]:
    """All suggested texts as labels, the likeliest first, by sample id; see :func:`suggestion_labels`."""
    return {
        ids[row]: fo.Classifications(
            classifications=[fo.Classification(label=text, confidence=p) for text, p in candidates.items()]
        )
        for row, candidates in zip(suggested.rows.tolist(), suggested.candidates, strict=True)
    }


def suggest_again(run: Run, view: SampleCollection) -> dict[str, fo.Classification]:
    """See ``InfluenceResults.suggest``."""
    dataset, name = run.dataset, run.fields["suggestion"]
    if run.config.text_field is None:
        raise ValueError(f"Run {run.run_key!r} was computed without captions or labels: there is none to suggest.")
    wanted = ungrouped(view).values("id")
    label = {f"{name}._cls": "Classification", f"{name}.label": {"$type": "string"}}
    label |= {f"{name}.confidence": {"$not": {"$type": ["array", "object", "string"]}}}
    stored = everything(dataset).select(wanted).match(label)
    found = dict(zip(*stored.values(["id", name]), strict=True))
    missing = set(wanted) - set(found)
    if missing:
        suggested, ids = _suggested(run, missing)
        found |= _written(run, suggestion_labels(suggested, ids), candidate_labels(suggested, ids))
    return found


def _suggested(run: Run, wanted: set[str]) -> tuple[SuggestedTexts, list[str]]:
    """Suggestions for some of the run's pairs, by what the run was fitted to, and the ids of all pairs."""
    rows = run.rows()
    pairs = run.judged_pairs(rows)
    texts = [str(text) for text in rows.texts or ()]
    suggested = suggest_texts(
        LabelledPairs(pairs, texts) if rows.labelled else pairs,
        run.cross_fitted_heads,
        cross_fit_folds(len(pairs), run.config.seed),
        run.misalignment.double().numpy(),
        texts,
        np.flatnonzero([id in wanted for id in pairs.ids]),
        run.config.seed,
    )
    return suggested, pairs.ids


def _written(
    run: Run, suggestions: dict[str, fo.Classification], candidates: dict[str, fo.Classifications]
) -> dict[str, fo.Classification]:
    """Put suggestions beside those that the run stored; returns them."""
    declare(run.dataset, run.run_key, [CANDIDATES], run.config.tensors)
    if candidates:
        run.dataset.set_values(CANDIDATES.name(run.run_key), candidates, key_field="id")
    if suggestions:
        run.dataset.set_values(run.fields["suggestion"], suggestions, key_field="id")
    return suggestions
