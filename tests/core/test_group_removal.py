"""Removals in closed form against dense oracles, and against really refitting."""

import pytest
import torch

from fiftyone_ecif.core import fit_to_rest, influence, removal_gradients, removal_step
from tests.support.oracle import dense_gauss_newton, make_objective, random_vectors


def test_the_group_form_is_the_gradient_of_what_removal_changes(fitted):
    """∇(pos_E + negx_E) is ∇J − ∇J_{−E}: for one pair it is the single form, for many it is not their sum."""
    objective, _, scope, _ = fitted
    batch = objective.rounds[0][0].tolist()
    groups = torch.zeros(4, 60, dtype=torch.bool)
    # One pair, some of a batch, a whole batch of a round, a batch but for one pair.
    for group, members in zip(groups, ([7], batch[:6], batch, batch[1:])):
        group[members] = True
    probe = random_vectors(1, scope.size)[0]
    found = removal_gradients(objective, scope, groups)
    full = objective.value_and_gradient(scope)[1]
    for group, gradient in zip(groups, found):
        expected = full - objective.without(group).value_and_gradient(scope)[1]
        torch.testing.assert_close(gradient, expected)
    single = influence(objective, scope, probe[None]).value("exact").mean(0)[0]
    torch.testing.assert_close(found[0] @ probe, single[7])
    assert abs(found[1] @ probe - single[batch[:6]].sum()) > 1e-6


def test_removal_step_is_close_to_the_refit_and_a_second_step_closer(fitted):
    objective, _, scope, inverse = fitted
    removed = torch.zeros(60, dtype=torch.bool)
    removed[30:33] = True
    refit = fit_to_rest(objective.without(removed), scope, inverse, 1e-8, 100, gradient_scale=1.0)
    truth = refit.scope.vector() - scope.vector()
    one, solution = removal_step(objective, scope, removed, inverse, 1, 1e-8)
    two, _ = removal_step(objective, scope, removed, inverse, 2, 1e-8)
    assert solution.converged
    assert (one - truth).norm() < 0.5 * truth.norm()
    assert (two - truth).norm() < 0.8 * (one - truth).norm()


def test_damping_shortens_the_steps_but_not_where_they_lead(fitted):
    """It is added to the curvature alone: many damped steps end where the refit does."""
    objective, _, scope, inverse = fitted
    removed = torch.zeros(60, dtype=torch.bool)
    removed[30:33] = True
    refit = fit_to_rest(objective.without(removed), scope, inverse, 1e-8, 100, gradient_scale=1.0)
    truth = refit.scope.vector() - scope.vector()
    one, many = (removal_step(objective, scope, removed, inverse, steps, damping=0.1)[0] for steps in (1, 40))
    assert one.norm() < 0.9 * removal_step(objective, scope, removed, inverse)[0].norm()
    assert (many - truth).norm() < 0.02 * truth.norm()


@pytest.mark.parametrize("kind", ["clip", "siglip"])
@pytest.mark.parametrize("damping", [0.0, 0.4])
def test_a_removal_step_solves_with_the_curvature_of_what_is_left(kind, damping):
    objective, head = make_objective(kind, pairs=12, batch_size=6)
    removed = torch.arange(12) < 4
    kept = objective.without(removed)
    dense = dense_gauss_newton(kept, head, kind) + damping * torch.eye(head.size, dtype=torch.float64)
    gradient = objective.value_and_gradient(head)[1] - kept.value_and_gradient(head)[1]
    step, solution = removal_step(objective, head, removed, torch.clone, tolerance=1e-10, damping=damping)
    assert solution.converged
    torch.testing.assert_close(step, torch.linalg.solve(dense, gradient), rtol=1e-6, atol=1e-9)


def test_removing_everything_is_refused(fitted):
    objective, _, scope, inverse = fitted
    everything = torch.ones(60, dtype=torch.bool)
    for removal in (
        objective.without,
        lambda E: removal_gradients(objective, scope, E[None]),
        lambda E: removal_step(objective, scope, E, inverse),
    ):
        with pytest.raises(ValueError, match="fewer than two"):
            removal(everything)
