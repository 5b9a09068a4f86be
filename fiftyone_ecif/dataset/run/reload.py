"""A dataset as the database has it now, without breaking the views and samples that a caller holds."""

from __future__ import annotations

from typing import Any

import fiftyone as fo
from fiftyone.core.odm.dataset import SampleFieldDocument


def read_anew(dataset: fo.Dataset) -> None:
    """Reload a dataset, its samples and its fields from the database.

    ``dataset.reload()`` gives the dataset another class of sample documents. Views that were used before keep the
    former one, and can give no sample any more once a field is added. Here the former class learns what has changed.

    Args:
        dataset: the dataset
    """
    kept = dataset._sample_doc_cls
    dataset._reload(hard=True)
    _take_over(kept, dataset._sample_doc_cls, dataset)
    dataset._sample_doc_cls = kept
    dataset._reload_docs(hard=True)


def _take_over(kept: Any, current: Any, dataset: fo.Dataset) -> None:
    """Give a class of sample documents the fields of another one."""
    for name in [name for name in kept._fields if name not in current._fields]:
        kept._undeclare_field(name)
    for name, field in list(current._fields.items()):
        known = kept._fields.get(name)
        if known is None or _document(known) != _document(field):
            kept._declare_field(dataset, name, field)


def _document(field: fo.Field) -> dict[str, Any]:
    """What the dataset's document says of a field, those within it included."""
    found: dict[str, Any] = SampleFieldDocument.from_field(field).to_dict()
    return found
