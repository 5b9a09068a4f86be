import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from benchmarks.methods.baselines import batch_loss, clip_score
from fiftyone_ecif.attribution import Settings
from fiftyone_ecif.core import Head, TensorPairs
from fiftyone_ecif.detect import misalignment
from fiftyone_ecif.detect.captions import NEIGHBOUR_TRUST, knows_pairs, neighbour_weight
from fiftyone_ecif.detect.classifier_surprise import RepeatedTexts
from fiftyone_ecif.detect.cross_fit import CrossFit, mean_surprise
from fiftyone_ecif.detect.evidence import Evidence
from fiftyone_ecif.detect.nearest_rows import nearest
from fiftyone_ecif.detect.neighbour_surprise import BACKGROUND, kernel_density, neighbour_surprise
from fiftyone_ecif.detect.pairings import Pairings, given_pairings, reference_pairings
from fiftyone_ecif.detect.pipeline import find_misaligned
from fiftyone_ecif.detect.text_surprise import text_surprise


def unit(rows):
    return torch.nn.functional.normalize(rows, dim=1)


def make_pairs(pairs=1500, classes=12, rate=0.2, seed=0, dim=16):
    """Images and texts around class centres; a share of the texts belongs to another class."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(classes, dim, generator=generator)
    label = torch.randint(classes, (pairs,), generator=generator)
    wrong = torch.rand(pairs, generator=generator) < rate
    shift = torch.randint(1, classes, (pairs,), generator=generator)
    said = torch.where(wrong, (label + shift) % classes, label)
    noise = torch.randn(2, pairs, dim, generator=generator)
    return unit(centres[label] + noise[0]), unit(centres[said] + noise[1]), wrong.numpy()


SCALE = 10.0


def score(image, text, memorised=0.0, trusted=None, seed=0):
    """By a head that was fitted on no pair: the one that knows the pairs' space, in both folds."""
    head = Head(torch.eye(image.shape[1]), torch.eye(image.shape[1]), torch.tensor(SCALE).log())
    pairs, settings = TensorPairs(image, text), Settings(batch_size=200)
    surprised = mean_surprise(pairs, head, settings)
    fitted = CrossFit([head, head], torch.arange(len(image)) % 2, surprised, memorised)
    trusted = torch.zeros(len(image), dtype=torch.bool) if trusted is None else trusted
    references = reference_pairings(pairs, fitted, settings)
    return misalignment(image, text, SCALE, given_pairings(fitted), references, memorised, trusted, seed)


@pytest.mark.parametrize("rate", [0.0, 0.05, 0.2, 0.4])
def test_probability_ranks_is_calibrated_and_estimates_the_noise_rate(rate):
    """Of pairs with contents of their own, which image and text show with noise, by heads as a run fits them."""
    generator = torch.Generator().manual_seed(1)
    content, noise = torch.randn(1500, 16, generator=generator), torch.randn(2, 1500, 16, generator=generator)
    wrong = (torch.rand(1500, generator=generator) < rate).numpy()
    said = content.clone()
    said[wrong] = content[wrong].roll(1, 0)
    head = Head(torch.eye(16), torch.eye(16), torch.tensor(2 * SCALE).log())
    pairs = TensorPairs(unit(content + 0.5 * noise[0]), unit(said + 0.5 * noise[1]))
    found = find_misaligned(pairs, None, head, "clip", Settings())[0]
    low, high = found.noise_interval
    assert low <= found.noise_rate <= high
    assert found.noise_rate == pytest.approx(wrong.mean(), abs=0.04)
    assert low - 0.01 <= wrong.mean() <= high + 0.01
    assert found.probability.mean() == pytest.approx(wrong.mean(), abs=0.04)
    assert ((found.probability >= 0) & (found.probability <= 1)).all()
    if rate:
        by_score = clip_score(pairs.image.numpy(), pairs.text.numpy())
        assert roc_auc_score(wrong, found.probability) >= roc_auc_score(wrong, by_score) - 0.001
        assert wrong[found.probability > 0.9].mean() > 0.9


