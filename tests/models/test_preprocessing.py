"""Images are preprocessed as the weights were trained, or it is said how."""

import json
import warnings

import open_clip
import pytest
import torch
from PIL import Image

from fiftyone_ecif.models import load_model, wrap_model
from fiftyone_ecif.models.preprocessing import checked_preprocess, of_architecture, of_tag

SQUASHED = {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4), "interpolation": "bilinear", "resize_mode": "squash"}


def settings(model):
    found = model.model.visual.preprocess_cfg
    return {name: found[name] for name in SQUASHED}


@pytest.fixture
def weights(make_model, tmp_path):
    """A checkpoint with nothing beside it."""
    path = tmp_path / "weights.pt"
    torch.save(make_model("vit").model.state_dict(), path)
    return path


@pytest.mark.parametrize(
    "name", ["MobileCLIP2-S0", "PE-Core-T-16-384", "ViT-B-16-SigLIP", "ViT-L-14-CLIPA", "ViT-B-32"]
)
def test_what_all_tags_share_is_known_of_an_architecture(name):
    known = of_architecture(name)
    for tag in open_clip.list_pretrained_tags_by_model(name):
        entry = open_clip.get_pretrained_cfg(name, tag)
        assert known == {key: entry[key] for key in SQUASHED}


@pytest.mark.parametrize("name", ["ViT-L-14", "ViT-H-14-quickgelu", "ViT-S-16"])
def test_nothing_is_known_where_tags_disagree_or_there_are_none(name):
    assert of_architecture(name) is None


def test_a_checkpoint_by_its_path_is_preprocessed_as_its_architectures_tags(families, weights, monkeypatch):
    tags = {tag: {"hf_hub": "someone/model/", **SQUASHED} for tag in ("one", "other")}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "tiny-vit", tags)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert settings(load_model("tiny-vit", weights)) == SQUASHED == of_tag("tiny-vit", "one")
    tags["other"]["resize_mode"] = "shortest"
    with pytest.warns(UserWarning, match="published weights of tiny-vit differ.*OpenAI's way.*mean 0.481.*bicubic"):
        load_model("tiny-vit", weights)


def test_an_unknown_preprocessing_is_said_and_can_be_given(families, weights):
    with pytest.warns(UserWarning, match="weights.pt were preprocessed is not known, since tiny-vit has no published"):
        load_model("tiny-vit", weights)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        given = load_model("tiny-vit", weights, preprocess={"mean": [0.5, 0.4, 0.3], "resize_mode": "squash"})
    found = settings(given)
    assert (found["mean"], found["resize_mode"], found["interpolation"]) == ((0.5, 0.4, 0.3), "squash", "bicubic")
    wide = Image.linear_gradient("L").rotate(90).resize((64, 32)).convert("RGB")
    brightness = given.preprocess(wide)[0].mean(0) * found["std"][0] + found["mean"][0]
    assert brightness[0] < 0.1 and brightness[-1] > 0.9  # nothing of the sides was cut off


def test_what_is_given_goes_before_what_belongs_to_the_weights(make_model, tmp_path):
    make_model("vit").save_checkpoint(tmp_path / "model")
    given = load_model(f"local-dir:{tmp_path / 'model'}", preprocess=SQUASHED)
    assert settings(given) == SQUASHED


@pytest.mark.parametrize(
    "wrong",
    [
        {"size": 3},
        {"mean": (0.5, 0.5)},
        {"mean": 0.5},
        {"std": (0, 1, 1)},
        {"std": ("a", "b", "c")},
        {"mean": (float("nan"),) * 3},
        {"interpolation": "nearest"},
        {"resize_mode": "crop"},
        {"fill_color": 300},
        "openai",
    ],
)
def test_other_settings_are_refused_in_plain_words(wrong):
    with pytest.raises(ValueError, match="preprocess"):
        load_model("ecif-tiny", preprocess=wrong)
    with pytest.raises(ValueError, match="preprocess"):
        checked_preprocess(wrong)


@pytest.mark.parametrize("suffix", ["", ".safetensors", ".pt"])
def test_preprocessing_travels_with_saved_weights(make_model, weights, tmp_path, suffix):
    model = load_model("tiny-vit", weights, preprocess=SQUASHED)
    path = tmp_path / "saved" / f"edited{suffix}"
    model.save_checkpoint(path)
    file = path if suffix else path / "open_clip_model.safetensors"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = load_model("tiny-vit", file)
    assert settings(again) == SQUASHED and again.fingerprint == model.fingerprint
    if suffix != ".pt":
        _, _, theirs = open_clip.create_model_and_transforms(f"local-dir:{file.parent}")
        image = Image.effect_noise((50, 40), 80).convert("RGB")
        assert torch.equal(theirs(image), model.preprocess(image))


