"""LDS and its ceiling say what they promise, on outcomes that are known."""

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from benchmarks.retraining.measure import OURS, ceilings, figures, predicted
from benchmarks.retraining.outcomes import Outcomes, cached_losses, random_halves, training_seed

PAIRS, HALVES, SEEDS, TARGET = 40, 30, 3, 8
QUERIES = [0, 3, 5]


@pytest.fixture(scope="module")
def known():
    """What each pair is worth for each target pair, the outcomes of that, and these with what seeds add by chance."""
    generator = torch.Generator().manual_seed(0)
    worth = torch.randn(TARGET, PAIRS, generator=generator)
    halves = random_halves(PAIRS, HALVES, 0)
    clean = Outcomes(halves, torch.zeros(SEEDS, HALVES, TARGET))
    losses = -(clean.members(PAIRS) @ worth.T).expand(SEEDS, -1, -1)
    noise = 2.0 * torch.randn(losses.shape, generator=generator)
    return worth, Outcomes(halves, losses.clone()), Outcomes(halves, losses + noise)


def asked(worth):
    return torch.cat([worth.mean(0, keepdim=True), worth[QUERIES]])


def test_true_worth_predicts_outcomes_and_its_opposite_the_contrary(known):
    worth, exact, _ = known
    planted = worth.mean(0).numpy() < 0
    found = figures({OURS: asked(worth), "opposite": -asked(worth)}, exact, QUERIES, planted)
    for kind in ("mean", "query"):
        assert found[f"lds_{kind}.{OURS}"] == pytest.approx(1.0)
        assert found[f"lds_{kind}.opposite"] == pytest.approx(-1.0)
        assert found[f"lead_{kind}.opposite"] == pytest.approx(2.0)
    assert [found["ceiling"], found["ceiling_query"]] == pytest.approx([1.0, 1.0])
    assert found[f"auroc.{OURS}"] == 1.0 and found["auroc.opposite"] == 0.0


def test_lds_is_spearmans_correlation_with_the_mean_over_seeds(known):
    worth, _, noisy = known
    scores = asked(worth) + 0.5 * torch.randn(4, PAIRS, generator=torch.Generator().manual_seed(1))
    found = figures({OURS: scores}, noisy, QUERIES, worth[0].numpy() < 0)
    members = noisy.members(PAIRS).numpy()
    truth = noisy.losses.mean(0).numpy()
    sums = [-(members * row.numpy()).sum(1) for row in scores]
    assert found[f"lds_mean.{OURS}"] == pytest.approx(spearmanr(sums[0], truth.mean(1)).statistic, abs=1e-6)
    each = [spearmanr(own, truth[:, query]).statistic for own, query in zip(sums[1:], QUERIES)]
    assert found[f"lds_query.{OURS}"] == pytest.approx(np.mean(each), abs=1e-6)
    pairs = [(0, 1), (0, 2), (1, 2)]
    by_seed = noisy.losses.mean(2).numpy()
    between = np.mean([spearmanr(by_seed[a], by_seed[b]).statistic for a, b in pairs])
    assert found["ceiling"] == pytest.approx(between, abs=1e-6)
    assert 0 < found[f"lds_mean.{OURS}_se"] < 0.3 and 0 < found["ceiling_se"] < 0.3


def test_what_all_pairs_share_predicts_nothing(known):
    worth, exact, _ = known
    members = exact.members(PAIRS)
    assert (members.sum(1) == PAIRS // 2).all()
    one, shifted = predicted(worth, members), predicted(worth + 5.0, members)
    torch.testing.assert_close(shifted - one, torch.full_like(one, -5.0 * PAIRS / 2))


def test_scale_and_shift_of_losses_do_not_matter(known):
    worth, _, noisy = known
    other = Outcomes(noisy.halves, 3.0 * noisy.losses + 7.0)
    scores, planted = {OURS: asked(worth)}, worth[0].numpy() < 0
    first, second = (figures(scores, outcomes, QUERIES, planted) for outcomes in (noisy, other))
    assert first == pytest.approx(second, abs=1e-6)
    measured = np.asarray(noisy.losses)
    assert ceilings(measured) == pytest.approx(ceilings(measured[::-1]))  # nor does the order of the seeds


def test_a_half_depends_on_its_number_alone():
    many, few = random_halves(PAIRS, 9, 4), random_halves(PAIRS, 3, 4)
    assert torch.equal(many[:3], few) and not torch.equal(many, random_halves(PAIRS, 9, 5))
    assert all(len(half.unique()) == PAIRS // 2 for half in many)
    seeds = {training_seed(seed, run, number) for seed in range(3) for run in range(3) for number in range(50)}
    assert len(seeds) == 450


def test_outcomes_are_resumed_where_a_run_stopped(tmp_path):
    trained = []

    def train(numbers, run):
        if len(trained) == 3:
            raise KeyboardInterrupt
        trained.append((run, tuple(numbers)))
        return torch.tensor([[run * 100.0 + number] for number in numbers])

    with pytest.raises(KeyboardInterrupt):
        cached_losses(tmp_path, train, 5, 2, 0, together=2)
    done, trained[:] = list(trained), []
    losses = cached_losses(tmp_path, train, 5, 2, 0, together=2)
    assert done == [(0, (0, 1)), (0, (2, 3)), (0, (4,))] and trained == [(1, (0, 1)), (1, (2, 3)), (1, (4,))]
    assert losses[:, :, 0].tolist() == [[0, 1, 2, 3, 4], [100, 101, 102, 103, 104]]
    assert not list(tmp_path.glob("*.part"))
