"""Embeddings of the user's own are taken as they are, and unusable ones left out with a reason."""

import numpy as np
import pytest
import torch

from fiftyone_ecif.features import stored_embeddings

IDS = ["a", "b", "c", "d"]


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    return rng.normal(size=(4, 6)), rng.normal(size=(4, 5)).astype(np.float16)


def test_arrays_are_taken_as_they_are(arrays):
    pairs = stored_embeddings(IDS, *arrays)
    assert (len(pairs), pairs.ids, pairs.skipped, pairs.image_dim, pairs.text_dim) == (4, IDS, {}, 6, 5)
    image, text = pairs.gather(torch.tensor([2, 0]))
    torch.testing.assert_close(image, torch.tensor(arrays[0][[2, 0]], dtype=torch.float32))
    torch.testing.assert_close(text, torch.tensor(arrays[1][[2, 0]], dtype=torch.float32))


def test_lists_and_tensors_equal_arrays(arrays):
    expected = stored_embeddings(IDS, *arrays).gather(torch.arange(4))
    listed = stored_embeddings(IDS, arrays[0].tolist(), list(arrays[1])).gather(torch.arange(4))
    tensors = stored_embeddings(IDS, torch.tensor(arrays[0]), torch.tensor(arrays[1])).gather(torch.arange(4))
    for one, two, three in zip(expected, listed, tensors, strict=True):
        assert torch.equal(one, two) and torch.equal(one, three)


def test_unusable_embeddings_are_skipped_with_their_reasons(arrays):
    image, text = list(arrays[0]), arrays[1].astype(np.float32)
    image[0], image[1] = None, image[1][:3]
    text[2], text[3, 1] = 0, np.nan
    pairs = stored_embeddings([*IDS, "e"], [*image, np.ones(6)], np.vstack([text, np.ones(5)]))
    assert pairs.ids == ["e"] and torch.equal(pairs.gather(torch.tensor([0]))[0], torch.ones(1, 6))
    assert pairs.skipped == {
        "a": "image embedding is missing",
        "b": "image embedding has 3 numbers, most have 6",
        "c": "text embedding is all zeros",
        "d": "text embedding is not finite",
    }


@pytest.mark.parametrize(
    ("odd", "fault"),
    [
        ("a text", "is not a vector of numbers"),
        ({"x": 1.0}, "is not a vector of numbers"),
        ([[1.0, 2.0], [3.0]], "is not a vector of numbers"),
        ([True] * 6, "is not a vector of numbers"),
        (["1.0"] * 6, "is not a vector of numbers"),
        (3.0, "is not a vector of numbers"),
        (np.full(6, 1e25), "has a length of 2e+25, which cannot be computed with"),
        (np.full(6, 1e-25), "has a length of 2e-25, which cannot be computed with"),
        (np.full(6, 1e60), "is not finite"),
        ([], "has 0 numbers, most have 6"),
    ],
)
def test_what_is_no_embedding_is_skipped_with_its_reason(arrays, odd, fault):
    pairs = stored_embeddings(IDS, [*arrays[0][:3], odd], list(arrays[1]))
    assert pairs.ids == IDS[:3] and pairs.skipped == {IDS[3]: f"image embedding {fault}"}


def test_users_arrays_are_not_changed_with(arrays):
    image = arrays[0].astype(np.float32)
    pairs = stored_embeddings(IDS, image, arrays[1])
    image[:] = 0
    assert pairs.gather(torch.tensor([0]))[0].any()


def test_numbers_of_ids_and_embeddings_must_agree(arrays):
    with pytest.raises(ValueError, match="3 ids and 4 image"):
        stored_embeddings(IDS[:3], *arrays)


def test_every_embedding_missing_leaves_no_pairs():
    pairs = stored_embeddings(IDS, [None] * 4, [None] * 4)
    assert len(pairs) == 0 and len(pairs.skipped) == 4
