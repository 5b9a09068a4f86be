"""Small models trained for the demo and the benchmarks."""

import open_clip
import pytest
import torch

from benchmarks import training
from benchmarks.data import digits


@pytest.fixture(scope="module")
def table():
    return digits.load(train=128, heldout=0, progress=False)


def test_checkpoint_loads_back_through_open_clip_with_identical_weights(table, tmp_path):
    model = training.train("ecif-tiny", table, epochs=1, progress=False)
    training.save_checkpoint(model, tmp_path / "tiny.pt")
    loaded = open_clip.create_model("ecif-tiny", pretrained=str(tmp_path / "tiny.pt"))
    weights, loaded_weights = model.state_dict(), loaded.state_dict()
    assert weights.keys() == loaded_weights.keys()
    assert all(torch.equal(weights[name], loaded_weights[name]) for name in weights)
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.pt"]


def test_training_follows_its_seed(table):
    first, again, other = (training.train("ecif-tiny", table, epochs=1, seed=s, progress=False) for s in (0, 0, 1))
    assert torch.equal(first.text_projection, again.text_projection)
    assert not torch.equal(first.text_projection, other.text_projection)


def test_a_model_is_trained_once_for_the_same_pairs(table, tmp_path, monkeypatch):
    monkeypatch.setenv("FIFTYONE_ECIF_CACHE", str(tmp_path))
    path = training.trained_checkpoint("ecif-tiny", table, epochs=1, progress=False)
    monkeypatch.setattr(training, "train", lambda *_: pytest.fail("the cached model was trained again"))
    assert training.trained_checkpoint("ecif-tiny", table, epochs=1, progress=False) == path
    changed = table.with_captions([caption.upper() for caption in table.captions])
    with pytest.raises(pytest.fail.Exception):
        training.trained_checkpoint("ecif-tiny", changed, epochs=1, progress=False)
