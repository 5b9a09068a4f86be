"""Small models trained for the demo and the benchmarks."""

import dataclasses

import open_clip
import pytest
import torch

from benchmarks.data import digits
from benchmarks.models import training

ONE_EPOCH = training.Recipe(epochs=1)


@pytest.fixture(scope="module")
def table():
    return digits.load(train=128, heldout=0, progress=False)


def test_checkpoint_loads_back_through_open_clip_with_identical_weights(table, tmp_path):
    model = training.train("ecif-tiny", table, ONE_EPOCH, progress=False)
    training.save_checkpoint(model, tmp_path / "tiny.pt")
    loaded = open_clip.create_model("ecif-tiny", pretrained=str(tmp_path / "tiny.pt"))
    weights, loaded_weights = model.state_dict(), loaded.state_dict()
    assert weights.keys() == loaded_weights.keys()
    assert all(torch.equal(weights[name], loaded_weights[name]) for name in weights)
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.pt"]


def test_training_follows_its_seed(table):
    first, again, other = (training.train("ecif-tiny", table, ONE_EPOCH, seed=s, progress=False) for s in (0, 0, 1))
    assert torch.equal(first.text_projection, again.text_projection)
    assert not torch.equal(first.text_projection, other.text_projection)


def test_a_model_is_trained_once_for_the_same_pairs(table, tmp_path, monkeypatch):
    monkeypatch.setenv("FIFTYONE_ECIF_CACHE", str(tmp_path))
    path = training.trained_checkpoint("ecif-tiny", table, ONE_EPOCH, progress=False)
    monkeypatch.setattr(training, "train", lambda *_: pytest.fail("the cached model was trained again"))
    assert training.trained_checkpoint("ecif-tiny", table, ONE_EPOCH, progress=False) == path
    changed = table.with_captions([caption.upper() for caption in table.captions])
    with pytest.raises(pytest.fail.Exception):
        training.trained_checkpoint("ecif-tiny", changed, ONE_EPOCH, progress=False)


def test_every_part_of_a_recipe_and_the_start_make_another_checkpoint(table, tmp_path, monkeypatch):
    monkeypatch.setenv("FIFTYONE_ECIF_CACHE", str(tmp_path))
    monkeypatch.setattr(training, "train", lambda *_: torch.nn.Linear(1, 1))
    first = training.trained_checkpoint("ecif-tiny", table, ONE_EPOCH, progress=False)
    paths = {first, training.trained_checkpoint("ecif-tiny", table, ONE_EPOCH, start=first, progress=False)}
    changes = {"epochs": 2, "learning_rate": 1e-3, "shift": 0, "flip": False, "batch_size": 8}
    assert changes.keys() == {field.name for field in dataclasses.fields(training.Recipe)}
    for name, value in changes.items():
        recipe = dataclasses.replace(ONE_EPOCH, **{name: value})
        paths.add(training.trained_checkpoint("ecif-tiny", table, recipe, progress=False))
    assert len(paths) == 2 + len(changes)


def test_training_goes_on_from_its_start(table, tmp_path):
    start = tmp_path / "start.pt"
    trained = training.train("ecif-tiny", table, ONE_EPOCH, progress=False)
    training.save_checkpoint(trained, start)
    at_rest = training.Recipe(epochs=1, learning_rate=1e-9)
    model = training.train("ecif-tiny", table, at_rest, seed=5, start=start, progress=False)
    torch.testing.assert_close(model.text_projection, trained.text_projection)


@pytest.mark.parametrize("recipe", [training.Recipe(shift=0, flip=False), training.Recipe()])
def test_images_are_moved_and_mirrored_only_where_the_recipe_says_so(recipe):
    torch.manual_seed(0)
    images = torch.rand(32, 3, 8, 8)
    assert torch.equal(training._augment(images, recipe), images) == (recipe.shift == 0)
