"""What a run's fits were fitted on and are judged by, for runs of today and those made before."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

import fiftyone_ecif as ecif
from fiftyone_ecif.attribution.objectives import FITTED, TARGET, anchored, mean_loss
from fiftyone_ecif.core import fit_to_rest
from fiftyone_ecif.core.pairs import Subset
from fiftyone_ecif.dataset.run.fits import fit_settings, fits_of


def as_made_before(results):
    """The same run with the fits of earlier versions: two, each on a half and all rounds, judged by the other half."""
    pairs, settings = results.pairs(), results.settings
    fold = torch.randperm(len(pairs), generator=torch.Generator().manual_seed(settings.seed)) % 2
    head, fitted, anchors = results.given_head, [], []
    for number in (0, 1):
        members = Subset(pairs, (fold == number).nonzero().squeeze(1))
        objective = anchored(mean_loss(members, results.config.loss, settings, FITTED), head, settings)
        fitted.append(fit_to_rest(objective, head, torch.clone).scope.vector())
        anchors.append(objective.anchor)
    tensors = {name: value for name, value in results._tensors.items() if name != "believed"}
    old = {name: value for name, value in results.health.items() if name not in ("fits", "folds", "fit_rounds")}
    kept = {name: getattr(results._stored, name) for name in ("skipped", "labelled", "target_dataset")}
    results.__dict__["_tensors"] = tensors | dict(fitted=torch.stack(fitted))
    results.__dict__["_stored"] = SimpleNamespace(**kept, health=old | dict(anchor=anchors))
    return fold


def test_a_run_without_a_target_has_believed_pairs_for_each_fit(embedded_dataset, stored):
    steps = []
    results = ecif.compute_influence(
        embedded_dataset, **stored | dict(progress=lambda step, done, total: steps.append(step))
    )
    order = list(dict.fromkeys(steps))
    assert order.index("Cross-fit") < order.index("Fit 1 of 3") < order.index("Fit 3 of 3")
    believed, fits = results.misalignment < 0.2, fits_of(results)
    assert len(fits) == results.health["fits"] == results.health["folds"] == 3 and int((~believed).sum()) > 0
    for fit in fits:
        left_out = np.setdiff1d(np.arange(60), fit.members)
        assert set(fit.target.tolist()) <= set(left_out.tolist())
        assert not results.believed[left_out].all() or set(fit.target.tolist()) == set(left_out.tolist())
    assert results.believed[believed].all()
    assert fit_settings(results).rounds == 1 and results.settings.rounds == 2


def test_a_removal_is_judged_by_the_believed_pairs_and_has_an_error(embedded_dataset, stored):
    results = ecif.compute_influence(embedded_dataset, **stored)
    effect = results.estimate_removal(embedded_dataset.limit(5), progress=False)
    assert effect.removed == 5  # not once per fit
    losses = []
    for fit in fits_of(results):
        target = mean_loss(Subset(results.pairs(), fit.target), "clip", results.settings, TARGET)
        losses.append(target.value(results.given_head.replace(fit.vector)))
    assert effect.before["target_loss"] == pytest.approx(np.mean(losses), rel=1e-5)
    assert effect.standard_error.keys() == effect.before.keys()
    assert 0 < effect.standard_error["target_loss"] < 1
    curve = results.forecast_removal(points=2, progress=False)
    assert curve.standard_error["target_loss"][0] == 0 < curve.standard_error["target_loss"][-1]


def test_a_target_of_its_own_has_one_fit_and_no_spread_over_fits(embedded_dataset, stored):
    results = ecif.compute_influence(embedded_dataset[:45], target=embedded_dataset[45:], **stored)
    (fit,) = fits_of(results)
    assert fit.target is None and results.believed is None and torch.equal(fit.members, torch.arange(45))
    assert fit_settings(results) == results.settings
    assert results.estimate_removal(embedded_dataset[:5], progress=False).standard_error == {}


def test_runs_made_before_mean_what_they_meant(embedded_dataset, stored):
    results = ecif.compute_influence(embedded_dataset, **stored)
    fold, pairs = as_made_before(results), results.pairs()
    fits = fits_of(results)
    assert fit_settings(results).rounds == 2
    losses = []
    for number, fit in enumerate(fits):
        assert torch.equal(fit.members, (fold == number).nonzero().squeeze(1))
        assert torch.equal(fit.target, (fold != number).nonzero().squeeze(1))
        objective = mean_loss(Subset(pairs, fit.members), "clip", results.settings, FITTED)
        objective = anchored(objective, results.given_head, results.settings)
        start, rest = (
            objective.value_and_gradient(results.given_head.replace(vector))[1].norm()
            for vector in (results.given_head.vector(), fit.vector)
        )
        assert rest < 0.02 * start
        target = mean_loss(Subset(pairs, fit.target), "clip", results.settings, TARGET)
        losses.append(target.value(results.given_head.replace(fit.vector)))
    effect = results.estimate_removal(embedded_dataset.limit(8), progress=False)
    assert effect.before["target_loss"] == pytest.approx(np.mean(losses), rel=1e-5)


def test_a_trace_takes_two_heads_that_know_every_pair_between_them(embedded_dataset, stored):
    results = ecif.compute_influence(embedded_dataset, **stored)
    failing = ecif.find_failures(embedded_dataset, "ecif", progress=False).first()
    trace = results.trace(failing, k=60, order="value", progress=False)
    study = results.trace_study()
    assert [fit.number for fit in study.fits] == [0, 1]
    assert set(torch.cat([fit.members for fit in study.fits]).tolist()) == set(range(60))
    by_head = torch.tensor(trace._by_head)
    fitted = torch.stack(
        [torch.isin(torch.tensor([study.row[id] for id in trace.ids]), fit.members) for fit in study.fits]
    )
    assert ((by_head != 0) == fitted).all()
    torch.testing.assert_close(torch.tensor(trace.value), by_head.sum(0) / fitted.sum(0), rtol=1e-3, atol=1e-7)
    effect = trace.predicted_effect(4)
    change = by_head[:, :4].sum() / 2  # of the mean margin of two heads
    assert effect.before - effect.predicted == pytest.approx(change.item(), rel=1e-2)
    between = abs(by_head[0, :4].sum() - by_head[1, :4].sum()).item() / 2
    assert effect.standard_error >= between * 0.999
    assert results.load_trace(trace.key).predicted_effect(4) == effect


def test_a_trace_under_the_heads_of_an_earlier_run_judges_each_pair_by_its_own(embedded_dataset, stored):
    results = ecif.compute_influence(embedded_dataset, **stored)
    failing = ecif.find_failures(embedded_dataset, "ecif", progress=False).first()
    as_made_before(results)
    trace = results.trace(failing, k=60, order="value", progress=False)
    by_head = torch.tensor(trace._by_head)
    assert ((by_head != 0).sum(0) == 1).all()
    torch.testing.assert_close(torch.tensor(trace.value), by_head.sum(0), rtol=1e-3, atol=1e-7)
    trace._by_head = []  # as it was kept before
    effect = trace.predicted_effect(3)
    assert effect.before - effect.predicted == pytest.approx(sum(trace.value[:3]) / 2, rel=1e-3)


def test_removing_suspects_that_help_says_why(embedded_dataset, stored):
    results = ecif.compute_influence(embedded_dataset, **stored)
    for id in results.valuable(limit=20).values("id"):  # of so few pairs not each one's removal raises the loss
        best = embedded_dataset.select(id)
        quiet = results.estimate_removal(best, progress=False)
        if quiet.predicted["target_loss"] > quiet.before["target_loss"]:
            break
    assert not any("suspected" in note for note in quiet.warnings)
    rows = [results.ids.index(id) for id in best.values("id")]
    results._tensors["misalignment"][rows] = 0.9  # as though they were
    loud = results.estimate_removal(best, progress=False)
    assert any("although 1 of them are suspected: 1 of these have a positive value" in note for note in loud.warnings)
