import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from benchmarks.methods.baselines import batch_loss, clip_score
from fiftyone_ecif.core import Head
from fiftyone_ecif.detect import misalignment
from fiftyone_ecif.detect.classifier_surprise import RepeatedTexts
from fiftyone_ecif.detect.cross_fit import surprise
from fiftyone_ecif.detect.nearest_rows import nearest
from fiftyone_ecif.detect.neighbour_surprise import BACKGROUND, kernel_density, neighbour_surprise
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


def texts_of_the_same_class(rate, pairs=1500, classes=12, seed=0):
    """For each image of ``make_pairs`` a pair whose text is right for it: what a head with true beliefs would draw."""
    generator = torch.Generator().manual_seed(seed)
    torch.randn(classes, 16, generator=generator)
    label = torch.randint(classes, (pairs,), generator=generator)
    wrong = torch.rand(pairs, generator=generator) < rate
    said = torch.where(wrong, (label + torch.randint(1, classes, (pairs,), generator=generator)) % classes, label)
    choice = torch.rand(pairs, pairs, generator=generator) * (said[None, :] == label[:, None])
    return choice.argmax(1)


SCALE = 10.0


def score(image, text, memorised=0.0, trusted=None, drawn=None):
    """By the surprise of a head that knows the pairs' space, in one batch of everything."""
    head = Head(torch.eye(image.shape[1]), torch.eye(image.shape[1]), torch.tensor(SCALE).log())
    batch = head.linearize(image, text)
    own = torch.arange(len(image))
    if drawn is None:
        generator = torch.Generator().manual_seed(0)
        drawn = torch.multinomial(batch.similarity().softmax(1), 1, generator=generator).squeeze(1)
    trusted = torch.zeros(len(image), dtype=torch.bool) if trusted is None else trusted
    return misalignment(image, text, SCALE, surprise(batch, own), drawn, surprise(batch, drawn), memorised, trusted)


@pytest.mark.parametrize("rate", [0.05, 0.2, 0.4])
def test_probability_ranks_is_calibrated_and_estimates_the_noise_rate(rate):
    image, text, wrong = make_pairs(rate=rate)
    found = score(image, text, drawn=texts_of_the_same_class(rate))
    assert roc_auc_score(wrong, found.probability) >= roc_auc_score(wrong, clip_score(image.numpy(), text.numpy()))
    assert found.noise_rate == pytest.approx(wrong.mean(), abs=0.07)
    assert found.probability.mean() == pytest.approx(wrong.mean(), abs=0.07)
    confident = found.probability > 0.9
    assert wrong[confident].mean() > 0.8
    assert ((found.probability >= 0) & (found.probability <= 1)).all()


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
    found = repeated.surprise(expected, centres[said], torch.arange(600), SCALE)
    assert roc_auc_score(wrong, found) > 0.95
    right = (said[None, :] == label[:, None]).float().argmax(1)  # with a right text in its place, no pair surprises
    assert repeated.surprise(expected, centres[said], right, SCALE)[wrong].mean() < found[wrong].mean() - 1
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
    own, drawn = torch.arange(200), torch.arange(200).roll(3)
    nothing = torch.zeros(200)
    evidence = misalignment(
        image, text, SCALE, nothing, drawn, nothing, 0.0, torch.zeros(200, dtype=torch.bool)
    ).evidence
    by_text = -torch.log(torch.exp(-text_surprise(image, text, own, SCALE)) + BACKGROUND)
    of_images = neighbour_surprise(nearest(image, 30), text, own, SCALE, kernel_density(text, SCALE))
    of_texts = neighbour_surprise(nearest(text, 30), image, own, SCALE, kernel_density(image, SCALE))
    for name, expected in {"head": by_text, "neighbours": of_images + 0.25 * of_texts}.items():
        np.testing.assert_allclose(evidence[name], (expected - expected.mean()) / expected.std(), atol=1e-4)


def test_baselines_are_their_definitions():
    image, text, _ = make_pairs(pairs=50)
    np.testing.assert_allclose(clip_score(image.numpy(), text.numpy()), 1 - (image * text).sum(1).numpy(), atol=1e-6)
    similarity = 7.0 * image @ text.T
    expected = 0.5 * (-similarity.log_softmax(1).diagonal() - similarity.log_softmax(0).diagonal())
    np.testing.assert_allclose(
        batch_loss(image.numpy(), text.numpy(), 7.0, rounds=2, batch_size=64), expected.numpy(), rtol=1e-4
    )
