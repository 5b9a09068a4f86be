"""Traces from tables against solving for every query."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch

from fiftyone_ecif.attribution.trace_tables import TraceTables, _on_threads, doubt, in_company
from fiftyone_ecif.core import (
    LOSSES,
    Head,
    Objective,
    TensorPairs,
    conjugate_gradients,
    influence,
    partitions,
    silent,
)
from fiftyone_ecif.core.query_gradient import OuterProducts, query_gradient

PAIRS = 60


def make_problem(loss, image_size, text_size, size):
    generator = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(*shape, generator=generator)

    image, text = normal(PAIRS, image_size), normal(PAIRS, text_size)
    bias = torch.tensor(-1.0) if loss == "siglip" else None
    head = Head(normal(size, image_size), normal(size, text_size), torch.tensor(1.5), bias)
    rounds = partitions(PAIRS, 20, 3, seed=0)
    objective = Objective(TensorPairs(image, text), rounds, LOSSES[loss], 0.05, head.vector())
    right = torch.arange(6) == 2
    gradients = OuterProducts.join(
        [
            query_gradient(head, normal(1, image_size), text[:6], right)[1],
            query_gradient(head, image[:6], normal(1, text_size), right, "loss")[1],
        ]
    )
    return objective, head, gradients


@pytest.fixture(scope="module", params=["clip", "siglip"])
def problem(request):
    return make_problem(request.param, 9, 7, 5)


def solved(objective, head, gradients):
    return conjugate_gradients(
        lambda x: objective.gauss_newton_product(head, x), gradients.dense(head), torch.clone, 1e-6
    ).vectors


@pytest.mark.parametrize("removal", ["exact", "first_order"])
def test_at_full_rank_values_roles_and_rounds_are_the_solved_ones(problem, removal, tmp_path, monkeypatch):
    objective, head, gradients = problem
    monkeypatch.setattr("fiftyone_ecif.attribution.trace_tables.TOLERANCE", 0.0)
    tables = TraceTables.build(tmp_path / "tables", objective, head, removal)
    traced = tables.values(gradients)
    expected = influence(objective, head, solved(objective, head, gradients))
    scale = expected.value(removal).abs().max().item()
    close = dict(rtol=0, atol=3e-3 * scale)  # the tables are float16
    torch.testing.assert_close(traced.value, expected.value(removal).mean(0), **close)
    pairs = torch.tensor([3, 41, 7])
    effects = traced.effects(1, pairs)
    torch.testing.assert_close(effects.positive, expected.positive.mean(0)[1, pairs], **close)
    torch.testing.assert_close(effects.negative, expected.negative(removal).mean(0)[1, pairs], **close)
    torch.testing.assert_close(effects.value, traced.value[1, pairs])
    torch.testing.assert_close(effects.by_round, expected.value(removal)[:, 1, pairs], **close)


def test_a_query_s_trace_does_not_depend_on_the_queries_beside_it_or_on_reopening(problem, tmp_path):
    objective, head, gradients = problem
    tables = TraceTables.build(tmp_path / "tables", objective, head, "exact")
    together = tables.values(gradients).value
    image, text = objective.pairs.gather(torch.arange(4))
    one = query_gradient(head, image[:1], text, torch.arange(4) == 1)[1]
    joined = OuterProducts.join([gradients, one])
    reopened = TraceTables.open(tmp_path / "tables", objective, head, "exact")
    both = torch.cat([together, tables.values(one).value])
    torch.testing.assert_close(reopened.values(joined).value, both, rtol=0, atol=1e-3 * both.abs().max().item())
    assert [path.name for path in tmp_path.iterdir()] == ["tables"]


def test_a_low_rank_is_close_to_the_solved_values(problem, tmp_path, monkeypatch):
    objective, head, gradients = problem
    monkeypatch.setattr("fiftyone_ecif.attribution.trace_tables.TOLERANCE", 0.2)
    monkeypatch.setattr("fiftyone_ecif.attribution.trace_tables.ALWAYS_COMPUTED", 0)
    firm = replace(objective, anchor=4.0 * objective.anchor)
    tables = TraceTables.build(tmp_path / "tables", firm, head, "exact")
    mine = tables.values(gradients).value
    expected = influence(firm, head, solved(firm, head, gradients)).value("exact").mean(0)
    assert len(tables.inverse.vectors) < head.size
    for a, b in zip(mine, expected):
        assert torch.corrcoef(torch.stack([a, b]))[0, 1] > 0.85


def test_a_query_of_few_pairs_is_traced_closely_though_the_tolerance_is_met_early(tmp_path):
    objective, head, gradients = make_problem("clip", 40, 30, 16)
    tables = TraceTables.build(tmp_path / "tables", objective, head, "exact")
    assert len(tables.inverse.vectors) < head.size
    expected = influence(objective, head, solved(objective, head, gradients)).value("exact").mean(0)
    error = (tables.values(gradients).value - expected).norm(dim=1) / expected.norm(dim=1)
    assert error.max() < 0.12


def test_an_interrupted_build_leaves_no_tables(problem, tmp_path):
    objective, head, _ = problem

    def cancel(step, done, total):
        if step == "Trace tables" and done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        TraceTables.build(tmp_path / "tables", objective, head, "exact", progress=cancel)
    with pytest.raises(FileNotFoundError):
        TraceTables.open(tmp_path / "tables", objective, head, "exact")


def test_doubt_is_the_posterior_that_the_text_is_any_text():
    by_head, by_chance = torch.tensor([0.5, 0.1, 1e-4]), 0.1
    found = doubt(-(by_head / by_chance).log())
    torch.testing.assert_close(found, 0.2 * by_chance / (0.2 * by_chance + 0.8 * by_head))
    assert doubt(torch.tensor([-60.0, 60.0])).tolist() == pytest.approx([0.0, 1.0])


def test_blame_is_shared_with_the_nearest_images_to_blame(monkeypatch):
    monkeypatch.setattr("fiftyone_ecif.attribution.trace_tables.SUSPECTS", 5)
    monkeypatch.setattr("fiftyone_ecif.attribution.trace_tables.COMPANY", 2)
    # Three pairs of one place, two of another far away, one that is no suspect, one that helps, one not to be named.
    blame = torch.tensor([-4.0, -5.0, -6.0, -7.0, -1.0, -0.5, 2.0, torch.nan])
    places = torch.tensor([[1.0, 0.0], [0.99, 0.14], [0.98, 0.2], [0.0, 1.0], [-0.1, 0.99]])
    images = torch.cat([places, torch.zeros(3, 2)])
    shared = in_company(blame, lambda rows: images[rows])
    for row, mean in ((0, -5.5), (1, -5.0), (2, -4.5), (3, -3.5), (4, -6.5)):
        assert shared[row].item() == pytest.approx(-((blame[row].item() * mean) ** 0.5))
    assert shared[5:7].tolist() == [-0.5, 2.0] and shared[7].isnan()
    assert shared[:5].max() < shared[5]
    alone = torch.tensor([-1.0, 3.0])
    assert in_company(alone, lambda rows: images[rows]).tolist() == alone.tolist()


def test_values_do_not_depend_on_which_batches_are_computed_together(problem, tmp_path, monkeypatch):
    objective, head, gradients = problem
    rounds = [list(index.split([20, 20, 13, 7])) for (index,) in partitions(PAIRS, PAIRS, 2, seed=0)]
    tables = TraceTables.build(tmp_path / "tables", replace(objective, rounds=rounds), head, "exact")
    together = tables.values(gradients).value
    monkeypatch.setattr("fiftyone_ecif.attribution.trace_tables.CELLS_TOGETHER", 1)
    torch.testing.assert_close(tables.values(gradients).value, together)


@pytest.fixture
def three_threads():
    """Torch computes with three threads, whatever the machine and its environment say."""
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def test_two_passes_at_once_compute_on_all_threads_and_leave_their_number_as_it_was(three_threads):
    first_runs, second_runs, first_ended = (threading.Event() for _ in range(3))
    first_together, second_together = threading.Barrier(3), threading.Barrier(3)
    numbers = []

    def first(part):
        first_together.wait(30)
        first_runs.set()
        assert second_runs.wait(30)
        numbers.append(torch.get_num_threads())

    def second(part):
        second_runs.set()
        second_together.wait(30)
        assert first_ended.wait(30)
        numbers.append(torch.get_num_threads())

    with ThreadPoolExecutor(2) as jobs:
        one = jobs.submit(_on_threads, first, 3, silent)
        assert first_runs.wait(30)
        two = jobs.submit(_on_threads, second, 3, silent)
        one.result()
        first_ended.set()
        two.result()
    assert numbers == [1] * 6
    assert torch.get_num_threads() == 3
    with ThreadPoolExecutor(1) as fresh:
        assert fresh.submit(torch.get_num_threads).result() == 3
