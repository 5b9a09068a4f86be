"""ECIF as a FiftyOne custom run: renaming and deleting it renames and deletes its fields."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import fiftyone as fo
from fiftyone.core.runs import Run, RunConfig, RunResults

from fiftyone_ecif.dataset.arguments import (
    Choice,
    Flag,
    Kind,
    Number,
    Samples,
    SettingsByName,
    Text,
    Texts,
    WholeNumber,
    checked,
    shown,
)
from fiftyone_ecif.dataset.checks import check_run_key
from fiftyone_ecif.dataset.fields import METHOD, METHODS, PREFERENCE_METHOD, RUN_FIELDS, SHIFT_METHOD
from fiftyone_ecif.dataset.run.files import is_name, tensor_path, trace_path
from fiftyone_ecif.dataset.run.journal import Change, belongings, delete_unshared_files
from fiftyone_ecif.dataset.run.writing import change_runs, claimed, record_of, up_to_date, writing


def tensor_file(config: RunConfig) -> Path:
    """Where a run's tensors lie on this machine; raises a ValueError where its record names another kind of place."""
    return tensor_path(getattr(config, "tensors", None))


def trace_folder(config: RunConfig) -> Path:
    """Where what a run's traces share, and the traces themselves, lie on this machine."""
    return trace_path(getattr(config, "tensors", None))


def kept_trace_folder(dataset: fo.Dataset, run_key: str) -> Path:
    """Where a run's traces lie: a clone of the dataset shares the run's tensors, but keeps its own traces."""
    return trace_folder(dataset.get_run_info(run_key).config) / str(dataset._doc.id)


def kept_traces(dataset: fo.Dataset, run_key: str) -> list[str]:
    """Keys of the traces that are kept with a run, oldest first."""
    if not is_name(getattr(dataset.get_run_info(run_key).config, "tensors", None)):
        return []
    files = kept_trace_folder(dataset, run_key).glob("*.safetensors")
    return [path.stem for path in sorted(files, key=lambda path: path.stat().st_mtime_ns)]


class Loss:
    """The name of a loss."""

    def __call__(self, name: str, value: Any) -> str:
        from fiftyone_ecif.core import LOSSES  # brings torch

        return Choice(dict.fromkeys(LOSSES, ""))(name, value)


RECORDED: Mapping[str, Kind] = {
    "scope": Text(),
    "removal": Text(),
    "rounds": WholeNumber(1),
    "batch_size": WholeNumber(1),
    "anchor": Number(),
    "damping": Number(),
    "seed": WholeNumber(),
    "engine": Text(),
    "evidence": Flag(),
    "loss": Loss(),
    "device": Text(),
    "text_field": Text(),
    "templates": Texts(),
    "image_embeddings": Text(),
    "text_embeddings": Text(),
    "model": Text(),
    "pretrained": Text(),
    "model_fingerprint": Text(),
    "view_fingerprint": Text(),
    "apply_orientation": Flag(),
    "load_arguments": SettingsByName(("name", "pretrained", "precision", "preprocess")),
}
"""What a record must hold for its run to be opened: another program, or a version to come, may have written it."""


class EcifConfig(RunConfig):
    """What a run was asked for; the arguments of ``compute_influence`` and the versions it ran with."""

    # Of runs from before these could be asked for, or were kept:
    evidence = False
    damping = 0.0
    engine = "local"
    apply_orientation = False
    # What a run need not have:
    anchor = device = view_fingerprint = text_field = templates = image_embeddings = text_embeddings = None
    model = pretrained = model_fingerprint = None
    load_arguments = None  # of ``load_model``; none of them for a model that was made in memory

    @property
    def method(self):
        """The name that FiftyOne lists the run under."""
        return METHOD


class Ecif(Run):
    """The run's side that FiftyOne calls when runs are listed, renamed or deleted."""

    def get_fields(self, samples, key):
        """Names of the run's fields that the collection has."""
        return run_field_names(samples._dataset, key)

    def rename(self, samples, key, new_key):
        """Rename the run's fields with it, where FiftyOne renames it by itself."""
        with writing(samples._dataset):
            samples._dataset.rename_sample_fields(_renamed(samples._dataset, key, new_key))

    def cleanup(self, samples, key):
        """Delete the run's fields with it, and its tensors where no clone of the dataset needs them; likewise."""
        dataset = samples._dataset
        with writing(dataset):
            dataset.delete_sample_fields(self.get_fields(samples, key), error_level=1)
            delete_unshared_files(belongings(record_of(dataset, key)), dataset._doc.id)


class ShiftConfig(RunConfig):
    """What a run of ``compute_shift`` was asked for."""

    text_field = None  # no captions are shown beside its fields

    @property
    def method(self):
        """The name that FiftyOne lists the run under."""
        return SHIFT_METHOD


class Shift(Ecif):
    """The run's side that FiftyOne calls, as of any run of this package."""


class PreferenceConfig(RunConfig):
    """What a run of ``build_preferences`` was asked for."""

    text_field = None  # no captions are shown beside its fields

    @property
    def method(self):
        """The name that FiftyOne lists the run under."""
        return PREFERENCE_METHOD


class Preference(Ecif):
    """The run's side that FiftyOne calls, as of any run of this package."""


def run_field_names(dataset: fo.Dataset, run_key: str) -> list[str]:
    """Names of the fields that a run has on its dataset."""
    return [name for field in RUN_FIELDS if dataset.has_sample_field(name := field.name(run_key))]


def _renamed(dataset: fo.Dataset, run_key: str, new_run_key: str) -> dict[str, str]:
    """The run's fields under its new key."""
    return {name: new_run_key + name[len(run_key) :] for name in run_field_names(dataset, run_key)}


