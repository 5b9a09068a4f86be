import torch

from fiftyone_ecif.core import TensorPairs
from fiftyone_ecif.detect import cross_fit
from fiftyone_ecif.detect.cross_fit import surprise
from fiftyone_ecif.detect.pairings import CONFIDENCES, NEAR, SAME_TEXT, given_pairings, reference_pairings
from tests.detect.test_cross_fit import SETTINGS, make_pairs


def everything(references):
    return [*references.right, references.random, *references.near]


def test_each_pairing_is_scored_by_the_head_that_saw_neither_of_its_pairs():
    pairs, head, wrong = make_pairs(80)
    fitted = cross_fit(pairs, None, head, "clip", SETTINGS)
    references = reference_pairings(pairs, fitted, SETTINGS)
    assert len(references.right) == len(CONFIDENCES) and len(references.near) == len(NEAR)
    for found in everything(references):
        assert torch.equal(fitted.fold[found.partner], fitted.fold[found.rows])
    # Folds are batches of 40 here, so that the batch of an image is its fold.
    for found in (references.right[0], references.random):
        for place in (0, 7, 50):
            row, other = found.rows[place], found.partner[place]
            fold = (fitted.fold == fitted.fold[row]).nonzero().squeeze(1)
            batch = fitted.heads[1 - int(fitted.fold[row])].linearize(
                *TensorPairs(*pairs.gather(fold)).gather(torch.arange(len(fold)))
            )
            partner = torch.arange(len(fold))
            partner[fold == row] = (fold == other).nonzero().item()
            torch.testing.assert_close(found.surprise[place], surprise(batch, partner)[fold == row].squeeze())
    assert given_pairings(fitted).surprise is fitted.surprise


def test_random_texts_are_of_other_pairs_and_near_ones_are_near_but_say_something_else():
    pairs, head, _ = make_pairs(320)
    fitted = cross_fit(pairs, None, head, "clip", SETTINGS)
    references = reference_pairings(pairs, fitted, SETTINGS)
    assert (references.random.partner != references.random.rows).all()
    likeness = []
    for found in (references.random, *references.near):
        assert (found.partner != found.rows).all()
        by_head = []
        for number in (0, 1):
            text = fitted.heads[1 - number].linearize(*pairs.gather(torch.arange(320))).text
            own = fitted.fold[found.rows] == number
            by_head.append((text[found.rows[own]] * text[found.partner[own]]).sum(1))
        likeness.append(torch.cat(by_head))
    means = [part.mean().item() for part in likeness]
    assert means == sorted(means)
    assert all(part.max() <= SAME_TEXT + 1e-5 for part in likeness[1:])


def test_believed_texts_fit_and_wrong_ones_do_not_and_a_sure_head_draws_better_ones():
    pairs, head, wrong = make_pairs()
    references = reference_pairings(pairs, cross_fit(pairs, None, head, "clip", SETTINGS), SETTINGS)
    right = [found.surprise.mean().item() for found in references.right]
    assert right == sorted(right, reverse=True)
    assert right[0] < references.near[0].surprise.mean() < references.random.surprise.mean()


def test_texts_that_all_say_the_same_are_paired_nevertheless():
    pairs, head, _ = make_pairs(40)
    alike = TensorPairs(pairs.image, pairs.text[:1].repeat(40, 1))
    fitted = cross_fit(alike, None, head, "clip", SETTINGS)
    for found in everything(reference_pairings(alike, fitted, SETTINGS)):
        assert torch.isfinite(found.surprise).all()
