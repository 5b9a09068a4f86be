"""A run's results: views by score, and what can be asked of the run. A thin face over the rooms below."""

from __future__ import annotations

from collections.abc import Sequence

import fiftyone as fo
import numpy as np
from fiftyone import ViewField as F
from fiftyone.core.collections import SampleCollection

from fiftyone_ecif.attribution import RemovalEffect
from fiftyone_ecif.core import embeddings_under
from fiftyone_ecif.dataset import arguments
from fiftyone_ecif.dataset.arguments import COUNT, PROBABILITY, SHARE, Samples, Text, WholeNumber, at_most, checked
from fiftyone_ecif.dataset.ask.error_slices import ErrorSlice, error_slices
from fiftyone_ecif.dataset.ask.query import Answer, Query
from fiftyone_ecif.dataset.ask.removal_study import RemovalCurve, RemovalStudy, forecast_removal
from fiftyone_ecif.dataset.ask.trace_record import Trace, delete_trace, list_traces, load_trace, make_traces
from fiftyone_ecif.dataset.ask.trace_study import TraceStudy
from fiftyone_ecif.dataset.checks import check_text_field, is_classification_field, score_field
from fiftyone_ecif.dataset.progress import ProgressChoice, reporting
from fiftyone_ecif.dataset.repair.review import SUGGESTED_PRECISION, harmful
from fiftyone_ecif.dataset.repair.suggest import suggest_again
from fiftyone_ecif.dataset.run.run import Run
from fiftyone_ecif.dataset.samples import everything, number_of
from fiftyone_ecif.detect import threshold_for
from fiftyone_ecif.models import ContrastiveModel
from fiftyone_ecif.notes import note

NEWTON_STEPS = WholeNumber(1, 10)
"""Of a removal: each costs a solve."""

CURVE_POINTS = WholeNumber(1, 100)
"""Of a forecast: each costs a solve."""


