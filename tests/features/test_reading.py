"""Whatever is wrong with a file or a caption, there is a plain reason for it."""

import os
import time
import warnings

import numpy as np
import pytest
from PIL import Image

from fiftyone_ecif.features.reading import UnreadablePair, changed_since, check_caption, read_image


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "picture.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 4), dtype=np.uint8)).save(path)
    return path


def reason(path):
    with pytest.raises(UnreadablePair) as caught:
        read_image(path)
    return caught.value.reason


@pytest.mark.parametrize("mode", ["RGBA", "L", "P", "1", "CMYK"])
def test_every_mode_becomes_rgb(tmp_path, mode):
    path = tmp_path / "picture.tiff"
    Image.new(mode, (5, 4)).save(path)
    image = read_image(path)
    assert image.mode == "RGB" and image.size == (5, 4)


def test_missing_empty_and_foreign_files(tmp_path):
    assert reason(tmp_path / "none.png") == "image file is missing"
    assert reason(tmp_path) == "image path is not a file"
    (tmp_path / "empty.png").touch()
    assert reason(tmp_path / "empty.png") == "image file is empty"
    (tmp_path / "text.png").write_text("no picture")
    assert reason(tmp_path / "text.png") == "file is not an image that Pillow knows (.png)"


@pytest.mark.parametrize("format", ["png", "jpeg", "gif", "bmp", "tiff", "webp"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_truncated_file_is_refused(tmp_path, picture, format, share):
    path = tmp_path / f"cut.{format}"
    read_image(picture).save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    assert reason(path).startswith(("image file is damaged", "file is not an image"))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("limit", [3000, 1000])
def test_decompression_bomb_is_refused(picture, monkeypatch, limit):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    assert reason(picture) == f"image has more than {limit} pixels, Pillow's limit"
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert read_image(picture).size == (64, 64)


def test_reading_leaves_the_warnings_of_other_threads_alone(picture, monkeypatch):
    filters, entered = warnings.filters, []
    monkeypatch.setattr(warnings.catch_warnings, "__enter__", lambda self: entered.append(self))
    read_image(picture)
    assert not entered and warnings.filters is filters


@pytest.mark.parametrize("size", [(20_000, 1), (1, 20_000), (202, 2)])
def test_a_line_is_refused_before_it_is_scaled_to_gigabytes(tmp_path, size):
    Image.new("1", size).save(tmp_path / "line.png")
    assert reason(tmp_path / "line.png") == "image's longer side is more than 100 times its shorter one"


def test_a_strip_is_read(tmp_path):
    Image.new("1", (200, 2)).save(tmp_path / "strip.png")
    assert read_image(tmp_path / "strip.png").size == (200, 2)


def test_what_is_no_readable_file_has_a_plain_reason(tmp_path, monkeypatch):
    (tmp_path / "drawing.SVG").write_text("<svg/>")
    assert reason(tmp_path / "drawing.SVG") == "file is not an image that Pillow knows (.svg)"
    os.mkfifo(tmp_path / "pipe")
    assert reason(tmp_path / "pipe") == "image path is not a file"
    assert reason(tmp_path / "drawing.SVG" / "x.png") == reason("a\0b") == "image file is missing"
    assert "cannot be opened" in reason("x" * 10_000)
    with open(tmp_path / "huge.tiff", "wb") as file:
        file.truncate(2**31 + 1)  # takes no place on the disk
    assert reason(tmp_path / "huge.tiff") == "image file is larger than 2 GiB"


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        (None, "missing"),
        ("", "empty"),
        (" \n\t", "empty"),
        (3.5, "not a text but float"),
        (["a"], "not a text but list"),
    ],
)
def test_caption_without_text_is_refused(caption, expected):
    with pytest.raises(UnreadablePair, match=expected):
        check_caption(caption)


def test_caption_is_handed_on_unchanged():
    assert check_caption(" ein Bild 🙂 ") == " ein Bild 🙂 "


def test_changed_replaced_and_missing_files_are_counted(tmp_path):
    paths = [tmp_path / name for name in "abcd"]
    for path in paths:
        path.write_text("as it was")
    os.utime(paths[0], (1, 1))
    before = time.time()
    time.sleep(0.05)
    assert changed_since(paths, before) == 0
    paths[0].rename(paths[1])  # older than what it replaces
    paths[2].write_text("another")
    assert changed_since(paths, before) == 3
