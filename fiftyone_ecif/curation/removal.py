"""Removing some of a run's pairs: predicted, verified, written into a checkpoint."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np
import torch
from fiftyone.core.collections import SampleCollection

from fiftyone_ecif.core import LOSSES, Head, Objective, Pairs, Progress, Scope, fit_to_rest, partitions
from fiftyone_ecif.curation.source import pair_rows
from fiftyone_ecif.curation.validation import is_classification_field
from fiftyone_ecif.engine import (
    FittedPairs,
    RemovalEffect,
    Settings,
    estimate_removal,
    mean_effect,
    recall,
    verify_removal,
)
from fiftyone_ecif.engine.local import Subset, cross_fit_folds
from fiftyone_ecif.engine.removal import Evaluation
from fiftyone_ecif.models import load_model

if TYPE_CHECKING:
    from fiftyone_ecif.curation.results import InfluenceResults


class RemovalStudy:
    """One group of pairs of one run, and the fits and targets that its removal is judged by.

    Args:
        results: the run
        view: the samples to remove
        progress: called with each step's name

    Raises:
        ValueError: if no sample of ``view`` was scored, or the data has changed since the run
    """

    def __init__(self, results: InfluenceResults, view: SampleCollection, progress: Progress) -> None:
        self.results, self.config, self.progress = results, results.config, progress
        if self.config.scope != "head":
            raise ValueError(f"Removal is predicted for runs of scope 'head'; this one's is {self.config.scope!r}.")
        self.settings = Settings(**{name: getattr(self.config, name) for name in Settings.__dataclass_fields__})
        self.pairs, self.target = results.pairs(), results.target_pairs()
        wanted = set(view.values("id"))
        self.removed = torch.tensor([id in wanted for id in self.pairs.ids])
        if not self.removed.any():
            raise ValueError("None of these samples was scored in this run: there is nothing to remove.")

    def estimate(self, newton_steps: int) -> RemovalEffect:
        """See ``InfluenceResults.estimate_removal``."""
        return mean_effect(
            [
                estimate_removal(fitted, removed, evaluate, newton_steps, self.progress)[0]
                for fitted, removed, evaluate in self._fits()
            ]
        )

    def verify(self) -> RemovalEffect:
        """See ``InfluenceResults.verify_removal``."""
        return mean_effect(
            [
                verify_removal(fitted, removed, evaluate, progress=self.progress)
                for fitted, removed, evaluate in self._fits()
            ]
        )

    def write_checkpoint(self, path: str, newton_steps: int) -> str:
        """See ``InfluenceResults.edited_checkpoint``."""
        if self.config.model is None:
            raise ValueError("This run used stored embeddings: there is no model whose checkpoint could be edited.")
        model = load_model(self.config.model, self.config.pretrained)
        if model.fingerprint != self.config.model_fingerprint:
            raise ValueError(
                f"The weights behind {self.config.model!r} ({self.config.pretrained}) are not those of the run: "
                "put the checkpoint back, or compute the run again."
            )
        fitted = self._restore(self.pairs, self.results.fitted_heads[0], 0)
        # A cross-fitted run has only seen halves: the head of all pairs is fitted now.
        fit = fit_to_rest(fitted.objective, fitted.scope, fitted.curvature.solve, progress=self.progress)
        fitted = FittedPairs(fitted.objective, fit.scope, fitted.curvature)
        _, moved = estimate_removal(fitted, self.removed, lambda scope: {}, newton_steps, self.progress)
        model.save_checkpoint(os.fspath(path), self.results.given_head.replace(moved.vector()))
        return path

    def _fits(self):
        """For every head of the run: what it was fitted on, which of those are removed, and what it is judged by."""
        heads = self.results.fitted_heads
        if self.target is not None:
            evaluate = self._evaluation(self.target, self.results.target_samples)
            yield self._restore(self.pairs, heads[0], 0), self.removed, evaluate
            return
        half = cross_fit_folds(len(self.pairs), self.settings.seed)
        for number, head in enumerate(heads):
            members, others = ((half == number).nonzero().squeeze(1), (half != number).nonzero().squeeze(1))
            if self.removed[members].any():
                fitted = self._restore(Subset(self.pairs, members), head, number)
                evaluate = self._evaluation(self.pairs.subset(others), self.results.samples)
                yield fitted, self.removed[members], evaluate

    def _restore(self, pairs: Pairs, head: Head, number: int) -> FittedPairs:
        origin = self.results.given_head.vector()
        anchor = self.results.health["anchor"][number]
        return FittedPairs.restore(pairs, self.config.loss, head, origin, anchor, self.settings, self.progress)

    def _evaluation(self, target, samples: SampleCollection) -> Evaluation:
        """The figures of a target: its loss, and its recall or, with labels, its zero-shot accuracy."""
        settings = self.settings
        rounds = partitions(len(target), min(settings.batch_size, len(target)), settings.rounds, settings.seed + 2)
        objective = Objective(target, rounds, LOSSES[self.config.loss])
        texts, labels = self._texts(target.ids, samples)
        number = {text: place for place, text in enumerate(dict.fromkeys(texts))}
        own = torch.tensor([number[text] for text in texts])
        first = torch.from_numpy(np.unique(own.numpy(), return_index=True)[1])

        def evaluate(head: Scope) -> dict[str, float]:
            figures = {"target_loss": objective.value(head)}
            everything = torch.arange(len(target))
            image = torch.cat([head.linearize(*target.gather(rows)).image for rows in everything.split(4096)])
            text = head.linearize(*target.gather(first)).text
            if labels is None:
                return figures | recall(image, own, text)
            classes = sorted(set(labels))
            member = torch.tensor([classes.index(label) for label in labels])
            prompts = torch.zeros(len(classes), text.shape[1]).index_add(0, member[first], text)
            prompts = torch.nn.functional.normalize(prompts, dim=1)
            return figures | {"zero_shot_accuracy": recall(image, member, prompts, (1,))["recall_at_1"]}

        return evaluate

    def _texts(self, ids: list[str], samples: SampleCollection) -> tuple[list, list[str] | None]:
        """What each pair says, and its label where the text field holds labels."""
        name = self.config.text_field
        if name is None:
            return list(ids), None
        captions = {row.id: row.caption for row in pair_rows(samples, name, self.config.templates)}
        if not is_classification_field(samples, name):
            return [captions[id] for id in ids], None
        label = dict(zip(*samples.values(["id", f"{name}.label"]), strict=True))
        return [captions[id] for id in ids], [label[id] for id in ids]
