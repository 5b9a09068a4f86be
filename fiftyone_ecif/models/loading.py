"""Loading an open_clip model by its name and a tag or checkpoint, with errors in plain words."""

from __future__ import annotations

import difflib
import zipfile
from pathlib import Path

import open_clip
import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from fiftyone_ecif.models.contrastive import ContrastiveModel, Preprocess, Tokenizer
from fiftyone_ecif.notes import note

_PRECISIONS = ("fp32", "fp16", "bf16", "pure_fp16", "pure_bf16")
_SHOWN = 4


def load_model(
    name: str, pretrained: str | Path | None = None, device: str | torch.device = "cpu", precision: str = "fp32"
) -> ContrastiveModel:
    """Load an open_clip model.

    Args:
        name: open_clip's name of the architecture, e.g. "ViT-B-32", or "hf-hub:…", "local-dir:…"
        pretrained: open_clip's tag, e.g. "laion2b_s34b_b79k", or the path of a checkpoint (.pt, .safetensors); None
            gives random weights and a warning. A model named "hf-hub:…" or "local-dir:…" comes with weights: None
            takes those, and a checkpoint replaces them
        device: "cpu", "cuda", "cuda:1", ...
        precision: "fp32", "fp16", "bf16", "pure_fp16" or "pure_bf16", as in open_clip

    Returns:
        a :class:`ContrastiveModel` in eval mode

    Raises:
        ValueError: if the name, tag, device or precision is unknown, or the checkpoint does not fit
        ConnectionError: if the weights or the tokenizer cannot be downloaded
    """
    if isinstance(name, nn.Module):
        raise ValueError("This model is already loaded: use wrap_model(model, preprocess, tokenizer, name=...).")
    if not isinstance(name, str):
        raise ValueError(f"name must be open_clip's name of a model, not {name!r}.")
    if precision not in _PRECISIONS:
        raise ValueError(f"Precision {precision!r} is unknown; choose one of {', '.join(_PRECISIONS)}.")
    _check_device(device)
    pretrained = None if pretrained is None else str(pretrained)
    described = ":" in name  # a hub or a folder holds the architecture, the tokenizer and mostly the weights
    if not described:
        name = name.replace("/", "-")
        _check_name(name)
    checkpoint = _checkpoint_path(name, pretrained)
    if pretrained is None and not described:
        note(f"{name} gets random weights: pass a tag or a checkpoint as pretrained.")
    shapes = {} if checkpoint is None else _checkpoint_shapes(checkpoint)
    try:
        if described:
            model, preprocess = _create_described(name, checkpoint, device, precision)
        else:
            model, preprocess = _create(name, pretrained, device, precision)
    except Exception as error:
        raise _explained(error, name, pretrained, precision, shapes) from error
    return ContrastiveModel(model, preprocess, _tokenizer(name), name, pretrained or (name if described else None))


def _create_described(
    name: str, checkpoint: Path | None, device: str | torch.device, precision: str
) -> tuple[nn.Module, Preprocess]:
    """Make a model from a description, with the weights beside it or those of a checkpoint."""
    if checkpoint is None:
        return _create(name, None, device, precision, require_pretrained=True)
    model, preprocess = _create(name, None, device, precision, load_weights=False)
    open_clip.load_checkpoint(model, str(checkpoint))  # open_clip ignores ``pretrained`` for such a name
    return model, preprocess


def _create(
    name: str, pretrained: str | None, device: str | torch.device, precision: str, **options: bool
) -> tuple[nn.Module, Preprocess]:
    # With pretrained_text=False, random weights are random in a Hugging Face text tower too.
    model, _, preprocess = open_clip.create_model_and_transforms(
        name, pretrained, device=device, precision=precision, pretrained_text=False, weights_only=True, **options
    )
    return model, preprocess


def _tokenizer(name: str) -> Tokenizer:
    try:
        tokenizer: Tokenizer = open_clip.get_tokenizer(name)
        return tokenizer
    except Exception as error:
        raise ConnectionError(f"The tokenizer of {name} could not be loaded or downloaded: {error}") from error


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


def _checkpoint_path(name: str, pretrained: str | None) -> Path | None:
    """The checkpoint that ``pretrained`` names, or None where it is a tag or None."""
    if pretrained is None or open_clip.is_pretrained_cfg(name, pretrained):
        return None
    if Path(pretrained).is_file():
        return Path(pretrained)
    if ":" in name:
        raise ValueError(
            f"{pretrained!r} is not a file. {name} has weights of its own: leave pretrained out, or pass a checkpoint."
        )
    tags = ", ".join(open_clip.list_pretrained_tags_by_model(name)) or "none"
    raise ValueError(f"{pretrained!r} is neither a file nor a pretrained tag of {name}; its tags: {tags}.")


def _checkpoint_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """The names and shapes of a checkpoint's tensors, read without unpickling.

    open_clip repeats a failed read with fewer precautions, so it must not be given a file that is not plain tensors.
    """
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                return {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118 (not a dict)
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except (SafetensorError, OSError) as error:
        raise ValueError(f"The checkpoint {path} cannot be read: {error}.") from error
    except Exception as error:
        raise ValueError(
            f"The checkpoint {path} cannot be read as plain tensors, and for safety it is not unpickled. "
            f"Save it again as a state dict or as .safetensors. ({type(error).__name__})"
        ) from error
    state = state.get("state_dict", state) if isinstance(state, dict) else {}
    shapes = {str(key): tuple(value.shape) for key, value in state.items() if isinstance(value, torch.Tensor)}
    if not shapes:
        raise ValueError(f"The checkpoint {path} holds no state dict of tensors.")
    return {key.removeprefix("module."): shape for key, shape in shapes.items()}


def _misfit(name: str, found: dict[str, tuple[int, ...]]) -> str:
    """Tell in which keys and shapes a checkpoint differs from its model; empty if it does not."""
    model, _ = _create(name, None, "cpu", "fp32", load_weights=False)
    expected = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    differing = [f"{k} is {found[k]}, not {expected[k]}" for k in expected if k in found and found[k] != expected[k]]
    parts = {
        "missing": [key for key in expected if key not in found],
        "not of this model": [key for key in found if key not in expected],
        "of another shape": differing,
    }
    return "; ".join(
        f"{len(keys)} {what} ({', '.join(keys[:_SHOWN])}{', …' if len(keys) > _SHOWN else ''})"
        for what, keys in parts.items()
        if keys
    )


def _explained(
    error: Exception, name: str, pretrained: str | None, precision: str, shapes: dict[str, tuple[int, ...]]
) -> Exception:
    """The error in plain words; ``shapes`` are those of the model's checkpoint, if it has one."""
    if isinstance(error, OSError) or "download" in str(error).lower():
        what = name if pretrained is None else f"{name} with {pretrained!r}"
        return ConnectionError(
            f"Could not load {what}: {error}. Without a connection, download a checkpoint elsewhere and pass its path "
            "as pretrained."
        )
    if shapes and (misfit := _misfit(name, shapes)):
        return ValueError(f"The checkpoint {pretrained} does not fit {name}: {misfit}.")
    return ValueError(f"open_clip cannot make {name} in {precision}: {error}")
