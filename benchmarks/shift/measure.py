"""The figures of the scenarios: divergences, EMID and its bound beside the true loss of accuracy, AUROC by sample."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score
from torch import Tensor

from benchmarks.shift.model import Seen
from benchmarks.shift.published import rising
from benchmarks.shift.scenarios import Scenario
from fiftyone_ecif.shift import Club, Comparison, EstimatorFit, Fused, TensorVectors, bounds, club_pass, train_club
from fiftyone_ecif.shift.risk import INPUTS


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


def estimator(sets: Sequence[Seen], seed: int = 0) -> tuple[Club, EstimatorFit]:
    """The frozen estimator, trained on all sets together."""
    image, query, response, reference = (
        TensorVectors(torch.cat([getattr(each, name) for each in sets]))
        for name in ("image", "query", "response", "reference")
    )
    z = Fused([image, query])
    held = TensorVectors(z.gather(torch.arange(len(z))).float())
    return train_club(held, [response, reference], seed=seed)


def measured(scenarios: Sequence[Scenario], club: Club) -> list[Row]:
    """The figures of scenarios, each set's looked at once."""
    emi, apart = _once(lambda seen: effective_information(seen, club)), _once(answers_apart)
    rows = []
    for each in scenarios:
        image, query = (_divergence(getattr(each.before, name), getattr(each.after, name)) for name in INPUTS)
        sets = each.before, each.after
        bound, _ = bounds([torch.tensor(image), torch.tensor(query)], [torch.tensor(apart(seen)) for seen in sets])
        emid = emi(each.before) - emi(each.after)
        accuracies = each.before.accuracy, each.after.accuracy
        rows.append(Row(each.task, each.kind, each.severity, image, query, emid, float(bound), *accuracies))
    return rows


def effective_information(seen: Seen, club: Club) -> float:
    """EMI of a set."""
    side = seen.side()
    response, reference = club_pass(club, side.question(), side.answers())
    return float((response.rows - reference.rows).mean())


def answers_apart(seen: Seen) -> float:
    """The divergence of a set's responses and references."""
    return _divergence(seen.response, seen.reference)


def _divergence(first: Tensor, second: Tensor) -> float:
    return 0.0 if torch.equal(first, second) else Comparison.of(TensorVectors(first), TensorVectors(second)).value


def _once(figure: Callable[[Seen], float]) -> Callable[[Seen], float]:
    """A figure of sets, computed once for each."""
    known: dict[int, float] = {}

    def of(seen: Seen) -> float:
        if id(seen) not in known:
            known[id(seen)] = figure(seen)
        return known[id(seen)]

    return of


def detection_auroc(reference: Seen, scenario: Scenario) -> float:
    """How well contributions tell the shifted half of a set from the half that was not shifted.

    Every second sample of the scenario is shifted. Where images and queries both are, their contributions are added.

    Args:
        reference: other items of the task, without a shift
        scenario: whose items are shifted, each in its place
    """
    shifted = torch.arange(len(scenario.before.image)) % 2 == 1
    total = torch.zeros(len(shifted), dtype=torch.float64)
    for name in INPUTS:
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
