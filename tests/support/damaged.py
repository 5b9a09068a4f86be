"""Image files whose pixels are whole and whose metadata are not."""

import struct

from PIL import Image

OUTSIDE = 100_000
"""A place that no small file has."""


def with_cut_exif(image: Image.Image, path) -> None:
    """Save an image of which EXIF data name an orientation of 6, and an artist outside of the data."""
    entries = struct.pack(">HHIHH", 0x0112, 3, 1, 6, 0) + struct.pack(">HHII", 0x013B, 2, 500, OUTSIDE)
    image.save(path, exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x02" + entries + bytes(4))


def with_short_exif(image: Image.Image, path) -> None:
    """Save an image whose EXIF data end within an entry."""
    image.save(path, exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x02\x01\x12")


def with_foreign_exif(image: Image.Image, path) -> None:
    """Save an image with EXIF data that are none."""
    image.save(path, exif=b"Exif\0\0MM no data")


def with_a_tag_outside(image: Image.Image, path) -> None:
    """Save a TIFF file with a tag, read after those of the pixels, that points outside of the file."""
    image.save(path, tiffinfo={0x013B: 400 * "x"})
    content = bytearray(path.read_bytes())
    entry = content.index(struct.pack("<HH", 0x013B, 2))
    content[entry + 8 : entry + 12] = struct.pack("<I", OUTSIDE)
    path.write_bytes(content)
