"""Repairs: what is removed, what is corrected, and what a table says of it."""

import pytest

from benchmarks.detection import repair
from benchmarks.detection.cell_data import CellSettings


def test_repairs_train_without_as_many_pairs_as_are_wrong(tiny_data):
    settings = CellSettings("tiny", "uniform", 0.25)
    found = repair.repaired(settings, ("ecif", "clip_score"))
    names = ["nothing", "random", "wrong", "ecif", "clip_score", "ecif_corrected"]
    assert list(found) == [f"heldout.{name}" for name in names]
    assert all(0 <= value <= 100 for value in found.values())
    trained = dict(zip(names, tiny_data[1:], strict=True))  # the first is the cell's own model
    assert [len(trained[name]) for name in names[:-1]] == [40, 30, 30, 30, 30]
    assert len(trained["ecif_corrected"]) >= 30
    clean = [f"a {trained['wrong'].class_names[label]}" for label in trained["wrong"].labels]
    assert trained["wrong"].captions == clean


def test_a_gain_is_over_as_many_pairs_at_random_of_the_same_seed(monkeypatch):
    def repaired(cell, methods):
        return {"heldout.random": 50.0 + 10 * cell.seed, "heldout.ecif": 53.0 + 12 * cell.seed}

    monkeypatch.setattr(repair, "repaired", repaired)
    figures = repair.measure(repair.Repair(seeds=2, methods=("ecif",)))
    assert (figures["heldout.ecif"], figures["heldout.ecif_se"]) == pytest.approx((59.0, 6.0))
    assert (figures["gain.ecif"], figures["gain.ecif_se"]) == pytest.approx((4.0, 1.0))
    table = repair.repair_table(figures)
    assert [row[0] for row in table.rows] == ["as many pairs at random", "ecif"]
    assert table.rows[0][2] is None and table.rows[1][1:] == [[59.0, pytest.approx(6.0)], [4.0, pytest.approx(1.0)]]
