"""Results do not depend on how many workers share the passes."""

import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from fiftyone_ecif.attribution import Attributed, compute
from fiftyone_ecif.attribution.objectives import FITTED, TARGET, mean_loss
from fiftyone_ecif.core import HERE
from fiftyone_ecif.core.pairs import Subset
from fiftyone_ecif.engine import engine_workers
from tests.support.workers import SETTINGS, Several, assert_same_scores, attributed


@pytest.mark.parametrize(("count", "probes"), [(2, 0), (5, 3), (50, 0)])
def test_scores_are_the_same_whatever_the_number_of_workers(count, probes):
    made = attributed(probes=probes)
    assert_same_scores(compute(made, "clip", SETTINGS, workers=Several(count)), compute(made, "clip", SETTINGS))


def test_scores_in_bfloat16_rank_as_in_float32():
    made = attributed(600, 16)
    made = replace(made, scope=made.scope.to(dtype=torch.float32))
    full, short = (compute(made, "clip", SETTINGS, score_dtype=dtype).scores for dtype in (None, torch.bfloat16))
    assert short.value.dtype == torch.float32 and not torch.equal(short.value, full.value)
    assert torch.equal(short.self_influence, full.self_influence)
    ranks = torch.stack([found.value.argsort().argsort().double() for found in (full, short)])
    assert torch.corrcoef(ranks)[0, 1] > 0.99


def test_self_influence_of_very_many_pairs_is_estimated_and_said(monkeypatch):
    monkeypatch.setattr("fiftyone_ecif.attribution.settings.PER_PAIR_SELF_INFLUENCE", 59)
    exact = attributed()
    estimated = Attributed.of_head(exact.scope, exact.pairs, None)
    assert estimated.probes == 32
    found, expected = (compute(each, "clip", SETTINGS) for each in (estimated, exact))
    assert [warning for warning in found.warnings if "relative standard error is 25%" in warning]
    assert torch.equal(found.scores.value, expected.scores.value)
    relative = found.scores.self_influence / expected.scores.self_influence - 1
    assert abs(relative.mean()) < 0.1 and 0.15 < relative.std() < 0.35


def test_the_solvers_residual_is_that_of_the_curvature_it_says(monkeypatch):
    """‖H s − b‖ / ‖b‖ with H of as many rounds as hold enough pairs, and b of all of the target's."""
    monkeypatch.setattr("fiftyone_ecif.core.objective.CURVATURE_PAIRS", 30)
    settings = replace(SETTINGS, damping=0.5)
    outcome = compute(attributed(), "clip", settings)
    folds, pairs = attributed().split(0), attributed().pairs
    for number, (scope, solved, report) in enumerate(
        zip(outcome.scopes, outcome.solutions, outcome.reports, strict=True)
    ):
        own, other = Subset(pairs, folds.members(number)), Subset(pairs, folds.held_out(number))
        objective = mean_loss(own, "clip", settings, FITTED)
        one = replace(objective, rounds=objective.rounds[:1], anchor=1.5, origin=scope.vector())
        gradient = mean_loss(other, "clip", settings, TARGET).value_and_gradient(scope)[1]
        residual = (one.gauss_newton_product(scope, solved[None])[0] - gradient).norm() / gradient.norm()
        assert residual.item() == pytest.approx(report.solver_relative_residual, rel=1e-3)
        assert report.solver_relative_residual < settings.tolerance


@pytest.mark.parametrize("count", [1, 2, 3, 7, 1000])
def test_parts_hold_every_batch_once_and_none_is_idle(count):
    objective = mean_loss(attributed().pairs, "clip", SETTINGS, FITTED, Several(count))
    parts = objective.parts
    assert len(parts) == min(count, objective.batch_count)
    sizes = [part.batch_count for part in parts]
    assert sum(sizes) == objective.batch_count and max(sizes) - min(sizes) <= 1
    for number, batches in enumerate(objective.rounds):
        dealt = [index.tolist() for part in parts for index in part.rounds[number]]
        assert sorted(dealt) == sorted(index.tolist() for index in batches)
    assert all(part.workers is HERE for part in parts)


@pytest.fixture
def no_cluster(monkeypatch):
    """Ray counts as installed, and nothing may connect to a cluster."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name == "ray")
    monkeypatch.setitem(sys.modules, "fiftyone_ecif.engine.ray", None)


@pytest.mark.parametrize("number", [0, -1, 2.5, "2"])
def test_a_number_of_workers_that_cannot_be_is_refused_before_anything_is_connected_to(no_cluster, number):
    with pytest.raises(ValueError, match="num_workers must be a whole number of at least 1"):
        engine_workers("ray", number).__enter__()


@pytest.mark.parametrize("device", ["tpu", "cuda:x", "CPU", "", torch.device("cpu")])
def test_a_device_that_workers_cannot_have_is_refused_before_anything_is_connected_to(no_cluster, device):
    with pytest.raises(ValueError, match="device must be 'cpu' or 'cuda'"):
        engine_workers("ray", 2, device).__enter__()


@pytest.mark.parametrize("arguments", [(), (1, "cpu"), (np.int64(2), "cuda"), (None, "cuda:1")])
def test_workers_that_can_be_are_asked_of_the_cluster(no_cluster, arguments):
    with pytest.raises(ImportError):
        engine_workers("ray", *arguments).__enter__()


def test_this_process_has_no_use_for_a_number_of_workers():
    with engine_workers("local", 0, "cuda:1") as workers:
        assert workers is HERE
    with pytest.raises(ValueError, match="engine must be one of local, ray, not 'spark'"):
        engine_workers("spark").__enter__()
