"""A run in a few numbers, as pictures show it. All of it is aggregated in the database: no sample is loaded."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import fiftyone as fo
import numpy as np
from fiftyone.core.collections import SampleCollection

from fiftyone_ecif.dataset.checks import score_field
from fiftyone_ecif.dataset.fields import EVIDENCE_FIELDS, FIELDS, RUN_FIELDS, SLICE_FIELD
from fiftyone_ecif.dataset.repair.review import SUGGESTED_PRECISION, SUSPECTED, harmful
from fiftyone_ecif.dataset.run.config import list_runs, stored_results
from fiftyone_ecif.dataset.samples import ungrouped
from fiftyone_ecif.dataset.tags import tags_of
from fiftyone_ecif.dataset.texts import has_tag

BINS, FINE_BINS = 40, 200
RANKS = 400
RIVALS = 4
CURVE_POINTS = 60
SURENESS_EDGES = 0.125 * 2.0 ** np.arange(0, 13, 0.25)  # standard errors, from 1/8 to 512, four bins per doubling
SURE = 2.0  # standard errors from which a sign is taken for known
TINY = 1e-300
ROUNDING = 1e-9  # as in detect/threshold.py, which would bring torch into the App's process


@dataclass(frozen=True)
class Suspicion:
    """How likely the captions of some pairs are wrong, by the calibrated probabilities alone.

    Attributes:
        counts: pairs by misalignment, (BINS,) from 0 to 1
        scored: pairs with a misalignment
        expected_wrong: how many of all are expected to be wrong: the sum of the probabilities
        count: pairs at or above the threshold
        expected_precision: the share of these that is expected to be wrong; None where there are none
        suggested: the least threshold from which on SUGGESTED_PRECISION of the pairs are expected to be wrong, as
            ``InfluenceResults.suggested_threshold`` finds it; None where there is none
    """

    counts: list[int]
    scored: int
    expected_wrong: float
    count: int
    expected_precision: float | None
    suggested: float | None


def suspicion(samples: SampleCollection, run_key: str, threshold: float) -> Suspicion:
    """How likely the captions are wrong, and what a threshold gives: one pass, and the values above.

    Args:
        samples: Dataset or view
        run_key: the run
        threshold: 0 to 1

    Returns:
        :class:`Suspicion`
    """
    name = score_field(samples, run_key, "misalignment")
    group = {
        "_id": {"bin": _bin(f"${name}", FINE_BINS), "above": {"$gte": [f"${name}", threshold]}},
        "count": {"$sum": 1},
        "sum": {"$sum": f"${name}"},
    }
    counts: np.ndarray = np.zeros((2, FINE_BINS), dtype=np.int64)  # below and at or above the threshold
    sums: np.ndarray = np.zeros((2, FINE_BINS))
    for part in ungrouped(samples).match({name: {"$gte": 0}})._aggregate(post_pipeline=[{"$group": group}]):
        place = int(part["_id"]["above"]), int(part["_id"]["bin"])
        counts[place], sums[place] = part["count"], part["sum"]
    above, wrong_above = int(counts[1].sum()), float(sums[1].sum())
    return Suspicion(
        counts.sum(0).reshape(BINS, -1).sum(1).tolist(),
        int(counts.sum()),
        float(sums.sum()),
        above,
        wrong_above / above if above else None,
        _suggested(samples, name, counts.sum(0), sums.sum(0)),
    )


def _suggested(samples: SampleCollection, name: str, counts: np.ndarray, sums: np.ndarray) -> float | None:
    """The suggested threshold, which lies in the lowest bin that reaches the precision, or in the next lower one."""
    from_here, wrong_from_here = (part[::-1].cumsum()[::-1] for part in (counts, sums))
    least = SUGGESTED_PRECISION - ROUNDING
    enough = np.flatnonzero((from_here > 0) & (wrong_from_here >= least * from_here))
    if not len(enough):
        return None
    lowest = (int(enough[0]) - 1) / FINE_BINS
    values, held = np.unique(ungrouped(samples).match({name: {"$gte": lowest}}).values(name), return_counts=True)
    expected = (values * held)[::-1].cumsum() / held[::-1].cumsum()
    reached = np.flatnonzero(expected >= least)
    return float(values[::-1][reached[-1]]) if len(reached) else None


def _bin(share: str | dict, bins: int) -> dict:
    """The number of the bin, 0 to ``bins`` - 1, that a share of 1 falls into; what is above is in the last."""
    return {"$min": [{"$floor": {"$multiply": [share, bins]}}, bins - 1]}


def truth_choices(dataset: fo.Dataset) -> dict[str, str]:
    """What may say which pairs are really wrong: boolean fields, and sample tags other than this package's.

    Args:
        dataset: a Dataset or view

    Returns:
        label by choice, to pass to :func:`measured_precision`
    """
    fields = [name for name, field in dataset.get_field_schema().items() if isinstance(field, fo.BooleanField)]
    texts = {tag for tag in ungrouped(dataset).distinct("tags") if isinstance(tag, str)}
    tags = texts - set(asdict(tags_of(dataset)).values())
    return {f"field:{name}": f"Field: {name}" for name in fields} | {
        f"tag:{tag}": f"Tag: {tag}" for tag in sorted(tags)
    }


@dataclass(frozen=True)
class MeasuredPrecision:
    """Precision and recall over all thresholds, measured against a truth.

    Attributes:
        threshold: (T,), falling
        precision: (T,), share of the pairs at or above it that are really wrong
        recall: (T,), share of the really wrong pairs that are at or above it
        average: average precision
        wrong: number of really wrong pairs
    """

    threshold: np.ndarray
    precision: np.ndarray
    recall: np.ndarray
    average: float
    wrong: int


def measured_precision(samples: SampleCollection, run_key: str, truth: str) -> dict[str, MeasuredPrecision]:
    """Hold a run's misalignment, and other scores of the pairs, against what is known of the data.

    The others are the run's value, self-influence and evidence, and the data set's other numeric fields: a CLIP score,
    say. Each of them may rank up or down, whichever finds more.

    Args:
        samples: Dataset or view
        run_key: the run
        truth: a key of :func:`truth_choices`: which pairs are really wrong

    Returns:
        :class:`MeasuredPrecision` by field, the misalignment first and then the best, exact to 1/400 of the pairs;
        empty where no scored pair is wrong
    """
    name = score_field(samples, run_key, "misalignment")
    scored = ungrouped(samples).exists(name)
    own = _ranked(scored, name, truth)
    if own is None:
        return {}
    rivals = {rival: _ranked(scored.exists(rival), rival, truth, both=True) for rival in rival_scores(samples, run_key)}
    known = {rival: found for rival, found in rivals.items() if found is not None}
    best = sorted(known, key=lambda rival: -known[rival].average)[:RIVALS]
    return {name: own} | {rival: known[rival] for rival in best}


def rival_scores(samples: SampleCollection, run_key: str) -> list[str]:
    """The fields that could rank the pairs by suspicion as well as the run's misalignment does."""
    of_runs = {field.name(key) for key in list_runs(samples._dataset) for field in RUN_FIELDS}
    own = [field.name(run_key) for field in (FIELDS["value"], FIELDS["self_influence"], *EVIDENCE_FIELDS.values())]
    floats = samples.get_field_schema(ftype=fo.FloatField)
    return [name for name in floats if name in own or name not in of_runs]