@checked(dataset=Samples())
def list_runs(dataset: fo.Dataset) -> list[str]:
    """Keys of the dataset's ECIF runs, oldest first.

    Args:
        dataset: a Dataset or view

    Returns:
        list of run keys
    """
    return _keys(dataset, METHOD)


@checked(dataset=Samples())
def list_shifts(dataset: fo.Dataset) -> list[str]:
    """Keys of the dataset's shift runs, oldest first.

    Args:
        dataset: a Dataset or view

    Returns:
        list of run keys
    """
    return _keys(dataset, SHIFT_METHOD)


def run_methods(dataset: fo.Dataset) -> dict[str, str]:
    """What each run of any kind is listed under, by its key, oldest first."""
    return {key: dataset.get_run_info(key).config.method for key in _keys(dataset, *METHODS)}


@checked(dataset=Samples())
def list_preferences(dataset: fo.Dataset) -> list[str]:
    """Keys of the dataset's runs of ``build_preferences``, oldest first.

    Args:
        dataset: a Dataset or view

    Returns:
        list of run keys
    """
    return _keys(dataset, PREFERENCE_METHOD)


def _keys(dataset: fo.Dataset, *methods: str) -> list[str]:
    """Keys of the runs of some methods, oldest first."""
    up_to_date(dataset._dataset)
    keys = [key for method in methods for key in dataset.list_runs(method=method)]
    return sorted(keys, key=lambda key: dataset.get_run_info(key).timestamp)


def check_run(dataset: fo.Dataset, run_key: str) -> None:
    """Raise a ValueError that names the runs there are, if there is no run of ``compute_influence`` of this key."""
    _check_there(dataset, run_key, "ECIF run", "compute_influence", METHOD)


def check_shift(dataset: fo.Dataset, run_key: str) -> None:
    """The same for runs of ``compute_shift``."""
    _check_there(dataset, run_key, "shift run", "compute_shift", SHIFT_METHOD)


def check_preferences(dataset: fo.Dataset, run_key: str) -> None:
    """The same for runs of ``build_preferences``."""
    _check_there(dataset, run_key, "run of preference pairs", "build_preferences", PREFERENCE_METHOD)


def check_any_run(dataset: fo.Dataset, run_key: str) -> None:
    """The same for runs of any kind."""
    _check_there(dataset, run_key, "ECIF run", "compute_influence", *METHODS)


def _check_there(dataset: fo.Dataset, run_key: str, kind: str, maker: str, *methods: str) -> None:
    keys = _keys(dataset, *methods)
    if run_key not in keys:
        there = f"its runs are {', '.join(keys)}" if keys else f"it has none; call {maker} first"
        raise ValueError(f"Dataset {dataset._dataset.name!r} has no {kind} {shown(run_key)}: {there}.")


def check_record(dataset: fo.Dataset, run_key: str) -> None:
    """Raise a ValueError that says what is wrong with a run's record, if something is."""
    config = dataset.get_run_info(run_key).config
    for name, kind in RECORDED.items():
        try:
            value = getattr(config, name, None)
            if value is not None or getattr(EcifConfig, name, True) is not None:
                kind(name, value)
        except ValueError as error:
            raise ValueError(
                f"The record of run {run_key!r} is damaged: {error} Compute the run again (overwrite=True), or delete "
                f"it with ecif.delete_run(dataset, {run_key!r})."
            ) from error


@checked(dataset=Samples())
def rename_run(dataset: fo.Dataset, run_key: str, new_run_key: str) -> None:
    """Give a run, and its fields, another key.

    Args:
        dataset: a Dataset or view
        run_key: the run's key
        new_run_key: the key to give it

    Raises:
        ValueError: if there is no such run, or the new key cannot be used
    """
    dataset = dataset._dataset
    with claimed(dataset, new_run_key), writing(dataset) as lease:
        check_any_run(dataset, run_key)
        check_run_key(dataset, new_run_key)
        record = record_of(dataset, run_key)
        change = Change(
            dataset._doc.id,
            dataset._sample_collection_name,
            before={run_key: record["_id"]},
            after={new_run_key: record["_id"]},
            renamed=_renamed(dataset, run_key, new_run_key),
        )
        change_runs(dataset, change, lease)


@checked(dataset=Samples())
def delete_run(dataset: fo.Dataset, run_key: str) -> None:
    """Delete a run and its fields.

    Args:
        dataset: a Dataset or view
        run_key: the run's key

    Raises:
        ValueError: if there is no such run
    """
    dataset = dataset._dataset
    with writing(dataset) as lease:
        check_any_run(dataset, run_key)
        record = record_of(dataset, run_key)
        change = Change(
            dataset._doc.id,
            dataset._sample_collection_name,
            before={run_key: record["_id"]},
            removed=run_field_names(dataset, run_key),
            gone=belongings(record),
        )
        change_runs(dataset, change, lease)


def stored_results(dataset: fo.Dataset, run_key: str) -> RunResults:
    """What a run keeps in the database: health, timings, warnings, skipped pairs.

    Args:
        dataset: the dataset
        run_key: the run's key

    Returns:
        FiftyOne's results, with these as attributes

    Raises:
        ValueError: if the run did not end
    """
    try:
        stored = dataset.load_run_results(run_key, cache=False, load_view=False)
    except AttributeError:  # the record names a file of the database that is not there
        stored = None
    if stored is None:
        raise ValueError(f"Run {run_key!r} has no results: it did not end. Delete it and run it again.")
    return stored
