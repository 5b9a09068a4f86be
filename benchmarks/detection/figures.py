"""Every method's suspicion of every pair of a cell, with the seconds that it took from the tower features on."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from benchmarks.detection.cell import Cell, Classes
from benchmarks.methods.baselines import batch_loss, clip_score, lemon, structure_consistency
from benchmarks.methods.class_baselines import clip_logits, confident_learning, deep_knn, text_clusters
from benchmarks.methods.data_filters import filtering_network, normsim
from benchmarks.methods.self_influence import positive_only, tracin, trak
from fiftyone_ecif.attribution import Settings
from fiftyone_ecif.detect import CrossFit, Misalignment
from fiftyone_ecif.detect.pipeline import SuggestedTexts, find_misaligned, suggest_texts

CALIBRATION_BINS = 10
SUSPECTED = 0.5
"""Misalignment from which a pair gets a suggestion, as in a run of the package."""

INSPECTED = 0.01
"""Share of the pairs that somebody looks at first."""


@dataclass(frozen=True)
class Judgement:
    """What a run of the package finds among a cell's pairs."""

    found: Misalignment
    suggestions: SuggestedTexts


def judged(cell: Cell, settings: Settings) -> tuple[Misalignment, CrossFit]:
    """The misalignment of a cell's pairs, as a run finds it, and the cross-fit that it is based on."""
    pairs, views = cell.scored()
    return find_misaligned(pairs, views, cell.head, cell.loss, settings, trusted=torch.from_numpy(cell.trusted))


def suggested(cell: Cell, found: Misalignment, fitted: CrossFit, settings: Settings) -> SuggestedTexts:
    """Texts for the suspected pairs of a cell, as a run suggests them."""
    pairs, views = cell.scored()
    suspected = np.flatnonzero(found.probability >= SUSPECTED)
    heads = fitted.heads, fitted.fold
    return suggest_texts(views or pairs, *heads, found.probability, cell.texts(), suspected, settings.seed)


def ecif(cell: Cell, settings: Settings) -> Judgement:
    """The package's own way from features to misalignment and suggestions, as ``compute_influence`` goes it."""
    found, fitted = judged(cell, settings)
    return Judgement(found, suggested(cell, found, fitted, settings))


Score = Callable[[Cell, Settings], np.ndarray]
ClassScore = Callable[[Cell, Classes, Settings], np.ndarray]


def _batch_loss(cell: Cell, settings: Settings) -> np.ndarray:
    scale = cell.head.logit_scale.exp().item()
    return batch_loss(*cell.embeddings(), scale, batch_size=settings.batch_size, seed=settings.seed)


def _structure_consistency(cell: Cell, settings: Settings) -> np.ndarray:
    scale = cell.head.logit_scale.exp().item()
    return structure_consistency(*cell.embeddings(), scale, batch_size=settings.batch_size, seed=settings.seed)


def _deep_knn(cell: Cell, settings: Settings) -> np.ndarray:
    image, text = cell.embeddings()
    return deep_knn(image, cell.classes.given if cell.classes else text_clusters(text, seed=settings.seed))


def _clip_logits(cell: Cell, classes: Classes, settings: Settings) -> np.ndarray:
    return clip_logits(cell.embeddings()[0], classes.embeddings(cell.head), classes.given)


def _confident_learning(cell: Cell, classes: Classes, settings: Settings) -> np.ndarray:
    return confident_learning(cell.embeddings()[0], classes.given, seed=settings.seed)


def _mistakenness(cell: Cell, classes: Classes, settings: Settings) -> np.ndarray:
    from benchmarks.methods.mistakenness import mistakenness

    return mistakenness(cell.embeddings()[0], classes.embeddings(cell.head), classes.given, classes.names)


METHODS: dict[str, Score] = {
    "clip_score": lambda cell, settings: clip_score(*cell.embeddings()),
    "batch_loss": _batch_loss,
    "lemon": lambda cell, settings: lemon(*cell.embeddings()),
    "structure_consistency": _structure_consistency,
    "deep_knn": _deep_knn,
    "normsim": lambda cell, settings: normsim(cell.embeddings()[0]),
    "filtering_network": lambda cell, settings: filtering_network(cell.pairs, cell.head, cell.loss, settings),
    "positive_only": lambda cell, settings: positive_only(cell.pairs, cell.head, cell.loss, settings).numpy(),
    "tracin": lambda cell, settings: tracin(cell.pairs, cell.head, cell.loss, settings).numpy(),
    "trak": lambda cell, settings: trak(cell.pairs, cell.head, settings.seed).numpy(),
}
"""Baselines for any pairs; higher = more suspicious."""

CLASS_METHODS: dict[str, ClassScore] = {
    "clip_logits": _clip_logits,
    "confident_learning": _confident_learning,
    "mistakenness": _mistakenness,
}
"""Baselines for class-labelled pairs."""

