"""How risky a shift is: effective mutual information, its fall, and what bounds it (Oh et al., ICML 2025).

EMI(P) = I(query; response) − I(query; reference), both by one frozen estimator; EMID(P, Q) = EMI(P) − EMI(Q).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from fiftyone_ecif.core.workers import Progress, silent
from fiftyone_ecif.shift.club import Club, club_pass
from fiftyone_ecif.shift.directions import Direction, top_directions
from fiftyone_ecif.shift.divergence import Comparison
from fiftyone_ecif.shift.resampling import (
    Estimate,
    Plan,
    bootstrapped,
    group_moments,
    permuted,
    with_interval,
)
from fiftyone_ecif.shift.vectors import Fused, Vectors

INPUTS = ("image", "query")
"""What a model is given; each is compared between the two sets."""

ANSWERS = ("response", "reference")
"""What it answers, and what is right."""


@dataclass(frozen=True)
class Side:
    """One of two sets of samples.

    Attributes:
        vectors: by "image", "query", "response" and "reference", as many of each as there are samples; an input and the
            two answers may be missing
        training: bool (N,), the samples that an estimator was trained on, which EMI leaves out; None for none
    """

    vectors: Mapping[str, Vectors]
    training: Tensor | None = None

    def __len__(self) -> int:
        return len(next(iter(self.vectors.values())))

    @property
    def answered(self) -> bool:
        """Whether there are responses and references."""
        return all(name in self.vectors for name in ANSWERS)

    def question(self) -> Fused:
        """z, of the inputs that there are."""
        return Fused([self.vectors[name] for name in INPUTS if name in self.vectors])

    def answers(self) -> list[Vectors]:
        """The unit vectors of responses and references."""
        return [Fused([self.vectors[name]]) for name in ANSWERS]


@dataclass(frozen=True)
class Divergence:
    """A representation Jensen-Shannon divergence.

    Attributes:
        estimate: nats, 0 to log 2, with its interval
        debiased: adjusted for chance, with its interval; None where it was not asked for
        p_value: how often chance alone makes as large a divergence; likewise
        few: whether there are fewer rows than dimensions, so that the estimate is biased upwards
    """

    estimate: Estimate
    debiased: Estimate | None
    p_value: float | None
    few: bool


@dataclass(frozen=True)
class InputShift:
    """The shift of one of the inputs.

    Attributes:
        divergence: of the two sets
        contributions: what each row of the first set, and of the second, adds to it, nats; (N,) each
        directions: in which the sets differ most
    """

    divergence: Divergence
    contributions: tuple[Tensor, Tensor]
    directions: list[Direction]


@dataclass(frozen=True)
class AnswerShift:
    """The shift of the answers.

    Attributes:
        emi: of the first set and of the second, in the estimator's units
        emid: EMI of the first less that of the second: how much relevance is lost
        answers: the divergence of responses and references in the first set and in the second
        bound: the scale-adjusted upper bound of EMID
        entropy_bound: the other, for the entropy that was given; None without one
        rows: what each row adds to the EMI of its set; NaN for those that the estimator was trained on
    """

    emi: tuple[Estimate, Estimate]
    emid: Estimate
    answers: tuple[Divergence, Divergence]
    bound: Estimate
    entropy_bound: Estimate | None
    rows: tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Assessment:
    """All that is found of two sets.

    Attributes:
        inputs: by "image" and "query", as far as they were compared
        answers: None without responses
    """

    inputs: dict[str, InputShift]
    answers: AnswerShift | None


def bounds(inputs: list[Tensor], answers: list[Tensor], entropy: float | None = None) -> tuple[Tensor, Tensor | None]:
    """The upper bounds of EMID.

    Args:
        inputs: divergences of images and of queries, of any one shape
        answers: divergences of responses and references in each of the two sets, likewise
        entropy: h, that the user gives for the entropy form

    Returns:
        Σ √JSD + Σ JSD^¼, and h Σ √JSD + 4 Σ JSD^¼, or None without h
    """
    roots = torch.stack([each.clamp_min(0).sqrt() for each in inputs]).sum(0)
    fourths = torch.stack([each.clamp_min(0).pow(0.25) for each in answers]).sum(0)
    return roots + fourths, None if entropy is None else entropy * roots + 4 * fourths


def assess(
    first: Side,
    second: Side,
    plan: Plan,
    club: Club | None = None,
    weighting: str = "mean",
    entropy: float | None = None,
    progress: Progress = silent,
) -> Assessment:
    """Everything about the shift from one set to another.

    Args:
        first: the reference set P
        second: the other set Q
        plan: which rows are resampled together, for both
        club: the frozen estimator; needed where both sides are answered
        weighting: as in :meth:`~fiftyone_ecif.shift.divergence.Comparison.of`
        entropy: for the entropy form of the bound
        progress: called as the work goes on

    Raises:
        ValueError: if vectors are not of the same width, or not of the estimator's
    """
    inputs, drawn = {}, {}
    for name in INPUTS:
        if name in first.vectors:
            pair = first.vectors[name], second.vectors[name]
            inputs[name], drawn[name] = _input_shift(pair, plan, weighting, progress, name)
    if club is None or not (first.answered and second.answered):
        return Assessment(inputs, None)
    return Assessment(inputs, _answer_shift((first, second), plan, club, weighting, entropy, inputs, drawn, progress))


def _input_shift(
    pair: tuple[Vectors, Vectors], plan: Plan, weighting: str, progress: Progress, name: str
) -> tuple[InputShift, Tensor]:
    """An input's shift, and its bootstrapped divergences."""
    comparison = Comparison.of(*pair, weighting)
    moments = group_moments(pair, plan.groups)
    bootstrap = bootstrapped(moments, plan.drawn, comparison.weight, progress, f"Resample {name}")
    chance = permuted(moments, plan.dealt, comparison.weight, progress, f"Permute {name}")
    debiased = chance.debiased_interval(comparison.value, comparison.ceiling(), bootstrap)
    estimate = with_interval(comparison.value, bootstrap, least=0.0)
    shift = InputShift(
        Divergence(estimate, debiased, chance.p_value, comparison.few),
        (comparison.contributions(pair[0], 0), comparison.contributions(pair[1], 1)),
        top_directions(comparison, *pair),
    )
    return shift, bootstrap


