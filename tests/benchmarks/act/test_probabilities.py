"""The figures of probabilities, against made-up ones."""

from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks.act.grid import ActGrid, cells, marks
from benchmarks.act.probabilities import probability_figures
from fiftyone_ecif.detect import Misalignment


def figures(planted, probability, rate=0.3, interval=(0.2, 0.4)):
    cell = SimpleNamespace(planted=np.array(planted, dtype=bool))
    return probability_figures(cell, Misalignment(np.array(probability), rate, interval, {}))


def test_they_are_their_definitions():
    found = figures([1, 1, 0, 0, 0], [0.95, 0.9, 0.6, 0.1, 0.1])
    assert found["rate_off"] == pytest.approx(-0.1)
    assert found["rate_covered"] == 1.0
    assert found["precision_at_half"] == pytest.approx(2 / 3)
    assert found["expected_at_half"] == pytest.approx(2.45 / 3)
    assert found["precision_at_90"] == 1.0
    assert found["ece"] == pytest.approx((0.15 + 0.6 + 0.2) / 5)
    assert figures([1, 1, 0, 0, 0], [0.0] * 5, interval=(0.0, 0.3))["rate_covered"] == 0.0


def test_a_share_of_nothing_is_left_out_and_the_truth_must_be_known():
    assert not {"precision_at_half", "precision_at_90"} & set(figures([0, 0], [0.1, 0.2]))
    with pytest.raises(ValueError, match="where wrong pairs are known"):
        probability_figures(SimpleNamespace(planted=None), Misalignment(np.zeros(2), 0.0, (0.0, 0.0), {}))


def test_marks_count_cells_and_those_without_a_figure_do_not_count():
    good = dict(rate_off=0.03, rate_covered=1.0, ece=0.02, precision_at_half=0.9, expected_at_half=0.85)
    bad = dict(rate_off=-0.2, rate_covered=0.0, ece=0.2, precision_at_90=0.9)
    found = marks([good, good, bad])
    assert found["cells"] == 3
    for name in ("rate_within_4_points", "rate_covered", "ece_at_most_5_points"):
        assert found[name] == pytest.approx(2 / 3)
    assert found["half_within_8_points"] == found["precision_at_90_at_least_85"] == 1.0


def test_cells_without_noise_are_measured_once():
    found = cells(ActGrid(data=("emoji",), rates=(0.0, 0.1), seeds=(3,)))
    assert [(cell.noise, cell.rate) for cell in found] == [
        ("caption-swap", 0.0), ("caption-swap", 0.1), ("confusable", 0.1), ("same-category", 0.1)
    ]  # fmt: skip
