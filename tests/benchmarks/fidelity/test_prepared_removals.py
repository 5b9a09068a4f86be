"""What is prepared for many removals gives what each removal by itself would."""

import pytest
import torch

from benchmarks.fidelity.prepared_removals import PreparedRemovals, RemovalForecast
from fiftyone_ecif.core import removal_gradients
from tests.support.oracle import make_objective

PAIRS = 24


@pytest.fixture(scope="module", params=["clip", "siglip"])
def problem(request):
    return make_objective(request.param, pairs=PAIRS)


def some_groups(objective):
    """One pair, some of a batch, a whole batch of a round, a batch but for one pair."""
    batch = objective.rounds[0][0].tolist()
    groups = torch.zeros(4, PAIRS, dtype=torch.bool)
    for group, members in zip(groups, ([7], batch[:3], batch, batch[1:])):
        group[members] = True
    return groups


def test_a_forecast_is_what_the_removals_gradient_does_along_the_solution(problem):
    objective, head = problem
    solution = torch.randn(head.size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    forecast = RemovalForecast(objective, head, solution)
    for group in some_groups(objective):
        full, kept = (part.value_and_gradient(head)[1] for part in (objective, objective.without(group)))
        assert forecast.change(group) == pytest.approx(((full - kept) @ solution).item())


def test_a_prepared_step_is_the_inverse_times_the_removals_gradient(problem):
    objective, head = problem
    groups = some_groups(objective)
    prepared = PreparedRemovals(objective, head, lambda vectors: 3.0 * vectors)
    torch.testing.assert_close(prepared.steps(groups), 3.0 * removal_gradients(objective, head, groups))


def test_removing_everything_is_refused(problem):
    objective, head = problem
    everything = torch.ones(1, PAIRS, dtype=torch.bool)
    for removal in (
        lambda: RemovalForecast(objective, head, head.vector()).change(everything[0]),
        lambda: PreparedRemovals(objective, head, torch.clone).steps(everything),
    ):
        with pytest.raises(ValueError, match="fewer than two"):
            removal()
