"""Removing some of a run's pairs: predicted, verified, written into a checkpoint."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np
import torch
from fiftyone.core.collections import SampleCollection

from fiftyone_ecif.attribution import (
    Attributed,
    FittedPairs,
    RemovalEffect,
    Settings,
    estimate_removal,
    mean_effect,
    recall,
    verify_removal,
)
from fiftyone_ecif.attribution.objectives import TARGET, mean_loss
from fiftyone_ecif.attribution.refit import LARGE_GROUP, Evaluation, errors_of_changes, mean_figures
from fiftyone_ecif.core import Head, Pairs, Progress, Scope, embeddings_under
from fiftyone_ecif.core.pairs import Subset
from fiftyone_ecif.dataset.arguments import Samples
from fiftyone_ecif.dataset.checks import check_view, score_field
from fiftyone_ecif.dataset.chosen_scope import attributed_scope
from fiftyone_ecif.dataset.repair.review import SUSPECTED, harmful
from fiftyone_ecif.dataset.rows import Rows
from fiftyone_ecif.dataset.run.fits import RunFit, fit_settings, fits_of
from fiftyone_ecif.dataset.run.run import Run
from fiftyone_ecif.dataset.samples import everything, ungrouped
from fiftyone_ecif.models import ContrastiveModel, ParameterScope, wrap_model

SURE = 2.0
"""Standard errors from which a change counts as more than noise."""


@dataclass(frozen=True)
class RemovalCurve:
    """What becomes of the target as ever more pairs are removed.

    Attributes:
        removed: numbers of pairs, rising from 0
        predicted: the target's figures without them, by name: ``target_loss`` in nats, and its recall or accuracy
        standard_error: of the predicted change of each figure since 0, as in a
            :class:`~fiftyone_ecif.attribution.RemovalEffect`; empty where one fit tells nothing of it
    """

    removed: list[int]
    predicted: dict[str, list[float]]
    standard_error: dict[str, list[float]]


class RemovalStudy:
    """One group of pairs of one run, and the fits and targets that its removal is judged by.

    Args:
        run: the run
        view: the samples to remove
        progress: called with each step's name

    Raises:
        ValueError: if no sample of ``view`` was scored, or the data has changed since the run
    """

    def __init__(self, run: Run, view: SampleCollection, progress: Progress) -> None:
        Samples()("view", view)
        check_view(view)
        self.run, self.config, self.settings, self.progress = run, run.config, run.settings, progress
        self.rows, self.target_rows = run.rows(), run.target_rows()
        self.pairs, self.target = run.pairs(self.rows), run.target_pairs(self.target_rows)
        wanted = set(ungrouped(view).values("id"))
        self.removed = torch.tensor([id in wanted for id in self.pairs.ids])
        if not self.removed.any():
            raise ValueError("None of these samples was scored in this run: there is nothing to remove.")

    def estimate(self, newton_steps: int) -> RemovalEffect:
        """See ``InfluenceResults.estimate_removal``."""
        effects = [
            estimate_removal(fitted, self.removed[members], evaluate, newton_steps, self.progress)[0]
            for fitted, members, evaluate in self._fits()
        ]
        return self._mean(effects)

    def curve(self, ids: Sequence[str], counts: Sequence[int]) -> RemovalCurve:
        """The target without the first of ``ids``, for each of the ``counts``, rising."""
        place = {id: row for row, id in enumerate(self.pairs.ids)}
        order = torch.tensor([place[id] for id in ids])
        parts = []
        for fitted, members, evaluate in self._fits():
            figures = [evaluate(fitted.scope)]
            for count in counts:
                removed = torch.zeros(len(self.pairs), dtype=torch.bool)
                removed[order[:count]] = True
                if removed[members].any():
                    report = partial(self._report, f"Removal of {count:,} pairs")
                    effect, _ = estimate_removal(fitted, removed[members], evaluate, progress=report)
                    figures.append(effect.predicted)
                else:
                    figures.append(figures[0])
            parts.append(figures)
        points = [list(figures) for figures in zip(*parts, strict=True)]  # point by point, those of each fit
        predicted = [mean_figures(figures) for figures in points]
        errors = [errors_of_changes(points[0], figures) for figures in points]
        return RemovalCurve([0, *counts], _columns(predicted), _columns(errors))

    def _mean(self, effects: list[RemovalEffect]) -> RemovalEffect:
        """The effect over the run's fits, with a warning where it contradicts what the pairs are suspected of."""
        effect = mean_effect(effects, int(self.removed.sum()))
        rise = effect.predicted["target_loss"] - effect.before["target_loss"]
        suspected = self.removed & (self.run.misalignment >= SUSPECTED)
        if rise > 0 and int(suspected.sum()) > effect.removed / 2:
            effect.warnings.append(self._contradiction(rise, effect.standard_error.get("target_loss"), suspected))
        return effect

    def _contradiction(self, rise: float, error: float | None, suspected: torch.Tensor) -> str:
        """Why a removal of suspected pairs may raise the target loss, in plain words."""
        ids = [id for id, each in zip(self.pairs.ids, suspected.tolist(), strict=True) if each]
        value = score_field(self.run.dataset, self.run.run_key, "value")
        helpful = everything(self.run.dataset).select(ids).match({value: {"$gt": 0}}).count()
        said = (
            f"Removing these pairs is predicted to raise the target loss although {len(ids)} of them are suspected: "
            f"{helpful} of these have a positive value. "
        )
        if error is not None and rise < SURE * error:
            return said + "The rise is within two standard errors of 0: it may be noise."
        if self.target_rows is None:
            return said + (
                "The target is the mean loss of the pairs that the run believes, and what it believes wrongly is part "
                "of it: look at the pairs themselves, or give a target of pairs that are known to be right."
            )
        return said + (
            "The target may hold wrong captions itself, or be too small or too unlike these pairs: look through it, "
            "and trust the pairs themselves more than this figure."
        )

    def _report(self, name: str, step: str, done: int, total: int) -> None:
        self.progress(name, done, total)

    def verify(self) -> RemovalEffect:
        """See ``InfluenceResults.verify_removal``."""
        effects = [
            verify_removal(fitted, self.removed[members], evaluate, progress=self.progress)
            for fitted, members, evaluate in self._fits()
        ]
        return self._mean(effects)

    def write_checkpoint(self, path: str, newton_steps: int, overwrite: bool) -> str:
        """See ``InfluenceResults.edited_checkpoint``."""
        if self.config.model is None:
            raise ValueError("This run used stored embeddings: there is no model whose checkpoint could be edited.")
        model = self.model
        model.check_checkpoint(path, overwrite)
        if self.config.scope == "head":
            model.check_editable()
        # No fit of a cross-fitted run has seen every fold: all pairs are fitted now, unless they were.
        fitted = self._restore(self.fits[0], self.attributed.pairs, self.settings).at_rest(self.progress)
        _, moved = estimate_removal(fitted, self.removed, lambda scope: {}, newton_steps, self.progress)
        if isinstance(moved, ParameterScope):
            module = moved.plain_module()
            edited = wrap_model(module, model.preprocess, model.tokenizer, name=model.name, config=model.config)
            edited.save_checkpoint(path, overwrite=overwrite)
        elif isinstance(moved, Head):
            model.save_checkpoint(path, moved, overwrite)
        return path

    @cached_property
    def model(self) -> ContrastiveModel:
        """The run's model, as it was given."""
        return self.run.model()

    @cached_property
    def attributed(self) -> Attributed:
        """The run's scope at θ0, with its inputs."""
        config, settings = self.config, self.settings
        if config.scope == "head":
            return Attributed.of_head(self.run.given_head.to(self.run.device), self.pairs, self.target)
        self.run.check_inputs(self.rows)
        chosen = attributed_scope(
            self.model, config.scope, self.rows, self.target_rows, settings.batch_size, settings.seed, self.progress,
            training_steps=0,
        )  # fmt: skip
        return replace(chosen, scope=chosen.scope.replace(self.run.origin.to(self.model.device)))

    def _fits(self) -> Iterator[tuple[FittedPairs, torch.Tensor, Evaluation]]:
        """For every fit of the run with pairs to remove: what was fitted, on which rows, and what it is judged by."""
        inputs = self.attributed.pairs
        for fit in self.fits:
            if not self.removed[fit.members].any():
                continue
            if fit.target is None:
                assert self.attributed.target is not None and self.target_rows is not None
                evaluate = self._evaluation(self.attributed.target, self.target_rows)
            else:
                rows = self.rows.of([self.pairs.ids[row] for row in fit.target.tolist()])
                evaluate = self._evaluation(Subset(inputs, fit.target), rows)
            fitted = self._restore(fit, Subset(inputs, fit.members), fit_settings(self.run))
            yield fitted, fit.members, evaluate

    @cached_property
    def fits(self) -> list[RunFit]:
        """The run's fits."""
        return fits_of(self.run)

    def _restore(self, fit: RunFit, inputs: Pairs, settings: Settings) -> FittedPairs:
        vector = fit.vector.to(self.attributed.scope.vector())
        attributed = replace(self.attributed, pairs=inputs)
        return FittedPairs.restore(attributed, vector, self.config.loss, fit.anchor, settings)

    def _evaluation(self, target: Pairs, rows: Rows) -> Evaluation:
        """The figures of a target: its loss, and its recall or, with labels, its zero-shot accuracy."""
        objective = mean_loss(target, self.config.loss, self.settings, TARGET)
        texts = rows.ids if rows.texts is None else rows.captions()
        number = {text: place for place, text in enumerate(dict.fromkeys(texts))}
        own = torch.tensor([number[text] for text in texts])
        first = torch.from_numpy(np.unique(own.numpy(), return_index=True)[1])

        def evaluate(scope: Scope) -> dict[str, float]:
            figures = {"target_loss": objective.value(scope)}
            image, text = (part.cpu() for part in embeddings_under(target, scope, self.settings.batch_size))
            text = text[first]
            if not rows.labelled or rows.texts is None:
                return figures | recall(image, own, text)
            classes = sorted({str(label) for label in rows.texts})
            member = torch.tensor([classes.index(str(label)) for label in rows.texts])
            prompts = torch.zeros(len(classes), text.shape[1]).to(text).index_add(0, member[first], text)
            prompts = torch.nn.functional.normalize(prompts, dim=1)
            return figures | {"zero_shot_accuracy": recall(image, member, prompts, (1,))["recall_at_1"]}

        return evaluate


def _columns(rows: list[dict[str, float]]) -> dict[str, list[float]]:
    return {name: [row[name] for row in rows] for name in rows[0]}


def forecast_removal(run: Run, view: SampleCollection | None, points: int, progress: Progress) -> RemovalCurve:
    """See ``InfluenceResults.forecast_removal``."""
    samples = harmful(run.dataset if view is None else view, run.run_key)
    study = RemovalStudy(run, samples, progress)
    ids = samples.limit(max(1, int(LARGE_GROUP * len(study.pairs)))).values("id")
    counts = np.unique(np.linspace(0, len(ids), points + 1).round().astype(int))[1:]
    return study.curve(ids, counts.tolist())
