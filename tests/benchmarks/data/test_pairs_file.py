"""Pairs of the user's own: what a CSV file says is what is loaded, and what is wrong with it is said."""

import pytest
from PIL import Image

from benchmarks.data.pairs_file import pairs_from_csv


@pytest.fixture
def write(tmp_path):
    for name in ("a.png", "b.png"):
        Image.new("RGB", (4, 4)).save(tmp_path / name)

    def write(text):
        path = tmp_path / "pairs.csv"
        path.write_text(text)
        return path

    return write


def test_pairs_truth_and_labels_are_read(write, tmp_path):
    path = write('filepath,caption,misaligned,label\na.png,"a cat, sleeping",0,cat\nb.png,<b>dog</b>,1,dog\n')
    table, planted = pairs_from_csv(path)
    assert table.filepaths == [str(tmp_path / "a.png"), str(tmp_path / "b.png")]
    assert table.captions == ["a cat, sleeping", "<b>dog</b>"]
    assert [table.class_names[label] for label in table.labels] == ["cat", "dog"]
    assert planted.tolist() == [False, True]


def test_without_truth_and_labels_nothing_is_claimed(write):
    table, planted = pairs_from_csv(write("filepath,caption,misaligned\na.png,cat,\nb.png,dog,\n"))
    assert planted is None
    assert table.class_names == []
    with pytest.raises(ValueError, match=r"The accuracy needs classes, and the pairs of pairs\.csv has captions only"):
        table.require_classes("The accuracy")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("filepath,caption\na.png,cat\n", "no column misaligned"),
        ("", "no column filepath, caption, misaligned"),
        ("filepath,caption,misaligned\n", "no pairs"),
        ("filepath,caption,misaligned\na.png,cat,0\nc.png,dog,1\n", "line 3: there is no file"),
        ("filepath,caption,misaligned\na.png,,0\n", "line 2: the caption is empty"),
        ("filepath,caption,misaligned\na.png,cat,0\nb.png,dog,maybe\n", "line 3: misaligned is 'maybe'"),
        ("filepath,caption,misaligned\na.png,cat,0\nb.png,dog,\n", "line 3: misaligned is ''"),
        ("filepath,caption,misaligned,label\na.png,cat,0,\n", "line 2: the label is empty"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_in_plain_words(write, text, complaint):
    with pytest.raises(ValueError, match=complaint):
        pairs_from_csv(write(text))


def test_a_missing_file_is_a_clear_error(tmp_path):
    with pytest.raises(ValueError, match="cannot be read as a CSV file"):
        pairs_from_csv(tmp_path / "none.csv")
