"""Who gets which text, against the sum over all ways to give the texts out."""

import itertools

import numpy as np
import pytest

from fiftyone_ecif.detect.association import Cells, associate


def cells(ratio, odds, own=None, shared=None, frees=None):
    """Cells of a matrix (A, C) of ratios; a ratio of 0 is no cell."""
    images, texts = ratio.shape
    row, column = np.nonzero(ratio)
    own = np.arange(images) if own is None else np.array(own)
    frees = np.ones(images, dtype=bool) if frees is None else np.array(frees)
    shared = np.zeros(texts) if shared is None else np.array(shared)
    none = np.zeros((2, images)), np.zeros(texts)
    return Cells(row, column, ratio[row, column], own, np.array(odds), frees, shared, *none)


def enumerated(ratio, odds, own, shared, exchanged):
    """(A, C) probabilities of each text and (A,) of each image's own, by going through every way to give texts out.

    Equal texts have a place for each image that has them. A place that nobody gets weighs 1 less what is exchanged.
    """
    images, texts = ratio.shape
    wrong = (1 / (1 + np.array(odds))).sum()
    choices = [("none",), ("own",), *(("place", n) for n in range(images)), *(("shared", c) for c in range(texts))]
    found, kept, total = np.zeros((images, texts)), np.zeros(images), 0.0
    for way in itertools.product(choices, repeat=images):
        taken = [n if kind == "own" else where[0] for n, (kind, *where) in enumerate(way) if kind in ("own", "place")]
        if len(taken) != len(set(taken)):
            continue
        weight = (1 - exchanged) ** (images - len(taken))
        for n, (kind, *where) in enumerate(way):
            if kind == "none":
                weight *= (1 - exchanged) * (1 - shared.sum())
            elif kind == "own":
                weight *= odds[n]
            elif kind == "place":
                weight *= exchanged * ratio[n, own[where[0]]] / wrong
            else:
                weight *= (1 - exchanged) * ratio[n, where[0]] * shared[where[0]]
        total += weight
        for n, (kind, *where) in enumerate(way):
            if kind == "own":
                kept[n] += weight
            elif kind != "none":
                found[n, own[where[0]] if kind == "place" else where[0]] += weight
    return found / total, kept / total


def check(ratio, odds, own=None, shared=None, tolerance=1e-3):
    question = cells(ratio, odds, own, shared)
    found = associate(question)
    expected, kept = enumerated(ratio, odds, question.own, question.shared, found.exchanged)
    assert found.probability == pytest.approx(expected[question.row, question.column], abs=tolerance)
    assert found.own == pytest.approx(kept, abs=tolerance)
    return found


def test_without_circles_the_probabilities_are_exact():
    chain = np.array([[0, 3.0, 0, 0], [0, 0, 5.0, 0], [0, 0, 0, 0.5], [0, 0, 0, 0]])
    check(chain, [0.5, 2.0, 0.1, 1.0])


def test_with_circles_they_are_close():
    generator = np.random.default_rng(0)
    for _ in range(5):
        ratio = np.exp(generator.normal(size=(4, 4)))
        np.fill_diagonal(ratio, 0.0)
        check(ratio, np.exp(generator.normal(size=4)), tolerance=0.1)


def test_equal_texts_have_a_place_each_and_shared_ones_have_no_end():
    own = [0, 0, 1, 2]
    ratio = np.array([[0, 2.0, 0.3], [0, 0, 4.0], [3.0, 0, 0], [6.0, 0.2, 0]])
    check(ratio, [0.3, 0.2, 0.5, 0.4], own, tolerance=0.1)
    check(ratio, [0.3, 0.2, 0.5, 0.4], own, [0.5, 0.2, 0.1], tolerance=0.1)


def test_one_text_goes_to_one_image_and_the_other_gets_what_is_left():
    """Both images like the text of the third, and one of them has no other choice."""
    ratio = np.array([[0, 20.0, 30.0], [1e-3, 0, 30.0], [1e-3, 1e-3, 0]])
    found = associate(cells(ratio, [0.01] * 3))
    by_cell = dict(zip(zip(*np.nonzero(ratio), strict=True), found.probability, strict=True))
    assert by_cell[0, 1] > by_cell[0, 2] and by_cell[1, 2] > 0.7


def test_a_text_that_its_image_keeps_is_not_given_away():
    ratio = np.array([[0, 5.0], [1e-3, 0]])
    kept, freed = (associate(cells(ratio, [0.01, odds])).probability[0] for odds in (100.0, 0.01))
    assert kept < 0.05 < freed
    unasked = associate(cells(ratio, [0.01, 0.01], frees=[True, False])).probability[0]
    assert unasked == 0.0


def test_the_order_of_images_and_texts_does_not_matter():
    generator = np.random.default_rng(1)
    ratio, odds = np.exp(generator.normal(size=(6, 6))), np.exp(generator.normal(size=6))
    np.fill_diagonal(ratio, 0.0)
    order = generator.permutation(6)
    first, second = associate(cells(ratio, odds)), associate(cells(ratio[np.ix_(order, order)], odds[order]))
    matrices = [np.zeros((6, 6)), np.zeros((6, 6))]
    for matrix, found in zip(matrices, (first, second), strict=True):
        matrix[~np.eye(6, dtype=bool)] = found.probability
    assert matrices[1] == pytest.approx(matrices[0][np.ix_(order, order)], abs=1e-9)


def test_nothing_to_give_is_no_trouble():
    found = associate(cells(np.zeros((2, 2)), [0.5, 2.0]))
    assert len(found.probability) == 0 and ((found.own > 0) & (found.own < 1)).all()
