"""A run's results: views by score, and what is known about the run."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cached_property

import fiftyone as fo
import numpy as np
import torch
from fiftyone import ViewField as F
from fiftyone.core.collections import SampleCollection

from fiftyone_ecif.attribution import RemovalEffect
from fiftyone_ecif.core import Head, embeddings_under
from fiftyone_ecif.dataset.ask.query import Answer, Query
from fiftyone_ecif.dataset.ask.removal_study import RemovalCurve, RemovalStudy, forecast_removal
from fiftyone_ecif.dataset.ask.trace_record import Trace, delete_trace, list_traces, load_trace, make_traces
from fiftyone_ecif.dataset.ask.trace_study import TraceStudy
from fiftyone_ecif.dataset.fields import EVIDENCE_FIELDS, SCORE_FIELDS
from fiftyone_ecif.dataset.pairs import embedding_pairs, pair_rows
from fiftyone_ecif.dataset.progress import as_progress
from fiftyone_ecif.dataset.repair.fixes import texts_at
from fiftyone_ecif.dataset.repair.review import SUGGESTED_PRECISION, harmful
from fiftyone_ecif.dataset.repair.suggest import suggest_again
from fiftyone_ecif.dataset.run.config import EcifConfig, check_run, stored_results
from fiftyone_ecif.dataset.run.store import load_tensors
from fiftyone_ecif.detect import threshold_for
from fiftyone_ecif.features import ArrayPairs, FeatureStore, PairRow, StoredPairs, features_folder


class InfluenceResults:
    """What a run found, on the dataset that it ran on.

    Args:
        dataset: the dataset
        run_key: the run's key

    Raises:
        ValueError: if there is no such run
    """

    def __init__(self, dataset: fo.Dataset, run_key: str) -> None:
        check_run(dataset, run_key)
        self.dataset, self.run_key = dataset, run_key
        self._study: tuple[tuple, TraceStudy] | None = None

    @cached_property
    def _stored(self):
        return stored_results(self.dataset, self.run_key)

    @cached_property
    def _tensors(self) -> dict[str, torch.Tensor]:
        return load_tensors(self.config)

    def __repr__(self) -> str:
        return f"InfluenceResults({self.dataset.name!r}, {self.run_key!r}: {self.health['pairs']} pairs)"

    @property
    def config(self) -> EcifConfig:
        """What the run was asked for."""
        return self.dataset.get_run_info(self.run_key).config

    @property
    def samples(self) -> fo.DatasetView:
        """The view that was scored."""
        return self.dataset.load_run_view(self.run_key)

    @property
    def fields(self) -> dict[str, str]:
        """The run's field names, by what they hold."""
        written = [*SCORE_FIELDS, *(EVIDENCE_FIELDS.values() if self.config.evidence else ())]
        return {field.suffix: field.name(self.run_key) for field in written}

    @property
    def health(self) -> dict:
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

    def misaligned(
        self, threshold: float | None = None, limit: int | None = None, *, precision: float | None = None
    ) -> fo.DatasetView:
        """The pairs, most suspicious first.

        Args:
            threshold: only pairs of at least this misalignment, 0 to 1
            limit: at most so many
            precision: in place of a threshold: as many pairs as there can be with this share of them wrong, by
                :meth:`suggested_threshold`

        Returns:
            a view sorted by misalignment, falling; empty, with a warning, where no threshold reaches the precision
        """
        if threshold is not None and precision is not None:
            raise ValueError("Pass a threshold or a precision, not both.")
        if threshold is not None and not 0.0 <= threshold <= 1.0:
            raise ValueError(f"threshold is a probability between 0 and 1, not {threshold}.")
        name = self.fields["misalignment"]
        view = self._scored(name)
        if precision is not None:
            threshold = self.suggested_threshold(precision)
            if threshold is None:
                warnings.warn(
                    f"No threshold is expected to reach a precision of {precision:.0%}: the most suspicious pair is "
                    f"wrong with a probability of {view.max(name) or 0:.0%}.",
                    stacklevel=2,
                )
                return view.select([])
        if threshold is not None:
            view = view.match(F(name) >= threshold)
        return self._limited(view.sort_by(name, reverse=True), limit)

    def suggested_threshold(self, precision: float = SUGGESTED_PRECISION) -> float | None:
        """The smallest misalignment at or above which a share of the pairs is expected to be wrong.

        The expected share is the mean of their misalignment. It is as good as these probabilities are calibrated
        (docs/detection.md).

        Args:
            precision: the least share, above 0 and up to 1

        Returns:
            a threshold for :meth:`misaligned` and ``tag_misaligned``; None where none reaches the precision
        """
        name = self.fields["misalignment"]
        return threshold_for(np.array(self._scored(name).values(name), dtype=float), precision)

    def harmful(self, limit: int | None = None) -> fo.DatasetView:
        """The pairs whose removal would lower the target loss, most harmful first.

        Args:
            limit: at most so many

        Returns:
            a view of pairs with a negative value, sorted by value, rising
        """
        return self._limited(harmful(self._scored(self.fields["value"]), self.run_key), limit)

    def valuable(self, limit: int | None = None) -> fo.DatasetView:
        """The pairs whose removal would raise the target loss, most valuable first.

        Args:
            limit: at most so many

        Returns:
            a view of pairs with a positive value, sorted by value, falling
        """
        name = self.fields["value"]
        return self._limited(self._scored(name).match(F(name) > 0).sort_by(name, reverse=True), limit)

    def embeddings(self) -> tuple[list[str], np.ndarray, np.ndarray]:
        """Embeddings of the scored pairs by the model as it was given.

        Returns:
            sample ids, and unit vectors of images and texts, (N, D) float32 each

        Raises:
            ValueError: if the features are no longer there
        """
        pairs = self.pairs()
        image, text = embeddings_under(pairs, self.given_head)
        return pairs.ids, image.numpy(), text.numpy()

    @property
    def given_head(self) -> Head:
        """The head θ0 that the run started from."""
        return Head(**{name: self._tensors.get(f"given.{name}") for name in Head.__dataclass_fields__})

    @property
    def fitted(self) -> torch.Tensor:
        """θ̂ of the run's scope, (F, P): one fit, or one per half of the pairs when cross-fitted."""
        return self._tensors["fitted"]

    @property
    def origin(self) -> torch.Tensor:
        """θ0 of the run's scope, (P,)."""
        return self._tensors["origin"] if "origin" in self._tensors else self.given_head.vector()

    @property
    def cross_fitted_heads(self) -> list[Head]:
        """The heads fitted on each half of the pairs, for judging pairs of the other half."""
        return [self.given_head.replace(vector) for vector in self._tensors["halves"]]

    @property
    def surprise(self) -> torch.Tensor:
        """How surprising each scored pair is to the head that was fitted on the other half, nats, (N,).

        Raises:
            ValueError: if the run is from before this was kept
        """
        if "surprise" not in self._tensors:
            raise ValueError(f"Run {self.run_key!r} is from an earlier version: compute it again (overwrite=True).")
        return self._tensors["surprise"]

    def pairs(self) -> StoredPairs | ArrayPairs:
        """The scored pairs' features, as they were stored by the run.

        Raises:
            ValueError: if the pairs have changed since the run
        """
        return self._as_scored(self.config.model_fingerprint)

    def judged_pairs(self) -> StoredPairs | ArrayPairs:
        """The scored pairs' features that their misalignment was judged by: over mild views where the run had them.

        Raises:
            ValueError: if the pairs have changed since the run
        """
        return self._as_scored(self.config.view_fingerprint or self.config.model_fingerprint)

    def _as_scored(self, fingerprint: str | None) -> StoredPairs | ArrayPairs:
        pairs = self._stored_pairs(self.samples, self.skipped, fingerprint)
        missing = self.health["pairs"] - len(pairs)
        if missing:
            other = len(pairs.skipped.keys() - self.skipped.keys())
            how = f"{other} of its pairs have another image or text now, {missing - other} are gone"
            raise ValueError(self.changed(how))
        return pairs

    def changed(self, how: str) -> str:
        """What to say where the run no longer is of the dataset as it is now."""
        return (
            f"The data of run {self.run_key!r} has changed since: {how}. "
            f"ecif.refresh_run(dataset, {self.run_key!r}) computes it again, and embeds only what changed."
        )

    @property
    def target_samples(self) -> fo.DatasetView | None:
        """The usable target samples that are still there; None for a cross-fitted run.

        Raises:
            ValueError: if their dataset is gone
        """
        if self._stored.target_dataset is None:
            return None
        if not fo.dataset_exists(self._stored.target_dataset):
            raise ValueError(
                f"The target's dataset {self._stored.target_dataset!r} was deleted: compute the run again."
            )
        return fo.load_dataset(self._stored.target_dataset).select(self._stored.target_ids, ordered=True)

    def target_pairs(self) -> StoredPairs | ArrayPairs | None:
        """The target pairs' features; None for a cross-fitted run."""
        target = self.target_samples
        if target is None:
            return None
        pairs = self._stored_pairs(target, {}, self.config.model_fingerprint)
        if len(pairs) != len(self._stored.target_ids):
            raise ValueError(self.changed("some of the target's samples were deleted or have another image or text"))
        return pairs

    def _stored_pairs(
        self, samples: SampleCollection, skipped: dict[str, str], fingerprint: str | None
    ) -> StoredPairs | ArrayPairs:
        config = self.config
        if config.image_embeddings is not None:
            return embedding_pairs(samples, config.image_embeddings, config.text_embeddings)
        rows = [row for row in self.rows(samples) if row.id not in skipped]
        try:
            return FeatureStore(features_folder(), str(fingerprint)).pairs(rows)
        except FileNotFoundError as error:
            raise ValueError(f"The features of run {self.run_key!r} are gone: compute the run again.") from error

    def rows(self, samples: SampleCollection) -> list[PairRow]:
        """The collection's rows as the run saw them: with the texts from before later fixes."""
        config, info = self.config, self.dataset.get_run_info(self.run_key)
        then = texts_at(samples, config.text_field, info.timestamp)
        return pair_rows(samples, config.text_field, config.templates, then)

    def suggest(self, view: SampleCollection) -> dict[str, fo.Classification]:
        """A better caption or label for each pair, out of those that the run believes.

        What the run stored is taken as it is; what is computed now is stored beside it, for ``apply_suggestions``.

        Args:
            view: the samples to find a text for; those without a score in this run are ignored

        Returns:
            label with confidence, 0 to 1, by sample id; pairs whose own text fits best have none

        Raises:
            ValueError: if the run knew no texts, or the data has changed since
        """
        return suggest_again(self, view)

    def estimate_removal(
        self, view: SampleCollection, newton_steps: int = 1, progress: bool | Callable | None = None
    ) -> RemovalEffect:
        """Predict what removing pairs does to the target, without retraining (ECIF.md §7).

        Args:
            view: the samples to remove; those without a score in this run are ignored
            newton_steps: 1 for the closed form, 2 to correct it once
            progress: as in ``compute_influence``

        Returns:
            a :class:`~fiftyone_ecif.engine.RemovalEffect`: the target's loss in nats and its recall, or zero-shot
            accuracy for labels, before and after

        Raises:
            ValueError: if nothing or nearly everything is removed, or the data has changed since the run
        """
        return RemovalStudy(self, view, as_progress(progress)).estimate(newton_steps)

    def verify_removal(self, view: SampleCollection, progress: bool | Callable | None = None) -> RemovalEffect:
        """What removing pairs does to the target by really refitting the scope, beside the prediction.

        Args:
            view: the samples to remove; those without a score in this run are ignored
            progress: as in ``compute_influence``

        Returns:
            a :class:`~fiftyone_ecif.engine.RemovalEffect` with ``measured``

        Raises:
            ValueError: as :meth:`estimate_removal`
        """
        return RemovalStudy(self, view, as_progress(progress)).verify()

    def forecast_removal(
        self, view: SampleCollection | None = None, points: int = 6, progress: bool | Callable | None = None
    ) -> RemovalCurve:
        """Predict the target as ever more harmful pairs are removed, the most harmful first, without retraining.

        Each point is an ``estimate_removal`` of its own; what they share is prepared once.

        Args:
            view: the samples to remove from, as far as they are harmful; None: all
            points: of the curve, up to all harmful pairs or a fifth of the run's
            progress: as in ``compute_influence``

        Returns:
            a :class:`~fiftyone_ecif.dataset.ask.removal_study.RemovalCurve`

        Raises:
            ValueError: if none of them harms, or the data has changed since the run
        """
        return forecast_removal(self, view, points, as_progress(progress))

    def edited_checkpoint(
        self, view: SampleCollection, path: str, newton_steps: int = 1, progress: bool | Callable | None = None
    ) -> str:
        """Write an open_clip checkpoint that is fitted on the pairs and then freed of some, in closed form.

        What the run's scope holds differs from the given weights; adapters are folded into the weights they adapt.

        Args:
            view: the samples whose influence is removed
            path: ends in .pt or .safetensors; ``open_clip.create_model_and_transforms(model, pretrained=path)``
                loads it
            newton_steps: 1 for the closed form, 2 to correct it once
            progress: as in ``compute_influence``

        Returns:
            ``path``

        Raises:
            ValueError: as :meth:`estimate_removal`, or if the run has no model to edit
        """
        return RemovalStudy(self, view, as_progress(progress)).write_checkpoint(path, newton_steps)

    def trace(
        self,
        query: str | fo.Sample | SampleCollection | Query | list,
        k: int = 100,
        kind: str = "margin",
        order: str = "blame",
        direction: str = "image_to_text",
        right: Answer = None,
        wrong: Answer = None,
        key: str | None = None,
        progress: bool | Callable | None = None,
    ) -> Trace | list[Trace]:
        """Which training pairs are to blame for a failing query (ECIF.md §6, §8).

        The first trace of a run prepares what all share; each further one is a light pass over the pairs. The trace is
        kept with the run.

        Args:
            query: a sample or its id; a view, for one joint trace of its failing samples; a
                :class:`~fiftyone_ecif.dataset.ask.query.Query` for an image or text from outside; or a list of these,
                for a list of traces that share the pass
            k: at most so many pairs
            kind: of the query's loss: "margin" of the best wrong answer over the best right one, or "loss", the
                contrastive loss against the candidates nearest to it
            order: what the order is by, and which pairs are named: "blame", the relative influence weighted by how
                likely the pair's text is wrong and shared with similar pairs; "relative", without these; or "value",
                the predicted change
            direction: for samples: "image_to_text" or "text_to_image"
            right: for samples: the right label, caption or, for a text that looks for an image, sample id; None for
                the sample's own
            wrong: likewise the wrong answers to compare with; None for the nearest
            key: to keep the trace under; None to number it
            progress: as in ``compute_influence``

        Returns:
            a :class:`~fiftyone_ecif.dataset.ask.trace_record.Trace`, or a list of them for a list of queries

        Raises:
            ValueError: if the query does not fail, or cannot be asked about, or the data has changed since the run
        """
        return make_traces(self, query, k, kind, order, direction, right, wrong, key, progress)

    def list_traces(self) -> list[str]:
        """Keys of the traces that are kept with the run, oldest first."""
        return list_traces(self)

    def load_trace(self, key: str) -> Trace:
        """Open a trace; raises a ValueError that names those there are if there is none of this key."""
        return load_trace(self, key)

    def delete_trace(self, key: str) -> None:
        """Forget a trace; raises a ValueError that names those there are if there is none of this key."""
        delete_trace(self, key)

    def trace_study(self) -> TraceStudy:
        """What the run's traces share, kept open as long as the data stays as it is."""
        state = self.dataset.count(), self.dataset.last_modified_at, self.samples.max("last_modified_at")
        if self._study is None or self._study[0] != state:
            self._study = state, TraceStudy(self)
        return self._study[1]

    def _scored(self, name: str) -> fo.DatasetView:
        if not self.dataset.has_sample_field(name):
            raise ValueError(f"Field {name!r} was deleted: compute run {self.run_key!r} again.")
        return self.dataset.exists(name)

    @staticmethod
    def _limited(view: fo.DatasetView, limit: int | None) -> fo.DatasetView:
        if limit is not None and limit < 1:
            raise ValueError(f"limit must be at least 1, not {limit}.")
        return view if limit is None else view.limit(limit)


def load_results(dataset: SampleCollection, run_key: str) -> InfluenceResults:
    """Open a run.

    Args:
        dataset: a Dataset or view
        run_key: the run's key

    Returns:
        :class:`InfluenceResults`

    Raises:
        ValueError: if there is no such run
    """
    return InfluenceResults(dataset._dataset, run_key)
