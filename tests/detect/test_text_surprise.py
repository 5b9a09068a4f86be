"""What a text expects, against its definition in loops."""

import pytest
import torch

from fiftyone_ecif.detect import text_surprise as module
from fiftyone_ecif.detect.text_surprise import text_surprise

SCALE = 8.0


def pairs(count, seed=0):
    made = torch.randn(2, count, 6, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(made, dim=2)


def slowly(image, text, n, m, others):
    """−log [Σ_j Q_jm K_nj / mean_j K_nj] over image n and the others, without the own image of text m."""
    kept = [n] + [j for j in others if j not in (n, m)]
    weight = [torch.exp(SCALE * image[j] @ text[m]) for j in kept]
    same = [torch.exp(3.0 * SCALE * (image[n] @ image[j] - 1.0)) for j in kept]
    expected = sum(w * k for w, k in zip(weight, same)) / sum(weight)
    return -torch.log(expected / (sum(same) / len(same)) + 1e-4)


@pytest.mark.parametrize("drawn", [100, 7])
@pytest.mark.parametrize("shift", [0, 5])
def test_it_is_its_definition_over_a_sample_of_the_images(monkeypatch, drawn, shift):
    monkeypatch.setattr(module, "SAMPLE", drawn)
    image, text = pairs(20)
    partner = torch.arange(20).roll(shift)
    others = torch.randperm(20, generator=torch.Generator().manual_seed(3))[:drawn].tolist()
    found = text_surprise(image, text, torch.arange(20), partner, SCALE, seed=3)
    expected = [slowly(image, text, n, partner[n].item(), others) for n in range(20)]
    torch.testing.assert_close(found, torch.stack(expected), rtol=1e-4, atol=1e-4)


def test_it_is_the_same_in_any_chunks_and_for_any_rows(monkeypatch):
    image, text = pairs(30)
    rows, partner = torch.arange(30).flip(0), torch.arange(30).roll(1)
    whole = text_surprise(image, text, rows, partner, SCALE)
    some = torch.tensor([3, 3, 29])
    torch.testing.assert_close(text_surprise(image, text, rows[some], partner[some], SCALE), whole[some])
    monkeypatch.setattr(module, "CHUNK", 7)
    torch.testing.assert_close(text_surprise(image, text, rows, partner, SCALE), whole)


def test_a_text_that_belongs_elsewhere_is_surprised():
    image, _ = pairs(30)
    own = torch.arange(30)
    right, wrong = (text_surprise(image, image, own, partner, SCALE) for partner in (own, own.roll(1)))
    assert right.max() < wrong.median()
