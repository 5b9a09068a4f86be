"""Removals of a run: restored fits, agreement with values and traces, and warnings."""

from dataclasses import replace

import pytest
import torch

from fiftyone_ecif.attribution import Attributed, FittedPairs, Settings, compute, estimate_removal, verify_removal
from fiftyone_ecif.attribution.objectives import TARGET, mean_loss
from fiftyone_ecif.attribution.trace_tables import TraceTables
from fiftyone_ecif.core import Head, TensorPairs
from fiftyone_ecif.core.query_gradient import query_gradient

SETTINGS = Settings(rounds=2, batch_size=10, anchor=1.0)


@pytest.fixture
def pairs():
    generator = torch.Generator().manual_seed(0)
    shared = torch.randn(40, 4, generator=generator)
    parts = [torch.cat([shared, torch.randn(40, 3, generator=generator)], dim=1) for _ in range(2)]
    return TensorPairs(*parts)


@pytest.fixture
def head():
    generator = torch.Generator().manual_seed(1)
    return Head(*torch.randn(2, 4, 7, generator=generator), torch.tensor(1.5))


def restored(pairs, head, settings=SETTINGS):
    outcome = compute(Attributed.of_head(head, pairs, pairs), "clip", settings)
    attributed = Attributed.of_head(head, pairs, None)
    vector = outcome.scopes[0].vector()
    return outcome, FittedPairs.restore(attributed, vector, "clip", outcome.reports[0].anchor, settings)


def test_a_restored_fit_is_at_rest_where_the_run_left_it(pairs, head):
    outcome, fitted = restored(pairs, head)
    start = fitted.objective.value_and_gradient(head)[1].norm()
    rest = fitted.objective.value_and_gradient(fitted.scope)[1].norm() / start
    assert rest == pytest.approx(outcome.reports[0].fit_relative_gradient, rel=1e-3)
    assert torch.equal(fitted.at_rest().scope.vector(), fitted.scope.vector())


def test_a_whole_batch_can_be_removed_and_everything_cannot(pairs, head):
    _, fitted = restored(pairs, head)
    removed = torch.zeros(40, dtype=torch.bool)
    removed[fitted.objective.rounds[0][0]] = True
    effect = verify_removal(fitted, removed, lambda scope: {"target_loss": fitted.objective.value(scope)})
    assert torch.tensor([*effect.predicted.values(), *effect.measured.values()]).isfinite().all()
    with pytest.raises(ValueError, match="nothing to remove"):
        estimate_removal(fitted, removed & False, lambda scope: {})
    with pytest.raises(ValueError, match="fewer than two"):
        estimate_removal(fitted, removed | True, lambda scope: {})


@pytest.mark.parametrize("damping", [0.0, 4.0])
def test_values_traces_and_removals_say_the_same_of_a_single_pair(pairs, head, damping, tmp_path, monkeypatch):
    monkeypatch.setattr("fiftyone_ecif.attribution.trace_tables.TOLERANCE", 0.0)  # traces at full rank
    settings = replace(SETTINGS, damping=damping, tolerance=1e-6)
    outcome, fitted = restored(pairs, head, settings)
    target = mean_loss(pairs, "clip", settings, TARGET)
    image, text = pairs.gather(torch.arange(6))
    right = torch.arange(6) == 2

    def query(scope):
        return query_gradient(scope, image[:1], text, right, "loss")

    def evaluate(scope):
        return {"target": target.value(scope), "query": query(scope)[0]}

    damped = replace(fitted.objective, anchor=fitted.objective.anchor + damping)
    tables = TraceTables.build(tmp_path / "tables", damped, fitted.scope, settings.removal)
    traced = tables.values(query(fitted.scope)[1]).value[0]
    changes = torch.empty(2, len(pairs))
    for pair in range(len(pairs)):
        effect, _ = estimate_removal(fitted, torch.arange(len(pairs)) == pair, evaluate)
        changes[:, pair] = torch.tensor([effect.predicted[name] - effect.before[name] for name in ("target", "query")])
    for first_order, change in zip((outcome.scores.value, traced), changes, strict=True):
        torch.testing.assert_close(change, first_order, rtol=0, atol=0.1 * first_order.abs().max().item())


def test_refits_minimise_the_objective_without_damping(pairs, head):
    removed = torch.arange(40) < 4
    plain, damped = (
        verify_removal(
            restored(pairs, head, replace(SETTINGS, damping=damping))[1],
            removed,
            lambda scope: {"size": scope.vector().norm().item()},
        )
        for damping in (0.0, 4.0)
    )
    assert damped.measured == plain.measured and damped.before == plain.before
    moved, moved_damped = (effect.predicted["size"] - effect.before["size"] for effect in (plain, damped))
    assert abs(moved_damped) < 0.7 * abs(moved)


def test_what_did_not_converge_is_named_with_what_to_do(pairs, head):
    short = Settings(rounds=1, batch_size=10, anchor=1e-4, max_iterations=1, tolerance=1e-9)
    warnings = " ".join(compute(Attributed.of_head(head, pairs, pairs), "clip", short).warnings)
    assert "The solver stopped at a relative residual of" in warnings and "Set a firmer anchor" in warnings


@pytest.mark.parametrize("wrong", [dict(damping=-1.0), dict(damping=float("inf")), dict(damping=float("nan"))])
def test_a_damping_that_cannot_be_is_refused(wrong):
    with pytest.raises(ValueError, match="damping must be a finite number"):
        Settings(**wrong)
    with pytest.raises(ValueError, match="anchor must be a finite number"):
        Settings(anchor=float("inf"))
