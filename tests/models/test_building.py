"""A checkpoint is used in the sizes that it was trained in, and it is said."""

import json

import open_clip
import pytest
import torch

from fiftyone_ecif.models import load_model
from tests.support.models import FAMILIES, RESNET, TEXT, VIT, image_size

KNOWN = {"mean": (0.5, 0.5, 0.5)}


@pytest.fixture
def trained(families, tmp_path):
    """Makes a checkpoint of a family's architecture in other sizes; gives its path and the model."""

    def make(family, **parts):
        config = json.loads(json.dumps(FAMILIES[family]))
        for part, settings in parts.items():
            config[part] |= settings
        (tmp_path / f"other-{family}.json").write_text(json.dumps(config))
        open_clip.add_model_config(tmp_path / f"other-{family}.json")
        torch.manual_seed(3)
        model = open_clip.create_model(f"other-{family}").eval()
        torch.save(model.state_dict(), tmp_path / "trained.pt")
        return tmp_path / "trained.pt", model

    return make


@pytest.mark.parametrize(("family", "size"), [("vit", 64), ("quickgelu", 48), ("resnet", 64), ("custom-text", 64)])
def test_a_checkpoint_keeps_its_own_image_size(trained, tmp_path, family, size):
    path, model = trained(family, vision_cfg={"image_size": size})
    with pytest.warns(UserWarning, match=f"images of {size} x {size} pixels, not of 32 .* its own size is used"):
        loaded = load_model(f"tiny-{family}", path, preprocess=KNOWN)
    assert image_size(loaded) == (size, size)
    images = torch.randn(2, 3, size, size)
    with torch.no_grad():
        torch.testing.assert_close(loaded.model.encode_image(images), model.encode_image(images))
    loaded.save_checkpoint(tmp_path / "saved")  # and hands it on
    plain = open_clip.create_model(f"local-dir:{tmp_path / 'saved'}").eval()
    with torch.no_grad():
        torch.testing.assert_close(plain.encode_image(images), model.encode_image(images))


@pytest.mark.parametrize("family", ["vit", "custom-text", "coca", "clipa"])
def test_a_checkpoint_keeps_its_own_context(trained, tmp_path, family):
    if family == "clipa":  # its tokenizer is a Hugging Face one
        name = open_clip.get_model_config("tiny-clipa")["text_cfg"]["hf_tokenizer_name"]
        path, model = trained(family, text_cfg={"context_length": 20, "hf_tokenizer_name": name})
    else:
        path, model = trained(family, text_cfg={"context_length": 20})
    with pytest.warns(UserWarning, match="texts of 20 tokens, not of 12 .* its own context is used"):
        loaded = load_model(f"tiny-{family}", path, preprocess=KNOWN)
    tokens = loaded.tokenize(["a photo of a cat and a dog and a tree and a car and a house"])
    assert tokens.shape == (1, 20) and loaded.context_length == 20
    with torch.no_grad():
        torch.testing.assert_close(loaded.model.encode_text(tokens), model.encode_text(tokens))
    loaded.save_checkpoint(tmp_path / "saved")
    assert load_model(f"local-dir:{tmp_path / 'saved'}").context_length == 20


def test_a_checkpoint_of_the_architectures_sizes_is_not_mentioned(make_model, tmp_path, recwarn):
    for family in ("vit", "resnet", "coca", "siglip", "hf-linear"):
        make_model(family).save_checkpoint(tmp_path / family)
        load_model(f"tiny-{family}", tmp_path / family / "open_clip_model.safetensors")
    assert not [str(warning.message) for warning in recwarn if "its own" in str(warning.message)]


def test_a_size_that_belongs_to_a_towers_name_is_refused_in_plain_words(make_model, tmp_path):
    state = make_model("siglip").model.state_dict()
    state["visual.trunk.pos_embed"] = torch.zeros(1, 9, 32)
    torch.save(state, tmp_path / "larger.pt")
    with pytest.raises(ValueError, match=r"does not fit tiny-siglip: .*pos_embed is \(1, 9, 32\), not \(1, 4, 32\)"):
        load_model("tiny-siglip", tmp_path / "larger.pt", preprocess=KNOWN)


def test_the_sizes_of_these_tests_are_the_architectures():
    assert (VIT["image_size"], RESNET["image_size"], TEXT["context_length"]) == (32, 32, 12)
