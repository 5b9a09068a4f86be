"""Where the loss is pointwise, influence is a known quantity: the same objective, solver and scores agree with a peer.

A linear probe with cross-entropy is written as a scope and a loss, and driven through the same code as CLIP. The peer
is dattri with its explicit inverse Hessian, which for a linear probe is the Gauss-Newton matrix.
"""

from dataclasses import dataclass

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from fiftyone_ecif.core import (
    Objective,
    TensorPairs,
    conjugate_gradients,
    fit_to_rest,
    influence,
    partitions,
)
from fiftyone_ecif.core.losses import ContrastiveLoss, Roles
from fiftyone_ecif.core.scope import Cotangent, LayerStatistics, Linearization, Scope, Tangent

pytest.importorskip("dattri", reason="the peer of this cross-check is not installed")

CLASSES, FEATURES, TRAIN, TEST = 4, 6, 120, 30
ANCHOR = 0.05


@dataclass(frozen=True)
class LinearProbe(Scope):
    """Logits W x; "image" inputs are features, "text" inputs are labels."""

    weight: torch.Tensor

    def vector(self):
        return self.weight.reshape(-1)

    def replace(self, vector):
        return LinearProbe(vector.reshape(self.weight.shape))

    def to(self, device):
        return LinearProbe(self.weight.to(device))

    def linearize(self, image_input, text_input):
        return ProbeLinearization(self, image_input, text_input)


class ProbeLinearization(Linearization):
    """The "similarity" of a pair are its logits, its own class first."""

    logit_bias = None

    def __init__(self, probe, features, labels):
        self.image = self.features = features
        self.weight = probe.weight
        self.logit_scale = torch.zeros((), dtype=features.dtype)
        self.order = torch.stack([torch.arange(CLASSES).roll(-label) for label in labels.tolist()])

    def own_class_first(self, logits):
        return logits.gather(-1, self.order.expand(logits.shape))

    def similarity(self):
        return self.own_class_first(self.features @ self.weight.T)

    def tangent(self, directions):
        image = self.features @ directions.unflatten(-1, self.weight.shape).mT
        return Tangent(image, image, directions.new_zeros(len(directions)))

    def similarity_tangent(self, directions):
        return self.own_class_first(self.tangent(directions).image)

    def cotangent(self, similarity_cotangent):
        order = self.order.expand(similarity_cotangent.shape)
        logits = torch.zeros_like(similarity_cotangent).scatter(-1, order, similarity_cotangent)
        return Cotangent(logits, logits, logits.new_zeros(len(logits)))

    def pull_back(self, cotangent):
        return (cotangent.image.mT @ self.features).flatten(-2)

    def layer_statistics(self, cotangent):
        return [LayerStatistics(0, self.features, cotangent.image)]


class CrossEntropy(ContrastiveLoss):
    """−log softmax of the first logit: no pair is another's negative."""

    def sum_loss(self, similarity):
        return -similarity.log_softmax(1)[:, 0].sum()

    def curvature_product(self, similarity, tangents):
        weighted = similarity.softmax(1) * tangents
        return weighted - similarity.softmax(1) * weighted.sum(-1, keepdim=True)

    def sample_curvature_root(self, similarity, samples, generator):
        probability = similarity.softmax(1)
        choice = torch.multinomial(probability, samples, replacement=True, generator=generator)
        return torch.nn.functional.one_hot(choice.T, CLASSES) - probability

    def roles(self, similarity):
        positive = -similarity.log_softmax(1)[:, 0]
        return Roles(positive, torch.zeros_like(positive), torch.zeros_like(positive))

    def role_derivatives(self, similarity, tangents):
        positive = (similarity.softmax(1) * tangents).sum(-1) - tangents[..., 0]
        return Roles(positive, torch.zeros_like(positive), torch.zeros_like(positive))

    def similarity_cotangent(self, similarity):
        cotangent = similarity.softmax(1)
        cotangent[:, 0] -= 1.0
        return cotangent

    def _in_parts(self, *parts):
        raise NotImplementedError

    half_loss = half_cotangent = half_curvature_product = half_curvature_root = _add_row_derivatives = _in_parts

    def deletion_cotangents(self, similarity, index):
        raise NotImplementedError


