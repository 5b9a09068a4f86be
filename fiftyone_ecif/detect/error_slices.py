"""Recurring errors: groups of pairs in which wrong texts are concentrated, and what their pairs have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from fiftyone_ecif.detect.chance import cumulants, excess
from fiftyone_ecif.detect.exchanged_words import Exchange, exchanged_words
from fiftyone_ecif.detect.mispaired import MOST_SUSPECTS, Mispairing, mispairings
from fiftyone_ecif.detect.nearest_rows import nearest
from fiftyone_ecif.detect.slice_candidates import (
    NUMBER,
    Candidates,
    clusters,
    shared_folders,
    shared_phrases,
    shared_values,
)
from fiftyone_ecif.detect.slice_names import template_of, typical_words

ERROR_RATE = 0.05
"""Probability of any slice where wrong texts have nothing in common, for each of the three searches a third of it."""

LEAST_PAIRS = 5
"""Pairs of a slice."""

LEAST_WRONG = 0.2
"""Share of a slice's texts that must be expected to be wrong."""

LEAST_ODDS = 3.0
"""How many times the odds of a wrong text must be those among all pairs: some things are only harder to recognise."""

NEARLY = 0.6
"""Share of the most evidence from which a purer group is preferred: "of the" may have more than "of the collection"."""

SUSPECTED = 0.5
"""Misalignment from which a pair's mispairing is looked at."""

STILL_OPEN = 0.5
"""Share of a group's pairs that no earlier slice may have explained."""

NEIGHBOURS = 30
"""Nearest images whose texts an image suggests."""

UNLIKE = 0.25
"""Share of the suspects' texts nearest to what an image suggests, among which a mispaired text is not."""

NAMING = 10
"""Texts near to what is shown that the name is taken from."""

KINDS = {
    "words": "Words in common",
    "texts": "Texts that are alike",
    "images": "Images that are alike",
    "folder": "Folder",
    "value": "Field",
    "exchanged words": "Exchanged words",
    "exchanged topics": "Exchanged topics",
    "wrong topic": "Wrong topic",
}
"""What the pairs of a slice have in common, in words for people."""


@dataclass(frozen=True)
class JudgedPairs:
    """Pairs whose misalignment is known, and what they may have in common.

    Attributes:
        probability: (N,), the misalignment
        image: (N, D) unit vectors
        text: (N, D) unit vectors in the same space
        logit_scale: τ
        texts: N captions or labels
        filepaths: N image files
        values: what else is known of each pair, by the name of a field: N values, or lists of them, or None
        embed: gives unit vectors (M, D) for M texts; None where no text tower is at hand, so that exchanged words
            cannot be sought
    """

    probability: np.ndarray
    image: Tensor
    text: Tensor
    logit_scale: float
    texts: Sequence[str]
    filepaths: Sequence[str]
    values: Mapping[str, Sequence[str | Sequence[str] | None]] = field(default_factory=dict)
    embed: Callable[[list[str]], Tensor] | None = None

    def ordered(self, order: np.ndarray) -> JudgedPairs:
        """The pairs in another order."""
        return JudgedPairs(
            self.probability[order],
            self.image[torch.from_numpy(order)],
            self.text[torch.from_numpy(order)],
            self.logit_scale,
            [self.texts[row] for row in order],
            [self.filepaths[row] for row in order],
            {name: [column[row] for row in order] for name, column in self.values.items()},
            self.embed,
        )


@dataclass(frozen=True)
class FoundSlice:
    """A group of pairs that share an error.

    Attributes:
        kind: a key of :data:`KINDS`
        name: what the pairs have in common
        rows: int64 (M,), rising
        share: of the pairs, expected to be wrong
        evidence: nats that it is more than chance
    """

    kind: str
    name: str
    rows: np.ndarray
    share: float
    evidence: float


