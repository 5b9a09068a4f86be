"""What can be asked about: samples, views, and images and texts from outside, each with its right answer."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from fiftyone.core.collections import SampleCollection
from torch import Tensor

from fiftyone_ecif.attribution.question import Question, nearest
from fiftyone_ecif.core import Progress
from fiftyone_ecif.dataset.arguments import Choice, Text, shown
from fiftyone_ecif.dataset.ask.text_tower import text_features
from fiftyone_ecif.dataset.ask.trace_study import TraceStudy
from fiftyone_ecif.dataset.pairs import EmbeddingSource, TowerSource, check_width
from fiftyone_ecif.features.reading import check_caption, read_image
from fiftyone_ecif.models import ContrastiveModel

DIRECTIONS = {"image_to_text": "image", "text_to_image": "text"}
"""Which way a sample is asked about, and whether its image or its text asks."""

TOGETHER = 256
"""Queries whose similarities to all candidates are held together."""

Answer = str | Sequence[str] | None


def check_answers(right: Answer, wrong: Answer) -> None:
    """Raise a ValueError unless each is a text, or several."""
    for name, answer in {"right": right, "wrong": wrong}.items():
        several = isinstance(answer, Sequence) and all(isinstance(one, str) for one in answer)
        if answer is not None and not several:
            raise ValueError(f"{name} must be a label, caption or sample id, or a list of them, not {shown(answer)}.")


@dataclass(frozen=True)
class Query:
    """An image or a text from outside the dataset; pass one of the two.

    Args:
        image: path of an image that looks for its text
        text: a text that looks for its image
        right: the right answer: a label or caption for an image, a sample id for a text; or several. A caption need not
            be of the run, if that has a model to embed it with
        wrong: the wrong answers to compare with, likewise; None for all the others
    """

    image: str | None = None
    text: str | None = None
    right: Answer = None
    wrong: Answer = None

    def __post_init__(self) -> None:
        if (self.image is None) == (self.text is None):
            raise ValueError("A Query is an image or a text: pass one of the two, and its right answer as right=.")
        if self.image is not None:
            object.__setattr__(self, "image", Text()("image", self.image))
        check_answers(self.right, self.wrong)


class Asked(NamedTuple):
    """A question about a query.

    Attributes:
        question: for the trace
        own: the run's pairs that are the query itself
        name: the query in words
        sample_id: of the sample that asks; None for a query from outside
        margin: how much better the best right answer is than the best wrong one, nats; below 0 the query fails
        rank: of the best right answer among all, from 1
    """

    question: Question
    own: set[int]
    name: str
    sample_id: str | None
    margin: float
    rank: int


class Interpreter:
    """Turns queries into questions about one run.

    Args:
        study: of the run
        progress: called with each step's name
    """

    def __init__(self, study: TraceStudy, progress: Progress) -> None:
        self.study, self.config, self.progress = study, study.config, progress
        study.prepare_answers(progress)

    def samples(
        self, samples: SampleCollection, direction: str, right: Answer, wrong: Answer
    ) -> tuple[list[Asked], dict[str, str]]:
        """Questions about samples of any dataset, and the reasons of those that cannot be asked about, by id."""
        asks, reasons = DIRECTIONS[Choice(DIRECTIONS)("direction", direction)], {}
        check_answers(right, wrong)
        ids = samples.values("id")
        inside = [id for id in ids if id in self.study.row]
        outside = [id for id in ids if id not in self.study.row]
        features: dict[str, tuple[Tensor, Tensor]] = {}
        answers: dict[str, str | None] = {}
        if inside:
            image, text = self.study.pairs.gather(torch.tensor([self.study.row[id] for id in inside]))
            features.update(zip(inside, zip(image, text)))
            answers.update({id: self.answers[self.study.row[id]] for id in inside})
        if outside:
            rows = self.study.run.rows_of(samples.select(outside))
            pairs = self._source.pairs(rows, "Embed queries", True)
            reasons.update(pairs.skipped)
            if len(pairs):
                check_width(self.study.pairs, pairs, "the queries")
            features.update(zip(pairs.ids, zip(*pairs.gather(torch.arange(len(pairs))))))
            answers.update(zip(rows.ids, rows.ids if rows.texts is None else rows.texts))
        asked = []
        side = 0 if asks == "image" else 1
        candidates = self._candidates(asks)
        for part in range(0, len(features), TOGETHER):
            some = list(features)[part : part + TOGETHER]
            scores = self.study.scores(torch.stack([features[id][side] for id in some]), asks, candidates)
            for id, score in zip(some, scores):
                own = {self.study.row[id]} if id in self.study.row else set()
                own_right: Answer = right
                partner = None
                if right is None:
                    own_right = answers[id] if asks == "image" or not own else id
                    if not own and not self.study.rows.labelled and own_right not in self._coded(self.answers)[0]:
                        partner = features[id][1 - side]  # no pair of the run says this: the sample itself does
                query = features[id][side], score, asks, own_right, wrong, own, f"sample {id}", id, partner
                try:
                    asked.append(self._ask(*query))
                except ValueError as error:
                    reasons[id] = str(error)
        return asked, reasons

    def outside(self, query: Query) -> Asked:
        """The question of an image or text from outside the dataset.

        Raises:
            ValueError: if it cannot be read, has no known right answer, or there is no model to embed it
        """
        if query.right is None:
            raise ValueError("What is the right answer? Pass right=: a label or caption, or for a text a sample's id.")
        if query.text is not None:
            text = check_caption(query.text)
            return self._about(self._text_feature(text), "text", query, f"text {text!r}")
        assert query.image is not None
        if self.config.model is None:
            raise ValueError(
                "This run used stored embeddings: there is no model to embed an image with. Add it to a dataset with "
                "its embeddings, and ask about that sample."
            )
        model = self._model
        pixels = model.preprocess(read_image(query.image, self.config.apply_orientation))[None]
        with torch.no_grad():
            feature = model.image_features(pixels)[0].float().cpu()
        return self._about(feature, "image", query, f"image {query.image}")

    @cached_property
    def texts(self) -> list[str]:
        """What each pair of the run says; its id where the run has no text field."""
        rows = self.study.rows
        return list(rows.ids) if rows.texts is None else [str(caption) for caption in rows.captions()]

    @cached_property
    def answers(self) -> list[str]:
        """Each pair's answer: its label where the run's text field holds labels, else what it says."""
        rows = self.study.rows
        return [str(label) for label in rows.texts] if rows.labelled and rows.texts is not None else self.texts

    @cached_property
    def distinct(self) -> Tensor:
        """The first pair of each distinct text, int64 (C,)."""
        first: dict[str, int] = {}
        for row, text in enumerate(self.texts):
            first.setdefault(text, row)
        return torch.tensor(list(first.values()))

    def _candidates(self, asks: str) -> Tensor:
        """The pairs whose texts an image, or whose images a text, is looked up among."""
        return self.distinct if asks == "image" else torch.arange(len(self.study.pairs))

    def _about(self, feature: Tensor, asks: str, query: Query, name: str) -> Asked:
        scores = self.study.scores(feature[None], asks, self._candidates(asks))[0]
        return self._ask(feature, scores, asks, query.right, query.wrong, set(), name, None)

    def _ask(
        self,
        feature: Tensor,
        scores: Tensor,
        asks: str,
        right: Answer,
        wrong: Answer,
        own: set[int],
        name: str,
        sample_id: str | None,
        partner: Tensor | None = None,
    ) -> Asked:
        """The question; ``partner`` is the right answer's feature where no pair of the run has it."""
        rows = self._candidates(asks)
        others = self._new_texts(right, asks) if partner is None else partner[None]
        is_right = torch.zeros(len(rows), dtype=torch.bool)
        if not len(others):
            is_right = self._matching(right, asks, rows, "right")
        elif partner is None:
            name += f" with right answer {right!r}, which is none of the run's texts"
        of_others = self.study.scores_of(feature, asks, others)
        best = torch.cat([scores[is_right], of_others]).max()
        rank = 1 + int((scores > best).sum())
        if wrong is not None:
            kept = is_right | self._matching(wrong, asks, rows, "wrong")
            rows, scores, is_right = rows[kept], scores[kept], is_right[kept]
        scores = torch.cat([scores, of_others])
        is_right = torch.cat([is_right, torch.ones(len(others), dtype=torch.bool)])
        near = nearest(scores, is_right)
        inside = near < len(rows)
        question = Question(feature, asks, rows[near[inside]], is_right[near], others[near[~inside] - len(rows)])
        margin = (best - scores[~is_right].max()).item()
        return Asked(question, own, name, sample_id, margin, rank)

    def _new_texts(self, answer: Answer, asks: str) -> Tensor:
        """Features of an image's right captions where no pair has them and a model can embed them, (E, F)."""
        wanted = [answer] if isinstance(answer, str) else list(answer or ())
        none = self.study.pairs.gather(torch.arange(0))[1 if asks == "image" else 0]
        if asks == "text" or self.study.rows.labelled or self.config.model is None or not wanted:
            return none
        if any(text in self._coded(self.texts)[0] for text in wanted):
            return none
        return torch.stack([self._text_feature(check_caption(text)) for text in wanted])

    def _matching(self, answer: Answer, asks: str, rows: Tensor, role: str) -> Tensor:
        """Which candidates an answer means, bool (C,)."""
        wanted = {answer} if isinstance(answer, str) else {str(one) for one in answer or ()}
        keys = self._coded(self.answers)
        if asks == "text" and wanted <= set(self.study.row):
            # An image is right if it says the same as the right one.
            wanted = {self.answers[self.study.row[id]] for id in wanted}
        elif asks == "image" and not wanted <= set(keys[0]):
            keys = self._coded(self.texts)
        codes, of_pairs = keys
        unknown = wanted - set(codes)
        if unknown or not wanted:
            text = next(iter(unknown), "")
            near = difflib.get_close_matches(text, list(codes), n=3)
            raise ValueError(
                f"The {role} answer {text!r} is none of the run's texts"
                + (f": did you mean {' or '.join(map(repr, near))}?" if near else ": name a caption or label of it.")
            )
        return torch.isin(of_pairs[rows], torch.tensor([codes[one] for one in wanted]))

    def _coded(self, keys: list[str]) -> tuple[dict[str, int], Tensor]:
        """Each distinct text's number, and the number of each pair's."""
        if id(keys) not in self._codes:
            codes = {text: number for number, text in enumerate(dict.fromkeys(keys))}
            self._codes[id(keys)] = codes, torch.tensor([codes[text] for text in keys])
        return self._codes[id(keys)]

    @cached_property
    def _codes(self) -> dict[int, tuple[dict[str, int], Tensor]]:
        return {}

    def _text_feature(self, text: str) -> Tensor:
        if text in self.texts:
            row = torch.tensor([self.texts.index(text)])
            return self.study.pairs.gather(row)[1][0]
        if self.config.model is None:
            raise ValueError(
                f"{text!r} is none of the run's texts, and a run on stored embeddings has no model to embed it with."
            )
        return text_features(self._model, [text])[0]

    @cached_property
    def _model(self) -> ContrastiveModel:
        return self.study.run.model()

    @property
    def _source(self) -> TowerSource | EmbeddingSource:
        stored = self.config.image_embeddings is not None
        return EmbeddingSource() if stored else TowerSource(self._model, 0, self.progress)
