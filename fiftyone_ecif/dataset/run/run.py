"""What a run knows: its pairs in their order, its configuration, its health, and what was fitted."""

from __future__ import annotations

import warnings
from datetime import datetime
from functools import cached_property
from typing import Any

import fiftyone as fo
import torch
from fiftyone.core.collections import SampleCollection
from fiftyone.core.runs import RunResults

from fiftyone_ecif.attribution import Settings
from fiftyone_ecif.core import Head
from fiftyone_ecif.dataset.fields import EVIDENCE_FIELDS, SCORE_FIELDS
from fiftyone_ecif.dataset.pairs import embedding_pairs
from fiftyone_ecif.dataset.rows import Rows, read_rows
from fiftyone_ecif.dataset.run.config import EcifConfig, check_run, stored_results
from fiftyone_ecif.dataset.run.store import ids_of, load_tensors
from fiftyone_ecif.features import ArrayPairs, FeatureStore, StoredPairs, features_folder
from fiftyone_ecif.models import ContrastiveModel, load_model

READ_WHOLE = 100_000
"""Samples from which on a data set is read as a whole, since the database takes only so many ids in a query."""


class Run:
    """A run on the data set that it was computed on. What is large is read when it is first asked for.

    Args:
        dataset: the data set
        run_key: the run's key

    Raises:
        ValueError: if there is no such run
    """

    def __init__(self, dataset: fo.Dataset, run_key: str) -> None:
        check_run(dataset, run_key)
        self.dataset, self.run_key = dataset, run_key

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
        return {field.suffix: field.name(self.run_key) for field in written}

    @property
    def health(self) -> dict[str, Any]:
        """Whether to trust the numbers: solver residual, gradient at rest, stability of the ranking, skipped pairs."""
        return self._stored.health

    @property
    def timings(self) -> dict[str, float]:
        """Seconds per step."""
        return self._stored.timings

    @property
    def warnings(self) -> list[str]:
        """What the user should know, in plain words."""
        return self._stored.warnings

    @property
    def skipped(self) -> dict[str, str]:
        """Reason by sample id, for the pairs that have no scores."""
        return self._stored.skipped

    @cached_property
    def _stored(self) -> RunResults:
        return stored_results(self.dataset, self.run_key)

    @property
    def _read_at(self) -> datetime:
        """When the run read its rows, naive and in UTC; when it ended, for one that did not keep the former."""
        kept = getattr(self._stored, "read_at", None)
        return self.dataset.get_run_info(self.run_key).timestamp if kept is None else datetime.fromisoformat(kept)

    # What was fitted

    @cached_property
    def _tensors(self) -> dict[str, torch.Tensor]:
        return load_tensors(self.config)

    @property
    def given_head(self) -> Head:
        """The head θ0 that the run started from."""
        return Head(**{name: self._tensors.get(f"given.{name}") for name in Head.__dataclass_fields__})

    @property
    def fitted(self) -> torch.Tensor:
        """θ̂ of the run's scope, (F, P): one fit, or one per fold of the pairs when cross-fitted."""
        return self._tensors["fitted"]

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
        if "surprise" not in self._tensors:
            raise ValueError(f"Run {self.run_key!r} is from an earlier version: compute it again (overwrite=True).")
        return self._tensors["surprise"]

    def model(self) -> ContrastiveModel:
        """The run's model, as it was given.

        Raises:
            ValueError: if it has none, or its weights are not the same any more
        """
        config = self.config
        if config.model is None:
            raise ValueError("This run used stored embeddings: there is no model.")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # the run has said it
            model = load_model(config.model, config.pretrained, None if config.engine == "ray" else config.device)
        if model.fingerprint != config.model_fingerprint:
            raise ValueError(
                f"The weights behind {config.model!r} ({config.pretrained}) are not those of the run: "
                "put the checkpoint back, or compute the run again."
            )
        return model

    # Its pairs

    @property
    def samples(self) -> fo.DatasetView:
        """The view that was scored."""
        return self.dataset.load_run_view(self.run_key)

    @property
    def ids(self) -> list[str]:
        """Sample ids of the scored pairs, in the order of the run's tensors."""
        kept = self._tensors.get("ids")
        if kept is not None:
            return ids_of(kept)
        skipped = self.skipped
        return [id for id in self.samples.values("id") if id not in skipped]  # a run from before ids were kept

    def rows(self) -> Rows:
        """The rows of the scored pairs that are still there, in their order, with the texts that the run saw.

        Fixes that came later are undone in what is returned; other edits are not.
        """
        ids = self.ids
        samples = self.dataset if len(ids) > READ_WHOLE else self.dataset.select(ids)
        return self._read(samples, self._read_at).of(ids)

    def rows_of(self, samples: SampleCollection) -> Rows:
        """The rows of any samples as they are now, by the run's fields."""
        return self._read(samples, None)

    def _read(self, samples: SampleCollection, moment: datetime | None) -> Rows:
        config = self.config
        embeddings = config.image_embeddings, config.text_embeddings
        return read_rows(samples, config.text_field, config.templates, *embeddings, moment=moment)

    def pairs(self, rows: Rows | None = None) -> StoredPairs | ArrayPairs:
        """The scored pairs' features, as they were stored by the run.

        Args:
            rows: by :meth:`rows`, where they are at hand

        Raises:
            ValueError: if the pairs have changed since the run
        """
        return self._as_scored(self.rows() if rows is None else rows, self.config.model_fingerprint)

    def judged_pairs(self, rows: Rows | None = None) -> StoredPairs | ArrayPairs:
        """The scored pairs' features that their misalignment was judged by: over mild views where the run had them.

        Args:
            rows: by :meth:`rows`, where they are at hand

        Raises:
            ValueError: if the pairs have changed since the run
        """
        fingerprint = self.config.view_fingerprint or self.config.model_fingerprint
        return self._as_scored(self.rows() if rows is None else rows, fingerprint)

    def _as_scored(self, rows: Rows, fingerprint: str | None) -> StoredPairs | ArrayPairs:
        pairs, count = self._features(rows, fingerprint), len(self.ids)
        if len(pairs) < count:
            other, gone = len(rows) - len(pairs), count - len(rows)
            raise ValueError(self.changed(f"{other} of its pairs have another image or text now, {gone} are gone"))
        return pairs

    def changed(self, how: str) -> str:
        """What to say where the run no longer is of the data set as it is now."""
        return (
            f"The data of run {self.run_key!r} has changed since: {how}. "
            f"ecif.refresh_run(dataset, {self.run_key!r}) computes it again, and embeds only what changed."
        )

    # Its target

    @property
    def target_samples(self) -> fo.DatasetView | None:
        """The usable target samples that are still there; None for a cross-fitted run.

        Raises:
            ValueError: if their data set is gone
        """
        if self._stored.target_dataset is None:
            return None
        if not fo.dataset_exists(self._stored.target_dataset):
            raise ValueError(
                f"The target's dataset {self._stored.target_dataset!r} was deleted: compute the run again."
            )
        return fo.load_dataset(self._stored.target_dataset).select(self._stored.target_ids, ordered=True)

    def target_rows(self) -> Rows | None:
        """The rows of the target pairs, in their order; None for a cross-fitted run."""
        target = self.target_samples
        return None if target is None else self._read(target, self._read_at).of(self._stored.target_ids)

    def target_pairs(self, rows: Rows | None) -> StoredPairs | ArrayPairs | None:
        """The target pairs' features; None for a cross-fitted run.

        Args:
            rows: by :meth:`target_rows`

        Raises:
            ValueError: if they have changed since the run
        """
        if rows is None:
            return None
        pairs = self._features(rows, self.config.model_fingerprint)
        if len(pairs) != len(self._stored.target_ids):
            raise ValueError(self.changed("some of the target's samples were deleted or have another image or text"))
        return pairs

    def _features(self, rows: Rows, fingerprint: str | None) -> StoredPairs | ArrayPairs:
        if self.config.image_embeddings is not None:
            return embedding_pairs(rows)
        try:
            return FeatureStore(features_folder(), str(fingerprint)).pairs(rows.pair_rows())
        except FileNotFoundError as error:
            raise ValueError(f"The features of run {self.run_key!r} are gone: compute the run again.") from error
