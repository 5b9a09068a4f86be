"""What is odd about the pairs is said in plain words, with its count."""

import torch

from fiftyone_ecif.dataset.compute.notes import notes_on_orientation, notes_on_pairs, notes_on_target
from fiftyone_ecif.features import ArrayPairs


def pairs_of(images, texts=None, prefix="id"):
    """Pairs with embeddings by number; equal numbers have equal embeddings."""
    texts = range(len(images)) if texts is None else texts
    image, text = (torch.eye(100)[list(numbers)] for numbers in (images, texts))
    return ArrayPairs([f"{prefix}-{row}" for row in range(len(images))], image, text, {})


def notes(pairs, texts=None):
    return notes_on_pairs(pairs, texts, batch_size=2)


def test_repeated_images_are_said_as_repeated_captions_are():
    assert notes(pairs_of([*range(20)]), [str(row) for row in range(20)]) == []
    (both,) = notes(pairs_of([0] * 5 + [*range(15)]), ["same"] * 7 + [str(row) for row in range(13)])
    assert both.startswith("30% of the captions and 25% of the images repeat another one. In a batch they count as neg")
    (images,) = notes(pairs_of([row // 5 for row in range(20)]))
    assert images.startswith("80% of the images repeat")


def test_words_that_programs_write_for_a_missing_text_are_counted():
    texts = ["nan", "NaN", " null ", "None", "a nun", "nano", "none of them", None, *map(str, range(12))]
    (note,) = notes(pairs_of([*range(20)]), texts)
    assert "“nan” (2 ×) and “null” (1 ×) and “none” (1 ×)" in note and "They were scored as they are" in note


def test_pairs_that_are_in_the_target_under_other_ids_are_counted():
    scored, target = pairs_of([0, 1, 2, 3, 4]), pairs_of([3, 9, 4, 1], [3, 9, 8, 1], prefix="target")
    (note,) = notes_on_target(scored, target)
    assert note.startswith("2 of the scored pairs are in the target, too, under other sample ids (the same embeddings)")
    assert notes_on_target(scored, pairs_of([7, 8])) == notes_on_target(scored, None) == []


def test_marks_of_captions_and_files_are_said_with_their_counts():
    pairs = pairs_of([*range(20)])
    pairs.marked = {"truncated": 4, "damaged_metadata": 3}.get
    truncated, damaged = notes(pairs)
    assert truncated.startswith("4 captions are longer")
    assert damaged.startswith(
        "3 image files have damaged metadata (EXIF data, TIFF tags), which was ignored: their pix"
    )


def test_orientation_is_said_where_it_was_not_followed():
    pairs = pairs_of([1, 2])
    assert notes_on_orientation(pairs, applied=False) == []
    pairs.marked = {"oriented": 2}.get
    assert notes_on_orientation(pairs, applied=True) == []
    (note,) = notes_on_orientation(pairs, applied=False)
    assert note.startswith("2 image files have an EXIF orientation: the App shows them turned or mirrored")
    assert "apply_orientation=True" in note
