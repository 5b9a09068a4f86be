"""Tiny random-weight models of every family of towers, registered with open_clip, and inputs and scopes of them.

A test module or ``conftest.py`` imports the fixtures it uses; ``seeded`` then holds for each of its tests.
"""

import json
import warnings

import open_clip
import pytest
import torch
from torch.func import functional_call
from torch.nn.functional import normalize

from fiftyone_ecif.core import TensorPairs
from fiftyone_ecif.models import load_model, lora_scope, parameter_scope
from tests.support import timm_towers  # noqa: F401 - registers tiny towers
from tests.support.tokenizers import WORDS, write_tokenizer

HEAD_NAMES = r"^visual\.proj$|^text_projection$"
EMBED = 24
VIT = {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16}
RESNET = {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "head_width": 32, "patch_size": None}
TEXT = {"context_length": 12, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}


def timm(model: str, **options) -> dict:
    return {"image_size": 64, "timm_model_name": model, "timm_model_pretrained": False, "timm_pool": "avg", **options}


def custom(vision: dict, text: dict, **options) -> dict:
    return {"embed_dim": EMBED, "custom_text": True, "vision_cfg": vision, "text_cfg": text, **options}


FAMILIES = {
    "vit": {"embed_dim": EMBED, "vision_cfg": VIT, "text_cfg": TEXT},
    "vit-text-bias": {"embed_dim": EMBED, "vision_cfg": VIT, "text_cfg": {**TEXT, "proj_bias": True}},
    "quickgelu": {"embed_dim": EMBED, "vision_cfg": VIT, "text_cfg": TEXT, "quick_gelu": True},
    "resnet": {"embed_dim": EMBED, "vision_cfg": RESNET, "text_cfg": TEXT},
    "timm-linear": custom(timm("resnet10t", timm_pool="avg", timm_proj="linear"), TEXT),
    "timm-linear-bias": custom(timm("resnet10t", timm_pool="avg", timm_proj="linear", timm_proj_bias=True), TEXT),
    "timm-mlp": custom(timm("resnet10t", timm_pool="avg", timm_proj="mlp"), TEXT),
    "timm-rotary-pool": custom(timm("resnet10t", timm_pool="rot_attn", timm_proj=""), TEXT),
    "timm-own-classifier": custom(timm("resnet10t", timm_pool="avg", timm_proj=""), TEXT),
    "convnext": {"embed_dim": EMBED, "vision_cfg": timm("tiny_convnext", timm_proj="linear"), "text_cfg": TEXT},
    "eva": custom(timm("tiny_eva", image_size=32, timm_pool="token", timm_proj=""), TEXT),
    "mobileclip": custom(timm("tiny_fastvit", timm_proj=""), {**TEXT, "no_causal_mask": True}),
    "timm-no-projection": {**custom(timm("resnet10t", timm_pool="avg", timm_proj="none"), TEXT), "embed_dim": 512},
    "custom-text": custom(VIT, {**TEXT, "pool_type": "last", "no_causal_mask": True}),
    "sigmoid": custom(VIT, {**TEXT, "proj_bias": True}, init_logit_bias=-10, init_logit_scale=2.3),
    "siglip": {
        **custom(
            timm("tiny_siglip", image_size=32, timm_pool="map", timm_proj="none"),
            {**TEXT, "pool_type": "last", "no_causal_mask": True, "proj_bias": True, "hf_tokenizer_name": "siglip"}
            | {"tokenizer_kwargs": {"clean": "canonicalize"}},
            init_logit_bias=-10,
        ),
        "embed_dim": 32,
    },
    "clipa": {
        "embed_dim": EMBED,
        "vision_cfg": VIT,
        "text_cfg": {**TEXT, "hf_tokenizer_name": "clipa", "tokenizer_kwargs": {"strip_sep_token": True}},
    },
    "nonscalar": custom(VIT, TEXT, nonscalar_logit_scale=True, init_logit_bias=-1.0),
    "no-text-projection": {**custom(VIT, {**TEXT, "proj_type": "none"}), "embed_dim": 16},
    "coca": {
        **custom(
            {**VIT, "attentional_pool": True, "attn_pooler_heads": 2, "output_tokens": True},
            {**TEXT, "embed_cls": True, "output_tokens": True},
        ),
        "multimodal_cfg": {
            "context_length": 12,
            "vocab_size": 49408,
            "width": 16,
            "heads": 2,
            "layers": 1,
            "attn_pooler_heads": 2,
        },
    },
    "hf-linear": custom(VIT, {"context_length": 12, "hf_proj_type": "linear", "hf_pooler_type": "mean_pooler"}),
    "hf-mlp": custom(VIT, {"context_length": 12, "hf_proj_type": "mlp", "hf_pooler_type": "cls_pooler"}),
    "hf-identity": custom(VIT, {"context_length": 12, "hf_proj_type": None, "hf_pooler_type": "mean_pooler"}),
}


