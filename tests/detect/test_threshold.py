import numpy as np
import pytest

from fiftyone_ecif.detect import threshold_for


def test_as_many_pairs_as_there_can_be_with_the_wanted_share_of_wrong_ones():
    rng = np.random.default_rng(0)
    probability = rng.random(200).round(2)  # with ties
    for precision in (0.3, 0.6, 0.8, 0.95):
        found = threshold_for(probability, precision)
        assert probability[probability >= found].mean() >= precision
        lower = [t for t in np.unique(probability) if t < found]
        assert all(probability[probability >= t].mean() < precision for t in lower)


def test_no_threshold_where_even_the_first_suspects_are_too_doubtful():
    assert threshold_for(np.array([0.1, 0.7, 0.7]), 0.8) is None
    assert threshold_for(np.array([0.1, 0.7, 0.7]), 0.7) == 0.7


@pytest.mark.parametrize("precision", [0.0, 1.1, float("nan"), -1.0])
def test_a_precision_is_a_share(precision):
    with pytest.raises(ValueError, match="precision"):
        threshold_for(np.array([0.5]), precision)
