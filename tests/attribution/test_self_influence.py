"""The size of self-influence beside that of the solved one, as a run reports it."""

from dataclasses import replace

import pytest
import torch

from fiftyone_ecif.attribution import Attributed, Settings, compute
from fiftyone_ecif.attribution.objectives import FITTED, mean_loss
from fiftyone_ecif.core import TensorPairs, self_influence
from tests.support.oracle import dense_gauss_newton, make_features, make_head


def dense_ratios(outcome, pairs, settings):
    """Self-influence of all pairs, as scored, over that by the dense inverse at the parameters of the run."""
    head, anchor = outcome.scopes[0], outcome.reports[0].anchor + settings.damping
    objective = replace(mean_loss(pairs, "clip", settings, FITTED), anchor=anchor, origin=head.vector())
    inverse = torch.linalg.inv(dense_gauss_newton(objective, head, "clip"))

    def quadratic(batch, cotangent):
        gradients = batch.pull_back(cotangent)
        return ((gradients @ inverse) * gradients).sum(-1)

    return outcome.scores.self_influence.double() / self_influence(objective, head, quadratic)


@pytest.mark.parametrize("damping", [0.0, 0.5])
def test_the_reported_factor_is_the_median_ratio_to_the_dense_inverse(damping):
    pairs = TensorPairs(*make_features(24))
    settings = Settings(rounds=1, batch_size=12, damping=damping)
    outcome = compute(Attributed.of_head(make_head(), pairs, pairs), "clip", settings)
    ratios = dense_ratios(outcome, pairs, settings)
    factor = outcome.reports[0].self_influence_factor
    assert ratios.quantile(0.25) < factor < ratios.quantile(0.75)
    assert ratios.median() > 1.05  # the factor is not 1


def test_the_factor_of_few_pairs_is_that_of_all_of_them(monkeypatch):
    monkeypatch.setattr("fiftyone_ecif.attribution.score.FACTOR_PAIRS", 100)
    monkeypatch.setattr("fiftyone_ecif.attribution.score.FACTOR_TOLERANCE", 1e-6)
    pairs = TensorPairs(*make_features(24))
    settings = Settings(rounds=1, batch_size=12)
    outcome = compute(Attributed.of_head(make_head(), pairs, pairs), "clip", settings)
    expected = dense_ratios(outcome, pairs, settings).quantile(0.5).item()
    assert outcome.reports[0].self_influence_factor == pytest.approx(expected, rel=1e-4)


def test_a_sample_of_the_curvature_gives_nearly_the_same_factor(monkeypatch):
    """The divisor of a sample is its own: that must not enter the factor."""
    pairs = TensorPairs(*make_features(240))
    settings = Settings(rounds=2, batch_size=12, anchor=1.0)
    factors = []
    for count in (60, 240):
        monkeypatch.setattr("fiftyone_ecif.attribution.score.FACTOR_CURVATURE_PAIRS", count)
        outcome = compute(Attributed.of_head(make_head(), pairs, pairs), "clip", settings)
        factors.append(outcome.reports[0].self_influence_factor)
    assert factors[0] == pytest.approx(factors[1], rel=0.1)


def test_an_estimate_from_random_directions_has_no_factor():
    pairs = TensorPairs(*make_features(24))
    attributed = replace(Attributed.of_head(make_head(), pairs, pairs), probes=4)
    outcome = compute(attributed, "clip", Settings(rounds=1, batch_size=12))
    assert outcome.reports[0].self_influence_factor is None
