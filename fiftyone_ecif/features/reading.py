"""Reading the image and the caption of a pair, with a plain reason where that fails. Every image is read here."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

from PIL import Image, UnidentifiedImageError

from fiftyone_ecif.features.complaints import hearing_complaints
from fiftyone_ecif.features.pixels import as_rgb, turn_of

LONGEST_SIDE_RATIO = 100
"""How many times as long as wide an image may be.

Models scale an image by its shorter side. A line of 20,000 × 1 pixels would take gigabytes, and a model sees next to
nothing of it.
"""

LARGEST_FILE = 2**31
"""Bytes of a file above which it is not read: no image within Pillow's limit of pixels takes as many."""


class PairRow(NamedTuple):
    """One image-text pair of a dataset.

    Attributes:
        id: the sample's
        filepath: of its image
        caption: what is said about it
        apply_orientation: whether the image is turned as its EXIF orientation says; open_clip trains without that
    """

    id: str
    filepath: str
    caption: str | None
    apply_orientation: bool = False


class UnreadablePair(ValueError):
    """A pair that cannot be embedded.

    Attributes:
        reason: why, in a few plain words
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Marks(NamedTuple):
    """What is odd about a pair that can be embedded all the same; a store has a column for each.

    Attributes:
        truncated: whether the caption is longer than the model's context
        oriented: whether the image file has an EXIF orientation by which it is turned or mirrored
        damaged_metadata: whether some of the image file's metadata cannot be read
    """

    truncated: bool = False
    oriented: bool = False
    damaged_metadata: bool = False


class DecodedImage(NamedTuple):
    """An image as models see it.

    Attributes:
        image: in RGB
        marks: of its file
    """

    image: Image.Image
    marks: Marks


def read_image(path: str | os.PathLike[str], apply_orientation: bool = False) -> Image.Image:
    """Read and decode an image file.

    Args:
        path: path of the image file
        apply_orientation: whether to turn the image as its EXIF orientation says

    Returns:
        the image in RGB

    Raises:
        UnreadablePair: if the file cannot be opened (:func:`opened`) or decoded (:func:`decode`)
    """
    with opened(path) as file:
        return decode(file, apply_orientation).image


@contextmanager
def opened(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open an image file for reading.

    Raises:
        UnreadablePair: if it is missing, empty, no file, too large for an image, or may not be opened
    """
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            raise UnreadablePair("image path is not a file")
        if status.st_size == 0:
            raise UnreadablePair("image file is empty")
        if status.st_size > LARGEST_FILE:
            raise UnreadablePair(f"image file is larger than {LARGEST_FILE / 2**30:.0f} GiB")
        file = open(path, "rb")  # noqa: SIM115 - closed below
    except PermissionError as error:
        raise UnreadablePair("image file may not be opened (permission denied)") from error
    except UnreadablePair:
        raise
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:  # a ValueError: no path at all, as "a\0b"
        raise UnreadablePair("image file is missing") from error
    except OSError as error:
        raise UnreadablePair(f"image file cannot be opened ({error.strerror})") from error
    with file:
        yield file


def decode(file: BinaryIO, apply_orientation: bool = False) -> DecodedImage:
    """Decode an image; of an animation, its first frame.

    Args:
        file: the open file
        apply_orientation: whether to turn the image as its EXIF orientation says

    Returns:
        :class:`DecodedImage`

    Raises:
        UnreadablePair: if it is damaged or not an image, has more pixels than Pillow allows, or is a mere line
    """
    try:
        with hearing_complaints() as complaints, Image.open(file) as image:
            _check_size(image)
            image.load()
            rgb = as_rgb(image)
            try:
                turn = turn_of(image)
            except Exception as error:  # EXIF data may be damaged in as many ways as images; the picture is whole
                turn = None
                complaints.append(str(error))
    except UnreadablePair:
        raise
    except Image.DecompressionBombError as error:
        raise _too_many_pixels() from error
    except UnidentifiedImageError as error:
        kind = Path(str(file.name)).suffix.lower()
        raise UnreadablePair(f"file is not an image that Pillow knows{f' ({kind})' if kind else ''}") from error
    # Decoders raise many kinds of errors on a damaged file: OSError, SyntaxError, ValueError, struct.error, ...
    except Exception as error:
        raise UnreadablePair(f"image file is damaged ({error})") from error
    marks = Marks(oriented=turn is not None, damaged_metadata=bool(complaints))
    return DecodedImage(rgb if turn is None or not apply_orientation else rgb.transpose(turn), marks)


def _check_size(image: Image.Image) -> None:
    """Raise for an image whose pixels would take more memory than it is worth; nothing is decoded yet."""
    shorter, longer = sorted(image.size)
    if shorter == 0:
        raise UnreadablePair("image has no pixels")
    # Pillow refuses at twice its limit, and only warns before, which is not heard here.
    if Image.MAX_IMAGE_PIXELS is not None and shorter * longer > Image.MAX_IMAGE_PIXELS:
        raise _too_many_pixels()
    if longer > LONGEST_SIDE_RATIO * shorter:
        raise UnreadablePair(f"image's longer side is more than {LONGEST_SIDE_RATIO} times its shorter one")


def _too_many_pixels() -> UnreadablePair:
    return UnreadablePair(f"image has more than {Image.MAX_IMAGE_PIXELS} pixels, Pillow's limit")


def changed_since(paths: Iterable[str | os.PathLike[str]], moment: float) -> int:
    """Count the files that were changed or replaced after a moment, or no longer exist.

    Args:
        paths: paths of the files
        moment: seconds since the epoch

    Returns:
        the number of such files
    """

    def changed(path: str | os.PathLike[str]) -> bool:
        try:
            status = os.stat(path)
        except (OSError, ValueError):
            return True
        return max(status.st_mtime, status.st_ctime) > moment  # moving a file keeps its st_mtime

    return sum(map(changed, paths))


def check_caption(caption: object) -> str:
    """Return a caption that is a text with content.

    Raises:
        UnreadablePair: if the caption is missing, empty or not a text
    """
    if caption is None:
        raise UnreadablePair("caption is missing")
    if not isinstance(caption, str):
        raise UnreadablePair(f"caption is not a text but {type(caption).__name__}")
    if not caption.strip():
        raise UnreadablePair("caption is empty")
    return caption
