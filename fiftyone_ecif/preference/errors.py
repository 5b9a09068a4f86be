"""Plausible errors put into right texts: an object, count, colour or relation becomes one that the image lacks."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from PIL import Image

SURE = math.log(0.95 / 0.05)
"""Nats by which the image must speak for the right text against the wrong one: 95 % against 5 %."""

TRIED = 24
"""Exchanges of a text that are tried."""

WORDS = {
    "colour": (
        "red, orange, yellow, green, blue, purple, pink, brown, black, white, gray",
        "grey, silver, golden, beige",
    ),
    "count": ("one, two, three, four, five, six, seven, eight, nine, ten",),
    "relation": (
        "left, right",
        "above, below",
        "over, under",
        "in front of, behind",
        "inside, outside",
        "on top of, underneath",
        "near, far from",
        "standing, sitting, lying, running, jumping, walking",
        "big, small",
        "large, tiny",
        "open, closed",
    ),
    "object": (
        "man, woman, boy, girl, child, baby",
        "men, women, boys, girls, children",
        "dog, cat, horse, sheep, cow, elephant, bear, zebra, giraffe, bird, rabbit, mouse",
        "dogs, cats, horses, cows, elephants, bears, zebras, giraffes, birds",
        "car, bus, train, truck, boat, airplane, bicycle, motorcycle, skateboard, surfboard",
        "cars, buses, trains, trucks, boats, airplanes, bicycles, motorcycles",
        "banana, apple, sandwich, orange, broccoli, carrot, pizza, donut, cake, bread, salad",
        "table, chair, couch, bed, bench, desk, toilet, sink, oven, refrigerator",
        "cup, bottle, glass, bowl, fork, knife, spoon, plate",
        "phone, laptop, television, keyboard, book, clock, vase, umbrella, backpack, suitcase",
        "shirt, trouser, pullover, dress, coat, sandal, sneaker, bag, boot, hat, tie",
        "street, beach, park, field, kitchen, bathroom, bedroom, office, forest, mountain, river, room",
        "circle, square, triangle, star, rectangle, ellipse, line, cross",
        "frisbee, kite, ball, bat, racket, skis, snowboard",
    ),
}
"""What stands for what: words of a group are of one kind, and exchanged for each other."""

_GROUPS = {
    word: (kind, group)
    for kind, lines in WORDS.items()
    for line in lines
    for group in [line.split(", ")]
    for word in group
}
_PATTERN = re.compile(rf"\b({'|'.join(sorted(map(re.escape, _GROUPS), key=len, reverse=True))})\b", re.IGNORECASE)


@dataclass(frozen=True)
class InjectedError:
    """A right text with one thing wrong.

    Attributes:
        text: the wrong one
        kind: "object", "count", "colour" or "relation"
        nats: by which the image speaks for the right text against it
    """

    text: str
    kind: str
    nats: float


def exchanges(text: str) -> list[tuple[str, str]]:
    """Every text in which one word stands for another of its group, with the kind of word."""
    found = []
    for match in _PATTERN.finditer(text):
        kind, group = _GROUPS[match[0].lower()]
        for other in group:
            if other != match[0].lower():
                put = other.capitalize() if match[0][0].isupper() else other
                before, after = text[: match.start()], text[match.end() :]
                found.append((_with_article(before, put) + put + after, kind))
    return found


def injected(
    text: str, image: Image.Image, fit: Callable[[Image.Image, Sequence[str]], Sequence[float]], seed: int
) -> InjectedError | None:
    """A wrong text of those that the image surely does not show, drawn by chance; None if there is none.

    Args:
        text: the right one
        image: what it is about
        fit: nats by which an image speaks for each of several texts
        seed: of the draw
    """
    drawn = exchanges(text)
    random.Random(seed).shuffle(drawn)
    drawn = drawn[:TRIED]
    if not drawn:
        return None
    right, *wrong = fit(image, [text, *(each for each, _ in drawn)])
    sure = ((right - nats, each) for nats, each in zip(wrong, drawn, strict=True) if right - nats >= SURE)
    return next((InjectedError(other, kind, nats) for nats, (other, kind) in sure), None)


def _with_article(before: str, word: str) -> str:
    """The text before a word, whose "a" or "an" goes with the word."""
    article = re.search(r"\b(an?)(\s+)$", before, re.IGNORECASE)
    if article is None:
        return before
    fitting = "an" if word[0].lower() in "aeiou" else "a"
    return before[: article.start()] + (fitting.capitalize() if article[1][0].isupper() else fitting) + article[2]
