"""Fashion-MNIST as captioned pairs: from FiftyOne's zoo, else from the Debian package of the same data."""

from __future__ import annotations

import gzip
import json
import logging
import os
import threading
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.data.debian import SourceUnavailable, debian_files
from benchmarks.data.pairs import PairTable, write_captions, write_images
from fiftyone_ecif.features import cache_folder

logger = logging.getLogger(__name__)

CLASS_NAMES = [
    "T-shirt", "pair of trousers", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot",
]  # fmt: skip
TEMPLATES = (
    "a photo of one {}",
    "product picture: {}, front view",
    "this {} is for sale in the online shop",
    "a small gray picture of the {}",
    "new this season: {}",
    "from a fashion catalogue: {}",
    "the {} that everybody wants",
)
DEBIAN_PACKAGE = "dataset-fashion-mnist"
DEBIAN_FOLDER = Path("usr/share/datasets/fashion-mnist")
NETWORK_PATIENCE = 4.0  # seconds; a machine without a network must go on to the next source quickly

Arrays = dict[str, np.ndarray]  # train_images, train_labels, test_images, test_labels


def load(train: int = 10_000, heldout: int = 2_000, seed: int = 0, progress: bool = True) -> PairTable:
    """A random part of Fashion-MNIST as pairs, captioned from templates.

    Args:
        train: number of training pairs, from the 60,000 training images
        heldout: number of held-out pairs, from the 10,000 test images
        seed: of the choice of images and of the templates drawn
        progress: whether to show a progress bar

    Returns:
        training pairs first, then held-out ones

    Raises:
        SourceUnavailable: if neither the zoo nor the Debian package can be had
    """
    folder = cache_folder("fashion-mnist")
    arrays, source = _cached_arrays(folder)
    rng = np.random.default_rng(seed)
    filepaths: list[str] = []
    labels = []
    for part, count in (("train", train), ("test", heldout)):
        available = len(arrays[f"{part}_labels"])
        if count > available:
            raise ValueError(f"Fashion-MNIST has {available} {part} images; {count} were asked for.")
        rows = rng.permutation(available)[:count]
        names = [f"{part}-{row:05d}" for row in rows]
        filepaths += write_images(arrays[f"{part}_images"][rows], names, folder / "images", progress)
        labels.append(arrays[f"{part}_labels"][rows].astype(np.int64))
    all_labels = np.concatenate(labels)
    return PairTable(
        filepaths=filepaths,
        captions=write_captions(all_labels, CLASS_NAMES, TEMPLATES, rng),
        labels=all_labels,
        class_names=CLASS_NAMES,
        split=np.array(["train"] * train + ["heldout"] * heldout),
        templates=TEMPLATES,
        source=f"Fashion-MNIST from {source}",
    )


def _cached_arrays(folder: Path) -> tuple[Arrays, str]:
    """All images and labels, fetched once, and the name of their source."""
    cached = folder / "arrays.npz"
    if not cached.exists():
        arrays, source = _fetch(folder)
        contents: dict[str, Any] = {"source": np.array(source), **arrays}
        part = cached.with_suffix(".npz.part")
        with open(part, "wb") as file:
            np.savez_compressed(file, **contents)
        os.replace(part, cached)
    with np.load(cached) as stored:
        arrays = {name: stored[name] for name in stored.files}
    return arrays, str(arrays.pop("source"))


def _fetch(folder: Path) -> tuple[Arrays, str]:
    """The arrays of the first source that can be reached."""
    sources: tuple[tuple[str, Callable[[Path], Arrays]], ...] = (
        ("FiftyOne's dataset zoo", _from_zoo),
        (f"the Debian package {DEBIAN_PACKAGE}", _from_debian),
    )
    reasons = []
    for name, read in sources:
        try:
            return read(folder), name
        except SourceUnavailable as reason:
            logger.info("Fashion-MNIST: not from %s (%s)", name, reason)
            reasons.append(f"{name}: {reason}")
    raise SourceUnavailable("Fashion-MNIST cannot be had here. " + "; ".join(reasons))


def _from_zoo(folder: Path) -> Arrays:
    """Download through FiftyOne's zoo and read the files it leaves."""
    from torchvision.datasets import FashionMNIST  # the zoo downloads from torchvision's mirror

    if not _answers(FashionMNIST.mirrors[0] + FashionMNIST.resources[1][0]):
        raise SourceUnavailable("its server does not answer")
    import fiftyone.zoo as foz

    try:
        _, dataset_folder = foz.download_zoo_dataset("fashion-mnist", splits=["train", "test"])
    except Exception as error:  # a download fails in many ways; the next source follows
        raise SourceUnavailable(f"the download failed: {error}") from error
    arrays = {}
    for part in ("train", "test"):
        split_folder = Path(dataset_folder) / part
        named = sorted(json.loads((split_folder / "labels.json").read_text())["labels"].items())
        files = {path.stem: path for path in (split_folder / "data").iterdir()}
        arrays[f"{part}_images"] = np.stack([np.asarray(Image.open(files[name]).convert("L")) for name, _ in named])
        arrays[f"{part}_labels"] = np.array([label for _, label in named], dtype=np.uint8)
    return arrays


def _answers(url: str) -> bool:
    """Whether a URL answers within a few seconds, name look-up included."""
    answered = threading.Event()

    def ask() -> None:
        try:
            with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=NETWORK_PATIENCE):
                answered.set()
        except OSError:
            pass

    thread = threading.Thread(target=ask, daemon=True)  # a name look-up has no time limit of its own
    thread.start()
    thread.join(NETWORK_PATIENCE)
    return answered.is_set()


def _from_debian(folder: Path) -> Arrays:
    """Read the Debian package of the data."""
    files = debian_files([DEBIAN_PACKAGE], DEBIAN_FOLDER, folder)
    arrays = {}
    for part, stem in (("train", "train"), ("test", "t10k")):
        for kind, ending, header in (("images", "images-idx3-ubyte.gz", 16), ("labels", "labels-idx1-ubyte.gz", 8)):
            with gzip.open(files / f"{stem}-{ending}") as file:
                flat = np.frombuffer(file.read(), dtype=np.uint8, offset=header)
            arrays[f"{part}_{kind}"] = flat.reshape(-1, 28, 28) if kind == "images" else flat
    return arrays
