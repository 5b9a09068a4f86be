"""What a run can be asked for: checks shared by the SDK and the App's forms. Cheap: no tensors, no models."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import Any

import fiftyone as fo
from fiftyone.core.collections import SampleCollection

from fiftyone_ecif.dataset.arguments import Samples, shown
from fiftyone_ecif.dataset.fields import FIELDS, METHOD, RUN_FIELDS
from fiftyone_ecif.dataset.samples import number_of

_LIKELY_NAMES = ("caption", "captions", "text", "prompt", "title", "description", "alt_text", "ground_truth", "label")
_NEVER_TEXT = ("id", "filepath")

LONGEST_RUN_KEY = 100
"""Characters; the names of the run's fields begin with them."""


def text_fields(collection: SampleCollection) -> list[str]:
    """Fields that can serve as captions: strings and classifications, the likeliest first.

    Args:
        collection: a Dataset or view

    Returns:
        field names; empty if there is none
    """
    schema = collection.get_field_schema()
    of_runs = {field.name(key) for key in collection.list_runs() for field in RUN_FIELDS}
    names = [
        name
        for name, field in schema.items()
        if name not in _NEVER_TEXT and name not in of_runs and (_is_text(field) or _is_classification(field))
    ]
    return sorted(names, key=lambda name: _LIKELY_NAMES.index(name) if name in _LIKELY_NAMES else len(_LIKELY_NAMES))


def check_text_field(collection: SampleCollection, name: str) -> None:
    """Raise a ValueError unless the field exists and holds captions or labels: strings or classifications."""
    field = check_field(collection, name)
    if name in _NEVER_TEXT:
        raise ValueError(f"Field {name!r} says where a sample is, not what it shows: choose a field with captions.")
    if isinstance(field, fo.ListField) and isinstance(field.field, (fo.StringField, type(None))):
        raise ValueError(
            f"Field {name!r} holds a list of texts per sample, and a pair has one: "
            f"ecif.one_caption_per_sample(samples, {name!r}) makes a dataset with a sample for each of them."
        )
    if not (_is_text(field) or _is_classification(field)):
        kind = field.document_type if isinstance(field, fo.EmbeddedDocumentField) else type(field)
        raise ValueError(f"Field {name!r} holds {kind.__name__}: captions are a StringField or a Classification field.")


def check_field(collection: SampleCollection, name: str) -> fo.Field:
    """The field of this name; raises a ValueError with the nearest names if there is none."""
    if not isinstance(name, str):
        raise ValueError(f"A field is named by a text, not by {type(name).__name__}.")
    field = collection.get_field(name)
    if field is None:
        near = difflib.get_close_matches(name, collection.get_field_schema(), n=3)
        hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
        raise ValueError(f"There is no field {shown(name)}.{hint}")
    return field


def is_classification_field(collection: SampleCollection, name: str) -> bool:
    """Whether captions come from class labels and templates."""
    return _is_classification(check_field(collection, name))


def check_run_key(collection: SampleCollection, run_key: str, overwrite: bool = False, method: str = METHOD) -> None:
    """Raise a ValueError unless the key can name a new run, or replace one of its method if ``overwrite``."""
    if not isinstance(run_key, str) or not run_key.isidentifier() or run_key.startswith("_"):
        raise ValueError(
            f"Run key {shown(run_key)} cannot be used: take letters, digits and underscores, starting with a letter."
        )
    if len(run_key) > LONGEST_RUN_KEY:
        raise ValueError(f"The run key has {len(run_key):,} characters; at most {LONGEST_RUN_KEY} can be used.")
    dataset = collection._dataset
    if run_key in dataset.list_runs():
        if dataset.get_run_info(run_key).config.method != method:
            raise ValueError(f"Run key {run_key!r} belongs to a run of another kind: choose another key.")
        if not overwrite:
            raise ValueError(
                f"Run key {run_key!r} is in use: choose another, or have the run replaced (overwrite=True)."
            )
        for name in (field.name(run_key) for field in RUN_FIELDS):
            if getattr(dataset.get_field(name), "read_only", False):
                raise ValueError(f"Field {name!r} is read-only, so its run cannot change: set its read_only to False.")
        return
    taken = [name for field in RUN_FIELDS if dataset.has_sample_field(name := field.name(run_key))]
    if taken:
        raise ValueError(
            f"The dataset already has a field {taken[0]!r} that no run {run_key!r} owns: choose another run key."
        )


def score_field(collection: SampleCollection, run_key: str, suffix: str) -> str:
    """The name of a run's score field.

    Args:
        collection: a Dataset or view of the run's data set
        run_key: the run's key
        suffix: of the field

    Raises:
        ValueError: if the field is not there: nothing may be concluded from what is not
    """
    check_view(collection)
    field = FIELDS[suffix]
    name = field.name(run_key)
    if not collection._dataset.has_sample_field(name):
        if field.lacking:
            raise ValueError(
                f"There is no field {name!r} ({field.lacking}). Where it was deleted, compute the run again."
            )
        raise ValueError(f"Field {name!r} was deleted: compute run {run_key!r} again.")
    return name


def check_collection(collection: SampleCollection, what: str = "samples") -> None:
    """Raise a ValueError unless the collection is a non-empty flat collection of images."""
    Samples()(what, collection)
    check_flat(collection, what)
    if number_of(collection) == 0:
        raise ValueError(f"{what} is empty: there is no sample in it.")
    if collection.media_type != fo.core.media.IMAGE:
        raise ValueError(f"{what} holds media of type {collection.media_type!r}: ECIF scores images with captions.")
    if collection._is_generated:
        raise ValueError(f"{what} is a view of generated patches, frames or clips: pass the samples themselves.")


def check_flat(collection: SampleCollection, what: str = "samples") -> None:
    """Raise a ValueError if the collection is grouped, where it is not for us to say which of its slices is meant."""
    if collection.media_type == fo.core.media.GROUP:
        raise ValueError(
            f"{what} is a grouped collection: choose the slice that holds the images with select_group_slices()."
        )
    check_view(collection)


def check_view(collection: SampleCollection) -> None:
    """Raise a ValueError if a view asks for a run's field that is gone: FiftyOne would find nothing there, or all."""
    if not isinstance(collection, fo.DatasetView):
        return
    schema = collection._dataset.get_field_schema()
    endings = tuple(f"_{field.suffix}" for field in RUN_FIELDS)
    for name in _asked_for(collection._serialize(include_uuids=False)):
        if name not in schema and name.endswith(endings):
            raise ValueError(
                f"The view asks for the field {name!r}, which was deleted or renamed: make the view anew, or compute "
                "that run again."
            )


def _asked_for(value: Any) -> Iterator[str]:
    """The names of the fields that stages, or parts of them as FiftyOne stores them, speak of."""
    if isinstance(value, str) and value.startswith("$") and not value.startswith("$$"):
        yield value[1:].partition(".")[0]
    elif isinstance(value, dict):
        for key, part in value.items():
            if not key.startswith("$"):
                yield key.partition(".")[0]
            yield from _asked_for(part)
    elif isinstance(value, list):
        if len(value) == 2 and value[0] in ("field", "field_or_expr") and isinstance(value[1], str):
            yield value[1].partition(".")[0]
        for part in value:
            yield from _asked_for(part)


def _is_text(field: fo.Field) -> bool:
    return isinstance(field, fo.StringField)


def _is_classification(field: fo.Field) -> bool:
    return isinstance(field, fo.EmbeddedDocumentField) and field.document_type is fo.Classification
