"""The arithmetic of the estimate, against the machine it was calibrated on."""

import pytest

from fiftyone_ecif.dataset.compute import cost


def test_the_estimate_gives_the_speed_that_was_measured(monkeypatch):
    monkeypatch.setattr(cost, "product_speed", lambda device: 155e9)
    measured = 1 / 14 + 1 / 19  # seconds per pair of ViT-B-32
    assert cost.embedding_cost(1000, "ViT-B-32").seconds == pytest.approx(1000 * measured, rel=0.1)


def test_a_resnets_products_are_those_of_its_modules(monkeypatch):
    """Counted by torch over the modules themselves."""
    import open_clip
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    monkeypatch.setattr(cost, "product_speed", lambda device: 1.0)
    config = open_clip.get_model_config("RN50")
    vision = open_clip.model._build_vision_tower(1024, open_clip.CLIPVisionCfg(**config["vision_cfg"]))
    text = open_clip.model._build_text_tower(1024, open_clip.CLIPTextCfg(**config["text_cfg"]))
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        vision(torch.zeros(1, 3, 224, 224))
        text(torch.zeros(1, 77, dtype=torch.int64))
    found = cost.embedding_cost(1, "RN50")
    assert found.seconds * cost.EFFICIENCY == pytest.approx(counter.get_total_flops(), rel=0.03)
    weights = sum(part.numel() for tower in (vision, text) for part in tower.parameters())
    assert found.model_bytes == pytest.approx(4 * weights, rel=0.03)


def test_scoring_takes_the_seconds_that_were_measured(monkeypatch):
    """16,384 pairs of 512 numbers: some 300 epochs of 70 to 78 µs a pair, where a product alone does 40 GFLOP/s."""
    monkeypatch.setattr(cost, "product_speed", lambda device: 42e9)
    epoch = 74e-6 * 16_384
    seconds = cost.scoring_seconds(16_384, (512, 512, 512), 256)
    assert 0.5 < seconds / (300 * epoch) < 2
    assert cost.scoring_seconds(16_384, (512, 512, 512), 256, rounds=8) < 2 * seconds


@pytest.mark.parametrize("model", ["ViT-SO400M-14-SigLIP", "roberta-ViT-B-32", "no such model"])
def test_no_estimate_is_given_where_none_can_be(model):
    assert cost.embedding_cost(1000, model) is None


def test_the_speed_is_that_of_a_machine():
    assert 1e8 < cost.product_speed() < 1e15
