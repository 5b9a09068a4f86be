"""Loading an open_clip model by its name and a tag or checkpoint, with errors in plain words."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import open_clip
import torch
from torch import nn

from fiftyone_ecif.models import preprocessing
from fiftyone_ecif.models.building import build, fill, of_checkpoint, require_text_tower
from fiftyone_ecif.models.checkpoint import read_checkpoint
from fiftyone_ecif.models.contrastive import ContrastiveModel
from fiftyone_ecif.models.description import DESCRIPTION, Description
from fiftyone_ecif.models.hub import WEIGHTS, hub_file, tag_file
from fiftyone_ecif.models.tokenizer import load_tokenizer
from fiftyone_ecif.notes import note

_PRECISIONS = ("fp32", "fp16", "bf16", "pure_fp16", "pure_bf16")
_SHOWN = 4
_HUB, _FOLDER = "hf-hub:", "local-dir:"

_PREFERRED = (
    *("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "open_clip_pytorch_model.bin"),
    *("open_clip_pytorch_model.pth", "model.safetensors", "pytorch_model.bin", "pytorch_model.pth", "model.pth"),
)
"""Under which names open_clip looks for the weights of a folder, and in which order."""


def load_model(
    name: str,
    pretrained: str | Path | None = None,
    device: str | torch.device = "cpu",
    precision: str = "fp32",
    *,
    preprocess: Mapping[str, Any] | None = None,
    local_files_only: bool = False,
) -> ContrastiveModel:
    """Load an open_clip model; its weights are read as plain tensors, wherever they come from.

    Args:
        name: open_clip's name of the architecture, e.g. "ViT-B-32", or "hf-hub:…", "local-dir:…"
        pretrained: open_clip's tag, e.g. "laion2b_s34b_b79k", or the path of a checkpoint (.pt, .safetensors); None
            gives random weights and a warning. A model named "hf-hub:…" or "local-dir:…" comes with weights: None
            takes those, and a checkpoint replaces them
        device: "cpu", "cuda", "cuda:1", ...
        precision: "fp32", "fp16", "bf16", "pure_fp16" or "pure_bf16", as in open_clip
        preprocess: settings of the images' preprocessing that go before those that belong to the weights, as in
            :func:`~fiftyone_ecif.models.preprocessing.checked_preprocess`
        local_files_only: whether to download nothing

    Returns:
        a :class:`ContrastiveModel` in eval mode

    Raises:
        ValueError: if the name, tag, device, precision or preprocessing is unknown, or the checkpoint does not fit
        ConnectionError: if the weights or the tokenizer are not on this machine, and cannot or may not be downloaded
    """
    if isinstance(name, nn.Module):
        raise ValueError("This model is already loaded: use wrap_model(model, preprocess, tokenizer, name=...).")
    _check_kinds(name=name, precision=precision)
    if pretrained is not None and not isinstance(pretrained, Path):
        _check_kinds(pretrained=pretrained)
    if precision not in _PRECISIONS:
        raise ValueError(f"Precision {precision!r} is unknown; choose one of {', '.join(_PRECISIONS)}.")
    _check_device(device)
    given = preprocessing.checked_preprocess(preprocess or {})
    source = _source(name, pretrained, local_files_only)
    # What is small comes first: where it cannot be had, nothing large is downloaded or built.
    require_text_tower(source.name, source.config["text_cfg"], local_files_only)
    tokenizer: Any = load_tokenizer(source.name, source.config["text_cfg"], source.folder, local_files_only)
    model, config, notes = _filled(source, given, device, precision)
    for each in notes:
        note(each)
    if (length := config["text_cfg"].get("context_length")) is not None:
        tokenizer.context_length = length  # the checkpoint's own
    transform = preprocessing.transform(model)
    again = {"name": source.name, "pretrained": source.pretrained, "precision": precision, "preprocess": given}
    return ContrastiveModel(model, transform, tokenizer, source.name, source.pretrained, config, again)


@dataclass(frozen=True)
class _Source:
    """Where the parts of a model come from.

    Attributes:
        name: of the model, with an absolute path where it has one
        config: open_clip's configuration of its architecture
        preprocess: settings of its images' preprocessing; None where they are not known
        weights: finds the file of its weights, by a download where need be; gives None for random ones
        pretrained: the tag or the checkpoint's absolute path; None for the weights that come with a name
        folder: holds the files of a Hugging Face tokenizer; None where they are the hub's
        notes: what the user should know
    """

    name: str
    config: dict[str, Any]
    preprocess: dict[str, Any] | None
    weights: Callable[[], Path | None]
    pretrained: str | None = None
    folder: Path | None = None
    notes: list[str] = field(default_factory=list)


def _filled(
    source: _Source, given: dict[str, Any], device: str | torch.device, precision: str
) -> tuple[nn.Module, dict[str, Any], list[str]]:
    """Make a model with its weights.

    Args:
        source: where they come from
        given: settings of the preprocessing that go before the source's
        device: where the weights are to be
        precision: in which they are kept

    Returns:
        the module, its configuration, and what the user should know
    """
    weights, config, notes = source.weights(), source.config, list(source.notes)
    what = f"The checkpoint {weights}"
    state = None if weights is None else read_checkpoint(weights)
    if state is not None:
        config, sizes = of_checkpoint(config, state, what)
        notes += sizes
    if source.preprocess is None and not given:
        notes.append(preprocessing.unknown(str(weights), source.name))
    try:
        model = build(config, (source.preprocess or {}) | given, device, precision)
    except Exception as error:
        raise ValueError(f"open_clip cannot make {source.name} in {precision}: {error}") from error
    if state is not None:
        fill(model, state, what, source.name)
    if torch.device(device).type == "cpu":  # depthwise convolutions run twice as fast
        model.get_submodule("visual").to(memory_format=torch.channels_last)
    return model, config, notes


def _source(name: str, pretrained: str | Path | None, local_files_only: bool) -> _Source:
    """Find out where a model comes from; of a hub's model only the description is downloaded."""
    wanted = None if pretrained is None or str(pretrained) == name else str(pretrained)  # old records repeat the name
    if ":" in name:
        return _described(name, wanted, local_files_only)
    return _listed(name.replace("/", "-"), wanted, local_files_only)


