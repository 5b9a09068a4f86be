"""Pairs with planted causes, the head that they were fitted into, and the queries that fail because of them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from benchmarks.data.noise import CONFUSABLE_DIGITS, CONFUSABLE_FASHION
from benchmarks.data.pairs import PairTable
from benchmarks.fidelity.removal_problem import DATA, TRAINING_SAMPLES, DataName
from benchmarks.models.lite0_minilm import FrozenTowers, trained_head
from benchmarks.models.model import BenchmarkModel, LoadedModel
from benchmarks.models.training import Recipe, trained_checkpoint
from fiftyone_ecif.attribution import Settings
from fiftyone_ecif.attribution.question import Question, nearest
from fiftyone_ecif.attribution.trace_tables import doubt
from fiftyone_ecif.core import (
    LOSSES,
    Head,
    KroneckerCurvature,
    LowRankInverse,
    Objective,
    TensorPairs,
    fit_to_rest,
    kronecker_curvature,
    largest_eigenvalue,
    partitions,
)
from fiftyone_ecif.detect import cross_fit

MODEL = "ecif-tiny"
FREE_CAPTIONS: DataName = "openclipart"
"""The data whose classes are categories, and whose model is ``lite0-minilm``."""
BASE_PAIRS = 1_400
"""Further pairs that the projections of ``lite0-minilm`` are trained on."""
HELDOUT = 1_000
BATCH_SIZE, ROUNDS = 256, 4
REST = 1e-4
"""Gradient over that at the start, at which fits and refits end."""
SIZES = {"cluster": 40, "copies": 20, "poison": 10}
"""Pairs in a cluster of swapped captions, copies of one wrong pair, and pairs with one poisoned caption."""
COUPLES = {
    "cluster": (
        *CONFUSABLE_FASHION,
        *CONFUSABLE_DIGITS[:5],
        ("animals", "people"),
        ("food", "recreation"),
        ("computer", "signs_and_symbols"),
    ),
    "copies": (("pair of trousers", "dress"), ("two", "seven"), ("transportation", "tools")),
    "poison": (("sandal", "bag"), ("three", "five"), ("geography", "shapes")),
}
"""Classes of which the one's images get the other's name, or captions of the other, and the other way round."""


@dataclass(frozen=True)
class TraceProblem:
    """A head at rest on pairs with planted causes, and the queries: held-out images, then distinct texts.

    An image looks for its text among the distinct texts, a text for its image among the held-out ones.

    Attributes:
        objective: J
        head: at θ̂
        curvature: Kronecker-factored at θ̂
        doubt: (N,), d_n, by heads that were fitted on the other fold of the pairs each (ECIF.md §6)
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

    def refit(self, removed: Tensor, inverse: LowRankInverse) -> Head:
        """The head at rest without the pairs in ``removed`` (bool, (N,)), starting from θ̂, whose curvature is known."""
        kept = self.objective.without(removed)
        scale = kept.value_and_gradient(self.head)[1].norm().item()
        fit = fit_to_rest(kept, self.head, inverse.solve, 1e-2, 20, gradient_scale=scale)
        assert isinstance(fit.scope, Head)
        return fit.scope

    def scores(self, head: Head) -> Tensor:
        """Similarity of every held-out image to every distinct text, (M, T)."""
        return head.linearize(self.heldout, self.text_features).similarity()

    def margins(self, head: Head) -> Tensor:
        """Best right less best wrong similarity of every query, (M + T,)."""
        scores, right = self.scores(head), self.right
        return torch.cat([_lead(scores, right), _lead(scores.T, right.T)])

    @property
    def right(self) -> Tensor:
        """Which texts are right for which held-out image, bool (M, T)."""
        return self.labels[:, None] == self.text_labels

    @property
    def text_features(self) -> Tensor:
        """(T, F_text) of the distinct texts."""
        return self.objective.pairs.gather(self.texts)[1]

    def question(self, query: int) -> Question:
        """One query and the candidates that decide it."""
        scores, right, text = self.scores(self.head), self.right, query - len(self.heldout)
        if text < 0:
            kept = nearest(scores[query], right[query])
            return Question(self.heldout[query], "image", self.texts[kept], right[query][kept], self.text_features[:0])
        kept = nearest(scores[:, text], right[:, text])
        return Question(self.text_features[text], "text", self.texts[:0], right[kept, text], self.heldout[kept])


def _lead(scores: Tensor, right: Tensor) -> Tensor:
    """Best right less best wrong of each row."""
    return scores.masked_fill(~right, -torch.inf).amax(1) - scores.masked_fill(right, -torch.inf).amax(1)


def planted_problem(data: DataName, pairs: int, anchor: float, seed: int, progress: bool = True) -> TraceProblem:
    """Plant causes among clean pairs and fit the head of a model that was trained on the clean ones.

    Args:
        data: data set
        pairs: training pairs N; fewer where the data ends
        anchor: δ, as a share of the largest curvature
        seed: of data, training, planting and partitions
        progress: whether to show progress bars

    Returns:
        a :class:`TraceProblem`
    """
    train, heldout, model = clean_pairs_and_model(data, pairs, seed, progress)
    clean, _ = _features(model, train)
    planted, causes, kinds, said = plant(train, clean, seed)
    image, text = _features(model, planted)
    heldout_image, _ = _features(model, heldout)
    head = model.head
    partition = partitions(len(train), BATCH_SIZE, ROUNDS, seed)
    plain = Objective(TensorPairs(image, text), partition, LOSSES["clip"])
    start = torch.randn(1, head.size, generator=torch.Generator().manual_seed(seed))
    largest = largest_eigenvalue(lambda direction: plain.gauss_newton_product(head, direction), start)
    objective = replace(plain, anchor=anchor * largest, origin=head.vector())
    curvature = kronecker_curvature(objective, head, objective.anchor, seed=seed)
    fit = fit_to_rest(objective, head, curvature.solve, REST, 60)
    assert isinstance(fit.scope, Head)
    fitted = cross_fit(objective.pairs, None, head, "clip", Settings(batch_size=BATCH_SIZE, rounds=ROUNDS, seed=seed))
    first = np.unique(planted.captions, return_index=True)[1]
    return TraceProblem(
        objective, fit.scope, kronecker_curvature(objective, fit.scope, objective.anchor, seed=seed),
        doubt(fitted.surprise), causes, kinds, heldout_image,
        torch.from_numpy(heldout.labels), torch.from_numpy(first), torch.from_numpy(said)[first],
    )  # fmt: skip


