"""Kronecker-factored curvature against dense oracles and as a preconditioner."""

import pytest
import torch

from fiftyone_ecif.core import (
    LOSSES,
    Objective,
    TensorPairs,
    conjugate_gradients,
    kronecker_curvature,
    partitions,
)
from tests.support.oracle import dense_gauss_newton, make_features, make_head, make_objective, random_vectors

KINDS = ["clip", "siglip"]


def test_kronecker_curvature_preconditions_and_needs_damping():
    head = make_head(dim=4, image_dim=30, text_dim=30, logit_scale=2.5)
    spectrum = 0.8 ** torch.arange(30)  # features are never isotropic
    image, text = (features * spectrum for features in make_features(400, 1, 30, 30))
    rounds = partitions(400, 40, 1, seed=0)
    objective = Objective(TensorPairs(image, text), rounds, LOSSES["clip"], 1e-2, head.vector())
    curvature = kronecker_curvature(objective, head, objective.anchor, samples=16)
    target = random_vectors(1, head.size)
    product = lambda d: objective.gauss_newton_product(head, d)  # noqa: E731
    plain = conjugate_gradients(product, target, lambda r: r, 1e-4, 500)
    preconditioned = conjugate_gradients(product, target, curvature.solve, 1e-4, 500)
    assert preconditioned.iterations < plain.iterations
    with pytest.raises(ValueError, match="damping"):
        kronecker_curvature(objective, head, 0.0)
    objective.pairs.image[0] = torch.inf
    with pytest.raises(ValueError, match="not finite"):
        kronecker_curvature(objective, head, 1.0)


def test_factors_without_full_rank_are_inverted_all_the_same():
    """Two pairs and a feature that never varies: the anchor alone holds the rest up."""
    head = make_head()
    image, text = make_features(2)
    image[:, 0] = 0.0
    objective = Objective(TensorPairs(image, text), [[torch.arange(2)]], LOSSES["clip"], 0.1, head.vector())
    curvature = kronecker_curvature(objective, head, objective.anchor)
    direction = torch.zeros(1, head.size, dtype=torch.float64)
    direction[0, 0] = 1.0  # the weight of that feature: no curvature but the anchor's
    torch.testing.assert_close(curvature.solve(direction), direction / 0.1)


@pytest.mark.parametrize("kind", KINDS)
def test_kronecker_eigenvalues_sum_to_the_trace(kind):
    objective, head = make_objective(kind, pairs=12, batch_size=6)
    curvature = kronecker_curvature(objective, head, objective.anchor, samples=3000)
    trace = dense_gauss_newton(objective, head, kind).trace() - objective.anchor * head.size
    found = sum(layer.eigenvalues.sum().item() for layer in curvature.layers) + curvature.diagonal.sum().item()
    assert found == pytest.approx(trace.item(), rel=0.05)


@pytest.mark.parametrize("kind", KINDS)
def test_kronecker_quadratic_is_the_product_with_its_own_inverse(kind):
    objective, head = make_objective(kind, pairs=12, batch_size=6)
    curvature = kronecker_curvature(objective, head, objective.anchor)
    batch = head.linearize(*objective.pairs.gather(torch.arange(6)))
    cotangent = batch.cotangent(random_vectors(3, 36).unflatten(1, (6, 6)))
    gradients = batch.pull_back(cotangent)
    expected = (gradients * curvature.solve(gradients)).sum(-1)
    torch.testing.assert_close(curvature.quadratic(batch, cotangent), expected)
