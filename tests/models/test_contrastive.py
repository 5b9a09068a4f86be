"""The model taken apart into towers and head is the model, and can be put together again."""

import os
import warnings

import open_clip
import pytest
import torch
from torch.nn.functional import normalize

from fiftyone_ecif.core.head import Head
from fiftyone_ecif.models import wrap_model
from tests.support.models import FAMILIES

TEXTS = ["a photo of a cat", "a dog", "a photo"]
# Where the last projection of each tower is: name in the state dict, and whether there is a bias.
PLACES = {
    "vit": ("visual.proj", False, "text_projection", False),
    "vit-text-bias": ("visual.proj", False, "text_projection.weight", True),
    "quickgelu": ("visual.proj", False, "text_projection", False),
    "resnet": ("visual.attnpool.c_proj.weight", True, "text_projection", False),
    "timm-linear": ("visual.head.proj.weight", False, "text.text_projection", False),
    "timm-linear-bias": ("visual.head.proj.weight", True, "text.text_projection", False),
    "timm-mlp": ("visual.head.mlp.fc2.weight", False, "text.text_projection", False),
    "timm-rotary-pool": ("visual.head.pool.proj.weight", True, "text.text_projection", False),
    "timm-own-classifier": ("visual.trunk.fc.weight", True, "text.text_projection", False),
    "convnext": ("visual.head.proj.weight", False, "text_projection", False),
    "eva": ("visual.trunk.head.weight", True, "text.text_projection", False),
    "mobileclip": ("visual.trunk.head.fc.weight", True, "text.text_projection", False),
    "timm-no-projection": (None, False, "text.text_projection", False),
    "custom-text": ("visual.proj", False, "text.text_projection", False),
    "sigmoid": ("visual.proj", False, "text.text_projection.weight", True),
    "siglip": (None, False, "text.text_projection.weight", True),
    "clipa": ("visual.proj", False, "text_projection", False),
    "nonscalar": ("visual.proj", False, "text.text_projection", False),
    "no-text-projection": ("visual.proj", False, None, False),
    "coca": ("visual.proj", False, "text.text_projection", False),
    "hf-linear": ("visual.proj", False, "text.proj.weight", False),
    "hf-mlp": ("visual.proj", False, "text.proj.2.weight", False),
    "hf-identity": ("visual.proj", False, None, False),
}
every_family = pytest.mark.parametrize("family", FAMILIES)


def embeddings(model, head, images, tokens):
    image = normalize(model.image_features(images) @ head.image_weight.T, dim=-1)
    return image, normalize(model.text_features(tokens) @ head.text_weight.T, dim=-1)


def encoded(module, images, tokens):
    with torch.no_grad():
        return module.encode_image(images, normalize=True), module.encode_text(tokens, normalize=True)


def edited(head: Head, model) -> Head:
    """The head with every number changed that the model's checkpoint has a place for."""
    noise = 0.1 * torch.randn(head.size, generator=torch.Generator().manual_seed(2))
    new = head.replace(head.vector() + noise)
    return Head(
        new.image_weight if model.image.name else head.image_weight,
        new.text_weight if model.text.name else head.text_weight,
        new.logit_scale,
        new.logit_bias,
    )


@every_family
def test_head_on_features_is_the_models_own_embedding(make_model, images, family):
    model = make_model(family)
    batch, tokens = images(model), model.tokenize(TEXTS)
    for ours, theirs in zip(embeddings(model, model.head(), batch, tokens), encoded(model.model, batch, tokens)):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


@every_family
def test_projection_is_the_towers_last_linear_map(make_model, family):
    model = make_model(family)
    image, text = ((half.name, half.bias is not None) for half in (model.image, model.text))
    assert (*image, *text) == PLACES[family]


@every_family
def test_saved_checkpoint_loads_with_plain_open_clip(make_model, images, tmp_path, family):
    model = make_model(family)
    batch, tokens = images(model), model.tokenize(TEXTS)
    head = edited(model.head(), model)
    path = tmp_path / "edited.pt"  # .safetensors: test_families.py
    model.save_checkpoint(path, head)
    loaded, _, _ = open_clip.create_model_and_transforms(model.name, pretrained=str(path), pretrained_text=False)
    for ours, theirs in zip(embeddings(model, head, batch, tokens), encoded(loaded.eval(), batch, tokens)):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
    torch.testing.assert_close(loaded.logit_scale.reshape(()), head.logit_scale)
    assert {path.name, "open_clip_config.json"} <= set(os.listdir(tmp_path))
    assert not list(tmp_path.glob("*.part"))


