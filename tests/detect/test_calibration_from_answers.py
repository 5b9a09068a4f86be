"""A few answers give an unbiased noise rate whose interval holds, and probabilities that fit it."""

import numpy as np
import pytest
from scipy.special import expit, logit

from fiftyone_ecif.detect.calibration_from_answers import (
    STRATA,
    draw,
    noise_rate,
    recalibration,
    strata_of,
)


def population(true_rate, shift=0.0, pairs=2000, seed=0):
    """Probabilities that are off by a shift of their log odds, and which pairs are wrong."""
    generator = np.random.default_rng(seed)
    right = expit(generator.normal(logit(true_rate) * 2.5, 3.0, pairs))
    return expit(logit(right) + shift), generator.random(pairs) < right


def audit(probability, wrong, size, seed, stratified=True):
    stratum = strata_of(probability) if stratified else np.zeros(len(probability), dtype=int)
    chosen, weight = draw(stratum, np.random.default_rng(seed).random(len(probability)), size)
    return stratum[chosen], weight, np.ones(len(chosen), dtype=bool), wrong[chosen], chosen


@pytest.mark.parametrize("stratified", [True, False])
@pytest.mark.parametrize(("rate", "shift"), [(0.05, 0.0), (0.2, 1.5), (0.4, -1.5)])
def test_the_noise_rate_is_unbiased_and_its_interval_covers_it(rate, shift, stratified):
    probability, wrong = population(rate, shift)
    found = [noise_rate(*audit(probability, wrong, 40, seed, stratified)[:4]) for seed in range(200)]
    rates = np.array([each.rate for each in found])
    assert abs(rates.mean() - wrong.mean()) < 3.0 * rates.std() / np.sqrt(len(rates))
    assert np.mean([each.low <= wrong.mean() <= each.high for each in found]) >= 0.85
    assert np.mean([each.high - each.low for each in found]) < 0.3


def test_strata_make_the_estimate_surer():
    probability, wrong = population(0.2)
    spread = {
        stratified: np.std(
            [noise_rate(*audit(probability, wrong, 40, seed, stratified)[:4]).rate for seed in range(200)]
        )
        for stratified in (True, False)
    }
    assert spread[True] < 0.7 * spread[False]


def test_a_larger_draw_holds_the_smaller_one_and_stands_for_all_pairs():
    probability, _ = population(0.1)
    stratum, number = strata_of(probability), np.random.default_rng(0).random(2000)
    small, large = draw(stratum, number, 20), draw(stratum, number, 55)
    assert set(small[0]) < set(large[0]) and len(set(large[0])) == 55
    assert large[1].sum() == pytest.approx(2000)
    assert np.bincount(stratum[large[0]]).tolist() == [11] * STRATA
    everything = draw(stratum, number, 5000)
    assert sorted(everything[0]) == list(range(2000)) and (everything[1] == 1.0).all()


def test_a_stratum_without_answers_is_put_to_the_next_one():
    stratum, weight = np.array([0, 1, 1, 2]), np.array([50.0, 10.0, 10.0, 5.0])
    answered, wrong = np.array([False, True, True, False]), np.array([True, True, False, True])
    found = noise_rate(stratum, weight, answered, wrong)
    assert (found.answered, found.wrong, found.rate) == (2, 1, 0.5)
    with pytest.raises(ValueError, match="None of the drawn pairs"):
        noise_rate(stratum, weight, np.zeros(4, dtype=bool), wrong)


@pytest.mark.parametrize("shift", [1.5, -1.5])
def test_answers_bring_probabilities_back(shift):
    errors = []
    for seed in range(20):
        probability, wrong = population(0.2, shift, seed=seed)
        _, weight, _, answers, chosen = audit(probability, wrong, 50, seed)
        mended = recalibration(probability[chosen], weight, answers)(probability)
        assert (np.diff(mended[np.argsort(probability)]) >= 0).all()
        errors.append((abs(probability.mean() - wrong.mean()), abs(mended.mean() - wrong.mean())))
    before, after = np.mean(errors, axis=0)
    assert after < 0.5 * before


def test_without_surprise_probabilities_stay_about_as_they_were():
    probability, wrong = population(0.2)
    _, weight, _, answers, chosen = audit(probability, wrong, 40, 1)
    found = recalibration(probability[chosen], weight, answers)
    assert np.abs(found(probability) - probability).mean() < 0.05
    assert found(np.array([0.0, 1.0])).tolist() == [0.0, 1.0]
    few = recalibration(probability[chosen][:1], weight[:1], answers[:1])
    assert np.abs(few(probability) - probability).mean() < 0.1


def test_an_answer_counts_by_how_many_pairs_it_stands_for():
    probability, wrong = np.full(20, 0.5), np.arange(20) < 10
    assert recalibration(probability, np.ones(20), wrong).shift == pytest.approx(0.0, abs=1e-3)
    assert recalibration(probability, np.where(wrong, 5.0, 1.0), wrong).shift > 0.5
