"""The arithmetic of the estimate, against the machine that it was calibrated on."""

import pytest

from fiftyone_ecif.dataset.compute import cost


def test_the_estimate_gives_the_speed_that_was_measured(monkeypatch):
    monkeypatch.setattr(cost, "product_speed", lambda device: 155e9)
    measured = 1 / 14 + 1 / 19  # seconds per pair of ViT-B-32
    assert cost.embedding_cost(1000, "ViT-B-32").seconds == pytest.approx(1000 * measured, rel=0.1)


def test_seconds_and_bytes_are_those_of_the_pairs_and_passes(monkeypatch):
    monkeypatch.setattr(cost, "product_speed", lambda device: 1e9)
    image, text = (cost.embedding_cost(1, "RN50", "cpu", *passes).seconds for passes in ((1, 0), (0, 1)))
    found = cost.embedding_cost(10, "RN50", "cpu", 4, 2)
    assert found.seconds == pytest.approx(10 * (4 * image + 2 * text))
    assert found.dims == (1024, 2049, 512)  # a pooling attention's projection has a bias, which is a column of ones
    assert found.feature_bytes == 10 * 4 * (2049 + 512)


def test_scoring_takes_the_seconds_that_were_measured(monkeypatch):
    """16,384 pairs of 512 numbers: some 300 epochs of 70 to 78 µs a pair, where a product alone does 40 GFLOP/s."""
    monkeypatch.setattr(cost, "product_speed", lambda device: 42e9)
    epoch = 74e-6 * 16_384
    seconds = cost.scoring_seconds(16_384, (512, 512, 512), 256)
    assert 0.5 < seconds / (300 * epoch) < 2
    assert cost.scoring_seconds(16_384, (512, 512, 512), 256, rounds=8) < 2 * seconds


@pytest.mark.parametrize("model", ["no such model", "hf-hub:some/model"])
def test_no_estimate_is_given_where_none_can_be(model):
    assert cost.embedding_cost(1000, model) is None


def test_the_speed_is_that_of_a_machine():
    assert 1e8 < cost.product_speed() < 1e15
