"""The rows of a collection, read once: what a run stands on from its beginning to its end."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import fiftyone as fo
from fiftyone.core.collections import SampleCollection

from fiftyone_ecif.dataset.checks import check_field, check_text_field, is_classification_field
from fiftyone_ecif.dataset.samples import those
from fiftyone_ecif.dataset.tags import tags_of
from fiftyone_ecif.dataset.texts import before_fixes, fixes_field, has_fixes, text_path
from fiftyone_ecif.features import PairRow

_EMBEDDINGS = ("image_embeddings", "text_embeddings")

DEFAULT_TEMPLATES = ("a photo of a {}",)


@dataclass(frozen=True)
class Rows:
    """One snapshot of a collection, in its order. Nothing asks the database for these things again.

    Attributes:
        ids: sample ids, (N,)
        filepaths: of the images, (N,)
        trusted: whether each pair is marked as right, (N,)
        texts: captions or labels as they are written, (N,); None where there is no text field
        templates: what labels are put into; None where the texts are captions
        image_embeddings: vectors that the samples store, (N,); None where they are not used
        text_embeddings: likewise
        apply_orientation: whether the towers see images turned as their EXIF orientation says
    """

    ids: list[str]
    filepaths: list[str]
    trusted: list[bool]
    texts: list[str | None] | None = None
    templates: tuple[str, ...] | None = None
    image_embeddings: Sequence[Any] | None = None
    text_embeddings: Sequence[Any] | None = None
    apply_orientation: bool = False

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def labelled(self) -> bool:
        """Whether the texts are labels."""
        return self.templates is not None

    def of(self, ids: Iterable[str]) -> Rows:
        """The rows of these samples, in their order; ids that have no row are left out."""
        place = {id: row for row, id in enumerate(self.ids)}
        rows = [place[id] for id in ids if id in place]
        shared = ("templates", "apply_orientation")
        columns = {name: column for name, column in vars(self).items() if name not in shared and column is not None}
        taken: dict[str, Any] = {name: [column[row] for row in rows] for name, column in columns.items()}
        return replace(self, **taken)

    def recalled(
        self, ids: Sequence[str], texts: Sequence[str | None] | None, templates: tuple[str, ...] | None
    ) -> Rows:
        """These samples with texts from before; those that have no row have an empty path and no embedding."""
        place = {id: row for row, id in enumerate(self.ids)}

        def taken(column: Sequence[Any], missing: Any) -> list[Any]:
            return [column[place[id]] if id in place else missing for id in ids]

        return Rows(
            list(ids),
            taken(self.filepaths, ""),
            taken(self.trusted, False),
            None if texts is None else list(texts),
            templates,
            None if self.image_embeddings is None else taken(self.image_embeddings, None),
            None if self.text_embeddings is None else taken(self.text_embeddings, None),
            self.apply_orientation,
        )

    def captions(self) -> list[str | None]:
        """What each pair says: its caption, or its label within a template, which is always the same one.

        What is no text stands as it is; it is skipped where the captions are read.

        Raises:
            ValueError: if there is no text field
        """
        if self.texts is None:
            raise ValueError("These pairs were read without a text field: they have no captions.")
        templates = self.templates
        if templates is None:
            return self.texts
        return [
            _template(id, templates).replace("{}", label) if isinstance(label, str) else label
            for id, label in zip(self.ids, self.texts, strict=True)
        ]

    def pair_rows(self) -> list[PairRow]:
        """The rows as the towers read them."""
        rows = zip(self.ids, self.filepaths, self.captions(), strict=True)
        return [PairRow(*row, self.apply_orientation) for row in rows]


def read_rows(
    samples: SampleCollection,
    text_field: str | None = None,
    templates: Sequence[str] | None = None,
    image_embeddings: str | None = None,
    text_embeddings: str | None = None,
    moment: datetime | None = None,
    apply_orientation: bool = False,
) -> Rows:
    """Read a collection, with one query.

    Args:
        samples: Dataset or view of images
        text_field: a StringField, or a Classification field whose labels are put into templates
        templates: with ``{}`` where the label goes; each sample gets one of them, always the same
        image_embeddings: field with a vector of floats per sample
        text_embeddings: likewise
        moment: naive, in UTC: texts are read as they stood then, before fixes that came later; None for now
        apply_orientation: whether the towers shall see images turned as their EXIF orientation says

    Returns:
        :class:`Rows`

    Raises:
        ValueError: if a field does not exist or cannot serve, or a template has no ``{}``
    """
    chosen = None if text_field is None else _checked_templates(samples, text_field, templates)
    paths = {"ids": "id", "filepaths": "filepath", "tags": "tags"}
    if text_field is not None:
        paths["texts"] = text_path(samples, text_field)
        if moment is not None and has_fixes(samples, text_field):
            paths |= {"times": f"{fixes_field(text_field)}.at", "earlier": f"{fixes_field(text_field)}.before"}
    for name, path in zip(_EMBEDDINGS, (image_embeddings, text_embeddings), strict=True):
        if path is not None:
            check_field(samples, path)
            paths[name] = path
    # FiftyOne itself stumbles over lists that hold something else than numbers: they are taken as they are.
    asked = [fo.Values(path, _raw=name in _EMBEDDINGS and _is_list(samples, path)) for name, path in paths.items()]
    columns = dict(zip(paths, samples.aggregate(asked), strict=True))
    trusted = tags_of(samples).trusted
    tags, times, earlier = (columns.pop(name, None) for name in ("tags", "times", "earlier"))
    if moment is not None and times is not None:
        texts = zip(columns["texts"], times, earlier, strict=True)
        columns["texts"] = [before_fixes(text, at, before, moment) for text, at, before in texts]
    trusted_rows = [isinstance(each, list) and trusted in each for each in tags]
    return Rows(**columns, trusted=trusted_rows, templates=chosen, apply_orientation=apply_orientation)


def _is_list(samples: SampleCollection, path: str) -> bool:
    return isinstance(samples.get_field(path), fo.ListField)


def changed_since(rows: Rows, samples: SampleCollection, text_field: str | None) -> tuple[int, int]:
    """What has become of rows since they were read.

    Args:
        rows: read from ``samples``
        samples: Dataset or view
        text_field: that their texts stand in

    Returns:
        the number of rows with another text now, and the number of those that are gone
    """
    known = text_field is not None and samples._dataset.has_sample_field(text_field)
    path = text_path(samples, text_field) if text_field is not None and known else "id"
    now = dict(zip(*those(samples, rows.ids).values(["id", path]), strict=True))
    before = dict(zip(rows.ids, rows.texts if known and rows.texts is not None else rows.ids, strict=True))
    return sum(id in now and now[id] != text for id, text in before.items()), len(before.keys() - now.keys())


def _checked_templates(
    samples: SampleCollection, text_field: str, templates: Sequence[str] | None
) -> tuple[str, ...] | None:
    """The templates for the labels of a field; None where it holds captions."""
    check_text_field(samples, text_field)
    if not is_classification_field(samples, text_field):
        if templates:
            raise ValueError(f"templates go with a Classification field; {text_field!r} holds captions already.")
        return None
    chosen = tuple(templates or DEFAULT_TEMPLATES)
    without = [template for template in chosen if "{}" not in template]
    if without:
        raise ValueError(f"Template {without[0]!r} has no {{}} for the label.")
    return chosen


def _template(id: str, templates: Sequence[str]) -> str:
    """The sample's template: chosen by its id, so that a second run asks for the same captions."""
    return templates[int(hashlib.sha256(id.encode()).hexdigest(), 16) % len(templates)]
