"""What Pillow complains about becomes marks of the file; the process and its other threads see no difference."""

import threading
import warnings

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin, _deprecate

from fiftyone_ecif.features.complaints import hearing_complaints
from fiftyone_ecif.features.reading import Marks, UnreadablePair, decode, opened, read_image
from tests.support.damaged import with_a_tag_outside, with_cut_exif, with_foreign_exif, with_short_exif
from tests.support.together import together

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (24, 40, 3), dtype=np.uint8))


@pytest.fixture
def damaged(tmp_path):
    path = tmp_path / "damaged.tiff"
    with_a_tag_outside(PICTURE, path)
    return path


def marks_of(path):
    with opened(path) as file:
        return decode(file).marks


def opened_by_others(path):
    """What other code does, with Pillow's own warnings."""
    with Image.open(path) as image:
        image.load()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("save", "name", "oriented"),
    [
        (with_a_tag_outside, "a.tiff", False),
        *((save, f"a.{kind}", save is with_cut_exif) for save in (with_cut_exif, with_short_exif, with_foreign_exif)
          for kind in ("jpg", "png", "webp")),
    ],
)  # fmt: skip
def test_damaged_metadata_is_a_mark_and_no_warning(tmp_path, capfd, save, name, oriented):
    save(PICTURE, tmp_path / name)
    PICTURE.save(tmp_path / f"whole-{name}")
    for _ in range(2):
        assert marks_of(tmp_path / name) == Marks(oriented=oriented, damaged_metadata=True)
        assert marks_of(tmp_path / f"whole-{name}") == Marks()
    assert (np.asarray(read_image(tmp_path / name)) == np.asarray(read_image(tmp_path / f"whole-{name}"))).all()
    assert capfd.readouterr() == ("", "")


@pytest.mark.filterwarnings("error")
def test_too_many_pixels_are_a_reason_and_no_warning(tmp_path, monkeypatch):
    PICTURE.save(tmp_path / "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 24 * 40 - 1)
    with pytest.raises(UnreadablePair, match="more than 959 pixels, Pillow's limit"):
        read_image(tmp_path / "large.png")
    with pytest.raises(Image.DecompressionBombWarning):  # others are told as ever
        opened_by_others(tmp_path / "large.png")


def test_other_threads_are_warned_while_one_listens(damaged):
    turn, heard = threading.Barrier(2), []

    def listen():
        with hearing_complaints() as complaints:
            turn.wait(30)
            turn.wait(30)
            heard.extend(complaints)

    def look():
        turn.wait(30)
        opened_by_others(damaged)
        turn.wait(30)

    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        assert together([listen, look]) == [None, None]
    assert seen and not heard
    assert {(warning.category, warning.filename) for warning in seen} == {(UserWarning, TiffImagePlugin.__file__)}


def test_what_was_shown_once_is_heard_and_not_shown_again(damaged):
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("default")
        opened_by_others(damaged)
        shown = len(seen)
        assert shown
        assert marks_of(damaged).damaged_metadata
        opened_by_others(damaged)
        assert len(seen) == shown


def test_warnings_about_code_and_not_about_a_file_reach_the_process():
    with hearing_complaints() as complaints, pytest.warns(DeprecationWarning, match="a name is deprecated"):
        _deprecate.deprecate("a name", None)
    assert not complaints