def write_hugging_face_tower(folder) -> None:
    """A one-layer RoBERTa's configuration and a word-level tokenizer, as a local model folder."""
    transformers = pytest.importorskip("transformers")
    transformers.RobertaConfig(
        vocab_size=40,
        hidden_size=EMBED,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=20,
        pad_token_id=1,
    ).save_pretrained(folder)
    write_tokenizer(folder, "plain")


def image_size(model) -> tuple[int, int]:
    size = model.model.visual.image_size
    return (size, size) if isinstance(size, int) else tuple(size)


def inputs(model, count, seed=5):
    """Images and tokens of ``count`` pairs, images in float64.

    The image and the text of a pair are made from the same one of four patterns, with noise.
    """
    generator = torch.Generator().manual_seed(seed)
    size = image_size(model)
    kind = torch.arange(count) % 4
    patterns = torch.randn(4, 3, *size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    images = patterns[kind] + 0.5 * torch.randn(count, 3, *size, generator=generator, dtype=torch.float64)
    texts = [f"{WORDS[k]} {WORDS[4 + int(torch.randint(8, (), generator=generator))]} {WORDS[8 + k]}" for k in kind]
    return images, model.tokenize(texts)


def embedded(scope, vector, images, tokens):
    """u and v by the model's own methods, differentiable in θ."""
    values = dict(scope.split(vector))

    class Both(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = scope.module

        def forward(self):
            return self.model.encode_image(images), self.model.encode_text(tokens)

    torch.backends.mha.set_fastpath_enabled(False)
    try:
        image, text = functional_call(Both(), {f"model.{name}": value for name, value in values.items()}, ())
    finally:
        torch.backends.mha.set_fastpath_enabled(True)
    return normalize(image, dim=-1), normalize(text, dim=-1)


def similarity_of(scope, vector, images, tokens):
    """S by definition, differentiable in the parameter vector."""
    u, v = embedded(scope, vector, images, tokens)
    values = scope.split(vector)
    result = values["logit_scale"].exp() * u @ v.T
    return result + values["logit_bias"] if "logit_bias" in values else result


@pytest.fixture(autouse=True)
def seeded():
    """Seeds torch's global generator and silences the warning of random weights."""
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*random weights.*")
        yield


@pytest.fixture(scope="session")
def families(tmp_path_factory):
    """Registers all of FAMILIES as ``tiny-<family>``."""
    folder, tower = tmp_path_factory.mktemp("configs"), tmp_path_factory.mktemp("roberta")
    write_hugging_face_tower(tower)
    tokenizers = tmp_path_factory.mktemp("tokenizers")
    for kind in ("siglip", "clipa"):
        write_tokenizer(tokenizers / kind, kind)
    for family, config in FAMILIES.items():
        text = config["text_cfg"]
        if family.startswith("hf-"):
            text = {**text, "hf_model_name": str(tower), "hf_tokenizer_name": str(tower)}
        elif "hf_tokenizer_name" in text:
            text = {**text, "hf_tokenizer_name": str(tokenizers / text["hf_tokenizer_name"])}
        (folder / f"tiny-{family}.json").write_text(json.dumps({**config, "text_cfg": text}))
    open_clip.add_model_config(folder)


@pytest.fixture
def make_model(families):
    """Makes the tiny model of a family, with seeded weights and no zero biases."""

    def make(family: str, precision: str = "fp32"):
        torch.manual_seed(0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = load_model(f"tiny-{family}", precision=precision)
        with torch.no_grad():
            for projection in (model.image, model.text):  # open_clip starts these biases at zero
                if projection.bias is not None:
                    model.model.get_parameter(projection.bias).normal_(std=0.1)
        return model

    return make


@pytest.fixture
def make_scope(make_model):
    """Makes a tiny float64 model and a scope of it."""

    def make(family, scope, **options):
        model = make_model(family)
        model.model.double()
        with torch.no_grad():
            model.model.logit_scale.fill_(1.5)
        if scope == "lora":
            pairs = TensorPairs(*inputs(model, 12))
            return model, lora_scope(model, pairs, rank=2, training_steps=3, batch_size=6, **options)
        return model, parameter_scope(model, scope, **options)

    return make


@pytest.fixture
def images():
    """Makes a batch of preprocessed images for a model."""

    def make(model, count: int = 3):
        return torch.randn(count, 3, *image_size(model), generator=torch.Generator().manual_seed(1))

    return make
