"""A better text for some of a run's pairs, out of the texts that the run believes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import fiftyone as fo
import numpy as np
import torch
from fiftyone.core.collections import SampleCollection
from torch import Tensor

from fiftyone_ecif.core import Head
from fiftyone_ecif.curation.fixes import texts_at
from fiftyone_ecif.detect import suggest
from fiftyone_ecif.engine.local import cross_fit_folds
from fiftyone_ecif.features import ArrayPairs, StoredPairs

if TYPE_CHECKING:
    from fiftyone_ecif.curation.results import InfluenceResults

TRUSTED = 0.5
"""Misalignment below which a pair's text may be suggested for others."""


def suggest_texts(
    pairs: StoredPairs | ArrayPairs,
    halves: Sequence[Head],
    half: Tensor,
    probability: np.ndarray,
    texts: Sequence[str],
    rows: np.ndarray,
) -> dict[str, fo.Classification]:
    """The text that fits each image best, by the head that was fitted on the half the pair is not in.

    Args:
        pairs: the scored pairs' features
        halves: the heads fitted on each half of them
        half: (N,) int64, which half each pair is in
        probability: (N,), their misalignment
        texts: what each says
        rows: which of them to find a text for

    Returns:
        label with confidence, by sample id; pairs whose own text fits best have none
    """
    first: dict[str, int] = {}
    for row, text in enumerate(texts):
        first.setdefault(text, row)
    distinct = list(first)
    place = {text: number for number, text in enumerate(distinct)}
    trusted = [place[text] for text, p in zip(texts, probability, strict=True) if p < TRUSTED]
    counts = torch.bincount(torch.tensor(trusted, dtype=torch.int64), minlength=len(distinct)).float()
    text_rows = torch.tensor([first[text] for text in distinct])
    found: dict[str, fo.Classification] = {}
    for number, head in enumerate(halves):
        # The head fitted on the other half: this pair had no influence on it.
        members = torch.from_numpy(rows[half.numpy()[rows] != number])
        if len(members) == 0:
            continue
        image = head.linearize(*pairs.gather(members)).image
        text = head.linearize(*pairs.gather(text_rows)).text
        best = suggest(image, text, counts, head.logit_scale.exp().item())
        for row, index, confidence in zip(members.tolist(), best.text, best.confidence, strict=True):
            if distinct[index] != texts[row]:
                found[pairs.ids[row]] = fo.Classification(label=distinct[index], confidence=float(confidence))
    return found


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
        pairs = results.pairs()
        then = texts_at(results.samples, config.text_field, dataset.get_run_info(results.run_key).timestamp)
        scores = dict(zip(*results.samples.values(["id", results.fields["misalignment"]]), strict=True))
        computed = suggest_texts(
            pairs,
            results.cross_fitted_heads,
            cross_fit_folds(len(pairs), config.seed),
            np.array([scores[id] for id in pairs.ids], dtype=float),
            [str(then[id]) for id in pairs.ids],
            np.flatnonzero([id in missing for id in pairs.ids]),
        )
        if computed:
            dataset.set_values(name, computed, key_field="id")
        found |= computed
    return found
