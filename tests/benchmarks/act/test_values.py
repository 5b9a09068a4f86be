"""The figures that say whether values can be acted on, against their definitions."""

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from benchmarks.act.values import scored, value_figures
from benchmarks.detection.cell import Cell
from benchmarks.models.model import in_memory
from tests.attribution.test_spread import cell as wrong_pairs


@pytest.fixture
def cell():
    pairs, head = wrong_pairs(80)
    features = in_memory(*pairs.gather(torch.arange(80)))
    planted, trusted = np.arange(80) < 16, np.zeros(80, dtype=bool)
    return Cell(features, head, "clip", [f"text {row}" for row in range(80)], planted, None, None, trusted, {})


def test_the_figures_of_two_repeats_are_as_they_are_defined(cell):
    figures = value_figures(cell, (3, 4))
    one, other = scored(cell, 3), scored(cell, 4)
    assert figures["value_auroc"] == pytest.approx(
        np.mean([roc_auc_score(cell.planted, -each.value.numpy()) for each in (one, other)])
    )
    assert figures["sign_flips"] == pytest.approx((one.value * other.value < 0).float().mean().item())
    gap = (one.value - other.value).abs() / (one.value_std**2 + other.value_std**2).sqrt()
    assert figures["beyond_two_errors"] == pytest.approx((gap > 2).float().mean().item())
    ranks = [each.value.argsort().argsort().double() for each in (one, other)]
    assert figures["value_rank_between_seeds"] == pytest.approx(torch.corrcoef(torch.stack(ranks))[0, 1].item())


def test_a_repeat_with_the_same_seed_is_the_same_and_no_truth_has_no_auroc(cell):
    figures = value_figures(Cell(**vars(cell) | dict(planted=None)), (5, 5))
    assert figures == pytest.approx(
        dict(value_auroc=np.nan, value_rank_between_seeds=1.0, sign_flips=0.0, beyond_two_errors=0.0), nan_ok=True
    )


def test_a_target_takes_the_place_of_the_believed_pairs(cell):
    target = wrong_pairs(60, seed=1)[0]
    assert not torch.equal(scored(cell, 0, target).value, scored(cell, 0).value)
