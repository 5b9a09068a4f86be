"""open_clip's description of a model of two towers: one of timm's for images, one of Hugging Face for texts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def description(
    image_tower: str,
    encoder: Path | str,
    image_size: int,
    preprocess: Mapping[str, Any],
    dimension: int = 384,
    context_length: int = 32,
    pooler: str = "mean_pooler",
) -> dict[str, Any]:
    """The content of an ``open_clip_config.json``; both towers end in a linear projection.

    Args:
        image_tower: timm's name of the image tower
        encoder: folder, or name on the hub, of the text encoder's configuration and tokenizer
        image_size: side of the images, in pixels
        preprocess: the image tower's mean, std and interpolation
        dimension: of the shared space
        context_length: tokens that a text is cut or padded to
        pooler: what open_clip makes of the encoder's tokens: "mean_pooler", "cls_pooler" or "max_pooler"
    """
    return {
        "model_cfg": {
            "embed_dim": dimension,
            "vision_cfg": {
                "timm_model_name": image_tower,
                "timm_model_pretrained": False,
                "timm_pool": "avg",
                "timm_proj": "linear",
                "timm_proj_bias": True,
                "image_size": image_size,
            },
            "text_cfg": {
                "hf_model_name": str(encoder),
                "hf_tokenizer_name": str(encoder),
                "hf_pooler_type": pooler,
                "hf_proj_type": "linear",
                "context_length": context_length,
            },
            "custom_text": True,
        },
        "preprocess_cfg": {
            "mean": list(preprocess["mean"]),
            "std": list(preprocess["std"]),
            "interpolation": preprocess["interpolation"],
            "resize_mode": "shortest",
        },
    }
