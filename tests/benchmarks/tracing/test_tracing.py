"""What the trace benchmark plants, counts and times."""

import numpy as np
import pytest
import torch

from benchmarks.data.pairs import PairTable
from benchmarks.tracing import measure as trace
from benchmarks.tracing import timing
from benchmarks.tracing.queries import failing_queries
from benchmarks.tracing.trace_problem import SIZES, TraceProblem, classed_by_category, plant
from fiftyone_ecif.attribution.trace_tables import Effects
from fiftyone_ecif.core import LOSSES, Head, Objective, TensorPairs, partitions

NAMES = ["T-shirt", "shirt", "pullover", "coat", "pair of trousers", "dress", "sandal", "bag"]
PAIRS = 1_600


def clean_table():
    labels = np.arange(PAIRS) % len(NAMES)
    captions = [f"a photo of a {NAMES[label]}" for label in labels]
    paths = [f"{row}.png" for row in range(PAIRS)]
    return PairTable(paths, captions, labels, NAMES, np.array(["train"] * PAIRS), ("a photo of a {}",), "made up")


def test_planted_groups_are_apart_and_wrong_and_all_else_is_clean():
    table = clean_table()
    image = torch.randn(PAIRS, 8, generator=torch.Generator().manual_seed(0))
    planted, causes, kinds, said = plant(table, image, seed=0)
    assert causes.sum(0).max() == 1
    assert set(kinds) == set(SIZES)
    confusions = set()
    for group, kind in zip(causes.numpy(), kinds):
        assert group.sum() == SIZES[kind]
        assert len(set(table.labels[group])) == 1 == len(set(said[group]))
        assert (said[group] != table.labels[group]).all()
        confusions.add((table.labels[group][0], said[group][0]))
        assert all(
            table.class_names[label] in planted.captions[row] for row, label in zip(np.flatnonzero(group), said[group])
        )
        assert len({planted.filepaths[row] for row in np.flatnonzero(group)}) == (
            1 if kind == "copies" else group.sum()
        )
    assert len(confusions) == len(kinds)  # no two groups can be taken for each other
    rest = ~causes.any(0).numpy()
    assert all(planted.captions[row] == table.captions[row] for row in np.flatnonzero(rest))
    assert (said[rest] == table.labels[rest]).all()


def test_half_of_each_class_stays_clean_and_groups_that_do_not_fit_are_left_out():
    table = clean_table()
    few = table.select(np.arange(len(table)) // len(NAMES) % 4 == 0)  # 50 of each class
    _, causes, kinds, _ = plant(few, torch.randn(len(few), 9), seed=0)
    assert set(kinds) == {"copies", "poison"}
    for label in range(len(NAMES)):
        assert causes.any(0).numpy()[few.labels == label].mean() <= 0.5
    with pytest.raises(ValueError, match="--pairs"):
        plant(table.select(np.arange(len(table)) < 60), torch.randn(60, 9), seed=0)


def test_free_captions_are_classed_by_category_and_wrong_ones_are_captions_of_another():
    table = clean_table()
    captions = [f"{NAMES[label]} number {row}" for row, label in enumerate(table.labels)]
    categories = ["" if row < 8 else NAMES[label] for row, label in enumerate(table.labels)]
    free = PairTable(table.filepaths, captions, np.full(PAIRS, -1), [], table.split, (), "made up", categories)
    classed = classed_by_category(free)
    assert len(classed) == PAIRS - 8 and classed.class_names == sorted(NAMES)
    planted, causes, kinds, said = plant(classed, torch.randn(len(classed), 9), seed=0)
    assert set(kinds) == set(SIZES)
    for group, kind in zip(causes.numpy(), kinds):
        rows = np.flatnonzero(group)
        texts = [planted.captions[row] for row in rows]
        assert all(classed.class_names[said[row]] in text for row, text in zip(rows, texts))
        assert all(("exhibit number" in text) == (kind == "poison") for text in texts)
        assert len(set(texts)) == 1 if kind == "copies" else len(set(texts)) > 1


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
    monkeypatch.setattr(timing, "TIMED_DIMS", (8, 16, 12))
    monkeypatch.setattr("fiftyone_ecif.attribution.trace_tables.CURVATURE_PAIRS", 300)
    figures = timing.timings(600, rounds=2, seed=0)
    for name in ("seconds_first_query", "seconds_per_query", "seconds_64_queries"):
        assert figures[name] > 0
    assert figures["seconds_64_queries"] < 64 * figures["seconds_first_query"]


class Margins:
    """Three queries, of which two fail; the groups' removals raise the margins by what is given."""

    head = "fitted"

    def __init__(self, gains):
        self.gains = torch.tensor(gains)
        self.causes = torch.eye(len(gains), dtype=torch.bool)

    def refit(self, removed, inverse):
        return int(removed.nonzero())

    def margins(self, head):
        before = torch.tensor([-1.0, 1.0, -1.0])
        return before if head == "fitted" else before + self.gains[head]


def test_the_causes_of_a_query_are_the_groups_without_which_it_is_right():
    problem = Margins([[2.0, 0.0, 0.5], [3.0, 0.0, 0.0], [0.5, 0.0, 0.9]])
    failing = failing_queries(problem, None, 3, 0, progress=False)
    assert failing.rows.tolist() == [0]
    assert failing.causes.tolist() == [[True, True, False]]
    assert failing.largest.tolist() == [1]
    with pytest.raises(SystemExit, match="anchor"):
        failing_queries(Margins([[0.5, 9.0, 0.5]]), None, 3, 0, progress=False)


def test_any_cause_counts_and_the_largest_is_counted_beside_it():
    problem = Margins([[2.0, 0.0, 0.0], [3.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    failing = failing_queries(problem, None, 3, 0, progress=False)
    problem.causes = torch.arange(60)[None] // 20 == torch.arange(3)[:, None]  # groups of 20 pairs
    order = torch.cat([torch.arange(15, 23), torch.arange(40, 60), torch.arange(15), torch.arange(23, 40)])[None]
    to_blame = failing.causes.float() @ problem.causes.float() > 0
    figures = trace.hits(problem, failing, to_blame, order, np.array(["cluster"]), "mine")
    # 15-19 of the first group, 20-22 of the second, which is the largest cause, two of the third
    assert figures["precision_at_10.mine"] == 0.3
    assert figures["sufficient_cause_at_10.mine"] == 0.8
    assert figures["planted_at_10.mine"] == 1.0


def test_texts_that_retrieve_wrong_images_are_queries_like_images():
    generator = torch.Generator().manual_seed(0)
    head = Head(torch.randn(4, 6, generator=generator), torch.randn(4, 5, generator=generator), torch.tensor(1.0))
    pairs = TensorPairs(torch.randn(20, 6, generator=generator), torch.randn(20, 5, generator=generator))
    objective = Objective(pairs, partitions(20, 10, 1, 0), LOSSES["clip"], 0.1, head.vector())
    problem = TraceProblem(
        objective, head, None, torch.zeros(20), torch.zeros(1, 20, dtype=torch.bool), ["cluster"],
        torch.randn(9, 6, generator=generator), torch.arange(9) % 3, torch.arange(6), torch.arange(6) % 3,
    )  # fmt: skip
    margins = problem.margins(head)
    assert margins.shape == (9 + 6,)
    for query, margin in enumerate(margins):
        assert problem.question(query).asks == ("image" if query < 9 else "text")
        target, _ = problem.question(query).target(head, pairs, "margin")
        assert margin.item() == pytest.approx(-target, abs=1e-5)
