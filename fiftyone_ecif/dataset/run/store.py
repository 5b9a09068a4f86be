"""Writing a run: its fields, its record and its tensors; all of it or nothing."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from itertools import chain

import fiftyone as fo
import numpy as np
import torch
from bson import ObjectId
from fiftyone.core.collections import SampleCollection
from pymongo import UpdateOne
from safetensors.torch import load_file, save_file
from torch import Tensor

from fiftyone_ecif.attribution import InfluenceOutcome
from fiftyone_ecif.dataset.fields import EVIDENCE_FIELDS, RUN_FIELDS
from fiftyone_ecif.dataset.run.config import EcifConfig, tensor_file
from fiftyone_ecif.detect import Misalignment

TOGETHER = 10_000
"""Samples that are sent to the database at a time."""

Columns = dict[str, dict[str, object]]
"""Field suffix → sample id → value."""


def score_columns(
    outcome: InfluenceOutcome,
    found: Misalignment,
    ids: list[str],
    suggestions: dict[str, fo.Classification],
    evidence: bool = False,
) -> Columns:
    """The values of the run's fields; None where there is no finite value.

    Args:
        outcome: scores in the order of ``ids``
        found: misalignment, likewise
        ids: sample ids
        suggestions: by sample id
        evidence: whether each kind of evidence gets a field

    Returns:
        :data:`Columns`
    """
    scores = asdict(outcome.scores) | {"misalignment": torch.from_numpy(found.probability)}
    if evidence:
        scores |= {EVIDENCE_FIELDS[kind].suffix: torch.from_numpy(part) for kind, part in found.evidence.items()}
    columns: Columns = {"suggestion": dict(suggestions)}
    for suffix, values in scores.items():
        columns[suffix] = {
            id: value if np.isfinite(value) else None for id, value in zip(ids, values.double().tolist(), strict=True)
        }
    return columns


def write_run(
    samples: SampleCollection,
    run_key: str,
    config: EcifConfig,
    columns: Columns,
    record: dict,
    tensors: dict[str, Tensor],
    overwrite: bool,
) -> None:
    """Write a complete run; if anything fails, the dataset is left as it was.

    Args:
        samples: what was scored
        run_key: its key
        config: what it was asked for
        columns: its fields' values
        record: what is kept about it in the database; small
        tensors: what is kept about it on disk; large
        overwrite: whether to replace a run of that key, after the new one is complete
    """
    dataset = samples._dataset
    replaces = overwrite and run_key in dataset.list_runs()
    # A run that replaces another is written beside it and takes its key when it is complete.
    key = f"{run_key}_replacement" if replaces else run_key
    config.tensors = uuid.uuid4().hex
    part = tensor_file(config).with_suffix(".part")
    try:
        save_file({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, part)
        part.replace(tensor_file(config))
        fields = [field for field in RUN_FIELDS if field.suffix in columns]
        for field in fields:
            field.add_to(dataset, key)
        _set_together(dataset, {field.name(key): columns[field.suffix] for field in fields})
        for field in fields:
            field.index(dataset, key)
        samples.register_run(key, config, cleanup=False)
        dataset.save_run_results(key, dataset.init_run_results(key, **record), cache=False)
    except BaseException:
        if key in dataset.list_runs():
            dataset.delete_run(key)
        leftover = [name for field in RUN_FIELDS if dataset.has_sample_field(name := field.name(key))]
        dataset.delete_sample_fields(leftover)
        for file in (part, tensor_file(config)):
            file.unlink(missing_ok=True)
        raise
    if replaces:
        dataset.delete_run(run_key)
        dataset.rename_run(key, run_key)


def _set_together(dataset: fo.Dataset, columns: Columns) -> None:
    """Set several fields, by their names, with one update per sample: ``set_values`` takes one per sample and field."""
    ids = list(dict.fromkeys(chain.from_iterable(columns.values())))
    for start in range(0, len(ids), TOGETHER):
        batch, now = ids[start : start + TOGETHER], datetime.now(timezone.utc)
        updates = []
        for id in batch:
            values = {name: _stored(values[id]) for name, values in columns.items() if id in values}
            updates.append(UpdateOne({"_id": ObjectId(id)}, {"$set": {**values, "last_modified_at": now}}))
        dataset._bulk_write(updates, ids=batch)


def _stored(value: object) -> object:
    """A field's value as the database keeps it."""
    return value.to_dict() if isinstance(value, fo.Label) else value


def as_tensor(ids: Sequence[str]) -> Tensor:
    """Sample ids as bytes, uint8 (N, 12): what the database makes of them, too."""
    packed = np.frombuffer(b"".join(ObjectId(id).binary for id in ids), dtype=np.uint8)
    return torch.from_numpy(packed.copy()).view(-1, 12)


def ids_of(kept: Tensor) -> list[str]:
    """The sample ids that :func:`as_tensor` packed."""
    return [bytes(row).hex() for row in kept.numpy()]


def load_tensors(config: EcifConfig) -> dict[str, Tensor]:
    """A run's tensors, memory-mapped.

    Raises:
        ValueError: if they are gone
    """
    try:
        return load_file(tensor_file(config))
    except FileNotFoundError as error:
        raise ValueError(
            "The run's fitted weights are not on this machine: it ran on another, or the cache was emptied. "
            "Compute the run again."
        ) from error
