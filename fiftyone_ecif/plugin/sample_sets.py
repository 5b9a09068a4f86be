"""Sets of samples that a form names: saved views, sample tags, and the fields whose values part the samples."""

from __future__ import annotations

import fiftyone as fo
from fiftyone.core.collections import SampleCollection

from fiftyone_ecif.dataset.arguments import shown
from fiftyone_ecif.dataset.run.config import run_field_names
from fiftyone_ecif.dataset.samples import everything
from fiftyone_ecif.plugin.forms import one_slice

NAMING = (fo.StringField, fo.BooleanField, fo.IntField)
"""Types of fields whose values may name a cause, or a set."""


def set_choices(dataset: fo.Dataset) -> dict[str, str]:
    """The sets that have names, with their labels: "view:<saved view>" and "tag:<sample tag>"."""
    choices = {f"view:{name}": f"Saved view: {name}" for name in dataset.list_saved_views()}
    return choices | {f"tag:{tag}": f"Sample tag: {tag}" for tag in everything(dataset).distinct("tags")}


def named_set(dataset: fo.Dataset, name: str, called: str) -> fo.DatasetView:
    """The samples of a set.

    Args:
        dataset: the dataset
        name: as :func:`set_choices` gives it
        called: what the set is for, for the message

    Raises:
        ValueError: if there is no such set
    """
    kind, _, of = name.partition(":")
    if kind == "tag":
        return one_slice(dataset).match_tags(of)
    if kind != "view" or not dataset.has_saved_view(of):
        raise ValueError(f"There is no {called} {shown(name)}: it is “view:” and a saved view, or “tag:” and a tag.")
    return dataset.load_saved_view(of)


def without(samples: SampleCollection, others: SampleCollection) -> fo.DatasetView:
    """The samples that are not among others."""
    return samples.exclude(others.values("id"))


def naming_fields(dataset: fo.Dataset) -> list[str]:
    """Tags, and the fields of a dataset whose values may name a cause or a set, those of runs left out."""
    of_runs = {name for run_key in dataset.list_runs() for name in run_field_names(dataset, run_key)}
    plain = [
        name
        for name, field in dataset.get_field_schema(flat=False).items()
        if isinstance(field, NAMING) and name not in ("id", "filepath")
    ]
    labels = dataset.get_field_schema(embedded_doc_type=fo.Classification)
    return ["tags", *(name for name in (*plain, *labels) if name not in of_runs)]