def _ranked(samples: SampleCollection, name: str, truth: str, both: bool = False) -> MeasuredPrecision | None:
    """Precision and recall of a field, falling, or in the better direction; None where no pair is wrong."""
    kind, _, what = truth.partition(":")
    wrong = has_tag(what) if kind == "tag" else {"$eq": [f"${what}", True]}
    buckets = list(
        samples._aggregate(
            post_pipeline=[
                {"$project": {"_id": 0, "score": f"${name}", "wrong": {"$cond": [wrong, 1, 0]}}},
                {
                    "$bucketAuto": {
                        "groupBy": "$score",
                        "buckets": RANKS,
                        "output": {"count": {"$sum": 1}, "wrong": {"$sum": "$wrong"}},
                    }
                },
            ]
        )
    )
    if not any(bucket["wrong"] for bucket in buckets):
        return None
    falling, rising = _curve(buckets[::-1]), _curve(buckets)
    return max(falling, rising, key=lambda curve: curve.average) if both else falling


def _curve(buckets: list[dict]) -> MeasuredPrecision:
    threshold = np.array([bucket["_id"]["min"] for bucket in buckets])
    found = np.cumsum([bucket["wrong"] for bucket in buckets])
    shown = np.cumsum([bucket["count"] for bucket in buckets])
    precision, recall = found / shown, found / found[-1]
    average = float((np.diff(recall, prepend=0.0) * precision).sum())
    return MeasuredPrecision(threshold, precision, recall, average, int(found[-1]))


@dataclass(frozen=True)
class Sureness:
    """How many standard errors the values are away from 0.

    Attributes:
        counts: pairs by |value| in standard errors, between the SURENESS_EDGES; what is beyond counts to the ends
        scored: number of pairs
        sure: how many of these are at least two standard errors away from 0
    """

    counts: np.ndarray
    scored: int
    sure: int


