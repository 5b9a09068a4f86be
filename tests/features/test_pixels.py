"""What people see in an image is what the model sees: depth, transparency, colours and orientation."""

import numpy as np
import pytest
from PIL import Image

from fiftyone_ecif.features.pixels import as_rgb
from fiftyone_ecif.features.reading import Marks, decode, opened, read_image

RAMP = np.arange(256, dtype=np.uint8).reshape(16, 16)


def saved(image, path, **options):
    image.save(path, **options)
    return path


def pixel(image):
    return image.getpixel((0, 0))


@pytest.mark.parametrize(
    ("values", "name"),
    [
        (RAMP.astype(np.uint16) * 257, "grey.png"),
        (RAMP.astype(np.uint16) * 257, "grey.tiff"),
        ((RAMP.astype(np.uint16) * 257).astype(">u2"), "big-endian.tiff"),
        (RAMP.astype(np.int32), "as-8-bits.tiff"),
        (RAMP.astype(np.int32) * 257, "as-16-bits.tiff"),
        (RAMP.astype(np.int32) * 100_000 - 9_999_999, "wide.tiff"),
        (RAMP.astype(np.float32) / 255, "shares.tiff"),
        (RAMP.astype(np.float32), "levels.tiff"),
        (RAMP.astype(np.float32) * 257, "deep-levels.tiff"),
        (RAMP.astype(np.float32) / 50 - 3, "signed.tiff"),
    ],
)
def test_deep_images_show_the_shades_that_they_hold(tmp_path, values, name):
    if name.startswith("big"):
        image = Image.frombytes("I;16B", values.shape, values.tobytes())
    else:
        image = Image.fromarray(values)
    assert image.mode != "L"
    path = saved(image, tmp_path / name)
    read = np.asarray(read_image(path))
    assert (read == RAMP[..., None]).all()


def test_a_dark_deep_image_stays_dark(tmp_path):
    path = saved(Image.fromarray(np.full((4, 4), 257 * 3, dtype=np.uint16)), tmp_path / "dark.png")
    assert pixel(read_image(path)) == (3, 3, 3)


def test_numbers_that_are_none_are_black_or_white():
    values = np.array([[np.nan, np.inf, -np.inf, 0.5, 1.0]], dtype=np.float32)
    assert np.asarray(as_rgb(Image.fromarray(values)))[0, :, 0].tolist() == [0, 255, 0, 128, 255]
    assert pixel(as_rgb(Image.fromarray(np.full((2, 2), np.nan, dtype=np.float32)))) == (0, 0, 0)


def palette():
    image = Image.new("P", (2, 2), 1)
    image.putpalette([9, 9, 9, 20, 30, 40])
    return image


@pytest.mark.filterwarnings("error")  # Pillow's own, which named no file
@pytest.mark.parametrize(
    ("image", "options", "name", "shown"),
    [
        (Image.new("RGBA", (2, 2), (200, 0, 0, 0)), {}, "hidden.png", (255, 255, 255)),
        (Image.new("RGBA", (2, 2), (0, 0, 0, 51)), {}, "fifth.png", (204, 204, 204)),
        (Image.new("RGBA", (2, 2), (1, 2, 3, 255)), {"lossless": True}, "opaque.webp", (1, 2, 3)),
        (Image.new("LA", (2, 2), (0, 0)), {}, "grey.png", (255, 255, 255)),
        (palette(), {}, "plain.png", (20, 30, 40)),
        (palette(), {"transparency": 1}, "one.png", (255, 255, 255)),
        (palette(), {"transparency": 0}, "other.png", (20, 30, 40)),
        (palette(), {"transparency": bytes([255, 0])}, "shares.png", (255, 255, 255)),
        (palette(), {"transparency": 1}, "one.gif", (255, 255, 255)),
        (Image.new("RGB", (2, 2), (7, 8, 9)), {"transparency": (7, 8, 9)}, "colour.png", (255, 255, 255)),
        (Image.new("L", (2, 2), 7), {"transparency": 7}, "level.png", (255, 255, 255)),
        (Image.new("I;16", (2, 2), 7), {"transparency": 7}, "deep.png", (255, 255, 255)),
        (Image.new("1", (2, 2), 1), {}, "bits.png", (255, 255, 255)),
        (Image.new("CMYK", (2, 2), (0, 255, 0, 0)), {}, "ink.tiff", (255, 0, 255)),
    ],
)
def test_transparent_parts_are_white_and_colours_are_those_of_the_file(tmp_path, image, options, name, shown):
    read = read_image(saved(image, tmp_path / name, **options))
    assert read.mode == "RGB" and pixel(read) == shown


def test_lab_is_a_colour_space_like_others(tmp_path):
    white, grey = (
        saved(Image.new("LAB", (2, 2), (level, 128, 128)), tmp_path / f"{level}.tiff") for level in (255, 128)
    )
    assert min(pixel(read_image(white))) > 250
    assert all(abs(channel - 119) < 3 for channel in pixel(read_image(grey)))  # L* = 50


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_counted_and_followed_where_that_is_asked_for(tmp_path, name, orientation):
    upright = Image.new("RGB", (40, 24), "black")
    upright.paste("white", (0, 0, 20, 12))
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(upright, tmp_path / name, exif=exif)
    with opened(path) as file:
        assert decode(file).marks == Marks(oriented=orientation != 1)
    assert read_image(path).size == (40, 24) and pixel(read_image(path))[0] > 200
    turned = read_image(path, apply_orientation=True)
    assert turned.size == ((24, 40) if orientation >= 5 else (40, 24))
    # where the first row and the first column of the file are shown (Exif 2.32)
    bottom, right = orientation in (3, 4, 7, 8), orientation in (2, 3, 6, 7)
    place = (turned.width - 3 if right else 2, turned.height - 3 if bottom else 2)
    assert turned.getpixel(place)[0] > 200


def test_damaged_exif_data_turns_nothing(tmp_path):
    path = saved(Image.new("RGB", (5, 4)), tmp_path / "a.webp", exif=b"Exif\0\0MM no data")
    with opened(path) as file:
        assert not decode(file).marks.oriented


@pytest.mark.parametrize("name", ["a.gif", "a.webp", "a.png", "a.tiff"])
def test_the_first_frame_of_an_animation_is_read(tmp_path, name):
    first, second = (Image.new("RGB", (4, 4), color) for color in ("red", "blue"))
    first.save(tmp_path / name, save_all=True, append_images=[second], lossless=True)
    assert pixel(read_image(tmp_path / name)) == (255, 0, 0)
