"""Looking through the suspects: which pairs to look at, which are tagged for repair, which were found right."""

from __future__ import annotations

import fiftyone as fo
from fiftyone import ViewField as F
from fiftyone.core.collections import SampleCollection

from fiftyone_ecif.dataset.arguments import PROBABILITY, Samples, Text, checked
from fiftyone_ecif.dataset.checks import score_field
from fiftyone_ecif.dataset.fields import MISALIGNED_TAG, REJECTED_TAG, TRUSTED_TAG
from fiftyone_ecif.dataset.run.config import check_run
from fiftyone_ecif.dataset.texts import fixes_field, has_fixes

SUSPECTED = 0.5
"""Misalignment from which a wrong text is likelier than a right one."""

SUGGESTED_PRECISION = 0.9
"""Share of the suspects that should be wrong, for which a run suggests a threshold."""


@checked(samples=Samples(), tag=Text())
def tag_misaligned(
    samples: SampleCollection, run_key: str, threshold: float = SUSPECTED, tag: str = MISALIGNED_TAG
) -> int:
    """Tag the pairs whose text probably does not belong to the image.

    Args:
        samples: Dataset or view to look at; trusted pairs are left alone
        run_key: the run whose misalignment decides
        threshold: the least misalignment, 0 to 1
        tag: the sample tag

    Returns:
        the number of pairs at or above the threshold, all of which have the tag now

    Raises:
        ValueError: if there is no such run, or the threshold is no probability
    """
    suspects = suspected(samples, run_key, threshold)
    count = len(suspects)
    suspects.tag_samples(tag)
    return count


@checked(samples=Samples())
def suspected(samples: SampleCollection, run_key: str, threshold: float = SUSPECTED) -> fo.DatasetView:
    """The pairs at or above a misalignment, without those marked as fine.

    Args:
        samples: Dataset or view
        run_key: the run
        threshold: 0 to 1

    Returns:
        a view in the order of ``samples``

    Raises:
        ValueError: if there is no such run, or the threshold is no probability
    """
    check_run(samples._dataset, run_key)
    threshold = PROBABILITY("threshold", threshold)
    name = score_field(samples, run_key, "misalignment")
    return samples.match({name: {"$gte": threshold}}).match_tags(TRUSTED_TAG, bool=False)


@checked(samples=Samples())
def harmful(samples: SampleCollection, run_key: str) -> fo.DatasetView:
    """The pairs whose removal would lower the target loss, the most harmful first.

    Args:
        samples: Dataset or view
        run_key: the run

    Returns:
        a view sorted by value, rising
    """
    name = score_field(samples, run_key, "value")
    return samples.match({name: {"$lt": 0}}).sort_by(name)


@checked(samples=Samples())
def mark_as_fine(samples: SampleCollection) -> int:
    """Record that somebody looked at these pairs and found them right: the sample tag "trusted".

    Suggestions are no longer applied to them, they are not tagged or counted as suspects, and the tag "misaligned" is
    taken off. Taking the tag off again (in the App, or with ``untag_samples``) undoes it.

    Args:
        samples: Dataset or view

    Returns:
        the number of samples
    """
    samples.tag_samples(TRUSTED_TAG)
    samples.untag_samples([MISALIGNED_TAG, REJECTED_TAG])
    return len(samples)


@checked(samples=Samples())
def reject(samples: SampleCollection) -> int:
    """Record that somebody looked at these pairs and found neither text nor suggestion right: the tag "rejected".

    They are not shown for review again, and are left out of the cleaned set.

    Args:
        samples: Dataset or view

    Returns:
        the number of samples
    """
    samples.tag_samples(REJECTED_TAG)
    samples.untag_samples(TRUSTED_TAG)
    return len(samples)


@checked(samples=Samples())
def trusted(samples: SampleCollection) -> fo.DatasetView:
    """The pairs that were marked as fine: evidence for a next run, or its target."""
    return samples.match_tags(TRUSTED_TAG)


@checked(samples=Samples())
def to_review(samples: SampleCollection, run_key: str) -> fo.DatasetView:
    """The run's pairs that were neither fixed nor marked as fine nor rejected, the most suspicious first.

    Args:
        samples: Dataset or view
        run_key: the run

    Returns:
        a view sorted by misalignment, falling

    Raises:
        ValueError: if there is no such run
    """
    check_run(samples._dataset, run_key)
    name = score_field(samples, run_key, "misalignment")
    text_field = samples._dataset.get_run_info(run_key).config.text_field
    view = samples.exists(name).match_tags([TRUSTED_TAG, REJECTED_TAG], bool=False)
    if text_field is not None and has_fixes(samples, text_field):
        view = view.match(~(F(fixes_field(text_field)).length() > 0))
    return view.sort_by(name, reverse=True)
