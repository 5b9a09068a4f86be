"""The figures about suggestions, on suggestions made by hand, and the way to them on a cell."""

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.act.suggestions import Suggested, figures_of, suggestion_figures
from benchmarks.detection.cell import Cell
from benchmarks.detection.cell_data import CellSettings, make_cell
from fiftyone_ecif.attribution import Settings
from fiftyone_ecif.detect.pipeline import SuggestedTexts, find_misaligned
from tests.benchmarks.detection.conftest import tiny_data  # noqa: F401


def test_what_is_counted():
    candidates = [{"a": 0.95, "x": 0.01}, {"x": 0.5, "b": 0.3}, {"x": 0.92}, {"x": 0.4}]
    suggested = SuggestedTexts(np.array([0, 1, 3, 4]), candidates, np.array([0.01, 0.1, 0.02, 0.5]))
    wrong = np.array([True, True, True, False, False, False])
    found = figures_of(Suggested(suggested, list("abcdef"), wrong), np.array([True] * 5 + [False]))
    assert found == pytest.approx(
        {
            "suggestions_right": 1 / 3,
            "suggestions_right_in_five": 2 / 3,
            "confident_right": 1 / 2,  # pair 0 is right, pair 3 is not
            "right_captions_replaced": 1 / 3,  # pair 3 of 3, 4 and 5
        }
    )


def test_a_share_of_nothing_is_left_out():
    nothing = SuggestedTexts(np.empty(0, dtype=np.int64), [], np.empty(0))
    found = figures_of(Suggested(nothing, ["a", "b"], np.array([True, False])), np.zeros(2, dtype=bool))
    assert found == {"right_captions_replaced": 0.0}


def test_a_cell_knows_its_right_captions_and_those_of_before_are_told_them(tiny_data, tmp_path):  # noqa: F811
    settings = CellSettings(rate=0.2)
    cell = make_cell(settings, progress=False)
    assert sum(a != b for a, b in zip(cell.captions, cell.originals, strict=True)) == cell.planted.sum()
    path = next(tmp_path.rglob(f"{settings.name}.safetensors"))
    replace(cell, originals=None).save(path)
    assert Cell.load(path).originals is None
    assert make_cell(settings, progress=False).originals == cell.originals
    found, fitted = find_misaligned(cell.pairs, cell.views, cell.head, cell.loss, Settings(batch_size=16))
    measured = suggestion_figures(cell, replace(found, probability=np.full(40, 0.6)), fitted, Settings())
    assert set(measured) >= {"suggestions_right", "suggestions_right_in_five", "right_captions_replaced"}
    with pytest.raises(ValueError, match="right texts are known"):
        suggestion_figures(replace(cell, planted=None), found, fitted, Settings())