MethodName = Literal[
    "ecif", "clip_score", "batch_loss", "clip_logits", "lemon", "structure_consistency", "deep_knn",
    "confident_learning", "mistakenness", "normsim", "filtering_network", "positive_only", "tracin", "trak",
]  # fmt: skip
ALL_METHODS: tuple[MethodName, ...] = get_args(MethodName)

OWN_FIGURES = ("ece", "noise_rate_estimate", "suggestion_accuracy")
"""Figures that only the package's own run has."""


@dataclass(frozen=True)
class Evidence:
    """The scores of all methods for one cell.

    Attributes:
        scores: (N,) by method, higher = more suspicious
        seconds: by method
        judgement: what the package itself found; None if it was not among the methods
    """

    scores: dict[str, np.ndarray]
    seconds: dict[str, float]
    judgement: Judgement | None


def evidence(cell: Cell, settings: Settings, methods: Sequence[str] = ALL_METHODS) -> Evidence:
    """Score a cell's pairs by every method; methods for class labels are left out where there are none.

    Args:
        cell: the pairs
        settings: of the package's run; batch size and seed serve the baselines, too
        methods: out of :data:`ALL_METHODS`

    Returns:
        :class:`Evidence`
    """
    scores: dict[str, np.ndarray] = {}
    seconds: dict[str, float] = {}
    judgement = None
    for name in methods:
        if name in CLASS_METHODS and cell.classes is None:
            continue
        started = time.perf_counter()
        if name == "ecif":
            judgement = ecif(cell, settings)
            scores[name] = judgement.found.probability
        elif name in METHODS:
            scores[name] = METHODS[name](cell, settings)
        elif cell.classes:
            scores[name] = CLASS_METHODS[name](cell, cell.classes, settings)
        seconds[name] = time.perf_counter() - started
    return Evidence(scores, seconds, judgement)


def figures(cell: Cell, found: Evidence) -> dict[str, float]:
    """How well the methods find what was planted. Where nobody knows the truth, only figures that do not need it.

    Args:
        cell: the pairs and the truth
        found: the scores of the methods

    Returns:
        ``auroc.<method>``, ``ap.<method>`` (average precision), ``f1.<method>`` (at the threshold that makes it best),
        ``precision_at_1pct.<method>``, ``seconds.<method>``; of the package's run ``ece`` (expected calibration
        error), ``noise_rate_estimate`` and, for class labels, ``suggestion_accuracy``
    """
    result = {f"seconds.{name}": value for name, value in found.seconds.items()}
    if found.judgement:
        result["noise_rate_estimate"] = found.judgement.found.noise_rate
    if cell.planted is None or cell.planted.all() or not cell.planted.any():
        return result
    judged = ~cell.trusted
    planted = cell.planted[judged]
    for name, score in found.scores.items():
        score = score[judged]
        precision, recall, _ = precision_recall_curve(planted, score)
        f1 = 2 * precision * recall / np.maximum(precision + recall, np.finfo(float).tiny)
        result |= {
            f"auroc.{name}": float(roc_auc_score(planted, score)),
            f"ap.{name}": float(average_precision_score(planted, score)),
            f"f1.{name}": float(f1.max()),
            f"precision_at_1pct.{name}": precision_at(planted, score, INSPECTED),
        }
    if found.judgement:
        result["ece"] = calibration_error(planted, found.judgement.found.probability[judged])
        accuracy = suggestion_accuracy(cell, found.judgement.suggestions)
        if accuracy is not None:
            result["suggestion_accuracy"] = accuracy
    return result


def precision_at(planted: np.ndarray, score: np.ndarray, share: float) -> float:
    """Share of planted pairs among the most suspicious; pairs that tie at the end count by their mean."""
    count = max(1, round(share * len(score)))
    last = np.sort(score)[-count]
    above, tied = score > last, score == last
    return float((planted[above].sum() + planted[tied].mean() * (count - above.sum())) / count)


def calibration_error(planted: np.ndarray, probability: np.ndarray) -> float:
    """Expected calibration error: mean over pairs of |share planted − mean probability| of their bin of ten."""
    bins = np.minimum((probability * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    error = 0.0
    for number in np.unique(bins):
        members = bins == number
        error += abs(planted[members].sum() - probability[members].sum())
    return float(error / len(planted))


def suggestion_accuracy(cell: Cell, suggestions: SuggestedTexts) -> float | None:
    """Share of the suspected planted pairs whose suggestion names the right class; None where there is none to ask."""
    if cell.classes is None or cell.classes.true is None or cell.planted is None:
        return None
    right = [
        next(iter(candidates)) == cell.classes.names[cell.classes.true[row]]
        for row, candidates in zip(suggestions.rows, suggestions.candidates)
        if cell.planted[row]
    ]
    return float(np.mean(right)) if right else None
