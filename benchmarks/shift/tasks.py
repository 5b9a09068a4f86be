"""Tasks with a known answer: an image and a query that together ask for one of the captions of a gallery."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.data import emoji, fashion_mnist, openclipart
from benchmarks.data.npm import npm_files
from benchmarks.data.pairs import PairTable
from fiftyone_ecif.features import cache_folder

EVALUATED, ESTIMATED, REFERENCE = 200, 100, 400
"""Items of a task that are asked about, others that the estimator is trained on, and at most so many of those that the
model was fitted on, which half-shifted sets are compared with."""

SEED = 0
VENDORS: tuple[emoji.Vendor, ...] = ("twitter", "google", "apple")
USUAL_VENDOR: emoji.Vendor = "twitter"
OTHER_VENDOR: emoji.Vendor = "google"
LANGUAGES = ("en", "de", "fr", "es", "pl", "ru", "hi", "zh", "ja", "ko")
EMOJIBASE_VERSION = "17.0.0"
GROUPS = {
    **dict.fromkeys(("T-shirt", "pullover", "shirt"), "clothing for the upper body"),
    "coat": "clothing for cold days",
    "dress": "clothing for women",
    "pair of trousers": "clothing for the legs",
    **dict.fromkeys(("sandal", "sneaker", "ankle boot"), "shoe"),
    "bag": "thing to carry",
}
QUESTIONS = ("which {} is this?", "what {} do you see in the picture?", "name the {} that is shown")
FIT_ON_FASHION = 300


@dataclass(frozen=True)
class Items:
    """Items of a task.

    Attributes:
        filepaths: images, (N,)
        queries: what is asked about each, (N,)
        references: the right answers, (N,)
    """

    filepaths: list[str]
    queries: list[str]
    references: list[str]

    def __len__(self) -> int:
        return len(self.filepaths)

    def of(self, rows: Sequence[int]) -> Items:
        """Some of them."""
        return Items(*([column[row] for row in rows] for column in (self.filepaths, self.queries, self.references)))


@dataclass(frozen=True)
class Task:
    """A task: what its model's head is fitted on, what the estimator is trained on, and what is asked.

    Attributes:
        name: of the data set
        fit: pairs for the head
        reference: some of these as items, as they are: what half-shifted sets are compared with
        estimated: items for the estimator
        evaluated: items that are asked about
    """

    name: str
    fit: PairTable
    reference: Items
    estimated: Items
    evaluated: Items


def tasks(names: Sequence[str]) -> list[Task]:
    """The tasks of some data sets, by their names."""
    return [TASKS[name]() for name in names]


def _plain(table: PairTable) -> PairTable:
    """Pairs without their classes, which can be put together with others."""
    return PairTable(
        table.filepaths, table.captions, np.full(len(table), -1), [], table.split, (), table.source, [""] * len(table)
    )


@lru_cache
def emoji_words(language: str) -> dict[str, dict[str, str]]:
    """Label and tags of each emoji in a language, by the lower-case name of its file."""
    folder = npm_files("emojibase-data", EMOJIBASE_VERSION, [f"{each}/compact.json" for each in LANGUAGES],
                       cache_folder("emojibase"))  # fmt: skip
    entries = json.loads((folder / language / "compact.json").read_text())
    return {
        entry["hexcode"].lower(): {"label": entry["label"], "tags": ", ".join(entry.get("tags") or [entry["label"]])}
        for entry in entries
    }


def emoji_items(vendor: emoji.Vendor, language: str = "en") -> dict[str, Items]:
    """The same emoji as one vendor draws them and asked about in one language, by "fit", "estimated", "evaluated"."""
    drawn = {each: {Path(p).stem.lower(): p for p in emoji.drawings(each, False).filepaths} for each in VENDORS}
    words = {each: emoji_words(each) for each in LANGUAGES}
    english, asked = words["en"], words[language]
    common = sorted(set.intersection(*map(set, drawn.values()), *map(set, words.values())))
    order = [common[row] for row in np.random.default_rng(SEED).permutation(len(common))]
    parts = {"evaluated": order[:EVALUATED], "estimated": order[EVALUATED : EVALUATED + ESTIMATED]}
    parts["fit"] = order[EVALUATED + ESTIMATED :]
    return {
        part: Items(
            [drawn[vendor][name] for name in names],
            [asked[name]["tags"] for name in names],
            [english[name]["label"] for name in names],
        )
        for part, names in parts.items()
    }


def drawings_task() -> Task:
    """Emoji: the query is their keywords, the answer their name."""
    parts = emoji_items(USUAL_VENDOR)
    fit = parts["fit"]
    table = PairTable(fit.filepaths, fit.references, np.full(len(fit), -1), [], np.array(["base"] * len(fit)), (),
                      "emoji", [""] * len(fit))  # fmt: skip
    return Task("emoji", table, fit.of(range(REFERENCE)), parts["estimated"], parts["evaluated"])


def openclipart_items(table: PairTable) -> Items:
    """Openclipart: the query is the keywords of a drawing, the answer its title; who lacks one is left out."""
    found: dict[str, tuple[str, str]] = {}
    for path, caption in zip(table.filepaths, table.captions):
        title, _, keywords = caption.partition(": ")
        if keywords and title not in found:
            found[title] = path, keywords
    return Items([path for path, _ in found.values()], [words for _, words in found.values()], list(found))


def openclipart_task() -> Task:
    """The model is fitted on drawings that nothing is asked about."""
    every = openclipart.load(train=2_800, heldout=600, seed=SEED, progress=False)
    others = set(every.filepaths[:1_600])
    rows = np.array([path not in others for path in every.filepaths])
    items = openclipart_items(every.select(rows))
    fit = every.select(~rows)
    evaluated, estimated = items.of(range(EVALUATED)), items.of(range(EVALUATED, EVALUATED + ESTIMATED))
    return Task("openclipart", _plain(fit), openclipart_items(fit).of(range(REFERENCE)), estimated, evaluated)


def fashion_task() -> Task:
    """Fashion-MNIST: the query names a group of classes, the answer is the class."""
    every = fashion_mnist.load(train=FIT_ON_FASHION, heldout=EVALUATED + ESTIMATED, seed=SEED, progress=False)
    names = [every.class_names[label] for label in every.labels]
    items = Items(
        every.filepaths,
        [QUESTIONS[row % len(QUESTIONS)].format(GROUPS[name]) for row, name in enumerate(names)],
        [f"a {name}" for name in names],
    )
    train, heldout = (np.flatnonzero((every.split == "train") == which).tolist() for which in (True, False))
    evaluated, estimated = items.of(heldout[:EVALUATED]), items.of(heldout[EVALUATED:])
    return Task(
        "fashion-mnist", _plain(every.select(every.split == "train")), items.of(train[:REFERENCE]), estimated, evaluated
    )


TASKS = {"emoji": drawings_task, "openclipart": openclipart_task, "fashion-mnist": fashion_task}


def looks_like_a_photograph(path: str) -> float:
    """How much a drawing looks like a photograph: the share of its pixels that are neither white, black nor flat."""
    with Image.open(path) as file:
        pixels = np.asarray(file.convert("L").resize((96, 96)), dtype=float)
    steps = np.abs(np.diff(pixels, axis=0))[:, :-1] + np.abs(np.diff(pixels, axis=1))[:-1]
    return float(((steps > 0.5) & (steps < 24)).mean())
