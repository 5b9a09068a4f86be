"""Pairs as one slice of a grouped dataset, which is not the one that FiftyOne looks at."""

import fiftyone as fo


def as_slice(pairs: fo.Dataset, run_key: str, other: str = "{}") -> fo.Dataset:
    """A grouped dataset whose slice "left" holds the pairs of a dataset, in their order.

    Args:
        pairs: the dataset
        run_key: a run of it that is left behind, with its fields
        other: path of the media in the default slice "right", where {} stands for the pair's image
    """
    grouped = fo.Dataset()
    grouped.add_group_field("group", default="right")
    samples, left_behind = [], [name for name in pairs.get_field_schema() if name.startswith(f"{run_key}_")]
    for sample in pairs:
        group, pair = fo.Group(), sample.copy(omit_fields=left_behind)
        pair["group"] = group.element("left")
        samples += [pair, fo.Sample(filepath=other.format(sample.filepath), group=group.element("right"))]
    grouped.add_samples(samples)
    return grouped
