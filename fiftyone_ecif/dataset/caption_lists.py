"""Datasets with several captions per image, as COCO has them: one pair for each of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import fiftyone as fo
from fiftyone.core.collections import SampleCollection

from fiftyone_ecif.dataset.arguments import Flag, Samples, Text, checked
from fiftyone_ecif.dataset.checks import check_collection, check_field
from fiftyone_ecif.dataset.fields import RUN_FIELDS
from fiftyone_ecif.notes import note

ADDED = {
    "source_id": (fo.StringField, "The id of the sample that this pair was made of"),
    "caption_number": (fo.IntField, "The place of the caption in that sample's list, from 0"),
}
"""What each pair says of where it comes from."""


@checked(samples=Samples(), captions=Text(), text_field=Text(), name=Text(), persistent=Flag())
def one_caption_per_sample(
    samples: SampleCollection,
    captions: str,
    text_field: str = "caption",
    name: str | None = None,
    persistent: bool = False,
) -> fo.Dataset:
    """Make a dataset with one sample for every caption of every image, to compute influence on.

    Each sample has the caption in ``text_field``, the id of the sample that it comes from in ``source_id``, and the
    caption's place in the list in ``caption_number``; it keeps all other fields but those of runs and groups. The media
    are shared. The given samples stay as they are.

    Args:
        samples: Dataset or view of images
        captions: a ListField of strings
        text_field: the new StringField
        name: of the new dataset; None to let FiftyOne choose
        persistent: whether the new dataset stays when the database is closed

    Returns:
        the new dataset

    Raises:
        ValueError: if the field does not hold lists of texts, there is such a field or dataset already, or no caption
    """
    check_collection(samples)
    field = check_field(samples, captions)
    if not (isinstance(field, fo.ListField) and isinstance(field.field, (fo.StringField, type(None)))):
        raise ValueError(f"Field {captions!r} does not hold lists of texts, one list per sample.")
    taken = [new for new in (text_field, *ADDED) if new != captions and samples.get_field(new) is not None]
    if taken:
        raise ValueError(f"There is a field {taken[0]!r} already: rename it, or choose another text_field.")
    if name is not None and fo.dataset_exists(name):
        raise ValueError(f"There is a dataset {name!r} already: choose another name.")
    group = samples._dataset.group_field
    left_out = [captions, *_run_fields(samples), *([] if group is None else [group])]
    made = samples.exclude_fields(left_out).limit(0).clone(name=name, persistent=persistent)
    try:
        made.add_sample_field(text_field, fo.StringField, description=f"One of the texts in {captions}")
        for new, (kind, description) in ADDED.items():
            made.add_sample_field(new, kind, description=description)
        unused: Counter[str] = Counter()
        made.add_samples(_pairs(samples, captions, text_field, left_out, unused), progress=False)
        if made.count("id") == 0:
            raise ValueError(f"There is no caption in the field {captions!r} of these samples.")
    except BaseException:
        made.delete()
        raise
    if unused:
        what = " and ".join(f"{count:,} {reason}" for reason, count in unused.items())
        note(f"Left out: {what}.")
    return made


def _run_fields(samples: SampleCollection) -> list[str]:
    """The fields of the dataset's runs, which are about the samples as they were scored."""
    names = {field.name(key) for key in samples.list_runs() for field in RUN_FIELDS}
    return [name for name in samples.get_field_schema() if name in names]


def _pairs(
    samples: SampleCollection, captions: str, text_field: str, left_out: list[str], unused: Counter[str]
) -> Iterator[fo.Sample]:
    """The new samples; counts what cannot serve."""
    for sample in samples.iter_samples():
        texts = sample[captions] or []
        if not texts:
            unused["samples without a caption"] += 1
        for number, text in enumerate(texts):
            if not isinstance(text, str) or not text.strip():
                unused["captions that are empty or no text"] += 1
                continue
            pair = sample.copy(omit_fields=left_out)
            pair[text_field], pair["source_id"], pair["caption_number"] = text, sample.id, number
            yield pair
