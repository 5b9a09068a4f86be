"""open_clip's modules from a configuration and tensors: open_clip itself opens no file and no connection."""

from __future__ import annotations

import copy
import json
import logging
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import open_clip
import torch
from open_clip.convert import convert_state_dict
from open_clip.model import convert_to_custom_text_state_dict
from open_clip.tokenizer import DEFAULT_CONTEXT_LENGTH
from torch import Tensor, nn

from fiftyone_ecif.models.checkpoint import REMEDY, State
from fiftyone_ecif.models.description import DESCRIPTION
from fiftyone_ecif.models.hub import cached_file, hub_file

_SHOWN = 4
_DEFAULT_IMAGE, _DEFAULT_PATCH, _RESNET_STRIDE = 224, 16, 32
_LOGIT_BIAS = -10.0  # the sigmoid loss's usual start; the checkpoint's own value replaces it


def require_text_tower(name: str, text: dict[str, Any], local_files_only: bool = False) -> None:
    """Make sure that the configuration of a Hugging Face text tower is on this machine.

    Args:
        name: the model's name
        text: its "text_cfg"
        local_files_only: whether to download nothing

    Raises:
        ConnectionError: if it is neither here nor to be had
    """
    tower = text.get("hf_model_name")
    if tower and text_tower_folder(tower) is None:
        what = f"The configuration of {name}'s text tower {tower!r}"
        hub_file(tower, "config.json", what=what, local_files_only=local_files_only)


def text_tower_folder(tower: str) -> Path | None:
    """The folder with the configuration of a Hugging Face model, if it is on this machine."""
    if Path(tower).is_dir():
        return Path(tower)
    found = cached_file(tower, "config.json")
    return None if found is None else found.parent


def build(
    config: dict[str, Any],
    preprocess: Mapping[str, Any] | None = None,
    device: str | torch.device = "cpu",
    precision: str = "fp32",
) -> nn.Module:
    """Make an open_clip model with random weights.

    Args:
        config: open_clip's configuration of its architecture; the configuration of a Hugging Face text tower is on
            this machine
        preprocess: of its images, where it differs from open_clip's default
        device: where its weights are
        precision: as in open_clip

    Returns:
        the module, whose ``visual.preprocess_cfg`` describes its preprocessing
    """
    config = copy.deepcopy(config)
    text = config["text_cfg"]
    if tower := text.get("hf_model_name"):
        text["hf_model_name"] = str(text_tower_folder(tower))  # else transformers asks the hub for a newer one
    with TemporaryDirectory() as folder, _without_open_clips_warnings():
        Path(folder, DESCRIPTION).write_text(json.dumps({"model_cfg": config}), encoding="utf-8")
        model: nn.Module = open_clip.create_model(
            f"local-dir:{folder}",
            load_weights=False,
            pretrained_image=False,
            pretrained_text=False,
            force_preprocess_cfg=dict(preprocess or {}),
            device=device,
            precision=precision,
        )
    return model


def fits(config: dict[str, Any], model: nn.Module) -> bool:
    """Whether a configuration describes a module, by the names and shapes of its tensors."""
    try:
        with torch.device("meta"):
            built = build(config, device="meta")
    except Exception:  # a configuration of another version, or one that looks at its numbers
        return False
    return _shapes(built.state_dict()) == _shapes(model.state_dict())


def of_checkpoint(config: dict[str, Any], state: State, what: str) -> tuple[dict[str, Any], list[str]]:
    """An architecture in the sizes that a checkpoint was trained in, with a logit bias where the checkpoint has one.

    Sizes of timm's towers belong to their names, and stay.

    Args:
        config: open_clip's configuration of the architecture
        state: the checkpoint's tensors
        what: names the checkpoint to the user

    Returns:
        the configuration, and what the user should know
    """
    config, notes = copy.deepcopy(config), []
    size = _image_size(config["vision_cfg"], state)
    if size is not None:
        notes.append(
            f"{what} is made for images of {size} x {size} pixels, not of "
            f"{config['vision_cfg'].get('image_size', _DEFAULT_IMAGE)} as its architecture: its own size is used."
        )
        config["vision_cfg"]["image_size"] = size
    length = _context_length(config["text_cfg"], state)
    if length is not None:
        before = config["text_cfg"].get("context_length", DEFAULT_CONTEXT_LENGTH)
        notes.append(
            f"{what} is made for texts of {length} tokens, not of {before} as its architecture: its own context is "
            "used."
        )
        for part in ("text_cfg", "multimodal_cfg"):
            if part in config:
                config[part]["context_length"] = length
    if "logit_bias" in state and config.get("init_logit_bias") is None:
        config["init_logit_bias"] = _LOGIT_BIAS
    return config, notes


