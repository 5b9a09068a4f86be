"""The objective, its gradient and its curvature against dense oracles."""

from dataclasses import replace

import pytest
import torch

from tests.support.oracle import dense_gauss_newton, make_objective, oracle_value, random_vectors

KINDS = ["clip", "siglip"]


@pytest.mark.parametrize("kind", KINDS)
def test_value_and_gradient_match_the_oracle(kind):
    objective, head = make_objective(kind)
    head = head.replace(head.vector() + 0.1)
    theta = head.vector().requires_grad_()
    expected = oracle_value(objective, head, theta, kind)
    value, gradient = objective.value_and_gradient(head)
    assert value == pytest.approx(expected.item(), rel=1e-9) == objective.value(head)
    torch.testing.assert_close(gradient, torch.autograd.grad(expected, theta)[0])


@pytest.mark.parametrize("kind", KINDS)
def test_gauss_newton_product_matches_the_dense_matrix(kind):
    objective, head = make_objective(kind, pairs=12, batch_size=6)
    directions = random_vectors(3, head.size)
    dense = dense_gauss_newton(objective, head, kind)
    torch.testing.assert_close(objective.gauss_newton_product(head, directions), directions @ dense)


def test_a_sample_of_the_batches_weighs_what_all_of_them_do():
    """Whole rounds first; its mean curvature is an estimate of the objective's, so also after a removal."""
    objective, head = make_objective(pairs=24, batch_size=8, rounds=3)
    objective = objective.without(torch.arange(24) < 6)
    assert objective.sample(54) is objective and objective.sample(1000) is objective
    sample = objective.sample(18)
    assert [len(batches) for batches in sample.rounds] == [3]
    assert torch.equal(torch.cat(sample.rounds[0]).sort().values, torch.arange(6, 24))
    assert sample.weight * 18 == pytest.approx(objective.weight * 54)
    monotone = replace(objective, rounds=objective.rounds[:1] * 2)  # the same round twice: its half is all of it
    direction = random_vectors(1, head.size)
    torch.testing.assert_close(
        monotone.sample(18).gauss_newton_product(head, direction), monotone.gauss_newton_product(head, direction)
    )


@pytest.mark.parametrize(("enough", "held"), [(1000, 3), (49, 3), (48, 2), (24, 1), (5, 1)])
def test_curvature_is_taken_from_as_many_rounds_as_hold_enough_pairs(enough, held, monkeypatch):
    """A removal takes no more of them; gradients, and where there are too few pairs all else, stay as they are."""
    objective, head = make_objective(pairs=24, batch_size=8, rounds=3)
    direction = random_vectors(1, head.size)
    gradient = objective.value_and_gradient(head)[1]
    monkeypatch.setattr("fiftyone_ecif.core.objective.CURVATURE_PAIRS", enough)
    objective = replace(objective)  # nothing is remembered of the other choice
    assert (
        len(objective.curvature_sample.rounds)
        == held
        == len(objective.without(torch.arange(24) < 20).curvature_sample.rounds)
    )
    assert (objective.curvature_sample is objective) == (held == 3)
    expected = dense_gauss_newton(replace(objective, rounds=objective.rounds[:held]), head, "clip")
    torch.testing.assert_close(objective.gauss_newton_product(head, direction), direction @ expected)
    assert torch.equal(objective.value_and_gradient(head)[1], gradient)
