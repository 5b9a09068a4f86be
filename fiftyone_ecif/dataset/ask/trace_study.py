"""What a run's traces share: its heads, their tables, and the embeddings that answers are looked up among."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fiftyone_ecif.attribution import Attributed, FittedPairs
from fiftyone_ecif.attribution.objectives import FITTED, mean_loss
from fiftyone_ecif.attribution.question import Question
from fiftyone_ecif.attribution.refit import verify_removal
from fiftyone_ecif.attribution.trace_tables import TraceTables, doubt, in_company
from fiftyone_ecif.core import Head, Objective, Progress, embeddings_under
from fiftyone_ecif.core.pairs import Subset
from fiftyone_ecif.core.query_gradient import OuterProducts
from fiftyone_ecif.dataset.run.config import trace_folder
from fiftyone_ecif.dataset.run.fits import fit_settings, fits_of
from fiftyone_ecif.dataset.run.run import Run

SMALLEST_STEP = 1e-3
"""Floor of a pair's self-influence, over the median: below it, rounding would decide the relative influence."""


TRACED = 2
"""Heads of a cross-fitted run that are traced: between them they were fitted on every pair, and each costs a pass."""

ORDERS = ("blame", "relative", "value")
"""What the pairs of a trace can be ordered by: relative influence × doubt, in company; relative influence; or value."""


class Fit(NamedTuple):
    """A head of the run and the pairs that it is at rest on."""

    number: int
    anchor: float  # of J
    members: Tensor  # int64 (n,)
    head: Head
    objective: Objective  # damped


class Found(NamedTuple):
    """The pairs that are most to blame, most first, (k,) each; and the mean target before, over queries and heads."""

    rows: Tensor
    value: Tensor
    positive: Tensor
    negative: Tensor
    relative: Tensor
    doubt: Tensor
    by_round: Tensor  # (rounds, k), summed over the heads that a pair is part of
    by_head: Tensor  # (heads, k), 0 for pairs that are no part of a head
    target: float


