"""Emoji as four vendors draw them, with their names, from npm packages. docs/data.md has their licences."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from PIL import Image
from tqdm import tqdm

from benchmarks.data.debian import SourceUnavailable
from benchmarks.data.npm import npm_files
from benchmarks.data.pairs import PairTable
from fiftyone_ecif.features import cache_folder

Vendor = Literal["twitter", "google", "apple", "openmoji"]
VENDORS: tuple[Vendor, ...] = get_args(Vendor)
SCORED: Vendor = "google"  # whose drawings the benchmark scores, by models that were trained on the others'
DATASOURCE_VERSION, OPENMOJI_VERSION = "16.0.0", "17.0.0"
OPENMOJI_SIZE = 128  # pixels; the others' drawings have 64
KEYWORDS = 6  # of an OpenMoji caption at most

Drawing = tuple[str, str, str, Callable[[], Image.Image]]
"""File name, caption, category, and the function that opens the picture."""


@dataclass(frozen=True)
class _Entry:
    """A line of a vendor's index."""

    name: str
    caption: str
    category: str


def drawings(vendor: Vendor, progress: bool = True) -> PairTable:
    """All drawings of one vendor, on white, with their names: "grinning face"; OpenMoji's with keywords as well.

    Skin tones are left out. A pair's category is its emoji's group and subgroup in Unicode's list, such as
    "Animals & Nature: animal-bird". There are no classes.

    Args:
        vendor: who has drawn them
        progress: whether to show a progress bar

    Returns:
        the pairs, all of split "base"

    Raises:
        SourceUnavailable: if the vendor's npm package cannot be had
    """
    folder = cache_folder("emoji") / vendor
    index = folder / "index.json"
    if not index.exists():
        _prepare(vendor, folder, index, progress)
    entries = [_Entry(*entry) for entry in json.loads(index.read_text())]
    return PairTable(
        filepaths=[str(folder / entry.name) for entry in entries],
        captions=[entry.caption for entry in entries],
        labels=np.full(len(entries), -1),
        class_names=[],
        split=np.array(["base"] * len(entries)),
        templates=(),
        source=f"emoji as drawn by {vendor}, from the npm package {_package(vendor)}",
        categories=[entry.category for entry in entries],
    )


def load(
    train: int = 1_500, heldout: int = 400, seed: int = 0, progress: bool = True, vendor: Vendor = SCORED
) -> PairTable:
    """A random part of one vendor's drawings as pairs.

    Args:
        train: number of training pairs
        heldout: number of held-out pairs
        seed: of the choice of pairs
        progress: whether to show a progress bar
        vendor: who has drawn them

    Returns:
        training pairs first, then held-out ones

    Raises:
        SourceUnavailable: if the vendor's npm package cannot be had
        ValueError: if there are fewer pairs than asked for
    """
    table = drawings(vendor, progress)
    if train + heldout > len(table):
        raise ValueError(f"{table.source}: there are {len(table)} pairs; {train} + {heldout} were asked for.")
    table = table.select(np.random.default_rng(seed).permutation(len(table))[: train + heldout])
    return table.with_split(np.array(["train"] * train + ["heldout"] * heldout))


def _package(vendor: Vendor) -> str:
    return "openmoji" if vendor == "openmoji" else f"emoji-datasource-{vendor}"


def _prepare(vendor: Vendor, folder: Path, index: Path, progress: bool) -> None:
    """Write every drawing as a picture on white, and last the index."""
    folder.mkdir(parents=True, exist_ok=True)
    found = _openmoji if vendor == "openmoji" else _datasource
    entries = []
    try:
        listed = list(found(vendor, folder))
    except SourceUnavailable as reason:
        raise SourceUnavailable(f"The emoji of {vendor} cannot be had here: {reason}") from reason
    for name, caption, category, picture in tqdm(
        listed, desc=f"data: emoji of {vendor}", unit="image", disable=not progress
    ):
        image = picture().convert("RGBA")
        page = Image.new("RGBA", image.size, "white")
        page.alpha_composite(image)
        part = folder / f"{name}.{os.getpid()}.part"
        page.convert("RGB").save(part, format="PNG")
        os.replace(part, folder / name)
        entries.append((name, caption, category))
    part = index.with_name(f"{index.name}.{os.getpid()}.part")
    part.write_text(json.dumps(entries, ensure_ascii=False))
    os.replace(part, index)
    shutil.rmtree(_unpacked(vendor, folder), ignore_errors=True)


def _unpacked(vendor: Vendor, folder: Path) -> Path:
    """The files of a vendor's package."""
    if vendor == "openmoji":
        return npm_files("openmoji", OPENMOJI_VERSION, ("data/openmoji.csv", "color/svg/"), folder)
    return npm_files(_package(vendor), DATASOURCE_VERSION, ("emoji.json", f"img/{vendor}/64/"), folder)


def _datasource(vendor: Vendor, folder: Path) -> Iterator[Drawing]:
    """What an ``emoji-datasource`` package lists."""
    source = _unpacked(vendor, folder)
    for emoji in json.loads((source / "emoji.json").read_text()):
        path = source / "img" / vendor / "64" / emoji["image"]
        if path.is_file():
            category = f"{emoji['category']}: {emoji['subcategory']}"
            yield emoji["image"], emoji["name"].lower(), category, lambda path=path: Image.open(path)


def _openmoji(vendor: Vendor, folder: Path) -> Iterator[Drawing]:
    """What OpenMoji lists, emoji and others."""
    import resvg_py

    def drawn(path: Path) -> Image.Image:
        rendered = resvg_py.svg_to_bytes(svg_path=str(path), width=OPENMOJI_SIZE, height=OPENMOJI_SIZE)
        return Image.open(io.BytesIO(bytes(rendered)))

    source = _unpacked(vendor, folder)
    with open(source / "data" / "openmoji.csv", newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            path = source / "color" / "svg" / f"{row['hexcode']}.svg"
            if row["skintone"] or not path.is_file():
                continue
            keywords = dict.fromkeys(word.strip() for word in f"{row['tags']},{row['openmoji_tags']}".split(","))
            keywords.pop("", None)
            caption = ": ".join(filter(None, (row["annotation"], ", ".join(list(keywords)[:KEYWORDS]))))
            category = f"{row['group']}: {row['subgroups']}"
            yield f"{path.stem}.png", caption, category, lambda path=path: drawn(path)
