"""A run's results: views by score, and what can be asked of the run. A thin face over the rooms below."""

from __future__ import annotations

from collections.abc import Sequence

import fiftyone as fo
import numpy as np
from fiftyone.core.collections import SampleCollection

from fiftyone_ecif.attribution import RemovalEffect
from fiftyone_ecif.core import embeddings_under
from fiftyone_ecif.dataset import arguments
from fiftyone_ecif.dataset.arguments import COUNT, Samples, Text, WholeNumber, checked
from fiftyone_ecif.dataset.ask.error_slices import ErrorSlice, error_slices
from fiftyone_ecif.dataset.ask.query import Answer, Query
from fiftyone_ecif.dataset.ask.removal_study import RemovalCurve, RemovalStudy, forecast_removal
from fiftyone_ecif.dataset.ask.trace_record import Trace, delete_trace, list_traces, load_trace, make_traces
from fiftyone_ecif.dataset.ask.trace_study import TraceStudy
from fiftyone_ecif.dataset.ask.wrong_words import name_wrong_words
from fiftyone_ecif.dataset.progress import ProgressChoice, reporting
from fiftyone_ecif.dataset.ranked_pairs import RankedPairs
from fiftyone_ecif.dataset.repair.audit import audit, recalibrate
from fiftyone_ecif.dataset.repair.suggest import suggest_again
from fiftyone_ecif.dataset.run.text_field import move_text_field
from fiftyone_ecif.dataset.samples import everything, number_of
from fiftyone_ecif.detect.calibration_from_answers import NoiseRate
from fiftyone_ecif.models import ContrastiveModel

NEWTON_STEPS = WholeNumber(1, 10)
"""Of a removal: each costs a solve."""

MOST_NAMED = WholeNumber(1, 20)
"""Words of a caption that are named."""

CURVE_POINTS = WholeNumber(1, 100)
"""Of a forecast: each costs a solve."""


class InfluenceResults(RankedPairs):
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

    def audit(self) -> NoiseRate:
        """How many of the run's pairs are wrong, by the verdicts on the pairs that ``audit_sample`` drew.

        Returns:
            a :class:`~fiftyone_ecif.detect.calibration_from_answers.NoiseRate`: an unbiased estimate with its 90 %
            interval, and how many verdicts there are

        Raises:
            ValueError: if no pairs were drawn, or none of them has a verdict
        """
        return audit(self)

    def recalibrate(self) -> NoiseRate:
        """Correct the run's misalignment by the verdicts on the pairs that ``audit_sample`` drew.

        The order of the pairs stays. The field ``<run_key>_misalignment`` and ``health`` (the noise rate, the suggested
        threshold, and under "audit" what was found) are written anew, from the probabilities as they were computed:
        called again, it says the same.

        Returns:
            as :meth:`audit`

        Raises:
            ValueError: as :meth:`audit`
        """
        return recalibrate(self)

    @checked(samples=Samples())
    def name_wrong_words(
        self,
        samples: SampleCollection | None = None,
        k: int = 2,
        progress: ProgressChoice = None,
        model: ContrastiveModel | None = None,
    ) -> dict[str, list[str]]:
        """Name the words that do not belong to their images, and write them to ``<run_key>_wrong_words``.

        Each caption is read once more by the text tower without each of its words (docs/detection.md).

        Args:
            samples: those to look at; None for the suspects, from a misalignment of ½ on
            k: at most so many words of each caption, the worst first
            progress: as in ``compute_influence``
            model: the run's, where it was made in memory; None to load it again

        Returns:
            words by sample id; none of a caption of one word

        Raises:
            ValueError: if the run has no captions or no text tower, or the data has changed since
        """
        if model is not None:
            self.use_model(model)
        with reporting(progress) as report:
            return name_wrong_words(self, samples, MOST_NAMED("k", k), report)

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
            accuracy for labels, before and after; without a target each is the mean over the run's fits, with a
            standard error

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
        move_text_field(self, text_field)

    def trace_study(self) -> TraceStudy:
        """What the run's traces share, kept open as long as the data stays as it is."""
        samples = everything(self.dataset)
        state = number_of(samples), self.dataset.last_modified_at, samples.max("last_modified_at")
        if self._study is None or self._study[0] != state:
            self._study = state, TraceStudy(self)
        return self._study[1]


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