class InfluenceResults(Run):
    """What a run found, on the data set that it ran on.

    Args:
        dataset: the data set
        run_key: the run's key

    Raises:
        ValueError: if there is no such run
    """

    def __init__(self, dataset: fo.Dataset, run_key: str) -> None:
        super().__init__(dataset, run_key)
        self._study: tuple[tuple, TraceStudy] | None = None

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
        if threshold is not None:
            threshold = PROBABILITY("threshold", threshold)
        name = self._score_field("misalignment")
        view = everything(self.dataset).exists(name)
        if precision is not None:
            threshold = self.suggested_threshold(precision)
            if threshold is None:
                note(
                    f"No threshold is expected to reach a precision of {precision:.0%}: the most suspicious pair is "
                    f"wrong with a probability of {view.max(name) or 0:.0%}."
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
        name = self._score_field("misalignment")
        numbers = everything(self.dataset).match({name: {"$gte": 0}})  # alone, whatever else is there
        scores = numbers.values(name)
        return threshold_for(np.array(scores, dtype=float), SHARE("precision", precision))

    def harmful(self, limit: int | None = None) -> fo.DatasetView:
        """The pairs whose removal would lower the target loss, most harmful first.

        Args:
            limit: at most so many

        Returns:
            a view of pairs with a negative value, sorted by value, rising
        """
        return self._limited(harmful(self.dataset, self.run_key), limit)

    def valuable(self, limit: int | None = None) -> fo.DatasetView:
        """The pairs whose removal would raise the target loss, most valuable first.

        Args:
            limit: at most so many

        Returns:
            a view of pairs with a positive value, sorted by value, falling
        """
        name = self._score_field("value")
        return self._limited(everything(self.dataset).match(F(name) > 0).sort_by(name, reverse=True), limit)

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

    @checked(view=Samples())
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

    @checked(fields=arguments.Texts(), limit=COUNT)
    def error_slices(
        self,
        fields: Sequence[str] = ("tags",),
        limit: int = 20,
        progress: ProgressChoice = None,
        model: ContrastiveModel | None = None,
    ) -> list[ErrorSlice]:
        """Recurring errors: groups of pairs that share what is wrong with them, each pair in one at most.

        They have words, folders, values or looks in common, or words that stand for each other, or are alike in what
        they show and what they say; chance alone brings forth a slice in one of twenty runs (docs/detection.md). The
        names are written to the field ``<run_key>_error_slice``.

        Args:
            fields: of the samples, whose values may be a cause, such as a source or a category
            limit: slices at most
            progress: as in ``compute_influence``
            model: the run's, where it was made in memory; None to load it again. Without any, as for stored embeddings,
                exchanged words are not looked for

        Returns:
            the slices, the one with the most evidence first

        Raises:
            ValueError: if the run knew no texts, a field is not there, or the data has changed since
        """
        if model is not None:
            self.use_model(model)
        with reporting(progress) as report:
            return error_slices(self, fields, limit, report)

    def estimate_removal(
        self, view: SampleCollection, newton_steps: int = 1, progress: ProgressChoice = None
    ) -> RemovalEffect:
        """Predict what removing pairs does to the target, without retraining (ECIF.md §7).

        Args:
            view: the samples to remove; those without a score in this run are ignored
            newton_steps: 1 for the closed form, 2 to correct it once; at most 10
            progress: as in ``compute_influence``

        Returns:
            a :class:`~fiftyone_ecif.attribution.RemovalEffect`: the target's loss in nats and its recall, or zero-shot
            accuracy for labels, before and after

        Raises:
            ValueError: if nothing or nearly everything is removed, or the data has changed since the run
        """
        with reporting(progress) as report:
            return RemovalStudy(self, view, report).estimate(NEWTON_STEPS("newton_steps", newton_steps))

    def verify_removal(self, view: SampleCollection, progress: ProgressChoice = None) -> RemovalEffect:
        """What removing pairs does to the target by really refitting the scope, beside the prediction.

        Args:
            view: the samples to remove; those without a score in this run are ignored
            progress: as in ``compute_influence``

        Returns:
            a :class:`~fiftyone_ecif.attribution.RemovalEffect` with ``measured``

        Raises:
            ValueError: as :meth:`estimate_removal`
        """
        with reporting(progress) as report:
            return RemovalStudy(self, view, report).verify()

    @checked(view=Samples())
    def forecast_removal(
        self, view: SampleCollection | None = None, points: int = 6, progress: ProgressChoice = None
    ) -> RemovalCurve:
        """Predict the target as ever more harmful pairs are removed, the most harmful first, without retraining.

        Each point is an ``estimate_removal`` of its own, with the curvature of the pairs that are left, and costs a
        solve; the fits and the target are read once. Why no inverse is kept for all points: docs/fidelity.md.

        Args:
            view: the samples to remove from, as far as they are harmful; None: all
            points: of the curve, up to all harmful pairs or a fifth of the run's; 1 to 100
            progress: as in ``compute_influence``

        Returns:
            a :class:`~fiftyone_ecif.dataset.ask.removal_study.RemovalCurve`

        Raises:
            ValueError: if none of them harms, or the data has changed since the run
        """
        with reporting(progress) as report:
            return forecast_removal(self, view, CURVE_POINTS("points", points), report)

    @checked(path=Text())
    def edited_checkpoint(
        self,
        view: SampleCollection,
        path: str,
        newton_steps: int = 1,
        progress: ProgressChoice = None,
        overwrite: bool = False,
        model: ContrastiveModel | None = None,
    ) -> str:
        """Write an open_clip checkpoint that is fitted on the pairs and then freed of some, in closed form.

        What the run's scope holds differs from the given weights; adapters are folded into the weights they adapt.

        Args:
            view: the samples whose influence is removed
            path: ends in .pt or .safetensors, or is a folder's; ``open_clip.create_model_and_transforms(model,
                pretrained=path)`` loads the file. Beside it goes ``open_clip_config.json``: a folder of its own with a
                .safetensors is what open_clip calls ``local-dir:FOLDER``
            newton_steps: 1 for the closed form, 2 to correct it once; at most 10
            progress: as in ``compute_influence``
            overwrite: whether to replace files that are there
            model: the run's, where it was made in memory; None to load it again

        Returns:
            ``path``

        Raises:
            ValueError: as :meth:`estimate_removal`, or if the run has no model to edit, or files are in the way
        """
        if model is not None:
            self.use_model(model)
        with reporting(progress) as report:
            study = RemovalStudy(self, view, report)
            return study.write_checkpoint(path, NEWTON_STEPS("newton_steps", newton_steps), overwrite)

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
        progress: ProgressChoice = None,
        model: ContrastiveModel | None = None,
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
            model: the run's, for images and texts from outside where it was made in memory; None to load it again

        Returns:
            a :class:`~fiftyone_ecif.dataset.ask.trace_record.Trace`, or a list of them for a list of queries

        Raises:
            ValueError: if the query does not fail, or cannot be asked about, or the data has changed since the run
        """
        if model is not None:
            self.use_model(model)
        with reporting(progress) as report:
            study = self.trace_study()
            return make_traces(study, query, COUNT("k", k), kind, order, direction, right, wrong, key, report)

    def list_traces(self) -> list[str]:
        """Keys of the traces that are kept with the run, oldest first."""
        return list_traces(self)

    def load_trace(self, key: str) -> Trace:
        """Open a trace; raises a ValueError that names those there are if there is none of this key."""
        return load_trace(self, key)

    def delete_trace(self, key: str) -> None:
        """Forget a trace; raises a ValueError that names those there are if there is none of this key."""
        delete_trace(self, key)

    def change_text_field(self, text_field: str) -> None:
        """Tell the run that its captions or labels are in another field now, as after the field was renamed.

        Args:
            text_field: the field

        Raises:
            ValueError: if the run had no texts, or the field does not hold such texts
        """
        config = self.config
        if config.text_field is None:
            raise ValueError(f"Run {self.run_key!r} was computed without captions or labels.")
        check_text_field(self.dataset, text_field)
        labelled = is_classification_field(self.dataset, text_field)
        if labelled != self.rows().labelled:
            held, holds = ("captions", "labels") if labelled else ("labels", "captions")
            raise ValueError(f"Run {self.run_key!r} was computed on {held}, and {text_field!r} holds {holds}.")
        config.text_field = text_field
        self.dataset.update_run_config(self.run_key, config)

    def trace_study(self) -> TraceStudy:
        """What the run's traces share, kept open as long as the data stays as it is."""
        samples = everything(self.dataset)
        state = number_of(samples), self.dataset.last_modified_at, samples.max("last_modified_at")
        if self._study is None or self._study[0] != state:
            self._study = state, TraceStudy(self)
        return self._study[1]

    def _score_field(self, suffix: str) -> str:
        return score_field(self.dataset, self.run_key, suffix)

    @staticmethod
    def _limited(view: fo.DatasetView, limit: int | None) -> fo.DatasetView:
        most = at_most(limit)
        return view if most is None else view.limit(most)


@checked(dataset=Samples())
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
