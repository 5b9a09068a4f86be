import numpy as np
import pytest
import torch

from fiftyone_ecif.detect.label_noise import STANDARD_ERRORS, SUREST, anchored, anchors, label_noise_interval
from fiftyone_ecif.detect.labels import label_misalignment
from fiftyone_ecif.detect.transition import symmetric_transition

CLASSES = 5


def pairs(count=2_000, rate=0.0, shift=None, spread=1.0, seed=0):
    """Images of classes on a circle that overlap, the true beliefs, and labels of which a share is wrong.

    Wrong labels are any other label, or the label of the class ``shift`` places on.
    """
    generator = torch.Generator().manual_seed(seed)
    angle = torch.arange(CLASSES) * 2 * torch.pi / CLASSES
    centres = 2.5 * torch.stack([angle.cos(), angle.sin()], 1)
    true = torch.randint(CLASSES, (count,), generator=generator)
    image = centres[true] + spread * torch.randn(count, 2, generator=generator)
    beliefs = (-torch.cdist(image, centres).square() / (2 * spread**2)).softmax(1)
    wrong = torch.rand(count, generator=generator) < rate
    places = torch.randint(1, CLASSES, (count,), generator=generator) if shift is None else shift
    return image, beliefs, torch.where(wrong, (true + places) % CLASSES, true), wrong.numpy()


def nobody(count=2_000):
    return torch.zeros(count, dtype=torch.bool)


def shifted(rate):
    same = torch.eye(CLASSES, dtype=torch.float64)
    return (1 - rate) * same + rate * same.roll(1, dims=1)


def test_anchors_are_the_surest_of_each_believed_class_but_no_trusted_pairs():
    _, beliefs, _, _ = pairs(200)
    trusted = torch.arange(200) % 7 == 0
    rows, believed = anchors(beliefs, trusted)
    chosen = dict(zip(rows.tolist(), believed.tolist()))
    for k in range(CLASSES):
        members = [n for n in range(200) if beliefs[n].argmax() == k and not trusted[n]]
        members.sort(key=lambda n: -float(beliefs[n, k]))
        expected = members[: int(np.ceil(SUREST * len(members)))]
        assert sorted(n for n, of in chosen.items() if of == k) == sorted(expected)


def test_too_much_noise_is_bounded_by_what_the_anchors_show():
    _, beliefs, label, _ = pairs(rate=0.1, shift=1)
    found = anchored(shifted(0.4), beliefs, label, nobody())
    rows, believed = anchors(beliefs, nobody())
    other = float((label[rows] != believed).double().mean())
    sure = [(beliefs[n].double(), k) for n, k in zip(rows.tolist(), believed.tolist())]
    unsure = np.mean([1 - float(belief[k]) for belief, k in sure])
    granted = max(other - unsure, 0) + STANDARD_ERRORS * (other * (1 - other) / len(rows)) ** 0.5
    assert np.mean([float(belief[k] - belief @ found[:, k]) for belief, k in sure]) == pytest.approx(granted, abs=1e-6)
    torch.testing.assert_close(found, shifted(0.1), atol=0.04, rtol=0)


def test_noise_that_the_anchors_show_is_kept_and_what_was_memorised_is_not_asked():
    _, beliefs, label, _ = pairs(rate=0.3, shift=1)
    torch.testing.assert_close(anchored(shifted(0.25), beliefs, label, nobody()), shifted(0.25))
    torch.testing.assert_close(anchored(shifted(0.6), beliefs, label, nobody(), 1.0), shifted(0.6))
    assert anchored(shifted(0.6), beliefs, label, nobody(), 0.5)[0, 0] < 0.6
    torch.testing.assert_close(anchored(shifted(0.6), beliefs, label, ~nobody()), shifted(0.6))


@pytest.mark.parametrize("sureness", [1, 4])
def test_right_labels_of_hard_images_are_not_taken_for_noise(sureness):
    for seed in range(2):
        image, beliefs, label, _ = pairs(spread=1.2, seed=seed)
        beliefs = (sureness * (beliefs + 1e-9).log()).softmax(1)
        found = label_misalignment(torch.nn.functional.normalize(image, dim=1), label, beliefs, 0.0, nobody())
        assert found.noise_rate <= 0.03
        assert (found.probability > 0.5).mean() <= 0.01


@pytest.mark.parametrize("shift", [None, 1])
def test_the_interval_covers_the_rate(shift):
    covered, widths = [], []
    for rate in (0.0, 0.05, 0.2):
        for seed in range(5):
            _, beliefs, label, wrong = pairs(1_000, rate, shift, seed=seed)
            transition = symmetric_transition(0.15, CLASSES) if shift is None else shifted(0.15)
            low, high = label_noise_interval(transition, beliefs, label, nobody(1_000), seed)
            covered.append(low <= wrong.mean() <= high)
            widths.append(high - low)
    assert np.mean(covered) >= 0.8
    assert max(widths) < 0.15


def test_the_interval_narrows_with_more_pairs_and_counts_trusted_ones_as_right():
    few, many = (
        label_noise_interval(symmetric_transition(0.2, CLASSES), beliefs, label, nobody(count))
        for count, (_, beliefs, label, _) in ((count, pairs(count, 0.2)) for count in (300, 6_000))
    )
    assert many[1] - many[0] < 0.5 * (few[1] - few[0])
    _, beliefs, label, _ = pairs(rate=0.2)
    half = torch.arange(2_000) < 1_000
    low, high = label_noise_interval(symmetric_transition(0.2, CLASSES), beliefs, label, half)
    assert low < 0.1 < high < 0.15
    assert label_noise_interval(symmetric_transition(0.2, CLASSES), beliefs, label, ~nobody()) == (0.0, 0.0)
