"""What a decoded image shows, as 8-bit RGB: depth, transparency, colour spaces and orientation."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageCms

USUAL_MAXIMA = {"I;16": (65_535,), "I": (255, 65_535), "F": (1, 255, 65_535)}
"""What white may be in images of more than 8 bits, by the beginning of Pillow's mode."""

TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""How an image is turned to show it upright, by its EXIF orientation (Exif 2.32, tag 0x0112)."""


def as_rgb(image: Image.Image) -> Image.Image:
    """An image in RGB with 8 bits: deeper ones are scaled, and what is transparent shows white.

    Args:
        image: of any of Pillow's modes; of an animation, the present frame

    Returns:
        an image of the same size
    """
    if image.mode == "F" or image.mode.startswith("I"):
        return _scaled(image)
    if image.mode == "LAB":  # which Pillow converts by colour profiles alone
        lab, rgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        return _present(ImageCms.profileToProfile(image, lab, rgb, outputMode="RGB"))
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")


def turn_of(image: Image.Image) -> Image.Transpose | None:
    """How a loaded image would have to be turned to follow its EXIF orientation; None where it is as it should be.

    Pillow itself turns TIFF files when it loads them, for whoever trains on them, too.

    Raises:
        Exception: of many kinds, if the EXIF data cannot be read
    """
    turn = TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    Image.Exif().load(image.info.get("exif") or b"")  # which a JPEG file's reader tries before, and says nothing
    return turn


def _scaled(image: Image.Image) -> Image.Image:
    """An image of 16 or 32 bits or of floating-point numbers in 8 bits.

    White is the smallest usual maximum that no value exceeds. Where values are negative or exceed all of them, the
    smallest value becomes black and the largest white.
    """
    values = np.asarray(image).astype(np.float64)
    kind = next(kind for kind in USUAL_MAXIMA if image.mode.startswith(kind))
    finite = values[np.isfinite(values)]
    smallest, largest = (finite.min(), finite.max()) if finite.size else (0.0, 0.0)
    usual = [white for white in USUAL_MAXIMA[kind] if smallest >= 0 and largest <= white]
    black, white = (0.0, usual[0]) if usual else (smallest, largest)
    shares = (np.nan_to_num(values, nan=black, posinf=white, neginf=black) - black) / ((white - black) or 1.0)
    levels: npt.NDArray[np.uint8] = np.rint(255 * shares).astype(np.uint8)
    transparent: Any = image.info.get("transparency")
    if isinstance(transparent, int):
        levels[values == transparent] = 255
    return Image.fromarray(levels).convert("RGB")


def _present(image: Image.Image | None) -> Image.Image:
    assert image is not None  # profileToProfile returns nothing only where it works in place
    return image
