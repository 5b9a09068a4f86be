"""What an architecture's towers take, counted without its weights."""

from __future__ import annotations

import functools
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from fiftyone_ecif.models.building import build, text_tower_folder
from fiftyone_ecif.models.projection import Projection, image_projection, text_projection

_DEFAULT_CONTEXT = 77
"""Tokens of a text where a configuration does not say, as in open_clip."""


@dataclass(frozen=True)
class Architecture:
    """The size of an open_clip model.

    Attributes:
        image_flop: floating-point operations that the features of one image take
        text_flop: likewise, of one text
        weight_bytes: memory of all parameters, in float32
        dims: of the joint space, of an image's features and of a text's: D, F_image, F_text
    """

    image_flop: float
    text_flop: float
    weight_bytes: float
    dims: tuple[int, int, int]


def architecture(name: str) -> Architecture | None:
    """Count what a model takes, by running its towers on torch's meta device, which holds shapes and no numbers.

    Nothing is downloaded. The first call for a name takes about a second, later ones nothing.

    Args:
        name: open_clip's name of the architecture

    Returns:
        :class:`Architecture`; None for a name that open_clip does not list, for a Hugging Face text tower whose
        configuration was never downloaded, and for towers that the meta device cannot run, such as Hugging Face's
        before transformers 5
    """
    if name not in open_clip.list_models():
        return None
    text = open_clip.get_model_config(name)["text_cfg"]
    folder = text_tower_folder(text["hf_model_name"]) if "hf_model_name" in text else None
    if "hf_model_name" in text and folder is None:
        return None
    return _counted(name, folder)


@functools.cache
def _counted(name: str, text_folder: Path | None) -> Architecture | None:
    """See :func:`architecture`; ``text_folder`` holds the configuration of a Hugging Face text tower."""
    config = open_clip.get_model_config(name)
    text = config["text_cfg"]
    try:
        with torch.device("meta"):
            model: Any = build(config, device="meta")
        model.eval()
        if text_folder:
            model.text.transformer.register_forward_pre_hook(_without_mask, with_kwargs=True)
        size = model.visual.image_size
        height, width = (size, size) if isinstance(size, int) else size
        tokens = torch.zeros(1, text.get("context_length", _DEFAULT_CONTEXT), dtype=torch.int64, device="meta")
        image_flop, image_dim = _features(image_projection(model), torch.zeros(1, 3, height, width, device="meta"))
        text_flop, text_dim = _features(text_projection(model), tokens)
    except Exception:  # an architecture may look at its numbers, or need a package that is not installed
        return None
    weight_bytes = sum(parameter.nbytes for parameter in model.parameters())
    return Architecture(image_flop, text_flop, weight_bytes, (config["embed_dim"], image_dim, text_dim))


class _NoModules(nullcontext[None]):
    """Stands in for the counter's record of modules, whose hooks would run in every module of every thread."""

    parents = frozenset({"Global"})


def _features(projection: Projection, inputs: Tensor) -> tuple[int, int]:
    """The operations that a tower's features of one input take, and the features' width."""
    counter = FlopCounterMode(display=False)
    counter.mod_tracker = _NoModules()  # type: ignore[assignment]
    with counter:
        features = projection.features(inputs)
    return counter.get_total_flops(), features.shape[1]


def _without_mask(transformer: nn.Module, inputs: tuple[Any, ...], options: dict[str, Any]) -> Any:
    """A Hugging Face tower's inputs without the mask of padding: it costs nothing, but its numbers are looked at."""
    return inputs, {**options, "attention_mask": None}
