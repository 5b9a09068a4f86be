"""The misalignment probability of labels: Bayes' rule with the noise's own habits, estimated without truth."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fiftyone_ecif.detect.captions import EVIDENCE, LEAST_MEMORISED, NEIGHBOURS, Misalignment
from fiftyone_ecif.detect.classifier_surprise import out_of_fold
from fiftyone_ecif.detect.nearest_rows import nearest
from fiftyone_ecif.detect.neighbour_surprise import BACKGROUND

STARTING_RATE = 0.2
"""Share of wrong labels that the estimate of the noise starts from."""

STARTING_WEIGHT, MOST_WEIGHT = 0.5, 4.0
"""Weight of a judge's word that its estimate starts from, and the most that it can become."""

PASSES = 3
"""Times that all is estimated: from the second on, neighbours vote with what they are believed to be."""

ROUNDS, STEPS = 5, 5
"""Of an estimate: rounds of the noise's steps and the weights' steps."""

FOLDS, FOLD_BACKGROUND = 5, 0.005
"""Of the choice between noise with habits and without: parts left out in turn, and the share of a class that goes to
all other labels alike where habits were seen in the other parts: less than where they are used."""

ESTIMATED_FROM, ESTIMATED_PER_CLASS = 5_000, 50
"""Pairs that it is made from, at least and for each class, drawn at random, the trusted ones among them."""

CHUNK = 4096
"""Pairs whose neighbours vote together."""

LEAST_BELIEF = 1e-6
"""Added to each label's probability: nothing is impossible."""


def label_misalignment(
    image: Tensor, label: Tensor, beliefs: Tensor, memorised: float, trusted: Tensor, seed: int = 0
) -> Misalignment:
    """Probability that an image's label is wrong.

    Three judges, none of whom has seen the pair's own label, believe in labels: a head that was not fitted on the
    pair, the labels of the nearest images, and, where the model has learnt pairs by heart, a classifier that is
    trained from nothing. They are pooled, p_n(c) ∝ Π_k p_nk(c)^{w_k}, and the probability is Bayes' rule under the
    noise transition matrix T, the rate at which class c is labelled y:

        p(wrong) = Σ_{c ≠ y} p_n(c) T(c, y) / Σ_c p_n(c) T(c, y).

    A shirt that may well be a coat is suspicious where coats are often called shirts, and less so where wrong labels
    are any. w and T make the labels that are given likeliest (:func:`estimate`); unless labels left out show that the
    noise has habits (:func:`has_habits`), T is the same for all labels (:func:`evenly`). A head on towers that have
    learnt the pairs by heart has seen them after all: as far as they have, the judges are weighed without it.
    Neighbours vote anew with what this makes of them.

    Args:
        image: (N, D) unit vectors by the given head
        label: int64 (N,), the given labels, 0 to C − 1
        beliefs: (N, C), probability of each label by a head that was not fitted on the pair
        memorised: 0 to 1, how much of a pair's surprise is owed to the model's having seen that very image
        trusted: bool (N,), pairs known to be right: their probability is 0, and the judges are weighed by them, too
        seed: of what is drawn

    Returns:
        a :class:`~fiftyone_ecif.detect.captions.Misalignment`; with no evidence to go on (one label for all, say)
        the probability is ½
    """
    image, classes = image.float().cpu(), beliefs.shape[1]
    near = nearest(image, min(NEIGHBOURS, len(image) - 2))
    logarithms = {"head": _logarithm(beliefs.float().cpu())}
    if memorised >= LEAST_MEMORISED:
        logarithms["classifier"] = _logarithm(out_of_fold(image, label, classes, seed))
    order = torch.randperm(len(label), generator=torch.Generator().manual_seed(seed))
    order = order[(~trusted[order]).int().argsort(stable=True)]
    sample = order[: max(ESTIMATED_FROM, ESTIMATED_PER_CLASS * classes)]
    true = torch.nn.functional.one_hot(label, classes).float()
    for _ in range(PASSES):
        logarithms["neighbours"] = _logarithm(neighbour_votes(near, true))
        sampled = {name: part[sample] for name, part in logarithms.items()}
        weights, transition = _weigh(sampled, label[sample], memorised, trusted[sample], seed)
        true = truth(pool(logarithms, weights), transition, label)
    wrong = 1.0 - true.gather(1, label[:, None]).squeeze(1)
    evidence: dict[str, np.ndarray] = {name: np.zeros(len(label), dtype=np.float32) for name in EVIDENCE}
    for name, logarithm in logarithms.items():
        right = truth(logarithm.softmax(1), transition, label).gather(1, label[:, None]).squeeze(1)
        against = -torch.logit(right, eps=1e-9)
        evidence[name] = ((against - against.mean()) / against.std().clamp_min(1e-6)).float().numpy()
    if wrong.std() < 1e-9:
        return Misalignment(np.full(len(label), 0.5), 0.5, evidence)
    wrong = torch.where(trusted, 0.0, wrong)
    return Misalignment(wrong.numpy(), float(wrong.mean()), evidence)


