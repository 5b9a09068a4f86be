"""A small CLIP takes the place of heads: trained on halves, and looked at over its own features."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.data.pairs import PairTable
from benchmarks.models.training import train
from benchmarks.retraining import small_clip
from benchmarks.retraining.influences import Influence
from benchmarks.retraining.trained import mean_loss
from fiftyone_ecif.attribution import Settings

PAIRS, TARGET = 16, 6


@pytest.fixture
def table(tmp_path, monkeypatch):
    monkeypatch.setenv("FIFTYONE_ECIF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(small_clip, "RECIPE", replace(small_clip.RECIPE, epochs=2, batch_size=4))
    monkeypatch.setattr(small_clip, "EPOCHS", (1,))
    count = PAIRS + TARGET
    paths = [tmp_path / f"{number}.png" for number in range(count)]
    for number, path in enumerate(paths):
        Image.new("RGB", (32, 32), (10 * number, 250 - 10 * number, 90)).save(path)
    split = np.array(["train"] * PAIRS + ["heldout"] * TARGET)
    captions = [f"colour {number}" for number in range(count)]
    return PairTable(list(map(str, paths)), captions, np.full(count, -1), [], split, (), "made up")


def test_outcomes_are_losses_of_a_model_trained_on_the_half(table):
    found = small_clip.clip_outcomes(table, PAIRS, subsets=2, seeds=2, seed=0)
    assert found.losses.shape == (2, 2, TARGET) and len(found.losses.flatten().unique()) == found.losses.numel()
    part = table.select(found.halves[1].numpy())
    model = train(small_clip.NAME, part, small_clip.RECIPE, small_clip.training_seed(0, 1, 1), progress=False)
    images, tokens = small_clip.target_inputs(table, PAIRS)
    torch.testing.assert_close(small_clip.clip_losses(model, images, tokens), found.losses[1, 1])


def test_a_snapshot_is_the_models_head_over_its_own_features(table):
    trained = small_clip.TrainedClips(table, np.zeros(PAIRS, dtype=bool), [0], Settings(batch_size=8, rounds=1), 0)
    assert trained.epochs == [1, 2] and trained.left_out_losses.shape == (2, 4)
    snapshot = trained.stopped(1)
    rows = trained.members[1].numpy()
    seed = small_clip.training_seed(0, 1, small_clip.HALVES)
    epoch = trained.epochs[int(trained.left_out_losses[:, 1].argmin())]
    model = train(small_clip.NAME, table.select(rows), replace(small_clip.RECIPE, epochs=epoch), seed, progress=False)
    expected = small_clip.clip_losses(model, *small_clip.target_inputs(table, PAIRS)).mean().item()
    assert mean_loss(snapshot.head, snapshot.asked.problem.target) == pytest.approx(expected, rel=1e-4)
    assert Influence.at(snapshot).solved().value("exact").shape == (2, PAIRS)
