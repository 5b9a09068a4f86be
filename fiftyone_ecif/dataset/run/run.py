"""What a run knows: its pairs in their order, its configuration, its health, and what was fitted."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import fiftyone as fo
import torch
from bson import ObjectId
from fiftyone.core.collections import SampleCollection
from fiftyone.core.odm import DatasetDocument

from fiftyone_ecif.attribution import Settings
from fiftyone_ecif.core import Head
from fiftyone_ecif.dataset.arguments import Samples, checked
from fiftyone_ecif.dataset.device import device_here, if_here
from fiftyone_ecif.dataset.fields import CANDIDATES, EVIDENCE_FIELDS, SCORE_FIELDS, VAGUENESS, WRONG_WORDS
from fiftyone_ecif.dataset.pairs import embedding_pairs
from fiftyone_ecif.dataset.rows import DEFAULT_TEMPLATES, Rows, read_rows
from fiftyone_ecif.dataset.run.config import EcifConfig, check_record, check_run
from fiftyone_ecif.dataset.run.run_model import check_model, load_again
from fiftyone_ecif.dataset.run.snapshot import Snapshot
from fiftyone_ecif.dataset.run.store import load_tensors
from fiftyone_ecif.dataset.run.stored_run import StoredRun
from fiftyone_ecif.dataset.samples import everything, in_order, those
from fiftyone_ecif.features import ArrayPairs, FeatureStore, PairRow, StoredPairs, features_folder
from fiftyone_ecif.features.content import earlier_key, row_keys
from fiftyone_ecif.models import ContrastiveModel

MOST_SELECTED = 500_000
"""Samples that a view can name by their ids: the database's limit of 16 MB for a query."""

TARGET_PREFIX = "target."
"""What the names of the target's tensors begin with."""


