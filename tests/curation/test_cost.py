"""The arithmetic of the estimate, against the machine it was calibrated on."""

import pytest

from fiftyone_ecif.curation import cost


def test_the_estimate_gives_the_speed_that_was_measured(monkeypatch):
    monkeypatch.setattr(cost, "product_speed", lambda: 155e9)
    measured = 1 / 14 + 1 / 19  # seconds per pair of ViT-B-32
    assert cost.embedding_cost(1000, "ViT-B-32").seconds == pytest.approx(1000 * measured, rel=0.1)


@pytest.mark.parametrize("model", ["RN50", "ViT-SO400M-14-SigLIP", "no such model"])
def test_no_estimate_is_given_where_none_can_be(model):
    assert cost.embedding_cost(1000, model) is None


def test_the_speed_is_that_of_a_machine():
    assert 1e8 < cost.product_speed() < 1e15
