"""Pairs as the towers take them, decoded on demand."""

import os

import pytest
import torch
from PIL import Image

from fiftyone_ecif.features import RawPairs, UnreadablePair, embed_pairs, read_image


def test_gather_hands_out_preprocessed_images_and_tokens_in_the_order_asked(model, rows):
    pairs = RawPairs(model, rows)
    index = torch.tensor([7, 0, 3, 7])
    images, tokens = pairs.gather(index)
    expected = torch.stack([model.preprocess(read_image(rows[row].filepath)) for row in index.tolist()])
    torch.testing.assert_close(images, expected, atol=0, rtol=0)
    assert torch.equal(tokens, model.tokenize([rows[row].caption for row in index.tolist()]))
    assert len(pairs) == 12 and pairs.ids == [row.id for row in rows]


def test_the_towers_on_raw_pairs_give_the_stored_features(model, rows, store):
    stored = embed_pairs(model, rows, store)
    images, tokens = RawPairs(model, rows).gather(torch.arange(12))
    image, text = stored.gather(torch.arange(12))
    torch.testing.assert_close(model.image_features(images), image, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(model.text_features(tokens), text, atol=1e-4, rtol=1e-4)


def test_the_cache_stays_within_its_bytes_and_saves_decoding(model, rows, monkeypatch):
    size = model.preprocess(read_image(rows[0].filepath)).nbytes
    pairs = RawPairs(model, rows, cache_bytes=5 * size + 1)
    first = pairs.gather(torch.arange(12))[0]
    read = []
    monkeypatch.setattr("fiftyone_ecif.features.raw.read_image", lambda *file: read.append(file) or read_image(*file))
    torch.testing.assert_close(pairs.gather(torch.arange(12))[0], first, atol=0, rtol=0)
    assert len(read) == 7


def test_images_are_turned_where_that_is_asked_for(model, rows):
    exif = Image.Exif()
    exif[0x0112] = 3
    with Image.open(rows[0].filepath) as image:
        image.save(rows[0].filepath, exif=exif)
    turned = RawPairs(model, [rows[0]._replace(apply_orientation=True)]).gather(torch.tensor([0]))[0]
    upright = read_image(rows[0].filepath, apply_orientation=True)
    torch.testing.assert_close(turned[0], model.preprocess(upright), atol=0, rtol=0)
    assert not torch.equal(turned, RawPairs(model, rows[:1]).gather(torch.tensor([0]))[0])


def test_an_image_that_goes_away_is_named(model, rows):
    pairs = RawPairs(model, rows, cache_bytes=0)
    os.remove(rows[4].filepath)
    with pytest.raises(UnreadablePair, match=r"pair id-4 .*missing"):
        pairs.gather(torch.tensor([4]))
