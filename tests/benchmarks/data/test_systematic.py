"""Recurring errors are planted where the record says, and nowhere else."""

import numpy as np
import pytest

from benchmarks.data.pairs import PairTable
from benchmarks.data.systematic import ERROR_KINDS, FOLDERS, exchange, plant_errors
from benchmarks.detection.slices import f1, figures_of, plan, summed_up
from fiftyone_ecif.detect.error_slices import FoundSlice

COUNT = 400


def drawings() -> PairTable:
    """Captions with a word that says the category, and one that does not."""
    generator = np.random.default_rng(0)
    things = {"animals": ["horse", "tiger", "sheep"], "food": ["bread", "apple", "honey"], "tools": ["hammer", "spade"]}
    category = generator.choice(list(things), COUNT)
    captions = [f"{generator.choice(things[each])} number {row}" for row, each in enumerate(category)]
    return PairTable(
        [f"/images/{row}.png" for row in range(COUNT)], captions, np.full(COUNT, -1), [], np.full(COUNT, "train"), (),
        "made up", category.tolist(),
    )  # fmt: skip


@pytest.mark.parametrize("kind", ERROR_KINDS)
def test_what_is_recorded_is_wrong_and_the_rest_is_as_it_was(kind):
    table = drawings()
    planted = plant_errors(table, table.categories, [(kind, 40)], seed=3)
    ((found, rows),) = planted.errors
    changed = [row for row in range(COUNT) if planted.table.captions[row] != table.captions[row]]
    assert found == kind and len(set(rows)) == len(rows) >= 20
    assert set(changed) == set(rows) | set(planted.random) and not set(rows) & set(planted.random)
    assert len(planted.random) == round(0.05 * COUNT)
    folders = [path.rsplit("/", 1)[0] for path in planted.table.filepaths]
    assert len(set(folders)) == FOLDERS
    if kind == "folder":
        (folder,) = {folders[row] for row in rows}
        assert len(rows) / folders.count(folder) == pytest.approx(0.8, abs=0.05)


def test_exchanged_words_keep_the_rest_of_the_caption():
    assert exchange("A Horse, horses and a tiger", "horse", "tiger") == "A tiger, horses and a horse"


def test_an_error_is_found_by_agreement_and_other_slices_are_counted():
    table = drawings()
    planted = plant_errors(table, table.categories, [("template", 40)], seed=1)
    rows = planted.errors[0][1]
    right = np.setdiff1d(np.arange(COUNT), np.r_[rows, planted.random])
    found = [FoundSlice("words", "half", rows[:20], 1.0, 9.0), FoundSlice("words", "none", right[:10], 1.0, 9.0)]
    figures = figures_of(planted, found)
    assert figures["errors"][0]["f1"] == pytest.approx(2 * 20 / 60) == f1(rows[:20], rows)
    assert [other["wrong"] for other in figures["others"]] == [0.0]
    figures = figures_of(planted, found[1:])
    assert figures["errors"][0]["f1"] == 0.0
    summary, tables = summed_up([{"data": "made up", "without": None} | figures])
    assert summary["found"] == 0.0 and summary["other_slices_per_set"] == 1.0 and tables["found"].rows[-1][1] == 1


def test_all_kinds_of_errors_are_about_as_frequent():
    kinds = [kind for number in range(20) for kind, _ in plan(number)]
    assert {kind: kinds.count(kind) >= 6 for kind in ERROR_KINDS} == dict.fromkeys(ERROR_KINDS, True)
