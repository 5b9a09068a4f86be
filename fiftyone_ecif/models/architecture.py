"""What an architecture's towers take, counted without its weights."""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip
import torch
from huggingface_hub import try_to_load_from_cache
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

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
        configuration was never downloaded, and for towers that the meta device cannot run
    """
    if name not in open_clip.list_models():
        return None
    text = open_clip.get_model_config(name)["text_cfg"]
    folder = None
    if "hf_model_name" in text:
        folder = _downloaded_folder(text["hf_model_name"])
        if folder is None:
            return None
    return _counted(name, folder)


def _downloaded_folder(model: str) -> str | None:
    """The folder with the configuration of a Hugging Face model, if it is on this machine."""
    if Path(model).is_dir():
        return model
    found = try_to_load_from_cache(model, "config.json")
    return str(Path(found).parent) if isinstance(found, str) else None


@functools.cache
def _counted(name: str, text_folder: str | None) -> Architecture | None:
    """See :func:`architecture`; ``text_folder`` holds the configuration of a Hugging Face text tower."""
    config = open_clip.get_model_config(name)
    text = config["text_cfg"]
    # With a folder in place of the model's name, transformers does not ask the hub for a newer configuration.
    options = {"text_cfg": {**text, "hf_model_name": text_folder, "hf_model_pretrained": False}} if text_folder else {}
    try:
        with torch.device("meta"), _without_open_clips_warning():
            model = open_clip.create_model(
                name, device="meta", load_weights=False, pretrained_image=False, pretrained_text=False, **options
            )
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


class _NoModules(nullcontext):
    """Stands in for the counter's record of modules, whose hooks would run in every module of every thread."""

    parents = frozenset({"Global"})


def _features(projection: Projection, inputs: Tensor) -> tuple[int, int]:
    """The operations that a tower's features of one input take, and the features' width."""
    counter = FlopCounterMode(display=False)
    counter.mod_tracker = _NoModules()
    with counter:
        features = projection.features(inputs)
    return counter.get_total_flops(), features.shape[1]


def _without_mask(transformer: nn.Module, inputs: tuple, options: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
    """A Hugging Face tower's inputs without the mask of padding: it costs nothing, but its numbers are looked at."""
    return inputs, {**options, "attention_mask": None}


@contextmanager
def _without_open_clips_warning() -> Iterator[None]:
    """Keep open_clip from logging that the model has random weights: it has none."""

    def is_other(record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith("No pretrained weights loaded")

    root = logging.getLogger()
    root.addFilter(is_other)
    try:
        yield
    finally:
        root.removeFilter(is_other)
