"""Statistics over groups, against the definition item by item."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from benchmarks.report.statistics import (
    RESAMPLES,
    linear_correlation,
    mean_with_error,
    rank_correlation,
    slope,
    with_error,
)


@pytest.fixture
def sides():
    random = np.random.default_rng(5)
    predicted = random.standard_normal((3, 30)).round(1)  # with ties
    return predicted, predicted + random.standard_normal((3, 30))


def test_rank_correlation_is_spearmans_with_ties_row_by_row(sides):
    expected = [spearmanr(first, second).statistic for first, second in zip(*sides, strict=True)]
    assert len(np.unique(sides[0])) < sides[0].size
    np.testing.assert_allclose(rank_correlation(*sides), expected)


def test_what_does_not_vary_correlates_with_nothing(sides):
    constant = np.zeros_like(sides[0])
    assert (linear_correlation(constant, sides[1]) == 0).all()
    assert (rank_correlation(sides[1], constant) == 0).all()


def test_slope_is_one_where_predictions_have_the_right_size(sides):
    np.testing.assert_allclose(slope(sides[0], 1.7 * sides[0]), 1.7)


@pytest.mark.parametrize("statistic", [linear_correlation, rank_correlation, slope])
def test_the_error_is_the_spread_over_resampled_items(sides, statistic):
    predicted, measured = sides[0][0], sides[1][0]
    found = with_error("name", statistic, predicted, measured)
    random = np.random.default_rng(0)
    drawn = [random.integers(30, size=30) for _ in range(RESAMPLES)]
    spread = np.std([statistic(predicted[rows], measured[rows]) for rows in drawn], ddof=1)
    assert found == {"name": pytest.approx(statistic(predicted, measured)), "name_se": pytest.approx(spread)}


def test_the_error_of_a_mean_is_the_standard_one():
    assert mean_with_error("x", np.array([1.0, 3.0])) == {"x": 2.0, "x_se": pytest.approx(1.0)}