def sureness(samples: SampleCollection, run_key: str) -> Sureness | None:
    """How far the standard errors leave the signs of the values open.

    Args:
        samples: Dataset or view
        run_key: the run

    Returns:
        :class:`Sureness`; None where no pair has a standard error
    """
    value, spread = (score_field(samples, run_key, suffix) for suffix in ("value", "value_std"))
    # Earlier runs kept the standard deviation over rounds in the place of the standard error.
    run = samples._dataset.get_run_info(run_key).config
    parts = 1 if "fit_rounds" in stored_results(samples._dataset, run_key).health else run.rounds
    errors = {"$divide": [{"$abs": f"${value}"}, {"$max": [{"$divide": [f"${spread}", parts**0.5]}, TINY]}]}
    lowest, highest = np.log2(SURENESS_EDGES[[0, -1]])
    doublings = {"$subtract": [{"$log": [{"$max": [errors, SURENESS_EDGES[0]]}, 2]}, lowest]}
    bins = len(SURENESS_EDGES) - 1
    group = {"_id": _bin({"$divide": [doublings, highest - lowest]}, bins), "count": {"$sum": 1}}
    counts: np.ndarray = np.zeros(bins, dtype=np.int64)
    for part in ungrouped(samples).match({spread: {"$gte": 0}})._aggregate(post_pipeline=[{"$group": group}]):
        counts[int(part["_id"])] = part["count"]
    if not counts.any():
        return None
    return Sureness(counts, int(counts.sum()), int(counts[SURENESS_EDGES[:-1] >= SURE].sum()))


@dataclass(frozen=True)
class Disagreement:
    """The suspected pairs, and what their values say of them.

    Attributes:
        suspected: pairs with a misalignment of at least SUSPECTED
        helpful: how many of these have a positive value
    """

    suspected: int
    helpful: int


def disagreement(samples: SampleCollection, run_key: str) -> Disagreement:
    """How many of the pairs whose captions are likely wrong would be missed all the same, says their value.

    Args:
        samples: Dataset or view
        run_key: the run

    Returns:
        :class:`Disagreement`
    """
    value, misalignment = (score_field(samples, run_key, suffix) for suffix in ("value", "misalignment"))
    suspects = ungrouped(samples).match({misalignment: {"$gte": SUSPECTED}})
    return Disagreement(suspects.count(value), suspects.match({value: {"$gt": 0}}).count())


def value_curve(samples: SampleCollection, run_key: str, points: int = CURVE_POINTS) -> tuple[np.ndarray, np.ndarray]:
    """Predicted change of the target loss as the most harmful pairs are removed: their values, added up.

    To first order values add (ECIF.md §7); ``estimate_removal`` gives the group's own closed form.

    Args:
        samples: Dataset or view
        run_key: the run
        points: of the curve, at most

    Returns:
        numbers of removed pairs, rising, and changes in nats, (points + 1,) each, from (0, 0)
    """
    name = score_field(samples, run_key, "value")
    group = {"groupBy": f"${name}", "buckets": points, "output": {"count": {"$sum": 1}, "sum": {"$sum": f"${name}"}}}
    buckets = list(harmful(samples, run_key)._aggregate(post_pipeline=[{"$bucketAuto": group}]))
    counts = np.cumsum([0] + [bucket["count"] for bucket in buckets])
    changes = np.cumsum([0.0] + [bucket["sum"] for bucket in buckets])
    return counts, changes


def roles_sample(samples: SampleCollection, run_key: str, size: int, seed: int = 51) -> dict[str, list]:
    """Positive and negative role of some pairs, drawn at random.

    Args:
        samples: Dataset or view
        run_key: the run
        size: at most so many
        seed: of the draw

    Returns:
        columns "id", "positive", "negative", "misalignment"
    """
    names = [score_field(samples, run_key, suffix) for suffix in ("value_positive", "value_negative", "misalignment")]
    drawn = ungrouped(samples).exists(names[0])
    if len(drawn) > size:
        drawn = drawn.take(size, seed=seed)
    return dict(zip(("id", "positive", "negative", "misalignment"), drawn.values(["id", *names]), strict=True))


@dataclass(frozen=True)
class SliceSummary:
    """A slice of recurring errors, as far as some samples are in it.

    Attributes:
        name: what its pairs have in common
        pairs: how many there are
        misalignment: their mean
    """

    name: str
    pairs: int
    misalignment: float


def slices(samples: SampleCollection, run_key: str) -> list[SliceSummary] | None:
    """The slices that a run's pairs are in, by what was found last.

    Args:
        samples: Dataset or view
        run_key: the run

    Returns:
        those with the most suspicion (pairs times mean misalignment) first; None if they were never looked for
    """
    name, score = SLICE_FIELD.name(run_key), score_field(samples, run_key, "misalignment")
    if not samples.has_sample_field(name):
        return None
    group = {"$group": {"_id": f"${name}", "pairs": {"$sum": 1}, "misalignment": {"$avg": f"${score}"}}}
    members = ungrouped(samples).match({name: {"$type": "string"}})
    rows = [
        SliceSummary(each["_id"], each["pairs"], each["misalignment"] or 0.0)
        for each in members._aggregate(post_pipeline=[group])
    ]
    return sorted(rows, key=lambda each: (-each.pairs * each.misalignment, each.name))
