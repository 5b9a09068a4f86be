"""What crashes left: found in the database and the cache folder, and removed where asked for.

Only what this package provably made is removed: rights and changes in its own collections, fields that carry the mark
of a run that is gone, files that carry the mark of this database.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from fiftyone_ecif.cache import cache_folder
from fiftyone_ecif.dataset.fields import ownership
from fiftyone_ecif.dataset.run.database import database, database_mark, plain_errors
from fiftyone_ecif.dataset.run.files import delete_files, is_name
from fiftyone_ecif.dataset.run.journal import STAGES, Change, journals, make
from fiftyone_ecif.dataset.run.lease import Busy, held, is_free, leases
from fiftyone_ecif.dataset.run.writing import lock_of, recover

OLD = 24 * 60 * 60
"""Seconds after which a file that no run names is taken for a crash's, and not for one that is being written."""


def examine(apply: bool) -> list[str]:
    """Find what crashes left.

    Args:
        apply: whether to remove it, too

    Returns:
        one line for each thing, in plain words

    Raises:
        ConnectionError: if the database stops answering
    """
    with plain_errors("while it was examined"):
        return [
            *_changes(apply),
            *_rights(apply),
            *_stages(apply),
            *_fields(apply),
            *_files(apply),
        ]


def _changes(apply: bool) -> Iterator[str]:
    """Changes that were begun and not ended, by jobs that are dead."""
    for document in list(journals().find({}, {"after": 1, "before": 1})):
        right = leases().find_one({"_id": lock_of(document["_id"])})
        if right is not None and not is_free(right):
            continue
        if apply:
            try:
                recover(document["_id"])
            except Busy:
                continue  # it is being made, after all
        keys = " and ".join(sorted({*document["before"], *document["after"]}))
        yield f"a half-written change of run {keys} in dataset {_name(document['_id'])}"


def _rights(apply: bool) -> Iterator[str]:
    """Rights of jobs that are dead."""
    for right in [right for right in leases().find() if is_free(right)]:
        if apply:
            leases().delete_one({"_id": right["_id"], "owner": right["owner"]})
        yield f"the right of a dead job: {right['_id']}, held by process {right['holder']['pid']}"


def _stages(apply: bool) -> Iterator[str]:
    """Prepared values that no change is about."""
    staged = [name for name in database().list_collection_names() if name.startswith(STAGES)]
    wanted = {document["stage"] for document in journals().find({}, {"stage": 1})}
    for name in staged:
        if name not in wanted:
            if apply:
                database().drop_collection(name)
            yield f"values that wait for no run any more: collection {name}"


def _fields(apply: bool) -> Iterator[str]:
    """Fields that carry the mark of a run that their dataset does not have."""
    about = {"name": 1, "sample_fields": 1, "sample_collection_name": 1, "runs": 1}
    for document in database().datasets.find({}, about):
        orphans = _orphans(document)
        if orphans and apply:
            refusal = f"Dataset {document['name']} is being written to: try again later."
            with held(lock_of(document["_id"]), refusal, wait=10) as lease:
                make(Change(document["_id"], document["sample_collection_name"], removed=orphans), lease)
        for name in orphans:
            yield f"field {name} of dataset {document['name']}, whose run is gone"


def _orphans(document: dict[str, Any]) -> list[str]:
    """Names of a dataset's fields whose run is gone, as their marks say."""
    records = database().runs.find({"_id": {"$in": list(document.get("runs", {}).values())}}, {"config.tensors": 1})
    there = {record.get("config", {}).get("tensors") for record in records}
    orphans = []
    for field in document["sample_fields"]:
        owner = (field.get("info") or {}).get("ecif_run")
        # A copy that somebody made of a run's field has another name than its mark says.
        if owner is not None and field["info"] == ownership(field["name"], owner) and not field.get("read_only"):
            orphans += [field["name"]] if owner not in there else []
    return orphans


def _files(apply: bool) -> Iterator[str]:
    """Tensors and traces that no run of this database names; other databases may share the cache folder."""
    folder, runs = cache_folder("runs"), database().runs
    for name in sorted({path.stem for path in folder.iterdir() if is_name(path.stem) and _is_old(path)}):
        if runs.find_one({"config.tensors": name}, {"_id": 1}) or not _is_ours(folder / f"{name}.safetensors"):
            continue
        if apply:
            delete_files(name)
        yield f"tensors and traces of a run that is gone: {folder / name}.*"


def _is_old(path: Path) -> bool:
    return time.time() - path.stat().st_mtime > OLD


def _is_ours(path: Path) -> bool:
    """Whether a run's tensors carry this database's mark; those that were never completed are nobody's."""
    if not path.exists():
        return True
    try:
        with safe_open(path, "np") as tensors:
            return (tensors.metadata() or {}).get("database") == database_mark()["database"]
    except (OSError, SafetensorError):
        return False


def _name(dataset_id: object) -> str:
    found = database().datasets.find_one({"_id": dataset_id}, {"name": 1})
    return "that was deleted" if found is None else str(found["name"])
