"""A model's tokenizer: open_clip's own, or one of Hugging Face's out of a folder or the hub."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import open_clip
from huggingface_hub import constants
from open_clip.tokenizer import DEFAULT_CONTEXT_LENGTH, HFTokenizer
from torch import Tensor

from fiftyone_ecif.models.hub import cached_file, require_network

Tokenizer = Callable[..., Tensor]
"""Turns a list of texts, and perhaps a context length, into int64 tokens (B, context_length)."""

_FILES = ("tokenizer_config.json", "tokenizer.json", "sentencepiece.bpe.model", "spiece.model", "vocab.txt")
"""Files of a tokenizer, by one of which its folder in the cache is found."""


def load_tokenizer(
    name: str, text: dict[str, Any], folder: Path | None = None, local_files_only: bool = False
) -> Tokenizer:
    """Make the tokenizer that a model's configuration names.

    Args:
        name: the model's name
        text: its "text_cfg"
        folder: holds the tokenizer's files; None where the configuration says which one of the hub's it is
        local_files_only: whether to download nothing

    Returns:
        the tokenizer

    Raises:
        ConnectionError: if its files are neither on this machine nor to be had
        ValueError: if they are damaged, or a package is missing
    """
    length = text.get("context_length", DEFAULT_CONTEXT_LENGTH)
    source = text.get("hf_tokenizer_name")
    if not source:
        return _open_clips(name, text, length)
    if find_spec("transformers") is None:
        raise ValueError(f"The tokenizer of {name} needs the package transformers: pip install transformers.")
    options = dict(
        context_length=length, tokenizer_mode=text.get("tokenizer_mode"), **(text.get("tokenizer_kwargs") or {})
    )
    if folder is None and Path(source).is_dir():
        folder = Path(source)
    if folder is not None:
        try:
            return _hugging_faces(folder, **options)
        except Exception as error:
            raise ValueError(
                f"{folder} holds no tokenizer that can be read, and {name} needs one (tokenizer.json and "
                f"tokenizer_config.json): {error}"
            ) from error
    found = cached_file(source, *_FILES)
    if found is not None:
        with suppress(Exception):  # only a part of it may be in the cache
            return _hugging_faces(found.parent, **options)
    what = f"The tokenizer {source!r} of {name}"
    require_network(what, constants.ENDPOINT, local_files_only)
    try:
        return _hugging_faces(source, **options)
    except Exception as error:
        raise ConnectionError(f"{what} could not be downloaded: {error}") from error


def _hugging_faces(where: str | Path, **options: Any) -> Tokenizer:
    """A tokenizer out of a folder, for which transformers asks the hub for nothing, or out of a repository."""
    tokenizer: Tokenizer = HFTokenizer(str(where), **options)
    return tokenizer


def _open_clips(name: str, text: dict[str, Any], length: int) -> Tokenizer:
    """open_clip's tokenizer for CLIP, or SigLIP's where the name of a listed architecture says so."""
    if name in open_clip.list_models():
        try:
            tokenizer: Tokenizer = open_clip.get_tokenizer(name, context_length=length)
        except Exception as error:
            raise ConnectionError(f"The tokenizer of {name} could not be downloaded: {error}") from error
        return tokenizer
    own: Tokenizer = open_clip.SimpleTokenizer(context_length=length, **(text.get("tokenizer_kwargs") or {}))
    return own
