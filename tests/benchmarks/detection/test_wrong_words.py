"""One word of a caption is exchanged, and it is noticed how often that word is named first."""

import itertools

import numpy as np
import pytest
import torch

from benchmarks.data.pairs import PairTable
from benchmarks.detection.wrong_words import named_first, swap_words
from benchmarks.models.model import in_memory
from fiftyone_ecif.core import Head
from fiftyone_ecif.detect.wrong_words import spans_of

WORDS = ("red", "green", "blue", "small", "large", "wide", "circle", "square", "star")
CAPTIONS = [" ".join(each) for each in itertools.product(WORDS[:3], WORDS[3:6], WORDS[6:])]


def words_of(text):
    return [text[start:end] for start, end in spans_of(text)]


def test_one_word_of_each_chosen_caption_is_that_of_another_at_its_place():
    captions = ["one, two: three", "four (five) six", "seven eight", "nine ten eleven"]
    changed, wrong = swap_words(captions, 3, seed=0)
    assert sorted(wrong) == [0, 1, 3] and changed[2] == captions[2]
    for row, place in wrong.items():
        before, after = words_of(captions[row]), words_of(changed[row])
        assert [number for number, pair in enumerate(zip(before, after)) if len(set(pair)) == 2] == [place]
        assert any(words_of(other)[place:][:1] == [after[place]] for other in captions if other != captions[row])
        assert [mark for mark in changed[row] if not mark.isalpha()] == [
            mark for mark in captions[row] if not mark.isalpha()
        ]
    assert len(swap_words(captions, 1, seed=0)[1]) == 1


class WordCounts:
    """Towers that see which words are there: an image shows those of its file's name."""

    loss = "clip"
    head = Head.identity(len(WORDS), len(WORDS), 10.0)

    def text_features(self, texts):
        return torch.tensor([[float(word in text) for word in WORDS] for text in texts]) + 1e-3

    def features(self, table, views=False):
        return in_memory(self.text_features(table.filepaths), self.text_features(table.captions))


def test_where_images_show_what_captions_say_the_wrong_word_is_named_first():
    captions = CAPTIONS * 12
    count = len(captions)
    table = PairTable(captions, captions, np.full(count, -1), [], np.full(count, "train"), (), "words")
    found = named_first(table, WordCounts(), 20, seed=0)
    assert found["named"] >= 0.9
    assert found["chance"] == pytest.approx(1 / 3)
