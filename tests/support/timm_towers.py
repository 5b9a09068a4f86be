"""Tiny members of timm's families of image towers, registered with timm under names that begin with "tiny_"."""

import pytest

timm = pytest.importorskip("timm")
from timm.models import register_model  # noqa: E402 - timm may be absent
from timm.models.convnext import ConvNeXt  # noqa: E402
from timm.models.eva import Eva  # noqa: E402
from timm.models.fastvit import FastVit  # noqa: E402
from timm.models.vision_transformer import VisionTransformer  # noqa: E402

OWN = ("pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir")
SIDE, PATCH = 32, 16
TRANSFORMER = dict(img_size=SIDE, patch_size=PATCH, embed_dim=32, depth=1, num_heads=2)


def made(tower: type, kwargs: dict, **settings):
    """A tower with what ``timm.create_model`` passes on."""
    model = tower(**settings, **{name: value for name, value in kwargs.items() if name not in OWN})
    model.default_cfg = model.pretrained_cfg = {}
    return model


@register_model
def tiny_convnext(**kwargs):
    return made(ConvNeXt, kwargs, depths=(1, 1, 1, 1), dims=(8, 8, 16, 16))


@register_model
def tiny_eva(**kwargs):
    return made(Eva, kwargs, **TRANSFORMER, use_rot_pos_emb=True, qkv_fused=False, swiglu_mlp=True)


@register_model
def tiny_fastvit(**kwargs):
    return made(
        FastVit, kwargs, layers=(1, 1, 1, 1), embed_dims=(8, 8, 16, 16), token_mixers=("repmixer",) * 4,
        mlp_ratios=(2, 2, 2, 2),
    )  # fmt: skip


@register_model
def tiny_siglip(**kwargs):
    return made(VisionTransformer, {"global_pool": "map", **kwargs}, **TRANSFORMER, class_token=False)