def _listed(name: str, pretrained: str | None, local_files_only: bool) -> _Source:
    """A model whose architecture open_clip lists."""
    _check_name(name)
    config = open_clip.get_model_config(name)
    if pretrained is None:
        random = f"{name} gets random weights: pass a tag or a checkpoint as pretrained."
        return _Source(name, config, preprocessing.of_architecture(name) or {}, lambda: None, notes=[random])
    if open_clip.is_pretrained_cfg(name, pretrained):
        known, notes = preprocessing.of_tag(name, pretrained), _activation_notes(name, pretrained, config)
        return _Source(
            name, config, known, partial(tag_file, name, pretrained, local_files_only), pretrained, None, notes
        )
    checkpoint = Path(pretrained).absolute()
    if not checkpoint.is_file():
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(name)) or "none"
        raise ValueError(f"{pretrained!r} is neither a file nor a pretrained tag of {name}; its tags: {tags}.")
    known_beside, notes = preprocessing.beside(checkpoint, name, config)
    known_settings = preprocessing.of_architecture(name) if known_beside is None else known_beside
    return _Source(name, config, known_settings, lambda: checkpoint, str(checkpoint), None, notes)


def _described(name: str, pretrained: str | None, local_files_only: bool) -> _Source:
    """A model that a folder describes, or a repository of the hub."""
    checkpoint = None if pretrained is None else Path(pretrained).absolute()
    if checkpoint is not None and not checkpoint.is_file():
        raise ValueError(
            f"{pretrained!r} is not a file. {name} has weights of its own: leave pretrained out, or pass a checkpoint."
        )
    if name.startswith(_FOLDER):
        folder = tokenizer = Path(name.removeprefix(_FOLDER)).absolute()
        name, find = f"{_FOLDER}{folder}", partial(_weights_in, folder)
    elif name.startswith(_HUB):
        repository, tokenizer = name.removeprefix(_HUB), None
        hub = partial(hub_file, repository, local_files_only=local_files_only)
        folder = hub(DESCRIPTION, what=f"The description of {name}").parent
        find = partial(hub, *WEIGHTS, what=f"The weights of {name}")
    else:
        raise ValueError(f"{name!r} is no model's name: before the colon is {_HUB[:-1]} or {_FOLDER[:-1]}.")
    description = Description.read(folder)
    known = description.preprocess
    settings = None if known is None else preprocessing.of_description(known, folder)
    weights = find if checkpoint is None else lambda: checkpoint
    return _Source(
        name, description.model, settings, weights, None if checkpoint is None else str(checkpoint), tokenizer
    )


def _weights_in(folder: Path) -> Path:
    """The file of a folder's weights: the one that open_clip takes."""
    found = {path.name: path for path in folder.iterdir() if path.suffix in (".safetensors", ".bin", ".pth")}
    preferred = [found[name] for name in _PREFERRED if name in found]
    if preferred or len(found) == 1:
        return (preferred or list(found.values()))[0]
    if not found:
        raise ValueError(
            f"{folder} holds no weights (.safetensors, .bin or .pth): pass the path of a checkpoint as pretrained."
        )
    raise ValueError(
        f"{folder} holds several weights ({', '.join(sorted(found)[:_SHOWN])}): pass the path of one as pretrained, or "
        f"name it {_PREFERRED[0]}."
    )


def _activation_notes(name: str, tag: str, config: Mapping[str, Any]) -> list[str]:
    """What to say of weights that were trained with another activation than the architecture has."""
    if not open_clip.get_pretrained_cfg(name, tag).get("quick_gelu") or config.get("quick_gelu"):
        return []
    right = f"{name}-quickgelu"
    remedy = f"load them as {right}" if right in open_clip.list_models() else "their embeddings will be a little off"
    return [f"The weights {tag!r} were trained with QuickGELU, and {name} computes another activation: {remedy}."]


def _check_kinds(**texts: object) -> None:
    """Raise a ValueError that names the argument unless each is a text."""
    for argument, value in texts.items():
        if not isinstance(value, str):
            raise ValueError(f"{argument} must be a text, not {type(value).__name__}.")


def _check_device(device: str | torch.device) -> None:
    try:
        torch.empty(0, device=device)
    except Exception as error:
        raise ValueError(f"Device {str(device)!r} is not available here ({error}); try device='cpu'.") from error


def _check_name(name: str) -> None:
    known = open_clip.list_models()
    if name not in known:
        lower = {model.lower(): model for model in known}
        nearest = [lower[match] for match in difflib.get_close_matches(name.lower(), lower, n=_SHOWN, cutoff=0.4)]
        hint = f" Nearest: {', '.join(nearest)}." if nearest else " open_clip.list_models() lists all."
        raise ValueError(f"open_clip has no model named {name!r}.{hint}")