def _image_size(vision: dict[str, Any], state: State) -> int | None:
    """The side of a checkpoint's images, where its position embeddings are of another size than the architecture's."""
    resnet = isinstance(vision.get("layers"), list | tuple)
    positions = state.get("visual.attnpool.positional_embedding" if resnet else "visual.positional_embedding")
    if vision.get("timm_model_name") or positions is None:
        return None
    patch = _pair(_RESNET_STRIDE if resnet else vision.get("patch_size", _DEFAULT_PATCH))
    size = _pair(vision.get("image_size", _DEFAULT_IMAGE))
    count, side = len(positions) - 1, math.isqrt(max(0, len(positions) - 1))
    if count == (size[0] // patch[0]) * (size[1] // patch[1]) or side * side != count or patch[0] != patch[1]:
        return None
    return side * patch[0]


def _context_length(text: dict[str, Any], state: State) -> int | None:
    """The number of a checkpoint's tokens, where it is not the architecture's."""
    positions = state.get("positional_embedding", state.get("text.positional_embedding"))
    if positions is None or text.get("hf_model_name"):
        return None
    length = len(positions) - bool(text.get("embed_cls"))
    return None if length == text.get("context_length", DEFAULT_CONTEXT_LENGTH) else length


def _pair(size: Any) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def fill(model: nn.Module, state: State, what: str, name: str) -> None:
    """Put a checkpoint's tensors into a model, after the conversions that open_clip makes.

    Args:
        model: the open_clip module
        state: the checkpoint's tensors
        what: names the checkpoint in errors
        name: of the architecture, likewise

    Raises:
        ValueError: if they do not fit, naming the tensors
    """
    try:
        state = _converted(model, state)
        model.load_state_dict(state)
    except (RuntimeError, KeyError) as error:
        misfit = _misfit(_shapes(model.state_dict()), _shapes(state)) or str(error)
        raise ValueError(f"{what} does not fit {name}: {misfit}. {REMEDY}") from error


def _converted(model: Any, state: State) -> State:
    """The tensors in open_clip's present form, as in ``open_clip.load_checkpoint``, which takes only files."""
    state = dict(convert_state_dict(model, dict(state)))
    own = model.state_dict()
    if "positional_embedding" in state and "positional_embedding" not in own:
        state = convert_to_custom_text_state_dict(state)
    for name in ("logit_scale", "logit_bias"):  # kept with the shape (1,) by some
        if name in state and name in own and state[name].numel() == 1:
            state[name] = state[name].reshape(own[name].shape)
    if "logit_bias" in own and "logit_bias" not in state and "logit_scale" in state:
        state["logit_bias"] = torch.zeros_like(state["logit_scale"])
    position_ids = "text.transformer.embeddings.position_ids"  # not a part of the model since transformers 4.31
    if position_ids not in own:
        state.pop(position_ids, None)
    return state


def _shapes(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in state.items()}


def _misfit(expected: dict[str, tuple[int, ...]], found: dict[str, tuple[int, ...]]) -> str:
    """Tell in which names and shapes tensors differ from those of a model; empty if they do not."""
    differing = [f"{k} is {found[k]}, not {expected[k]}" for k in expected if k in found and found[k] != expected[k]]
    parts = {
        "missing": [name for name in expected if name not in found],
        "not of this model": [name for name in found if name not in expected],
        "of another shape": differing,
    }
    return "; ".join(
        f"{len(names)} {what} ({', '.join(names[:_SHOWN])}{', …' if len(names) > _SHOWN else ''})"
        for what, names in parts.items()
        if names
    )


@contextmanager
def _without_open_clips_warnings() -> Iterator[None]:
    """Keep open_clip from logging that the model has no weights: it gets them afterwards, or has none to get."""

    def is_other(record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith(("No pretrained weights loaded", "Local config loaded, but no CLIP"))

    root = logging.getLogger()
    root.addFilter(is_other)
    try:
        yield
    finally:
        root.removeFilter(is_other)
