"""The low-rank inverse against the dense one, and what it says about itself."""

import pytest
import torch

from fiftyone_ecif.core import low_rank_inverse
from tests.support.oracle import dense_gauss_newton, make_objective


def anchored(kind="clip", anchor=0.05):
    return make_objective(kind, anchor=anchor)


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_at_full_rank_it_is_the_dense_inverse(kind):
    objective, head = anchored(kind)
    dense = dense_gauss_newton(objective, head, kind)
    inverse = low_rank_inverse(objective, head, tolerance=0.0, max_rank=1000, block=16)
    vectors = torch.randn(3, len(dense), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(inverse.solve(vectors), torch.linalg.solve(dense, vectors.T).T, rtol=1e-6, atol=1e-8)
    assert inverse.relative_residual < 1e-8
    assert inverse.vectors.shape == (len(dense), len(dense))


def test_it_stops_at_the_tolerance_and_its_residual_is_the_dense_one():
    objective, head = anchored(anchor=0.02)
    dense = dense_gauss_newton(objective, head, "clip")
    coarse, fine = (low_rank_inverse(objective, head, tolerance, block=4) for tolerance in (0.5, 0.05))
    assert len(coarse.vectors) < len(fine.vectors) < len(dense)
    assert 0.05 < coarse.relative_residual <= 0.5 and fine.relative_residual <= 0.05
    identity = torch.eye(len(fine.vectors), dtype=torch.float64)
    torch.testing.assert_close(fine.vectors @ fine.vectors.T, identity)
    # Gradients of single pairs, which it was not built from, are solved about as well as it says.
    gradients = [
        objective.without(torch.arange(24) == row).value_and_gradient(head)[1] - objective.value_and_gradient(head)[1]
        for row in range(24)
    ]
    targets = torch.stack(gradients)
    residual = (fine.solve(targets) @ dense - targets).norm(dim=1) / targets.norm(dim=1)
    assert residual.mean() == pytest.approx(fine.relative_residual, rel=1.0)


def test_the_rank_is_limited_and_the_residual_then_tells():
    objective, head = anchored(anchor=0.02)
    inverse = low_rank_inverse(objective, head, tolerance=0.0, max_rank=6, block=4)
    assert len(inverse.vectors) == 6
    assert inverse.relative_residual > 0.05


def test_a_sample_of_the_pairs_estimates_the_same_curvature():
    objective, head = anchored()
    whole, sample = (low_rank_inverse(objective, head, 0.0, 1000, 16, pairs=pairs) for pairs in (None, 12))
    assert sample.eigenvalues.sum() == pytest.approx(whole.eigenvalues.sum().item(), rel=0.3)
    assert sample.eigenvalues[0] != whole.eigenvalues[0]


def test_without_an_anchor_it_is_refused():
    objective, head = make_objective(anchor=0.0)
    with pytest.raises(ValueError, match="anchor"):
        low_rank_inverse(objective, head)
