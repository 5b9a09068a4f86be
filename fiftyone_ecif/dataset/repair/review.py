"""Looking through the suspects: which pairs to look at, which are tagged for repair, which were found right."""

from __future__ import annotations

import fiftyone as fo
from fiftyone import ViewField as F
from fiftyone.core.collections import SampleCollection

from fiftyone_ecif.dataset.arguments import PROBABILITY, SHARE_OF_PAIRS, Choice, Samples, Text, checked
from fiftyone_ecif.dataset.checks import score_field
from fiftyone_ecif.dataset.fields import AUDIT
from fiftyone_ecif.dataset.run.config import check_run
from fiftyone_ecif.dataset.samples import number_of, ungrouped
from fiftyone_ecif.dataset.tags import tags_of
from fiftyone_ecif.dataset.texts import fixes_field, has_fixes

SUSPECTED = 0.5
"""Misalignment from which a wrong text is likelier than a right one."""

ORDERS = {
    "misalignment": "Most suspicious first",
    "vagueness": "Those that say the least first",
    "audit": "Drawn at random for an audit",
}
"""What pairs can be looked through by, in words for a form."""

SUGGESTED_PRECISION = 0.9
"""Share of the suspects that should be wrong, for which a run suggests a threshold."""


@checked(samples=Samples(), tag=Text())
def tag_misaligned(
    samples: SampleCollection, run_key: str, threshold: float = SUSPECTED, tag: str | None = None
) -> int:
    """Tag the pairs whose text probably does not belong to the image.

    Args:
        samples: Dataset or view to look at; trusted pairs are left alone
        run_key: the run whose misalignment decides
        threshold: the least misalignment, 0 to 1
        tag: the sample tag; None for the dataset's own, "misaligned" unless ``set_tags`` has named another

    Returns:
        the number of pairs at or above the threshold, all of which have the tag now

    Raises:
        ValueError: if there is no such run, or the threshold is no probability
    """
    suspects = suspected(samples, run_key, threshold)
    count = len(suspects)
    suspects.tag_samples(tag or tags_of(samples).misaligned)
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
    return ungrouped(samples).match({name: {"$gte": threshold}}).match_tags(tags_of(samples).trusted, bool=False)


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
    return ungrouped(samples).match({name: {"$lt": 0}}).sort_by(name)


@checked(samples=Samples())
def vague(samples: SampleCollection, run_key: str, threshold: float | None = None) -> fo.DatasetView:
    """The pairs, those first whose captions say the least.

    Args:
        samples: Dataset or view
        run_key: the run
        threshold: the least vagueness, 0 to 1; None for all that have one

    Returns:
        a view sorted by vagueness, falling

    Raises:
        ValueError: if the run has none, or the threshold is no share
    """
    name = score_field(samples, run_key, "vagueness")
    least = 0.0 if threshold is None else SHARE_OF_PAIRS("threshold", threshold)
    return ungrouped(samples).match({name: {"$gte": least}}).sort_by(name, reverse=True)


@checked(samples=Samples())
def mark_as_fine(samples: SampleCollection) -> int:
    """Record that somebody looked at these pairs and found them right: the sample tag "trusted", or what
    ``set_tags`` has named in its place.

    Suggestions are no longer applied to them, they are not tagged or counted as suspects, and the tag "misaligned" is
    taken off. Taking the tag off again (in the App, or with ``untag_samples``) undoes it.

    Args:
        samples: Dataset or view

    Returns:
        the number of samples
    """
    tags = tags_of(samples)
    return _judged(samples, tags.trusted, [tags.misaligned, tags.rejected, tags.empty])


@checked(samples=Samples())
def reject(samples: SampleCollection) -> int:
    """Record that somebody looked at these pairs and found neither text nor suggestion right: the tag "rejected",
    or what ``set_tags`` has named in its place.

    They are not shown for review again, and are left out of the cleaned set.

    Args:
        samples: Dataset or view

    Returns:
        the number of samples
    """
    tags = tags_of(samples)
    return _judged(samples, tags.rejected, [tags.trusted])


@checked(samples=Samples())
def mark_as_empty(samples: SampleCollection) -> int:
    """Record that somebody looked at these pairs and found that their captions say nothing about their images: the
    tag "empty_caption", or what ``set_tags`` has named in its place.

    They are not shown for review again, and are left out of the cleaned set.

    Args:
        samples: Dataset or view

    Returns:
        the number of samples
    """
    tags = tags_of(samples)
    return _judged(samples, tags.empty, [tags.trusted])


def _judged(samples: SampleCollection, verdict: str, others: list[str]) -> int:
    """Give samples the tag of a verdict and take those off that it contradicts; returns their number."""
    samples.tag_samples(verdict)
    samples.untag_samples(others)
    return number_of(samples)


@checked(samples=Samples())
def trusted(samples: SampleCollection) -> fo.DatasetView:
    """The pairs that were marked as fine: evidence for a next run, or its target."""
    return ungrouped(samples).match_tags(tags_of(samples).trusted)


@checked(samples=Samples(), order=Choice(ORDERS))
def to_review(samples: SampleCollection, run_key: str, order: str = "misalignment") -> fo.DatasetView:
    """The run's pairs that nobody has fixed, marked as fine or as empty, or rejected.

    Args:
        samples: Dataset or view
        run_key: the run
        order: "misalignment": the most suspicious first; "vagueness": those first whose captions say the least;
            "audit": those alone that were drawn at random, in the order of the draw

    Returns:
        a view in that order

    Raises:
        ValueError: if there is no such run, it has no such field, or nothing was drawn
    """
    check_run(samples._dataset, run_key)
    if order == "audit":
        ordered = audited(samples, run_key)
    else:
        name = score_field(samples, run_key, order)
        ordered = ungrouped(samples).exists(name).sort_by(name, reverse=True)
    text_field = samples._dataset.get_run_info(run_key).config.text_field
    tags = tags_of(samples)
    view = ordered.match_tags([tags.trusted, tags.rejected, tags.empty], bool=False)
    if text_field is not None and has_fixes(samples, text_field):
        view = view.match(~(F(fixes_field(text_field)).length() > 0))
    return view


def audited(samples: SampleCollection, run_key: str) -> fo.DatasetView:
    """The pairs among some samples that ``audit_sample`` drew, in the order of the draw.

    Raises:
        ValueError: if nothing was drawn
    """
    name = AUDIT.name(run_key)
    if not samples._dataset.has_sample_field(name):
        raise ValueError(f"No pairs are drawn: call ecif.audit_sample(samples, {run_key!r}) first.")
    return ungrouped(samples).exists(f"{name}.number").sort_by(f"{name}.number")
