"""The solver and the largest eigenvalue against dense oracles."""

from importlib import import_module

import pytest
import torch

from fiftyone_ecif.core import conjugate_gradients, kronecker_curvature, largest_eigenvalue
from tests.support.oracle import dense_gauss_newton, make_objective

KINDS = ["clip", "siglip"]


def positive_definite(size=12, condition=50.0, seed=0, dtype=torch.float64):
    """A matrix (P, P) with eigenvalues spread evenly between 1 and ``condition``."""
    generator = torch.Generator().manual_seed(seed)
    basis = torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64))[0]
    return (basis * torch.linspace(1.0, condition, size, dtype=torch.float64) @ basis.T).to(dtype)


def random_targets(count, size=12, seed=1):
    return torch.randn(count, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("kind", KINDS)
def test_it_matches_a_dense_solve(kind):
    objective, head = make_objective(kind, pairs=12, batch_size=6)
    targets = random_targets(2, head.size)
    curvature = kronecker_curvature(objective, head, objective.anchor)
    found = conjugate_gradients(lambda d: objective.gauss_newton_product(head, d), targets, curvature.solve, 1e-10)
    dense = torch.linalg.solve(dense_gauss_newton(objective, head, kind), targets.T).T
    torch.testing.assert_close(found.vectors, dense, rtol=1e-6, atol=1e-8)
    assert found.converged and found.relative_residual <= 1e-10


def test_it_reports_what_it_could_not_reach():
    matrix = positive_definite()
    short = conjugate_gradients(lambda d: d @ matrix, random_targets(1), torch.clone, 1e-12, 2)
    assert not short.converged and short.iterations == 2
    residual = (short.vectors @ matrix - random_targets(1)).norm() / random_targets(1).norm()
    assert short.relative_residual == pytest.approx(residual.item())


def test_what_is_not_positive_definite_is_refused():
    target = random_targets(1)
    with pytest.raises(ValueError, match="negative curvature"):
        conjugate_gradients(lambda d: -d, target, torch.clone)
    with pytest.raises(ValueError, match="preconditioner is not positive definite"):
        conjugate_gradients(torch.clone, target, lambda r: -r)
    with pytest.raises(ValueError, match="not finite"):
        conjugate_gradients(torch.clone, target * torch.nan, torch.clone)


def test_each_system_stops_by_itself_and_is_what_it_is_alone():
    """A zero system, one that a single step solves, and two that take their time; their order does not matter."""
    matrix = positive_definite()
    eigenvector = torch.linalg.eigh(matrix)[1][:, 4]
    targets = random_targets(5)
    targets[1], targets[3] = 0.0, 7.0 * eigenvector

    def solve(some):
        return conjugate_gradients(lambda d: d @ matrix, some, torch.clone, 1e-9)

    together = solve(targets)
    alone = [solve(target[None]) for target in targets]
    assert together.converged
    for mine, theirs in zip(together.vectors, alone):
        torch.testing.assert_close(mine, theirs.vectors[0], rtol=1e-10, atol=1e-12)
    assert together.iterations == max(one.iterations for one in alone)
    assert [alone[row].iterations for row in (1, 3)] == [0, 1]
    assert together.vectors[1].count_nonzero() == 0
    assert together.relative_residual == pytest.approx(max(one.relative_residual for one in alone))


def test_a_system_that_has_stopped_costs_no_more_products():
    matrix, seen = positive_definite(), []
    targets = random_targets(3)
    targets[0] = torch.linalg.eigh(matrix)[1][:, 0]

    def product(directions):
        seen.append(len(directions))
        return directions @ matrix

    conjugate_gradients(product, targets, torch.clone, 1e-9)
    assert seen[0] == 3 and set(seen[1:]) <= {1, 2}


def test_the_size_of_a_target_does_not_matter():
    """Also where its square is less than float32 can hold."""
    matrix, target = positive_definite(dtype=torch.float32), random_targets(1).float()
    plain, tiny = (
        conjugate_gradients(lambda d: d @ matrix, scale * target, torch.clone, 1e-5).vectors for scale in (1.0, 1e-25)
    )
    torch.testing.assert_close(tiny * 1e25, plain, rtol=1e-4, atol=1e-6)


def test_zero_targets_alone_are_solved_by_zero():
    found = conjugate_gradients(torch.clone, torch.zeros(2, 4), torch.clone)
    assert found.converged and found.iterations == 0 and found.relative_residual == 0.0
    assert found.vectors.count_nonzero() == 0


def test_a_preconditioner_that_gives_no_direction_ends_its_system_alone():
    """The others are solved; the residual says which one is not."""
    matrix, targets = positive_definite(), random_targets(2)
    targets[0, 6:], targets[1, :6] = 0.0, 0.0
    block = torch.block_diag(matrix[:6, :6], matrix[6:, 6:])
    half = torch.cat([torch.zeros(6), torch.ones(6)]).double()
    found = conjugate_gradients(lambda d: d @ block, targets, lambda r: r * half, 1e-9)
    assert not found.converged and found.relative_residual == pytest.approx(1.0)
    torch.testing.assert_close(found.vectors[1], torch.linalg.solve(block, targets[1]))
    assert found.vectors[0].count_nonzero() == 0


@pytest.mark.parametrize("kind", KINDS)
def test_largest_eigenvalue_is_that_of_the_dense_matrix(kind):
    """From below, and the same on every call."""
    objective, head = make_objective(kind, pairs=12, batch_size=6)
    top = torch.linalg.eigvalsh(dense_gauss_newton(objective, head, kind))[-1].item()
    start = torch.ones(1, head.size, dtype=torch.float64)
    products = []

    def product(directions):
        products.append(1)
        return objective.gauss_newton_product(head, directions)

    found = largest_eigenvalue(product, start)
    assert 0.999 * top < found <= top * (1 + 1e-12)
    assert len(products) <= 20
    assert found == largest_eigenvalue(product, start)


@pytest.mark.parametrize("size", [1e-30, 1e-10, 1e10])
def test_largest_eigenvalue_of_a_matrix_whose_numbers_are_very_small_or_large(size):
    """ARPACK takes a vector for zero whose squares are."""
    matrix = torch.diag(torch.linspace(0.1, 1.0, 30)) * size
    assert largest_eigenvalue(lambda d: d @ matrix, torch.ones(1, 30)) == pytest.approx(size, rel=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_matrices_on_which_lanczos_has_nothing_to_do(dtype):
    start = torch.ones(1, 8, dtype=dtype)
    assert largest_eigenvalue(torch.zeros_like, start) == 0.0
    assert largest_eigenvalue(lambda d: 3.0 * d, start) == pytest.approx(3.0)
    assert largest_eigenvalue(lambda d: 3.0 * d, start[:, :1]) == pytest.approx(3.0)
    assert largest_eigenvalue(lambda d: 3.0 * d, start[:, :2]) == pytest.approx(3.0)
    with pytest.raises(ValueError, match="not finite"):
        largest_eigenvalue(lambda d: d * torch.nan, start)


def test_products_are_bounded_where_only_rounding_curves():
    generator = torch.Generator().manual_seed(0)
    products = []

    def noise(directions):
        products.append(1)
        return 1e-9 * torch.randn(directions.shape, generator=generator)

    assert 0.0 < largest_eigenvalue(noise, torch.ones(1, 200)) < 1e-6
    assert len(products) <= 50


def test_a_flat_spectrum_is_settled_and_bounded_from_below_where_restarts_run_out(monkeypatch):
    diagonal = torch.linspace(0.0, 1.0, 5000)
    assert 0.99 < largest_eigenvalue(lambda d: d * diagonal, torch.ones(1, 5000)) <= 1.0
    monkeypatch.setattr(import_module("fiftyone_ecif.core.conjugate_gradients"), "LANCZOS_RESTARTS", 1)
    assert 0.7 < largest_eigenvalue(lambda d: d * diagonal, torch.ones(1, 5000)) < 0.99
