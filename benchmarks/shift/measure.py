"""The figures of the scenarios: divergences, EMID and its bound beside the true loss of accuracy, AUROC by sample."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

from benchmarks.shift.model import Seen
from benchmarks.shift.real import rising
from benchmarks.shift.scenarios import Scenario
from fiftyone_ecif.shift import (
    Club,
    Comparison,
    EstimatorFit,
    Fused,
    Plan,
    TensorVectors,
    assess,
    train_club,
)


@dataclass(frozen=True)
class Row:
    """What one scenario measures."""

    task: str
    kind: str
    severity: int
    image: float
    query: float
    emid: float
    bound: float
    accuracy_before: float
    accuracy_after: float

    @property
    def lost(self) -> float:
        """The true loss of accuracy."""
        return self.accuracy_before - self.accuracy_after

    @property
    def inputs(self) -> float:
        """Σ √JSD of the inputs: the bound's part that needs no answers."""
        return float(max(self.image, 0.0) ** 0.5 + max(self.query, 0.0) ** 0.5)


def estimator(sets: Sequence[Seen], bounded: bool, seed: int = 0) -> tuple[Club, EstimatorFit]:
    """The frozen estimator, trained on all sets together."""
    image, query, response, reference = (
        TensorVectors(torch.cat([getattr(each, name) for each in sets]))
        for name in ("image", "query", "response", "reference")
    )
    z = Fused([image, query])
    held = TensorVectors(z.gather(torch.arange(len(z))).float())
    return train_club(held, [response, reference], bounded, seed)


def measured(scenario: Scenario, club: Club) -> Row:
    """One scenario's figures."""
    first, second = scenario.before.side(), scenario.after.side()
    found = assess(first, second, Plan.of((len(first), len(second)), 384, resamples=0), club)
    assert found.answers is not None
    return Row(
        scenario.task,
        scenario.kind,
        scenario.severity,
        found.inputs["image"].divergence.estimate.value,
        found.inputs["query"].divergence.estimate.value,
        found.answers.emid.value,
        found.answers.bound.value,
        scenario.before.accuracy,
        scenario.after.accuracy,
    )


def detection_auroc(reference: Seen, scenario: Scenario) -> float:
    """How well contributions tell the shifted half of a set from the half that was not shifted.

    Every second sample of the scenario is shifted. Where images and queries both are, their contributions are added.

    Args:
        reference: other items of the task, without a shift
        scenario: whose items are shifted, each in its place
    """
    shifted = torch.arange(len(scenario.before.image)) % 2 == 1
    total = torch.zeros(len(shifted), dtype=torch.float64)
    for name in ("image", "query"):
        clean, changed = getattr(scenario.before, name), getattr(scenario.after, name)
        if torch.equal(clean, changed):
            continue
        first = TensorVectors(getattr(reference, name))
        second = TensorVectors(torch.where(shifted[:, None], changed, clean))
        total += Comparison.of(first, second).contributions(second, 1)
    return float(roc_auc_score(shifted.numpy(), total.numpy()))


def monotone(rows: Iterable[Row]) -> list[bool]:
    """For each made shift and each step of severity, whether the inputs' divergence has grown."""
    ladders: dict[tuple[str, str], dict[int, float]] = {}
    for row in rows:
        if row.severity:
            ladders.setdefault((row.task, row.kind), {})[row.severity] = row.inputs
    return [step for ladder in ladders.values() for step in rising([ladder[each] for each in sorted(ladder)])]


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> float:
    """Spearman's."""
    return float(spearmanr(np.array(first), np.array(second))[0])


def correlations(rows: Sequence[Row]) -> dict[str, float]:
    """How the bound goes with EMID, EMID with the loss of accuracy, and the bound with that."""
    emid, bound, lost = [row.emid for row in rows], [row.bound for row in rows], [row.lost for row in rows]
    return {
        "spearman_bound_emid": rank_correlation(bound, emid),
        "spearman_emid_accuracy": rank_correlation(emid, lost),
        "spearman_bound_accuracy": rank_correlation(bound, lost),
        "spearman_inputs_accuracy": rank_correlation([row.inputs for row in rows], lost),
    }
