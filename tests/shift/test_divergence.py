"""The divergence, its parts and directions against loops and recomputation."""

import math

import pytest
import torch

from fiftyone_ecif.shift import Comparison, TensorVectors, left_out, top_directions
from fiftyone_ecif.shift import vectors as reading
from fiftyone_ecif.shift.divergence import jensen_shannon, second_moment


def normal(count, dim=6, seed=0, shift=0.0):
    rows = torch.randn(count, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    rows[:, 0] += shift
    return rows


def entropy_by_loops(matrix):
    values = [value for value in torch.linalg.eigvalsh(matrix).tolist() if value > 0]
    return -sum(value / sum(values) * math.log(value / sum(values)) for value in values)


def divergence_by_loops(first, second, weighting):
    """As published: K without division by n for "count", which renormalises each entropy by itself."""
    sums = []
    for rows in (first, second):
        total = torch.zeros(rows.shape[1], rows.shape[1], dtype=torch.float64)
        for row in rows:
            row = row / row.norm()
            total += torch.outer(row, row)
        sums.append(total if weighting == "count" else total / len(rows))
    return entropy_by_loops((sums[0] + sums[1]) / 2) - (entropy_by_loops(sums[0]) + entropy_by_loops(sums[1])) / 2


@pytest.mark.parametrize("weighting", ["mean", "count"])
@pytest.mark.parametrize("counts", [(40, 40), (90, 30), (4, 3)])
def test_divergence_is_its_definition_however_it_is_read(monkeypatch, weighting, counts):
    first, second = normal(counts[0]), normal(counts[1], seed=1, shift=1.0)
    expected = divergence_by_loops(first, second, weighting)
    for together in (7, 8192):
        monkeypatch.setattr(reading, "TOGETHER", together)
        found = Comparison.of(TensorVectors(first), TensorVectors(3 * second), weighting)
        assert found.value == pytest.approx(expected, abs=1e-12)


def test_sizes_matter_to_the_weighting_by_counts_alone():
    first, second = normal(90), normal(30, seed=1, shift=2.0)
    twice = torch.cat([second, second])
    by_mean, by_count = (
        [Comparison.of(TensorVectors(first), TensorVectors(other), weighting).value for other in (second, twice)]
        for weighting in ("mean", "count")
    )
    assert by_mean[0] == pytest.approx(by_mean[1], abs=1e-12)
    assert abs(by_count[0] - by_count[1]) > 1e-3


def test_a_set_is_not_shifted_from_itself_and_strangers_are_apart_by_log_2():
    rows = normal(50)
    assert Comparison.of(TensorVectors(rows), TensorVectors(rows)).value == pytest.approx(0.0, abs=1e-6)
    apart = Comparison.of(TensorVectors(torch.eye(6)[:3]), TensorVectors(torch.eye(6)[3:]))
    assert apart.value == pytest.approx(math.log(2)) == apart.ceiling()
    some = Comparison.of(TensorVectors(torch.eye(6)[:4]), TensorVectors(torch.eye(6)[4:]), "count")
    assert some.value == pytest.approx(some.ceiling())


@pytest.mark.parametrize("weighting", ["mean", "count"])
def test_contributions_make_up_the_divergence(weighting):
    first, second = TensorVectors(normal(60)), TensorVectors(normal(30, seed=1, shift=1.0))
    found = Comparison.of(first, second, weighting)
    parts = found.contributions(first, 0).mean() + found.contributions(second, 1).mean()
    assert float(parts) == pytest.approx(found.value, abs=1e-12)


@pytest.mark.parametrize("weighting", ["mean", "count"])
@pytest.mark.parametrize("side", [0, 1])
def test_leaving_a_row_out_does_what_its_contribution_says(weighting, side):
    rows = [normal(400), normal(300, seed=1, shift=1.0)]
    found = Comparison.of(*map(TensorVectors, rows), weighting)
    predicted = left_out(found.contributions(TensorVectors(rows[side]), side))
    measured = []
    for row in range(len(rows[side])):
        fewer = list(rows)
        fewer[side] = torch.cat([rows[side][:row], rows[side][row + 1 :]])
        moments = [second_moment(TensorVectors(part)).matrix for part in fewer]
        measured.append(found.value - jensen_shannon(*moments, found.weight))
    measured = torch.tensor(measured)
    assert (measured - predicted).abs().max() < 0.05 * measured.abs().max()
    assert torch.corrcoef(torch.stack([measured, predicted]))[0, 1] > 0.999


def test_rows_that_were_shifted_contribute_more_than_those_that_were_not():
    first = normal(500, dim=10)
    second = torch.cat([normal(250, dim=10, seed=1), normal(250, dim=10, seed=2, shift=4.0)])
    found = Comparison.of(TensorVectors(first), TensorVectors(second)).contributions(TensorVectors(second), 1)
    kept, shifted = found[:250], found[250:]
    assert (shifted[:, None] > kept[None]).double().mean() > 0.9


def test_directions_are_where_the_sets_differ_and_name_the_farthest_rows(monkeypatch):
    monkeypatch.setattr(reading, "TOGETHER", 50)
    first, second = normal(400), normal(300, seed=1)
    second[:, 2] *= 4
    pair = TensorVectors(first), TensorVectors(second)
    direction = top_directions(Comparison.of(*pair), *pair, count=2, rows=5)[0]
    assert abs(direction.vector[2]) > 0.95 and direction.side == 1
    squares = (second / second.norm(dim=1, keepdim=True) @ direction.vector).square()
    assert direction.rows == squares.argsort(descending=True)[:5].tolist()
    assert direction.masses[1] == pytest.approx(float(squares.mean()))


def test_few_rows_are_noticed():
    many, few = TensorVectors(normal(10)), TensorVectors(normal(5))
    assert not Comparison.of(many, many).few and Comparison.of(many, few).few


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        (torch.zeros(0, 3), "rows of a matrix"),
        (torch.ones(3), "rows of a matrix"),
        (torch.tensor([[1.0, 0.0], [0.0, 0.0]]), "1 vectors .* row 1"),
        (torch.tensor([[torch.nan, 0.0]]), "not finite"),
    ],
)
def test_vectors_have_a_direction(rows, reason):
    with pytest.raises(ValueError, match=reason):
        TensorVectors(rows)


def test_sets_of_different_encoders_and_unknown_weightings_are_refused():
    with pytest.raises(ValueError, match="6 numbers and the other of 5"):
        Comparison.of(TensorVectors(normal(5)), TensorVectors(normal(5, dim=5)))
    with pytest.raises(ValueError, match="'mean', 'count'"):
        Comparison.of(TensorVectors(normal(5)), TensorVectors(normal(5)), "size")
