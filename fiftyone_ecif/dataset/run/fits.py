"""What a run has fitted, fit by fit: on which of its pairs, and by which of them each is judged."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fiftyone_ecif.attribution import Settings
from fiftyone_ecif.attribution.folds import Folds
from fiftyone_ecif.dataset.run.run import Run


@dataclass(frozen=True)
class RunFit:
    """One fit of a run.

    Attributes:
        number: of the fit, from 0
        vector: θ̂ of the run's scope, (P,)
        anchor: δ
        members: int64 (n,), the pairs that it is at rest on
        target: int64 (m,), the pairs whose mean loss it is judged by; None for the run's own target
    """

    number: int
    vector: Tensor
    anchor: float
    members: Tensor
    target: Tensor | None


def fits_of(run: Run) -> list[RunFit]:
    """The fits of a run: one on all pairs where it has a target, or one for each fold that it was held out on."""
    vectors, anchors, count = run.fitted, run.health["anchor"], len(run.ids)
    if len(vectors) == 1:
        return [RunFit(0, vectors[0], anchors[0], torch.arange(count), None)]
    of_split = run.health.get("folds", len(vectors))  # earlier runs split the pairs once
    folds = Folds.of(count, of_split, run.settings.seed, len(vectors) // of_split)
    return [
        RunFit(number, vector, anchor, folds.members(number), folds.target(number, run.believed))
        for number, (vector, anchor) in enumerate(zip(vectors, anchors, strict=True))
    ]


def fit_settings(run: Run) -> Settings:
    """The choices of a run, with the rounds of batches that its fits are at rest on; all of them in earlier runs."""
    settings = run.settings
    return replace(settings, rounds=run.health.get("fit_rounds", settings.rounds))
