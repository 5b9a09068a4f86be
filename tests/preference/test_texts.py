"""Errors that are put into texts, which pairs teach nothing, and what tells chosen from rejected texts."""

import pytest
from PIL import Image

from fiftyone_ecif.preference import PreferencePair, balanced, bias_of, distinct, exchanges, injected, reason_against

IMAGE = Image.new("RGB", (8, 8))


@pytest.mark.parametrize(
    ("text", "kind", "expected"),
    [
        ("Two dogs on a street", "count", "Three dogs on a street"),
        ("a dog to the left", "relation", "a dog to the right"),
        ("a cat in front of a car", "relation", "a cat behind a car"),
        ("a red car", "colour", "an orange car"),
        ("an apple", "object", "a banana"),
    ],
)
def test_one_word_stands_for_another_of_its_kind(text, kind, expected):
    assert (expected, kind) in exchanges(text)
    assert all(each != text for each, _ in exchanges(text))


def test_words_inside_of_others_stay():
    assert exchanges("a carpet, reddish, someone") == []


def test_only_what_the_image_surely_lacks_is_put_in():
    shown = {"red", "orange"}  # the image shows these alone

    def fit(image, texts):
        return [5.0 if shown & set(text.split()) else 1.0 for text in texts]

    for seed in range(20):
        found = injected("a red ball", IMAGE, fit, seed)
        assert found is not None and not shown & set(found.text.split()) and found.nats == 4.0
    assert len({injected("a red ball", IMAGE, fit, seed).text for seed in range(20)}) > 3
    assert injected("a red ball", IMAGE, lambda image, texts: [1.0] * len(texts), 0) is None
    assert injected("nothing of note", IMAGE, fit, 0) is None


@pytest.mark.parametrize(
    ("rejected", "reason"),
    [
        ("", "empty"),
        (" \n", "empty"),
        ("a red ball", "is the chosen one"),
        ("A  red ball", "says what the chosen one says"),
        ("The red balls.", "says what the chosen one says"),
        ("I'm sorry, I cannot see it.", "refusal"),
        ("word " * 351, "350 words"),
        ("a <image> ball", "models take for a mark"),
        ("a red ball<|im_end|>", "models take for a mark"),
    ],
)
def test_pairs_that_teach_nothing_are_told(rejected, reason):
    assert reason in reason_against("a red ball", rejected)


@pytest.mark.parametrize(
    "rejected", ["a blue ball", "two red balls", "ball red a", "<b>a blue ball</b>", "word " * 350]
)
def test_other_pairs_are_kept(rejected):
    assert reason_against("a red ball", rejected) is None


def test_repetitions_are_left_out():
    pairs = [
        PreferencePair("1", "one.png", "what", "red", "blue", "fixed"),
        PreferencePair("1", "one.png", "what", "red", "Blue ", "image_weakened", 700),
        PreferencePair("2", "two.png", "what", "red", "blue", "fixed"),
    ]
    assert distinct(pairs) == [pairs[0], pairs[2]]
    assert len({each.key for each in pairs}) == 3


def test_bias_is_the_difference_of_means():
    found = bias_of([("A long answer, here.", "short"), ("Three words here.", "one two three 4")])
    assert (found.chosen_words, found.rejected_words) == (3.5, 2.5)
    assert found.length == pytest.approx(1 / 3)
    assert found.style["capital"] == 1.0 and found.style["commas"] == 0.5 and found.style["numerals"] == -0.5
    assert bias_of([]).length == 0.0


@pytest.mark.parametrize("longer", [0, 1])
def test_balancing_leaves_at_most_five_percent(longer):
    pairs = [("w " * (5 + number % 7), "w " * (2 + number % 5)) for number in range(50)]
    pairs += [("w " * 4, "w " * 6)] * 30
    pairs = [pair if longer == 0 else pair[::-1] for pair in pairs]
    assert abs(bias_of(pairs).length) > 0.05
    kept = balanced(pairs)
    assert abs(bias_of([pairs[place] for place in kept]).length) <= 0.05 and len(kept) >= 40
    assert balanced(pairs[:3]) == [] or longer
    assert balanced([("a b", "c d")] * 3) == [0, 1, 2]
