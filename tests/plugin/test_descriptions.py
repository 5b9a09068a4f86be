"""Figures are written so that what they are compared for can be seen."""

import pytest

from fiftyone_ecif.plugin.descriptions import before_and_after


@pytest.mark.parametrize(
    ("before", "after", "error", "words"),
    [
        (-12.8534, -12.7986, 0.0008, ("-12.8534", "-12.7986 ± 0.0016")),
        (-0.854, 0.71, 0.023, ("-0.8540", "0.7100 ± 0.046")),
        (3.533, 3.444, None, ("3.533", "3.444")),
        (3.5330001, 3.533, float("nan"), ("3.53300010", "3.53300000")),
        (0.0, 0.0, 0.0, ("0", "0 ± 0")),
    ],
)
def test_two_figures_show_their_difference_and_as_many_decimals_as_their_error(before, after, error, words):
    assert before_and_after(before, after, error) == words
