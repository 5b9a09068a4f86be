"""Pairs out of a dataset: rows to embed, or embeddings that are already stored on the samples."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from fiftyone.core.collections import SampleCollection

from fiftyone_ecif.curation.validation import check_field, check_text_field, is_classification_field
from fiftyone_ecif.features import ArrayPairs, PairRow, stored_embeddings

DEFAULT_TEMPLATES = ("a photo of a {}",)


def pair_rows(samples: SampleCollection, text_field: str, templates: Sequence[str] | None = None) -> list[PairRow]:
    """The collection's pairs, in its order.

    Args:
        samples: Dataset or view of images
        text_field: a StringField, or a Classification field whose labels are put into templates
        templates: with ``{}`` where the label goes; each sample gets one of them, always the same

    Returns:
        one :class:`PairRow` per sample, the caption None where the field is empty

    Raises:
        ValueError: if the field cannot serve, or a template has no ``{}``
    """
    check_text_field(samples, text_field)
    if not is_classification_field(samples, text_field):
        if templates:
            raise ValueError(f"templates go with a Classification field; {text_field!r} holds captions already.")
        ids, filepaths, captions = samples.values(["id", "filepath", text_field])
        return [PairRow(*row) for row in zip(ids, filepaths, captions, strict=True)]
    templates = tuple(templates or DEFAULT_TEMPLATES)
    without = [template for template in templates if "{}" not in template]
    if without:
        raise ValueError(f"Template {without[0]!r} has no {{}} for the label.")
    ids, filepaths, labels = samples.values(["id", "filepath", f"{text_field}.label"])
    return [
        PairRow(id, filepath, None if label is None else _template(id, templates).replace("{}", label))
        for id, filepath, label in zip(ids, filepaths, labels, strict=True)
    ]


def embedding_pairs(samples: SampleCollection, image_embeddings: str, text_embeddings: str) -> ArrayPairs:
    """Pairs from embeddings stored on the samples.

    Args:
        samples: Dataset or view
        image_embeddings: field with a vector of floats per sample
        text_embeddings: likewise, of the same length

    Returns:
        the usable pairs; the others are in ``.skipped`` with their reason

    Raises:
        ValueError: if a field does not exist, or the two do not live in one space
    """
    for name in (image_embeddings, text_embeddings):
        check_field(samples, name)
    ids, image, text = samples.values(["id", image_embeddings, text_embeddings])
    pairs = stored_embeddings(ids, image, text)
    if len(pairs) and pairs.image_dim != pairs.text_dim:
        raise ValueError(
            f"{image_embeddings!r} holds vectors of {pairs.image_dim} numbers and {text_embeddings!r} of "
            f"{pairs.text_dim}: image and text embeddings must come from one model's shared space."
        )
    return pairs


def _template(id: str, templates: Sequence[str]) -> str:
    """The sample's template: chosen by its id, so that a second run asks for the same captions."""
    return templates[int(hashlib.sha256(id.encode()).hexdigest(), 16) % len(templates)]