def test_a_description_of_another_model_is_not_used(make_model, weights):
    make_model("resnet").save_checkpoint(weights.with_name("other.safetensors"))
    with pytest.warns(UserWarning) as said:
        load_model("tiny-vit", weights)
    words = " ".join(str(each.message) for each in said)
    assert "describes another model than tiny-vit (vision_cfg" in words and "is not known" in words
    weights.with_name("open_clip_config.json").write_text("{")
    with pytest.warns(UserWarning, match="cannot be read.*It is not used for weights.pt"):
        load_model("tiny-vit", weights)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [("[]", "no 'model_cfg'"), ('{"model_cfg": {"vision_cfg": 3}}', "no 'model_cfg'"), ("\0", "cannot be read")],
)
def test_a_damaged_description_is_refused(tmp_path, content, complaint):
    (tmp_path / "open_clip_config.json").write_text(content)
    with pytest.raises(ValueError, match=f"open_clip_config.json.*{complaint}"):
        load_model(f"local-dir:{tmp_path}")


def test_a_description_without_preprocessing_is_said(make_model, tmp_path):
    make_model("vit").save_checkpoint(tmp_path)
    path = tmp_path / "open_clip_config.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({"model_cfg": content["model_cfg"]}))
    with pytest.warns(UserWarning, match="is not known"):
        load_model(f"local-dir:{tmp_path}")


def test_an_activation_that_the_weights_do_not_have_is_said(make_model, weights, monkeypatch):
    entry = {"file": str(weights), "quick_gelu": True, **SQUASHED}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "tiny-vit", {"openai": entry})
    with pytest.warns(UserWarning, match="weights 'openai' were trained with QuickGELU, and tiny-vit computes another"):
        load_model("tiny-vit", "openai")
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "tiny-quickgelu", {"openai": entry})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_model("tiny-quickgelu", "openai")


# What saved models do to what is there


def test_a_saved_model_replaces_nothing_unasked(make_model, tmp_path):
    model = make_model("vit")
    model.save_checkpoint(tmp_path / "one.safetensors")
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    with pytest.raises(ValueError, match="already: choose another name, or pass overwrite=True"):
        model.save_checkpoint(tmp_path / "one.safetensors")
    with pytest.raises(ValueError, match=r"open_clip_config\.json is of another model: choose another folder"):
        make_model("resnet").save_checkpoint(tmp_path / "two.safetensors")
    with pytest.raises(ValueError, match="choose another folder"):
        make_model("resnet").check_checkpoint(tmp_path / "two.safetensors")
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before
    model.save_checkpoint(tmp_path / "two.safetensors")  # the same description serves both
    make_model("resnet").save_checkpoint(tmp_path / "two.safetensors", overwrite=True)
    assert load_model("tiny-resnet", tmp_path / "two.safetensors").name == "tiny-resnet"


def test_a_description_in_other_words_stays_as_it_is(make_model, tmp_path):
    model = make_model("vit")
    file = tmp_path / "open_clip_config.json"
    file.write_text(json.dumps({"model_cfg": open_clip.get_model_config("tiny-vit"), "note": "mine"}))
    before = file.read_text()
    model.save_checkpoint(tmp_path)
    assert file.read_text() == before


def test_a_foreign_tokenizer_in_the_folder_is_not_replaced(make_model, tmp_path):
    (tmp_path / "tokenizer.json").write_text("mine")
    with pytest.raises(ValueError, match=r"tokenizer\.json is of another model"):
        make_model("siglip").save_checkpoint(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["tokenizer.json"]


def test_what_cannot_be_described_is_said(make_model, tmp_path):
    model = make_model("vit")
    parts = dict(name="tiny-vit", preprocess=model.preprocess, tokenizer=model.tokenizer)
    others = {
        "architecture": dict(name="of my own"),
        "preprocessing": dict(preprocess=lambda image: model.preprocess(image)),
        "tokenizer": dict(tokenizer=lambda texts: model.tokenizer(texts)),
    }
    wrap_model(model.model, **parts).save_checkpoint(tmp_path / "whole")
    assert (tmp_path / "whole" / "open_clip_config.json").exists()
    for missing, part in others.items():
        with pytest.warns(UserWarning, match=f"without open_clip_config.json, since the model's {missing} is not one"):
            wrap_model(model.model, **parts | part).save_checkpoint(tmp_path / missing)
        assert [file.name for file in (tmp_path / missing).iterdir()] == ["open_clip_model.safetensors"]
    named_wrongly = wrap_model(model.model, **parts | dict(name="tiny-resnet"))
    with pytest.warns(UserWarning, match="architecture is not one"):
        named_wrongly.save_checkpoint(tmp_path / "wrong")
