"""Which samples a collection means, and how many they are, where FiftyOne alone would look at one slice or guess."""

from __future__ import annotations

import fiftyone as fo
from fiftyone.core.collections import SampleCollection


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


def number_of(samples: SampleCollection) -> int:
    """How many samples there are, counted: ``len`` of a dataset is an estimate, wrong after its database crashed."""
    return samples.count("id")
