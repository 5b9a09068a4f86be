"""The pairs of the demo and the benchmarks, and the noise planted in them."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from benchmarks.data import digits, fashion_mnist, noise, openclipart
from benchmarks.data.pairs import PairTable
from benchmarks.models import sentence_encoder


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
    kinds = [f"kind {row}" for row in range(len(table))]
    part = dataclasses.replace(table, categories=kinds).select(table.split == "heldout")
    assert len(part) == 60
    assert part.categories == kinds[400:]
    assert part.filepaths == table.filepaths[400:]
    assert part.captions == table.captions[400:]
    assert (part.labels == table.labels[400:]).all()


def captioned(captions, split, categories=()):
    """Pairs with free captions."""
    count = len(captions)
    return PairTable(
        [f"{caption}.png" for caption in captions], captions, np.full(count, -1), [], np.array([split] * count), (),
        f"source of {split}", list(categories),
    )  # fmt: skip


def test_pairs_of_two_sources_are_put_together():
    birds, dogs = captioned(["owl", "gull"], "train", ["bird"] * 2), captioned(["pug"], "base", ["dog"])
    both = birds + dogs
    assert both.captions == ["owl", "gull", "pug"] and both.filepaths == ["owl.png", "gull.png", "pug.png"]
    assert list(both.split) == ["train", "train", "base"] and both.categories == ["bird", "bird", "dog"]
    assert both.select(np.array([2, 0])).categories == ["dog", "bird"]
    assert both.source == "source of train; source of base"
    assert (birds + captioned(["pug"], "base")).categories == []


def test_pairs_with_classes_are_not_put_together(table):
    with pytest.raises(ValueError, match="without classes"):
        _ = table + captioned(["pug"], "base")


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


@pytest.fixture
def drawings(table):
    """Pairs without classes, with captions of which some are alike."""
    captions = [f"a drawing of {row % 150}" for row in range(len(table))]
    return dataclasses.replace(table, captions=captions, class_names=[], templates=(), labels=np.full(len(table), -1))


@pytest.mark.parametrize("kind", ["uniform", "confusable", "caption-swap"])
@pytest.mark.parametrize("data", ["table", "drawings"])
def test_planted_noise_is_wrong_everywhere_and_only_where_it_says(data, kind, request, monkeypatch):
    table = request.getfixturevalue(data)
    monkeypatch.setattr(sentence_encoder, "sentence_embeddings", lambda texts: np.eye(len(texts)))
    captions, planted = noise.plant(table, kind, 0.25, seed=1)
    assert planted.sum() == 100
    assert not planted[table.split == "heldout"].any()
    for new, old, label, bad in zip(captions, table.captions, table.labels, planted):
        if table.class_names:
            assert (named_class(table, new) != table.class_names[label]) == bad
        else:
            assert (new != old) == bad


def test_swapped_captions_are_the_chosen_ones_in_other_places(drawings):
    captions, planted = noise.swap_captions(drawings, 0.4, seed=2)
    assert sorted(captions) == sorted(drawings.captions)
    assert planted.sum() == round(0.4 * len(drawings))


def test_a_swap_that_lands_on_its_like_is_not_planted(table):
    ones = table.select(table.labels == 1)
    captions, planted = noise.swap_captions(ones, 1.0, seed=0)
    assert not planted.any()
    assert captions != ones.captions


def test_captions_change_places_between_pairs_of_one_category(drawings):
    kinds = [("", "animals", "food", "signs")[row % 4] for row in range(len(drawings))]
    table = dataclasses.replace(drawings, categories=kinds)
    captions, planted = noise.swap_within_categories(table, 0.2, seed=0)
    assert planted.sum() == 2 * (round(0.2 * len(table)) // 2)
    for kind in ("animals", "food", "signs"):
        rows = [row for row, other in enumerate(kinds) if other == kind]
        assert sorted(captions[row] for row in rows) == sorted(table.captions[row] for row in rows)
    for new, old, kind, bad in zip(captions, table.captions, kinds, planted):
        assert (new != old) == bad
        assert kind or not bad, "nobody knows what is of one kind with a pair without category"
    again, _ = noise.swap_within_categories(table, 0.2, seed=0)
    assert again == captions


def test_swaps_within_categories_need_categories_and_different_captions(drawings):
    with pytest.raises(ValueError, match="Swaps within a category need categories, and"):
        noise.plant(drawings, "same-category", 0.2, seed=0)
    alike = dataclasses.replace(drawings, categories=["food"] * len(drawings), captions=["food"] * len(drawings))
    with pytest.raises(ValueError, match="80 pairs are to be swapped, but only 0 can be within their categories"):
        noise.plant(alike, "same-category", 0.2, seed=0)


def test_near_noise_takes_a_near_caption_of_another_meaning(drawings, monkeypatch):
    table = drawings.select(np.arange(40))
    numbers = {f"a drawing of {row}": row for row in range(40)}

    def on_a_circle(texts):  # neighbours are 9 degrees apart; 0 and 39 as good as the same
        angles = np.array([2 * np.pi * numbers[text] / 40 for text in texts])
        return np.stack([np.cos(angles), np.sin(angles)], axis=1)

    monkeypatch.setattr(sentence_encoder, "sentence_embeddings", on_a_circle)
    captions, planted = noise.swap_near(table, 0.5, seed=0)
    steps = np.array([abs(numbers[new] - numbers[old]) for new, old in zip(captions, table.captions)])
    steps = np.minimum(steps, 40 - steps)[planted]
    assert planted.sum() == 20
    assert steps.min() == 3, "18 degrees have a cosine above 0.95"
    assert steps.max() <= 7, "five on either side"


def test_natural_noise_plants_nothing_and_claims_nothing(table):
    captions, planted = noise.plant(table, "natural", 0.3, seed=0)
    assert captions == table.captions
    assert planted is None


@pytest.mark.parametrize(
    ("kind", "rate", "complaint"),
    [("typos", 0.1, "no noise of kind 'typos'"), ("uniform", 1.5, "between 0 and 1, not 1.5")],
)
def test_noise_that_makes_no_sense_is_a_clear_error(table, kind, rate, complaint):
    with pytest.raises(ValueError, match=complaint):
        noise.plant(table, kind, rate, seed=0)


def test_classes_nobody_paired_cannot_be_confused(table):
    renamed = dataclasses.replace(table, class_names=[name.upper() for name in table.class_names])
    with pytest.raises(ValueError, match="known for Fashion-MNIST and the digits"):
        noise.plant(renamed, "confusable", 0.1, seed=0)


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


SVG = """<svg xmlns="http://www.w3.org/2000/svg"><metadata><rdf:RDF
 xmlns:cc="http://web.resource.org/cc/" xmlns:dc="http://purl.org/dc/elements/1.1/"
 xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><cc:Work><dc:title>{title}</dc:title>
 <dc:creator><cc:Agent><dc:title>somebody</dc:title></cc:Agent></dc:creator>
 <dc:subject><rdf:Bag>{keywords}</rdf:Bag></dc:subject></cc:Work></rdf:RDF></metadata></svg>"""


@pytest.fixture
def cliparts(tmp_path, monkeypatch):
    """A function that lays out packages with drawings (name: title, keywords, image) and loads pairs from them."""
    root = tmp_path / "root"

    def add(name, title, keywords, size=(40, 20)):
        for kind in ("png", "svg"):
            (root / kind / name).parent.mkdir(parents=True, exist_ok=True)
        items = "".join(f"<rdf:li>{keyword}</rdf:li>" for keyword in keywords)
        (root / "svg" / f"{name}.svg").write_text(SVG.format(title=title, keywords=items))
        Image.new("LA", size, (0, 255)).save(root / "png" / f"{name}.png")

    monkeypatch.setenv("FIFTYONE_ECIF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(openclipart, "debian_files", lambda *_: root)
    add("animals/cat", "A_cat", ["animal", "", "animal", "pet_shop", *"abcdefg"])
    add("unsorted/untitled", "", ["food"])
    return add, root


def test_clipart_captions_are_titles_with_the_first_keywords(cliparts):
    table = openclipart.load(train=1, heldout=1, progress=False)
    assert dict(zip(table.captions, table.categories, strict=True)) == {
        "A cat: animal, pet shop, a, b, c, d": "animals", "food": "",
    }  # fmt: skip
    assert openclipart.everything(progress=False).captions == sorted(table.captions, key=table.captions.index)
    assert table.class_names == [] and table.templates == ()
    with pytest.raises(ValueError, match="The accuracy needs classes, and Openclipart"):
        table.require_classes("The accuracy")


def test_cliparts_lie_on_a_white_square(cliparts):
    table = openclipart.load(train=2, heldout=0, progress=False)
    with Image.open(table.filepaths[0]) as image:
        assert image.size == (openclipart.IMAGE_SIZE,) * 2
        assert image.getpixel((64, 2)) == (255, 255, 255)
        assert image.getpixel((64, 64)) == (0, 0, 0)


def test_unusable_cliparts_are_skipped_and_counted(cliparts, monkeypatch, caplog):
    add, root = cliparts
    monkeypatch.setattr(openclipart, "LARGEST_IMAGE", 5_000)
    add("huge", "huge", [], size=(100, 100))
    add("silent", "", [])
    add("broken", "broken", [])
    (root / "png" / "broken.png").write_bytes(b"no picture")
    (root / "png" / "link.png").symlink_to("broken.png")
    for row in range(13):
        add(f"star{row}", "gramastar", [])
    with caplog.at_level("INFO"):
        table = openclipart.load(train=12, heldout=0, progress=False)
    assert table.captions.count("gramastar") == openclipart.SAME_CAPTION
    for count in ("1 that link", "2 unreadable or too large", "1 without title", "3 whose caption 10 others have"):
        assert count in caplog.text
    with pytest.raises(ValueError, match=r"12 usable pairs; 12 \+ 1 were asked for"):
        openclipart.load(train=12, heldout=1, progress=False)


def test_cliparts_are_read_once(cliparts, monkeypatch):
    first = openclipart.load(train=2, heldout=0, progress=False)
    monkeypatch.setattr(openclipart, "debian_files", lambda *_: pytest.fail("the packages were read again"))
    assert openclipart.load(train=2, heldout=0, progress=False).captions == first.captions
