"""Neighbours against all similarities, compared and by an index."""

import sys

import pytest
import torch

from fiftyone_ecif.detect import nearest_rows as module
from fiftyone_ecif.detect.nearest_rows import nearest


def clustered(rows=1500, dim=24, centres=30, seed=0):
    """Unit vectors around centres; a third of them are five vectors, over and over."""
    generator = torch.Generator().manual_seed(seed)
    centre = torch.randn(centres, dim, generator=generator)
    found = centre[torch.arange(rows) % centres] + 0.5 * torch.randn(rows, dim, generator=generator)
    found[: rows // 3] = found[torch.arange(rows // 3) % 5]
    return torch.nn.functional.normalize(found, dim=1)


@pytest.fixture(params=["compared", "indexed", "indexed twice"])
def way(request, monkeypatch):
    """The ways to find neighbours: compared with a few rows at a time, by an index, by one whose centres have one."""
    if request.param != "compared":
        pytest.importorskip("faiss")
        monkeypatch.setattr(module, "MOST_COMPARED", 100)
    if request.param == "indexed twice":
        monkeypatch.setattr(module, "CELL", 8)
        monkeypatch.setattr(module, "MOST_CENTRES", 50)
    monkeypatch.setattr(module, "SIMILARITIES", 2**15)
    return request.param


def test_the_most_similar_others_are_found_among_thousands_of_duplicates_too(way):
    rows = clustered()
    found = nearest(rows, 30)
    assert found.shape == (1500, 30) and found.dtype == torch.int64
    assert not (found == torch.arange(1500)[:, None]).any()
    assert all(len(set(row)) == 30 for row in found.tolist())
    similarity = rows @ rows.T
    similarity.fill_diagonal_(-2)
    least = similarity.topk(30, dim=1).values[:, -1:]
    share = (similarity.gather(1, found) >= least - 1e-5).float().mean()
    assert share == 1 if way == "compared" else share > 0.95


def test_ties_are_broken_anew_for_each_row_and_the_same_way_again(way):
    rows = clustered()
    found = nearest(rows, 10)
    assert torch.equal(found, nearest(rows, 10)) and not torch.equal(found, nearest(rows, 10, seed=1))
    chosen = torch.bincount(found[:500:5].flatten(), minlength=1500)  # the first vector is there 100 times
    assert chosen.sum() == chosen[:500:5].sum() == 1000
    assert (chosen[:500:5] > 0).float().mean() > 0.8, "no few of the equal rows are everyone's neighbours"


def test_without_an_index_many_rows_are_compared_with_a_word(monkeypatch):
    rows = clustered(200)
    expected = nearest(rows, 5)
    monkeypatch.setattr(module, "MOST_COMPARED", 100)
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.warns(UserWarning, match=r"fiftyone-ecif\[faiss\]"):
        assert torch.equal(nearest(rows, 5), expected)