def neighbour_votes(near: Tensor, beliefs: Tensor) -> Tensor:
    """What the nearest images are believed to be, with a little of what all are.

    Args:
        near: int64 (N, k), the nearest other images of each
        beliefs: (N, C), probability of each label

    Returns:
        float32 (N, C), rows sum to 1
    """
    votes = torch.cat([beliefs[rows].mean(1) for rows in near.split(CHUNK)])
    return ((votes + BACKGROUND * beliefs.mean(0)) / (1.0 + BACKGROUND)).float()


def _logarithm(beliefs: Tensor) -> Tensor:
    return (beliefs + LEAST_BELIEF).log()


def _weigh(
    logarithms: dict[str, Tensor], label: Tensor, memorised: float, trusted: Tensor, seed: int
) -> tuple[dict[str, float], Tensor]:
    """Weights and transition matrix: as far as pairs were learnt by heart, those of all judges but the head.

    Where noise has no habits its rate is the likeliest. The other judges, too, believe some of what was learnt by
    heart, so that as far as it was the larger rate stays that was found along with the habits.
    """
    weights, transition = estimate(logarithms, label, trusted)
    if memorised > 0.0:
        others = {name: part for name, part in logarithms.items() if name != "head"}
        without = {"head": 0.0} | estimate(others, label, trusted)[0]
        weights = {name: (1.0 - memorised) * weights[name] + memorised * without[name] for name in weights}
        transition = improved(transition, pool(logarithms, weights), label, trusted, ROUNDS * STEPS)
    beliefs = pool(logarithms, weights)
    if not has_habits(beliefs, label, trusted, seed):
        likeliest = even_rate(beliefs, label, trusted, ROUNDS * STEPS)
        along = 1.0 - float(transition.diag().mean())
        transition = evenly((1.0 - memorised) * likeliest + memorised * along, len(transition))
    return weights, transition


def pool(logarithms: dict[str, Tensor], weights: dict[str, float]) -> Tensor:
    """p_n(c) ∝ Π_k p_nk(c)^{w_k}: the judges' beliefs as one.

    Args:
        logarithms: (N, C) by judge, log p_nk(c)
        weights: by judge, w

    Returns:
        (N, C), rows sum to 1
    """
    return sum((weights[name] * part for name, part in logarithms.items()), torch.zeros(())).softmax(1)


def estimate(logarithms: dict[str, Tensor], label: Tensor, trusted: Tensor) -> tuple[dict[str, float], Tensor]:
    """Weights of the judges, and the noise transition matrix, under which the labels are likeliest.

    They maximise Σ_n log Σ_c p_n(c) T(c, y_n), in turn; for trusted pairs log p_n(y_n) takes its place.

    Args:
        logarithms: (N, C) by judge, log p_nk(c)
        label: int64 (N,), y_n
        trusted: bool (N,), pairs known to be right

    Returns:
        w by judge, and T, float64 (C, C), rows sum to 1
    """
    classes = next(iter(logarithms.values())).shape[1]
    same = torch.eye(classes, dtype=torch.float64)
    transition = evenly(STARTING_RATE, classes)
    # w = MOST_WEIGHT · sigmoid(free) stays within its bounds.
    free = torch.logit(torch.full((len(logarithms),), STARTING_WEIGHT / MOST_WEIGHT)).requires_grad_()

    def pooled() -> Tensor:
        return pool(logarithms, dict(zip(logarithms, MOST_WEIGHT * free.sigmoid())))

    for _ in range(ROUNDS):
        transition = improved(transition, pooled().detach(), label, trusted, STEPS)
        rates = torch.where(trusted[:, None], same[label], transition[:, label].T).float()
        search = torch.optim.LBFGS([free], max_iter=STEPS, line_search_fn="strong_wolfe")

        def surprise(rates: Tensor = rates, search: torch.optim.LBFGS = search) -> Tensor:
            search.zero_grad()
            loss = -((pooled() * rates).sum(1) + LEAST_BELIEF).log().mean()
            loss.backward()
            return loss

        search.step(surprise)
    return dict(zip(logarithms, (MOST_WEIGHT * free.detach().sigmoid()).tolist())), transition