def test_where_near_texts_are_as_right_no_noise_of_that_kind_is_supposed():
    image, text, _ = make_pairs(rate=0.0)
    assert score(image, text).noise_rate < 0.03


def made_up_evidence(knows, pairs=3000):
    """Evidence against pairs of which 30 % are wrong, and against random pairings; a head may know the very pairs."""
    generator = torch.Generator().manual_seed(2)
    observed, random = torch.randn(2, 3, pairs, generator=generator)
    wrong = torch.rand(pairs, generator=generator) < 0.3
    observed[1] += 2.0 * wrong
    random[1] += 2.0
    observed[0] += (0.0 if knows else 3.0) * wrong
    random[0] += 3.0
    return observed, random


def test_a_head_that_knows_the_very_pairs_is_noticed_since_wrong_ones_do_not_surprise_it():
    assert knows_pairs(*made_up_evidence(True))
    assert not knows_pairs(*made_up_evidence(False))


def test_neighbours_weigh_a_share_of_what_they_do_in_the_best_line_between_pairs_and_wrong_pairings():
    right, random = torch.randn(2, 3, 5000, generator=torch.Generator().manual_seed(0))
    random += torch.tensor([1.5, 1.0, 0.0])[:, None]  # normal, of one spread: the line is that of the means
    assert neighbour_weight(right, [random]) == pytest.approx(NEIGHBOUR_TRUST * 2.0 / 3.0, abs=0.07)
    turned = random.clone()
    turned[1] -= 4.0  # neighbours that say the contrary do not count
    assert neighbour_weight(right, [turned]) == 0.0


def test_the_order_is_strict_so_that_views_do_not_tie():
    image, text, _ = make_pairs()
    found = score(image, text)
    assert len(np.unique(found.probability)) == len(found.probability)


@pytest.mark.parametrize("case", ["one text for all", "all identical", "all wrong", "all right", "four pairs"])
def test_hopeless_data_stay_finite_and_in_range(case):
    image, text, _ = make_pairs(rate={"all wrong": 1.0, "all right": 0.0}.get(case, 0.2))
    if case == "one text for all":
        text = text[:1].expand_as(text).contiguous()
    elif case == "all identical":
        image, text = image[:1].expand_as(image).contiguous(), text[:1].expand_as(text).contiguous()
    elif case == "four pairs":
        image, text = image[:4], text[:4]
    found = score(image, text)
    assert np.isfinite(found.probability).all()
    assert (found.probability >= 0).all() and (found.probability <= 1).all()
    assert 0 <= found.noise_rate <= 1


def test_trusted_pairs_are_not_suspected_and_the_evidence_is_told():
    image, text, wrong = make_pairs()
    trusted = torch.from_numpy(wrong) & (torch.arange(len(wrong)) < 200)
    found = score(image, text, trusted=trusted)
    assert (found.probability[trusted.numpy()] < 0.01).all()
    assert (
        roc_auc_score(wrong, found.evidence["head"]) > 0.8 and roc_auc_score(wrong, found.evidence["neighbours"]) > 0.8
    )


def test_the_head_does_not_count_where_everything_was_memorised():
    image, text, _ = make_pairs()
    found = score(image, text, memorised=1.0)
    assert (found.evidence["classifier"] == 0).all()  # no text repeats
    assert (np.diff(found.probability[found.evidence["neighbours"].argsort()]) >= 0).all()


