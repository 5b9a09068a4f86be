"""An audit: pairs drawn at random, whose verdicts say how many pairs of a run are wrong, and how far it is off."""

from __future__ import annotations

from typing import Any

import fiftyone as fo
import numpy as np
from fiftyone import ViewField as F
from fiftyone.core.collections import SampleCollection

from fiftyone_ecif.dataset.arguments import COUNT, Flag, Samples, checked
from fiftyone_ecif.dataset.checks import score_field
from fiftyone_ecif.dataset.fields import AUDIT
from fiftyone_ecif.dataset.repair.review import SUGGESTED_PRECISION, audited
from fiftyone_ecif.dataset.run.run import Run
from fiftyone_ecif.dataset.run.store import replace_results
from fiftyone_ecif.dataset.run.writing import declare
from fiftyone_ecif.dataset.samples import everything, ungrouped
from fiftyone_ecif.dataset.tags import tags_of
from fiftyone_ecif.dataset.texts import fixes_field, has_fixes
from fiftyone_ecif.detect import threshold_for
from fiftyone_ecif.detect.calibration_from_answers import (
    NoiseRate,
    Recalibration,
    draw,
    noise_rate,
    recalibration,
    strata_of,
)


@checked(samples=Samples())
def audit_sample(samples: SampleCollection, run_key: str, size: int = 40, stratified: bool = True) -> fo.DatasetView:
    """Draw pairs at random for a review that says how many of a run's pairs are wrong.

    The draw is kept in the field ``<run_key>_audit``, in place of an earlier one: a larger draw from the same samples
    holds the smaller one, whose verdicts count on. A verdict is what *Review* and the SDK record: ``mark_as_fine`` and
    ``mark_as_empty`` (the caption belongs to its image), ``reject``, and a fix (it does not).

    Args:
        samples: Dataset or view to draw from, as far as its pairs have a score in the run
        run_key: the run
        size: pairs to draw
        stratified: whether suspicious and unsuspicious pairs are drawn apart, so that fewer verdicts say as much; else
            all pairs alike

    Returns:
        a view of the drawn pairs, in random order

    Raises:
        ValueError: if there is no such run, or none of the samples has a score in it
    """
    run, size = Run(samples._dataset, run_key), COUNT("size", size)
    stratified = Flag()("stratified", stratified)
    wanted, probability = set(ungrouped(samples).values("id")), run.misalignment.double().numpy()
    rows = np.flatnonzero([id in wanted for id in run.ids] & np.isfinite(probability))
    if not len(rows):
        raise ValueError(f"None of these samples has a score in run {run_key!r}.")
    number = np.random.default_rng(run.config.seed).random(len(run.ids))[rows]
    stratum = strata_of(probability[rows]) if stratified else np.zeros(len(rows), dtype=np.int64)
    chosen, weight = draw(stratum, number, size)
    drawn = {
        run.ids[rows[row]]: fo.DynamicEmbeddedDocument(
            number=float(number[row]), stratum=int(stratum[row]), weight=float(stands)
        )
        for row, stands in zip(chosen, weight, strict=True)
    }
    declare(run.dataset, run_key, [AUDIT], run.config.tensors)
    name = AUDIT.name(run_key)
    former = dict.fromkeys(everything(run.dataset).exists(name).values("id"))
    run.dataset.set_values(name, former | drawn, key_field="id", dynamic=True)
    return audited(run.dataset, run_key)


def audit(run: Run) -> NoiseRate:
    """See ``InfluenceResults.audit``."""
    _, stratum, weight, answered, wrong = _verdicts(run)
    return noise_rate(stratum, weight, answered, wrong)


def recalibrate(run: Run) -> NoiseRate:
    """See ``InfluenceResults.recalibrate``."""
    rows, stratum, weight, answered, wrong = _verdicts(run)
    found = noise_rate(stratum, weight, answered, wrong)
    judged = run.misalignment.double().numpy()[rows[answered]], weight[answered], wrong[answered]
    _write(run, found, recalibration(*judged))
    return found


def _verdicts(run: Run) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Of the drawn pairs: rows, strata, weights, whether there is a verdict, and whether it is “wrong”."""
    view, tags = audited(everything(run.dataset), run.run_key), tags_of(run.dataset)
    name, text_field = AUDIT.name(run.run_key), run.config.text_field
    row_of = {id: row for row, id in enumerate(run.ids)}
    ids, stratum, weight, given = view.values(["id", f"{name}.stratum", f"{name}.weight", "tags"])
    fixed: list[Any] = [None] * len(ids)
    if text_field is not None and has_fixes(run.dataset, text_field):
        fixed = view.values(F(fixes_field(text_field)).length())
    found = [
        (row_of[id], group, stands, tags.rejected in of or bool(count), bool({tags.trusted, tags.empty} & set(of)))
        for id, group, stands, of, count in zip(ids, stratum, weight, [of or () for of in given], fixed, strict=True)
        if id in row_of
    ]
    if not found:
        raise ValueError(f"No pair is drawn: call ecif.audit_sample(samples, {run.run_key!r}) first.")
    rows, groups, stands, wrong, fine = (np.array(column) for column in zip(*found, strict=True))
    return rows, groups, stands, wrong | fine, wrong


def _write(run: Run, found: NoiseRate, mapped: Recalibration) -> None:
    """Put the recalibrated probabilities into the run's field, and what they say into its record."""
    probability = mapped(run.misalignment.double().numpy())
    there = set(everything(run.dataset).values("id"))
    values = {
        id: float(value) if np.isfinite(value) else None
        for id, value in zip(run.ids, probability, strict=True)
        if id in there
    }
    run.dataset.set_values(score_field(run.dataset, run.run_key, "misalignment"), values, key_field="id")
    finite = probability[np.isfinite(probability)]
    said = vars(found) | vars(mapped)
    rate = float(finite.mean())
    health = run.health | dict(
        noise_rate=rate,
        noise_interval=[min(found.low, rate), max(found.high, rate)],
        suggested_threshold=threshold_for(finite, SUGGESTED_PRECISION),
        audit=said,
    )
    replace_results(run.dataset, run.run_key, health=health)
