"""Planted noise: wrong captions, and the record of which ones are wrong."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np

from benchmarks.data.pairs import PairTable, write_captions

PlantedKind = Literal["uniform", "confusable", "caption-swap", "same-category"]
Kind = Literal["uniform", "confusable", "caption-swap", "same-category", "natural"]
KINDS: tuple[Kind, ...] = get_args(Kind)
CONFUSABLE_FASHION = (
    ("T-shirt", "shirt"),
    ("pullover", "coat"),
    ("sneaker", "ankle boot"),
    ("dress", "coat"),
    ("sandal", "sneaker"),
)
CONFUSABLE_DIGITS = (
    ("four", "nine"),
    ("three", "eight"),
    ("one", "seven"),
    ("five", "six"),
    ("zero", "six"),
    ("two", "seven"),
)
NEAR = 10  # a confusable caption is drawn from this many nearest ones
SAME_MEANING = 0.95  # captions of a higher cosine say the same thing


def plant(table: PairTable, kind: str, rate: float, seed: int) -> tuple[list[str], np.ndarray | None]:
    """Plant noise among the training pairs; captions of other pairs stay as they are.

    Args:
        table: pairs; those of split "train" are the ones that can get a wrong caption
        kind: "uniform": the caption of any other class, or of any other pair where there are no classes;
            "confusable": of a class, or with a meaning, that is near;
            "caption-swap": captions change places among the chosen pairs;
            "same-category": captions change places between pairs of one category;
            "natural": nothing is planted, and so nobody knows which captions are wrong
        rate: share of the training pairs, 0..1; says nothing for "natural"
        seed: of the random choice

    Returns:
        the N captions, and (N,) bool, True where the caption was planted; None in place of it for "natural"

    Raises:
        ValueError: if the kind or the rate makes no sense for these pairs
    """
    if kind not in KINDS:
        raise ValueError(f"There is no noise of kind '{kind}'; choose one of {', '.join(KINDS)}.")
    if not 0.0 <= rate <= 1.0:
        raise ValueError(f"The noise rate is a share between 0 and 1, not {rate}.")
    if kind == "natural":
        return list(table.captions), None
    rows = np.flatnonzero(table.split == "train")
    train = table.select(rows)
    of_classes = {"uniform": swap_uniform, "confusable": swap_confusable}
    of_texts = {"uniform": swap_captions, "confusable": swap_near}
    of_any = {"caption-swap": swap_captions, "same-category": swap_within_categories}
    swap = (of_any | (of_classes if table.class_names else of_texts))[kind]
    wrong, swapped = swap(train, rate, seed)
    captions = list(table.captions)
    planted: np.ndarray = np.zeros(len(table), dtype=bool)
    for row, caption, bad in zip(rows, wrong, swapped):
        captions[row], planted[row] = caption, bad
    return captions, planted


def swap_uniform(table: PairTable, rate: float, seed: int) -> tuple[list[str], np.ndarray]:
    """Give a share of the pairs the caption of another class, every wrong class equally likely.

    Args:
        table: pairs whose captions come from templates
        rate: share of the pairs to swap, 0..1
        seed: of the random choice

    Returns:
        the N captions, and (N,) bool, True where the caption was swapped
    """
    rng = np.random.default_rng(seed)
    planted = _choose(np.ones(len(table), dtype=bool), rate, rng)
    shift = rng.integers(1, len(table.class_names), size=len(table))
    wrong = (table.labels + shift) % len(table.class_names)
    return _rewrite(table, planted, wrong, rng), planted


def swap_confusable(
    table: PairTable, rate: float, seed: int, confusable: Sequence[tuple[str, str]] | None = None
) -> tuple[list[str], np.ndarray]:
    """Give a share of the pairs the caption of a class that looks alike.

    Args:
        table: pairs whose captions come from templates
        rate: share of all pairs to swap, 0..1; only pairs of confusable classes are swapped
        seed: of the random choice
        confusable: pairs of class names, used both ways; a class in several pairs draws among them; None for those
            known for Fashion-MNIST or the digits

    Returns:
        the N captions, and (N,) bool, True where the caption was swapped

    Raises:
        ValueError: if a class name is unknown, or fewer pairs than asked for belong to confusable classes
    """
    rng = np.random.default_rng(seed)
    partners: dict[int, list[int]] = {}
    for first, second in _known_confusable(table) if confusable is None else confusable:
        for name in (first, second):
            if name not in table.class_names:
                raise ValueError(f"There is no class '{name}'; the classes are {', '.join(table.class_names)}.")
        a, b = table.class_names.index(first), table.class_names.index(second)
        partners.setdefault(a, []).append(b)
        partners.setdefault(b, []).append(a)

    planted = _choose(np.isin(table.labels, list(partners)), rate, rng)
    wrong = table.labels.copy()
    for row in np.flatnonzero(planted):
        wrong[row] = rng.choice(partners[table.labels[row]])
    return _rewrite(table, planted, wrong, rng), planted


def swap_captions(table: PairTable, rate: float, seed: int) -> tuple[list[str], np.ndarray]:
    """Let captions change places among a share of the pairs.

    Args:
        table: any pairs
        rate: share of the pairs whose captions change places, 0..1
        seed: of the random choice

    Returns:
        the N captions, and (N,) bool, True where the caption is now that of another class, or another text where
        there are no classes; a caption that cannot but land on its like is not counted
    """
    rng = np.random.default_rng(seed)
    rows = rng.permutation(np.flatnonzero(_choose(np.ones(len(table), dtype=bool), rate, rng)))
    content = _content(table)
    source = np.roll(rows, 1)
    for _ in range(100):
        like = np.flatnonzero(content[source] == content[rows])
        if not len(like):
            break
        for place, other in zip(like, rng.integers(len(rows), size=len(like))):
            source[[place, other]] = source[[other, place]]
    captions = list(table.captions)
    planted: np.ndarray = np.zeros(len(table), dtype=bool)
    for row, taken in zip(rows, source):
        captions[row], planted[row] = table.captions[taken], content[taken] != content[row]
    return captions, planted


def swap_within_categories(table: PairTable, rate: float, seed: int) -> tuple[list[str], np.ndarray]:
    """Let captions change places between two pairs of one category, as often as the rate says.

    Args:
        table: pairs with categories; those whose category is empty keep their captions
        rate: share of the pairs whose captions change places, 0..1
        seed: of the random choice

    Returns:
        the N captions, and (N,) bool, True where the caption is now another one of the same category

    Raises:
        ValueError: if the data has no categories, or too few different captions within them
    """
    if not table.categories:
        raise ValueError(f"Swaps within a category need categories, and {table.source} has none.")
    rng = np.random.default_rng(seed)
    category, content = np.array(table.categories), _content(table)
    captions = list(table.captions)
    planted, count = np.zeros(len(table), dtype=bool), round(rate * len(table))
    for row in rng.permutation(np.flatnonzero(category != "")):
        if planted.sum() + 2 > count:
            break
        partners = np.flatnonzero((category == category[row]) & (content != content[row]) & ~planted)
        if not planted[row] and len(partners):
            pair = [row, rng.choice(partners)]
            captions[pair[0]], captions[pair[1]] = table.captions[pair[1]], table.captions[pair[0]]
            planted[pair] = True
    if planted.sum() + 2 <= count:
        raise ValueError(
            f"{count} pairs are to be swapped, but only {planted.sum()} can be within their categories; lower the rate."
        )
    return captions, planted


def swap_near(table: PairTable, rate: float, seed: int) -> tuple[list[str], np.ndarray]:
    """Give a share of the pairs a caption of another pair that means something near, but not the same.

    Args:
        table: pairs with free captions
        rate: share of the pairs to swap, 0..1
        seed: of the random choice

    Returns:
        the N captions, and (N,) bool, True where the caption was swapped
    """
    from benchmarks.models.sentence_encoder import sentence_embeddings

    rng = np.random.default_rng(seed)
    planted = _choose(np.ones(len(table), dtype=bool), rate, rng)
    texts = sorted(set(table.captions))
    embeddings = dict(zip(texts, range(len(texts))))
    vectors = sentence_embeddings(texts)
    captions = list(table.captions)
    for row in np.flatnonzero(planted):
        cosine = vectors @ vectors[embeddings[captions[row]]]
        cosine[cosine > SAME_MEANING] = -1.0
        captions[row] = texts[rng.choice(np.argsort(-cosine)[:NEAR])]
    return captions, planted


def _content(table: PairTable) -> np.ndarray:
    """What each caption says, as a number (N,): its class, or its text where there are no classes."""
    return table.labels if table.class_names else np.unique(table.captions, return_inverse=True)[1]


def _known_confusable(table: PairTable) -> Sequence[tuple[str, str]]:
    """The pairs of classes that look alike, for data sets where they are known."""
    for confusable in (CONFUSABLE_FASHION, CONFUSABLE_DIGITS):
        if {name for pair in confusable for name in pair} <= set(table.class_names):
            return confusable
    table.require_classes("Noise between classes that look alike")
    raise ValueError(f"Which classes look alike is known for Fashion-MNIST and the digits, not for {table.source}.")


def _choose(eligible: np.ndarray, rate: float, rng: np.random.Generator) -> np.ndarray:
    """A mask (N,) with the share ``rate`` of N rows True, all of them eligible."""
    rows, count = np.flatnonzero(eligible), round(rate * len(eligible))
    if count > len(rows):
        raise ValueError(f"{count} pairs are to be swapped, but only {len(rows)} can be; lower the rate.")
    planted: np.ndarray = np.zeros(len(eligible), dtype=bool)
    planted[rng.choice(rows, size=count, replace=False)] = True
    return planted


def _rewrite(table: PairTable, planted: np.ndarray, wrong: np.ndarray, rng: np.random.Generator) -> list[str]:
    """The captions with those of planted rows rewritten for their wrong class."""
    swapped = write_captions(wrong, table.class_names, table.templates, rng)
    return [new if bad else old for new, old, bad in zip(swapped, table.captions, planted)]