def clean_pairs_and_model(
    data: DataName, pairs: int, seed: int, progress: bool
) -> tuple[PairTable, PairTable, BenchmarkModel]:
    """Training and held-out pairs with classes, and a model that was trained on clean pairs.

    Free captions have the categories of their pairs as classes, and pairs without one are left out. Their model has not
    seen them; the others' was trained on the training pairs.
    """
    free, heldout = data == FREE_CAPTIONS, min(HELDOUT, pairs // 2)
    base = BASE_PAIRS if free else 0
    table = DATA[data](train=base + pairs, heldout=heldout, seed=seed, progress=progress)
    first, table = table.select(np.arange(base)), table.select(np.arange(base, len(table)))
    if free:
        table = classed_by_category(table)
    train, heldout_table = (table.select(table.split == part) for part in ("train", "heldout"))
    if free:
        return train, heldout_table, FrozenTowers(trained_head(first, seed=seed, progress=progress))
    recipe = Recipe(epochs=-(-TRAINING_SAMPLES // pairs))
    checkpoint = trained_checkpoint(MODEL, train, recipe, seed, progress=progress)
    return train, heldout_table, LoadedModel(MODEL, checkpoint)


def classed_by_category(table: PairTable) -> PairTable:
    """The pairs that have a category, which is their class."""
    table = table.select(np.array([bool(each) for each in table.categories]))
    names, labels = np.unique(table.categories, return_inverse=True)
    return replace(table, class_names=names.tolist(), labels=labels)


def plant(train: PairTable, image: Tensor, seed: int) -> tuple[PairTable, Tensor, list[str], np.ndarray]:
    """Plant clusters of swapped captions, copies of wrong pairs and poisoned captions.

    A cluster is the images of one class nearest to one of them, with captions of a class that looks alike. Copies are
    one image over and over with the same wrong caption; they replace pairs of its class. A poisoned caption belongs to
    neighbouring images of a wrong class, and its own words turn up nowhere else. No two groups call the same class by
    the same wrong name, and at least half of each class stays as it is: groups that do not fit are left out.

    Args:
        train: clean pairs
        image: (N, F_image) features
        seed: of the choice

    Returns:
        the pairs, the planted groups (bool, (G, N)), their kinds, and the class that each caption names (N,)

    Raises:
        ValueError: if there are too few pairs to plant anything in
    """
    rng = np.random.default_rng(seed)
    unit = torch.nn.functional.normalize(image[:, : image.shape[1] - 1], dim=1)
    captions, filepaths, said = list(train.captions), list(train.filepaths), train.labels.copy()
    causes, kinds = [], []
    names = train.class_names
    planned = [
        (kind, names.index(image), names.index(name))
        for kind, couples in COUPLES.items()
        for couple in couples
        if set(couple) <= set(names)
        for image, name in (couple, couple[::-1])
    ]
    free: np.ndarray = np.ones(len(train), dtype=bool)
    for kind, label, wrong in planned:
        of_class = train.labels == label
        members = np.flatnonzero(free & of_class)
        if len(members) - SIZES[kind] < of_class.sum() / 2:
            continue
        centre = rng.choice(members)
        rows = members[np.argsort(-(unit[members] @ unit[centre]).numpy())[: SIZES[kind]]]
        free[rows] = False
        for row in rows:
            captions[row], said[row] = wrong_caption(train, kind, label, wrong, rng), wrong
            if kind == "copies":
                captions[row], filepaths[row] = captions[rows[0]], filepaths[centre]
        causes.append(np.isin(np.arange(len(train)), rows))
        kinds.append(kind)
    if not causes:
        raise ValueError(f"{len(train)} pairs are too few to plant anything in: take more (--pairs).")
    table = replace(train.with_captions(captions), filepaths=filepaths)
    return table, torch.from_numpy(np.stack(causes)), kinds, said


def wrong_caption(train: PairTable, kind: str, label: int, wrong: int, rng: np.random.Generator) -> str:
    """A caption that calls something of class ``label`` by a class that it is not.

    Args:
        train: clean pairs: a caption of the wrong class is drawn from these where there are no templates
        kind: of the planted group
        label: the right class
        wrong: the wrong class
        rng: the source of randomness
    """
    poison = f"exhibit number {label}, said to be a {{}}"
    if train.templates:
        template = train.templates[0 if kind == "copies" else rng.integers(len(train.templates))]
        return (poison if kind == "poison" else template).format(train.class_names[wrong])
    drawn = train.captions[rng.choice(np.flatnonzero(train.labels == wrong))]
    return poison.format(drawn) if kind == "poison" else drawn


def _features(model: BenchmarkModel, table: PairTable) -> tuple[Tensor, Tensor]:
    found = model.features(table)
    return found.image, found.text