@pytest.fixture(scope="module")
def probe():
    """A probe at rest, its objective and the held-out objective of each test row."""
    generator = torch.Generator().manual_seed(0)
    centers = torch.randn(CLASSES, FEATURES, generator=generator, dtype=torch.float64)
    labels = torch.randint(CLASSES, (TRAIN + TEST,), generator=generator)
    noise = torch.randn(TRAIN + TEST, FEATURES, generator=generator, dtype=torch.float64)
    features = (centers[labels] + noise) * 0.7 ** torch.arange(FEATURES)
    labels[:12] = (labels[:12] + 1) % CLASSES  # wrong ones
    start = LinearProbe(torch.zeros(CLASSES, FEATURES, dtype=torch.float64))
    pairs = TensorPairs(features[:TRAIN], labels[:TRAIN])
    objective = Objective(pairs, partitions(TRAIN, 50, 1, seed=0), CrossEntropy(), ANCHOR, start.vector())
    fit = fit_to_rest(objective, start, lambda vector: vector, 1e-10, 100)
    assert fit.at_rest
    targets = [
        Objective(TensorPairs(features[row : row + 1], labels[row : row + 1]), [[torch.tensor([0])]], CrossEntropy())
        for row in range(TRAIN, TRAIN + TEST)
    ]
    return objective, targets, fit.scope, features, labels


def our_scores(probe, solve):
    """(TEST, TRAIN), the predicted change of each test row's loss if a training row were removed."""
    objective, targets, scope, *_ = probe
    gradients = torch.stack([target.value_and_gradient(scope)[1] for target in targets])
    return influence(objective, scope, solve(gradients)).value("exact")[0]


def peer_scores(probe, attributor_class, **options):
    """The same by the peer, (TEST, TRAIN): its scores are N times the change that one row's removal makes."""
    from dattri.task import AttributionTask

    _, _, scope, features, labels = probe
    module = torch.nn.Linear(FEATURES, CLASSES, bias=False, dtype=torch.float64)
    module.weight.data = scope.weight.clone()

    def loss(parameters, data):
        logits = torch.func.functional_call(module, parameters, (data[0].reshape(-1, FEATURES),))
        return torch.nn.functional.cross_entropy(logits, data[1].reshape(-1))

    train = DataLoader(TensorDataset(features[:TRAIN], labels[:TRAIN]), batch_size=TRAIN, shuffle=False)
    test = DataLoader(TensorDataset(features[TRAIN:], labels[TRAIN:]), batch_size=TEST, shuffle=False)
    task = AttributionTask(loss_func=loss, model=module, checkpoints=[module.state_dict()])
    attributor = attributor_class(task=task, device="cpu", **options)
    attributor.cache(train)
    with torch.no_grad():
        return attributor.attribute(train, test).T.double() / TRAIN


def row_rank_correlations(ours, theirs):
    ranks = [scores.argsort(1).argsort(1).double() for scores in (ours, theirs)]
    centred = [rank - rank.mean(1, keepdim=True) for rank in ranks]
    return torch.cosine_similarity(*centred, dim=1)


def test_solved_influence_agrees_with_the_explicit_inverse(probe):
    from dattri.algorithm.influence_function import IFAttributorExplicit

    objective, _, scope, *_ = probe
    product = lambda d: objective.gauss_newton_product(scope, d)  # noqa: E731
    ours = our_scores(probe, lambda b: conjugate_gradients(product, b, lambda r: r, 1e-8).vectors)
    theirs = peer_scores(probe, IFAttributorExplicit, regularization=ANCHOR)
    assert row_rank_correlations(ours, theirs).min() >= 0.99
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-6)  # the peer accumulates in float32