@every_family
def test_features_leave_the_model_as_it_was(make_model, images, family):
    model = make_model(family)
    before = {name: value.clone() for name, value in model.model.state_dict().items()}
    features = model.image_features(images(model)), model.text_features(model.tokenize(TEXTS))
    assert not any(half.requires_grad for half in features)
    after = model.model.state_dict()
    torch.testing.assert_close(dict(after), before, atol=0, rtol=0, equal_nan=True)  # open_clip leaves some unset


# open_clip itself cannot make a model whose text projection has a bias in mixed precision.
@pytest.mark.parametrize(
    ("family", "precision"),
    [
        *((family, "bf16") for family in ("vit", "resnet", "custom-text", "timm-linear")),
        *((family, "pure_bf16") for family in ("vit", "resnet", "timm-linear-bias", "sigmoid")),
    ],
)
def test_half_precision_features_and_head_are_float32(make_model, images, family, precision):
    model = make_model(family, precision)
    head, batch = model.head(), images(model)
    image, text = embeddings(model, head, batch, model.tokenize(TEXTS))
    assert {image.dtype, text.dtype, head.image_weight.dtype, head.logit_scale.dtype} == {torch.float32}
    theirs = encoded(model.model, batch.bfloat16(), model.tokenize(TEXTS))
    torch.testing.assert_close(image, theirs[0].float(), atol=2e-2, rtol=0)
    torch.testing.assert_close(text, theirs[1].float(), atol=2e-2, rtol=0)


@pytest.mark.parametrize("family", ["timm-no-projection", "siglip", "hf-identity", "no-text-projection"])
def test_changed_identity_cannot_be_written_back(make_model, family):
    model = make_model(family)
    head = model.head()
    with pytest.raises(ValueError, match="no projection of its own"):
        model.with_head(head.replace(head.vector() * 1.5))


def test_head_of_another_model_is_refused(make_model):
    model, other, siglip = make_model("vit"), make_model("resnet"), make_model("sigmoid")
    with pytest.raises(ValueError, match="image weight is"):
        model.with_head(other.head())
    with pytest.raises(ValueError, match="logit bias"):
        model.with_head(siglip.head())


def test_loss_follows_the_logit_bias(make_model):
    assert make_model("vit").loss == "clip" and make_model("vit").head().logit_bias is None
    assert make_model("sigmoid").loss == "siglip" and make_model("sigmoid").head().logit_bias.shape == ()


def test_fingerprint_follows_name_and_weights(make_model):
    model = make_model("vit")
    first = model.fingerprint
    assert first == make_model("vit").fingerprint != make_model("custom-text").fingerprint
    renamed = wrap_model(model.model, model.preprocess, model.tokenizer, name="other")
    assert renamed.fingerprint != first
    with torch.no_grad():
        model.model.visual.proj[3, 3] += 1e-3
    assert model.fingerprint != first


@pytest.mark.parametrize("family", ["vit", "hf-linear"])
def test_truncated_counts_only_texts_longer_than_the_context(make_model, family):
    model = make_model(family)
    special = 2 if family == "vit" else 0
    texts = ["a", " ".join(["a"] * (12 - special)), " ".join(["a"] * (13 - special)), " ".join(["a"] * 50)]
    assert model.truncated(texts, model.tokenize(texts)).tolist() == [False, False, True, True]


def test_truncated_is_false_where_the_tokenizer_cannot_tell(make_model):
    model = make_model("vit")
    plain = wrap_model(model.model, model.preprocess, lambda texts: model.tokenizer(texts), name="vit")
    assert not plain.truncated(["a " * 50], plain.tokenize(["a " * 50])).any()


def test_wrapping_anything_else_is_refused():
    with pytest.raises(ValueError, match="encode_image"):
        wrap_model(torch.nn.Linear(2, 2), None, None, name="linear")


def test_checkpoint_suffix_is_checked(make_model, tmp_path):
    with pytest.raises(ValueError, match="safetensors"):
        make_model("vit").save_checkpoint(tmp_path / "model.bin")


def test_failed_save_leaves_the_old_checkpoint(make_model, tmp_path, monkeypatch):
    model = make_model("vit")
    path = tmp_path / "model.pt"
    model.save_checkpoint(path)
    written = path.read_bytes()

    def fail(state, part):
        part.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        model.save_checkpoint(path, overwrite=True)
    assert path.read_bytes() == written


def test_packaged_models_load_by_name():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from fiftyone_ecif.models import load_model

        assert load_model("ecif-tiny").head().image_weight.shape[0] == 64


@every_family
def test_a_model_says_before_any_work_whether_a_changed_head_has_a_place(make_model, family):
    model = make_model(family)
    if model.image.name and model.text.name:
        model.check_editable()
    else:
        with pytest.raises(ValueError, match="no projection of its own"):
            model.check_editable()
