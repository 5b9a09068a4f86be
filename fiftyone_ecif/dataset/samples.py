"""Which samples a collection means, and how many they are, where FiftyOne alone would look at one slice or guess."""

from __future__ import annotations

from collections.abc import Sequence

import fiftyone as fo
from fiftyone.core.collections import SampleCollection

READ_WHOLE = 100_000
"""Samples from which on a dataset is read as a whole, since the database takes only so many ids in a query."""


def ungrouped(samples: SampleCollection) -> SampleCollection:
    """The collection itself; of a grouped one the images of all its slices, of which FiftyOne would look at one alone.

    Args:
        samples: Dataset or view

    Returns:
        a flat collection
    """
    if samples.media_type != fo.core.media.GROUP:
        return samples
    return samples.flatten() if samples._is_dynamic_groups else samples.select_group_slices(media_type="image")


def everything(samples: SampleCollection) -> SampleCollection:
    """All images of the dataset that a collection is of: what a run's samples are found in, whatever their slice."""
    return ungrouped(samples._dataset)


def those(samples: SampleCollection, ids: Sequence[str]) -> SampleCollection:
    """The samples of these ids in the dataset of a collection; all of it where the ids are too many for a query."""
    found = everything(samples)
    return found if len(ids) > READ_WHOLE else found.select(ids)


def in_order(samples: SampleCollection, ids: list[str]) -> fo.DatasetView:
    """The samples of these ids, in their order, which is left to the database where it is its own: sorting is slow."""
    plain = samples.select(ids)
    present = set(found := plain.values("id"))
    return plain if found == [id for id in ids if id in present] else samples.select(ids, ordered=True)


def number_of(samples: SampleCollection) -> int:
    """How many samples there are, counted: ``len`` of a dataset is an estimate, wrong after its database crashed."""
    return samples.count("id")
