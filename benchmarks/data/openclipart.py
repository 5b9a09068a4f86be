"""Openclipart: public-domain drawings with the titles and keywords people gave them, from two Debian packages."""

from __future__ import annotations

import json
import logging
import os
import shutil
import warnings
import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from benchmarks.data.debian import SourceUnavailable, debian_files
from benchmarks.data.pairs import PairTable
from fiftyone_ecif.features import cache_folder

logger = logging.getLogger(__name__)

DEBIAN_PACKAGES = ("openclipart-png", "openclipart-svg")
DEBIAN_FOLDER = Path("usr/share/openclipart")
IMAGE_SIZE = 128  # pixels
LARGEST_IMAGE = 8_000_000  # pixels; a few drawings are decompression bombs
KEYWORDS = 6  # of a caption at most
SAME_CAPTION = 10  # pairs that may share a caption; one collection calls 1,375 drawings "gramastar"
NO_CATEGORY = "unsorted"  # a folder of everything
DUBLIN_CORE = "{http://purl.org/dc/elements/1.1/}"


def load(train: int = 2_800, heldout: int = 600, seed: int = 0, progress: bool = True) -> PairTable:
    """A random part of Openclipart as pairs of a drawing and "title: keyword, keyword, …".

    Pictures that only link to another are left out, as are those that cannot be read, are too large or have neither
    title nor keywords, and pairs beyond the tenth with one caption; how many is logged. There are no classes.
    A pair's category is its top folder, such as "food".

    Args:
        train: number of training pairs
        heldout: number of held-out pairs
        seed: of the choice of pairs
        progress: whether to show a progress bar

    Returns:
        training pairs first, then held-out ones

    Raises:
        SourceUnavailable: if the Debian packages cannot be had
        ValueError: if there are fewer pairs than asked for
    """
    chosen = _usable(seed, progress)
    if train + heldout > len(chosen):
        raise ValueError(f"Openclipart has {len(chosen)} usable pairs; {train} + {heldout} were asked for.")
    return _table(chosen[: train + heldout], ["train"] * train + ["heldout"] * heldout)


def everything(progress: bool = True) -> PairTable:
    """All usable pairs, of split "base"; see :func:`load`."""
    chosen = _usable(0, progress)
    return _table(chosen, ["base"] * len(chosen))


def _usable(seed: int, progress: bool) -> list[tuple[str, str]]:
    """The usable pairs (file, caption) in random order."""
    folder = cache_folder("openclipart")
    index = folder / "pairs.json"
    if not index.exists():
        _prepare(folder, index, progress)
    stored = json.loads(index.read_text())
    pairs, skipped = list(stored["captions"].items()), Counter(stored["skipped"])
    seen: Counter[str] = Counter()
    chosen = []
    for row in np.random.default_rng(seed).permutation(len(pairs)):
        name, caption = pairs[row]
        seen[caption] += 1
        if seen[caption] <= SAME_CAPTION:
            chosen.append((str(folder / "images" / name), caption))
    skipped[f"whose caption {SAME_CAPTION} others have"] = len(pairs) - len(chosen)
    logger.info(
        "Openclipart: %d pairs; left out: %s", len(chosen), ", ".join(f"{n:,} {why}" for why, n in skipped.items())
    )
    return chosen


def _table(pairs: list[tuple[str, str]], split: list[str]) -> PairTable:
    """Pairs (file, caption) as a table."""
    filepaths, captions = zip(*pairs)
    return PairTable(
        filepaths=list(filepaths),
        captions=list(captions),
        labels=np.full(len(pairs), -1),
        class_names=[],
        split=np.array(split),
        templates=(),
        source="Openclipart from the Debian packages " + " and ".join(DEBIAN_PACKAGES),
        categories=[_category(path) for path in filepaths],
    )


def _prepare(folder: Path, index: Path, progress: bool) -> None:
    """Write every usable drawing as a small picture, and last the index of captions and of what was left out."""
    try:
        source = debian_files(DEBIAN_PACKAGES, DEBIAN_FOLDER, folder)
    except SourceUnavailable as reason:
        raise SourceUnavailable(f"Openclipart cannot be had here: {reason}") from reason
    (folder / "images").mkdir(exist_ok=True)
    captions: dict[str, str] = {}
    skipped: Counter[str] = Counter()
    drawings = sorted((source / "png").rglob("*.png"))
    for path in tqdm(drawings, desc="data: reading drawings", unit="image", disable=not progress):
        inside = path.relative_to(source / "png")
        if path.is_symlink():
            skipped["that link to another picture"] += 1
        elif not (caption := _caption((source / "svg" / inside).with_suffix(".svg"))):
            skipped["without title and keywords"] += 1
        elif (image := _small(path)) is None:
            skipped["unreadable or too large"] += 1
        else:
            name = "-".join(inside.parts)
            part = folder / "images" / f"{name}.part"
            image.save(part, format="PNG")
            os.replace(part, folder / "images" / name)
            captions[name] = caption
    part = index.with_suffix(".json.part")
    part.write_text(json.dumps({"captions": captions, "skipped": skipped}))
    os.replace(part, index)
    shutil.rmtree(folder / "debian", ignore_errors=True)


def _category(path: str) -> str:
    """The top folder of a drawing, which its name begins with; empty where that says nothing."""
    folder = Path(path).name.split("-")[0]
    return "" if folder == NO_CATEGORY else folder


def _caption(path: Path) -> str:
    """Title and first keywords of an SVG file's metadata; empty where it has none."""
    try:
        tree = ElementTree.parse(path)
    except (OSError, ElementTree.ParseError):
        return ""
    work = next((element for element in tree.iter() if element.tag.endswith("}Work")), None)
    if work is None:
        return ""
    title = " ".join((work.findtext(f"{DUBLIN_CORE}title") or "").replace("_", " ").split())
    subject = work.find(f"{DUBLIN_CORE}subject")
    items = [] if subject is None else [element.text or "" for element in subject.iter() if element.tag.endswith("}li")]
    keywords = dict.fromkeys(" ".join(item.replace("_", " ").split()) for item in items)
    keywords.pop("", None)
    return ": ".join(filter(None, (title, ", ".join(list(keywords)[:KEYWORDS]))))


def _small(path: Path) -> Image.Image | None:
    """A drawing in the middle of a white square of IMAGE_SIZE pixels, RGB; None where it cannot be read."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the size is looked at below
            picture = Image.open(path)
        if picture.width * picture.height > LARGEST_IMAGE:
            return None
        image = picture.convert("RGBA")
        image.thumbnail((IMAGE_SIZE, IMAGE_SIZE))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    square = Image.new("RGBA", (IMAGE_SIZE, IMAGE_SIZE), "white")
    square.alpha_composite(image, ((IMAGE_SIZE - image.width) // 2, (IMAGE_SIZE - image.height) // 2))
    return square.convert("RGB")
