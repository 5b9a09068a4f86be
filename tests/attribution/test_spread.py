"""Standard errors and the stability of a ranking, from the parts that values are means of."""

from dataclasses import replace

import pytest
import torch

from fiftyone_ecif.attribution import Attributed, Settings, compute
from fiftyone_ecif.attribution.spread import ranking_stability, standard_error
from fiftyone_ecif.core import Head, TensorPairs

NAN = torch.nan


def test_two_repeats_differ_by_as_much_as_their_standard_errors_say():
    generator = torch.Generator().manual_seed(0)
    truth, width = torch.randn(2000, generator=generator), torch.rand(2000, generator=generator) + 0.5
    for parts in (3, 4, 7):
        drawn = truth + width * torch.randn(2, parts, 2000, generator=generator)
        drawn[:, 0, ::2], drawn[:, 1, 1::2] = NAN, NAN
        first, second = (standard_error(each) for each in drawn)
        gap = (drawn[0].nanmean(0) - drawn[1].nanmean(0)).abs() / torch.hypot(first, second)
        assert 0.02 < (gap > 2).float().mean() < 0.1
        assert gap.square().mean().sqrt() == pytest.approx(1.0, abs=0.2)


def test_the_order_of_the_parts_does_not_matter_to_the_error():
    parts = torch.randn(5, 40, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(standard_error(parts.flip(0)), standard_error(parts))


def test_equal_parts_leave_the_error_of_rounding_and_one_part_leaves_none():
    parts = torch.linspace(-1, 1, 9).repeat(3, 1)
    error = standard_error(parts)
    assert (error > 0).all() and (error < 0.01).all()
    assert standard_error(parts[:1]).isnan().all()
    parts[1:, 4] = NAN
    assert standard_error(parts).isnan().tolist() == [row == 4 for row in range(9)]


def test_stability_is_the_agreement_of_two_halves_that_share_nothing():
    same = torch.linspace(-1, 1, 40).repeat(4, 1)
    assert ranking_stability(same) == 1.0
    other = same.clone()
    other[2:] = other[2:].flip(1)
    assert ranking_stability(other) == 0.0
    assert ranking_stability(same[:1]) is None
    apart = torch.tensor([[1.0, NAN], [NAN, 1.0]])
    assert ranking_stability(apart) is None


def cell(pairs, seed=0):
    """Pairs with a shared part, a fifth of them wrong, and a head."""
    generator = torch.Generator().manual_seed(seed)
    shared = torch.randn(pairs, 6, generator=generator)
    image, text = (torch.cat([shared, 0.7 * torch.randn(pairs, 4, generator=generator)], 1) for _ in range(2))
    text[: pairs // 5] = text[: pairs // 5].roll(1, 0)
    head = Head(*torch.randn(2, 6, 10, generator=torch.Generator().manual_seed(9)), torch.tensor(1.5))
    return TensorPairs(image, text), head


@pytest.mark.parametrize(
    ("pairs", "target", "batch_size"),
    [(100, 90, 32), (100, 90, 256), (100, None, 256), (120, None, 32), (60, 160, 64)],
)
def test_a_repeat_with_another_seed_stays_within_the_errors(pairs, target, batch_size):
    """Also where the pairs, or a fold, or all but the target, fit one batch: rounds tell nothing there."""
    scored, head = cell(pairs)
    trusted = None if target is None else cell(target, seed=1)[0]
    settings = Settings(batch_size=batch_size)
    found = [
        compute(Attributed.of_head(head, scored, trusted), "clip", replace(settings, seed=seed)).scores
        for seed in (0, 1, 2)
    ]
    beyond = []
    for one, other in ((0, 1), (1, 2), (0, 2)):
        gap = (found[one].value - found[other].value).abs()
        beyond.append(gap > 2 * torch.hypot(found[one].value_std, found[other].value_std))
    assert torch.stack(beyond).float().mean() <= 0.1
    assert found[0].value_std.median() < found[0].value.std()  # and they still tell values apart
