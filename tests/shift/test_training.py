import math

import pytest
import torch

from fiftyone_ecif.shift import TensorVectors, club_estimate, train_club
from fiftyone_ecif.shift import training as module


def gaussians(count, dim, correlation, seed=0):
    z, noise = torch.randn(2, count, dim, generator=torch.Generator().manual_seed(seed))
    return TensorVectors(z), TensorVectors(correlation * z + math.sqrt(1 - correlation**2) * noise)


def test_a_trained_estimator_finds_how_much_is_shared():
    z, y = gaussians(3000, 2, 0.6)
    club, fit = train_club(z, [y], epochs=25)
    assert fit.informed and fit.rows == 2400 and fit.validation_rows == 600
    unseen = gaussians(20_000, 2, 0.6, seed=1)
    assert club_estimate(club, *unseen) / 2 == pytest.approx(0.36 / 0.64, rel=0.15)


def test_training_ends_when_unseen_rows_gain_nothing_and_says_so():
    z, _ = gaussians(100, 8, 0.0)
    _, y = gaussians(100, 8, 0.0, seed=5)
    club, fit = train_club(z, [y], bounded=False)
    unseen = torch.randperm(100, generator=torch.Generator().manual_seed(0))[:20]
    loss = float(club.surprise(z.gather(unseen), y.gather(unseen)).mean()) / 8
    assert loss == pytest.approx(fit.validation_loss, abs=1e-5)  # the epoch that is told of is the one that is kept
    assert fit.epochs < module.EPOCHS - module.PATIENCE and fit.training_loss < fit.validation_loss
    assert not fit.informed


def test_the_seed_decides_and_the_random_state_of_others_stays():
    z, y = gaussians(60, 3, 0.5)
    before = torch.random.get_rng_state()
    first, again, other = (train_club(z, [y, z], seed=seed, epochs=2)[0] for seed in (0, 0, 1))
    assert torch.equal(before, torch.random.get_rng_state())
    assert torch.equal(first.p_mu[0].weight, again.p_mu[0].weight)
    assert not torch.equal(first.p_mu[0].weight, other.p_mu[0].weight)


def test_a_report_may_cancel_and_few_rows_are_refused():
    def cancel(step, done, total):
        raise KeyboardInterrupt

    z, y = gaussians(60, 3, 0.5)
    with pytest.raises(KeyboardInterrupt):
        train_club(z, [y], progress=cancel)
    few = gaussians(5, 3, 0.5)
    with pytest.raises(ValueError, match="at least 10 rows"):
        train_club(few[0], [few[1]])
