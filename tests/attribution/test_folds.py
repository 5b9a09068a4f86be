"""Values without a target: every pair by the fits that it is part of, against the believed pairs that they left out."""

from dataclasses import replace

import pytest
import torch

from fiftyone_ecif.attribution import Attributed, Settings, compute
from fiftyone_ecif.attribution.folds import BELIEVED_BELOW, LEAST_BELIEVED, Folds, fold_count
from fiftyone_ecif.core import LOSSES, Objective, TensorPairs, partitions
from tests.support.oracle import dense_gauss_newton, make_features, make_head

SETTINGS = Settings(rounds=2, batch_size=9, anchor=1.0, tolerance=1e-8)


def values_by_hand(outcome, pairs, believed, count, splits):
    """(fits, N): value by fit, by dense inverses, pair by pair and role by role; NaN where a fit has not seen it."""
    generator = torch.Generator().manual_seed(SETTINGS.seed)
    folds = [torch.randperm(len(pairs), generator=generator) % count for _ in range(splits)]
    result = torch.full((count * splits, len(pairs)), torch.nan, dtype=torch.float64)
    for number, head in enumerate(outcome.scopes):
        fold, left_out = folds[number // count], (number + 1) % count
        members = [row for row in range(len(pairs)) if fold[row] != left_out]
        target = [row for row in range(len(pairs)) if fold[row] == left_out and believed[row]]
        own, other = (TensorPairs(*pairs.gather(torch.tensor(rows))) for rows in (members, target))

        def objective(some, purpose, rounds, **more):
            batches = partitions(len(some), min(SETTINGS.batch_size, len(some)), rounds, SETTINGS.seed + purpose)
            return Objective(some, batches, LOSSES["clip"], **more)

        fitted = objective(own, 0, 1, anchor=1.0, origin=make_head().vector())
        gradient = objective(other, 2, SETTINGS.rounds).value_and_gradient(head)[1]
        solution = torch.linalg.solve(dense_gauss_newton(fitted, head, "clip"), gradient)
        scored = objective(own, 0, SETTINGS.rounds)
        for place, row in enumerate(members):
            gone = torch.arange(len(own)) == place
            removal = scored.value_and_gradient(head)[1] - scored.without(gone).value_and_gradient(head)[1]
            result[number, row] = solution @ removal
    return result


def test_values_are_those_of_a_slow_loop_over_the_folds():
    pairs = TensorPairs(*make_features(26))
    believed = torch.arange(26) % 5 != 0
    attributed = replace(Attributed.of_head(make_head(), pairs, None), folds=3, splits=2)
    outcome = compute(attributed, "clip", SETTINGS, believed=believed)
    expected = values_by_hand(outcome, pairs, believed, 3, 2)
    assert outcome.fit_rounds == 1 and outcome.folds == 3 and len(outcome.scopes) == 6
    torch.testing.assert_close(outcome.scores.value.double(), expected.nanmean(0), rtol=1e-4, atol=1e-7)
    parts = outcome.scores.value_positive + outcome.scores.value_negative
    torch.testing.assert_close(parts, outcome.scores.value, rtol=1e-4, atol=1e-7)
    assert (outcome.scores.self_influence > 0).all()


def test_every_fit_is_at_rest_on_what_it_did_not_leave_out():
    pairs = TensorPairs(*make_features(26))
    attributed = Attributed.of_head(make_head(), pairs, None)
    outcome, folds = compute(attributed, "clip", SETTINGS), attributed.split(SETTINGS.seed)
    for number, (head, report) in enumerate(zip(outcome.scopes, outcome.reports, strict=True)):
        own = TensorPairs(*pairs.gather(folds.members(number)))
        rounds = partitions(len(own), SETTINGS.batch_size, 1, SETTINGS.seed)
        objective = Objective(own, rounds, LOSSES["clip"], anchor=1.0, origin=make_head().vector())
        start, rest = (objective.value_and_gradient(each)[1].norm() for each in (make_head(), head))
        assert (rest / start).item() == pytest.approx(report.fit_relative_gradient, rel=1e-3)
        assert rest < 0.01 * start


def test_a_target_is_the_believed_pairs_that_a_fit_left_out():
    pairs, believed = TensorPairs(*make_features(30)), torch.arange(30) % 4 != 0
    attributed = Attributed.of_head(make_head(), pairs, None)
    outcome, folds = compute(attributed, "clip", SETTINGS, believed=believed), attributed.split(SETTINGS.seed)
    for number, (head, report) in enumerate(zip(outcome.scopes, outcome.reports, strict=True)):
        rows = [row for row in folds.held_out(number).tolist() if believed[row]]
        target = TensorPairs(*pairs.gather(torch.tensor(rows)))
        loss = Objective(target, partitions(len(rows), min(9, len(rows)), 2, SETTINGS.seed + 2), LOSSES["clip"])
        assert report.target_loss == pytest.approx(loss.value(head), rel=1e-5)


@pytest.mark.parametrize(("pairs", "fits"), [(4, 4), (5, 4), (7, 4), (12, 3), (30, 3), (300, 10)])
def test_few_pairs_are_scored_all_the_same_by_fewer_fits(pairs, fits):
    outcome = compute(Attributed.of_head(make_head(), TensorPairs(*make_features(pairs)), None), "clip", SETTINGS)
    assert len(outcome.scopes) == fits
    assert outcome.scores.value.isfinite().all() and outcome.scores.self_influence.isfinite().all()
    assert (outcome.scores.value_std > 0).all() and 0 <= outcome.ranking_stability <= 1


@pytest.mark.parametrize("count", [2, 3, 7])
def test_every_pair_is_left_out_once_in_a_split_and_two_fits_know_them_all(count):
    folds = Folds.of(41, count, seed=3, splits=2)
    assert folds.fits == 2 * count and not torch.equal(*folds.fold)
    for split in (range(count), range(count, 2 * count)):
        left_out = torch.cat([folds.held_out(number) for number in split])
        assert left_out.sort().values.tolist() == list(range(41))
    for number in range(folds.fits):
        together = torch.cat([folds.members(number), folds.held_out(number)])
        assert together.sort().values.tolist() == list(range(41))
    assert set(folds.members(0).tolist()) | set(folds.members(1).tolist()) == set(range(41))
    sizes = [len(folds.held_out(number)) for number in range(folds.fits)]
    assert max(sizes) - min(sizes) <= 1


def test_two_folds_are_those_of_runs_made_before():
    fold = torch.randperm(41, generator=torch.Generator().manual_seed(5)) % 2
    folds = Folds.of(41, 2, seed=5)
    for number in (0, 1):
        assert torch.equal(folds.members(number), (fold == number).nonzero().squeeze(1))
        assert torch.equal(folds.held_out(number), (fold != number).nonzero().squeeze(1))


def test_a_fold_that_nobody_believes_is_judged_by_its_least_suspected_half():
    folds = Folds.of(40, 2, seed=0)
    suspicion = torch.linspace(0.0, 0.19, 40)
    assert folds.believed(suspicion).all() and BELIEVED_BELOW == 0.2
    rows = folds.held_out(0)
    suspicion[rows] = 0.5 + torch.arange(20).float() / 100
    found = folds.believed(suspicion)
    assert torch.equal(found[rows], torch.arange(20) < 10) and found[folds.held_out(1)].all()
    suspicion[rows[-LEAST_BELIEVED:]] = 0.1  # enough are believed
    assert torch.equal(folds.believed(suspicion)[rows], suspicion[rows] < 0.2)


def test_a_target_of_fewer_than_two_pairs_is_the_whole_fold():
    folds = Folds.of(4, 2, seed=0)
    assert folds.believed(torch.ones(4)).all()  # the half of a fold would be one pair
    assert torch.equal(folds.target(0, torch.zeros(4, dtype=torch.bool)), folds.held_out(0))
    assert torch.equal(folds.target(0, None), folds.held_out(0))


def test_the_number_of_folds_is_bounded_by_the_pairs():
    assert [fold_count(pairs, 7) for pairs in (4, 11, 12, 27, 28, 10**6)] == [2, 2, 3, 6, 7, 7]
    assert fold_count(10**6, 3) == 3
