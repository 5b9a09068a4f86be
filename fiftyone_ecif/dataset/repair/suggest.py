"""A better text for some of a run's pairs, out of the texts that the run believes."""

from __future__ import annotations

from collections.abc import Sequence

import fiftyone as fo
import numpy as np
from fiftyone.core.collections import SampleCollection

from fiftyone_ecif.dataset.run.run import Run
from fiftyone_ecif.dataset.samples import everything, ungrouped
from fiftyone_ecif.detect.cross_fit import cross_fit_folds
from fiftyone_ecif.detect.labelled_pairs import LabelledPairs
from fiftyone_ecif.detect.pipeline import SuggestedTexts, suggest_texts


def suggestion_labels(
    suggested: SuggestedTexts, ids: Sequence[str], texts: Sequence[str]
) -> dict[str, fo.Classification]:
    """Suggestions as labels.

    Args:
        suggested: texts for some pairs
        ids: sample ids of all pairs
        texts: what each says

    Returns:
        label with confidence, by sample id; pairs whose own text fits best have none
    """
    return {
        ids[row]: fo.Classification(label=text, confidence=float(confidence))
        for row, text, confidence in zip(suggested.rows, suggested.texts, suggested.confidence, strict=True)
        if text != texts[row]
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
        computed = _suggested(run, missing)
        if computed:
            dataset.set_values(name, computed, key_field="id")
        found |= computed
    return found


def _suggested(run: Run, wanted: set[str]) -> dict[str, fo.Classification]:
    """Suggestions for some of the run's pairs, by what the run was fitted to."""
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
    )
    return suggestion_labels(suggested, pairs.ids, texts)
