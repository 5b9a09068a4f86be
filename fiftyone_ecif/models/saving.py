"""A checkpoint and what belongs beside it, so that open_clip loads the folder as one."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from open_clip.tokenizer import HFTokenizer, SimpleTokenizer
from safetensors.torch import save_file
from torch import nn

from fiftyone_ecif.models.building import fits
from fiftyone_ecif.models.checkpoint import State
from fiftyone_ecif.models.description import DESCRIPTION, Description, differences
from fiftyone_ecif.models.hub import WEIGHTS
from fiftyone_ecif.models.preprocessing import SETTINGS, Preprocess, in_full, of_description, transform
from fiftyone_ecif.models.tokenizer import Tokenizer

SUFFIXES = (".safetensors", ".pt")


def weights_path(path: str | os.PathLike[str]) -> Path:
    """The file that a checkpoint's weights go to.

    Args:
        path: of the file, or of the folder that is to hold it under the name that open_clip prefers

    Raises:
        ValueError: if its suffix is none of a checkpoint's
    """
    path = Path(path)
    if path.is_dir() or not path.suffix:
        return path / WEIGHTS[0]
    if path.suffix not in SUFFIXES:
        raise ValueError(f"A checkpoint's name ends in {' or '.join(SUFFIXES)}, not {path.name!r}.")
    return path


def describe(
    module: nn.Module, config: dict[str, Any] | None, preprocess: Preprocess, tokenizer: Tokenizer
) -> tuple[Description | None, str]:
    """The description that open_clip makes the same model from.

    Args:
        module: the open_clip module
        config: open_clip's configuration of it, if it is known
        preprocess: its validation transform
        tokenizer: its tokenizer

    Returns:
        the description, or None; and what cannot be described, in words, where it is None
    """
    settings: Any = getattr(module.get_submodule("visual"), "preprocess_cfg", None)
    if config is None or not fits(config, module):
        return None, "architecture"
    # A transform has no equality, but torchvision writes out all its settings.
    if settings is None or repr(transform(module)) != repr(preprocess):
        return None, "preprocessing"
    expected = HFTokenizer if config["text_cfg"].get("hf_tokenizer_name") else SimpleTokenizer
    if not isinstance(tokenizer, expected):
        return None, "tokenizer"
    return Description(config, {name: settings[name] for name in SETTINGS if name in settings}), ""


def files_beside(description: Description | None, tokenizer: Tokenizer) -> dict[str, bytes]:
    """What belongs beside a described model's weights: the description, and a Hugging Face tokenizer's files.

    Args:
        description: of the model, if it can be described
        tokenizer: its tokenizer

    Returns:
        the files' contents by name; none without a description
    """
    if description is None:
        return {}
    with TemporaryDirectory() as made:
        if isinstance(tokenizer, HFTokenizer):
            tokenizer.save_pretrained(made)
        files = {file.name: file.read_bytes() for file in sorted(Path(made).iterdir())}
    return files | {DESCRIPTION: description.text().encode()}


def check_free(path: Path, beside: dict[str, bytes], overwrite: bool) -> None:
    """Refuse to write over what is there.

    Args:
        path: of the weights
        beside: contents of the files that are to be written beside them, by name
        overwrite: whether what is there may be replaced

    Raises:
        ValueError: if something is in the way; a file that says the same is not
    """
    if overwrite:
        return
    if path.exists():
        raise ValueError(f"There is a file {str(path)!r} already: choose another name, or pass overwrite=True.")
    for name, content in beside.items():
        if (path.parent / name).exists() and not _says_the_same(path.parent / name, content):
            raise ValueError(
                f"{path.parent / name} is of another model: choose another folder for the checkpoint, or pass "
                "overwrite=True."
            )


def save(path: Path, state: State, beside: dict[str, bytes]) -> None:
    """Write weights and what belongs beside them, each file whole or not at all, the weights last.

    Args:
        path: of the weights, ends in ".safetensors" or ".pt"
        state: contiguous tensors on the CPU that share no memory
        beside: contents of the other files, by name; those that say the same already stay as they are
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for name, content in beside.items():
        file = path.parent / name
        if not file.exists() or not _says_the_same(file, content):
            _write(file, partial(_write_bytes, content))
    _write(path, partial(save_file if path.suffix == ".safetensors" else torch.save, state))


def _write(path: Path, write: Callable[[Path], object]) -> None:
    part = path.with_name(f"{path.name}.part")
    write(part)
    part.replace(path)


def _write_bytes(content: bytes, path: Path) -> None:
    path.write_bytes(content)


def _says_the_same(file: Path, content: bytes) -> bool:
    """Whether a file's content means the same as another one."""
    if file.name != DESCRIPTION:
        return file.read_bytes() == content
    try:
        found, ours = Description.read(file.parent), Description.parse(content.decode(), file)
        preprocess = [in_full(of_description(each.preprocess or {}, file.parent)) for each in (found, ours)]
    except ValueError:
        return False
    return not differences(found.model, ours.model) and preprocess[0] == preprocess[1]
