"""Calibration against made-up scores whose distributions are known."""

import numpy as np
import pytest
from scipy.stats import norm

from fiftyone_ecif.detect.mixture import calibrate

CONFIDENCES = (0.4, 0.6, 0.85)


def made_up(rate, pairs=3000, seed=0, distance=4.0, confidence=1):
    """Right scores around 0, wrong ones at a distance; three beliefs of how right ones look, the middle one true."""
    random = np.random.default_rng(seed)
    wrong = random.random(pairs) < rate
    score = random.normal(size=pairs) + distance * wrong
    right = [random.normal(shift, 1.0, 2000) for shift in (0.5, 0.0, -0.5)]
    references = [random.normal(distance, 1.0, 2000), *(random.normal(at, 1.0, 2000) for at in (3.0, 2.0, 1.0))]
    return score, wrong, right, references


@pytest.mark.parametrize("rate", [0.0, 0.05, 0.3, 0.6])
def test_rate_interval_and_probability_are_those_that_the_scores_were_made_with(rate):
    score, wrong, right, references = made_up(rate)
    found = calibrate(score, right, CONFIDENCES, references, seed=0)
    low, high = found.noise_interval
    assert found.noise_rate == pytest.approx(wrong.mean(), abs=0.03)
    assert low - 0.01 <= wrong.mean() <= high + 0.01
    if rate:
        odds = rate * norm.pdf(score - 4.0) / ((1 - rate) * norm.pdf(score))
        assert np.abs(found.probability - odds / (1 + odds)).mean() < 0.03


def test_probability_never_falls_with_the_score_and_does_not_tie():
    score, _, right, references = made_up(0.2)
    found = calibrate(score, right, CONFIDENCES, references, seed=0).probability[score.argsort()]
    assert (np.diff(found) > 0).all() and found[0] >= 0 and found[-1] <= 1


def test_the_order_of_the_pairs_does_not_matter_nor_does_the_scale_of_the_scores():
    score, _, right, references = made_up(0.2)
    plain = calibrate(score, right, CONFIDENCES, references, seed=0)
    order = np.random.default_rng(1).permutation(len(score))
    turned = calibrate(score[order], right, CONFIDENCES, references, seed=0)
    np.testing.assert_allclose(turned.probability, plain.probability[order])
    scaled = calibrate(7 * score - 3, [7 * part - 3 for part in right], CONFIDENCES, [7 * p - 3 for p in references], 0)
    np.testing.assert_allclose(scaled.probability, plain.probability, atol=1e-6)
    assert turned.noise_interval == plain.noise_interval


def test_where_wrong_pairs_look_like_right_ones_the_interval_is_wide():
    near, far = (
        calibrate(*(lambda s, w, right, references: (s, right, CONFIDENCES, references, 0))(*made_up(0.2, distance=d)))
        for d in (1.0, 4.0)
    )
    (near_low, near_high), (far_low, far_high) = near.noise_interval, far.noise_interval
    assert near_high - near_low > 3 * (far_high - far_low)
    assert near_low <= 0.2 <= near_high


@pytest.mark.parametrize("pairs", [2, 4, 30])
def test_few_pairs_and_equal_scores_stay_in_range(pairs):
    for score in (np.arange(pairs, dtype=float), np.zeros(pairs)):
        found = calibrate(score, [score] * 3, CONFIDENCES, [score + 1] * 4, seed=0)
        assert (
            np.isfinite(found.probability).all() and (found.probability >= 0).all() and (found.probability <= 1).all()
        )
        assert 0 <= found.noise_interval[0] <= found.noise_rate <= found.noise_interval[1] <= 1
