"""One computation for every scope: deep scopes through the engine against the head through it."""

from dataclasses import replace

import pytest
import torch

from fiftyone_ecif.attribution import Attributed, Settings, compute
from fiftyone_ecif.attribution.folds import Folds
from fiftyone_ecif.core import LOSSES, Objective, TensorPairs, partitions
from fiftyone_ecif.core.pairs import Subset
from fiftyone_ecif.models import lora_scope, parameter_scope
from tests.support.models import HEAD_NAMES, families, inputs, make_model, seeded  # noqa: F401

SETTINGS = Settings(rounds=2, batch_size=8, anchor=1.0, tolerance=1e-6)


@pytest.fixture
def problem(make_model):  # noqa: F811
    """A tiny model, 24 pairs and 8 target pairs as features and as inputs of the towers, float64."""
    model = make_model("vit")
    model.model.double()
    with torch.no_grad():
        model.model.logit_scale.fill_(1.5)
    raw = [TensorPairs(*inputs(model, 24)), TensorPairs(*inputs(model, 8, seed=9))]
    features = [TensorPairs(model.image_features(p.image).double(), model.text_features(p.text).double()) for p in raw]
    return model, model.head().to(dtype=torch.float64), raw, features


@pytest.mark.parametrize("with_target", [True, False])
def test_the_last_projections_inside_the_towers_score_as_the_head(problem, with_target):
    model, head, raw, features = problem
    target, raw_target = (features[1], raw[1]) if with_target else (None, None)
    attributed = Attributed(parameter_scope(model, HEAD_NAMES, 5), raw[0], raw_target, fit_steps=30, probes=0)
    by_head = compute(replace(Attributed.of_head(head, features[0], target), folds=3, splits=1), "clip", SETTINGS)
    by_towers = compute(attributed, "clip", SETTINGS)
    for name in ("value", "value_positive", "value_negative", "value_std"):
        mine, theirs = (getattr(outcome.scores, name) for outcome in (by_towers, by_head))
        torch.testing.assert_close(mine, theirs, rtol=0, atol=2e-3 * theirs.abs().max().item())
    assert len(by_towers.scopes) == len(by_towers.solutions) == len(by_towers.reports) == (1 if with_target else 3)
    if not with_target:  # each fit is judged by the loss of the fold that it left out
        others = Subset(raw[0], Folds.of(24, 3, SETTINGS.seed).held_out(0))
        rounds = partitions(len(others), SETTINGS.batch_size, SETTINGS.rounds, SETTINGS.seed + 2)
        expected = Objective(others, rounds, LOSSES["clip"]).value(by_towers.scopes[0])
        assert by_towers.reports[0].target_loss == pytest.approx(expected)


def test_adapters_are_scored_with_a_bounded_fit_that_says_where_it_ended(problem):
    model, head, raw, features = problem
    scope = lora_scope(model, raw[0], rank=2, training_steps=5, batch_size=8)
    attributed = Attributed(scope, *raw, fit_steps=1, probes=8)
    settings = Settings(rounds=2, batch_size=8, anchor=1.0)
    outcome = compute(attributed, "clip", settings)
    again = compute(attributed, "clip", settings)
    assert torch.equal(outcome.scores.value, again.scores.value)
    assert outcome.scores.value.isfinite().all() and (outcome.scores.self_influence > 0).all()
    assert outcome.reports[0].fit_steps <= 1
    assert any("did not come to rest" in warning for warning in outcome.warnings)
    assert any("relative standard error is 50%" in warning for warning in outcome.warnings)
    assert outcome.scopes[0].vector().shape == outcome.solutions[0].shape
