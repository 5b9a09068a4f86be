"""Replicates against rows that are really drawn anew, and what intervals, p-values and debiased divergences promise."""

import pytest
import torch

from fiftyone_ecif.shift import Comparison, Plan, TensorVectors
from fiftyone_ecif.shift import resampling as module
from fiftyone_ecif.shift.resampling import bootstrapped, group_moments, permuted, with_interval


def normal(count, dim=6, seed=0, shift=0.0):
    rows = torch.randn(count, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    rows[:, 0] += shift
    return rows


def compared(first, second, resamples=50, seed=0, weighting="mean"):
    pair = TensorVectors(first), TensorVectors(second)
    plan = Plan.of((len(first), len(second)), first.shape[1], resamples, seed)
    moments = group_moments(pair, plan.groups)
    weight = Comparison.of(*pair, weighting).weight
    return plan, bootstrapped(moments, plan.drawn, weight), permuted(moments, plan.dealt, weight)


def rows_of(group, weights):
    """The rows that a weighting of groups stands for, each as often as its group."""
    return torch.cat([(group == number).nonzero().squeeze(1).repeat(times) for number, times in enumerate(weights)])


@pytest.mark.parametrize("single_rows", [4096, 100])
@pytest.mark.parametrize("dim", [6, 500])
def test_replicates_are_divergences_of_the_rows_that_were_drawn(monkeypatch, single_rows, dim):
    monkeypatch.setattr(module, "SINGLE_ROWS", single_rows)
    first, second = normal(130, dim), normal(70, dim, seed=1, shift=1.0)
    plan, bootstrap, permutations = compared(first, second, resamples=3)
    assert (plan.groups[0].max() + 1 == 130) == (single_rows == 4096)
    for number in range(3):
        drawn = [rows_of(group, times[number].tolist()) for group, times in zip(plan.groups, plan.drawn)]
        expected = Comparison.of(TensorVectors(first[drawn[0]]), TensorVectors(second[drawn[1]])).value
        assert float(bootstrap[number]) == pytest.approx(expected, abs=1e-10)
        dealt = plan.dealt[number].int().split([times.shape[1] for times in plan.drawn])
        sides = []
        for chosen in (dealt, [1 - part for part in dealt]):
            picked = [rows_of(group, part.tolist()) for group, part in zip(plan.groups, chosen)]
            sides.append(torch.cat([first[picked[0]], second[picked[1]]]))
        expected = Comparison.of(*map(TensorVectors, sides)).value
        assert float(permutations.dealt[number]) == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("counts", [(130, 70), (3, 200), (90, 2000)])
def test_groups_are_of_one_size_and_few_rows_are_left_out(monkeypatch, counts):
    monkeypatch.setattr(module, "SINGLE_ROWS", 100)
    plan = Plan.of(counts, 6, 4)
    sizes = torch.cat([torch.bincount(group[group >= 0]) for group in plan.groups])
    assert len(sizes.unique()) == 1 and all(len(group) == n for group, n in zip(plan.groups, counts))
    assert all(len(draws) == 4 and (draws.sum(1) == draws.shape[1]).all() for draws in plan.drawn)
    for group, count, other in zip(plan.groups, counts, reversed(counts)):
        kept = min(count, module.MOST_UNEQUAL * other)
        assert kept - int(sizes[0]) < int((group >= 0).sum()) <= kept


def test_no_shift_is_told_from_a_shift():
    p_values = [compared(normal(60, seed=seed), normal(40, seed=100 + seed))[2].p_value for seed in range(30)]
    assert sum(p <= 0.1 for p in p_values) <= 7 and min(p_values) >= 1 / 51
    assert max(p_values) > 0.7
    assert compared(normal(60), normal(40, seed=1, shift=2.0))[2].p_value == pytest.approx(1 / 51)


@pytest.mark.parametrize("shift", [0.0, 0.7, 1.5])
def test_the_debiased_divergence_of_few_rows_is_nearer_to_that_of_many(shift):
    dim = 40
    truth = Comparison.of(TensorVectors(normal(40_000, dim)), TensorVectors(normal(40_000, dim, 1, 3 * shift))).value
    plain, debiased = [], []
    for seed in range(10):
        pair = normal(30, dim, 10 + seed), normal(20, dim, 50 + seed, 3 * shift)
        found = Comparison.of(*map(TensorVectors, pair))
        plain.append(found.value)
        debiased.append(compared(*pair)[2].debiased(found.value, found.ceiling()))
    plain, debiased = torch.tensor(plain), torch.tensor(debiased)
    assert (debiased.mean() - truth).abs() < 0.25 * (plain.mean() - truth).abs()


def test_sets_without_a_common_direction_are_as_far_apart_as_can_be_after_the_adjustment():
    axes = torch.eye(6, dtype=torch.float64)
    pair = axes[:3].repeat(5, 1), axes[3:].repeat(5, 1)
    found = Comparison.of(*map(TensorVectors, pair))
    permutations = compared(*pair)[2]
    assert permutations.dealt.mean() > 0.01
    assert permutations.debiased(found.value, found.ceiling()) == pytest.approx(found.value)


@pytest.mark.parametrize("single_rows", [4096, 100])
def test_debiased_intervals_hold_the_divergence_of_all_rows_most_of_the_time(monkeypatch, single_rows):
    monkeypatch.setattr(module, "SINGLE_ROWS", single_rows)
    truth = Comparison.of(TensorVectors(normal(50_000)), TensorVectors(normal(50_000, seed=1, shift=1.0))).value
    held = 0
    for seed in range(40):
        pair = normal(300, seed=100 + seed), normal(200, seed=200 + seed, shift=1.0)
        _, bootstrap, permutations = compared(*pair, seed=seed)
        found = Comparison.of(*map(TensorVectors, pair))
        interval = permutations.debiased_interval(found.value, found.ceiling(), bootstrap)
        assert interval.low < interval.value < interval.high
        held += interval.low <= truth <= interval.high
    assert 34 <= held <= 40


def test_the_seed_decides_and_no_resamples_give_no_interval():
    pair = normal(30), normal(20, seed=1)
    first, again, other = (compared(*pair, seed=seed)[1] for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)
    _, bootstrap, permutations = compared(*pair, resamples=0)
    assert with_interval(0.5, bootstrap).low is None
    assert permutations.p_value is None and permutations.debiased(0.5, 0.7) is None
    assert permutations.debiased_interval(0.5, 0.7, bootstrap) is None


def test_an_interval_does_not_leave_the_possible():
    assert with_interval(0.1, torch.linspace(0, 1, 100), least=0.0).low == 0.0


def test_a_report_may_cancel():
    def cancel(step, done, total):
        raise KeyboardInterrupt

    plan = Plan.of((5, 5), 6, 3)
    moments = group_moments((TensorVectors(normal(5)), TensorVectors(normal(5))), plan.groups)
    with pytest.raises(KeyboardInterrupt):
        bootstrapped(moments, plan.drawn, 0.5, cancel)
    with pytest.raises(KeyboardInterrupt):
        permuted(moments, plan.dealt, 0.5, cancel)
