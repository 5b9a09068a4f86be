"""What a checkpoint file holds: plain tensors under open_clip's names. Nothing is ever unpickled."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

State = dict[str, Tensor]
"""A model's tensors by name."""

CONTAINERS = ("state_dict", "model_state_dict", "model")
"""Under which of its keys a training program keeps the model's tensors."""

WRAPPERS = ("module.", "model.")
"""What distributed training and Lightning put before each name."""

REMEDY = (
    "A checkpoint of another program can be loaded by that program, and passed as "
    "wrap_model(model, preprocess, tokenizer, name=…)."
)

_COMPILED = "_orig_mod."
_SCALE = "logit_scale"


def read_checkpoint(path: Path) -> State:
    """Read a checkpoint's tensors, as open_clip names them.

    open_clip repeats a failed read with fewer precautions on some versions of torch, so files are read here, and it is
    never given one.

    Args:
        path: a state dict, or what a training program keeps it in; safetensors, or a file of torch

    Returns:
        the tensors by name, on the CPU

    Raises:
        ValueError: if the file is damaged, holds anything but plain data, or has no state dict
    """
    try:
        if path.suffix == ".safetensors":
            content: object = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except (SafetensorError, OSError) as error:
        raise ValueError(f"The checkpoint {path} cannot be read: {error}.") from error
    except Exception as error:
        raise ValueError(
            f"The checkpoint {path} cannot be read as plain tensors, and for safety it is not unpickled. "
            f"Save it again as a state dict or as .safetensors. {REMEDY} ({type(error).__name__})"
        ) from error
    state = _tensors(content)
    if not state:
        raise ValueError(f"The checkpoint {path} holds no state dict of tensors. {REMEDY}")
    return _renamed(state, path)


def _tensors(content: object) -> State:
    """The model's tensors in a file's content; none where it has none."""
    if not isinstance(content, Mapping):
        return {}
    inner = next((content[name] for name in CONTAINERS if isinstance(content.get(name), Mapping)), content)
    return {str(name): value for name, value in inner.items() if isinstance(value, Tensor)}


def _renamed(state: State, path: Path) -> State:
    """The tensors under the names that they have in open_clip's model, which is where its logit scale is."""
    state = {name.replace(_COMPILED, ""): value for name, value in state.items()}
    found = {name.removesuffix(_SCALE) for name in state if f".{name}".endswith(f".{_SCALE}")}
    if not found or "" in found:
        return state
    if len(found) > 1:
        found = {prefix for prefix in found if set(prefix.rstrip(".").split(".")) <= {w[:-1] for w in WRAPPERS}}
    if len(found) != 1:
        raise ValueError(
            f"The checkpoint {path} holds several models. Save the one that is meant as a state dict of its own. "
            f"{REMEDY}"
        )
    prefix = found.pop()
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
