"""Writing a run: its fields, its record and its tensors; all of it or nothing."""

from __future__ import annotations

import uuid
from dataclasses import asdict
from datetime import datetime, timezone
from itertools import chain
from pathlib import Path
from typing import Any

import fiftyone as fo
import numpy as np
import torch
from bson import ObjectId, json_util
from fiftyone.core.collections import SampleCollection
from fiftyone.core.odm.dataset import SampleFieldDocument
from fiftyone.core.odm.runs import RunDocument
from fiftyone.core.odm.utils import create_field
from fiftyone.core.runs import RunConfig, RunResults
from gridfs import GridFS
from safetensors.torch import load_file, save_file
from torch import Tensor

from fiftyone_ecif.attribution import InfluenceOutcome
from fiftyone_ecif.dataset.checks import check_run_key
from fiftyone_ecif.dataset.fields import EVIDENCE_FIELDS, RUN_FIELDS, ScoreField, ownership
from fiftyone_ecif.dataset.run.config import run_field_names, tensor_file
from fiftyone_ecif.dataset.run.database import database, database_mark
from fiftyone_ecif.dataset.run.journal import STAGES, Change, belongings, with_any
from fiftyone_ecif.dataset.run.reload import read_anew
from fiftyone_ecif.dataset.run.writing import change_runs, record_of, writing
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
    vagueness: np.ndarray | None = None,
    candidates: dict[str, fo.Classifications] | None = None,
) -> Columns:
    """The values of the run's fields; None where there is no finite value.

    Args:
        outcome: scores in the order of ``ids``
        found: misalignment, likewise
        ids: sample ids
        suggestions: by sample id
        evidence: whether each kind of evidence gets a field
        vagueness: how little each text says, likewise; None for none
        candidates: by sample id; None where there are no texts

    Returns:
        :data:`Columns`
    """
    scores = asdict(outcome.scores) | {"misalignment": torch.from_numpy(found.probability)}
    if vagueness is not None:
        scores["vagueness"] = torch.from_numpy(vagueness)
    if evidence:
        scores |= {EVIDENCE_FIELDS[kind].suffix: torch.from_numpy(part) for kind, part in found.evidence.items()}
    columns: Columns = {"suggestion": dict(suggestions)}
    if candidates is not None:
        columns["candidates"] = dict(candidates)
    for suffix, values in scores.items():
        columns[suffix] = {
            id: value if np.isfinite(value) else None for id, value in zip(ids, values.double().tolist(), strict=True)
        }
    return columns


def write_run(
    samples: SampleCollection,
    run_key: str,
    config: RunConfig,
    columns: Columns,
    record: dict,
    tensors: dict[str, Tensor],
    overwrite: bool,
) -> None:
    """Write a complete run; if anything fails, the dataset is left as it was, at the latest by the next call.

    Args:
        samples: what was scored
        run_key: its key
        config: what it was asked for
        columns: its fields' values
        record: what is kept about it in the database; small
        tensors: what is kept about it on disk; large
        overwrite: whether to replace a run of that key, after the new one is complete

    Raises:
        ValueError: if the key was taken meanwhile, or a field of the replaced run is read-only
        ConnectionError: if the database stops answering
    """
    dataset = samples._dataset
    with writing(dataset) as lease:
        check_run_key(dataset, run_key, overwrite, config.method)
        replaced = record_of(dataset, run_key) if run_key in dataset.list_runs() else None
        config.tensors = number = uuid.uuid4().hex
        stage = STAGES + number
        born: dict[str, Any] = {"run": ObjectId(), "results": ObjectId(), "tensors": number}
        fields = [field for field in RUN_FIELDS if field.suffix in columns]
        former = [] if replaced is None else run_field_names(dataset, run_key)
        change = Change(
            dataset._doc.id,
            dataset._sample_collection_name,
            before={} if replaced is None else {run_key: replaced["_id"]},
            after={run_key: born["run"]},
            added=[declaration(field, run_key, number) for field in fields],
            removed=former,
            indexed=[field.name(run_key) for field in fields if field.indexed],
            shown=[] if config.text_field is None else [config.text_field],
            stage=stage,
            born=born,
            gone=None if replaced is None else belongings(replaced),
        )

        def prepare() -> None:
            _save_tensors(tensors, tensor_file(config))
            _stage_values(stage, {field.name(run_key): columns[field.suffix] for field in fields})
            _stage_former(stage, dataset, former)
            _save_record(samples, run_key, config, record, born)

        change_runs(dataset, change, lease, prepare)


