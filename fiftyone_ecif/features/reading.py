"""Reading the image and the caption of a pair, with a plain reason where that fails."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from PIL import Image, UnidentifiedImageError


class PairRow(NamedTuple):
    """One image-text pair of a dataset: the sample's id, its image file and its caption."""

    id: str
    filepath: str
    caption: str | None


class UnreadablePair(ValueError):
    """A pair that cannot be embedded.

    Attributes:
        reason: why, in a few plain words
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def read_image(path: str | os.PathLike[str]) -> Image.Image:
    """Read and decode an image file.

    Args:
        path: path of the image file

    Returns:
        the image in RGB

    Raises:
        UnreadablePair: if the file is missing, empty, damaged or not an image, or has more pixels than Pillow allows
    """
    path = Path(path)
    if not path.exists():
        raise UnreadablePair("image file is missing")
    if not path.is_file():
        raise UnreadablePair("image path is not a file")
    if path.stat().st_size == 0:
        raise UnreadablePair("image file is empty")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                decoded: Image.Image = image.convert("RGB")
                return decoded
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise UnreadablePair(f"image has more than {Image.MAX_IMAGE_PIXELS} pixels, Pillow's limit") from error
    except PermissionError as error:
        raise UnreadablePair("image file may not be opened (permission denied)") from error
    except UnidentifiedImageError as error:
        raise UnreadablePair("file is not an image that Pillow knows") from error
    # Decoders raise many kinds of errors on a damaged file: OSError, SyntaxError, ValueError, struct.error, ...
    except Exception as error:
        raise UnreadablePair(f"image file is damaged ({error})") from error


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