def find_error_slices(pairs: JudgedPairs, most: int = 20, error_rate: float = ERROR_RATE) -> list[FoundSlice]:
    """Find groups of pairs that share an error; every pair is in one at most.

    Three searches propose groups:

    - what pairs have in common, whoever is suspected (words, folders, values of fields, clusters of images and texts):
      groups whose misalignment is larger than a random draw's, by Chernoff's bound;
    - words of which the images fit the wrong one (:func:`~fiftyone_ecif.detect.exchanged_words.exchanged_words`);
    - suspects that are alike both in what they show and in what they say
      (:func:`~fiftyone_ecif.detect.mispaired.mispairings`).

    Each search allows for all that it looks at (Bonferroni), so that ``error_rate`` bounds the probability of any slice
    where misalignment is independent of what pairs have in common. The group with the most evidence is taken, its
    pairs count as explained, and the evidence of the others is counted anew among the pairs that are left.

    Args:
        pairs: the pairs; their order does not matter
        most: slices at most
        error_rate: see above

    Returns:
        the slices, in the order in which they were taken
    """
    order = np.lexsort([np.array(pairs.filepaths), np.array(pairs.texts), *pairs.image.numpy().T[:3]])
    found = _Search(pairs.ordered(order), error_rate / 3).slices(most)
    return [FoundSlice(each.kind, each.name, np.sort(order[each.rows]), each.share, each.evidence) for each in found]


class _Search:
    """The search for slices in pairs of a fixed order."""

    def __init__(self, pairs: JudgedPairs, error_rate: float) -> None:
        self.pairs, self.error_rate = pairs, error_rate
        self.open: np.ndarray = np.ones(len(pairs.texts), dtype=bool)
        phrases = shared_phrases(pairs.texts, LEAST_PAIRS)
        self.common = Candidates.joined(
            [
                phrases,
                shared_folders(pairs.filepaths, LEAST_PAIRS),
                *(shared_values("value", column, LEAST_PAIRS, f"{name}: ") for name, column in pairs.values.items()),
                clusters("texts", pairs.text.numpy(), LEAST_PAIRS),
                clusters("images", pairs.image.numpy(), LEAST_PAIRS),
            ],
            len(pairs.texts),
        )
        self.exchanges = []
        if pairs.embed:
            single = phrases.of(np.array([" " not in name and name != NUMBER for name in phrases.names], dtype=bool))
            image, text = pairs.image.numpy(), pairs.text.numpy()
            self.exchanges = exchanged_words(image, text, pairs.texts, single, pairs.embed, error_rate)
        self.suspects = np.flatnonzero(pairs.probability >= SUSPECTED)
        if len(self.suspects) > MOST_SUSPECTS:
            first = np.argsort(-pairs.probability[self.suspects], kind="stable")[:MOST_SUSPECTS]
            self.suspects = np.sort(self.suspects[first])
        self.centre = pairs.text.mean(0).numpy()
        self.shown = _unit(suggested_texts(pairs, self.suspects) - self.centre)
        self.said = _unit(pairs.text.numpy() - self.centre)
        self.mispairings = self._mispairings()

    def slices(self, most: int) -> list[FoundSlice]:
        found: list[FoundSlice] = []
        while len(found) < most and self.open.any():
            best = max([self._common(), self._exchange(), self._mispairing()], key=lambda each: each.evidence)
            if not best.evidence:
                break
            found.append(best)
            self.open[best.rows] = False
        return found

    def _common(self) -> FoundSlice:
        """The group of pairs with something in common that has the most evidence."""
        probability = np.where(self.open, self.pairs.probability, 0.0)
        count = self.common.members @ self.open.astype(float)
        total = self.common.members @ probability
        share = total / np.maximum(count, 1.0)
        rate = probability.sum() / self.open.sum()
        evidence = excess(count, total, cumulants(self.pairs.probability[self.open]))
        enough = (count >= LEAST_PAIRS) & (share >= LEAST_WRONG)
        enough &= share * (1.0 - rate) >= LEAST_ODDS * rate * (1.0 - share)
        enough &= evidence >= np.log(max(len(self.common), 1) / self.error_rate)
        if not enough.any():
            return NOTHING
        enough &= evidence >= NEARLY * evidence[enough].max()
        best = int(np.where(enough, share, -1.0).argmax())
        rows = self._still_open(self.common.rows(best))
        return FoundSlice(self.common.kinds[best], self._name(best, rows), rows, share[best], evidence[best])

    def _exchange(self) -> FoundSlice:
        """The exchange of words that has the most evidence."""
        best = NOTHING
        for each in self.exchanges:
            rows, evidence = self._left_of(each)
            if evidence > best.evidence:
                best = FoundSlice("exchanged words", " ↔ ".join(each.names), rows, each.share, evidence)
        return best

    def _mispairing(self) -> FoundSlice:
        """The mispairing that has the most evidence."""
        best, chosen = NOTHING, None
        for each in self.mispairings:
            rows, evidence = self._left_of(each)
            if evidence > best.evidence:
                kind = "exchanged topics" if len(each.reverse) else "wrong topic"
                best = FoundSlice(kind, "", rows, float(self.pairs.probability[rows].mean()), evidence)
                chosen = each
        if chosen is None:
            return NOTHING
        return FoundSlice(best.kind, self._name_of_mispairing(chosen), best.rows, best.share, best.evidence)

    def _mispairings(self) -> list[Mispairing]:
        said = self.said[self.suspects]
        likeness = self.shown @ said.T
        nearer = (likeness > np.diag(likeness)[:, None]).mean(1) if len(self.suspects) else np.empty(0)
        unlike = nearer >= UNLIKE  # a text near to what is shown is not of another topic
        return mispairings(self.shown[unlike], said[unlike], self.suspects[unlike], self.error_rate)

    def _left_of(self, found: Exchange | Mispairing) -> tuple[np.ndarray, float]:
        """The pairs of a finding that are still open, and its evidence among these; 0 where too few are."""
        rows = self._still_open(found.rows)
        if len(rows) < max(LEAST_PAIRS, STILL_OPEN * len(found.rows)):
            return rows, 0.0
        return rows, found.evidence * len(rows) / len(found.rows)

    def _still_open(self, rows: np.ndarray) -> np.ndarray:
        still: np.ndarray = rows[self.open[rows]]
        return still

    def _name(self, group: int, rows: np.ndarray) -> str:
        """What a group of pairs is called."""
        kind, name = self.common.kinds[group], self.common.names[group]
        if kind == "words":
            return template_of([self.pairs.texts[row] for row in rows]) or name
        if kind in ("texts", "images"):
            believed = rows[self.pairs.probability[rows] < SUSPECTED]
            named = believed if kind == "images" and len(believed) else rows
            return typical_words(self.pairs.texts, named)
        return name

    def _name_of_mispairing(self, found: Mispairing) -> str:
        believed = np.flatnonzero(self.pairs.probability < SUSPECTED)
        shown = self.shown[np.isin(self.suspects, found.direct)].mean(0)
        near = believed[np.argsort(-(self.said[believed] @ shown), kind="stable")[:NAMING]]
        names = [typical_words(self.pairs.texts, rows) for rows in (found.direct, near)]
        return (" ↔ " if len(found.reverse) else " for ").join(names)