class TraceStudy:
    """One run, ready for any number of queries.

    A run with a target has one head. Of a cross-fitted one the first two are traced, so that a trace stays cheap: each
    pair was fitted by one of them or by both, and is judged under those. A query's target is the mean of both heads.

    Args:
        run: the run

    Raises:
        ValueError: if the run's scope is not the head, or the data has changed since
    """

    def __init__(self, run: Run) -> None:
        config = run.config
        if config.scope != "head":
            raise ValueError(
                f"Traces are made at head scope, and this run's scope is {config.scope!r}: compute a run with "
                "scope='head' beside it; its features are there already."
            )
        self.run, self.config, self.settings = run, config, run.settings
        self.rows = run.rows()
        self.pairs = run.pairs(self.rows)
        self.folder = trace_folder(config)
        self.row = {id: row for row, id in enumerate(self.pairs.ids)}

    @cached_property
    def fits(self) -> list[Fit]:
        """The heads that are traced."""
        fits = []
        for fit in fits_of(self.run)[:TRACED]:
            head = self.run.given_head.replace(fit.vector)
            objective = mean_loss(Subset(self.pairs, fit.members), self.config.loss, self.settings, FITTED)
            damped = replace(objective, anchor=fit.anchor + self.settings.damping, origin=head.vector())
            fits.append(Fit(fit.number, fit.anchor, fit.members, head, damped))
        return fits

    def prepare_answers(self, progress: Progress) -> None:
        """Compute what it takes to rank answers, unless it is there: the embeddings under the run's heads."""
        for fit in self.fits:
            self._embeddings(fit, progress)

    def prepare(self, progress: Progress) -> None:
        """Compute what every trace needs, unless it is there: minutes for 100,000 pairs, once per run."""
        self.relative_scale  # noqa: B018 - what is missing in the run is said before anything is computed
        self.prepare_answers(progress)
        for fit in self.fits:
            self._tables(fit, progress)

    def embeddings(self, number: int, tower: str) -> np.ndarray:
        """u_n ("image") or v_n ("text") of all pairs under a head, float16 (N, D), memory-mapped."""
        return self._embedded[number][tower]

    def scores(self, features: Tensor, asks: str, rows: Tensor) -> Tensor:
        """Mean similarity S over the heads of queries (Q, F) to the candidates ``rows`` (int64, (C,)), (Q, C)."""
        total = torch.zeros(len(features), len(rows))
        for fit in self.fits:
            head = fit.head
            weight = head.image_weight if asks == "image" else head.text_weight
            own = torch.nn.functional.normalize(features.to(weight) @ weight.T, dim=1)
            candidates = self.embeddings(fit.number, "text" if asks == "image" else "image")
            for part in torch.arange(len(rows)).split(16_384):
                theirs = torch.from_numpy(candidates[rows[part].numpy()]).float()
                total[:, part] += head.logit_scale.exp() * (own @ theirs.T) / len(self.fits)
        return total

    def scores_of(self, feature: Tensor, asks: str, others: Tensor) -> Tensor:
        """The same of one query (F,) to candidates from outside the run, (E,), by their features (E, F)."""
        total = torch.zeros(len(others))
        for fit in self.fits:
            image, text = (feature[None], others) if asks == "image" else (others, feature[None])
            batch = fit.head.linearize(image, text)
            total += fit.head.logit_scale.exp() * (batch.image @ batch.text.T).flatten() / len(self.fits)
        return total

    def trace(
        self,
        groups: list[list[Question]],
        kind: str,
        k: int,
        order: str,
        excluded: list[set[int]],
        progress: Progress,
    ) -> list[Found]:
        """The k pairs that are most to blame for each group of questions, by the group's mean; one pass for all.

        Args:
            groups: the queries, by trace
            kind: of target
            k: pairs at most
            order: one of :data:`ORDERS`
            excluded: for each group, the rows that are not to be named
            progress: called with each step's name
        """
        self.prepare(progress)
        values = torch.zeros(len(groups), len(self.pairs))
        targets = torch.zeros(len(groups))
        traced = []
        for fit in self.fits:
            gradients = []
            for number, questions in enumerate(groups):
                losses, parts = zip(*(question.target(fit.head, self.pairs, kind) for question in questions))
                targets[number] += sum(losses) / len(losses) / len(self.fits)
                gradients.append(OuterProducts.join(parts).mean())
            found = self._tables(fit, progress).values(OuterProducts.join(gradients), progress)
            values[:, fit.members] += found.value
            traced.append(found)
        values /= self.times_fitted
        ranked = values.clone() if order == "value" else values * self.relative_scale
        if order == "blame":
            ranked = ranked * self.doubt
        for row, out in enumerate(excluded):
            ranked[row, list(out)] = torch.nan
        if order == "blame":
            ranked = torch.stack([in_company(blame, self._images) for blame in ranked])
        return [
            self._most_to_blame(traced, number, ranked[number], k, target.item())
            for number, target in enumerate(targets)
        ]

    def _most_to_blame(self, traced: list, number: int, ranked: Tensor, k: int, target: float) -> Found:
        blamed = int((ranked < 0).sum())
        rows = ranked.nan_to_num(torch.inf).topk(min(k, blamed), largest=False).indices
        rounds = self.settings.rounds
        value, positive, negative = (torch.zeros(len(rows)) for _ in range(3))
        by_round, by_head = torch.zeros(rounds, len(rows)), torch.zeros(len(self.fits), len(rows))
        for fit, found, on_head in zip(self.fits, traced, by_head, strict=True):
            place = torch.full((len(self.pairs),), -1)
            place[fit.members] = torch.arange(len(fit.members))
            mine = place[rows] >= 0
            effects = found.effects(number, place[rows[mine]])
            for part, values in zip((value, positive, negative, by_round), effects):
                part[..., mine] += values
            on_head[mine] = effects.value
        value, positive, negative = (part / self.times_fitted[rows] for part in (value, positive, negative))
        relative = value * self.relative_scale[rows]
        return Found(rows, value, positive, negative, relative, self.doubt[rows], by_round, by_head, target)

    @cached_property
    def times_fitted(self) -> Tensor:
        """How many of the traced heads each pair is part of, (N,); at least 1."""
        return torch.bincount(torch.cat([fit.members for fit in self.fits]), minlength=len(self.pairs)).float()

    def _images(self, rows: Tensor) -> Tensor:
        """Image embeddings of some pairs under all heads side by side, so that likeness is the mean over heads."""
        parts = [self.embeddings(fit.number, "image")[rows.numpy()] for fit in self.fits]
        return torch.from_numpy(np.concatenate(parts, axis=1)).float()

    @cached_property
    def doubt(self) -> Tensor:
        """How likely each pair's text is wrong, d_n, (N,)  (ECIF.md §6).

        What somebody has found right since is not doubted. The neighbours' evidence, which misalignment also stands
        on, is left out: wrong pairs that make a query fail come in clusters, and confirm each other.
        """
        return doubt(self.run.surprise).masked_fill(torch.tensor(self.rows.trusted), 0.0)

    @cached_property
    def relative_scale(self) -> Tensor:
        """What a value is multiplied with for rel_n = ⟨s, g_n⟩ / √(g_nᵀ H⁻¹ g_n): √(N / self_n), (N,)  (ECIF.md §6)."""
        own = self.run.self_influence
        count = torch.zeros(len(own))
        for fit in reversed(self.fits):  # that of a pair of both is the first one's
            count[fit.members] = float(fit.objective.divisor)
        return (count / own.clamp_min(SMALLEST_STEP * own.nanmedian())).sqrt()

    def measured(self, questions: list[Question], kind: str, removed: Tensor, progress: Progress) -> float:
        """The mean target after really refitting every head without the pairs in ``removed`` (bool, (N,))."""
        remaining = [question.without(removed) for question in questions]

        def evaluate(scope) -> dict[str, float]:
            targets = [question.target(scope, self.pairs, kind)[0] for question in remaining]
            return {"target": sum(targets) / len(targets)}

        total = 0.0
        for fit in self.fits:
            gone = removed[fit.members]
            if not gone.any():
                total += evaluate(fit.head)["target"]
                continue
            attributed = Attributed.of_head(self.run.given_head, Subset(self.pairs, fit.members), None)
            settings = fit_settings(self.run)
            fitted = FittedPairs.restore(attributed, fit.head.vector(), self.config.loss, fit.anchor, settings)
            effect = verify_removal(fitted, gone, evaluate, progress=progress)
            assert effect.measured is not None
            total += effect.measured["target"]
        return total / len(self.fits)

    def _tables(self, fit: Fit, progress: Progress) -> TraceTables:
        if fit.number not in self._open:
            folder = self.folder / f"head-{fit.number}"
            removal, seed = self.settings.removal, self.settings.seed
            try:
                tables = TraceTables.open(folder, fit.objective, fit.head, removal)
            except FileNotFoundError:
                head = fit.head.to(self.run.device)
                tables = TraceTables.build(folder, fit.objective, head, removal, seed, progress)
            self._open[fit.number] = tables
        return self._open[fit.number]

    def _embeddings(self, fit: Fit, progress: Progress) -> None:
        if fit.number in self._embedded:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        paths = {tower: self.folder / f"{tower}-{fit.number}.npy" for tower in ("image", "text")}
        if not all(map(Path.exists, paths.values())):
            progress("Embeddings under the run's heads", fit.number, len(self.fits))
            for path, values in zip(paths.values(), embeddings_under(self.pairs, fit.head)):
                part = path.with_name(path.name + ".part")
                with open(part, "wb") as file:
                    np.save(file, values.half().numpy())
                os.replace(part, path)
        self._embedded[fit.number] = {tower: np.load(path, mmap_mode="r") for tower, path in paths.items()}

    @cached_property
    def _open(self) -> dict[int, TraceTables]:
        return {}

    @cached_property
    def _embedded(self) -> dict[int, dict[str, np.ndarray]]:
        return {}
