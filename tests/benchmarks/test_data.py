"""The pairs of the demo and the benchmarks, and the noise planted in them."""

import numpy as np
import pytest
from PIL import Image

from benchmarks.data import digits, fashion_mnist, noise


@pytest.fixture(scope="module")
def table():
    return digits.load(train=400, heldout=60, progress=False)


def named_class(table, caption):
    """The one class whose templates can have written a caption."""
    (named,) = [
        name for name in table.class_names if any(caption == template.format(name) for template in table.templates)
    ]
    return named


def test_digits_are_split_and_their_images_can_be_read(table):
    assert list(table.split) == ["train"] * 400 + ["heldout"] * 60
    assert len(set(table.filepaths)) == 460
    with Image.open(table.filepaths[0]) as image:
        assert image.size == (32, 32)


def test_images_are_written_once(table, monkeypatch):
    monkeypatch.setattr(Image.Image, "save", lambda *_: pytest.fail("an image that was there was written again"))
    assert digits.load(train=400, heldout=60, progress=False).filepaths == table.filepaths


def test_captions_name_the_true_class(table):
    assert [named_class(table, caption) for caption in table.captions] == [table.class_names[k] for k in table.labels]


@pytest.mark.parametrize("data", [digits, fashion_mnist])
def test_every_caption_says_one_class_only(data):
    captions = [template.format(name) for template in data.TEMPLATES for name in data.CLASS_NAMES]
    assert len(data.TEMPLATES) >= 5
    assert len(set(captions)) == len(data.TEMPLATES) * len(data.CLASS_NAMES)


def test_selected_rows_stay_together(table):
    part = table.select(table.split == "heldout")
    assert len(part) == 60
    assert part.filepaths == table.filepaths[400:]
    assert part.captions == table.captions[400:]
    assert (part.labels == table.labels[400:]).all()


@pytest.mark.parametrize("swap", [noise.swap_uniform, lambda *a: noise.swap_confusable(*a, [("three", "eight")])])
def test_noise_swaps_the_given_share_to_wrong_classes_and_nothing_else(table, swap):
    captions, planted = swap(table, 0.15, 3)
    assert planted.sum() == round(0.15 * len(table))
    for caption, original, label, bad in zip(captions, table.captions, table.labels, planted):
        assert (named_class(table, caption) != table.class_names[label]) == bad
        assert bad or caption == original


def test_uniform_noise_reaches_every_wrong_class(table):
    captions, planted = noise.swap_uniform(table, 1.0, seed=0)
    zeros = {named_class(table, caption) for caption, label in zip(captions, table.labels) if label == 0}
    assert planted.all()
    assert zeros == set(table.class_names[1:])


def test_confusable_noise_stays_inside_its_pairs(table):
    captions, planted = noise.swap_confusable(table, 0.1, 0, [("three", "eight"), ("three", "five")])
    true = [table.class_names[label] for label in table.labels]
    swaps = {(true[row], named_class(table, captions[row])) for row in np.flatnonzero(planted)}
    assert swaps <= {("three", "eight"), ("eight", "three"), ("three", "five"), ("five", "three")}


def test_noise_follows_its_seed(table):
    captions, planted = noise.swap_uniform(table, 0.2, seed=5)
    again, planted_again = noise.swap_uniform(table, 0.2, seed=5)
    _, other = noise.swap_uniform(table, 0.2, seed=6)
    assert captions == again
    assert (planted == planted_again).all()
    assert (planted != other).any()


def test_more_confusable_swaps_than_pairs_is_an_error(table):
    with pytest.raises(ValueError, match="lower the rate"):
        noise.swap_confusable(table, 0.9, 0, [("three", "eight")])


def test_unknown_class_in_confusable_pairs_is_an_error(table):
    with pytest.raises(ValueError, match="no class 'ten'"):
        noise.swap_confusable(table, 0.1, 0, [("three", "ten")])


def test_fashion_mnist_falls_back_to_debian_where_the_zoo_is_out_of_reach(tmp_path, monkeypatch):
    def unavailable(folder):
        raise fashion_mnist.SourceUnavailable("no network")

    rng = np.random.default_rng(0)
    arrays = {}
    for part, count in (("train", 30), ("test", 20)):
        arrays[f"{part}_images"] = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        arrays[f"{part}_labels"] = rng.integers(0, 10, count, dtype=np.uint8)
    monkeypatch.setenv("FIFTYONE_ECIF_CACHE", str(tmp_path))
    monkeypatch.setattr(fashion_mnist, "_from_zoo", unavailable)
    monkeypatch.setattr(fashion_mnist, "_from_debian", lambda folder: arrays)

    table = fashion_mnist.load(train=20, heldout=10, progress=False)
    assert "Debian" in table.source
    assert list(table.split) == ["train"] * 20 + ["heldout"] * 10
    row = int(table.filepaths[3].rpartition("-")[2].removesuffix(".png"))
    assert (np.asarray(Image.open(table.filepaths[3])) == arrays["train_images"][row]).all()
    assert table.labels[3] == arrays["train_labels"][row]

    monkeypatch.setattr(fashion_mnist, "_from_debian", unavailable)
    assert fashion_mnist.load(train=20, heldout=10, progress=False).filepaths == table.filepaths, "the cache serves"
    monkeypatch.setenv("FIFTYONE_ECIF_CACHE", str(tmp_path / "empty"))
    with pytest.raises(fashion_mnist.SourceUnavailable, match="no network"):
        fashion_mnist.load(progress=False)