def test_where_texts_repeat_a_classifier_that_has_not_seen_the_pair_finds_the_wrong_ones():
    generator = torch.Generator().manual_seed(3)
    centres = unit(torch.randn(6, 16, generator=generator))
    label = torch.randint(6, (600,), generator=generator)
    wrong = torch.rand(600, generator=generator) < 0.2
    said = torch.where(wrong, (label + 1) % 6, label)
    image = unit(centres[label] + 0.2 * torch.randn(600, 16, generator=generator))
    repeated = RepeatedTexts.find(centres[said])
    expected = repeated.expected(image)
    own = torch.arange(600)
    found = repeated.surprise(expected, centres[said], own, own, SCALE)
    assert roc_auc_score(wrong, found) > 0.95
    right = (said[None, :] == label[:, None]).float().argmax(1)  # with a right text in its place, no pair surprises
    assert repeated.surprise(expected, centres[said], own, right, SCALE)[wrong].mean() < found[wrong].mean() - 1
    assert score(image, centres[said], memorised=0.8).evidence["classifier"].std() > 0.5
    rare = unit(torch.randn(600, 16, generator=generator))
    assert RepeatedTexts.find(rare) is None


def test_neighbour_surprise_is_its_definition():
    image, text, _ = make_pairs(pairs=60)
    partner = torch.arange(60).roll(7)
    near = nearest(image, 5)
    found = neighbour_surprise(near, text, partner, SCALE, kernel_density(text, SCALE))
    for n in range(60):
        likeness = torch.exp(SCALE * (text @ text[partner[n]] - 1))
        here = torch.stack([likeness[j] for j in near[n].tolist() if j != partner[n]]).mean()
        anywhere = torch.stack([likeness[j] for j in range(60) if j != partner[n]]).mean()
        torch.testing.assert_close(found[n], -torch.log(here / anywhere + BACKGROUND), rtol=1e-4, atol=1e-4)


def test_neighbours_of_a_text_are_asked_by_exchanging_images_and_texts():
    image, text, _ = make_pairs(pairs=60)
    partner, own = torch.arange(60).roll(7), torch.arange(60)
    near = nearest(text, 5)
    found = neighbour_surprise(near[partner], image, own, SCALE, kernel_density(image, SCALE))
    for n in range(60):
        likeness = torch.exp(SCALE * (image @ image[n] - 1))
        here = torch.stack([likeness[j] for j in near[partner[n]].tolist() if j != n]).mean()
        anywhere = torch.stack([likeness[j] for j in range(60) if j != n]).mean()
        torch.testing.assert_close(found[n], -torch.log(here / anywhere + BACKGROUND), rtol=1e-4, atol=1e-4)


def test_among_free_captions_both_directions_and_both_kinds_of_neighbours_count():
    image, text, _ = make_pairs(pairs=200)
    own, partner = torch.arange(200), torch.arange(200).roll(3)
    for rows, other in ((own, own), (own, partner), (own[50:90], partner[50:90])):
        found = Evidence(image, text, SCALE, False).against(Pairings(rows, other, torch.zeros(len(rows))))
        by_text = -torch.log(torch.exp(-text_surprise(image, text, rows, other, SCALE)) + BACKGROUND)
        near, near_text = nearest(image, 30)[rows], nearest(text, 30)[other]
        of_images = neighbour_surprise(near, text, other, SCALE, kernel_density(text, SCALE))
        of_texts = neighbour_surprise(near_text, image, rows, SCALE, kernel_density(image, SCALE))
        by_head = by_text - torch.log(torch.tensor(1.0 + BACKGROUND))
        torch.testing.assert_close(found, torch.stack([by_head, of_images + 0.25 * of_texts, torch.zeros(len(rows))]))


def test_baselines_are_their_definitions():
    image, text, _ = make_pairs(pairs=50)
    np.testing.assert_allclose(clip_score(image.numpy(), text.numpy()), 1 - (image * text).sum(1).numpy(), atol=1e-6)
    similarity = 7.0 * image @ text.T
    expected = 0.5 * (-similarity.log_softmax(1).diagonal() - similarity.log_softmax(0).diagonal())
    np.testing.assert_allclose(
        batch_loss(image.numpy(), text.numpy(), 7.0, rounds=2, batch_size=64), expected.numpy(), rtol=1e-4
    )