class Run(StoredRun):
    """A run on the data set that it was computed on. What is large is read when it is first asked for.

    Args:
        dataset: the data set
        run_key: the run's key

    Raises:
        ValueError: if there is no such run
    """

    def __init__(self, dataset: fo.Dataset, run_key: str) -> None:
        check_run(dataset, run_key)
        check_record(dataset, run_key)
        super().__init__(dataset, run_key)
        self._given_model: ContrastiveModel | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.dataset.name!r}, {self.run_key!r}: {self.health['pairs']} pairs)"

    # What it was asked for, and how it went

    @property
    def config(self) -> EcifConfig:
        """What the run was asked for."""
        return self.dataset.get_run_info(self.run_key).config

    @property
    def settings(self) -> Settings:
        """The choices behind its scores."""
        config = self.config
        return Settings(**{name: getattr(config, name) for name in Settings.__dataclass_fields__})

    @property
    def fields(self) -> dict[str, str]:
        """The run's field names, by what they hold."""
        written = [*SCORE_FIELDS, *(EVIDENCE_FIELDS.values() if self.config.evidence else ())]
        may_be = CANDIDATES, VAGUENESS, WRONG_WORDS
        written += [field for field in may_be if self.dataset.has_sample_field(field.name(self.run_key))]
        return {field.suffix: field.name(self.run_key) for field in written}

    @property
    def labelled(self) -> bool:
        """Whether its texts are labels."""
        return bool(getattr(self._stored, "labelled", False))

    # What was fitted

    @cached_property
    def _tensors(self) -> dict[str, torch.Tensor]:
        return load_tensors(self.config)

    @property
    def given_head(self) -> Head:
        """The head θ0 that the run started from."""
        given: dict[str, Any] = {name: self._tensors.get(f"given.{name}") for name in Head.__dataclass_fields__}
        return Head(**given)

    @property
    def fitted(self) -> torch.Tensor:
        """θ̂ of the run's scope, (F, P): one fit, or one per fold of the pairs when cross-fitted; see ``fits_of``."""
        return self._tensors["fitted"]

    @property
    def believed(self) -> torch.Tensor | None:
        """Which pairs may be a target of others, bool (N,); None for all, as with a target or in earlier runs."""
        return self._tensors.get("believed")

    @property
    def origin(self) -> torch.Tensor:
        """θ0 of the run's scope, (P,)."""
        return self._tensors["origin"] if "origin" in self._tensors else self.given_head.vector()

    @property
    def cross_fitted_heads(self) -> list[Head]:
        """The heads fitted on each fold of the pairs, for judging pairs of the other fold."""
        return [self.given_head.replace(vector) for vector in self._tensors["halves"]]

    @property
    def surprise(self) -> torch.Tensor:
        """How surprising each scored pair is to the head that was fitted on the other fold, nats, (N,).

        Raises:
            ValueError: if the run is from before this was kept
        """
        return self._kept("surprise")

    @property
    def self_influence(self) -> torch.Tensor:
        """The self-influence of each scored pair, nats, (N,).

        Raises:
            ValueError: if the run is from before this was kept, and its field is gone
        """
        return self._kept("self_influence")

    @property
    def misalignment(self) -> torch.Tensor:
        """The misalignment of each scored pair as it was computed, 0 to 1, (N,).

        Raises:
            ValueError: if the run is from before this was kept, and its field is gone
        """
        return self._kept("misalignment")

    def _kept(self, name: str) -> torch.Tensor:
        if name in self._tensors:
            return self._tensors[name]
        field = self.fields.get(name)
        if field is None or not self.dataset.has_sample_field(field):
            raise ValueError(f"Run {self.run_key!r} is from an earlier version: compute it again (overwrite=True).")
        # Earlier versions kept it in the field alone.
        by_id = dict(zip(*everything(self.dataset).values(["id", field]), strict=True))
        found = [by_id[id] for id in self.ids]
        return torch.tensor([torch.nan if value is None else value for value in found])

    @property
    def device(self) -> str:
        """The device that questions about the run are computed on: that of the run, where it is here."""
        config = self.config
        return device_here(config.engine, if_here(config.engine, config.device))

    def use_model(self, model: ContrastiveModel) -> None:
        """Give the run the model that it was made with, where its record is not enough to load it.

        Args:
            model: by ``load_model`` or ``wrap_model``

        Raises:
            ValueError: if it is another model, or has other weights or another preprocessing
        """
        check_model(model, self.config, self.run_key)
        self._given_model = model

    def model(self) -> ContrastiveModel:
        """The model of :meth:`use_model`, else the run's as :func:`~fiftyone_ecif.dataset.run.run_model.load_again`."""
        return self._given_model or load_again(self.config, self.run_key, self.device)

    # Its pairs

    @property
    def samples(self) -> SampleCollection:
        """The samples that were scored or skipped, as far as they are still there; all of a data set scored whole."""
        stored = self._stored
        whole = getattr(stored, "whole", None)
        if whole is None or len(self.ids) > MOST_SELECTED:  # a run from before this was kept
            return self.dataset.load_run_view(self.run_key)
        return self.dataset if whole else in_order(everything(self.dataset), [*self.ids, *self.skipped])

    @cached_property
    def _snapshot(self) -> Snapshot | None:
        return Snapshot.read(self._tensors)

    @cached_property
    def ids(self) -> list[str]:
        """Sample ids of the scored pairs, in the order of the run's tensors."""
        if self._snapshot is not None:
            return self._snapshot.ids
        skipped = self.skipped
        return [id for id in self.dataset.load_run_view(self.run_key).values("id") if id not in skipped]

    def rows(self) -> Rows:
        """The rows of the scored pairs, in their order, with the texts that the run saw.

        Samples that were deleted since have an empty path, and no embedding.
        """
        return self._recalled(those(self.dataset, self.ids), self.ids, self._snapshot)

    @checked(samples=Samples())
    def rows_of(self, samples: SampleCollection) -> Rows:
        """The rows of any samples as they are now, by the run's fields."""
        config = self.config
        embeddings = config.image_embeddings, config.text_embeddings
        oriented = config.apply_orientation
        return read_rows(samples, config.text_field, config.templates, *embeddings, apply_orientation=oriented)

    def _recalled(self, samples: SampleCollection, ids: list[str], snapshot: Snapshot | None) -> Rows:
        """The rows of some pairs with their texts out of a snapshot; those still there, where there is none."""
        config = self.config
        embeddings = config.image_embeddings, config.text_embeddings
        if snapshot is None:
            moment = self.dataset.get_run_info(self.run_key).timestamp
            return read_rows(samples, config.text_field, config.templates, *embeddings, moment=moment).of(ids)
        templates = tuple(config.templates or DEFAULT_TEMPLATES) if self._stored.labelled else None
        rows = read_rows(samples, None, None, *embeddings, apply_orientation=config.apply_orientation)
        return rows.recalled(ids, snapshot.texts, templates)

    def pairs(self, rows: Rows | None = None) -> StoredPairs | ArrayPairs:
        """The scored pairs' features, as they were stored by the run.

        Args:
            rows: by :meth:`rows`, where they are at hand

        Raises:
            ValueError: if they cannot be had any more
        """
        rows = self.rows() if rows is None else rows
        return self._features(rows, self._snapshot, self.config.model_fingerprint, len(self.ids))

    def judged_pairs(self, rows: Rows | None = None) -> StoredPairs | ArrayPairs:
        """The scored pairs' features that their misalignment was judged by: over mild views where the run had them.

        Args:
            rows: by :meth:`rows`, where they are at hand

        Raises:
            ValueError: if they cannot be had any more
        """
        rows, config = self.rows() if rows is None else rows, self.config
        fingerprint = config.view_fingerprint or config.model_fingerprint
        return self._features(rows, self._snapshot, fingerprint, len(self.ids))

    def _features(
        self, rows: Rows, snapshot: Snapshot | None, fingerprint: str | None, count: int
    ) -> StoredPairs | ArrayPairs:
        """The features of ``count`` pairs, those that the snapshot knows."""
        if self.config.image_embeddings is not None:
            pairs = embedding_pairs(rows)
            other = _other_embeddings(pairs, snapshot)
            gone = sum(not path for path in rows.filepaths) + count - len(rows)
            if len(pairs) < count or other:
                other += count - len(pairs) - gone
                raise ValueError(self.changed(f"{other} of its pairs have other embeddings now, {gone} are gone"))
            return pairs
        try:
            store = FeatureStore(features_folder(), str(fingerprint))
        except FileNotFoundError as error:
            raise ValueError(f"The features of run {self.run_key!r} are gone: compute the run again.") from error
        if snapshot is None:
            wanted = rows.pair_rows()
            found = store.pairs(wanted, [earlier_key(row) for row in wanted])
        else:
            found = store.pairs([PairRow(id, "", None) for id in snapshot.ids], snapshot.key_bytes())
        if len(found) < count:
            missing = count - len(found)
            raise ValueError(self.changed(f"the features of {missing} of its pairs are gone, or were of other texts"))
        return found

    def check_inputs(self, rows: Rows) -> None:
        """Refuse to read images and captions again that are not those of the run.

        Args:
            rows: of the scored pairs, by :meth:`rows`

        Raises:
            ValueError: if some have changed since
        """
        if self._snapshot is None:
            return
        now = rows.pair_rows()
        known = zip(row_keys(now), map(earlier_key, now), self._snapshot.key_bytes(), strict=True)
        changed = sum(kept not in (key, earlier) for key, earlier, kept in known)
        if changed:
            gone = sum(not path for path in rows.filepaths)
            raise ValueError(self.changed(f"{changed - gone} of its pairs have another image now, {gone} are gone"))

    def changed(self, how: str) -> str:
        """What to say where the run no longer is of the data set as it is now."""
        return (
            f"The data of run {self.run_key!r} has changed since: {how}. "
            f"ecif.refresh_run(dataset, {self.run_key!r}) computes it again, and embeds only what changed."
        )

    # Its target

    @property
    def target_dataset(self) -> fo.Dataset | None:
        """The data set of the target; None for a cross-fitted run.

        Raises:
            ValueError: if it is gone
        """
        stored = self._stored
        if stored.target_dataset is None:
            return None
        if getattr(stored, "target_is_own", False):
            return self.dataset
        id = getattr(stored, "target_dataset_id", None)
        name = stored.target_dataset if id is None else _name_of_dataset(id)
        if name is None or not fo.dataset_exists(name):
            raise ValueError(f"The target's dataset {stored.target_dataset!r} was deleted: compute the run again.")
        return fo.load_dataset(name)

    @property
    def target_samples(self) -> SampleCollection | None:
        """The usable target samples that are still there; None for a cross-fitted run.

        Raises:
            ValueError: if their data set is gone
        """
        dataset = self.target_dataset
        return None if dataset is None else in_order(everything(dataset), self._target_ids)

    @property
    def _target_ids(self) -> list[str]:
        return list(self._stored.target_ids)

    def target_rows(self) -> Rows | None:
        """The rows of the target pairs, in their order, with the texts that the run saw; None when cross-fitted."""
        dataset = self.target_dataset
        if dataset is None:
            return None
        snapshot = Snapshot.read(self._tensors, TARGET_PREFIX)
        return self._recalled(those(dataset, self._target_ids), self._target_ids, snapshot)

    def target_pairs(self, rows: Rows | None) -> StoredPairs | ArrayPairs | None:
        """The target pairs' features; None for a cross-fitted run.

        Args:
            rows: by :meth:`target_rows`

        Raises:
            ValueError: if they cannot be had any more
        """
        if rows is None:
            return None
        snapshot = Snapshot.read(self._tensors, TARGET_PREFIX)
        return self._features(rows, snapshot, self.config.model_fingerprint, len(self._target_ids))


def _other_embeddings(pairs: ArrayPairs, snapshot: Snapshot | None) -> int:
    """How many of these pairs had other embeddings when the snapshot was taken."""
    if snapshot is None:
        return 0
    kept = dict(zip(snapshot.ids, snapshot.key_bytes(), strict=True))
    now = (bytes(row) for row in pairs.keys.numpy())
    return sum(kept.get(id) != key for id, key in zip(pairs.ids, now, strict=True))


def _name_of_dataset(id: str) -> str | None:
    """The present name of a data set; None if it is gone."""
    found = DatasetDocument.objects(id=ObjectId(id)).only("name").first()
    return None if found is None else found.name
