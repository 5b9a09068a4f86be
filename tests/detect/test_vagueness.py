"""Vagueness against its definition by loops, and what it says of texts that everybody knows."""

import pytest
import torch

from fiftyone_ecif.detect import vagueness as module
from fiftyone_ecif.detect.vagueness import SHARPNESS, vagueness


def unit(rows):
    return torch.nn.functional.normalize(rows, dim=1)


def random_pairs(pairs, dim=6, seed=0):
    """Embeddings in a narrow cone, as towers give them; every fourth text is the same."""
    generator = torch.Generator().manual_seed(seed)
    image, text = unit(torch.randn(2, pairs, dim, generator=generator).reshape(-1, dim) + 2).chunk(2)
    text[::4] = text[0].clone()
    return image, text


def by_definition(image, text):
    """Cell by cell, in float64."""
    x, y = (unit((part - part.mean(0)).double()) for part in (image, text))
    count, found = len(x), []
    for n in range(count):
        others = [j for j in range(count) if j != n]
        likeness = {j: torch.exp(-SHARPNESS * (y[n] - y[j]).square().sum() / 2) for j in others}
        together = [(i, j) for i in others for j in others if i != j]
        weight = sum(likeness[i] * likeness[j] for i, j in together)
        unlike = sum(likeness[i] * likeness[j] * (x[i] - x[j]).square().sum() / 2 for i, j in together) / weight
        found.append(sum(likeness.values()) / len(others) * min(unlike, torch.tensor(1.0)))
    return torch.stack(found).float()


@pytest.mark.parametrize("pairs", [3, 20])
def test_vagueness_is_its_definition_for_any_chunk(monkeypatch, pairs):
    image, text = random_pairs(pairs)
    expected = by_definition(image.double(), text.double())
    for chunk in (1, 7, 1024):
        monkeypatch.setattr(module, "CHUNK", chunk)
        torch.testing.assert_close(vagueness(image, text), expected, atol=1e-5, rtol=1e-3)


def telling_pairs():
    """300 pairs: 60 with one text and any image, 60 with one text and images that are alike, 180 of their own."""
    generator = torch.Generator().manual_seed(1)
    image, text = torch.randn(2, 300, 32, generator=generator).unbind()
    text[:60] = text[0].clone()
    text[60:120], image[60:120] = text[60].clone(), image[60] + 0.1 * image[60:120]
    return unit(image), unit(text)


def test_a_text_is_vague_if_many_have_it_for_images_that_are_unlike():
    found = vagueness(*telling_pairs())
    empty, shared, own = found[:60], found[60:120], found[120:]
    assert empty.min() > 0.15 and empty.max() < 0.25  # a fifth of the pairs
    assert shared.max() < 0.1 * empty.min() and own.max() < 0.1 * empty.min()


def test_whether_a_text_is_right_does_not_matter():
    image, text = telling_pairs()
    before = vagueness(image, text)
    image[60] = image[200]
    change = (vagueness(image, text) - before).abs()
    assert change[61:120].min() > 10 * change[60]  # the others with the same text see one more unlike image


@pytest.mark.parametrize("sample", [4096, 500])
def test_the_number_of_pairs_and_the_scale_of_the_space_change_little(monkeypatch, sample):
    monkeypatch.setattr(module, "SAMPLE", sample)
    image, text = random_pairs(200)
    few = vagueness(image, text)
    often = vagueness(image.repeat(10, 1), text.repeat(10, 1))[:200]
    cone = vagueness(unit(image + 5), unit(text + 5))
    for other in (often, cone):
        assert torch.corrcoef(torch.stack([few, other]))[0, 1] > 0.9
    assert often.mean().item() == pytest.approx(few.mean().item(), rel=0.3)


def test_equal_texts_equal_images_and_next_to_no_pairs_give_numbers():
    image, text = random_pairs(12)
    assert vagueness(image, text[:1].expand(12, -1)).min() > 0.5  # no text tells any image from any other
    assert vagueness(image[:1].expand(12, -1), text).abs().max() < 1e-4  # there is nothing to tell
    for count in (1, 2):
        assert torch.equal(vagueness(image[:count], text[:count]), torch.zeros(count))