def _answer_shift(
    sides: tuple[Side, Side],
    plan: Plan,
    club: Club,
    weighting: str,
    entropy: float | None,
    inputs: Mapping[str, InputShift],
    drawn: Mapping[str, Tensor],
    progress: Progress,
) -> AnswerShift:
    """The shift of the answers, given that of the inputs and its bootstrapped divergences."""
    emi, answers = [], []
    for side, group, times in zip(sides, plan.groups, plan.drawn, strict=True):
        emi.append(_emi(side, group, times, club, progress))
        answers.append(_answers_apart(side, group, times, weighting, progress))
    given = [torch.tensor(each.divergence.estimate.value) for each in inputs.values()]
    values = bounds(given, [torch.tensor(divergence.estimate.value) for divergence, _ in answers], entropy)
    spreads = bounds(list(drawn.values()), [spread for _, spread in answers], entropy)
    limits = [
        None if value is None or spread is None else with_interval(float(value), spread, 0.0)
        for value, spread in zip(values, spreads, strict=True)
    ]
    assert limits[0] is not None
    return AnswerShift(
        (with_interval(*emi[0][:2]), with_interval(*emi[1][:2])),
        with_interval(emi[0][0] - emi[1][0], emi[0][1] - emi[1][1]),
        (answers[0][0], answers[1][0]),
        limits[0],
        limits[1],
        (emi[0][2], emi[1][2]),
    )


def _emi(side: Side, group: Tensor, times: Tensor, club: Club, progress: Progress) -> tuple[float, Tensor, Tensor]:
    """EMI of a set, of its bootstrapped sets (R,), and what each row adds to it (N,)."""
    progress("Estimate EMI", 0, 1)
    groups = times.shape[1]
    kept = torch.ones(len(side), dtype=torch.bool) if side.training is None else ~side.training
    if not kept.any():
        raise ValueError("The estimator was trained on all samples of a view: none is left to estimate EMI on.")
    # Rows that are in no group of the plan count for the value alone.
    own = torch.where(kept, torch.where(group < 0, groups, group), -1)
    response, reference = club_pass(club, side.question(), side.answers(), own, groups + 1)
    weights = torch.cat([times, torch.zeros(len(times), 1)], 1)
    spread = response.terms.estimate(weights) - reference.terms.estimate(weights)
    rows = torch.where(kept, response.rows - reference.rows, torch.nan)
    return float(rows[kept].mean()), spread, rows


def _answers_apart(
    side: Side, group: Tensor, times: Tensor, weighting: str, progress: Progress
) -> tuple[Divergence, Tensor]:
    """The divergence of a set's responses and references, and of its bootstrapped sets: rows are drawn as pairs."""
    pair = side.vectors["response"], side.vectors["reference"]
    compared = Comparison.of(*pair, weighting)
    moments = group_moments(pair, (group, group))
    spread = bootstrapped(moments, (times, times), compared.weight, progress, "Resample answers")
    return Divergence(with_interval(compared.value, spread, 0.0), None, None, compared.few), spread
