"""What the trace benchmark plants, counts and times."""

import numpy as np
import pytest
import torch

from benchmarks import trace
from benchmarks.data.pairs import PairTable
from benchmarks.trace_problem import CLUSTER, COPIES, plant
from fiftyone_ecif.engine.trace import Effects

CLASSES = 5
PAIRS = 1_000


def clean_table():
    labels = np.arange(PAIRS) % CLASSES
    names = ["dog", "cat", "car", "tree", "house"]
    captions = [f"a photo of a {names[label]}" for label in labels]
    paths = [f"{row}.png" for row in range(PAIRS)]
    return PairTable(paths, captions, labels, names, np.array(["train"] * PAIRS), ("a photo of a {}",), "made up")


def test_planted_groups_are_apart_and_wrong_and_all_else_is_clean():
    table = clean_table()
    image = torch.randn(PAIRS, 8, generator=torch.Generator().manual_seed(0))
    planted, causes, kinds, said = plant(table, image, seed=0)
    assert causes.sum(0).max() == 1
    sizes = {"cluster": CLUSTER, "copies": COPIES, "poison": 1}
    for group, kind in zip(causes.numpy(), kinds):
        assert group.sum() == sizes[kind]
        assert len(set(table.labels[group])) == 1 == len(set(said[group]))
        assert (said[group] != table.labels[group]).all()
        assert all(
            table.class_names[label] in planted.captions[row] for row, label in zip(np.flatnonzero(group), said[group])
        )
        assert len({planted.filepaths[row] for row in np.flatnonzero(group)}) == (
            1 if kind == "copies" else group.sum()
        )
    rest = ~causes.any(0).numpy()
    assert all(planted.captions[row] == table.captions[row] for row in np.flatnonzero(rest))
    assert (said[rest] == table.labels[rest]).all()


def test_too_few_pairs_to_plant_in_are_refused():
    table = clean_table()
    few = table.select(np.arange(len(table)) % 4 == 0)
    with pytest.raises(ValueError, match="--pairs"):
        plant(few, torch.randn(len(few), 9), seed=0)


def test_signs_agree_where_the_prediction_is_above_its_error():
    def effect(by_round):
        return Effects(torch.zeros(2), torch.zeros(2), torch.zeros(2), torch.tensor(by_round))

    sure, unsure = [[-1.0, 0.0], [-1.1, 0.0]], [[-1.0, 0.0], [1.1, 0.0]]
    effects = [effect(sure), effect(sure), effect(unsure)]
    rows = torch.tensor([[0, 1]] * 3)
    figures = trace.sign_agreement(effects, rows, np.array([0.5, -0.5, 0.5]), "ecif")
    assert figures["fix_sign_counted"] == 2
    assert figures["fix_sign_agreement"] == 0.5


def test_timings_are_taken_on_features_in_files(monkeypatch):
    monkeypatch.setattr(trace, "TIMED_DIMS", (8, 16, 12))
    monkeypatch.setattr("fiftyone_ecif.engine.trace.CURVATURE_PAIRS", 300)
    figures = trace.timings(600, rounds=2, seed=0)
    for name in ("seconds_first_query", "seconds_per_query", "seconds_64_queries"):
        assert figures[name] > 0
    assert figures["seconds_64_queries"] < 64 * figures["seconds_first_query"]


class Margins:
    """Three queries, of which two fail; the groups' removals raise the margins by what is given."""

    head = "fitted"

    def __init__(self, gains):
        self.gains = torch.tensor(gains)
        self.causes = torch.eye(len(gains), dtype=torch.bool)

    def refit(self, removed):
        return int(removed.nonzero())

    def margins(self, head):
        before = torch.tensor([-1.0, 1.0, -1.0])
        return before if head == "fitted" else before + self.gains[head]


def test_the_cause_of_a_query_is_the_group_whose_removal_helps_most():
    queries, causes = trace.failing_queries(Margins([[2.0, 0.0, 0.5], [3.0, 0.0, 0.0]]), 3, 0, progress=False)
    assert (queries.tolist(), causes.tolist()) == ([0], [1])
    with pytest.raises(SystemExit, match="anchor"):
        trace.failing_queries(Margins([[0.5, 9.0, 0.5]]), 3, 0, progress=False)
