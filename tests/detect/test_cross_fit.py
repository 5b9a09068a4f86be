import pytest
import torch
from torch.nn import functional as F

from fiftyone_ecif.attribution import Settings
from fiftyone_ecif.core import Head, TensorPairs
from fiftyone_ecif.core.pairs import Subset
from fiftyone_ecif.core.text_kernel import LEAST_PROBABILITY
from fiftyone_ecif.detect import cross_fit, label_beliefs
from fiftyone_ecif.detect.cross_fit import _fit_believed, mean_surprise, rank_correlation, surprise

SETTINGS = Settings(rounds=2, batch_size=40, anchor=0.05)


def make_pairs(pairs=320, classes=6, dim=8, wrong_share=0.25, seed=0):
    """Features around class centres, a share of the texts from another class; a head that sees half of each feature."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(classes, dim, generator=generator)
    label = torch.randint(classes, (pairs,), generator=generator)
    wrong = torch.rand(pairs, generator=generator) < wrong_share
    said = torch.where(wrong, (label + 1) % classes, label)
    noise = 0.4 * torch.randn(2, pairs, dim, generator=generator)
    weight = torch.eye(dim)
    return (
        TensorPairs(centres[label] + noise[0], centres[said] + noise[1]),
        Head(weight, weight.clone(), torch.tensor(2.0)),
        wrong,
    )


def test_surprise_is_its_definition_with_and_without_the_images_own_text():
    pairs, head, _ = make_pairs(12)
    batch = head.linearize(*pairs.gather(torch.arange(12)))
    tau = head.logit_scale.exp()
    partner = torch.arange(12)
    partner[:6] = torch.tensor([3, 4, 5, 0, 1, 2])
    found = surprise(batch, partner)
    for i, j in enumerate(partner.tolist()):
        others = [k for k in range(12) if k == j or k != i]
        beliefs = (tau * batch.image[i] @ batch.text[others].T).softmax(0)
        likeness = torch.exp(3 * tau * (batch.text[others] @ batch.text[j] - 1))
        expected = -torch.log((beliefs * likeness).sum() / likeness.mean() + LEAST_PROBABILITY)
        torch.testing.assert_close(found[i], expected)


def test_a_pair_is_scored_by_the_head_that_did_not_see_it_and_wrong_ones_surprise_it():
    pairs, head, wrong = make_pairs()
    fitted = cross_fit(pairs, None, head, "clip", SETTINGS)
    for number in (0, 1):
        rows = (fitted.fold == number).nonzero().squeeze(1)
        part = TensorPairs(*pairs.gather(rows))
        torch.testing.assert_close(fitted.surprise[rows], mean_surprise(part, fitted.heads[1 - number], SETTINGS))
    assert fitted.surprise[wrong].mean() > fitted.surprise[~wrong].mean() + 1
    assert fitted.memorised == 0.0


def test_the_most_suspicious_half_of_a_fold_has_no_influence_on_a_head():
    pairs, head, _ = make_pairs(160)
    suspicion = torch.randn(160, generator=torch.Generator().manual_seed(1))
    out = suspicion > suspicion.median()
    other = TensorPairs(pairs.image, torch.where(out[:, None], -pairs.text, pairs.text))
    everything = torch.arange(160)
    mine, theirs = (
        _fit_believed(Subset(part, everything), suspicion, head, "clip", SETTINGS) for part in (pairs, other)
    )
    assert torch.equal(mine.vector(), theirs.vector())
    assert not torch.equal(mine.vector(), head.vector())


def test_trusted_pairs_are_believed_whatever_they_say():
    pairs, head, wrong = make_pairs()
    marked = wrong & (torch.arange(len(wrong)) < 60)
    plain, trusting = (cross_fit(pairs, None, head, "clip", SETTINGS, trusted=mask) for mask in (None, marked))
    assert trusting.surprise[marked].mean() < plain.surprise[marked].mean()


@pytest.mark.parametrize("memorised", [False, True])
def test_what_mild_changes_destroy_counts_as_memorised(memorised):
    pairs, head, wrong = make_pairs()
    clean, _, _ = make_pairs(wrong_share=0.0)
    seen = torch.where(wrong[:, None], pairs.text, pairs.image) if memorised else pairs.image
    fitted = cross_fit(TensorPairs(seen, pairs.text), TensorPairs(clean.image, pairs.text), head, "clip", SETTINGS)
    assert fitted.memorised > 0.3 if memorised else fitted.memorised < 0.1
    rank = fitted.surprise.argsort().argsort().float()
    assert rank[wrong].mean() > rank[~wrong].mean() + 60  # scored by the views


def test_the_order_of_the_pairs_within_a_batch_and_the_device_do_not_matter():
    pairs, head, _ = make_pairs(40)
    whole = Settings(rounds=1, batch_size=40, anchor=0.05)
    turned = torch.arange(40).flip(0)
    mine, theirs = mean_surprise(pairs, head, whole), mean_surprise(TensorPairs(*pairs.gather(turned)), head, whole)
    torch.testing.assert_close(mine, theirs.flip(0), rtol=1e-4, atol=1e-4)
    assert F.cosine_similarity(mine, theirs.flip(0), dim=0) > 0.999


def test_beliefs_in_labels_are_those_of_the_head_that_did_not_see_the_pair():
    pairs, head, _ = make_pairs(80)
    label = torch.arange(80) % 5
    texts = pairs.text[:5]
    labelled = TensorPairs(pairs.image, texts[label])
    fitted = cross_fit(labelled, None, head, "clip", SETTINGS)
    found = label_beliefs(labelled, label, fitted)
    for row in (0, 17, 79):
        other = fitted.heads[1 - int(fitted.fold[row])]
        batch = other.linearize(pairs.image[row].expand(5, -1), texts)
        torch.testing.assert_close(found[row], (other.logit_scale.exp() * batch.text @ batch.image[0]).softmax(0))


def test_rank_correlation_is_that_of_mean_ranks_whatever_ties_there_are():
    generator = torch.Generator().manual_seed(0)
    first, second = torch.randint(5, (2, 40), generator=generator).float()
    ranks = [
        torch.tensor([(values < value).sum() + ((values == value).sum() + 1) / 2 for value in values]).double()
        for values in (first, second)
    ]
    assert rank_correlation(first, second) == pytest.approx(torch.corrcoef(torch.stack(ranks))[0, 1].item())
    order = torch.randperm(40, generator=generator)  # ties are not broken by where they stand
    assert rank_correlation(first[order], second[order]) == pytest.approx(rank_correlation(first, second))
    assert rank_correlation(first, -first.exp()) == pytest.approx(-1.0)


def test_surprises_that_are_all_alike_count_as_unchanged():
    varied = torch.rand(20, generator=torch.Generator().manual_seed(0))
    assert rank_correlation(torch.zeros(20), varied) == rank_correlation(varied, torch.full((20,), 3.0)) == 1.0
    assert rank_correlation(1e-8 * varied.flip(0), varied) == 1.0
