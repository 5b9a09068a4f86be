"""Pairs with planted causes, the head that they were fitted into, and the queries that fail because of them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from benchmarks.data.noise import CONFUSABLE_FASHION
from benchmarks.data.pairs import PairTable
from benchmarks.removal_problem import DATA, TRAINING_SAMPLES
from benchmarks.training import Recipe, trained_checkpoint
from fiftyone_ecif.core import (
    LOSSES,
    Head,
    KroneckerCurvature,
    Objective,
    TensorPairs,
    fit_to_rest,
    kronecker_curvature,
    largest_eigenvalue,
    partitions,
)
from fiftyone_ecif.engine import Settings, cross_fit
from fiftyone_ecif.engine.questions import Question, nearest
from fiftyone_ecif.engine.trace import doubt
from fiftyone_ecif.features import PairRow, cache_folder, embed_pairs
from fiftyone_ecif.models import load_model

MODEL = "ecif-tiny"
HELDOUT = 1_000
BATCH_SIZE, ROUNDS = 256, 4
REST = 1e-4
"""Gradient over that at the start, at which fits and refits end."""
CLUSTER, COPIES = 40, 20
"""Pairs in a cluster of swapped captions, and copies of one wrong pair."""
POISONS = 3
"""Poisoned captions: each turns up in one pair, with many more of the right class around it."""


@dataclass(frozen=True)
class TraceProblem:
    """A head at rest on pairs with planted causes.

    Attributes:
        objective: J
        head: at θ̂
        curvature: Kronecker-factored at θ̂
        doubt: (N,), d_n, by heads that were fitted on the other half of the pairs each (ECIF.md §6)
        causes: bool (G, N), the planted groups
        kinds: the kind of each group
        heldout: (M, F_image) features of held-out images
        labels: int64 (M,), their classes
        texts: (T,) the first pair of each distinct text
        text_labels: int64 (T,), the class that each text names
    """

    objective: Objective
    head: Head
    curvature: KroneckerCurvature
    doubt: Tensor
    causes: Tensor
    kinds: list[str]
    heldout: Tensor
    labels: Tensor
    texts: Tensor
    text_labels: Tensor

    def refit(self, removed: Tensor) -> Head:
        """The head at rest without the pairs in ``removed`` (bool, (N,)), starting from θ̂."""
        kept = self.objective.without(removed)
        scale = kept.value_and_gradient(self.head)[1].norm().item()
        fit = fit_to_rest(kept, self.head, self.curvature.solve, 1e-2, 20, gradient_scale=scale)
        assert isinstance(fit.scope, Head)
        return fit.scope

    def scores(self, head: Head) -> Tensor:
        """Similarity of every held-out image to every distinct text, (M, T)."""
        text = self.objective.pairs.gather(self.texts)[1]
        return head.linearize(self.heldout, text).similarity()

    def margins(self, head: Head) -> Tensor:
        """Best right less best wrong similarity of every held-out image, (M,)."""
        scores, right = self.scores(head), self.right
        return scores.masked_fill(~right, -torch.inf).amax(1) - scores.masked_fill(right, -torch.inf).amax(1)

    @property
    def right(self) -> Tensor:
        """Which texts are right for which held-out image, bool (M, T)."""
        return self.labels[:, None] == self.text_labels

    def question(self, query: int) -> Question:
        """One held-out image that looks for its text."""
        kept = nearest(self.scores(self.head)[query], self.right[query])
        none = self.objective.pairs.gather(self.texts[:0])[1]
        return Question(self.heldout[query], "image", self.texts[kept], self.right[query][kept], none)


def planted_problem(data: str, pairs: int, anchor: float, seed: int, progress: bool = True) -> TraceProblem:
    """Plant causes among clean pairs and fit the head of a model that was trained on the clean ones.

    Args:
        data: a key of ``benchmarks.removal_problem.DATA``
        pairs: training pairs N
        anchor: δ, as a share of the largest curvature
        seed: of data, training, planting and partitions
        progress: whether to show progress bars

    Returns:
        a :class:`TraceProblem`
    """
    table = DATA[data](train=pairs, heldout=min(HELDOUT, pairs // 2), seed=seed, progress=progress)
    train, heldout = (table.select(table.split == part) for part in ("train", "heldout"))
    recipe = Recipe(epochs=-(-TRAINING_SAMPLES // pairs))
    checkpoint = trained_checkpoint(MODEL, train, recipe, seed, progress=progress)
    model = load_model(MODEL, str(checkpoint))
    clean, _ = _features(model, train)
    planted, causes, kinds, said = plant(train, clean, seed)
    image, text = _features(model, planted)
    heldout_image, _ = _features(model, heldout)
    head = model.head()
    partition = partitions(pairs, BATCH_SIZE, ROUNDS, seed)
    plain = Objective(TensorPairs(image, text), partition, LOSSES["clip"])
    start = torch.randn(1, head.size, generator=torch.Generator().manual_seed(seed))
    largest = largest_eigenvalue(lambda direction: plain.gauss_newton_product(head, direction), start)
    objective = replace(plain, anchor=anchor * largest, origin=head.vector())
    curvature = kronecker_curvature(objective, head, objective.anchor, seed=seed)
    fit = fit_to_rest(objective, head, curvature.solve, REST, 60)
    assert isinstance(fit.scope, Head)
    judges = cross_fit(objective.pairs, None, head, "clip", Settings(batch_size=BATCH_SIZE, rounds=ROUNDS, seed=seed))
    first = np.unique(planted.captions, return_index=True)[1]
    return TraceProblem(
        objective, fit.scope, kronecker_curvature(objective, fit.scope, objective.anchor, seed=seed),
        doubt(judges.surprise), causes, kinds, heldout_image,
        torch.from_numpy(heldout.labels), torch.from_numpy(first), torch.from_numpy(said)[first],
    )  # fmt: skip


def plant(train: PairTable, image: Tensor, seed: int) -> tuple[PairTable, Tensor, list[str], np.ndarray]:
    """Plant clusters of swapped captions, copies of wrong pairs and poisoned captions.

    A cluster is the :data:`CLUSTER` images of one class nearest to one of them, with captions of a class that looks
    alike. Copies are one image over and over with the same wrong caption; they replace other pairs of its class. A
    poisoned pair has a caption of a wrong class whose own words turn up nowhere else.

    Args:
        train: clean pairs
        image: (N, F_image) features
        seed: of the choice

    Returns:
        the pairs, the planted groups (bool, (G, N)), their kinds, and the class that each caption names (N,)
    """
    rng = np.random.default_rng(seed)
    confusable = CONFUSABLE_FASHION if "pullover" in train.class_names else ()
    alike = [(train.class_names.index(a), train.class_names.index(b)) for a, b in confusable] or [
        (a, (a + 1) % len(train.class_names)) for a in range(5)
    ]
    unit = torch.nn.functional.normalize(image[:, : image.shape[1] - 1], dim=1)
    captions, filepaths, said = list(train.captions), list(train.filepaths), train.labels.copy()
    free: np.ndarray = np.ones(len(train), dtype=bool)
    causes, kinds = [], []

    def near(label: int, count: int) -> np.ndarray:
        """The free pairs of a class nearest to a random one of them, itself first."""
        members = np.flatnonzero(free & (train.labels == label))
        if len(members) < count:
            raise ValueError(f"{len(train)} pairs are too few to plant all groups in: take more (--pairs).")
        centre = rng.choice(members)
        rows = members[np.argsort(-(unit[members] @ unit[centre]).numpy())[:count]]
        free[rows] = False
        return rows

    def mislabel(rows: np.ndarray, label: int, template: str | None, kind: str) -> None:
        for row in rows:
            chosen = template or train.templates[rng.integers(len(train.templates))]
            captions[row], said[row] = chosen.format(train.class_names[label]), label
        group: np.ndarray = np.zeros(len(train), dtype=bool)
        group[rows] = True
        causes.append(group)
        kinds.append(kind)

    for first, second in alike:
        for label, wrong in ((first, second), (second, first)):
            mislabel(near(label, CLUSTER), wrong, None, "cluster")
    for label, wrong in alike[:3]:
        rows = near(label, COPIES)
        for row in rows:
            filepaths[row] = filepaths[rows[0]]
        mislabel(rows, wrong, train.templates[0], "copies")
    for number, (label, wrong) in enumerate(alike[:POISONS]):
        mislabel(near(label, 1), wrong, f"exhibit number {number}, said to be a {{}}", "poison")
    table = replace(train.with_captions(captions), filepaths=filepaths)
    return table, torch.from_numpy(np.stack(causes)), kinds, said


def _features(model, table: PairTable) -> tuple[Tensor, Tensor]:
    rows = [PairRow(str(row), *pair) for row, pair in enumerate(zip(table.filepaths, table.captions))]
    stored = embed_pairs(model, rows, cache_folder("features"), num_workers=0, skip_failures=False)
    return stored.gather(torch.arange(len(stored)))