def has_habits(beliefs: Tensor, label: Tensor, trusted: Tensor, seed: int = 0) -> bool:
    """Whether labels that are left out are likelier under habits that the others show than under noise without any.

    Habits are C² numbers and noise without is one: what a hundred wrong labels seem to show may be chance, and taken
    for a habit it would excuse the wrong labels that have none.

    Args:
        beliefs: (N, C), p_n
        label: int64 (N,), y_n
        trusted: bool (N,), pairs known to be right; they are not asked
        seed: of who is left out when
    """
    fold = torch.randperm(len(label), generator=torch.Generator().manual_seed(seed)) % FOLDS
    start, gain = evenly(STARTING_RATE, beliefs.shape[1]), 0.0
    for part in range(FOLDS):
        seen, asked = fold != part, (fold == part) & ~trusted
        known = beliefs[seen], label[seen], trusted[seen]
        habits = improved(start, *known, STEPS, FOLD_BACKGROUND)
        even = evenly(even_rate(*known, STEPS), len(start))
        believed = beliefs[asked].double() + LEAST_BELIEF
        # Σ_n log Σ_c p_n(c) T(c, y_n) with habits, less the same without
        likely, likely_even = ((believed * rates[:, label[asked]].T).sum(1) for rates in (habits, even))
        gain += float((likely.log() - likely_even.log()).sum())
    return gain > 0.0


def evenly(rate: float, classes: int) -> Tensor:
    """The transition matrix of noise without habits: T(c, y) = ρ / (C − 1) for y ≠ c, and 1 − ρ for y = c.

    Args:
        rate: ρ, the share of wrong labels
        classes: C

    Returns:
        float64 (C, C)
    """
    same = torch.eye(classes, dtype=torch.float64)
    return (1.0 - rate) * same + rate * (1.0 - same) / max(classes - 1, 1)


def even_rate(beliefs: Tensor, label: Tensor, trusted: Tensor, steps: int) -> float:
    """The rate ρ of noise without habits under which the labels are likeliest, by expectation and maximisation.

    Args:
        beliefs: (N, C), p_n
        label: int64 (N,), y_n
        trusted: bool (N,), pairs known to be right
        steps: how many
    """
    rate = STARTING_RATE
    for _ in range(steps):
        right = truth(beliefs, evenly(rate, beliefs.shape[1]), label).gather(1, label[:, None]).squeeze(1)
        rate = float(torch.where(trusted, 0.0, 1.0 - right).mean())
    return rate


def improved(
    transition: Tensor,
    beliefs: Tensor,
    label: Tensor,
    trusted: Tensor,
    steps: int,
    background: float = BACKGROUND,
) -> Tensor:
    """The noise transition matrix after some steps of expectation and maximisation (Dawid & Skene, 1979).

    q_n(c) is the :func:`truth`, and c = y_n for trusted pairs; then T(c, y) ∝ Σ_{n: y_n = y} q_n(c). Of each class a
    little goes to all other labels alike, so that noise without habits stays what it is.

    Args:
        transition: float64 (C, C), T
        beliefs: (N, C), p_n
        label: int64 (N,), y_n
        trusted: bool (N,), pairs known to be right
        steps: how many
        background: share of each class that goes to all other labels alike

    Returns:
        float64 (C, C), rows sum to 1
    """
    same, others = evenly(0.0, len(transition)), evenly(1.0, len(transition))
    for _ in range(steps):
        true = torch.where(trusted[:, None], same[label], truth(beliefs, transition, label))
        counts = torch.zeros_like(transition).index_add_(1, label, true.T)
        counts += background * counts.sum(1, keepdim=True) * others + LEAST_BELIEF
        transition = counts / counts.sum(1, keepdim=True)
    return transition


def truth(beliefs: Tensor, transition: Tensor, label: Tensor) -> Tensor:
    """q_n(c) = p_n(c) T(c, y_n) / Σ_c' p_n(c') T(c', y_n): what an image shows, given what it was labelled.

    Args:
        beliefs: (N, C), p_n
        transition: float64 (C, C), T
        label: int64 (N,), y_n

    Returns:
        float64 (N, C), rows sum to 1
    """
    return torch.nn.functional.normalize((beliefs.double() + LEAST_BELIEF) * transition[:, label].T, p=1.0)