NOTHING = FoundSlice("", "", np.empty(0, dtype=np.int64), 0.0, 0.0)


def suggested_texts(pairs: JudgedPairs, rows: np.ndarray) -> np.ndarray:
    """The mean of the texts that images suggest, (M, D).

    Half of it is the mean over the texts that the model finds fitting, by a softmax of τ u_n·v_j over the other pairs,
    and half that over the texts of the nearest images; both weighted with 1 − misalignment.

    Args:
        pairs: all pairs
        rows: (M,), the images to ask
    """
    believed = torch.from_numpy(1.0 - pairs.probability).float().clamp_min(1e-9)
    if not len(rows):
        return np.empty((0, pairs.text.shape[1]), dtype=np.float32)
    near = nearest(pairs.image, min(NEIGHBOURS, len(pairs.image) - 1))
    found = []
    for asked in torch.split(torch.from_numpy(rows), CHUNK):
        logits = pairs.logit_scale * pairs.image[asked] @ pairs.text.T + believed.log()
        logits[torch.arange(len(asked)), asked] = -torch.inf
        neighbours = near[asked]
        weight = believed[neighbours] / believed[neighbours].sum(1, keepdim=True)
        by_neighbours = torch.einsum("nk,nkd->nd", weight, pairs.text[neighbours])
        found.append(0.5 * (logits.softmax(1) @ pairs.text) + 0.5 * by_neighbours)
    return torch.cat(found).numpy()


CHUNK = 256
"""Images whose suggested texts are worked out together."""


def _unit(rows: np.ndarray) -> np.ndarray:
    unit: np.ndarray = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    return unit
