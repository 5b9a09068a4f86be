"""The snapshot that a shift run stands on: which samples are in which set, and what each of them says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import fiftyone as fo
from fiftyone.core.collections import SampleCollection

from fiftyone_ecif.dataset.arguments import Text
from fiftyone_ecif.dataset.checks import check_collection, check_field, check_text_field
from fiftyone_ecif.dataset.shift.results import REFERENCE
from fiftyone_ecif.dataset.texts import text_path
from fiftyone_ecif.features.reading import UnreadablePair, check_caption
from fiftyone_ecif.notes import note

LONGEST_NAME = Text(200)
"""What a scenario can be called."""


@dataclass(frozen=True)
class Taken:
    """What was read, once.

    Attributes:
        sets: sample ids by the name of their set, the reference first
        filepaths: by sample id
        texts: by role, by sample id
        vectors: by role, by sample id: what fields with embeddings hold
        skipped: reason by sample id
    """

    sets: dict[str, list[str]]
    filepaths: dict[str, str]
    texts: dict[str, dict[str, str]]
    vectors: dict[str, dict[str, Any]]
    skipped: dict[str, str]

    def usable(self) -> list[str]:
        """The ids of all samples, each once."""
        return list(dict.fromkeys(id for ids in self.sets.values() for id in ids if id not in self.skipped))


def named_sets(
    reference: SampleCollection, others: SampleCollection | Mapping[str, SampleCollection]
) -> dict[str, SampleCollection]:
    """The sets by their names, the reference first.

    Raises:
        ValueError: if they are no sets of one data set, or have no names
    """
    if isinstance(others, SampleCollection):
        others = {"other": others}
    if not isinstance(others, Mapping) or not others:
        raise ValueError(
            "other_view must be a Dataset or view, or a dictionary of them by the names of their scenarios, not "
            f"{type(others).__name__}."
        )
    for name in others:
        if not LONGEST_NAME("The name of a scenario", name).strip() or name == REFERENCE:
            raise ValueError(f"A scenario cannot be called {name!r}: it needs a name, and not {REFERENCE!r}.")
    sets = {REFERENCE: reference, **others}
    for name, view in sets.items():
        check_collection(view, f"The set {name!r}")
        if view._dataset is not reference._dataset:
            raise ValueError(
                f"The set {name!r} is of dataset {view._dataset.name!r}, and the reference of "
                f"{reference._dataset.name!r}: a run writes its fields to one dataset. Put both into one, as by "
                "dataset.add_collection()."
            )
    return sets


def read(sets: Mapping[str, SampleCollection], text_fields: Mapping[str, str], embeddings: Mapping[str, str]) -> Taken:
    """Read the sets, once each.

    Args:
        sets: by :func:`named_sets`
        text_fields: by role
        embeddings: fields with vectors, by role

    Raises:
        ValueError: if a field does not exist or cannot serve, or none of a set can be used
    """
    taken = Taken({}, {}, {role: {} for role in text_fields}, {role: {} for role in embeddings}, {})
    for name, view in sets.items():
        paths = {"id": "id", "filepath": "filepath"}
        for role, field in text_fields.items():
            check_text_field(view, field)
            paths[f"text {role}"] = text_path(view, field)
        for role, field in embeddings.items():
            check_field(view, field)
            paths[f"vector {role}"] = field
        raw = {path: isinstance(view.get_field(path), fo.ListField) for path in paths.values()}
        values = view.aggregate([fo.Values(path, _raw=raw[path]) for path in paths.values()])
        columns = dict(zip(paths, values, strict=True))
        ids = columns["id"]
        taken.sets[name] = list(dict.fromkeys(ids))
        if len(taken.sets[name]) < len(ids):
            note(f"{len(ids) - len(taken.sets[name])} samples stand more than once in the set {name!r}: once counts.")
        taken.filepaths.update(zip(ids, columns["filepath"], strict=True))
        for role in embeddings:
            taken.vectors[role].update(zip(ids, columns[f"vector {role}"], strict=True))
        for role in text_fields:
            _check_texts(taken, role, dict(zip(ids, columns[f"text {role}"], strict=True)))
    check_some_left(taken)
    return taken


def _check_texts(taken: Taken, role: str, texts: Mapping[str, Any]) -> None:
    """Keep the texts that are some, and the reason why others cannot serve."""
    for id, text in texts.items():
        try:
            taken.texts[role][id] = check_caption(text)
        except UnreadablePair as fault:
            taken.skipped.setdefault(id, fault.reason.replace("caption", role))


def check_some_left(taken: Taken) -> None:
    """Raise a ValueError with a reason if a set has fewer than two samples that can be used."""
    for name, ids in taken.sets.items():
        if sum(id not in taken.skipped for id in ids) < 2:
            reason = next((taken.skipped[id] for id in ids if id in taken.skipped), "there are too few")
            raise ValueError(
                f"Of the set {name!r}, fewer than two of {len(ids)} samples can be used. For example: {reason}."
            )


def overlap(taken: Taken) -> dict[str, int]:
    """How many samples of each other set are in the reference, too."""
    reference = set(taken.sets[REFERENCE])
    found = {name: len(reference & set(ids)) for name, ids in taken.sets.items() if name != REFERENCE}
    return {name: count for name, count in found.items() if count}
