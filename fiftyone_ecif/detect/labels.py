"""The misalignment probability of labels: Bayes' rule under a noise transition matrix that is estimated without truth.

The estimate is a soft form of Dawid & Skene's. It is written here because libraries for crowdsourced labels
(crowd-kit, for one) only take hard labels, whereas these annotators give a probability for every label, have a weight
each, and some pairs are trusted. Where annotators give hard labels both forms agree, which a test shows.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from fiftyone_ecif.detect.captions import LEAST_MEMORISED, Misalignment
from fiftyone_ecif.detect.classifier_surprise import out_of_fold
from fiftyone_ecif.detect.evidence import EVIDENCE, NEIGHBOURS
from fiftyone_ecif.detect.label_noise import anchored, label_noise_interval
from fiftyone_ecif.detect.nearest_rows import nearest
from fiftyone_ecif.detect.neighbour_surprise import BACKGROUND
from fiftyone_ecif.detect.transition import (
    LEAST_BELIEF,
    STARTING_RATE,
    expectation_maximisation,
    posterior,
    symmetric_rate,
    symmetric_transition,
)

STARTING_WEIGHT, MOST_WEIGHT = 0.5, 4.0
"""Weight of an annotator that the estimate starts from, and the largest weight that it can find."""

PASSES = 3
"""How often everything is estimated. From the second pass on, neighbours vote with their estimated true labels."""

ROUNDS, STEPS = 5, 5
"""Rounds of an estimate, and steps per round for the transition matrix and for the weights."""

BOUNDS = 2
"""How often the noise is bounded by the surest beliefs, and the weights are estimated anew. More changes little."""

FOLDS, FOLD_BACKGROUND = 5, 0.005
"""Folds of the test for class-conditional noise, and the share of a class that goes to all other labels alike when the
transition matrix is estimated from the other folds: it is smaller there than in use."""

ESTIMATED_FROM, ESTIMATED_PER_CLASS = 5_000, 50
"""Pairs that the estimate is made from, in all and for each class, whichever is more. They are drawn at random, trusted
pairs first."""

CHUNK = 4096
"""Pairs whose neighbours vote together."""


def label_misalignment(
    image: Tensor, label: Tensor, beliefs: Tensor, memorised: float, trusted: Tensor, seed: int = 0
) -> Misalignment:
    """Probability that the label of an image is wrong.

    Three annotators, none of which has seen the label of the pair itself, give a probability to every label: a head
    that was not fitted on the pair, the labels of the nearest images, and, where the model has memorised pairs, a
    classifier that is trained from scratch. They are pooled, p_n(c) ∝ Π_k p_nk(c)^{w_k}, and the probability follows
    from Bayes' rule under the noise transition matrix T, the rate at which class c is labelled y:

        p(wrong) = Σ_{c ≠ y} p_n(c) T(c, y) / Σ_c p_n(c) T(c, y).

    If coats are often labelled as shirts, a shirt that may well be a coat is more suspicious than it is where wrong
    labels are spread over all classes. The weights w and T are those under which the given labels are most likely
    (:func:`estimate`). T is the same for all labels (:func:`symmetric_transition`) unless held-out labels show that
    the noise is class-conditional (:func:`is_class_conditional`). A head on towers that have memorised the pairs has
    in effect seen their labels: the more they have memorised, the less it counts. From the second pass on, neighbours
    vote with the posterior of their labels.

    Args:
        image: (N, D) unit vectors by the given head
        label: int64 (N,), the given labels, 0 to C − 1
        beliefs: (N, C), probability of each label by a head that was not fitted on the pair
        memorised: 0 to 1, how much of the surprise of a pair is due to the model having seen that very image
        trusted: bool (N,), pairs known to be right: their probability is 0, and they help to weigh the annotators
        seed: of what is drawn

    Returns:
        a :class:`~fiftyone_ecif.detect.captions.Misalignment`; without any evidence (one label for all, say) the
        probability is ½
    """
    image, classes = image.float().cpu(), beliefs.shape[1]
    near = nearest(image, min(NEIGHBOURS, len(image) - 2))
    logarithms = {"head": _logarithm(beliefs.float().cpu())}
    if memorised >= LEAST_MEMORISED:
        logarithms["classifier"] = _logarithm(out_of_fold(image, label, classes, seed))
    sample = _sample(label, trusted, classes, seed)
    true = torch.nn.functional.one_hot(label, classes).float()
    for _ in range(PASSES):
        logarithms["neighbours"] = _logarithm(neighbour_votes(near, true))
        sampled = {name: part[sample] for name, part in logarithms.items()}
        weights, transition = _weigh(sampled, label[sample], memorised, trusted[sample], seed)
        true = posterior(pool(logarithms, weights), transition, label)
    wrong = 1.0 - true.gather(1, label[:, None]).squeeze(1)
    evidence = _evidence(logarithms, transition, label)
    if wrong.std() < 1e-9:
        return Misalignment(np.full(len(label), 0.5), 0.5, (0.0, 1.0), evidence)
    wrong = torch.where(trusted, 0.0, wrong)
    rate, beliefs = float(wrong.mean()), pool(logarithms, weights)[sample]
    low, high = label_noise_interval(transition, beliefs, label[sample], trusted[sample], seed)
    return Misalignment(wrong.numpy(), rate, (min(low, rate), max(high, rate)), evidence)


def _sample(label: Tensor, trusted: Tensor, classes: int, seed: int) -> Tensor:
    """The pairs that the estimate is made from, int64, trusted ones first."""
    order = torch.randperm(len(label), generator=torch.Generator().manual_seed(seed))
    order = order[(~trusted[order]).int().argsort(stable=True)]
    return order[: max(ESTIMATED_FROM, ESTIMATED_PER_CLASS * classes)]


def _evidence(logarithms: dict[str, Tensor], transition: Tensor, label: Tensor) -> dict[str, np.ndarray]:
    """Log odds against the given labels by each annotator alone, in standard deviations; 0 for one that is missing."""
    evidence: dict[str, np.ndarray] = {name: np.zeros(len(label), dtype=np.float32) for name in EVIDENCE}
    for name, logarithm in logarithms.items():
        right = posterior(logarithm.softmax(1), transition, label).gather(1, label[:, None]).squeeze(1)
        against = -torch.logit(right, eps=1e-9)
        evidence[name] = ((against - against.mean()) / against.std().clamp_min(1e-6)).float().numpy()
    return evidence


def neighbour_votes(near: Tensor, beliefs: Tensor) -> Tensor:
    """The mean beliefs of the nearest images, with a small share of the mean over all images.

    Args:
        near: int64 (N, k), the nearest other images of each
        beliefs: (N, C), probability of each label

    Returns:
        float32 (N, C), rows sum to 1
    """
    votes = torch.cat([beliefs[rows].mean(1) for rows in torch.split(near, CHUNK)])
    return ((votes + BACKGROUND * beliefs.mean(0)) / (1.0 + BACKGROUND)).float()


def _logarithm(beliefs: Tensor) -> Tensor:
    return (beliefs + LEAST_BELIEF).log()


def _weigh(
    logarithms: dict[str, Tensor], label: Tensor, memorised: float, trusted: Tensor, seed: int
) -> tuple[dict[str, float], Tensor]:
    """Weights and transition matrix; the more was memorised, the closer they are to those without the head.

    Symmetric noise has the rate under which the labels are most likely. But the other annotators, too, take some of
    what was memorised for true, which makes that rate too small. The more was memorised, the closer the rate is to the
    larger one of the class-conditional transition matrix.

    Last, the noise is bounded by what the surest beliefs show (:func:`~.label_noise.anchored`). Where less is left of
    it, the annotators have made mistakes that were taken for noise, and are believed less.
    """
    weights, transition = estimate(logarithms, label, trusted)
    beliefs = pool(logarithms, weights)
    if memorised > 0.0:
        others = {name: part for name, part in logarithms.items() if name != "head"}
        without = {"head": 0.0} | estimate(others, label, trusted)[0]
        weights = {name: (1.0 - memorised) * weights[name] + memorised * without[name] for name in weights}
        beliefs = pool(logarithms, weights)
        transition = expectation_maximisation(transition, beliefs, label, trusted, ROUNDS * STEPS)
    if not is_class_conditional(beliefs, label, trusted, seed):
        likeliest = symmetric_rate(beliefs, label, trusted, ROUNDS * STEPS)
        class_conditional = 1.0 - float(transition.diag().mean())
        rate = (1.0 - memorised) * likeliest + memorised * class_conditional
        transition = symmetric_transition(rate, len(transition))
    bounded, undoubted = transition, weights
    for _ in range(BOUNDS):
        bounded = anchored(transition, pool(logarithms, weights), label, trusted, memorised)
        if torch.equal(bounded, transition):
            break
        doubted = likeliest_weights(logarithms, weights, bounded, label, trusted)
        weights = {name: (1.0 - memorised) * doubted[name] + memorised * undoubted[name] for name in weights}
    return weights, bounded


def pool(logarithms: dict[str, Tensor], weights: dict[str, float]) -> Tensor:
    """p_n(c) ∝ Π_k p_nk(c)^{w_k}: the beliefs of all annotators in one (a logarithmic opinion pool).

    Args:
        logarithms: (N, C) by annotator, log p_nk(c)
        weights: by annotator, w

    Returns:
        (N, C), rows sum to 1
    """
    return sum((weights[name] * part for name, part in logarithms.items()), torch.zeros(())).softmax(1)


def estimate(logarithms: dict[str, Tensor], label: Tensor, trusted: Tensor) -> tuple[dict[str, float], Tensor]:
    """Weights of the annotators and the noise transition matrix under which the given labels are most likely.

    They maximise Σ_n log Σ_c p_n(c) T(c, y_n), in turn; for trusted pairs log p_n(y_n) takes the place of the summand.

    Args:
        logarithms: (N, C) by annotator, log p_nk(c)
        label: int64 (N,), y_n
        trusted: bool (N,), pairs known to be right

    Returns:
        w by annotator, and T, float64 (C, C), rows sum to 1
    """
    transition = symmetric_transition(STARTING_RATE, next(iter(logarithms.values())).shape[1])
    weights = dict.fromkeys(logarithms, STARTING_WEIGHT)
    for _ in range(ROUNDS):
        transition = expectation_maximisation(transition, pool(logarithms, weights), label, trusted, STEPS)
        weights = likeliest_weights(logarithms, weights, transition, label, trusted)
    return weights, transition


def likeliest_weights(
    logarithms: dict[str, Tensor], weights: dict[str, float], transition: Tensor, label: Tensor, trusted: Tensor
) -> dict[str, float]:
    """Weights under which the labels are likelier, given the transition matrix: a few steps from some weights on.

    Args:
        logarithms: (N, C) by annotator, log p_nk(c)
        weights: by annotator, to start from
        transition: float64 (C, C), T
        label: int64 (N,), y_n
        trusted: bool (N,), pairs known to be right

    Returns:
        w by annotator, 0 to :data:`MOST_WEIGHT`
    """
    same = torch.eye(len(transition), dtype=torch.float64)
    rates = torch.where(trusted[:, None], same[label], transition[:, label].T).float()
    # w = MOST_WEIGHT · sigmoid(free) stays within its bounds.
    start = torch.tensor([weights[name] for name in logarithms]) / MOST_WEIGHT
    free = torch.logit(start, eps=LEAST_BELIEF).requires_grad_()
    search: Any = torch.optim.LBFGS([free], max_iter=STEPS, line_search_fn="strong_wolfe")  # it has no types

    def negative_likelihood() -> Tensor:
        search.zero_grad()
        pooled = pool(logarithms, dict(zip(logarithms, MOST_WEIGHT * free.sigmoid())))
        loss = -((pooled * rates).sum(1) + LEAST_BELIEF).log().mean()
        torch.autograd.backward(loss)
        return loss

    search.step(negative_likelihood)
    return dict(zip(logarithms, (MOST_WEIGHT * free.detach().sigmoid()).tolist()))


def is_class_conditional(beliefs: Tensor, label: Tensor, trusted: Tensor, seed: int = 0) -> bool:
    """Whether held-out labels are likelier under the transition matrix of the other folds than under symmetric noise.

    The matrix has C² parameters and symmetric noise has one. A pattern in a hundred wrong labels may be chance, and a
    matrix that took it for real would excuse wrong labels of other kinds.

    Args:
        beliefs: (N, C), p_n
        label: int64 (N,), y_n
        trusted: bool (N,), pairs known to be right; their labels are not held out
        seed: of the folds
    """
    fold = torch.randperm(len(label), generator=torch.Generator().manual_seed(seed)) % FOLDS
    start, gain = symmetric_transition(STARTING_RATE, beliefs.shape[1]), 0.0
    for part in range(FOLDS):
        seen, held_out = fold != part, (fold == part) & ~trusted
        known = beliefs[seen], label[seen], trusted[seen]
        conditional = expectation_maximisation(start, *known, STEPS, FOLD_BACKGROUND)
        symmetric = symmetric_transition(symmetric_rate(*known, STEPS), len(start))
        believed = beliefs[held_out].double() + LEAST_BELIEF
        # Σ_n log Σ_c p_n(c) T(c, y_n) for each of the two matrices
        likely, likely_symmetric = (
            (believed * rates[:, label[held_out]].T).sum(1) for rates in (conditional, symmetric)
        )
        gain += float((likely.log() - likely_symmetric.log()).sum())
    return gain > 0.0
