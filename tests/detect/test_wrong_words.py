"""The surprise of words against its definition by loops, and planted wrong words."""

import math

import pytest
import torch

from fiftyone_ecif.detect.wrong_words import Captions, spans_of, without

THINGS = {"apple": "fruit", "pear": "fruit", "cow": "animal", "horse": "animal", "car": "vehicle", "truck": "vehicle"}
SCALE = 8.0
PLACES = ("field", "street", "table")


def unit(rows):
    return torch.nn.functional.normalize(rows, dim=-1)


def code(word):
    """A word's embedding."""
    return torch.randn(24, generator=torch.Generator().manual_seed(sum(map(ord, word))))


def said(text):
    """A caption's embedding: the sum of those of its words, in a narrow cone."""
    return unit(sum((code(word) for word in text.split()), torch.zeros(24)) + 3)


def drawn_pairs(pairs=120):
    """Captions such as "red cow animal field", and images that show what they say."""
    colors = ("red", "green", "blue", "white")
    texts = [
        f"{colors[n % 4]} {thing} {THINGS[thing]} {PLACES[n % 3]}"
        for n, thing in ((n, list(THINGS)[n % len(THINGS)]) for n in range(pairs))
    ]
    noise = 0.3 * torch.randn(pairs, 24, generator=torch.Generator().manual_seed(0))
    return texts, unit(torch.stack([said(text) for text in texts]) + noise)


def surprise(texts, image, row):
    captions = Captions(texts, image, torch.stack([said(text) for text in texts]), SCALE)
    spans = spans_of(texts[row])
    words = [texts[row][start:end] for start, end in spans]
    return words, captions.surprise(row, words, torch.stack([said(without(texts[row], span)) for span in spans]))


def test_the_surprise_of_words_is_its_definition():
    texts, image = drawn_pairs(40)
    words, found = surprise(texts, image, 7)
    text = torch.stack([said(each) for each in texts]).double()
    others, mean = [row for row in range(40) if row != 7], text.mean(0)

    def nearest(query, rows, count):
        return sorted(others, key=lambda row: -float(query @ rows[row]))[:count]

    def alike(query):
        about = [unit(text[row] - mean) for row in range(40)]
        near = nearest(query, about, 5)
        return sum(float(query @ about[row]) for row in near) / 5, nearest(query, about, 30)

    def log(rows, word):
        return math.log(sum(word in texts[row].split() for row in rows) + 0.5)

    for place, word in enumerate(words):
        rest = said(" ".join(other for other in texts[7].split() if other != word)).double()
        closer, near = alike(unit(rest - mean))
        expected = log(others, word) - log(nearest(image[7], image, 30), word) - log(near, word)
        expected += 15 * (closer - alike(unit(text[7] - mean))[0]) + SCALE * float((rest - text[7]) @ image[7].double())
        assert found[place].item() == pytest.approx(expected, abs=1e-4)


def test_a_word_that_was_put_into_a_caption_is_named_first():
    texts, image = drawn_pairs()
    found = 0
    for row in range(0, 120, 6):
        thing, changed = texts[row].split()[1], list(texts)
        wrong = next(other for other in THINGS if THINGS[other] != THINGS[thing])
        changed[row] = texts[row].replace(thing, wrong)
        words, scores = surprise(changed, image, row)
        found += words[scores.argmax()] == wrong
    assert found >= 18


@pytest.mark.parametrize(
    ("text", "rests"),
    [
        ("star: sign, shape", ["sign, shape", "star: shape", "star: sign"]),
        ("a dog, of a cat", ["a, of a cat", "a dog, of a"]),
        ("Österreich 日本語", ["日本語", "Österreich"]),
        ("x: 12", []),
    ],
)
def test_a_caption_is_left_with_its_other_words(text, rests):
    assert [without(text, span) for span in spans_of(text)] == rests


def test_few_captions_give_numbers():
    texts, image = drawn_pairs(3)
    assert surprise(texts, image, 0)[1].isfinite().all()
