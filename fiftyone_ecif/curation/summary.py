"""A run in a few numbers, as pictures show it. All of it is aggregated in the database: no sample is loaded."""

from __future__ import annotations

from dataclasses import dataclass

import fiftyone as fo
import numpy as np
from fiftyone import ViewField as F
from fiftyone.core.collections import SampleCollection

from fiftyone_ecif.curation.fields import FIELDS, MISALIGNED_TAG, REJECTED_TAG, TRUSTED_TAG

BINS = 40
FINE_BINS = 200
CURVE_POINTS = 60


def misalignment_histogram(samples: SampleCollection, run_key: str, bins: int = BINS) -> tuple[np.ndarray, np.ndarray]:
    """How many pairs have which misalignment.

    Args:
        samples: Dataset or view
        run_key: the run
        bins: of equal width, from 0 to 1

    Returns:
        counts, (bins,) int64, and edges, (bins + 1,)
    """
    path = f"${FIELDS['misalignment'].name(run_key)}"
    # Not `histogram_values`: its time grows with the number of bins. 1 belongs to the last bin.
    number = {"$min": [{"$floor": {"$multiply": [path, bins]}}, bins - 1]}
    grouped = samples.match(F(path[1:]) >= 0)._aggregate(
        post_pipeline=[{"$group": {"_id": number, "count": {"$sum": 1}}}]
    )
    counts: np.ndarray = np.zeros(bins, dtype=np.int64)
    for group in grouped:
        counts[int(group["_id"])] = group["count"]
    return counts, np.linspace(0.0, 1.0, bins + 1)


@dataclass(frozen=True)
class Suspects:
    """The pairs at or above a threshold.

    Attributes:
        scored: pairs with a misalignment
        expected_wrong: how many of all are expected to be wrong: the sum of the probabilities
        count: pairs at or above the threshold
        expected_precision: the share of these that is expected to be wrong; None where there are none
    """

    scored: int
    expected_wrong: float
    count: int
    expected_precision: float | None


def suspects(samples: SampleCollection, run_key: str, threshold: float) -> Suspects:
    """What a threshold gives, by the calibrated probabilities alone.

    Args:
        samples: Dataset or view
        run_key: the run
        threshold: 0 to 1

    Returns:
        :class:`Suspects`
    """
    name = FIELDS["misalignment"].name(run_key)
    scored, total = samples.aggregate([fo.Count(name), fo.Sum(name)])
    above, mean = samples.match(F(name) >= threshold).aggregate([fo.Count(name), fo.Mean(name)])
    return Suspects(scored, total or 0.0, above, mean if above else None)


def truth_choices(dataset: fo.Dataset) -> dict[str, str]:
    """What may say which pairs are really wrong: boolean fields, and sample tags other than this package's.

    Args:
        dataset: a Dataset or view

    Returns:
        label by choice, to pass to :func:`measured_precision`
    """
    fields = [name for name, field in dataset.get_field_schema().items() if isinstance(field, fo.BooleanField)]
    tags = set(dataset.distinct("tags")) - {MISALIGNED_TAG, REJECTED_TAG, TRUSTED_TAG}
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


def measured_precision(samples: SampleCollection, run_key: str, truth: str) -> MeasuredPrecision | None:
    """Hold a run against what is known of the data.

    Args:
        samples: Dataset or view
        run_key: the run
        truth: a key of :func:`truth_choices`: which pairs are really wrong

    Returns:
        :class:`MeasuredPrecision`, exact to bins of 1/200; None where no scored pair is wrong
    """
    kind, _, name = truth.partition(":")
    wrong_samples = samples.match_tags(name) if kind == "tag" else samples.match(F(name) == True)  # noqa: E712
    everything, edges = misalignment_histogram(samples, run_key, FINE_BINS)
    wrong, _ = misalignment_histogram(wrong_samples, run_key, FINE_BINS)
    if wrong.sum() == 0:
        return None
    found, shown = wrong[::-1].cumsum(), everything[::-1].cumsum()
    some = shown > 0
    found, shown, threshold = found[some], shown[some], edges[:-1][::-1][some]
    precision, recall = found / shown, found / wrong.sum()
    average = float((np.diff(recall, prepend=0.0) * precision).sum())
    return MeasuredPrecision(threshold, precision, recall, average, int(wrong.sum()))


def removal_curve(samples: SampleCollection, run_key: str, points: int = CURVE_POINTS) -> tuple[np.ndarray, np.ndarray]:
    """Predicted change of the target loss as the most harmful pairs are removed: their values, added up.

    To first order values add (ECIF.md §7); ``estimate_removal`` gives the group's own closed form.

    Args:
        samples: Dataset or view
        run_key: the run
        points: of the curve, at most

    Returns:
        numbers of removed pairs, rising, and changes in nats, (points + 1,) each, from (0, 0)
    """
    name = FIELDS["value"].name(run_key)
    group = {"groupBy": f"${name}", "buckets": points, "output": {"count": {"$sum": 1}, "sum": {"$sum": f"${name}"}}}
    harmful = samples.exists(name).match(F(name) < 0)  # None is less than 0 to the database
    buckets = list(harmful._aggregate(post_pipeline=[{"$bucketAuto": group}]))
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
    names = [FIELDS[suffix].name(run_key) for suffix in ("value_positive", "value_negative", "misalignment")]
    drawn = samples.exists(names[0])
    if len(drawn) > size:
        drawn = drawn.take(size, seed=seed)
    return dict(zip(("id", "positive", "negative", "misalignment"), drawn.values(["id", *names]), strict=True))
