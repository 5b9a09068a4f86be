"""A better text for some of a run's pairs, out of the texts that the run believes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import fiftyone as fo
import numpy as np
from fiftyone.core.collections import SampleCollection

from fiftyone_ecif.attribution.score import cross_fit_folds
from fiftyone_ecif.dataset.checks import is_classification_field
from fiftyone_ecif.dataset.repair.fixes import texts_at
from fiftyone_ecif.detect.labelled_pairs import LabelledPairs
from fiftyone_ecif.detect.pipeline import SuggestedTexts, suggest_texts

if TYPE_CHECKING:
    from fiftyone_ecif.dataset.results import InfluenceResults


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


def suggest_again(results: InfluenceResults, view: SampleCollection) -> dict[str, fo.Classification]:
    """See ``InfluenceResults.suggest``."""
    dataset, config, name = results.dataset, results.config, results.fields["suggestion"]
    if config.text_field is None:
        raise ValueError(f"Run {results.run_key!r} was computed without captions or labels: there is none to suggest.")
    wanted = view.values("id")
    stored = dataset.select(wanted).exists(name)
    found = dict(zip(*stored.values(["id", name]), strict=True))
    missing = set(wanted) - set(found)
    if missing:
        pairs = results.judged_pairs()
        then = texts_at(results.samples, config.text_field, dataset.get_run_info(results.run_key).timestamp)
        scores = dict(zip(*results.samples.values(["id", results.fields["misalignment"]]), strict=True))
        texts = [str(then[id]) for id in pairs.ids]
        suggested = suggest_texts(
            LabelledPairs(pairs, texts) if is_classification_field(dataset, config.text_field) else pairs,
            results.cross_fitted_heads,
            cross_fit_folds(len(pairs), config.seed),
            np.array([scores[id] for id in pairs.ids], dtype=float),
            texts,
            np.flatnonzero([id in missing for id in pairs.ids]),
        )
        computed = suggestion_labels(suggested, pairs.ids, texts)
        if computed:
            dataset.set_values(name, computed, key_field="id")
        found |= computed
    return found