def declaration(field: ScoreField, run_key: str, tensors: str) -> dict[str, Any]:
    """A field as the dataset's document declares it, marked as its run's."""
    name = field.name(run_key)
    made = create_field(
        name,
        field.ftype,
        embedded_doc_type=field.embedded,
        subfield=field.subfield,
        fields=[create_field(*part) for part in (field.parts or {}).items()] or None,
        description=field.description,
        info=ownership(name, tensors),
    )
    made.db_field = name
    made._set_created_at(datetime.now(timezone.utc).replace(tzinfo=None))
    return SampleFieldDocument.from_field(made).to_dict()


def _save_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    """Write a run's tensors beside their place, then put them there; they say which database knows the run."""
    part = path.with_suffix(".part")
    save_file({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, part, database_mark())
    part.replace(path)


def _stage_values(stage: str, columns: Columns) -> None:
    """Put values, by field name, where they wait for the change, one document per sample."""
    ids = list(dict.fromkeys(chain.from_iterable(columns.values())))
    for start in range(0, len(ids), TOGETHER):
        batch = []
        for id in ids[start : start + TOGETHER]:
            values = {name: _stored(of[id]) for name, of in columns.items() if id in of}
            batch.append({"_id": ObjectId(id), **values})
        database()[stage].insert_many(batch, ordered=False)


def _stage_former(stage: str, dataset: fo.Dataset, former: list[str]) -> None:
    """Put the samples that have values of the replaced run there, too: some may get none from the new one."""
    if former:
        into = {"into": stage, "on": "_id", "whenMatched": "keepExisting", "whenNotMatched": "insert"}
        dataset._sample_collection.aggregate([{"$match": with_any(former)}, {"$project": {"_id": 1}}, {"$merge": into}])


def _save_record(
    samples: SampleCollection, run_key: str, config: RunConfig, record: dict, born: dict[str, Any]
) -> None:
    """Save the run's record and its results as FiftyOne does, under the ids that were drawn for them."""
    stages = None
    if isinstance(samples, fo.DatasetView):
        stages = [json_util.dumps(stage) for stage in samples._serialize(include_uuids=False)]
    document = RunDocument(
        id=born["run"],
        dataset_id=samples._dataset._doc.id,
        key=run_key,
        version=fo.__version__,
        timestamp=datetime.now(timezone.utc).replace(tzinfo=None),
        config=config.serialize(),
        view_stages=stages,
    )
    results = RunResults(samples, config, run_key, **record).serialize()
    kind = {"content_type": "application/json", "_id": born["results"]}
    document.results.put(json_util.dumps(results).encode(), **kind)
    document.save(upsert=True)


def replace_results(dataset: fo.Dataset, run_key: str, **changed: Any) -> None:
    """Change what a run keeps about itself in the database; the former is there until the new is.

    Args:
        dataset: the dataset
        run_key: the run's key
        changed: the new values by name
    """
    with writing(dataset):
        record = record_of(dataset, run_key)
        files, former = GridFS(database()), record["results"]
        kept = json_util.loads(files.get(former).read().decode()) | changed
        new = files.put(json_util.dumps(kept).encode(), content_type="application/json")
        database().runs.update_one({"_id": record["_id"]}, {"$set": {"results": new}})
        files.delete(former)
        dataset._run_cache.pop(run_key, None)
        read_anew(dataset)


def _stored(value: object) -> object:
    """A field's value as the database keeps it."""
    return value.to_dict() if isinstance(value, fo.Label) else value


def load_tensors(config: RunConfig) -> dict[str, Tensor]:
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
