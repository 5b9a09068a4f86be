"""The grid of detection cells: which are measured, and how their figures become tables."""

import json
import sys

import pytest

from benchmarks.detection import grid, tables
from benchmarks.detection.cell_data import CellSettings
from benchmarks.detection.figures import ALL_METHODS, CLASS_METHODS
from benchmarks.report.table import Table


def test_the_grid_measures_what_is_missing_and_keeps_the_rest(tiny_data, tmp_path):
    settings = CellSettings("tiny", "uniform", 0.25)
    path = tmp_path / grid.result_name(settings)
    complete = {f"seconds.{name}": 1.0 for name in ALL_METHODS if name not in ("clip_score", "lemon")}
    path.write_text(json.dumps(complete))
    assert grid.missing_methods(settings, tmp_path) == ["clip_score", "lemon"]
    grid.run_cell(settings, tmp_path)
    measured = json.loads(path.read_text())
    assert {"auroc.clip_score", "auroc.lemon", "noise"} <= set(measured)
    assert complete.items() <= measured.items()
    assert grid.missing_methods(settings, tmp_path) == []
    assert grid.missing_methods(settings, tmp_path, again=["lemon"]) == ["lemon"]


@pytest.mark.parametrize("data", ["openclipart", "emoji"])
def test_the_grid_asks_free_captions_for_no_classes(tmp_path, data):
    missing = grid.missing_methods(CellSettings(data, "caption-swap"), tmp_path)
    assert set(missing) == set(ALL_METHODS) - set(CLASS_METHODS)


def test_the_quick_grid_is_a_part_of_the_whole():
    whole = grid.grid(grid.DetectionGrid())
    quick = grid.grid(grid.DetectionGrid(quick=True))
    assert set(quick) < set(whole) and len(whole) == len(set(whole)) == (3 + 3 + 3 + 3) * 4 * 3 * 3


def result(seed, rate, **auroc):
    settings = {"data": "tiny", "regime": "finetuned", "noise": "uniform", "rate": rate, "seed": seed}
    return settings | {f"auroc.{name}": value for name, value in auroc.items()}


def test_tables_show_mean_and_error_over_seeds_and_mark_the_best():
    results = [result(seed, rate, ecif=0.8 + 0.1 * seed, lemon=0.7) for seed in (0, 1, 2) for rate in (0.1, 0.2)]
    table = tables.method_table(results, ("data", "rate"), "auroc", ["ecif", "lemon", "clip_logits"])
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.markdown().splitlines()]
    assert rows[0] == ["data", "rate", "ecif", "lemon", "clip_logits"]
    assert rows[2] == ["tiny", "10%", "**0.900 ± 0.058**", "0.700 ± 0.000", ""]
    assert rows[-1] == ["tiny, all", "", "**0.900 ± 0.058**", "0.700 ± 0.000", ""]


def test_the_error_is_over_seeds_not_over_cells():
    results = [result(seed, rate, ecif=rate) for seed in (0, 1) for rate in (0.1, 0.3)]
    assert tables.over_seeds(results, "auroc", "ecif") == pytest.approx((0.2, 0.0))


def test_with_one_seed_there_is_no_error():
    assert tables.over_seeds([result(0, 0.1, ecif=0.9)], "auroc", "ecif") == [0.9, None]


def test_the_overview_names_the_best_baseline_of_each_data_set(tmp_path, monkeypatch, capsys):
    measured = result(0, 0.2, ecif=0.9, clip_score=0.7, lemon=0.8) | {"ap.ecif": 0.6, "ap.clip_score": 0.5}
    measured |= {"ap.lemon": 0.4, "ece": 0.01}
    monkeypatch.setattr(grid, "run", lambda cells, folder, again, workers: None)
    (tmp_path / "digits-uniform-0.2-finetuned-seed0.json").write_text(json.dumps(measured | {"data": "digits"}))
    path = tmp_path / "result.json"
    monkeypatch.setattr(sys, "argv", ["grid", "--quick", "--folder", str(tmp_path), "--json", str(path)])
    grid.main()
    written = json.loads(path.read_text())
    assert written["figures"] == {"cells": 1} and written["settings"]["quick"]
    overview = Table.from_json(written["tables"]["overview"])
    assert overview.columns == ["", "digits"]
    assert overview.rows == [
        ["ecif", "0.900 / 0.600"],
        ["best baseline by AUROC", "0.800 / 0.400 (lemon)"],
        ["clip_score", "0.700 / 0.500"],
    ]
    assert "0.800 / 0.400 (lemon)" in capsys.readouterr().out
    assert Table.from_json(written["tables"]["own"]).rows[-1][:4] == ["all", None, None, [0.01, None]]
